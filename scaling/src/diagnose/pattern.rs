//! Owns the warnings about residuals: patterns that the law does not have, and single runs or
//! losses that decide it. Does not know how the runs were chosen.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::algebra::line;
use crate::fit::Fit;
use crate::interval::Inference;
use crate::law::Quantity;
use crate::observation::{Dataset, RunKey};

/// Influence of one run on the exponent of N.
const INFLUENCE_SHARE: f64 = 0.2;
/// t or z value of a pattern in the residuals.
const PATTERN_T: f64 = 3.0;
/// Runs that a runs test needs, and a slope whose points are several of a run: below, the normal
/// approximation of the first is poor (Wald and Wolfowitz 1940), and so is the error of the second.
const MIN_SEQUENCE: usize = 20;
/// Nats per token above which a model of language has hardly begun to learn, and the share of the
/// objective at which such points decide the fit.
const LARGE_LOSS_NATS: f64 = 4.0;
const DOMINANT_SHARE: f64 = 0.5;
/// Exact losses leave residuals of rounding, whose patterns mean nothing.
const EXACT: f64 = 1e-9;

/// Residuals that follow (ln N - mean)(ln D - mean): a saddle that an additive law cannot have.
pub(super) fn interaction(fit: &Fit, dataset: &Dataset) -> Option<String> {
    let logs: Vec<(f64, f64)> =
        dataset.points().iter().map(|point| (point.parameters.ln(), point.tokens.ln())).collect();
    let n = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let products = logs.iter().map(|point| (point.0 - x) * (point.1 - y));
    let pairs: Vec<(f64, f64)> = products.zip(fit.residuals_log.iter().copied()).collect();
    let t = slope_t(&pairs, dataset)?;
    (t.abs() > PATTERN_T).then(|| {
        format!("residuals follow the product of ln N and ln D (t = {t:.1}); try `coupled`")
    })
}

pub(super) fn residual_trend(fit: &Fit, dataset: &Dataset) -> Option<String> {
    let logs = dataset.points().iter().map(|point| point.flops.ln());
    let pairs: Vec<(f64, f64)> = logs.zip(fit.residuals_log.iter().copied()).collect();
    let t = slope_t(&pairs, dataset)?;
    (t.abs() > PATTERN_T).then(|| format!("residuals fall or rise with C (t = {t:.1})"))
}

/// The run whose absence moves the exponent of N most, of the sum of squares of all such moves.
pub(super) fn influence(
    fit: &Fit,
    inference: &Inference,
    dataset: &Dataset,
    name_of_run: &dyn Fn(RunKey) -> String,
) -> Option<String> {
    let index = fit.coefficients.iter().position(|one| one.quantity == Quantity::Exponent)?;
    let law = fit.form.law();
    let value = |theta: &[f64]| law.coefficients(theta)[index].value;
    let without = inference.without_each_run();
    let moves: Vec<f64> = without.iter().map(|theta| value(theta) - value(&fit.theta)).collect();
    // Of few runs each has a large share.
    if (moves.len() as f64) < 4.0 / INFLUENCE_SHARE {
        return None;
    }
    let total: f64 = moves.iter().map(|change| change * change).sum();
    let (run, change) = moves.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))?;
    let share = change * change / total;
    let name = fit.coefficients[index].name;
    (share > INFLUENCE_SHARE).then(|| {
        let run = name_of_run(dataset.runs()[run]);
        format!(
            "{run} carries {:.0} % of the influence on `{name}`; without it {name} is {:.4}",
            100.0 * share,
            value(&fit.theta) + change
        )
    })
}

/// t of the slope of a line through the pairs, which belong to the points of `dataset`.
///
/// Points of a run share its luck, and so do the runs of a trunk, so that where a run or a trunk has
/// several the error of the slope is that of the sums over these (Liang and Zeger 1986), and needs
/// enough of them.
fn slope_t(pairs: &[(f64, f64)], dataset: &Dataset) -> Option<f64> {
    let fitted = line(pairs, 0.0)?;
    let freedom = pairs.len().checked_sub(2).filter(|freedom| *freedom > 0)? as f64;
    let (unit_of_points, n_units) = dataset.unit_of_points();
    let error = if n_units == pairs.len() {
        (fitted.residual_squares / freedom / fitted.spread).sqrt()
    } else if n_units < MIN_SEQUENCE {
        return None;
    } else {
        let n = pairs.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / n;
        let (x, y) = (mean(|pair| pair.0), mean(|pair| pair.1));
        let mut scores = vec![0.0; n_units];
        for (pair, unit) in pairs.iter().zip(unit_of_points) {
            let rest = pair.1 - y - fitted.slope * (pair.0 - x);
            scores[unit] += (pair.0 - x) * rest;
        }
        let squares: f64 = scores.iter().map(|score| score * score).sum();
        let few = n_units as f64 / (n_units as f64 - 1.0);
        (few * squares).sqrt() / fitted.spread
    };
    let scale = pairs.iter().map(|pair| pair.1.abs()).fold(0.0, f64::max);
    (scale > EXACT && error > 0.0).then(|| fitted.slope / error)
}

/// Signs of residuals in the order of C that stay the same for too long (Wald and Wolfowitz 1940):
/// a bow that a slope does not see. A run has one residual, the mean of its own, at its largest C.
pub(super) fn residual_runs(fit: &Fit, dataset: &Dataset) -> Option<String> {
    let mut of_run: BTreeMap<RunKey, [f64; 5]> = BTreeMap::new();
    for (point, residual) in dataset.points().iter().zip(&fit.residuals_log) {
        let own = of_run.entry(point.run).or_default();
        if point.flops > own[0] {
            [own[0], own[1], own[2]] = [point.flops, point.parameters, point.tokens];
        }
        own[3] += residual;
        own[4] += 1.0;
    }
    let mut ordered: Vec<[f64; 4]> =
        of_run.into_values().map(|[c, n, d, sum, count]| [c, n, d, sum / count]).collect();
    let scale = ordered.iter().map(|one| one[3].abs()).fold(0.0, f64::max);
    if ordered.len() < MIN_SEQUENCE || scale <= EXACT {
        return None;
    }
    ordered.sort_by(|a, b| {
        let orders = a.iter().zip(b).map(|(a, b)| a.total_cmp(b));
        orders.fold(Ordering::Equal, Ordering::then)
    });
    let signs: Vec<bool> = ordered.iter().map(|one| one[3] > 0.0).collect();
    let above = signs.iter().filter(|is_above| **is_above).count() as f64;
    let n = signs.len() as f64;
    let below = n - above;
    // One sign alone has no order to be judged by.
    if above == 0.0 || below == 0.0 {
        let side = if below == 0.0 { "above" } else { "below" };
        return Some(format!("the losses of all {n} runs lie {side} the law"));
    }
    let found = 1 + signs.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let product = 2.0 * above * below;
    let expected = product / n + 1.0;
    let variance = product * (product - n) / (n * n * (n - 1.0));
    let z = (found as f64 - expected) / variance.sqrt();
    (z < -PATTERN_T).then(|| {
        format!(
            "in the order of C the residuals change sign {} times, and {:.0} times by chance \
             (z = {z:.1})",
            found - 1,
            expected - 1.0
        )
    })
}

/// Losses of models that have hardly learnt, where they are few and decide most.
pub(super) fn large_losses(fit: &Fit, dataset: &Dataset) -> Option<String> {
    let (mut of_large, mut of_all, mut n_large) = (0.0, 0.0, 0_usize);
    let rows = dataset.points().iter().zip(dataset.covariates()).zip(&fit.residuals_log);
    for ((point, covariates), residual) in rows {
        let measured = point.loss_nats.ln();
        let part = covariates.weight * fit.objective_kind.of(measured, measured - residual);
        of_all += part;
        if point.loss_nats > LARGE_LOSS_NATS {
            of_large += part;
            n_large += 1;
        }
    }
    let (share, n) = (of_large / of_all, dataset.points().len());
    // Residuals of rounding decide nothing.
    let is_exact = fit.residuals_log.iter().all(|residual| residual.abs() <= EXACT);
    (!is_exact && 2 * n_large < n && share > DOMINANT_SHARE).then(|| {
        format!(
            "{n_large} of {n} points have a loss above {LARGE_LOSS_NATS} nats and make {:.0} % \
             of the objective; `fit --csv` fits without them by \
             `--hold-out 'loss>{LARGE_LOSS_NATS}'`",
            100.0 * share
        )
    })
}
