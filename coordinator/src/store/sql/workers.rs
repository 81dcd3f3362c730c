//! Workers come, are confirmed, drain, leave and get lost; and sources are recorded.
//!
//! Who is late is the leader's knowledge.

use domain::attempt::AttemptEnd;
use domain::ids::WorkerId;
use domain::planted::{Mistake, is_planted};
use serde_json::json;

use super::convert::{from_json, parse_id, signed, small, to_json, unsigned};
use super::database::{Pool, query, query_as, query_scalar};
use super::error::from_driver;
use super::work::end_attempts_of;
use super::writer::{Command, Tx};
use crate::actor::Actor;
use crate::scheduler::fit::Machine;
use crate::store::{
    Artifact, Capabilities, Changed, Registered, StoreError, WorkerRecord, WorkerState,
    WorkerToRegister,
};

pub(super) struct RegisterWorker(pub(super) Box<WorkerToRegister>);

impl Command for RegisterWorker {
    type Answer = Registered;

    async fn run(self, tx: &mut Tx) -> Result<Registered, StoreError> {
        let worker = *self.0;
        let known: Vec<(String, i64)> = query_as(
            "SELECT id, pid
FROM workers
WHERE name = ? AND hostname = ? AND state <> 'gone'
ORDER BY registered_at_ms DESC, id",
        )
        .bind(&worker.name)
        .bind(&worker.hostname)
        .fetch_all(&mut tx.conn)
        .await
        .map_err(from_driver)?;
        let mut registered = Registered {
            worker: worker.proposed_id.clone(),
            replaced: Vec::new(),
            changed: Changed::default(),
        };
        if let Some((id, _)) = known.iter().find(|(_, pid)| *pid == i64::from(worker.pid)) {
            registered.worker = parse_id(id)?;
        }
        tx.actor = Actor::Worker(registered.worker.clone());
        for (id, _) in known.iter().filter(|(_, pid)| *pid != i64::from(worker.pid)) {
            let older: WorkerId = parse_id(id)?;
            let why = "its agent was started again";
            if lose(tx, &older, why, &mut registered.changed).await? {
                registered.replaced.push(older);
            }
        }
        upsert_worker(tx, &registered.worker, &worker).await?;
        Ok(registered)
    }
}

async fn upsert_worker(
    tx: &mut Tx,
    id: &WorkerId,
    worker: &WorkerToRegister,
) -> Result<(), StoreError> {
    let capabilities = &worker.machine.capabilities;
    query(
        "INSERT INTO workers (id, name, hostname, pid, n_slots, device_kind, device_name,
    threads_per_slot, cpu_capability, libtorch_version, memory_bytes, recipes_json, labels_json,
    state, registered_at_ms, last_seen_at_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'joining', ?, ?)
ON CONFLICT (id) DO UPDATE
SET n_slots = excluded.n_slots, device_kind = excluded.device_kind,
    device_name = excluded.device_name, threads_per_slot = excluded.threads_per_slot,
    cpu_capability = excluded.cpu_capability, libtorch_version = excluded.libtorch_version,
    memory_bytes = excluded.memory_bytes, recipes_json = excluded.recipes_json,
    labels_json = excluded.labels_json,
    state = CASE WHEN workers.state IN ('active', 'draining') THEN workers.state ELSE 'joining' END,
    last_seen_at_ms = excluded.last_seen_at_ms",
    )
    .bind(id.as_str())
    .bind(&worker.name)
    .bind(&worker.hostname)
    .bind(worker.pid)
    .bind(worker.machine.n_slots)
    .bind(&capabilities.device_kind)
    .bind(&capabilities.device_name)
    .bind(capabilities.threads_per_slot)
    .bind(&capabilities.cpu_capability)
    .bind(&capabilities.libtorch_version)
    .bind(signed(capabilities.memory_bytes))
    .bind(to_json(&capabilities.recipes, "recipes_json")?)
    .bind(to_json(&capabilities.labels, "labels_json")?)
    .bind(tx.now_ms)
    .bind(tx.now_ms)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(())
}

/// Moves a worker between the given states; whether it now is in the new one.
pub(super) struct MoveWorker {
    pub(super) worker: WorkerId,
    pub(super) to: WorkerState,
}

impl Command for MoveWorker {
    type Answer = bool;

    async fn run(self, tx: &mut Tx) -> Result<bool, StoreError> {
        let state = state_of(tx, &self.worker).await?;
        let kind = match (state, self.to) {
            (Some(from), to) if from == to => return Ok(true),
            // It sees the artifact store.
            (Some(WorkerState::Joining), WorkerState::Active) => {
                tx.actor = Actor::Worker(self.worker.clone());
                "worker_joined"
            }
            // Confirmed twice, with the drain between.
            (Some(WorkerState::Draining), WorkerState::Active) => return Ok(true),
            (Some(WorkerState::Joining | WorkerState::Active), WorkerState::Draining) => {
                "worker_drained"
            }
            _ => return Ok(false),
        };
        set_state(tx, &self.worker, self.to).await?;
        tx.record(self.worker.as_str(), kind, &json!({}));
        Ok(true)
    }
}

pub(super) struct DeregisterWorker(pub(super) WorkerId);

impl Command for DeregisterWorker {
    type Answer = Changed;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        let is_there = matches!(
            state_of(tx, &self.0).await?,
            Some(WorkerState::Joining | WorkerState::Active | WorkerState::Draining)
        );
        if is_there {
            tx.actor = Actor::Worker(self.0.clone());
            let why = "its worker left";
            end_attempts_of(tx, &self.0, AttemptEnd::Preempted, why, &mut changed).await?;
            set_state(tx, &self.0, WorkerState::Gone).await?;
            tx.record(self.0.as_str(), "worker_left", &json!({}));
        }
        Ok(changed)
    }
}

pub(super) struct CloseLostWorkers(pub(super) Vec<WorkerId>);

impl Command for CloseLostWorkers {
    type Answer = Changed;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        for worker in &self.0 {
            lose(tx, worker, "its worker was not heard of", &mut changed).await?;
        }
        Ok(changed)
    }
}

async fn lose(
    tx: &mut Tx,
    worker: &WorkerId,
    why: &str,
    changed: &mut Changed,
) -> Result<bool, StoreError> {
    let state = state_of(tx, worker).await?;
    if !matches!(state, Some(WorkerState::Joining | WorkerState::Active | WorkerState::Draining)) {
        return Ok(false);
    }
    if !is_planted(Mistake::LostWorkerKeepsLeases) {
        end_attempts_of(tx, worker, AttemptEnd::WorkerLost, why, changed).await?;
    }
    set_state(tx, worker, WorkerState::Lost).await?;
    tx.record(worker.as_str(), "worker_lost", &json!({ "why": why }));
    Ok(true)
}

pub(super) async fn state_of(
    tx: &mut Tx,
    worker: &WorkerId,
) -> Result<Option<WorkerState>, StoreError> {
    let label: Option<String> = query_scalar("SELECT state FROM workers WHERE id = ?")
        .bind(worker.as_str())
        .fetch_optional(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    Ok(label.as_deref().and_then(WorkerState::from_label))
}

async fn set_state(tx: &mut Tx, worker: &WorkerId, state: WorkerState) -> Result<(), StoreError> {
    query("UPDATE workers SET state = ? WHERE id = ?")
        .bind(state.label())
        .bind(worker.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    Ok(())
}

pub(super) struct RecordSeen(pub(super) Vec<(WorkerId, i64)>);

impl Command for RecordSeen {
    type Answer = ();
    const IS_KEPT_APART: bool = false;

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        for (worker, at_ms) in &self.0 {
            query("UPDATE workers SET last_seen_at_ms = ? WHERE id = ?")
                .bind(*at_ms)
                .bind(worker.as_str())
                .execute(&mut tx.conn)
                .await
                .map_err(from_driver)?;
        }
        Ok(())
    }
}

pub(super) struct RecordSource(pub(super) Artifact);

impl Command for RecordSource {
    type Answer = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        query(
            "INSERT INTO sources (hash, key, n_bytes, created_at_ms)
VALUES (?, ?, ?, ?)
ON CONFLICT (hash) DO NOTHING",
        )
        .bind(self.0.hash.as_str())
        .bind(&self.0.key)
        .bind(signed(self.0.n_bytes))
        .bind(tx.now_ms)
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
        Ok(())
    }
}

#[derive(Debug, sqlx::FromRow)]
struct WorkerRow {
    id: String,
    state: String,
    n_slots: i64,
    device_kind: String,
    device_name: String,
    threads_per_slot: i64,
    cpu_capability: String,
    libtorch_version: String,
    memory_bytes: i64,
    recipes_json: String,
    labels_json: String,
}

impl WorkerRow {
    fn into_record(self) -> Result<WorkerRecord, StoreError> {
        Ok(WorkerRecord {
            worker: parse_id(&self.id)?,
            state: WorkerState::from_label(&self.state)
                .ok_or_else(|| StoreError::Bug(format!("no worker is `{}`", self.state)))?,
            machine: Machine {
                n_slots: small(self.n_slots),
                capabilities: Capabilities {
                    device_kind: self.device_kind,
                    device_name: self.device_name,
                    threads_per_slot: small(self.threads_per_slot),
                    cpu_capability: self.cpu_capability,
                    libtorch_version: self.libtorch_version,
                    memory_bytes: unsigned(self.memory_bytes),
                    recipes: from_json(&self.recipes_json, "recipes_json")?,
                    labels: from_json(&self.labels_json, "labels_json")?,
                },
            },
        })
    }
}

/// The workers that are there.
pub(super) async fn live(pool: &Pool) -> Result<Vec<WorkerRecord>, StoreError> {
    let rows: Vec<WorkerRow> = query_as(
        "SELECT id, state, n_slots, device_kind, device_name, threads_per_slot, cpu_capability,
    libtorch_version, memory_bytes, recipes_json, labels_json
FROM workers
WHERE state IN ('joining', 'active', 'draining')
ORDER BY id",
    )
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    rows.into_iter().map(WorkerRow::into_record).collect()
}
