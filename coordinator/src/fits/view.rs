//! What every method shares on its way to a view: estimates, curves, fits that could not be made.
//! It fits nothing. No number leaves it that is not finite, for JSON has no word for one.

use std::collections::BTreeMap;

use api::{CurvePoint, EstimateView, MethodFit};
use scaling::interval::{Estimate, Scheme};

/// Points of a plotted curve.
const CURVE_POINTS: usize = 40;
/// How far a curve goes on beyond its range, as a factor of C.
const CURVE_MARGIN: f64 = 1.25;

/// An estimate as the API gives it.
pub(super) fn estimate(estimate: &Estimate) -> EstimateView {
    match estimate {
        Estimate::Identified { value, low, high } => {
            let (value, low, high) = (*value, *low, *high);
            if [value, low, high].iter().all(|number| number.is_finite()) {
                EstimateView::Identified { value, low, high }
            } else {
                not_identified("its interval is not finite")
            }
        }
        Estimate::NotIdentified { reason } => not_identified(reason),
    }
}

/// No number, for this reason.
pub(super) fn not_identified(reason: &str) -> EstimateView {
    EstimateView::NotIdentified { reason: reason.to_owned() }
}

/// `from` minus what was estimated.
pub(super) fn minus(from: f64, estimate: &Estimate) -> Estimate {
    match estimate {
        Estimate::Identified { value, low, high } => {
            Estimate::Identified { value: from - value, low: from - high, high: from - low }
        }
        Estimate::NotIdentified { reason } => Estimate::not_identified(reason.clone()),
    }
}

/// A log-spaced curve from a little below `low` to a little above `high`, where it is identified.
pub(super) fn curve((low, high): (f64, f64), predict: impl Fn(f64) -> Estimate) -> Vec<CurvePoint> {
    points((low / CURVE_MARGIN, high * CURVE_MARGIN), CURVE_POINTS, predict)
}

/// So many log-spaced points between two C, at least 2, where the loss is identified.
pub(super) fn points(
    (low, high): (f64, f64),
    n_points: usize,
    predict: impl Fn(f64) -> Estimate,
) -> Vec<CurvePoint> {
    let (first, last) = (low.ln(), high.ln());
    let step = (last - first) / (n_points - 1) as f64;
    (0..n_points)
        .map(|index| (first + step * index as f64).exp())
        .filter_map(|flops| match estimate(&predict(flops)) {
            EstimateView::Identified { value, low, high } if flops.is_finite() => {
                Some(CurvePoint { flops, loss_nats: value, low: Some(low), high: Some(high) })
            }
            _ => None,
        })
        .collect()
}

/// A number that is one.
pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// A fit that could not be made: every coefficient stands there with the reason.
pub(super) fn unfitted(
    method: &str,
    formulas: Vec<String>,
    names: &[&str],
    reason: &str,
) -> MethodFit {
    let coefficients: BTreeMap<String, EstimateView> =
        names.iter().map(|name| ((*name).to_owned(), not_identified(reason))).collect();
    MethodFit {
        method: method.to_owned(),
        formulas,
        objective: String::new(),
        coefficients,
        n_observations: 0,
        n_runs: 0,
        residual_rms_log: None,
        intervals: String::new(),
        curve: Vec::new(),
        points: Vec::new(),
        dropped: Vec::new(),
        warnings: Vec::new(),
    }
}

/// Whether intervals are made of draws.
pub(super) fn is_drawn(scheme: &Scheme) -> bool {
    matches!(scheme, Scheme::Bootstrap { .. } | Scheme::StatedNoise { .. })
}

/// What intervals are made from, and what is drawn.
fn drawn(n_clusters: usize, n_runs: usize) -> (String, &'static str) {
    if n_clusters == n_runs {
        (format!("{n_runs} runs"), "runs")
    } else {
        (format!("{n_clusters} trunks of {n_runs} runs"), "trunks")
    }
}

/// How intervals were made, for the report's notes; `None` where the coefficients say why there
/// are none.
pub(super) fn explain(scheme: &Scheme) -> Option<String> {
    match scheme {
        Scheme::Bootstrap { n_runs, n_clusters, draws, failed, .. } => {
            let (from, unit) = drawn(*n_clusters, *n_runs);
            Some(format!(
                "intervals from {from}: whole {unit} are drawn with replacement{} ({draws} draws, \
                 {failed} without a fit), percentiles widened for the number of {unit}",
                scheme.strata()
            ))
        }
        Scheme::Jackknife { n_runs, n_clusters } => {
            let (from, unit) = drawn(*n_clusters, *n_runs);
            Some(format!(
                "intervals from {from}: each is left out once (jackknife, Student's t with {} \
                 degrees of freedom); with so few {unit} they are conservative, that is wide, and \
                 hold what another choice of sizes would have given",
                n_clusters - 1
            ))
        }
        Scheme::StatedNoise { n_runs, draws, sd_log, .. } => Some(format!(
            "intervals from {n_runs} runs assume a noise between seeds of {sd_log} in ln L \
             ({draws} draws)"
        )),
        Scheme::Unavailable { .. } => None,
    }
}
