//! What is done to its end, whether or not its caller still waits.
//!
//! It decides nothing about what that is.

use std::future::Future;

/// Does something that a caller who goes away must not leave half done: the store may have committed
/// it, and the leader would never be told. Should it panic, so does the caller.
pub(crate) async fn to_the_end<T: Send + 'static>(
    what: impl Future<Output = T> + Send + 'static,
) -> T {
    match tokio::spawn(what).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends, and every task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_has_begun_is_done_though_its_caller_has_gone() {
        let (begun, has_begun) = oneshot::channel();
        let (may_end, end) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let caller = tokio::spawn(to_the_end(async move {
            begun.send(()).unwrap();
            end.await.unwrap();
            done.send(()).unwrap();
        }));
        has_begun.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        may_end.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), is_done).await.unwrap().unwrap();
    }
}
