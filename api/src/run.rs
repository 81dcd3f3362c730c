//! Runs: the list, one of them, its curves and logs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The runs of a study, or of the store. `gradus runs --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunList {
    /// In the order of the study's cells.
    pub runs: Vec<RunSummary>,
}

/// A run in a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunSummary {
    /// Its identifier.
    pub id: String,
    /// The name of its cell in the study that was asked for, or of its first cell.
    pub name: String,
    /// The study of that cell.
    pub study: String,
    /// The value of each axis, as text.
    pub axis_values: BTreeMap<String, String>,
    /// `waiting`, `queued`, `leased`, `backoff`, `succeeded`, `failed`, `cancelled` or `diverged`.
    pub state: String,
    /// The worker that has it.
    pub worker_id: Option<String>,
    /// That worker's name.
    pub worker: Option<String>,
    /// N without embeddings and head.
    pub parameters_non_embedding: u64,
    /// N with everything.
    pub parameters_total: u64,
    /// Optimizer steps in all.
    pub steps: u64,
    /// Optimizer steps done, of the latest attempt.
    pub step: u64,
    /// D in all.
    pub tokens: u64,
    /// C in all, by the tensor shapes.
    pub flops_exact: f64,
    /// C in all, by the published closed form.
    pub flops_published: f64,
    /// The budget it belongs to, for isoFLOP designs.
    pub budget_flops: Option<f64>,
    /// The latest training loss.
    pub train_loss_nats: Option<f64>,
    /// The validation loss of the newest evaluated checkpoint.
    pub validation_loss_nats: Option<f64>,
    /// The latest speed.
    pub tokens_per_second: Option<f64>,
    /// How many attempts it has had.
    pub n_attempts: u32,
    /// What the last attempt said when it went wrong; empty otherwise.
    pub message: String,
    /// Whether an attempt had to change what decides rounding.
    pub has_changed_numerics: bool,
}

/// One run. `gradus show RUN --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// The run in a line.
    pub summary: RunSummary,
    /// BLAKE3 of its configuration.
    pub identity_hash: String,
    /// Its configuration.
    #[schema(value_type = Object)]
    pub config: serde_json::Value,
    /// What the first attempt fixed: device kind, threads, micro-batch, CPU capability, libtorch.
    #[schema(value_type = Option<Object>)]
    pub numerics: Option<serde_json::Value>,
    /// The checkpoint of another run that it goes on from, where the two share a trunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<crate::ContinuesView>,
    /// Every cell that it is the run of.
    pub cells: Vec<CellRef>,
    /// Its attempts, the first first.
    pub attempts: Vec<AttemptView>,
    /// Its checkpoints, by step.
    pub checkpoints: Vec<CheckpointView>,
    /// Its evaluations, by step.
    pub evaluations: Vec<EvaluationView>,
    /// The names of its series.
    pub series: Vec<String>,
}

/// A cell of a study.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CellRef {
    /// The study's name.
    pub study: String,
    /// The cell's name.
    pub cell: String,
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// From 1.
    pub attempt: u32,
    /// `granted`, `running` or `ended`.
    pub state: String,
    /// How it ended.
    pub ended_as: Option<String>,
    /// What went wrong; empty when nothing did.
    pub message: String,
    /// Who had it.
    pub worker_id: String,
    /// That worker's name.
    pub worker: String,
    /// The names of the workers of a gang's other members, by rank from 1.
    #[serde(default)]
    pub members: Vec<String>,
    /// The step it continued from.
    pub resumed_from_step: Option<u64>,
    /// When it was granted.
    pub granted_at_ms: i64,
    /// When it began.
    pub started_at_ms: Option<i64>,
    /// When it ended.
    pub ended_at_ms: Option<i64>,
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckpointView {
    /// The step after which it was written.
    pub step: u64,
    /// The attempt that wrote it.
    pub attempt: u32,
    /// Whether a fit or an evaluation may refer to it.
    pub is_data_point: bool,
    /// All its files together.
    pub n_bytes: u64,
    /// The manifest's key in the artifact store.
    pub manifest_key: String,
    /// BLAKE3 of the weights.
    pub weights_hash: String,
    /// Why it was refused when a worker wanted to resume from it.
    pub refused_reason: Option<String>,
    /// Whether later ones stand in for it: its files are gone, or are about to be.
    #[serde(default)]
    pub is_superseded: bool,
    /// When it was recorded.
    pub created_at_ms: i64,
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EvaluationView {
    /// Its identifier.
    pub id: String,
    /// The attempt that left the checkpoint.
    pub attempt: u32,
    /// The checkpoint's step.
    pub step: u64,
    /// Training tokens at that step.
    pub tokens: u64,
    /// Training FLOPs at that step, by the tensor shapes.
    pub flops_exact: f64,
    /// What was measured.
    pub task: String,
    /// Its state, as of runs.
    pub state: String,
    /// The measured value, such as nats per token.
    pub value: Option<f64>,
    /// Its standard error.
    pub standard_error: Option<f64>,
    /// Tokens that it was measured on, where it says so.
    pub n_tokens: Option<u64>,
}

/// Curves of one series, one for each run. `GET /studies/{study}/curves` and `GET
/// /runs/{run}/curves`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CurveList {
    /// The series' name, such as `train_loss_nats`.
    pub series: String,
    /// One for each run that has points.
    pub curves: Vec<Curve>,
}

/// The current truth of one series of one run, thinned to at most the asked number of points. Each
/// bucket keeps its minimum, maximum and last point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Curve {
    /// The run.
    pub run_id: String,
    /// The cell's name.
    pub name: String,
    /// The value of each axis, as text.
    pub axis_values: BTreeMap<String, String>,
    /// Multiply a step by this for D.
    pub tokens_per_step: f64,
    /// Multiply a step by this for C, by the tensor shapes.
    pub flops_per_step: f64,
    /// The steps.
    pub steps: Vec<u64>,
    /// The values; absent where the value was not finite.
    pub values: Vec<Option<f64>>,
}

/// Log lines of a run. `gradus logs RUN --json` prints this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogList {
    /// The oldest first.
    pub lines: Vec<LogLineView>,
}

/// One log line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogLineView {
    /// Its number; ask for lines after the last one seen.
    pub id: i64,
    /// The attempt that said it.
    pub attempt: u32,
    /// When, on the worker's clock.
    pub at_ms: i64,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// What it said.
    pub text: String,
}
