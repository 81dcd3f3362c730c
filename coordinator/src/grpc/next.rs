//! The long poll: waits until there is something for a worker, or until its time is up.
//!
//! What lies ready, and for how long, is the leader's.

use std::sync::Arc;
use std::time::Duration;

use domain::ids::WorkerId;
use proto::{MAX_MESSAGE_BYTES, from_wire, v1};
use tokio::time::Instant;
use tonic::Status;

use super::encode;
use super::status::ApiError;
use crate::App;
use crate::leader::{Mail, Poll};
use crate::store::Store as _;

/// The longest wait: shorter than the idle time after which proxies close a silent connection.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Assignments that go together, in bytes; the rest of a message is for directives.
const MAX_ASSIGNMENT_BYTES: usize = MAX_MESSAGE_BYTES / 10 * 9;

/// An open poll that closes itself, also when its caller goes away.
#[derive(Debug)]
pub struct OpenPoll {
    app: Arc<App>,
    worker: WorkerId,
    poll: Poll,
}

impl Drop for OpenPoll {
    fn drop(&mut self) {
        self.app.leader.close_poll(&self.worker, &self.poll);
    }
}

impl OpenPoll {
    /// Opens a poll as a worker asks for it, which ends an older one of its own.
    pub fn open(app: Arc<App>, worker: &str, n_free_slots: u32) -> Result<Self, Status> {
        if !app.leader.has_taken_over() {
            return Err(ApiError::NotLeading.into());
        }
        let worker = from_wire::worker_id(worker).map_err(ApiError::from)?;
        Ok(Self::begin(app, worker, n_free_slots)?)
    }

    pub(super) fn begin(
        app: Arc<App>,
        worker: WorkerId,
        n_free_slots: u32,
    ) -> Result<Self, ApiError> {
        let Some(poll) = app.leader.open_poll(&worker, n_free_slots) else {
            return Err(ApiError::UnknownWorker { worker });
        };
        // With nothing queued there is nothing to grant to it, and many workers poll.
        if app.leader.may_have_queued() {
            app.nudge.notify_one();
        }
        Ok(Self { app, worker, poll })
    }

    /// What lies ready now; none when nothing does and the poll may go on.
    pub async fn look(&self) -> Result<Option<v1::NextResponse>, Status> {
        Ok(self.look_inside().await?)
    }

    /// Waits until there may be something.
    pub async fn woken(&self) {
        self.poll.woken().await;
    }

    async fn look_inside(&self) -> Result<Option<v1::NextResponse>, ApiError> {
        let leader = &self.app.leader;
        let Some(mail) = leader.take_mail(&self.worker, &self.poll) else {
            return if leader.knows(&self.worker) {
                Ok(Some(empty()))
            } else if leader.has_taken_over() {
                Err(ApiError::UnknownWorker { worker: self.worker.clone() })
            } else {
                Err(ApiError::NotLeading)
            };
        };
        let answer = answer(&self.app, mail).await?;
        let is_empty = answer.directives.is_empty() && answer.assignments.is_empty();
        Ok((!is_empty).then_some(answer))
    }
}

/// Waits for mail and makes the answer of it.
pub(super) async fn wait(
    open: &OpenPoll,
    max_wait: Duration,
) -> Result<v1::NextResponse, ApiError> {
    let deadline = Instant::now() + max_wait.min(LONGEST_WAIT);
    loop {
        // Before the look: a coordinator that stops has given its lead back, and wakes its polls.
        if open.app.shutdown.is_cancelled() {
            return Ok(empty());
        }
        if let Some(answer) = open.look_inside().await? {
            return Ok(answer);
        }
        // What was handed over and not heard of falls due again without anyone knocking.
        let again = open.app.leader.mail_due_in(&open.worker).map(|wait| Instant::now() + wait);
        tokio::select! {
            () = open.woken() => {}
            () = open.app.shutdown.cancelled() => {}
            () = tokio::time::sleep_until(again.map_or(deadline, |at| deadline.min(at))) => {
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

/// An assignment whose lease ended while it lay here is not handed over; one that is too large to
/// go with the others falls due again.
async fn answer(app: &App, mail: Mail) -> Result<v1::NextResponse, ApiError> {
    let mut answer = empty();
    let mut n_bytes = 0;
    answer.directives.extend(mail.directives.into_iter().map(encode::directive));
    for token in mail.tokens {
        match app.store.assignment(token).await {
            // One that cannot be read keeps the others from nobody; its lease runs out.
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(lease.token = token.0, error, "an assignment could not be read");
            }
            Ok(Some(assignment)) => {
                let assignment = encode::assignment(assignment);
                n_bytes += proto::n_bytes(&assignment);
                if answer.assignments.is_empty() || n_bytes < MAX_ASSIGNMENT_BYTES {
                    answer.assignments.push(assignment);
                }
            }
            Ok(None) => app.leader.ended(token),
        }
    }
    Ok(answer)
}
