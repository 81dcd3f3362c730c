//! Attempts end: reported by their worker, or because their lease ran out; and back-offs end.
//!
//! What the work becomes is the domain's.

use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, WorkId};
use domain::run::RunEvent;

use super::closing::close_attempt;
use super::convert::{parse_id, signed};
use super::database::{Pool, query_as, query_scalar};
use super::error::from_driver;
use super::micro_batch;
use super::work::{WorkRow, advance, advance_row};
use super::writer::{Command, Tx};
use crate::store::{Changed, Finished, StoreError};

/// Back-offs that end in one transaction; the rest come with the next.
const MAX_BACKOFFS: i64 = 1000;

#[derive(Debug, sqlx::FromRow)]
struct AttemptRow {
    work_id: String,
    worker_id: String,
    ended_as: Option<String>,
    n_results: i64,
    #[sqlx(flatten)]
    work: WorkRow,
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
            return Ok(Finished::Stale);
        };
        let mut changed = Changed::default();
        match &row.ended_as {
            Some(end) if end == self.end.label() => Ok(Finished::Ended { end: self.end, changed }),
            Some(_) => Ok(Finished::Stale),
            None => {
                // A success has something to show, which was reported before it.
                let is_empty = self.end == AttemptEnd::Succeeded && row.n_results == 0;
                let (end, message) = if is_empty {
                    (AttemptEnd::Bug, "it ended as succeeded without a result")
                } else {
                    (self.end, self.message.as_str())
                };
                end_row(tx, self.token, &row, end, message, &mut changed).await?;
                Ok(Finished::Ended { end, changed })
            }
        }
    }
}

/// Ends a live attempt whose row was read in this transaction.
async fn end_row(
    tx: &mut Tx,
    token: LeaseToken,
    row: &AttemptRow,
    end: AttemptEnd,
    message: &str,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let work = parse_id(&row.work_id)?;
    let was_open = close_attempt(tx, token, end, message).await?;
    let event = RunEvent::AttemptEnded { token, end };
    let has_moved = advance_row(tx, &work, &row.work, event, changed).await?;
    if let (AttemptEnd::OutOfMemory, WorkId::Run(run)) = (end, &work) {
        micro_batch::halve(tx, run).await?;
    }
    if was_open && has_moved {
        Ok(())
    } else {
        Err(StoreError::Bug(format!(
            "the lease {token} of `{work}` is not that of an open attempt"
        )))
    }
}

pub(super) struct ExpireLeases(pub(super) Vec<LeaseToken>);

impl Command for ExpireLeases {
    type Answer = Changed;
    const IS_KEPT_APART: bool = false;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        for token in self.0 {
            let Some(row) = attempt_of(tx, token).await?.filter(|row| row.ended_as.is_none())
            else {
                continue;
            };
            let why = "its lease ran out";
            end_row(tx, token, &row, AttemptEnd::WorkerLost, why, &mut changed).await?;
            changed.revoked.push((token, parse_id(&row.worker_id)?));
        }
        Ok(changed)
    }
}

pub(super) struct RequeueDueBackoffs;

impl Command for RequeueDueBackoffs {
    type Answer = Vec<WorkId>;
    const IS_KEPT_APART: bool = false;

    async fn run(self, tx: &mut Tx) -> Result<Vec<WorkId>, StoreError> {
        let due: Vec<String> = query_scalar(
            "SELECT id
FROM work
WHERE state = 'backoff' AND backoff_until_ms <= ?
ORDER BY backoff_until_ms
LIMIT ?",
        )
        .bind(tx.now_ms)
        .bind(MAX_BACKOFFS)
        .fetch_all(&mut tx.conn)
        .await
        .map_err(from_driver)?;
        let mut changed = Changed::default();
        for work in due {
            advance(tx, &parse_id(&work)?, RunEvent::BackoffElapsed, &mut changed).await?;
        }
        Ok(changed.work.into_iter().map(|(work, _)| work).collect())
    }
}

/// Whether some back-off is over.
pub(super) async fn has_due_backoffs(pool: &Pool, now_ms: i64) -> Result<bool, StoreError> {
    let due: Option<i64> = query_scalar(
        "SELECT backoff_until_ms
FROM work
WHERE state = 'backoff' AND backoff_until_ms <= ?
LIMIT 1",
    )
    .bind(now_ms)
    .fetch_optional(pool)
    .await
    .map_err(from_driver)?;
    Ok(due.is_some())
}
