//! The long poll: waits until there is something for a worker, or until its time is up.
//!
//! What lies ready, and for how long, is the leader's.

use std::time::Duration;

use domain::ids::WorkerId;
use proto::v1;
use tokio::time::Instant;

use super::encode;
use super::status::ApiError;
use crate::App;
use crate::leader::{Mail, Poll};
use crate::store::Store as _;

/// The longest wait: shorter than the idle time after which proxies close a silent connection.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// How often an open poll looks for an assignment that was handed over and never heard of.
const REDELIVERY_CHECK: Duration = Duration::from_secs(1);

/// An open poll that closes itself, also when its caller goes away.
struct OpenPoll<'a> {
    app: &'a App,
    worker: &'a WorkerId,
    poll: Poll,
}

impl Drop for OpenPoll<'_> {
    fn drop(&mut self) {
        self.app.leader.close_poll(self.worker, &self.poll);
    }
}

/// Waits for mail and makes the answer of it.
pub(super) async fn next(
    app: &App,
    worker: &WorkerId,
    n_free_slots: u32,
    max_wait: Duration,
) -> Result<v1::NextResponse, ApiError> {
    let unknown = || ApiError::UnknownWorker { worker: worker.clone() };
    let poll = app.leader.open_poll(worker, n_free_slots).ok_or_else(unknown)?;
    let open = OpenPoll { app, worker, poll };
    let deadline = Instant::now() + max_wait.min(LONGEST_WAIT);
    app.nudge.notify_one();
    loop {
        let Some(mail) = app.leader.take_mail(worker, &open.poll) else {
            return if app.leader.knows(worker) {
                Ok(empty())
            } else if app.leader.has_taken_over() {
                Err(unknown())
            } else {
                Err(ApiError::NotLeading)
            };
        };
        let answer = answer(app, mail).await?;
        if !answer.directives.is_empty() || !answer.assignments.is_empty() {
            return Ok(answer);
        }
        tokio::select! {
            () = open.poll.woken() => {}
            () = app.shutdown.cancelled() => return Ok(empty()),
            // An assignment whose answer was lost falls due again without anyone knocking.
            () = tokio::time::sleep_until(deadline.min(Instant::now() + REDELIVERY_CHECK)) => {
                if Instant::now() >= deadline {
                    return Ok(empty());
                }
            }
        }
    }
}

fn empty() -> v1::NextResponse {
    v1::NextResponse::default()
}

/// An assignment whose lease ended while it lay here is not handed over.
async fn answer(app: &App, mail: Mail) -> Result<v1::NextResponse, ApiError> {
    let mut answer = empty();
    answer.directives.extend(mail.directives.into_iter().map(encode::directive));
    for token in mail.tokens {
        match app.store.assignment(token).await? {
            Some(assignment) => answer.assignments.push(encode::assignment(assignment)),
            None => app.leader.ended(token),
        }
    }
    Ok(answer)
}
