//! Workers come, are confirmed, drain, leave and get lost; and sources are recorded.
//!
//! Who is late is the leader's knowledge.

use domain::attempt::AttemptEnd;
use domain::ids::WorkerId;
use domain::planted::{Mistake, is_planted};
use domain::worker::{WorkerEvent, WorkerState, WorkerTransition};
use serde_json::{Value, json};

use super::convert::{from_json, parse_id, signed, small, to_json, unsigned};
use super::database::{Pool, query, query_as, query_scalar, query_with_rows};
use super::error::from_driver;
use super::finish::end_attempts_of;
use super::many::AT_ONCE;
use super::writer::{Command, Tx};
use crate::actor::Actor;
use crate::scheduler::fit::Machine;
use crate::store::{
    Artifact, Capabilities, Changed, Registered, StoreError, WorkerRecord, WorkerToRegister,
};

/// So many workers of one name on one host have names of their own.
const MAX_OF_ONE_NAME: u32 = 100;

pub(super) struct RegisterWorker(pub(super) Box<WorkerToRegister>);

impl Command for RegisterWorker {
    type Answer = Registered;

    async fn run(self, tx: &mut Tx) -> Result<Registered, StoreError> {
        let worker = *self.0;
        let mut registered = Registered {
            worker: worker.proposed_id.clone(),
            name: worker.name.clone(),
            replaced: Vec::new(),
            changed: Changed::default(),
        };
        let (mut state, mut is_new) = (WorkerState::Joining, true);
        if let Some((id, name, label, is_drained)) = of_this_process(tx, &worker).await? {
            registered.worker = parse_id(&id)?;
            registered.name = name;
            let from = state_from(&label, is_drained)?;
            state = match from.on(WorkerEvent::Registered) {
                WorkerTransition::To(state) => state,
                WorkerTransition::Stays | WorkerTransition::Absent => from,
            };
            // A worker that only finds its coordinator again has nothing new to tell.
            is_new = state != from;
            tx.actor = Actor::Worker(registered.worker.clone());
        } else {
            tx.actor = Actor::Worker(registered.worker.clone());
            take_name(tx, &worker, &mut registered).await?;
        }
        upsert_worker(tx, &registered, &worker, state).await?;
        if is_new {
            let detail = json!({ "name": registered.name, "replaced": registered.replaced.len() });
            tx.record(registered.worker.as_str(), "worker_registered", &detail);
        }
        Ok(registered)
    }
}

/// The identifier, name and state of the worker that this very process is known as.
async fn of_this_process(
    tx: &mut Tx,
    worker: &WorkerToRegister,
) -> Result<Option<(String, String, String, i64)>, StoreError> {
    query_as(
        "SELECT id, name, state, is_drained
FROM workers
WHERE hostname = ? AND instance = ? AND instance <> '' AND state <> 'gone'
ORDER BY registered_at_ms DESC, id
LIMIT 1",
    )
    .bind(&worker.hostname)
    .bind(&worker.instance)
    .fetch_optional(&mut tx.conn)
    .await
    .map_err(from_driver)
}

/// The first name, of the one that is asked for and those with a number behind it, that no
/// connected worker of the host has. Who had it before was another process, which is no more.
async fn take_name(
    tx: &mut Tx,
    worker: &WorkerToRegister,
    registered: &mut Registered,
) -> Result<(), StoreError> {
    let numbered = (2..=MAX_OF_ONE_NAME).map(|number| format!("{}-{number}", worker.name));
    for name in std::iter::once(worker.name.clone()).chain(numbered) {
        let older: Vec<String> = query_scalar(
            "SELECT id
FROM workers
WHERE name = ? AND hostname = ? AND state <> 'gone'
ORDER BY registered_at_ms DESC, id",
        )
        .bind(&name)
        .bind(&worker.hostname)
        .fetch_all(&mut tx.conn)
        .await
        .map_err(from_driver)?;
        let older: Vec<WorkerId> =
            older.iter().map(|id| parse_id(id)).collect::<Result<_, StoreError>>()?;
        if older.iter().any(|id| worker.connected.contains(id)) {
            continue;
        }
        for older in older {
            let why = "its agent was started again";
            if lose(tx, &older, why, &mut registered.changed).await? {
                registered.replaced.push(older);
            }
        }
        registered.name = name;
        return Ok(());
    }
    // So many of one name: the identifier tells them apart.
    Ok(())
}

async fn upsert_worker(
    tx: &mut Tx,
    registered: &Registered,
    worker: &WorkerToRegister,
    state: WorkerState,
) -> Result<(), StoreError> {
    let capabilities = &worker.machine.capabilities;
    query(
        "INSERT INTO workers (id, name, hostname, pid, n_slots, device_kind, device_name,
    threads_per_slot, cpu_capability, libtorch_version, memory_bytes, recipes_json, labels_json,
    state, registered_at_ms, last_seen_at_ms, instance)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET n_slots = excluded.n_slots, device_kind = excluded.device_kind,
    device_name = excluded.device_name, threads_per_slot = excluded.threads_per_slot,
    cpu_capability = excluded.cpu_capability, libtorch_version = excluded.libtorch_version,
    memory_bytes = excluded.memory_bytes, recipes_json = excluded.recipes_json,
    labels_json = excluded.labels_json,
    state = excluded.state, is_drained = 0,
    last_seen_at_ms = excluded.last_seen_at_ms",
    )
    .bind(registered.worker.as_str())
    .bind(&registered.name)
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
    .bind(state.label())
    .bind(tx.now_ms)
    .bind(tx.now_ms)
    .bind(&worker.instance)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(())
}

/// Moves a worker on; whether it is there.
pub(super) struct MoveWorker {
    pub(super) worker: WorkerId,
    pub(super) event: WorkerEvent,
}

impl Command for MoveWorker {
    type Answer = bool;

    async fn run(self, tx: &mut Tx) -> Result<bool, StoreError> {
        match transition(tx, &self.worker, self.event).await? {
            WorkerTransition::To(state) => {
                if self.event == WorkerEvent::Confirmed {
                    tx.actor = Actor::Worker(self.worker.clone());
                }
                set_state(tx, &self.worker, (self.event, state), &json!({})).await?;
                Ok(true)
            }
            WorkerTransition::Stays => Ok(true),
            WorkerTransition::Absent => Ok(false),
        }
    }
}

pub(super) struct DeregisterWorker(pub(super) WorkerId);

impl Command for DeregisterWorker {
    type Answer = Changed;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        let event = WorkerEvent::Deregistered;
        if let WorkerTransition::To(state) = transition(tx, &self.0, event).await? {
            tx.actor = Actor::Worker(self.0.clone());
            let why = "its worker left";
            end_attempts_of(tx, &self.0, AttemptEnd::Preempted, why, &mut changed).await?;
            set_state(tx, &self.0, (event, state), &json!({})).await?;
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
    let event = WorkerEvent::Missed;
    let WorkerTransition::To(state) = transition(tx, worker, event).await? else {
        return Ok(false);
    };
    if !is_planted(Mistake::LostWorkerKeepsLeases) {
        end_attempts_of(tx, worker, AttemptEnd::WorkerLost, why, changed).await?;
    }
    set_state(tx, worker, (event, state), &json!({ "why": why })).await?;
    Ok(true)
}

/// What an event does to a worker.
async fn transition(
    tx: &mut Tx,
    worker: &WorkerId,
    event: WorkerEvent,
) -> Result<WorkerTransition, StoreError> {
    let found: Option<(String, i64)> =
        query_as("SELECT state, is_drained FROM workers WHERE id = ?")
            .bind(worker.as_str())
            .fetch_optional(&mut tx.conn)
            .await
            .map_err(from_driver)?;
    match found {
        Some((label, is_drained)) => Ok(state_from(&label, is_drained)?.on(event)),
        None => Ok(WorkerTransition::Absent),
    }
}

fn state_from(label: &str, is_drained: i64) -> Result<WorkerState, StoreError> {
    WorkerState::from_label(label, is_drained != 0)
        .ok_or_else(|| StoreError::Bug(format!("no worker is `{label}`")))
}

async fn set_state(
    tx: &mut Tx,
    worker: &WorkerId,
    (event, state): (WorkerEvent, WorkerState),
    detail: &Value,
) -> Result<(), StoreError> {
    query("UPDATE workers SET state = ?, is_drained = ? WHERE id = ?")
        .bind(state.label())
        .bind(state.is_lost_and_drained())
        .bind(worker.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    let kind = match (event, state) {
        (WorkerEvent::DrainRequested, _) | (_, WorkerState::Draining) => "worker_drained",
        (_, WorkerState::Joining) => "worker_registered",
        (_, WorkerState::Active) => "worker_joined",
        (_, WorkerState::Gone) => "worker_left",
        (_, WorkerState::Lost { .. }) => "worker_lost",
    };
    tx.record(worker.as_str(), kind, detail);
    Ok(())
}

pub(super) struct RecordSeen(pub(super) Vec<(WorkerId, i64)>);

impl Command for RecordSeen {
    type Answer = ();
    const IS_KEPT_APART: bool = false;

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        // Both databases name the columns of bare rows so.
        let head = "UPDATE workers
SET last_seen_at_ms = seen.column2
FROM (VALUES";
        let tail = ") AS seen WHERE workers.id = seen.column1";
        for seen in self.0.chunks(AT_ONCE) {
            let mut update = query_with_rows(head, (seen.len(), 2), tail);
            for (worker, at_ms) in seen {
                update = update.bind(worker.as_str()).bind(*at_ms);
            }
            update.execute(&mut tx.conn).await.map_err(from_driver)?;
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
            state: state_from(&self.state, 0)?,
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
