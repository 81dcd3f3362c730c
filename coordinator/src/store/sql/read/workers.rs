//! Workers and what they do.
//! Whether a worker is lost is not decided here.

use std::collections::HashMap;

use api::{AssignmentView, WorkerView};

use super::{count, failed, from_json, small_count};
use crate::store::read::ReadError;
use crate::store::sql::database::{Pool, query_as, query_scalar};

/// Workers that left long ago are history; the list stays bounded.
const MAX_LISTED: u32 = 500;

#[derive(sqlx::FromRow)]
struct WorkerRow {
    id: String,
    name: String,
    hostname: String,
    state: String,
    n_slots: i64,
    device_kind: String,
    device_name: String,
    threads_per_slot: i64,
    cpu_capability: String,
    libtorch_version: String,
    memory_bytes: i64,
    labels_json: String,
    registered_at_ms: i64,
    last_seen_at_ms: i64,
}

#[derive(sqlx::FromRow)]
struct AssignmentRow {
    worker_id: String,
    rank: i64,
    work_id: String,
    kind: String,
    name: String,
    attempt: i64,
    step: Option<i64>,
    steps: Option<i64>,
    batch_tokens: Option<i64>,
    train_loss_nats: Option<f64>,
    tokens_per_second: Option<f64>,
}

pub(super) async fn count_live(pool: &Pool, since_ms: i64) -> Result<u64, ReadError> {
    let n: i64 = query_scalar(
        "SELECT COUNT(*)
FROM workers
WHERE state NOT IN ('gone', 'lost') AND last_seen_at_ms >= ?1",
    )
    .bind(since_ms)
    .fetch_one(pool)
    .await
    .map_err(failed("the number of live workers"))?;
    Ok(count(n))
}

pub(super) async fn list(pool: &Pool, is_there_only: bool) -> Result<Vec<WorkerView>, ReadError> {
    let rows: Vec<WorkerRow> = query_as(
        "SELECT id, name, hostname, state, n_slots, device_kind, device_name, threads_per_slot,
    cpu_capability, libtorch_version, memory_bytes, labels_json, registered_at_ms,
    last_seen_at_ms
FROM workers
WHERE state NOT IN ('gone', 'lost') OR ?1 = 0
ORDER BY state IN ('gone', 'lost'),
    CASE WHEN state IN ('gone', 'lost') THEN -last_seen_at_ms ELSE 0 END,
    name, registered_at_ms, id
LIMIT ?2",
    )
    .bind(is_there_only)
    .bind(MAX_LISTED)
    .fetch_all(pool)
    .await
    .map_err(failed("the workers"))?;
    let mut assignments = assignments(pool).await?;
    let into_view = |row: WorkerRow| {
        let assignments = assignments.remove(&row.id).unwrap_or_default();
        row.into_view(assignments)
    };
    rows.into_iter().map(into_view).collect()
}

pub(super) async fn named(pool: &Pool, name_or_id: &str) -> Result<Option<WorkerView>, ReadError> {
    let row: Option<WorkerRow> = query_as(
        "SELECT id, name, hostname, state, n_slots, device_kind, device_name, threads_per_slot,
    cpu_capability, libtorch_version, memory_bytes, labels_json, registered_at_ms,
    last_seen_at_ms
FROM workers
WHERE id = ?1 OR name = ?1
ORDER BY state IN ('gone', 'lost'), registered_at_ms DESC, id
LIMIT 1",
    )
    .bind(name_or_id)
    .fetch_optional(pool)
    .await
    .map_err(failed("a worker by its name"))?;
    let Some(row) = row else { return Ok(None) };
    let assignments = assignments(pool).await?.remove(&row.id).unwrap_or_default();
    row.into_view(assignments).map(Some)
}

/// By worker, what is leased to it. An evaluation goes by the name of its run's cell.
async fn assignments(pool: &Pool) -> Result<HashMap<String, Vec<AssignmentView>>, ReadError> {
    let rows: Vec<AssignmentRow> = query_as(include_str!("worker_assignments.sql"))
        .fetch_all(pool)
        .await
        .map_err(failed("the workers' assignments"))?;
    let mut by_worker: HashMap<String, Vec<AssignmentView>> = HashMap::new();
    for row in rows {
        by_worker.entry(row.worker_id.clone()).or_default().push(row.into_view());
    }
    Ok(by_worker)
}

impl WorkerRow {
    fn into_view(self, assignments: Vec<AssignmentView>) -> Result<WorkerView, ReadError> {
        Ok(WorkerView {
            labels: from_json(&self.labels_json, "labels", &self.id)?,
            id: self.id,
            name: self.name,
            hostname: self.hostname,
            state: self.state,
            n_slots: small_count(self.n_slots),
            device_kind: self.device_kind,
            device_name: self.device_name,
            threads_per_slot: small_count(self.threads_per_slot),
            cpu_capability: self.cpu_capability,
            libtorch_version: self.libtorch_version,
            memory_bytes: count(self.memory_bytes),
            assignments,
            registered_at_ms: self.registered_at_ms,
            last_seen_at_ms: self.last_seen_at_ms,
        })
    }
}

impl AssignmentRow {
    fn into_view(self) -> AssignmentView {
        // The speed is rank 0's: on the others too it would be counted twice by whoever adds it up.
        let trains = self.rank == 0;
        AssignmentView {
            eta_seconds: self.eta_seconds(),
            work_id: self.work_id,
            kind: self.kind,
            name: self.name,
            rank: small_count(self.rank),
            attempt: small_count(self.attempt),
            step: self.step.map(count),
            steps: self.steps.map(count),
            train_loss_nats: self.train_loss_nats.filter(|_| trains),
            tokens_per_second: self.tokens_per_second.filter(|_| trains),
        }
    }

    /// What is left of the run at its latest speed.
    fn eta_seconds(&self) -> Option<f64> {
        let speed = self.tokens_per_second.filter(|speed| *speed > 0.0)?;
        let steps_left = count(self.steps?).saturating_sub(count(self.step?));
        Some(steps_left as f64 * count(self.batch_tokens?) as f64 / speed)
    }
}
