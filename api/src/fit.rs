//! Fitted scaling laws. Every number comes with what it was made from.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::comparison::ComparisonView;

/// The fits of a study. `gradus fit STUDY --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FitReport {
    /// The fit's identifier.
    pub id: String,
    /// The study's name.
    pub study: String,
    /// Whether runs of the study are still missing.
    pub is_provisional: bool,
    /// BLAKE3 of the observations and the settings.
    pub inputs_hash: String,
    /// `non_embedding` or `total`: what N counts.
    pub parameter_kind: String,
    /// `exact` or `published`: what C counts.
    pub flop_kind: String,
    /// What L is, such as `validation_loss_nats`.
    pub loss: String,
    /// What the laws minimise, as a study file names it; empty in reports of older builds.
    #[serde(default)]
    pub objective: String,
    /// How much each measured loss counts in a law, as a study file names it; empty in reports of
    /// older builds.
    #[serde(default)]
    pub weights: String,
    /// Bootstrap draws.
    pub draws: u32,
    /// Seed of the bootstrap.
    pub seed: u32,
    /// The nominal coverage of the intervals, such as 0.95.
    pub confidence: f64,
    /// The axis that the groups are values of.
    pub group_by: Option<String>,
    /// One for each group.
    pub groups: Vec<GroupFit>,
    /// Every two groups beside each other, by each law that says the loss at a budget, at the largest
    /// C that both were fitted to. Empty where there are too many groups, and in reports of older
    /// builds.
    #[serde(default)]
    pub comparisons: Vec<ComparisonView>,
    /// Runs that no fit uses, with the reason.
    pub excluded: Vec<ExcludedRun>,
    /// Cells that a provisional fit misses: their runs are not over.
    #[serde(default)]
    pub missing: Vec<MissingRun>,
    /// What a reader must know before quoting a number.
    pub notes: Vec<String>,
}

/// A number that may not be known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum EstimateView {
    /// The data identify it.
    Identified {
        /// The estimate.
        value: f64,
        /// The interval's lower end.
        low: f64,
        /// The interval's upper end.
        high: f64,
    },
    /// The data do not identify it, so there is no number.
    NotIdentified {
        /// Why not.
        reason: String,
    },
}

/// The fits of one group, such as one architecture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct GroupFit {
    /// The group's value; `all` when there are no groups.
    pub group: String,
    /// Every evaluated checkpoint of the group's runs.
    pub observations: Vec<ObservationView>,
    /// The fits, one for each method that was asked for.
    pub fits: Vec<MethodFit>,
    /// The held-out runs: predicted beside measured.
    pub held_out: Vec<HeldOutView>,
}

/// One evaluated checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ObservationView {
    /// The run.
    pub run_id: String,
    /// The cell's name.
    pub name: String,
    /// The checkpoint's step.
    pub step: u64,
    /// N.
    pub parameters: f64,
    /// D.
    pub tokens: f64,
    /// C.
    pub flops: f64,
    /// L.
    pub loss_nats: f64,
    /// Whether it is only predicted.
    pub is_held_out: bool,
    /// The cell that stands for the trunk of this one: those of one trunk have their first steps in
    /// common, and are resampled together. Not there where it shares none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
}

/// One method's fit of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MethodFit {
    /// `envelope`, `isoflop` or `chinchilla`.
    pub method: String,
    /// The formula with the coefficients' names, such as `L = a·C^-b`.
    pub formulas: Vec<String>,
    /// What was minimised, by its exact name.
    #[serde(default)]
    pub objective: String,
    /// The coefficients and exponents by name.
    pub coefficients: BTreeMap<String, EstimateView>,
    /// How many observations it used.
    pub n_observations: u64,
    /// How many runs those came from.
    pub n_runs: u64,
    /// The root mean square of the residuals of log loss.
    pub residual_rms_log: Option<f64>,
    /// How its intervals were made, with draws and seed where there are any; empty when there are
    /// none.
    pub intervals: String,
    /// The fitted loss over C, for plots.
    pub curve: Vec<CurvePoint>,
    /// The points that the fit used on the way: the envelope, or the minima of the parabolas.
    pub points: Vec<FitPoint>,
    /// Observations, budgets or grid points that were dropped, with the reason.
    pub dropped: Vec<DroppedPoint>,
    /// What to know before quoting it.
    pub warnings: Vec<String>,
}

/// A point of a fitted curve with its interval.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CurvePoint {
    /// C.
    pub flops: f64,
    /// The predicted loss.
    pub loss_nats: f64,
    /// The interval's lower end; absent where it is not known.
    pub low: Option<f64>,
    /// The interval's upper end; absent where it is not known.
    pub high: Option<f64>,
}

/// A point that a fit used on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FitPoint {
    /// C.
    pub flops: f64,
    /// N of the best model there.
    pub parameters: f64,
    /// D of the best model there.
    pub tokens: f64,
    /// The loss there.
    pub loss_nats: f64,
}

/// Something that a fit dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DroppedPoint {
    /// What it is.
    pub what: String,
    /// Why it was dropped.
    pub reason: String,
}

/// A held-out run: what the fit says and what was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HeldOutView {
    /// The run.
    pub run_id: String,
    /// The cell's name.
    pub name: String,
    /// The method that predicts.
    pub method: String,
    /// N.
    pub parameters: f64,
    /// D.
    pub tokens: f64,
    /// C.
    pub flops: f64,
    /// The measured loss of its last checkpoint.
    pub measured_loss_nats: f64,
    /// The predicted loss.
    pub predicted_loss_nats: EstimateView,
    /// (predicted − measured) / measured; absent when nothing is predicted.
    pub relative_error: Option<f64>,
}

/// A run that is not over. What is measured of it already may be fitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MissingRun {
    /// The run.
    pub run_id: String,
    /// The cell's name.
    pub name: String,
}

/// A run that no fit uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExcludedRun {
    /// The run.
    pub run_id: String,
    /// The cell's name.
    pub name: String,
    /// Why: diverged, failed, cancelled, not finished.
    pub reason: String,
}
