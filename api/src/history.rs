//! The audit trail, and every point of a run's series.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What has happened to something and its parts. `gradus history` prints this with `--json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryPage {
    /// The oldest first.
    pub events: Vec<HistoryEvent>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryEvent {
    /// Grows.
    pub id: i64,
    /// When, by the coordinator's wall clock.
    pub at_ms: i64,
    /// To what: a study, run, evaluation, preparation or worker identifier.
    pub subject: String,
    /// What, such as `study_paused` or `run_granted`.
    pub kind: String,
    /// Who did it: `user NAME`, `user` where no name is known, `worker ID` or `coordinator`; empty for
    /// an event of a store older than schema 5.
    pub actor: String,
    /// More, such as the reason; the keys depend on the kind.
    pub detail: serde_json::Value,
}

/// One point of a series, whether the current truth shows it or not: a line of `…/points`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PointRecord {
    /// The run.
    pub run: String,
    /// The series, such as `train_loss_nats`.
    pub series: String,
    /// The attempt that reported it.
    pub attempt: u32,
    /// The step.
    pub step: u64,
    /// The value, absent where it was not finite.
    pub value: Option<f64>,
    /// Whether it is the value of its step: a curve shows it.
    pub is_current: bool,
}
