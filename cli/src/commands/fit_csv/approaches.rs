//! The envelope and the isoFLOP profiles of a file beside its law: three approaches to N_opt and
//! D_opt.
//!
//! The approaches themselves are `scaling::envelope` and `scaling::isoflop`.

use std::collections::BTreeMap;

use scaling::approach::{Approach, findings};
use scaling::envelope::{self, DroppedBudget, EnvelopeOptions};
use scaling::interval::{Estimate, Inference, IntervalOptions};
use scaling::isoflop::{self, IsoflopOptions};
use scaling::law::LawName;
use scaling::observation::{Dataset, Observation, RunKey};

use super::profiles;
use crate::fit_document::estimate_view;
use crate::output::approach::ApproachView;

/// With more points than these the law stands alone: an envelope interpolates all of them in every
/// draw.
const MOST_POINTS: usize = 20_000;
/// Runs of several points that make an envelope.
const LEAST_CURVES: usize = 2;

/// The approaches side by side, the law's last, with what is to be warned of.
pub(super) fn of(
    dataset: &Dataset,
    inference: &Inference,
    interval: &IntervalOptions,
) -> (Vec<ApproachView>, Vec<String>) {
    let is_joint = matches!(inference.law, LawName::Chinchilla | LawName::Coupled)
        && dataset.points().len() <= MOST_POINTS;
    let Some(law) = of_law(inference).filter(|_| is_joint) else {
        return (Vec::new(), Vec::new());
    };
    let mut all = Vec::new();
    let mut warnings = Vec::new();
    all.extend(of_envelope(dataset, interval));
    if let Some((profiles, found)) = of_profiles(dataset, inference, interval) {
        all.push(profiles);
        warnings.extend(found);
    }
    all.push((law, None, Vec::new()));
    let bare: Vec<Approach> = all.iter().map(|(approach, ..)| approach.clone()).collect();
    warnings.extend(findings(&bare).iter().map(ToString::to_string));
    (all.into_iter().map(view).collect(), warnings)
}

/// An approach with the number of its budgets, and those that it left out.
type Made = (Approach, Option<u64>, Vec<DroppedBudget>);

fn view((approach, n_budgets, dropped): Made) -> ApproachView {
    let text = |one: &DroppedBudget| format!("{:.3e} FLOPs: {}", one.flops, one.reason);
    ApproachView {
        name: approach.name,
        parameters_exponent: estimate_view(&approach.parameters_exponent),
        tokens_exponent: estimate_view(&approach.tokens_exponent),
        exponent_sum: approach.exponent_sum.as_ref().map(estimate_view),
        n_budgets,
        dropped: dropped.iter().map(text).collect(),
    }
}

/// a and b of the law, whose sum is 1 because its C is κ N D; `None` for laws without an optimum.
pub(super) fn of_law(inference: &Inference) -> Option<Approach> {
    // The exponents need no κ.
    let optimum = inference.optimum(inference.ranges.flops.1, 6.0)?;
    let parameters_exponent = optimum.parameters_exponent;
    let tokens_exponent = match &parameters_exponent {
        Estimate::Identified { value, low, high } => {
            Estimate::Identified { value: 1.0 - value, low: 1.0 - high, high: 1.0 - low }
        }
        other @ Estimate::NotIdentified { .. } => other.clone(),
    };
    let name = inference.law.to_string();
    Some(Approach { name, parameters_exponent, tokens_exponent, exponent_sum: None })
}

/// Approach 1, where runs have several points.
fn of_envelope(dataset: &Dataset, interval: &IntervalOptions) -> Option<Made> {
    let mut n_points: BTreeMap<RunKey, usize> = BTreeMap::new();
    for point in dataset.points() {
        *n_points.entry(point.run).or_default() += 1;
    }
    let n_curves = n_points.values().filter(|n| **n > 1).count();
    if n_curves < LEAST_CURVES {
        return None;
    }
    let options = EnvelopeOptions { interval: *interval, ..EnvelopeOptions::default() };
    let name = "envelope".to_owned();
    Some(match envelope::fit(dataset, &options) {
        Ok(fitted) => {
            let approach = Approach {
                name,
                exponent_sum: Some(fitted.exponent_sum()),
                parameters_exponent: fitted.parameters.exponent,
                tokens_exponent: fitted.tokens.exponent,
            };
            (approach, Some(fitted.frontier.len() as u64), fitted.dropped)
        }
        Err(error) => {
            let none = || Estimate::not_identified(error.to_string());
            let (parameters_exponent, tokens_exponent) = (none(), none());
            let exponent_sum = Some(none());
            let approach = Approach { name, parameters_exponent, tokens_exponent, exponent_sum };
            (approach, Some(0), Vec::new())
        }
    })
}

/// Approach 2, where the ends of runs lie on budgets; also what it warns of.
fn of_profiles(
    dataset: &Dataset,
    inference: &Inference,
    interval: &IntervalOptions,
) -> Option<(Made, Vec<String>)> {
    let mut ends: BTreeMap<RunKey, Observation> = BTreeMap::new();
    for point in dataset.points() {
        let end = ends.entry(point.run).or_insert(*point);
        if point.tokens > end.tokens {
            *end = *point;
        }
    }
    let ends: Vec<Observation> = ends.into_values().collect();
    let budgets: Vec<f64> =
        profiles::budgets(&ends).iter().map(|one| profiles::mean(one)).collect();
    if budgets.len() < isoflop::MIN_BUDGETS {
        return None;
    }
    let dataset = Dataset::new(&ends).ok()?.clustered_as(dataset).ok()?;
    let options = IsoflopOptions { level: interval.level, ..IsoflopOptions::default() };
    let fitted = isoflop::fit(&dataset, &budgets, &options);
    // Rows that happen to cost the same are no profiles.
    if fitted.minima.is_empty() {
        return None;
    }
    let mut warnings = fitted.warnings.clone();
    // Where the law does not know alpha and beta, it does not know how parabolas miss either.
    if inference.why_no_optimum().is_none() {
        let surface = (inference.form.law(), inference.resampled.theta.as_slice());
        let corrected = isoflop::fit_corrected(&dataset, &budgets, &options, surface).ok();
        let found = corrected.and_then(|corrected| isoflop::bias(&fitted, &corrected));
        warnings.extend(found.map(|one| one.to_string()));
    }
    let approach = Approach {
        name: "isoflop".to_owned(),
        parameters_exponent: fitted.parameters.exponent,
        tokens_exponent: fitted.tokens.exponent,
        exponent_sum: Some(fitted.exponent_sum),
    };
    let n_budgets = Some(fitted.minima.len() as u64);
    Some(((approach, n_budgets, fitted.dropped), warnings))
}
