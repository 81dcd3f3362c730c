//! Stored fits: the list, what may be asked for, and what they predict.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{CurvePoint, EstimateView};

/// Stored fits, the newest first. `gradus fits --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FitList {
    /// The fits.
    pub fits: Vec<FitSummary>,
}

/// A stored fit in a line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FitSummary {
    /// Its identifier.
    pub id: String,
    /// The study's name.
    pub study: String,
    /// When it was stored.
    pub created_at_ms: i64,
    /// Whether runs of the study were still missing.
    pub is_provisional: bool,
    /// Its methods.
    pub methods: Vec<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// Observations that it is made from, of all groups.
    pub n_observations: u64,
    /// Runs that it leaves out.
    pub n_excluded: u64,
    /// Bootstrap draws.
    pub draws: u32,
    /// Seed of the bootstrap.
    pub seed: u32,
    /// BLAKE3 of the observations and the settings.
    pub inputs_hash: String,
}

/// Settings of a fit in place of the study's own; what is left out is as the study has it.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, utoipa::IntoParams,
)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FitSettings {
    /// One law or method in place of the study's methods: `envelope`, `isoflop`, `chinchilla`,
    /// `coupled`, `kaplan`, `overtraining`, `power`, `power_floor` or `broken_power`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub law: Option<String>,
    /// What the laws minimise: `huber`, `lad`, `log-squares` or `loss-squares`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// How much each measured loss counts: `equal` or `seed_noise`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// The axis whose values are fitted apart; empty for one fit of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    /// What is only predicted: `none`, `largest_size` or `largest_compute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<String>,
    /// Bootstrap draws, 100 to 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draws: Option<u32>,
    /// Seed of the bootstrap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
}

// The fields of `FitSettings` once more: serde's `flatten` would let unknown ones pass.
/// A fit to make and keep.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FitRequest {
    /// Settings in place of the study's own, all of them: the `fit` section of a study file. Left
    /// out, the study's. The single settings beside it come on top.
    #[serde(default)]
    pub fit: Option<serde_json::Value>,
    /// One law or method in place of the study's methods: `envelope`, `isoflop`, `chinchilla`,
    /// `coupled`, `kaplan`, `overtraining`, `power`, `power_floor` or `broken_power`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub law: Option<String>,
    /// What the laws minimise: `huber`, `lad`, `log-squares` or `loss-squares`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// How much each measured loss counts: `equal` or `seed_noise`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// The axis whose values are fitted apart; empty for one fit of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_by: Option<String>,
    /// What is only predicted: `none`, `largest_size` or `largest_compute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_out: Option<String>,
    /// Bootstrap draws, 100 to 100000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draws: Option<u32>,
    /// Seed of the bootstrap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u32>,
}

impl FitRequest {
    /// A request with single settings alone.
    pub fn of(settings: FitSettings) -> Self {
        let FitSettings { law, objective, weights, group_by, hold_out, draws, seed } = settings;
        Self { fit: None, law, objective, weights, group_by, hold_out, draws, seed }
    }

    /// The single settings.
    pub fn settings(&self) -> FitSettings {
        FitSettings {
            law: self.law.clone(),
            objective: self.objective.clone(),
            weights: self.weights.clone(),
            group_by: self.group_by.clone(),
            hold_out: self.hold_out.clone(),
            draws: self.draws,
            seed: self.seed,
        }
    }
}

/// The loss over C of a stored fit. `GET /fits/{id}/curve` answers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FitCurve {
    /// The fit.
    pub fit: String,
    /// The nominal coverage of the intervals.
    pub confidence: f64,
    /// One for each group and method.
    pub lines: Vec<FitLine>,
}

/// The loss over C by one method for one group: where every budget is split best, or by a law of C
/// alone, which knows no split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FitLine {
    /// The group.
    pub group: String,
    /// The method.
    pub method: String,
    /// The points, by C; none where the method has no law of the loss, or it is not identified.
    pub points: Vec<CurvePoint>,
    /// Why there is none; empty where there are points.
    pub reason: String,
}

/// What a stored fit says of one budget or one model. `gradus predict FIT --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FitPredictionList {
    /// The fit.
    pub fit: String,
    /// The study's name.
    pub study: String,
    /// Whether runs of the study were still missing.
    pub is_provisional: bool,
    /// What N counts.
    pub parameter_kind: String,
    /// What C counts.
    pub flop_kind: String,
    /// The nominal coverage of the intervals.
    pub confidence: f64,
    /// One for each group and method.
    pub predictions: Vec<FitPrediction>,
}

/// The best model for a budget along the sizes that were trained, whose FLOPs for a token need not
/// be κ N with one κ for all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LadderPrediction {
    /// N_opt; not identified where it is an end of the ladder.
    pub parameters: EstimateView,
    /// D_opt, which is C over the FLOPs of a token at N_opt.
    pub tokens: EstimateView,
    /// The loss there.
    pub loss_nats: EstimateView,
    /// N of the trained size with the least loss at this budget; `null` where the law does not say.
    pub rung_parameters: Option<f64>,
    /// Share of the draws whose best size is the smallest or the largest that was trained.
    pub share_at_end: f64,
}

/// What one method says of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FitPrediction {
    /// The group.
    pub group: String,
    /// The method.
    pub method: String,
    /// C: the budget that was asked about, or κ N D.
    pub flops: Option<f64>,
    /// N: what was asked about, or the best one at C.
    pub parameters: EstimateView,
    /// D: what was asked about, or the best one at C.
    pub tokens: EstimateView,
    /// The loss on the curve.
    pub loss_nats: EstimateView,
    /// The loss that one more run would measure, with the scatter of runs about the curve.
    pub measured_loss_nats: EstimateView,
    /// κ of C = κ N D, where N and D are told apart by it.
    pub flops_per_parameter_token: Option<f64>,
    /// The best N and D along the models that were trained, each with its own FLOPs for a token;
    /// `null` where a model was asked about, for laws that are not laws of N and D, and where the
    /// models are no ladder.
    pub along_sizes: Option<LadderPrediction>,
    /// C over the largest fitted one.
    pub extrapolation: Option<f64>,
    /// What to know before quoting it.
    pub warnings: Vec<String>,
}
