//! The parametric law L(N, D) of a group, with the compute-optimal allocation that follows from it.
//! The law, its fit and its intervals are `scaling`'s.

use std::collections::BTreeMap;

use api::{EstimateView, MethodFit};
use domain::spec::FitMethod;
use scaling::fit::{self, FitOptions};
use scaling::interval::{Estimate, Inference, infer};
use scaling::law::LawName;
use scaling::observation::{Dataset, Observation};

use super::super::observe::Group;
use super::super::view;
use super::{Fitted, Predictor, Settings, curve_range, label, unfitted};

/// Stable names; the first five are the law's own.
const NAMES: [&str; 7] = ["E", "A", "B", "alpha", "beta", "parameters_exponent", "tokens_exponent"];

/// C/(N·D) that varies more than this makes one compute-optimal line for all sizes doubtful.
const MAX_KAPPA_RATIO: f64 = 1.2;

fn formulas() -> Vec<String> {
    vec![
        LawName::Chinchilla.law().formula().to_owned(),
        "N_opt(C) ∝ C^parameters_exponent with parameters_exponent = beta / (alpha + beta)"
            .to_owned(),
        "D_opt(C) ∝ C^tokens_exponent with tokens_exponent = alpha / (alpha + beta)".to_owned(),
    ]
}

pub(super) fn fit(group: &Group, settings: &Settings) -> Fitted {
    match try_fit(group, settings) {
        Ok(fitted) => fitted,
        Err(reason) => unfitted(FitMethod::Chinchilla, formulas(), &NAMES, &reason),
    }
}

fn try_fit(group: &Group, settings: &Settings) -> Result<Fitted, String> {
    if let Some(reason) = group.why_empty() {
        return Err(reason);
    }
    let dataset = Dataset::new(&group.observations()).map_err(|error| error.to_string())?;
    let options = FitOptions::default();
    let fit = fit::fit(LawName::Chinchilla.law(), &dataset, &options)
        .map_err(|error| error.to_string())?;
    let inference =
        infer(&fit, &dataset, &options, &settings.interval).map_err(|error| error.to_string())?;
    let kappa = Kappa::of(dataset.points());
    let mut warnings = fit.warnings.clone();
    warnings.extend(kappa.warning());
    let range = curve_range(group, inference.ranges.flops);
    // Where the law is not identified as a whole, no number has an interval.
    let scheme = inference.whole.is_none().then_some(&inference.resampled.scheme);
    let (is_drawn, interval_note) =
        (scheme.is_some_and(view::is_drawn), scheme.and_then(view::explain));
    let view = MethodFit {
        method: label(FitMethod::Chinchilla).to_owned(),
        formulas: formulas(),
        objective: fit.objective_kind.to_string(),
        coefficients: coefficients(&inference, &kappa),
        n_observations: fit.n_points as u64,
        n_runs: fit.n_runs as u64,
        residual_rms_log: view::finite(fit.residual_rms_log),
        intervals: scheme.map(view::intervals).unwrap_or_default(),
        curve: view::curve(range, |flops| optimal_loss(&inference, &kappa, flops)),
        points: Vec::new(),
        dropped: Vec::new(),
        warnings,
    };
    let predictor = Predictor::Chinchilla(Box::new(inference), kappa.mean);
    Ok(Fitted { view, predictor, is_drawn, interval_note })
}

fn coefficients(inference: &Inference, kappa: &Kappa) -> BTreeMap<String, EstimateView> {
    let own = inference
        .coefficients
        .iter()
        .map(|one| (one.name.to_owned(), view::estimate(&one.estimate)));
    let optimum = inference.optimum(inference.ranges.flops.1, kappa.mean);
    let exponent = optimum.map_or_else(
        || Estimate::not_identified("the law has no compute-optimal point"),
        |optimum| optimum.parameters_exponent,
    );
    let derived = [
        ("parameters_exponent".to_owned(), view::estimate(&exponent)),
        ("tokens_exponent".to_owned(), view::estimate(&view::minus(1.0, &exponent))),
    ];
    own.chain(derived).collect()
}

/// The loss where a budget is split best.
fn optimal_loss(inference: &Inference, kappa: &Kappa, flops: f64) -> Estimate {
    match inference.optimum(flops, kappa.mean) {
        Some(optimum) => optimum.loss_nats,
        None => Estimate::not_identified("the law has no compute-optimal point"),
    }
}

/// κ of C = κ·N·D over the fitted points: exact FLOPs count attention and head, which do not grow
/// like N.
struct Kappa {
    /// Its geometric mean.
    mean: f64,
    low: f64,
    high: f64,
}

impl Kappa {
    fn of(points: &[Observation]) -> Self {
        let of = |point: &Observation| point.flops / (point.parameters * point.tokens);
        let ln_sum: f64 = points.iter().map(|point| of(point).ln()).sum();
        Self {
            mean: (ln_sum / points.len().max(1) as f64).exp(),
            low: points.iter().map(of).fold(f64::INFINITY, f64::min),
            high: points.iter().map(of).fold(0.0, f64::max),
        }
    }

    fn warning(&self) -> Option<String> {
        (self.high > MAX_KAPPA_RATIO * self.low).then(|| {
            format!(
                "C/(N·D) runs from {:.1} to {:.1} over the sizes; the compute-optimal line takes {:.1}",
                self.low, self.high, self.mean
            )
        })
    }
}
