//! Owns the warnings about residuals: patterns that the law does not have, and single runs or
//! losses that decide it. Does not know how the runs were chosen.

use std::cmp::Ordering;

use super::slope::{clear_t, gradients};
use crate::fit::Fit;
use crate::interval::Inference;
use crate::law::Quantity;
use crate::noise::SAME_PLACE;
use crate::observation::{Dataset, RunKey};

/// Influence of one run on the exponent of N.
const INFLUENCE_SHARE: f64 = 0.2;
/// z value of a sequence of signs.
const PATTERN_Z: f64 = 3.0;
/// Places that a runs test needs, and runs that a slope needs whose points are several of a run:
/// below, the normal approximation of the first is poor (Wald and Wolfowitz 1940), and so is the
/// error of the second.
pub(super) const MIN_SEQUENCE: usize = 20;
/// Nats per token above which a model of language has hardly begun to learn, and the share of the
/// objective at which such points decide the fit.
const LARGE_LOSS_NATS: f64 = 4.0;
const DOMINANT_SHARE: f64 = 0.5;
/// Exact losses leave residuals of rounding, whose patterns mean nothing.
pub(super) const EXACT: f64 = 1e-9;

/// Residuals that follow (ln N - mean)(ln D - mean): a saddle that an additive law cannot have.
pub(super) fn interaction(fit: &Fit, dataset: &Dataset) -> Option<String> {
    let logs: Vec<(f64, f64)> =
        dataset.points().iter().map(|point| (point.parameters.ln(), point.tokens.ln())).collect();
    let n = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let products: Vec<f64> = logs.iter().map(|point| (point.0 - x) * (point.1 - y)).collect();
    let t = clear_t(fit, dataset, &products, &gradients(fit, dataset))?;
    Some(format!("residuals follow the product of ln N and ln D (t = {t:.1}); try `coupled`"))
}

/// Residuals that follow ln C: what a robust objective did not bend the law to.
pub(super) fn residual_trend(fit: &Fit, dataset: &Dataset) -> Option<String> {
    let logs: Vec<f64> = dataset.points().iter().map(|point| point.flops.ln()).collect();
    let t = clear_t(fit, dataset, &logs, &[])?;
    Some(format!("residuals fall or rise with C (t = {t:.1})"))
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

/// Signs of residuals in the order of C that stay the same for too long (Wald and Wolfowitz 1940):
/// a bow that a slope does not see. A place of N, D and C has one residual, the mean of its runs':
/// among seeds, or runs that differ in what else a law may look at, there is no order that is not
/// the residuals' own, or that of rows.
pub(super) fn residual_runs(fit: &Fit, dataset: &Dataset) -> Option<String> {
    let places = residuals_of_places(fit, dataset);
    let scale = places.iter().map(|residual| residual.abs()).fold(0.0, f64::max);
    if places.len() < MIN_SEQUENCE || scale <= EXACT {
        return None;
    }
    let signs: Vec<bool> = places.iter().map(|residual| *residual > 0.0).collect();
    let above = signs.iter().filter(|is_above| **is_above).count() as f64;
    let n = signs.len() as f64;
    let below = n - above;
    // One sign alone has no order to be judged by.
    if above == 0.0 || below == 0.0 {
        let side = if below == 0.0 { "above" } else { "below" };
        return Some(format!("the mean losses of all {n} places lie {side} the law"));
    }
    let found = 1 + signs.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let product = 2.0 * above * below;
    let expected = product / n + 1.0;
    let variance = product * (product - n) / (n * n * (n - 1.0));
    let z = (found as f64 - expected) / variance.sqrt();
    (z < -PATTERN_Z).then(|| {
        format!(
            "in the order of C the residuals change sign {} times, and {:.0} times by chance \
             (z = {z:.1})",
            found - 1,
            expected - 1.0
        )
    })
}

/// The mean residual of each place of N, D and C in the order of C. What shares its luck, a run or
/// the runs of a trunk, counts once, with the mean of its points at the largest C of them.
fn residuals_of_places(fit: &Fit, dataset: &Dataset) -> Vec<f64> {
    let (unit_of_points, n_units) = dataset.unit_of_points();
    let mut of_units = vec![[0.0; 5]; n_units];
    let rows = dataset.points().iter().zip(&fit.residuals_log);
    for ((point, residual), unit) in rows.zip(unit_of_points) {
        let own = &mut of_units[unit];
        if point.flops > own[0] {
            [own[0], own[1], own[2]] = [point.flops, point.parameters, point.tokens];
        }
        own[3] += residual;
        own[4] += 1.0;
    }
    let mut ordered: Vec<[f64; 4]> =
        of_units.into_iter().map(|[c, n, d, sum, count]| [c, n, d, sum / count]).collect();
    ordered.sort_by(|a, b| {
        let orders = a.iter().zip(b).map(|(a, b)| a.total_cmp(b));
        orders.fold(Ordering::Equal, Ordering::then)
    });
    let is_same = |a: &[f64; 4], b: &[f64; 4]| {
        a[..3].iter().zip(&b[..3]).all(|(a, b)| (a / b).ln().abs() < SAME_PLACE)
    };
    let mean = |own: &[[f64; 4]]| own.iter().map(|one| one[3]).sum::<f64>() / own.len() as f64;
    ordered.chunk_by(is_same).map(mean).collect()
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
