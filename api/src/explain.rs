//! Why something is not running.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a run, a worker or a planned cell is as it is. `gradus explain --json` prints this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExplainView {
    /// `run`, `worker` or `cell`.
    pub kind: String,
    /// Its identifier; of a cell that the plan left out, its name.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The label of its state; of a cell that the plan left out, `dropped`.
    pub state: String,
    /// Every reason, the most important first.
    pub reasons: Vec<ReasonView>,
}

/// One reason, and what would change it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReasonView {
    /// A stable word, such as `no_worker` or `study_paused`.
    pub code: String,
    /// The reason in a sentence.
    pub message: String,
    /// What would change it; empty when there is nothing to do but to wait.
    pub remedy: String,
}
