//! Workers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The workers. `gradus workers --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerList {
    /// Those that are there first.
    pub workers: Vec<WorkerView>,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The machine.
    pub hostname: String,
    /// `joining`, `active`, `draining`, `gone` or `lost`.
    pub state: String,
    /// How many attempts it can carry out at a time.
    pub n_slots: u32,
    /// `cpu` or `cuda`.
    pub device_kind: String,
    /// The device's name.
    pub device_name: String,
    /// Intra-op threads of each slot's trainer.
    pub threads_per_slot: u32,
    /// The CPU capability that libtorch found.
    pub cpu_capability: String,
    /// The libtorch build.
    pub libtorch_version: String,
    /// Memory of the machine in bytes.
    pub memory_bytes: u64,
    /// What its operator says of it, for placement.
    pub labels: BTreeMap<String, String>,
    /// What it is doing.
    pub assignments: Vec<AssignmentView>,
    /// When it joined.
    pub registered_at_ms: i64,
    /// When it was last heard of.
    pub last_seen_at_ms: i64,
}

/// What a slot is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AssignmentView {
    /// The run, evaluation or preparation.
    pub work_id: String,
    /// `run`, `evaluation` or `preparation`.
    pub kind: String,
    /// The name of the cell, where there is one.
    pub name: String,
    /// The attempt.
    pub attempt: u32,
    /// Its place in a gang; rank 0 does the work, and the others hold their slots for it.
    #[serde(default)]
    pub rank: u32,
    /// The run's latest step.
    pub step: Option<u64>,
    /// The run's steps in all.
    pub steps: Option<u64>,
    /// The run's latest training loss; absent where the slot is only held for it.
    pub train_loss_nats: Option<f64>,
    /// The run's latest speed; absent where the slot is only held for it.
    pub tokens_per_second: Option<f64>,
    /// Seconds until the run's training is over at that speed.
    pub eta_seconds: Option<f64>,
}
