//! Owns the warnings about coefficients: at an end, among several minima, loosely determined.
//! Does not look at residuals.

use super::correlation;
use super::slope::CLEAR_LEVEL;
use crate::fit::Fit;
use crate::interval::{Inference, student};
use crate::law::{Coefficient, DataConstrained, LawForm, LogPoint, Quantity, Variable};
use crate::observation::{Dataset, Observation};
use crate::profile::FloorProfile;

/// An exponent above this has not been published for any language model.
const STEEP_EXPONENT: f64 = 1.5;
/// Relative standard error of an exponent that is worth a warning.
const LOOSE_EXPONENT: f64 = 0.3;
/// Converged starts of which more than one should reach the best minimum.
const LONE_OF: usize = 4;
/// Draws that left the optimum's basin.
const SWITCHED_SHARE: f64 = 0.05;
/// Nats of E within one unit of twice the log-likelihood.
const FLAT_FLOOR_NATS: f64 = 0.2;
/// A floor above this share of the smallest loss leaves hardly anything to reduce.
const HIGH_FLOOR_SHARE: f64 = 0.99;
/// Correlation of k and E over the draws above which one is traded for the other.
const TIED_CORRELATION: f64 = 0.95;
/// R of `data_constrained` beyond which runs say how fast value decays, and how many of them are
/// needed.
const REPEATED: f64 = 4.0;
const MIN_REPEATED: usize = 10;
/// Rank correlation of the loss with what is spent above which it rises, the points that say so, and
/// the factor that they must span: budgets of one profile differ by whole steps.
const RISING: f64 = 0.5;
const MIN_RANKED: usize = 5;
const MIN_SPENT: f64 = 2.0;

pub(super) fn at_bound(fit: &Fit) -> Option<String> {
    let named: Vec<String> = fit
        .at_bound
        .iter()
        .filter_map(|name| Some(format!("`{name}` = {:.3e}", fit.coefficient(name)?)))
        .collect();
    (!named.is_empty()).then(|| format!("{} at the end of its range", named.join(", ")))
}

pub(super) fn several_minima(fit: &Fit) -> Option<String> {
    let rivals = &fit.convergence.rivals;
    let first = rivals.first()?;
    let percent = 100.0 * (first.objective / fit.objective - 1.0);
    Some(format!("{} others within 0.5 %, the next {percent:.3} % above", rivals.len()))
}

/// A loss that rises with what is spent, such as an accuracy that was taken for one: the laws of N,
/// D and C are of losses that fall.
pub(super) fn loss_rises(fit: &Fit, inference: &Inference, dataset: &Dataset) -> Option<String> {
    let variables = fit.form.law().variables();
    let variable = match variables {
        [one @ (Variable::Parameters | Variable::Tokens | Variable::Flops)] => *one,
        _ if variables.contains(&Variable::Parameters) => Variable::Flops,
        _ => return None,
    };
    let spent = |point: &Observation| LogPoint::from(point).value(variable);
    let law = fit.law;
    let why = format!("and `{law}` is a law of a loss that falls; is it an accuracy?");
    let exponents = fit.coefficients.iter().zip(&inference.coefficients);
    let mut negative = exponents.filter_map(|(one, inferred)| {
        let (_, high) = inferred.estimate.interval()?;
        (one.quantity == Quantity::Exponent && high < 0.0).then_some((one.name, one.value))
    });
    if let Some((name, value)) = negative.next() {
        return Some(format!("`{name}` = {value:.3} makes the loss rise, {why}"));
    }
    let pairs: Vec<(f64, f64)> =
        dataset.points().iter().map(|point| (spent(point), point.loss_nats)).collect();
    let (low, high) = dataset.range(spent)?;
    if pairs.len() < MIN_RANKED || high < MIN_SPENT * low {
        return None;
    }
    let rank = rank_correlation(&pairs)?;
    let freedom = pairs.len() as f64 - 2.0;
    // Ranks that agree wholly have no error.
    let is_clear = rank >= 1.0
        || rank * (freedom / (1.0 - rank * rank)).sqrt() > student(CLEAR_LEVEL, freedom);
    (rank > RISING && is_clear)
        .then(|| format!("the loss rises with {variable} (rank correlation {rank:.2}), {why}"))
}

/// Spearman's correlation; equal values have their mean rank.
fn rank_correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let ranks = |values: Vec<f64>| -> Vec<f64> {
        let mut sorted = values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let rank = |value: &f64| {
            let below = sorted.partition_point(|one| one < value);
            let up_to = sorted.partition_point(|one| one <= value);
            (below + up_to) as f64
        };
        values.iter().map(rank).collect()
    };
    let first = ranks(pairs.iter().map(|pair| pair.0).collect());
    let second = ranks(pairs.iter().map(|pair| pair.1).collect());
    correlation(&first.into_iter().zip(second).collect::<Vec<_>>())
}

/// A minimum that a single start reached may not be the lowest.
pub(super) fn lone_start(fit: &Fit) -> Option<String> {
    let found = &fit.convergence;
    (found.n_at_best == 1 && found.n_converged >= LONE_OF).then(|| {
        format!(
            "1 of {} converged starts ends at the best minimum, so there may be a better one",
            found.n_converged
        )
    })
}

pub(super) fn basin_switch(inference: &Inference) -> Option<String> {
    let (n, all) = (inference.n_switched, inference.resampled.replicates.len());
    // Draws that were thrown away leave no interval that could be wrong.
    (all > 0 && n as f64 > SWITCHED_SHARE * all as f64)
        .then(|| format!("{n} of {all} draws have another minimum than the fit's"))
}

pub(super) fn steep_exponent(fit: &Fit) -> Option<String> {
    let is_steep = |one: &&Coefficient| {
        one.quantity == Quantity::Exponent
            && ["alpha", "beta", "eta", "alpha_N", "alpha_D"].contains(&one.name)
            && one.value > STEEP_EXPONENT
    };
    let found = fit.coefficients.iter().find(is_steep)?;
    Some(format!("`{}` = {:.2}, above {STEEP_EXPONENT}", found.name, found.value))
}

pub(super) fn loose_exponent(fit: &Fit, inference: &Inference) -> Option<String> {
    let law = fit.form.law();
    fit.coefficients.iter().enumerate().find_map(|(index, one)| {
        if one.quantity != Quantity::Exponent {
            return None;
        }
        let value = |theta: &[f64]| law.coefficients(theta)[index].value;
        let share = inference.resampled.standard_error(value)? / one.value.abs();
        (share > LOOSE_EXPONENT).then(|| {
            format!("the standard error of `{}` is {:.0} % of it", one.name, 100.0 * share)
        })
    })
}

pub(super) fn floor(
    fit: &Fit,
    dataset: &Dataset,
    profile: Option<&FloorProfile>,
) -> Option<String> {
    let found = fit.coefficients.iter().find(|one| one.quantity == Quantity::Floor)?;
    let (smallest, _) = dataset.range(|point| point.loss_nats)?;
    if let Some(profile) = profile
        && (profile.low.is_none() || profile.flat_nats > FLAT_FLOOR_NATS)
    {
        let end =
            profile.low.map_or("has no lower end".to_owned(), |low| format!("begins at {low:.3}"));
        return Some(format!(
            "its likelihood interval {end}; {:.2} nats of `{}` fit about equally well",
            profile.flat_nats, found.name
        ));
    }
    let (n_units, p) = (dataset.n_clusters().unwrap_or(fit.n_runs), fit.theta.len());
    if profile.is_none() && n_units <= p && matches!(fit.form, LawForm::Free(_)) {
        return Some(format!(
            "{n_units} runs are no more than the {p} parameters: which other values of `{}` fit as \
             well cannot be said",
            found.name
        ));
    }
    (found.value > HIGH_FLOOR_SHARE * smallest).then(|| {
        format!(
            "`{}` = {:.4} is within a per cent of the smallest loss {smallest:.4}",
            found.name, found.value
        )
    })
}

pub(super) fn outer_exponent(inference: &Inference) -> Option<String> {
    let (low, high) = inference.coefficient("k")?.interval()?;
    (low <= 1.0 && 1.0 <= high).then(|| {
        format!("the interval of k, {low:.2} to {high:.2}, holds 1: `chinchilla` says as much")
    })
}

/// k and E of `coupled` that the draws trade for each other (Videau et al. 2026 saw E fall from
/// 0.45 to 0.03 with k).
pub(super) fn tied_floor(fit: &Fit, inference: &Inference) -> Option<String> {
    let law = fit.form.law();
    let place = |name: &str| fit.coefficients.iter().position(|one| one.name == name);
    let (floor, outer) = (place("E")?, place("k")?);
    let pair = |theta: &Vec<f64>| {
        let all = law.coefficients(theta);
        (all[outer].value.ln(), all[floor].value.ln())
    };
    let draws: Vec<(f64, f64)> = inference.resampled.replicates.iter().map(pair).collect();
    let r = correlation(&draws).filter(|r| r.abs() > TIED_CORRELATION)?;
    Some(format!("over {} draws ln k and ln E have a correlation of {r:.3}", draws.len()))
}

/// Repetitions R_D and excess parameters R_N of the points, under the fitted coefficients.
fn reuse(fit: &Fit, dataset: &Dataset) -> [(&'static str, &'static str, Vec<f64>); 2] {
    let points = dataset.log_points();
    let theta = match &fit.form {
        LawForm::Free(_) => fit.theta.clone(),
        LawForm::Pinned(pinned) => pinned.full(&fit.theta),
    };
    let excess = |point| DataConstrained::excess_parameters(&theta, point);
    [
        ("R_D", "repeat their data", points.iter().map(LogPoint::repetitions).collect()),
        ("R_N", "exceed the size for their unique tokens", points.iter().map(excess).collect()),
    ]
}

pub(super) fn few_repetitions(fit: &Fit, dataset: &Dataset) -> Option<String> {
    let lacking = reuse(fit, dataset).into_iter().filter_map(|(name, what, values)| {
        let n = values.iter().filter(|value| **value > REPEATED).count();
        (n < MIN_REPEATED).then(|| {
            format!("{n} points {what} more than {REPEATED} times, and {name} needs {MIN_REPEATED}")
        })
    });
    let lacking: Vec<String> = lacking.collect();
    (!lacking.is_empty()).then(|| lacking.join("; "))
}

/// A decay constant outside the reuse that was measured is an extrapolation of the form of the
/// decay.
pub(super) fn outside_repetitions(fit: &Fit, dataset: &Dataset) -> Option<String> {
    let outside = reuse(fit, dataset).into_iter().filter_map(|(name, _, values)| {
        let value = fit.coefficient(name)?;
        let most = values.iter().copied().fold(0.0, f64::max);
        (value > most)
            .then(|| format!("{name} = {value:.3}, and the largest measured is {most:.3}"))
    });
    let outside: Vec<String> = outside.collect();
    (!outside.is_empty()).then(|| outside.join("; "))
}
