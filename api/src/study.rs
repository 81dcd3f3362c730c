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
    /// `active`, `complete`, `failed` or `cancelled`.
    pub state: String,
    /// Its runs by state.
    pub runs: StateCounts,
    /// Its evaluations by state.
    pub evaluations: StateCounts,
    /// Its data preparations by state.
    pub preparations: StateCounts,
    /// FLOPs trained so far, over its runs.
    pub flops_done: f64,
    /// FLOPs of all its runs.
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
}

/// A request to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// Why, for the record.
    pub reason: String,
}

/// What a change changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChangeView {
    /// The runs that changed state.
    pub run_ids: Vec<String>,
}
