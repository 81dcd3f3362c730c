//! Owns isoFLOP profiles: a parabola in ln N per budget, its minimum, the exponents of N_opt and D_opt.
//! Corrects the known bias of parabolas when alpha and beta differ only where the caller has a surface to say by how much.

use crate::algebra::{Line, cholesky, inverse, line, multiply};
use crate::envelope::{DroppedBudget, PowerLine};
use crate::interval::{Estimate, judged, student};
use crate::law::{Chinchilla, Law, LogPoint, Quantity};
use crate::observation::{Dataset, Excluded, Observation};

/// With three sizes a parabola goes through every point, and its minimum has no error to be judged by.
pub const MIN_SIZES_PER_BUDGET: usize = 4;
/// The t value that the curvature must have; below it the profile is flat and its minimum is noise.
pub const MIN_CURVATURE_T: f64 = 3.0;
/// A line through two budgets has no residual.
pub const MIN_BUDGETS: usize = 3;
/// A run belongs to the nearest budget if its C is within this share of it.
pub const BUDGET_TOLERANCE: f64 = 0.1;

/// How to fit isoFLOP profiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IsoflopOptions {
    /// Nominal coverage of intervals.
    pub level: f64,
    /// C in which prefactors are given.
    pub unit_flops: f64,
}

impl Default for IsoflopOptions {
    fn default() -> Self {
        Self { level: 0.95, unit_flops: crate::envelope::PFLOP_DAY }
    }
}

/// The minimum of one profile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProfileMinimum {
    /// C of the budget.
    pub flops: f64,
    /// N_opt.
    pub parameters: f64,
    /// D at N_opt, interpolated between the budget's runs.
    pub tokens: f64,
    /// Loss of the parabola at N_opt, nats per token.
    pub loss_nats: f64,
    /// Second derivative of ln L with respect to ln N.
    pub curvature: f64,
    /// Runs of the budget.
    pub n_points: usize,
}

/// Profiles with the laws of their minima.
#[derive(Debug, Clone, PartialEq)]
pub struct IsoflopFit {
    /// One per usable budget, in order of C.
    pub minima: Vec<ProfileMinimum>,
    /// Budgets without a usable minimum, with reasons.
    pub dropped: Vec<DroppedBudget>,
    /// Points that belong to no budget, beside those the data set excluded.
    pub excluded: Vec<Excluded>,
    /// N_opt(C). Budgets share no run, so the interval is Student's t of the regression over budgets.
    pub parameters: PowerLine,
    /// D_opt(C).
    pub tokens: PowerLine,
    /// What a reader should know before using the numbers.
    pub warnings: Vec<String>,
}

/// Fits a profile to each budget. `dataset` holds one point, the last, of each run.
///
/// Profiles are parabolas of ln L in ln N by least squares; a budget is dropped, with the reason, when it has fewer
/// than [`MIN_SIZES_PER_BUDGET`] sizes, no significant upward curvature, or its minimum outside the sampled sizes.
pub fn fit(dataset: &Dataset, budgets: &[f64], options: &IsoflopOptions) -> IsoflopFit {
    let (groups, mut excluded) = group(dataset, budgets);
    excluded.splice(0..0, dataset.excluded().iter().cloned());
    let (mut minima, mut dropped) = (Vec::new(), Vec::new());
    for (flops, points) in groups {
        match profile(flops, &points) {
            Ok(minimum) => minima.push(minimum),
            Err(reason) => dropped.push(DroppedBudget { flops, reason }),
        }
    }
    minima.sort_by(|a, b| a.flops.total_cmp(&b.flops));
    let mut warnings = Vec::new();
    if !dropped.is_empty() {
        warnings.push(format!("{} of {} budgets were dropped", dropped.len(), budgets.len()));
    }
    IsoflopFit {
        parameters: power_line(&minima, options, |minimum| minimum.parameters),
        tokens: power_line(&minima, options, |minimum| minimum.tokens),
        minima,
        dropped,
        excluded,
        warnings,
    }
}

/// As [`fit`], less the error that a parabola makes on a surface of `chinchilla` with the parameters `theta`.
///
/// A parabola through a profile whose sides differ has its vertex off the minimum, also without any noise: by a few per
/// cent in D_opt at sizes up to eight times from it. The shift depends on alpha, beta and the sampled sizes alone; it is
/// measured on exact losses at the same points and taken off each minimum (Open Athena 2026, on approach 2 of
/// Hoffmann et al. 2022). Losses at the minima stay as measured.
pub fn fit_corrected(
    dataset: &Dataset,
    budgets: &[f64],
    options: &IsoflopOptions,
    theta: &[f64],
) -> IsoflopFit {
    let mut fitted = fit(dataset, budgets, options);
    let (groups, _) = group(dataset, budgets);
    for minimum in &mut fitted.minima {
        let found = groups.iter().find(|(flops, _)| *flops == minimum.flops);
        if let Some(shift) = found.and_then(|(_, points)| vertex_shift(points, theta)) {
            minimum.parameters *= (-shift).exp();
            // On one budget N D is constant as far as the FLOP convention goes.
            minimum.tokens *= shift.exp();
        }
    }
    fitted.parameters = power_line(&fitted.minima, options, |minimum| minimum.parameters);
    fitted.tokens = power_line(&fitted.minima, options, |minimum| minimum.tokens);
    fitted
}

/// ln of the parabola's N over the surface's own best N, on exact losses of the surface at the points.
fn vertex_shift(points: &[&Observation], theta: &[f64]) -> Option<f64> {
    let exact: Vec<Observation> = points
        .iter()
        .map(|point| {
            let loss_nats = Chinchilla.predict(theta, &LogPoint::from(*point));
            Observation { loss_nats, ..**point }
        })
        .collect();
    let references: Vec<&Observation> = exact.iter().collect();
    let n = points.len() as f64;
    let mean =
        |of: fn(&Observation) -> f64| points.iter().map(|point| of(point).ln()).sum::<f64>() / n;
    let ln_flops = mean(|point| point.flops);
    let ln_kappa = ln_flops - mean(|point| point.parameters) - mean(|point| point.tokens);
    let vertex = profile(ln_flops.exp(), &references).ok()?.parameters;
    let best = Chinchilla::optimum(theta, ln_flops.exp(), ln_kappa.exp()).parameters;
    Some((vertex / best).ln())
}

type Groups<'a> = Vec<(f64, Vec<&'a Observation>)>;

fn group<'a>(dataset: &'a Dataset, budgets: &[f64]) -> (Groups<'a>, Vec<Excluded>) {
    let mut groups: Groups<'a> = budgets.iter().map(|budget| (*budget, Vec::new())).collect();
    let mut excluded = Vec::new();
    for (index, point) in dataset.points().iter().enumerate() {
        let distance = |budget: f64| (point.flops / budget - 1.0).abs();
        let nearest = groups.iter_mut().min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)));
        match nearest {
            Some((budget, points)) if distance(*budget) <= BUDGET_TOLERANCE => points.push(point),
            _ => excluded.push(Excluded {
                index,
                run: point.run,
                reason: format!("{:.3e} FLOPs are within 10 % of no budget", point.flops),
            }),
        }
    }
    (groups, excluded)
}

fn profile(flops: f64, points: &[&Observation]) -> Result<ProfileMinimum, String> {
    let mut logs: Vec<(f64, f64, f64)> = points
        .iter()
        .map(|point| (point.parameters.ln(), point.loss_nats.ln(), point.tokens.ln()))
        .collect();
    logs.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut sizes: Vec<f64> = logs.iter().map(|point| point.0).collect();
    sizes.dedup_by(|later, earlier| *later - *earlier < 1e-6);
    if sizes.len() < MIN_SIZES_PER_BUDGET {
        return Err(format!(
            "{} sizes; a profile needs at least {MIN_SIZES_PER_BUDGET}",
            sizes.len()
        ));
    }
    let (low, high) = (sizes[0], sizes[sizes.len() - 1]);
    let (centre, half) = (0.5 * (low + high), 0.5 * (high - low));
    let [c0, c1, c2, error] = parabola(&logs, centre, half)?;
    if c2 <= 0.0 {
        return Err("the profile has no minimum: it does not curve upward".to_owned());
    }
    if c2 < MIN_CURVATURE_T * error {
        return Err(format!("the profile is flat: its curvature has t = {:.1}", c2 / error));
    }
    let vertex = -c1 / (2.0 * c2);
    if vertex.abs() >= 1.0 {
        let at = (centre + half * vertex).exp();
        let (from, to) = (low.exp(), high.exp());
        return Err(format!(
            "its minimum, N = {at:.3e}, is not inside the sampled sizes, {from:.3e} to {to:.3e}"
        ));
    }
    let ln_parameters = centre + half * vertex;
    Ok(ProfileMinimum {
        flops,
        parameters: ln_parameters.exp(),
        tokens: interpolate(&logs, ln_parameters).exp(),
        loss_nats: (c0 + vertex * (c1 + vertex * c2)).exp(),
        curvature: 2.0 * c2 / (half * half),
        n_points: points.len(),
    })
}

/// Coefficients of `c0 + c1 u + c2 u²` with u = (ln N - centre) / half, and the standard error of c2.
fn parabola(logs: &[(f64, f64, f64)], centre: f64, half: f64) -> Result<[f64; 4], String> {
    let rows = logs.iter().map(|(x, y, _)| {
        let u = (x - centre) / half;
        ([1.0, u, u * u], *y)
    });
    let (mut gram, mut target) = ([0.0; 9], [0.0; 3]);
    for (row, y) in rows.clone() {
        for i in 0..3 {
            target[i] += row[i] * y;
            for j in 0..3 {
                gram[i * 3 + j] += row[i] * row[j];
            }
        }
    }
    let lower = cholesky(&gram, 3).ok_or("the sizes determine no parabola")?;
    let covariance = inverse(&lower, 3);
    let found = multiply(&covariance, &target);
    let residual = |(row, y): ([f64; 3], f64)| (y - crate::algebra::dot(&row, &found)).powi(2);
    let squares: f64 = rows.map(residual).sum();
    let variance = squares / (logs.len() - 3) as f64;
    Ok([found[0], found[1], found[2], (variance * covariance[8]).sqrt()])
}

/// ln D at ln N, linear between the neighbouring runs of the budget.
fn interpolate(logs: &[(f64, f64, f64)], ln_parameters: f64) -> f64 {
    let after = logs.partition_point(|point| point.0 <= ln_parameters).clamp(1, logs.len() - 1);
    let (left, right) = (logs[after - 1], logs[after]);
    left.2 + (ln_parameters - left.0) / (right.0 - left.0) * (right.2 - left.2)
}

fn power_line(
    minima: &[ProfileMinimum],
    options: &IsoflopOptions,
    of: impl Fn(&ProfileMinimum) -> f64,
) -> PowerLine {
    let pairs: Vec<(f64, f64)> =
        minima.iter().map(|minimum| (minimum.flops.ln(), of(minimum).ln())).collect();
    let n = pairs.len();
    let mean = pairs.iter().map(|pair| pair.0).sum::<f64>() / n.max(1) as f64;
    let fitted = line(&pairs, mean);
    let freedom = n.saturating_sub(2).max(1) as f64;
    let rms = fitted.map_or(f64::NAN, |line| (line.residual_squares / freedom).sqrt());
    let (exponent, prefactor) = match fitted {
        Some(line) if n >= MIN_BUDGETS => {
            let quantile = student(options.level, freedom);
            line_estimates(&line, rms * quantile, options.unit_flops.ln() - mean, n as f64)
        }
        _ => {
            let reason = format!("{n} budgets have a minimum; an exponent needs {MIN_BUDGETS}");
            (Estimate::not_identified(reason.clone()), Estimate::not_identified(reason))
        }
    };
    PowerLine {
        exponent,
        prefactor,
        unit_flops: options.unit_flops,
        n_points: n,
        n_sizes: n,
        residual_rms_log: rms,
    }
}

/// Slope and prefactor with the usual errors of a regression; `width` is the residual scale times the quantile.
fn line_estimates(line: &Line, width: f64, distance: f64, n: f64) -> (Estimate, Estimate) {
    let half = width / line.spread.sqrt();
    let exponent = judged(Quantity::Exponent, line.slope, line.slope - half, line.slope + half);
    let at = line.value + line.slope * distance;
    let half = width * (1.0 / n + distance * distance / line.spread).sqrt();
    let prefactor = judged(Quantity::Scale, at.exp(), (at - half).exp(), (at + half).exp());
    (exponent, prefactor)
}

#[cfg(test)]
mod tests;
