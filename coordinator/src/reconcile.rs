//! Closes gaps on a timer: expired leases, due back-offs, lost workers.
//!
//! It is told nothing: it looks at the leader's leases and at the store, and doing it twice is
//! harmless.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use domain::ids::{LeaseToken, WorkId, WorkerId};
use domain::planted::{Mistake, is_planted};
use domain::worker::WorkerState;
use tokio_util::sync::CancellationToken;

use crate::App;
use crate::store::{Store as _, StoreError};

/// So many rounds in a lease term, so that an expiry is noticed a small part of it late.
const ROUNDS_PER_TERM: u64 = 10;

/// The longest pause between rounds: back-offs are as short as a second.
const LONGEST_PAUSE_MS: u64 = 500;

/// The shortest pause between rounds.
const SHORTEST_PAUSE_MS: u64 = 20;

/// So many back-offs are watched at a time; what comes after them is seen when they are over.
const MAX_BACKOFFS: u32 = 5_000;

/// Does a round on each tick of a timer, as long as this coordinator leads.
pub async fn reconcile(app: Arc<App>, lead: CancellationToken) {
    let pause_ms =
        (app.config.lease_term_ms / ROUNDS_PER_TERM).clamp(SHORTEST_PAUSE_MS, LONGEST_PAUSE_MS);
    let pause = Duration::from_millis(pause_ms);
    // Beside the rounds, which may wait long for the store: then others are heard all the same.
    let looks = async {
        loop {
            app.leader.look_at_clock(pause_ms);
            tokio::time::sleep(pause).await;
        }
    };
    let rounds = async {
        loop {
            tokio::select! {
                () = lead.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if let Err(error) = round(&app).await {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "could not reconcile");
            }
        }
    };
    tokio::select! {
        () = rounds => {}
        () = looks => {}
    }
}

/// One round. May be repeated. What fails in one part keeps no other from its turn; the first failure
/// is the answer, and the others are in the log.
pub async fn round(app: &App) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    note(&mut outcome, end_expired(app).await);
    note(&mut outcome, close_lost(app).await);
    note(&mut outcome, requeue_due(app).await);
    note(&mut outcome, repeat(app).await);
    note(&mut outcome, record_seen(app).await);
    outcome
}

fn note(outcome: &mut Result<(), StoreError>, part: Result<(), StoreError>) {
    match part {
        Err(error) if outcome.is_err() => {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "could not reconcile this either");
        }
        Err(error) => *outcome = Err(error),
        Ok(()) => {}
    }
}

/// What a part of a round does to all that it found, or to one of them.
type Part<T> = for<'a> fn(&'a App, &'a [T]) -> Doing<'a>;
type Doing<'a> = Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>;

/// All together; where that fails one by one, for one that cannot be done must not keep the others.
async fn each<T>(app: &App, all: &[T], part: Part<T>) -> Result<(), StoreError> {
    if all.is_empty() {
        return Ok(());
    }
    let Err(error) = part(app, all).await else { return Ok(()) };
    // Of what the store cannot do for the moment it can do none.
    let is_of_the_store = matches!(
        error,
        StoreError::Locked(_)
            | StoreError::DiskFull(_)
            | StoreError::Closed
            | StoreError::NotLeading
            | StoreError::ConnectionLost(_)
    );
    if all.len() == 1 || is_of_the_store {
        return Err(error);
    }
    let mut outcome = Ok(());
    for one in all {
        note(&mut outcome, part(app, std::slice::from_ref(one)).await);
    }
    outcome
}

async fn end_expired(app: &App) -> Result<(), StoreError> {
    let expired = app.leader.begin_to_end();
    let outcome = each(app, &expired, |app, expired| Box::pin(expire(app, expired))).await;
    app.leader.refuse_end(&expired);
    outcome
}

async fn expire(app: &App, expired: &[LeaseToken]) -> Result<(), StoreError> {
    let changed = app.store.expire_leases(expired).await?;
    tracing::warn!(leases.expired = changed.revoked.len(), "leases ran out");
    app.leader.revoke(&changed.revoked);
    // What the store no longer knew as live is no lease either.
    for token in expired {
        app.leader.ended(*token);
    }
    app.nudge.notify_one();
    Ok(())
}

async fn close_lost(app: &App) -> Result<(), StoreError> {
    each(app, &app.leader.lost_workers(), |app, lost| Box::pin(close(app, lost))).await
}

async fn close(app: &App, lost: &[WorkerId]) -> Result<(), StoreError> {
    let changed = app.store.close_lost_workers(lost).await?;
    app.leader.revoke(&changed.revoked);
    for worker in lost {
        tracing::warn!(worker.id = %worker, "a worker was not heard of and is lost");
        app.leader.leave(worker);
        app.artifacts.forget(worker).await;
    }
    app.nudge.notify_one();
    Ok(())
}

async fn requeue_due(app: &App) -> Result<(), StoreError> {
    let found = app.store.backoffs(MAX_BACKOFFS).await?;
    let is_all = found.len() < MAX_BACKOFFS as usize;
    let due = app.leader.due_backoffs(found, is_all);
    each(app, &due, |app, due| Box::pin(requeue(app, due))).await
}

async fn requeue(app: &App, due: &[WorkId]) -> Result<(), StoreError> {
    app.store.requeue(due).await?;
    app.nudge.notify_one();
    Ok(())
}

/// A directive whose answer was lost, or that an earlier leader gave, is given again; and what the
/// leader remembers is set right by what the store has.
async fn repeat(app: &App) -> Result<(), StoreError> {
    if app.leader.is_time_to_repeat() {
        app.leader.preempt(&app.store.held_leases().await?);
        forget_what_is_over(app).await?;
        follow_workers(app).await?;
    }
    Ok(())
}

async fn record_seen(app: &App) -> Result<(), StoreError> {
    let seen = app.leader.take_seen();
    if !seen.is_empty() {
        app.store.record_seen(&seen).await?;
    }
    Ok(())
}

/// A worker that drains in the store and not here would be placed on for ever, and be given nothing:
/// whoever asked for it may have gone away before this was told, or have asked while this took over.
async fn follow_workers(app: &App) -> Result<(), StoreError> {
    for record in app.store.live_workers().await? {
        if record.state == WorkerState::Draining {
            app.leader.drain_as_stored(&record.worker);
        }
    }
    Ok(())
}

/// A right that the store has no longer is none. A caller that went away in the middle of its call
/// may have left one here, and a gang's other members have no report whose answer would tell them.
async fn forget_what_is_over(app: &App) -> Result<(), StoreError> {
    if is_planted(Mistake::SlotForgotten) {
        return Ok(());
    }
    // In this order: what is known here was committed before.
    let known = app.leader.rights();
    let live: BTreeSet<LeaseToken> =
        app.store.live_leases().await?.into_iter().map(|lease| lease.token).collect();
    let over: Vec<_> = known.into_iter().filter(|(token, _)| !live.contains(token)).collect();
    if !over.is_empty() {
        app.leader.revoke(&over);
        app.nudge.notify_one();
    }
    Ok(())
}

/// Takes over what an earlier leader left in the store.
pub async fn take_over(app: &App) -> Result<(), StoreError> {
    let workers = app.store.live_workers().await?;
    let leases = app.store.live_leases().await?;
    tracing::info!(workers = workers.len(), leases = leases.len(), "took over");
    if is_planted(Mistake::NoTermAfterTakeOver) {
        let tokens: Vec<_> = leases.iter().map(|lease| lease.token).collect();
        app.store.expire_leases(&tokens).await?;
    }
    app.leader.take_over(workers, leases);
    app.nudge.notify_one();
    Ok(())
}
