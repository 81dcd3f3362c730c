//! Owns isoFLOP profiles: a parabola in ln N per budget, its minimum with a cross-check, the
//! exponents of N_opt and D_opt. Corrects the known bias of parabolas when alpha and beta differ
//! only where the caller has a surface to say by how much.

mod akima;
mod profile;

use std::collections::{BTreeMap, BTreeSet};

use self::profile::profile;
use crate::algebra::{Line, weighted_line};
use crate::diagnose::Finding;
use crate::envelope::{DroppedBudget, PowerLine};
use crate::interval::{Estimate, judged, student};
use crate::ladder::{Ladder, Rung};
use crate::law::{Law, LogPoint, Quantity};
use crate::observation::{Dataset, Excluded, Observation, RunKey};

/// With three sizes a parabola goes through every point, and its minimum has no error to be judged
/// by.
pub const MIN_SIZES_PER_BUDGET: usize = 4;
/// The t value that the curvature must have; below it the profile is flat and its minimum is noise.
pub const MIN_CURVATURE_T: f64 = 3.0;
/// A line through two budgets has no residual.
pub const MIN_BUDGETS: usize = 3;
/// A run belongs to the nearest budget if its C is within this share of it.
pub const BUDGET_TOLERANCE: f64 = 0.1;

/// Sizes within this factor of the minimum are fitted: farther out a profile is no parabola.
pub const WINDOW: f64 = 4.0;
/// Sizes that a window keeps at least, the nearest ones: with fewer the parabola is noise.
pub const MIN_SIZES_IN_WINDOW: usize = 5;

/// From this share of N on the bias of parabolas is told.
pub const MIN_BIAS: f64 = 0.01;

/// Share of the largest variance of a minimum below which a smaller one counts no more.
const LEAST_VARIANCE: f64 = 0.01;
/// Budgets that a warning names.
const MOST_NAMED: usize = 4;

/// How to fit isoFLOP profiles.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IsoflopOptions {
    /// Nominal coverage of intervals.
    pub level: f64,
    /// Factor around the minimum within which sizes are fitted; infinite for all of them.
    pub window: f64,
    /// C in which prefactors are given.
    pub unit_flops: f64,
}

impl Default for IsoflopOptions {
    fn default() -> Self {
        Self { level: 0.95, window: WINDOW, unit_flops: crate::envelope::PFLOP_DAY }
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
    /// Standard error of ln N_opt: by the curvature and the sizes of this profile, and by the noise
    /// around the parabolas of all.
    pub error_log: f64,
    /// Whether it lies between the last two sizes of a side, of which one is left to bend the
    /// parabola there.
    pub is_at_edge: bool,
    /// Runs of the budget.
    pub n_points: usize,
    /// Of these, within the window around the minimum: what the parabola was fitted to.
    pub n_in_window: usize,
    /// N of the smallest and of the largest of them.
    pub window: (f64, f64),
    /// What another way to find the minimum says; `None` with too few sizes for it.
    pub check: Option<AkimaCheck>,
}

/// The minimum of Akima's interpolant through the points beside the parabola's vertex.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AkimaCheck {
    /// N at the interpolant's minimum.
    pub parameters: f64,
    /// Where it would lie if the parabola were right and only the noise of the points moved both.
    pub interval: (f64, f64),
}

impl AkimaCheck {
    /// Whether the points have their minimum elsewhere than the parabola, beyond their noise.
    pub fn disagrees(&self) -> bool {
        !(self.interval.0..=self.interval.1).contains(&self.parameters)
    }
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
    /// N_opt(C). Budgets share no run, so the interval is Student's t of the regression over
    /// budgets; where they share trunks, the warning `shared-trunks` says so.
    pub parameters: PowerLine,
    /// D_opt(C).
    pub tokens: PowerLine,
    /// a + b of N_opt ∝ C^a and D_opt ∝ C^b, by the regression of ln N D; 1 where C is proportional
    /// to N D.
    pub exponent_sum: Estimate,
    /// What a reader should know before using the numbers.
    pub warnings: Vec<String>,
}

/// Fits a profile to each budget. `dataset` holds one point, the last, of each run.
///
/// Profiles are parabolas of ln L in ln N by least squares, weighted as the data set says, of the
/// sizes within a window that is centred on the minimum by turns; a budget is dropped, with the
/// reason, when it has fewer than [`MIN_SIZES_PER_BUDGET`] sizes, no significant upward curvature, or
/// its minimum outside the sampled sizes. The lines through the minima weigh each by the inverse of
/// its variance and of what minima scatter beyond theirs (DerSimonian and Laird 1986), and their
/// intervals take the scale from the residuals (Hartung and Knapp 2001). A minimum in the last step
/// of its sizes is a warning, `edge-minima`. A minimum of Akima's interpolant that differs from the parabola's beyond their
/// noise is a warning, `akima-disagrees`, and so are trunks that lie at several budgets,
/// `shared-trunks`.
pub fn fit(dataset: &Dataset, budgets: &[f64], options: &IsoflopOptions) -> IsoflopFit {
    let (groups, mut excluded) = group(dataset, budgets);
    excluded.splice(0..0, dataset.excluded().iter().cloned());
    let (mut minima, mut dropped) = (Vec::new(), Vec::new());
    let (mut used, mut scatters) = (Vec::new(), Vec::new());
    for (flops, members) in groups {
        match profile(flops, &members, options) {
            Ok((minimum, scatter)) => {
                minima.push(minimum);
                scatters.push(scatter);
                used.push(members);
            }
            Err(reason) => dropped.push(DroppedBudget { flops, reason }),
        }
    }
    // A profile of few sizes hardly knows its own noise.
    let squares: f64 = scatters.iter().map(|one| one.squares).sum();
    let variance = squares / scatters.iter().map(|one| one.freedom).sum::<f64>();
    for (minimum, scatter) in minima.iter_mut().zip(&scatters) {
        minimum.error_log = (variance * scatter.leverage).sqrt();
    }
    minima.sort_by(|a, b| a.flops.total_cmp(&b.flops));
    let mut warnings = Vec::new();
    if !dropped.is_empty() {
        let why = |one: &DroppedBudget| format!("{:.3e} FLOPs ({})", one.flops, one.reason);
        warnings.push(format!(
            "dropped-budgets: {} of {} isoFLOP budgets were dropped: {}",
            dropped.len(),
            budgets.len(),
            some(dropped.iter().map(why))
        ));
    }
    warnings.extend(edge_minima(&minima));
    warnings.extend(minima.iter().filter_map(akima_warning));
    warnings.extend(shared_trunks(dataset, &used));
    IsoflopFit {
        parameters: power_line(&minima, options, |minimum| minimum.parameters),
        tokens: power_line(&minima, options, |minimum| minimum.tokens),
        exponent_sum: exponent_sum(&minima, options),
        minima,
        dropped,
        excluded,
        warnings,
    }
}

/// As [`fit`], less the error that a parabola makes on a surface: a law of N and D with its
/// parameters.
///
/// A parabola through a profile whose sides differ has its vertex off the minimum, also without any
/// noise: by a few per cent in D_opt at sizes up to eight times from it. The shift depends on
/// alpha, beta and the sampled sizes alone; it is measured on exact losses at the same points, in
/// the window of the measured parabola, against the best size at the points' own FLOPs for a token,
/// and taken off each minimum (Open Athena 2026, on approach 2 of Hoffmann et al. 2022). Losses at
/// the minima stay as measured.
///
/// # Errors
/// The budget whose shift the surface does not say, for instance since its own best size is not
/// among the sampled ones: minima that are corrected in part would bend the lines through them.
pub fn fit_corrected(
    dataset: &Dataset,
    budgets: &[f64],
    options: &IsoflopOptions,
    surface: (&dyn Law, &[f64]),
) -> Result<IsoflopFit, String> {
    let mut fitted = fit(dataset, budgets, options);
    let (groups, _) = group(dataset, budgets);
    for minimum in &mut fitted.minima {
        let members = groups.iter().find(|(flops, _)| *flops == minimum.flops);
        let shift = members.and_then(|(_, members)| vertex_shift(minimum, members, surface));
        let shift = shift.ok_or_else(|| {
            format!("the surface has no parabola with a best size at {:.3e} FLOPs", minimum.flops)
        })?;
        minimum.parameters *= (-shift).exp();
        // On one budget N D is constant as far as the FLOP convention goes.
        minimum.tokens *= shift.exp();
    }
    fitted.parameters = power_line(&fitted.minima, options, |minimum| minimum.parameters);
    fitted.tokens = power_line(&fitted.minima, options, |minimum| minimum.tokens);
    fitted.exponent_sum = exponent_sum(&fitted.minima, options);
    Ok(fitted)
}

/// The warning `parabola-bias`: how far the minima of `plain` lie from those of `corrected`, which
/// [`fit_corrected`] made of the same runs, and what they are without it; `None` below
/// [`MIN_BIAS`].
pub fn bias(plain: &IsoflopFit, corrected: &IsoflopFit) -> Option<Finding> {
    let pairs = plain.minima.iter().zip(&corrected.minima);
    let shifts = pairs.map(|(one, other)| one.parameters / other.parameters);
    let (low, high) = shifts
        .fold((f64::INFINITY, 0.0_f64), |(low, high), shift| (low.min(shift), high.max(shift)));
    if high.ln().max(-low.ln()) < MIN_BIAS {
        return None;
    }
    let (was, is) = (plain.minima.last()?, corrected.minima.last()?);
    let exponent = match &corrected.parameters.exponent {
        Estimate::Identified { value, low, high } => {
            format!("N_opt goes with C^{value:.3} ({low:.3} to {high:.3}) and ")
        }
        Estimate::NotIdentified { .. } => "N_opt ".to_owned(),
    };
    let text = format!(
        "on the law's own surface parabolas through these sizes have their minimum at {low:.3} to \
         {high:.3} times the best N; less that, {exponent}is {:.3e} at {:.3e} FLOPs, with D = \
         {:.3e}, where the parabola has {:.3e} and {:.3e}",
        is.parameters, is.flops, is.tokens, was.parameters, was.tokens
    );
    Some(Finding { name: "parabola-bias", text })
}

/// ln of the parabola's N over the surface's own best N, on exact losses of the surface at the
/// points.
fn vertex_shift(
    minimum: &ProfileMinimum,
    members: &[Member<'_>],
    (law, theta): (&dyn Law, &[f64]),
) -> Option<f64> {
    let exact = |one: &Member<'_>| {
        let loss_nats = law.predict(theta, &LogPoint::from(one.point));
        Observation { loss_nats, ..*one.point }
    };
    let exact: Vec<Observation> = members.iter().map(exact).collect();
    let pairs = exact.iter().zip(members);
    let exact: Vec<Member<'_>> =
        pairs.map(|(point, one)| Member { point, weight: one.weight }).collect();
    let vertex = profile::vertex_within(&exact, minimum.window)?;
    Some(vertex - best_size(members, (law, theta))?.ln())
}

/// N of the least loss of the surface between the points, a size at its own FLOPs for a token:
/// where these do not go with N, the minimum of a profile is not that of the closed form.
fn best_size(members: &[Member<'_>], (law, theta): (&dyn Law, &[f64])) -> Option<f64> {
    let mut places: Vec<(f64, f64)> = members
        .iter()
        .map(|one| (one.point.parameters.ln(), (one.point.flops / one.point.tokens).ln()))
        .collect();
    places.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    // Runs of one size cost the same but for the rounding of their steps.
    let rung = |own: &[(f64, f64)]| Rung {
        parameters: own[0].0.exp(),
        flops_per_token: (own.iter().map(|one| one.1).sum::<f64>() / own.len() as f64).exp(),
    };
    let rungs: Vec<Rung> = places.chunk_by(|a, b| b.0 - a.0 < 1e-6).map(rung).collect();
    let sum: f64 = members.iter().map(|one| one.point.flops.ln()).sum();
    let ln_flops = sum / members.len() as f64;
    let found = Ladder::new(&rungs).ok()?.optimum(law, theta, ln_flops.exp())?;
    (!found.is_end).then_some(found.parameters)
}

fn edge_minima(minima: &[ProfileMinimum]) -> Option<String> {
    let at_edge: Vec<String> = minima
        .iter()
        .filter(|one| one.is_at_edge)
        .map(|one| format!("{:.3e}", one.flops))
        .collect();
    let n = at_edge.len();
    (n > 0).then(|| {
        format!(
            "edge-minima: {} of {} minima lie between the last two sizes of a side, where one size \
             bends the parabola: those at {} FLOPs",
            n,
            minima.len(),
            some(at_edge.into_iter())
        )
    })
}

/// The first [`MOST_NAMED`], and how many more there are.
fn some(all: impl ExactSizeIterator<Item = String>) -> String {
    let more = all.len().saturating_sub(MOST_NAMED);
    let mut named: Vec<String> = all.take(MOST_NAMED).collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    named.join(", ")
}

fn akima_warning(minimum: &ProfileMinimum) -> Option<String> {
    let check = minimum.check.filter(AkimaCheck::disagrees)?;
    let (low, high) = check.interval;
    Some(format!(
        "akima-disagrees: at {:.3e} FLOPs an interpolant through the points has its minimum at N \
         = {:.3e}, outside \
         {low:.3e} to {high:.3e}, where it would be if the parabola, with N = {:.3e}, were right",
        minimum.flops, check.parameters, minimum.parameters
    ))
}

/// Trunks that several minima rest on. Student's t takes the minima for independent, and there is no
/// resampling here that could draw whole trunks: without a trunk's runs most profiles lose the
/// sizes beside their minimum.
fn shared_trunks(dataset: &Dataset, budgets: &[Vec<Member<'_>>]) -> Option<String> {
    dataset.n_clusters()?;
    let units = dataset.unit_of_points().0;
    let of_run: BTreeMap<RunKey, usize> =
        dataset.points().iter().map(|point| point.run).zip(units).collect();
    // Per trunk the budgets that it is at, and its runs there.
    let mut places: BTreeMap<usize, (BTreeSet<usize>, usize)> = BTreeMap::new();
    for (budget, point) in budgets
        .iter()
        .enumerate()
        .flat_map(|(at, own)| own.iter().map(move |member| (at, member.point)))
    {
        let (at, n_runs) = places.entry(of_run[&point.run]).or_default();
        at.insert(budget);
        *n_runs += 1;
    }
    places.retain(|_, (at, _)| at.len() > 1);
    let n_runs: usize = places.values().map(|(_, n_runs)| n_runs).sum();
    let n_all: usize = budgets.iter().map(Vec::len).sum();
    (!places.is_empty()).then(|| {
        format!(
            "shared-trunks: {n_runs} of {n_all} runs have {} trunks that lie at several budgets, whose \
             minima share this luck; intervals of the line over budgets take minima for independent \
             and may be too narrow",
            places.len()
        )
    })
}

/// A run of a profile, and how much it counts.
#[derive(Debug, Clone, Copy)]
struct Member<'a> {
    point: &'a Observation,
    weight: f64,
}

type Groups<'a> = Vec<(f64, Vec<Member<'a>>)>;

fn group<'a>(dataset: &'a Dataset, budgets: &[f64]) -> (Groups<'a>, Vec<Excluded>) {
    let mut groups: Groups<'a> = budgets.iter().map(|budget| (*budget, Vec::new())).collect();
    let mut excluded = Vec::new();
    let all = dataset.points().iter().zip(dataset.covariates());
    for (index, (point, covariates)) in all.enumerate() {
        let distance = |budget: f64| (point.flops / budget - 1.0).abs();
        let nearest = groups.iter_mut().min_by(|a, b| distance(a.0).total_cmp(&distance(b.0)));
        match nearest {
            Some((budget, members)) if distance(*budget) <= BUDGET_TOLERANCE => {
                members.push(Member { point, weight: covariates.weight });
            }
            _ => excluded.push(Excluded {
                index,
                run: point.run,
                reason: format!("{:.3e} FLOPs are within 10 % of no budget", point.flops),
            }),
        }
    }
    (groups, excluded)
}

fn power_line(
    minima: &[ProfileMinimum],
    options: &IsoflopOptions,
    of: impl Fn(&ProfileMinimum) -> f64,
) -> PowerLine {
    let place = |one: &ProfileMinimum| (one.flops.ln(), of(one).ln(), one.error_log.powi(2));
    let places: Vec<(f64, f64, f64)> = minima.iter().map(place).collect();
    let pairs = weighted(&places);
    let n = pairs.len();
    let mean = pairs.iter().map(|one| one.0 * one.2).sum::<f64>() / n.max(1) as f64;
    let fitted = weighted_line(&pairs, mean);
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

/// (x, y, weight) of minima whose y have these variances, the weights with a mean of one: the inverse
/// of the variance, and of how much more minima scatter around the line than that.
fn weighted(places: &[(f64, f64, f64)]) -> Vec<(f64, f64, f64)> {
    let n = places.len() as f64;
    let largest = places.iter().map(|one| one.2).fold(0.0, f64::max);
    let with = |beyond: f64| -> Vec<(f64, f64, f64)> {
        // In units of the largest variance; no minimum is known so much better that it counts alone.
        let weight = |variance: f64| 1.0 / (variance / largest + beyond).max(LEAST_VARIANCE);
        places.iter().map(|(x, y, variance)| (*x, *y, weight(*variance))).collect()
    };
    let equal = || places.iter().map(|(x, y, _)| (*x, *y, 1.0)).collect();
    if !(largest.is_finite() && largest > 0.0) {
        return equal();
    }
    let first = with(0.0);
    let Some(fitted) = weighted_line(&first, first[0].0) else { return equal() };
    let sum =
        |of: &dyn Fn(f64, f64) -> f64| -> f64 { first.iter().map(|one| of(one.0, one.2)).sum() };
    let total = sum(&|_, weight| weight);
    let mean = sum(&|x, weight| weight * x) / total;
    let squares = sum(&|_, weight| weight * weight) / total
        + sum(&|x, weight| (weight * (x - mean)).powi(2)) / fitted.spread;
    let beyond = (fitted.residual_squares / largest - (n - 2.0)) / (total - squares);
    let mut found = with(if beyond.is_finite() { beyond.max(0.0) } else { 0.0 });
    let total: f64 = found.iter().map(|one| one.2).sum();
    for one in &mut found {
        one.2 *= n / total;
    }
    found
}

fn exponent_sum(minima: &[ProfileMinimum], options: &IsoflopOptions) -> Estimate {
    // N D is known at every minimum, wherever that is.
    let known: Vec<ProfileMinimum> =
        minima.iter().map(|one| ProfileMinimum { error_log: 0.0, ..*one }).collect();
    power_line(&known, options, |minimum| minimum.parameters * minimum.tokens).exponent
}

/// Slope and prefactor with the usual errors of a regression; `width` is the residual scale times
/// the quantile.
fn line_estimates(line: &Line, width: f64, distance: f64, n: f64) -> (Estimate, Estimate) {
    let half = width / line.spread.sqrt();
    let exponent = judged(Quantity::Exponent, line.slope, line.slope - half, line.slope + half);
    let at = line.value + line.slope * distance;
    let half = width * (1.0 / n + distance * distance / line.spread).sqrt();
    let prefactor = judged(Quantity::Scale, at.exp(), (at - half).exp(), (at + half).exp());
    (exponent, prefactor)
}

#[cfg(test)]
mod bias_tests;
#[cfg(test)]
mod tests;
