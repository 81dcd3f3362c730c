//! The long poll: always one open, also with no free slot, so that directives come at once.
//!
//! It does not carry assignments out; the slots do.

use domain::attempt::AttemptEnd;
use domain::ids::LeaseToken;
use proto::to_wire;
use proto::v1::{self, directive};

use super::AgentError;
use super::board::Placement;
use super::shared::Shared;
use crate::client::{Backoff, ClientError, ErrorClass};

/// How long a poll may stay open. Shorter than the idle limits of common proxies.
const MAX_WAIT_MS: u64 = 30_000;

/// Polls for ever; returns only what makes going on useless.
pub(super) async fn run(shared: &Shared) -> AgentError {
    let mut backoff = Backoff::default();
    loop {
        let n_known = shared.n_registrations();
        match poll(shared).await {
            Ok(response) => {
                backoff = Backoff::default();
                take(shared, response).await;
            }
            Err(error) => match error.class() {
                ErrorClass::RetryLater => backoff.wait().await,
                ErrorClass::RegisterAgain => {
                    if let Err(error) = shared.register_again(n_known).await {
                        return error;
                    }
                }
                ErrorClass::GiveUp => return error.into(),
            },
        }
    }
}

/// One poll. It is given up when it asks for the wrong thing: no work although a slot became free,
/// or work although none is left. A poll for work is not given up because a further slot became
/// free, since an assignment could be on its way: were there more work, it would be answered.
async fn poll(shared: &Shared) -> Result<v1::NextResponse, ClientError> {
    let n_free_slots = shared.board.borrow().n_free_slots();
    let request =
        v1::NextRequest { worker_id: shared.worker_id(), n_free_slots, max_wait_ms: MAX_WAIT_MS };
    let is_wrong = |n_free_now: u32| match n_free_slots {
        0 => n_free_now > 0,
        n_asked => n_free_now < n_asked,
    };
    tokio::select! {
        biased;
        response = shared.client.next(request) => response,
        () = shared.until(|board| is_wrong(board.n_free_slots())) => Ok(v1::NextResponse::default()),
    }
}

async fn take(shared: &Shared, response: v1::NextResponse) {
    for directive in response.directives {
        match directive.kind {
            Some(directive::Kind::Stop(stop)) => {
                shared.stop(stop.lease_token, &stop.reason).await;
            }
            Some(directive::Kind::Preempt(preempt)) => {
                shared.preempt(preempt.lease_token, preempt.deadline_ms).await;
            }
            Some(directive::Kind::Drain(v1::Drain {})) => shared.drain(),
            None => tracing::warn!("the coordinator sent a directive of a newer version"),
        }
    }
    for assignment in response.assignments {
        let token = assignment.lease_token;
        tracing::info!(work.id = assignment.work_id, attempt = assignment.attempt, "assigned");
        if shared.place(assignment).await == Placement::NoSlot {
            give_back(shared, token).await;
        }
    }
}

/// An assignment that crossed with a drain, or with a trainer's death, goes back at once: nobody
/// should wait for its lease to expire.
async fn give_back(shared: &Shared, token: u64) {
    tracing::warn!(lease.token = token, "no slot is free for an assignment; giving it back");
    let finish =
        to_wire::finish(LeaseToken(token), AttemptEnd::Preempted, "no slot of the worker is free");
    if let Err(error) = shared.client.finish(finish).await {
        tracing::warn!(%error, "could not give an assignment back");
    }
}
