//! `grant`: placements become leases; and what the scheduler reads before.
//!
//! Which placement is wise is `scheduler::policy`'s.

use std::collections::BTreeMap;

use domain::ids::{AttemptNumber, LeaseToken, WorkerId};
use domain::run::RunEvent;

use super::convert::{from_json, parse_id, signed, unsigned};
use super::database::{Pool, query, query_as, query_scalar};
use super::error::from_driver;
use super::work::{WorkRow, advance};
use super::workers::state_of;
use super::writer::{Command, Tx};
use crate::scheduler::policy::{Placement, QueuedWork};
use crate::store::{Changed, Granted, LiveLease, Numerics, StoreError, WorkerState};

pub(super) struct Grant(pub(super) Vec<Placement>);

impl Command for Grant {
    type Answer = Vec<Granted>;

    async fn run(self, tx: &mut Tx) -> Result<Vec<Granted>, StoreError> {
        let mut active = BTreeMap::new();
        let mut granted = Vec::with_capacity(self.0.len());
        for placement in self.0 {
            let is_active = if let Some(is_active) = active.get(&placement.worker) {
                *is_active
            } else {
                let state = state_of(tx, &placement.worker).await?;
                let is_active = state == Some(WorkerState::Active);
                active.insert(placement.worker.clone(), is_active);
                is_active
            };
            if is_active {
                granted.extend(grant_one(tx, placement).await?);
            }
        }
        Ok(granted)
    }
}

async fn grant_one(tx: &mut Tx, placement: Placement) -> Result<Option<Granted>, StoreError> {
    let row = WorkRow::load(tx, &placement.work).await?;
    let Some(row) = row.filter(WorkRow::may_be_granted) else {
        return Ok(None);
    };
    let token: i64 = query_scalar(
        "UPDATE lease_tokens
SET last_token = last_token + 1
WHERE only_row = 1
RETURNING last_token",
    )
    .fetch_one(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    let attempt = u32::try_from(row.n_attempts + 1)
        .map_err(|_| StoreError::Bug(format!("`{}` has too many attempts", placement.work)))?;
    let granted = Granted {
        token: LeaseToken(unsigned(token)),
        work: placement.work,
        attempt: AttemptNumber(attempt),
        worker: placement.worker,
    };
    let event = RunEvent::Granted {
        token: granted.token,
        attempt: granted.attempt,
        worker: granted.worker.clone(),
    };
    if !advance(tx, &granted.work, event, &mut Changed::default()).await? {
        return Ok(None);
    }
    insert_attempt(tx, &granted).await?;
    Ok(Some(granted))
}

async fn insert_attempt(tx: &mut Tx, granted: &Granted) -> Result<(), StoreError> {
    query(
        "INSERT INTO attempts (work_id, attempt, lease_token, worker_id, state, granted_at_ms)
VALUES (?, ?, ?, ?, 'granted', ?)",
    )
    .bind(granted.work.as_str())
    .bind(granted.attempt.0)
    .bind(signed(granted.token.0))
    .bind(granted.worker.as_str())
    .bind(tx.now_ms)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(())
}

#[derive(Debug, sqlx::FromRow)]
struct QueuedRow {
    id: String,
    priority: i64,
    cost_flops: f64,
    recipe: Option<String>,
    numerics_json: Option<String>,
}

impl QueuedRow {
    fn into_work(self) -> Result<QueuedWork, StoreError> {
        let numerics: Option<Numerics> =
            self.numerics_json.map(|text| from_json(&text, "numerics_json")).transpose()?;
        Ok(QueuedWork {
            work: parse_id(&self.id)?,
            priority: i32::try_from(self.priority).unwrap_or_default(),
            cost_flops: self.cost_flops,
            recipe: self.recipe,
            numerics,
        })
    }
}

/// The head of the queue, in two reads so that each follows the index and stops early.
pub(super) async fn queue_head(pool: &Pool, limit: u32) -> Result<Vec<QueuedWork>, StoreError> {
    let mut rows: Vec<QueuedRow> = query_as(
        "SELECT work.id, work.priority, work.cost_flops, runs.recipe, CAST(NULL AS TEXT) AS numerics_json
FROM work
LEFT JOIN evaluations ON evaluations.id = work.id
LEFT JOIN runs ON runs.id = evaluations.run_id
WHERE work.state = 'queued' AND work.is_held = 0 AND work.kind <> 'run'
ORDER BY work.priority DESC, work.cost_flops DESC
LIMIT ?",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    let runs: Vec<QueuedRow> = query_as(
        "SELECT work.id, work.priority, work.cost_flops, runs.recipe, runs.numerics_json
FROM work
JOIN runs ON runs.id = work.id
WHERE work.state = 'queued' AND work.is_held = 0 AND work.kind = 'run'
ORDER BY work.priority DESC, work.cost_flops DESC
LIMIT ?",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    rows.extend(runs);
    rows.into_iter().map(QueuedRow::into_work).collect()
}

/// The leases that are live.
pub(super) async fn live_leases(pool: &Pool) -> Result<Vec<LiveLease>, StoreError> {
    let rows: Vec<(i64, String, String)> = query_as(
        "SELECT lease_token, id, lease_worker_id
FROM work
WHERE state = 'leased'
ORDER BY lease_token",
    )
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    rows.into_iter()
        .map(|(token, work, worker)| {
            Ok(LiveLease {
                token: LeaseToken(unsigned(token)),
                work: parse_id(&work)?,
                worker: parse_id::<WorkerId>(&worker)?,
            })
        })
        .collect()
}
