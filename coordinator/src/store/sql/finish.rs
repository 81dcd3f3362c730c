//! Attempts end: reported by their worker, or because their lease ran out; and back-offs end.
//!
//! What the work becomes is the domain's.

use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, WorkId};
use domain::run::RunEvent;

use super::convert::{parse_id, signed};
use super::database::{Pool, query_as, query_scalar};
use super::error::from_driver;
use super::work::{advance, end_attempt};
use super::writer::{Command, Tx};
use crate::store::{Changed, Finished, StoreError};

/// Back-offs that end in one transaction; the rest come with the next.
const MAX_BACKOFFS: i64 = 1000;

#[derive(Debug, sqlx::FromRow)]
struct AttemptRow {
    work_id: String,
    worker_id: String,
    ended_as: Option<String>,
}

async fn attempt_of(tx: &mut Tx, token: LeaseToken) -> Result<Option<AttemptRow>, StoreError> {
    query_as("SELECT work_id, worker_id, ended_as FROM attempts WHERE lease_token = ?")
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

    async fn run(self, tx: &mut Tx) -> Result<Finished, StoreError> {
        let Some(row) = attempt_of(tx, self.token).await? else {
            return Ok(Finished::Stale);
        };
        let mut changed = Changed::default();
        match row.ended_as {
            Some(end) if end == self.end.label() => Ok(Finished::Ended { end: self.end, changed }),
            Some(_) => Ok(Finished::Stale),
            None => {
                let work = parse_id(&row.work_id)?;
                let (end, message) = if has_result(tx, &work, self.end).await? {
                    (self.end, self.message)
                } else {
                    (AttemptEnd::Bug, "it ended as succeeded without a result".to_owned())
                };
                end_attempt(tx, self.token, &work, end, &message, &mut changed).await?;
                Ok(Finished::Ended { end, changed })
            }
        }
    }
}

/// A success has something to show, which was reported before it.
async fn has_result(tx: &mut Tx, work: &WorkId, end: AttemptEnd) -> Result<bool, StoreError> {
    if end != AttemptEnd::Succeeded {
        return Ok(true);
    }
    let sql = match work {
        // Its last checkpoint is a data point of the last step.
        WorkId::Run(_) => {
            "SELECT COUNT(*)
FROM runs
JOIN checkpoints ON checkpoints.run_id = runs.id AND checkpoints.step = runs.steps
WHERE runs.id = ?"
        }
        WorkId::Evaluation(_) => {
            "SELECT COUNT(*) FROM evaluations WHERE id = ? AND result_name IS NOT NULL"
        }
        WorkId::Preparation(_) => {
            "SELECT COUNT(*) FROM preparations WHERE id = ? AND manifest_key IS NOT NULL"
        }
    };
    let n_results: i64 =
        query_scalar(sql).bind(work.as_str()).fetch_one(&mut tx.conn).await.map_err(from_driver)?;
    Ok(n_results > 0)
}

pub(super) struct ExpireLeases(pub(super) Vec<LeaseToken>);

impl Command for ExpireLeases {
    type Answer = Changed;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        for token in self.0 {
            let Some(row) = attempt_of(tx, token).await?.filter(|row| row.ended_as.is_none())
            else {
                continue;
            };
            let work = parse_id(&row.work_id)?;
            let why = "its lease ran out";
            end_attempt(tx, token, &work, AttemptEnd::WorkerLost, why, &mut changed).await?;
            changed.revoked.push((token, parse_id(&row.worker_id)?));
        }
        Ok(changed)
    }
}

pub(super) struct RequeueDueBackoffs;

impl Command for RequeueDueBackoffs {
    type Answer = Vec<WorkId>;

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
