//! The methods: one fit of one group by each, as a view and as something that predicts.
//! It does not know the study; every number comes from `scaling`.

use api::{EstimateView, MethodFit};
use domain::spec::{FitMethod, FitObjective, FitWeights};
use scaling::approach::Approach;
use scaling::envelope::EnvelopeFit;
use scaling::interval::{IntervalOptions, Prediction};

use super::observe::{Group, Observed};
use super::view;

mod envelope;
mod isoflop;
mod law;

pub(super) use law::LawModel;

/// Nominal coverage of every interval.
pub(super) const CONFIDENCE: f64 = 0.95;
/// Draws while runs are missing: a dashboard asks again after every measurement, on cores that
/// train.
const PROVISIONAL_DRAWS: u32 = 200;
/// C of prefactors when nothing is measured.
const DEFAULT_UNIT_FLOPS_LOG10: f64 = 15.0;

/// What all fits of a report share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Settings {
    /// How intervals are made.
    pub(super) interval: IntervalOptions,
    /// Bootstrap draws.
    pub(super) draws: u32,
    /// What laws minimise.
    pub(super) objective: FitObjective,
    /// How much each point counts in a law.
    pub(super) weights: FitWeights,
    /// log10 of the C in which prefactors are given, a whole number.
    pub(super) unit_log10: f64,
}

impl Settings {
    /// The study's own, with one unit of C for all groups so that their prefactors compare.
    ///
    /// The unit is the power of ten in the middle of what is fitted: at C = 1 every prefactor
    /// would be an extrapolation over fifteen decades, and none would be identified.
    pub(super) fn new(observed: &Observed) -> Self {
        let spec = &observed.spec;
        let provisional = observed.is_provisional();
        let draws = if provisional { spec.draws.min(PROVISIONAL_DRAWS) } else { spec.draws };
        let fitted = observed.groups.iter().flat_map(Group::fitted);
        let logs: Vec<f64> =
            fitted.flat_map(|run| &run.points).map(|point| point.flops.log10()).collect();
        let mean = logs.iter().sum::<f64>() / logs.len().max(1) as f64;
        Self {
            interval: IntervalOptions {
                level: CONFIDENCE,
                draws: draws as usize,
                seed: u64::from(spec.seed),
            },
            draws,
            objective: spec.objective,
            weights: spec.weights,
            unit_log10: if logs.is_empty() { DEFAULT_UNIT_FLOPS_LOG10 } else { mean.round() },
        }
    }

    fn unit_flops(&self) -> f64 {
        10_f64.powf(self.unit_log10)
    }

    /// The unit as it stands in a formula.
    fn unit_text(&self) -> String {
        format!("1e{}", self.unit_log10)
    }
}

/// One method's fit of one group.
#[derive(Debug)]
pub(super) struct Fitted {
    /// For the report.
    pub(super) view: MethodFit,
    /// For the held-out runs.
    pub(super) predictor: Predictor,
    /// Whether its intervals are made of draws.
    pub(super) is_drawn: bool,
    /// How its intervals were made, for a reader.
    pub(super) interval_note: Option<String>,
    /// What it says of N_opt and D_opt, to be held against the others; `None` where there is no fit.
    pub(super) approach: Option<Approach>,
}

/// What predicts the loss of a run that was not fitted.
#[derive(Debug)]
pub(super) enum Predictor {
    /// The frontier, by C.
    Envelope(Box<EnvelopeFit>),
    /// The law, by what it looks at.
    Law(Box<LawModel>),
    /// Nothing, for this reason.
    Nothing(String),
}

impl Predictor {
    /// The loss to be measured at N, D and C, and C over the largest fitted C.
    pub(super) fn predict(
        &self,
        parameters: f64,
        tokens: f64,
        flops: f64,
    ) -> (EstimateView, Option<f64>) {
        let viewed = |prediction: &Prediction| {
            (view::estimate(&prediction.measured), Some(prediction.extrapolation))
        };
        match self {
            Self::Envelope(fit) => viewed(&fit.predict_loss(flops)),
            Self::Law(model) => viewed(&model.inference.predict(parameters, tokens, flops)),
            Self::Nothing(reason) => (view::not_identified(reason), None),
        }
    }
}

/// Fits one group. A fit that cannot be made is there too, and says why.
pub(super) fn fit(method: FitMethod, group: &Group, settings: &Settings) -> Fitted {
    let mut fitted = match (law::law_of(method), method) {
        (Some(name), _) => law::fit(method, name, group, settings),
        (None, FitMethod::Isoflop) => isoflop::fit(group, settings),
        (None, _) => envelope::fit(group, settings),
    };
    fitted.view.dropped.splice(0..0, group.dropped.iter().cloned());
    fitted
}

/// A fit that could not be made.
fn unfitted(method: FitMethod, formulas: Vec<String>, names: &[&str], reason: &str) -> Fitted {
    Fitted {
        view: view::unfitted(method.label(), formulas, names, reason),
        predictor: Predictor::Nothing(reason.to_owned()),
        is_drawn: false,
        interval_note: None,
        approach: None,
    }
}

/// Up to where a curve is drawn: the fitted range and the held-out runs' last points.
fn curve_range(group: &Group, (low, high): (f64, f64)) -> (f64, f64) {
    let held_out = group.held_out().map(|run| run.last().flops);
    (low, held_out.fold(high, f64::max))
}
