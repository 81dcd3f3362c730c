//! Studies: the list, one of them, its progress.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{DroppedCellView, RunSummary, WorkerView};

/// How many pieces of work are in which state; the keys are the labels of the states.
pub type StateCounts = BTreeMap<String, u64>;

/// Every study. `gradus status --json` without a study prints this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StudyList {
    /// The newest first.
    pub studies: Vec<StudySummary>,
}

/// A study in a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StudySummary {
    /// Its identifier.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it asks.
    pub description: String,
    /// `active`, `paused`, `complete`, `failed` or `cancelled`.
    pub state: String,
    /// Higher first.
    pub priority: i32,
    /// Who applied it first; empty where no name is known.
    pub user: String,
    /// Its share of the grants among its user's studies of one priority.
    pub weight: f64,
    /// FLOPs (exact) that it may spend; absent without a limit.
    pub budget_flops: Option<f64>,
    /// Its runs by state.
    pub runs: StateCounts,
    /// Its evaluations by state.
    pub evaluations: StateCounts,
    /// Its data preparations by state.
    pub preparations: StateCounts,
    /// FLOPs trained so far, over its runs; what runs share of a trunk counts once.
    pub flops_done: f64,
    /// FLOPs to be trained for all its runs; what runs share of a trunk counts once.
    pub flops_total: f64,
    /// FLOPs per second at the latest speeds of the runs that a worker has; absent when nothing runs.
    pub flops_per_second: Option<f64>,
    /// Seconds until the training is over at that rate.
    pub eta_seconds: Option<f64>,
    /// When it was first applied.
    pub created_at_ms: i64,
    /// When it last changed.
    pub updated_at_ms: i64,
}

/// One study. `gradus status STUDY --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StudyView {
    /// The study in a line.
    pub summary: StudySummary,
    /// The study file as it was applied.
    pub spec_text: String,
    /// The study file's name.
    pub spec_file: String,
    /// The axes' names in order.
    pub axes: Vec<String>,
    /// Cells that the plan left out.
    pub dropped: Vec<DroppedCellView>,
    /// The runs that a worker has now.
    pub active_runs: Vec<RunSummary>,
    /// The workers that are there.
    pub workers: Vec<WorkerView>,
    /// Why it was cancelled; empty otherwise.
    pub cancel_reason: String,
    /// Why it is paused; empty otherwise.
    pub pause_reason: String,
}

/// A request to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Why, for the record.
    pub reason: String,
}

/// A request to hold a study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PauseRequest {
    /// Why, for the record.
    #[serde(default)]
    pub reason: String,
}

/// A request for another priority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriorityRequest {
    /// Higher first.
    pub priority: i32,
}

/// A request to try again; without a choice everything that failed or was cancelled.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRequest {
    /// Only what failed, not what was cancelled.
    #[serde(default)]
    pub failed: bool,
    /// Only what failed in this way: `out_of_memory`, `bad_data`, `bad_checkpoint`, `bug` or
    /// `worker_lost`.
    #[serde(default)]
    pub class: Option<String>,
}

/// What a change changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    /// The runs that it concerned: those that changed state, have another priority, or are held or
    /// held no longer.
    pub run_ids: Vec<String>,
}
