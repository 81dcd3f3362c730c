//! Attempts end: reported by their worker, or because their lease ran out; and back-offs end.
//!
//! What the work becomes is the domain's.

use domain::attempt::{AttemptEnd, AttemptEvent, AttemptState, AttemptTransition, Charge};
use domain::ids::{LeaseToken, WorkId, WorkerId};
use domain::planted::{Mistake, is_planted};
use domain::run::RunEvent;

use super::closing::close_attempt;
use super::convert::{parse_id, signed, unsigned};
use super::database::{Pool, query_as, query_scalar};
use super::error::from_driver;
use super::log_rules;
use super::members::{self, Member};
use super::micro_batch;
use super::work::{WorkRow, advance, advance_row};
use super::writer::{Command, Tx};
use crate::actor::Actor;
use crate::store::{Backoff, Changed, Finished, StoreError};

#[derive(Debug, sqlx::FromRow)]
struct AttemptRow {
    work_id: String,
    worker_id: String,
    attempt_state: String,
    ended_as: Option<String>,
    n_results: i64,
    #[sqlx(flatten)]
    work: WorkRow,
}

impl AttemptRow {
    fn state(&self, token: LeaseToken) -> Result<AttemptState, StoreError> {
        AttemptState::from_label(&self.attempt_state, token, self.ended_as.as_deref())
            .ok_or_else(|| StoreError::Bug(format!("a row of attempts spells no state: {self:?}")))
    }
}

/// An attempt with its work, and how many results that work has: of a run the last checkpoint, which
/// is a data point of the last step.
async fn attempt_of(tx: &mut Tx, token: LeaseToken) -> Result<Option<AttemptRow>, StoreError> {
    query_as(include_str!("attempt.sql"))
        .bind(signed(token.0))
        .fetch_optional(&mut tx.conn)
        .await
        .map_err(from_driver)
}

pub(super) struct FinishAttempt {
    pub(super) token: LeaseToken,
    pub(super) end: AttemptEnd,
    pub(super) message: String,
}

impl Command for FinishAttempt {
    type Answer = Finished;
    const IS_KEPT_APART: bool = false;

    async fn run(self, tx: &mut Tx) -> Result<Finished, StoreError> {
        let Some(row) = attempt_of(tx, self.token).await? else {
            return match members::held(&mut tx.conn, self.token).await? {
                Some(member) => self.end_member(tx, &member).await,
                None => Ok(Finished::Stale),
            };
        };
        tx.actor = Actor::Worker(parse_id(&row.worker_id)?);
        let mut changed = Changed::default();
        match row.state(self.token)?.on(self.token, AttemptEvent::Ended { end: self.end }) {
            AttemptTransition::Stale if !is_planted(Mistake::EndsAreNotFenced) => {
                Ok(Finished::Stale)
            }
            AttemptTransition::Stale | AttemptTransition::Stays => {
                Ok(Finished::Ended { end: self.end, changed })
            }
            AttemptTransition::To(_) => {
                // A success has something to show, which was reported before it.
                let is_empty = self.end == AttemptEnd::Succeeded && row.n_results == 0;
                let (end, message) = if is_empty {
                    (AttemptEnd::Bug, "it ended as succeeded without a result")
                } else {
                    (self.end, self.message.as_str())
                };
                let holder = parse_id(&row.worker_id)?;
                let mut row = row;
                if end == AttemptEnd::WorkerLost {
                    row.work.pause_after_loss()?;
                }
                remember_where(tx, &row, &holder, end).await?;
                end_row(tx, self.token, row, (end, message), &holder, &mut changed).await?;
                Ok(Finished::Ended { end, changed })
            }
        }
    }
}

impl FinishAttempt {
    /// What a member beside rank 0 says of itself. One that leaves in order lets go of its slot,
    /// and rank 0 is asked for a checkpoint; any other end is that of the attempt.
    async fn end_member(&self, tx: &mut Tx, member: &Member) -> Result<Finished, StoreError> {
        tx.actor = Actor::Worker(member.worker.clone());
        let mut changed = Changed::default();
        let end = self.end;
        match end {
            AttemptEnd::Succeeded | AttemptEnd::Cancelled | AttemptEnd::Preempted => {
                members::leave(tx, self.token).await?;
                changed.preempted.push((member.attempt_token, member.lead.clone()));
            }
            _ => {
                let Member { attempt_token, rank, worker, .. } = member;
                let message = format!("rank {rank} on `{worker}`: {}", self.message);
                if let Some(mut row) = attempt_of(tx, *attempt_token).await? {
                    if end == AttemptEnd::WorkerLost {
                        row.work.pause_after_loss()?;
                    }
                    remember_where(tx, &row, worker, end).await?;
                    let ended = (end, message.as_str());
                    end_row(tx, *attempt_token, row, ended, worker, &mut changed).await?;
                    // Its own right is not one to be told of.
                    changed.revoked.retain(|(token, _)| *token != self.token);
                    changed.revoked.push((*attempt_token, member.lead.clone()));
                }
            }
        }
        Ok(Finished::Ended { end, changed })
    }
}

/// Remembers where an attempt failed, so that the next one goes elsewhere. Only what a worker says
/// counts: one whose lease ran out was silent, which is no sign that the work fails there, and a
/// moment without a network must not keep it from an idle machine.
async fn remember_where(
    tx: &mut Tx,
    row: &AttemptRow,
    worker: &WorkerId,
    end: AttemptEnd,
) -> Result<(), StoreError> {
    let work = parse_id(&row.work_id)?;
    match end {
        AttemptEnd::Preempted => log_rules::avoid_nobody(tx, &work).await,
        AttemptEnd::WorkerLost
        | AttemptEnd::BadData
        | AttemptEnd::BadCheckpoint
        | AttemptEnd::Bug => log_rules::avoid(tx, &work, worker, end).await,
        // It is over; or the next attempt takes fewer sequences at a time, wherever it is.
        AttemptEnd::Succeeded
        | AttemptEnd::Cancelled
        | AttemptEnd::Diverged
        | AttemptEnd::OutOfMemory => Ok(()),
    }
}

/// Ends a live attempt whose row was read in this transaction, on account of this worker.
async fn end_row(
    tx: &mut Tx,
    token: LeaseToken,
    mut row: AttemptRow,
    (end, message): (AttemptEnd, &str),
    at_fault: &WorkerId,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let work = parse_id(&row.work_id)?;
    if end.charge() != Charge::Nothing
        && log_rules::apply(tx, &work, token, at_fault, message).await?
    {
        row.work.give_up()?;
    }
    let was_open = close_attempt(tx, token, end, message, changed).await?;
    // Before it moves on: those that go on from it take its numerics over.
    if let (AttemptEnd::OutOfMemory, WorkId::Run(run)) = (end, &work) {
        micro_batch::halve(tx, run).await?;
    }
    let event = RunEvent::AttemptEnded { token, end };
    let has_moved = advance_row(tx, &work, &row.work, event, changed).await?;
    if was_open && has_moved {
        Ok(())
    } else {
        Err(StoreError::Bug(format!(
            "the lease {token} of `{work}` is not that of an open attempt"
        )))
    }
}

pub(super) const LEASES_OF_WORKER: &str = "SELECT lease_token
FROM work
WHERE state = 'leased' AND lease_worker_id = ?
ORDER BY lease_token";

/// Every token that a worker holds, ended in one way.
pub(super) async fn end_attempts_of(
    tx: &mut Tx,
    worker: &WorkerId,
    end: AttemptEnd,
    message: &str,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let held: Vec<i64> = query_scalar(LEASES_OF_WORKER)
        .bind(worker.as_str())
        .fetch_all(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    for token in held {
        let token = LeaseToken(unsigned(token));
        end_held(tx, token, (end, message), worker, changed).await?;
        changed.revoked.push((token, worker.clone()));
    }
    // A gang is as good as the worst of its members.
    for (token, lead) in members::attempts_with(tx, worker).await? {
        let message = format!("of a member on `{worker}`: {message}");
        end_held(tx, token, (end, &message), worker, changed).await?;
        changed.revoked.push((token, lead));
    }
    Ok(())
}

/// Ends a live attempt that its worker says nothing of, and moves its work on.
async fn end_held(
    tx: &mut Tx,
    token: LeaseToken,
    ended: (AttemptEnd, &str),
    at_fault: &WorkerId,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let row = attempt_of(tx, token).await?.filter(|row| row.ended_as.is_none());
    let row = row
        .ok_or_else(|| StoreError::Bug(format!("the lease {token} is that of no open attempt")))?;
    end_row(tx, token, row, ended, at_fault, changed).await
}

pub(super) struct ExpireLeases(pub(super) Vec<LeaseToken>);

impl Command for ExpireLeases {
    type Answer = Changed;
    const IS_KEPT_APART: bool = false;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        for mut token in self.0 {
            let (mut why, mut at_fault) = ("its lease ran out".to_owned(), None);
            // A gang is as good as the worst of its members.
            if let Some(member) = members::held(&mut tx.conn, token).await? {
                token = member.attempt_token;
                at_fault = Some(member.worker.clone());
                why = format!("the lease of rank {} on `{}` ran out", member.rank, member.worker);
            }
            let Some(row) = attempt_of(tx, token).await?.filter(|row| row.ended_as.is_none())
            else {
                continue;
            };
            let holder = parse_id(&row.worker_id)?;
            let at_fault = at_fault.unwrap_or_else(|| WorkerId::clone(&holder));
            let ended = (AttemptEnd::WorkerLost, why.as_str());
            end_row(tx, token, row, ended, &at_fault, &mut changed).await?;
            changed.revoked.push((token, holder));
        }
        Ok(changed)
    }
}

pub(super) struct Requeue(pub(super) Vec<WorkId>);

impl Command for Requeue {
    type Answer = Changed;
    const IS_KEPT_APART: bool = false;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        if is_planted(Mistake::BackoffForever) {
            return Ok(changed);
        }
        for work in self.0 {
            advance(tx, &work, RunEvent::BackoffElapsed, &mut changed).await?;
        }
        Ok(changed)
    }
}

pub(super) const BACKOFFS: &str =
    "SELECT id, backoff_until_ms, backoff_until_ms - updated_at_ms AS pause_ms
FROM work
WHERE state = 'backoff'
ORDER BY backoff_until_ms, id
LIMIT ?";

/// The work that is backing off. Both ends of a pause were written by one reading of the clock, so
/// that its length is right whatever the clock does.
pub(super) async fn backoffs(pool: &Pool, limit: u32) -> Result<Vec<Backoff>, StoreError> {
    let rows: Vec<(String, i64, i64)> =
        query_as(BACKOFFS).bind(limit).fetch_all(pool).await.map_err(from_driver)?;
    rows.into_iter()
        .map(|(id, until_ms, pause_ms)| {
            let pause_ms = u64::try_from(pause_ms).unwrap_or_default();
            Ok(Backoff { work: parse_id(&id)?, pause_ms, until_ms })
        })
        .collect()
}
