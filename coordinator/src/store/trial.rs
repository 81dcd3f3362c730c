//! Changes that are tried out: a store carries them out, says what they did, and undoes them.
//!
//! What is tried out, and who may, the edges decide.

use std::future::Future;

tokio::task_local! {
    static IS_TRIAL: bool;
}

/// Nothing of what this asks of a store stays, if it is a trial: the store answers what it would have
/// done. The one writer carries trials out among the real changes, so that an answer is exact for the
/// moment in which it is given.
pub async fn trying_out<F: Future>(is_trial: bool, what: F) -> F::Output {
    IS_TRIAL.scope(is_trial, what).await
}

/// Whether what is being done is only tried out.
pub(super) fn is_trial() -> bool {
    IS_TRIAL.try_with(|is_trial| *is_trial).unwrap_or(false)
}
