//! The plan of a study: every cell with its numbers, every dropped cell with its reason.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A planned study. `gradus plan --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlanView {
    /// The study's name.
    pub study: String,
    /// The stage's name.
    pub stage: String,
    /// The stage's recipe.
    pub recipe: String,
    /// The cells in the order of the axes.
    pub cells: Vec<PlannedCellView>,
    /// What was left out and why.
    pub dropped: Vec<DroppedCellView>,
    /// What is allowed and yet seldom meant, such as data points inside the warm-up.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The distinct runs behind the cells.
    pub n_runs: u64,
    /// The runs' training FLOPs together, `flops_exact`.
    pub flops_exact_total: f64,
    /// Of these, what runs need not spend because they go on from a checkpoint of another run of
    /// their trunk (`runtime.share_trunks`).
    #[serde(default)]
    pub flops_exact_shared: f64,
    /// The runs' training tokens together.
    pub tokens_total: u64,
}

/// One planned cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlannedCellView {
    /// Its name within the stage.
    pub name: String,
    /// The value of each axis, as text.
    pub axis_values: BTreeMap<String, String>,
    /// The run of its identity.
    pub run_id: String,
    /// BLAKE3 of its canonical configuration.
    pub identity_hash: String,
    /// N without embeddings and head.
    pub parameters_non_embedding: u64,
    /// N with everything.
    pub parameters_total: u64,
    /// Optimizer steps.
    pub steps: u64,
    /// D.
    pub tokens: u64,
    /// C by the tensor shapes, head included.
    pub flops_exact: f64,
    /// C by the published closed form, without the head.
    pub flops_published: f64,
    /// The budget it belongs to, for isoFLOP designs.
    pub budget_flops: Option<f64>,
    /// Estimated peak memory of training in bytes, beside libtorch itself.
    pub memory_bytes: u64,
    /// The steps that leave a data-point checkpoint.
    pub data_point_steps: Vec<u64>,
    /// The checkpoint of another run that it goes on from instead of training those steps again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<ContinuesView>,
}

/// Where a run that shares another's trunk begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContinuesView {
    /// The run that trains the steps before.
    pub run_id: String,
    /// The step of its checkpoint.
    pub step: u64,
}

/// A cell that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DroppedCellView {
    /// Its name within the stage.
    pub name: String,
    /// Why it was left out, with the numbers.
    pub reason: String,
}
