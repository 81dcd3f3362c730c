//! Owns the choice of a law by its error on runs it has not seen, along the direction of
//! extrapolation. Does not know which error matters to the reader; it shows those of other sizes
//! beside it, which say how well a law interpolates.

use std::collections::BTreeSet;

use crate::fit::{Fit, FitError, FitOptions, fit};
use crate::interval::{IntervalOptions, infer};
use crate::law::{LawChoice, LogPoint};
use crate::observation::{Covariates, Dataset, Observation, SAME_COMPUTE};

/// Factors of C between the largest fitted and the largest predicted point.
const FACTORS: [f64; 4] = [2.0, 4.0, 10.0, 30.0];
/// Held-out errors that differ by less are equal: the noise between seeds in ln L (`research` puts
/// it at 0.001).
pub const SEED_NOISE: f64 = 1e-3;
/// Sizes that are held out, each by itself.
const MOST_SIZES: usize = 24;
/// Draws of the intervals whose coverage is counted, and their nominal level.
const DRAWS: usize = 200;
const LEVEL: f64 = 0.95;
/// Points beyond its parameters that a law must be fitted to.
const SPARE_POINTS: usize = 2;

/// What is held out: these points are predicted, and no point of their runs is fitted, nor of runs
/// that share their trunks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Split {
    /// Rolling origin: points above the largest C divided by this factor.
    Beyond {
        /// The factor.
        factor: f64,
    },
    /// The points of the largest C, and of C within 3 % of it.
    LargestCompute,
    /// All points of one size.
    Size {
        /// N.
        parameters: f64,
    },
}

/// How a law predicted what was held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldOut {
    /// What was held out.
    pub split: Split,
    /// Points fitted.
    pub n_fitted: usize,
    /// Points predicted.
    pub n_predicted: usize,
    /// Mean of |predicted / measured - 1|.
    pub mean_absolute_error: f64,
    /// Mean of predicted / measured - 1.
    pub bias: f64,
    /// The largest |predicted / measured - 1|.
    pub worst_error: f64,
    /// That of the point of largest C among them, with its sign.
    pub error_at_largest: f64,
    /// Share of the points inside their 95 % predictive interval, by 200 draws; `None` for splits by
    /// size, and where there is no interval.
    pub coverage: Option<f64>,
}

/// One law's errors.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The law.
    pub choice: LawChoice,
    /// Its free parameters.
    pub n_parameters: usize,
    /// Per split, its errors, or why it could not be fitted.
    pub held_out: Vec<Result<HeldOut, String>>,
    /// Mean of the mean absolute errors at larger C than fitted, over the splits that every law
    /// could be fitted to; `None` without any.
    pub error: Option<f64>,
    /// The same over the splits by size.
    pub size_error: Option<f64>,
    /// Share of the points at larger C inside their 95 % predictive interval, over those of these
    /// splits at which every law has intervals; `None` without any.
    pub coverage: Option<f64>,
}

/// Which errors a choice rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Those at larger C than fitted.
    Compute,
    /// Those at sizes that were left out, since no split by compute could be fitted by all laws.
    /// All but two of the sizes lie between others, so these are mostly errors of interpolation.
    Sizes,
}

/// Laws side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// One per law, in the order given.
    pub candidates: Vec<Candidate>,
    /// Position of the preferred law; `None` where no split could be fitted by all.
    pub preferred: Option<usize>,
    /// By which errors it is preferred; `None` where none is.
    pub basis: Option<Basis>,
}

/// Fits every law to the part of the data that each split leaves, and predicts the rest.
///
/// Preferred is the law of the lowest error at larger C than fitted; laws within [`SEED_NOISE`] of
/// it are as good, and of those the one with the fewest parameters is taken. Splits: the largest C,
/// rolling origin at extrapolations by 2, 4, 10 and 30, and each size; of splits by compute that
/// hold out the same points one is taken. Sizes decide only where no split by compute can be fitted
/// by all laws.
///
/// ```
/// # use scaling::{fit::FitOptions, law::{LawChoice, LawName}, select::select};
/// # use scaling::observation::{Dataset, Observation, RunKey};
/// # let point = |run: u32| { let c = 1e15 * 2_f64.powi(run as i32); Observation {
/// #     run: RunKey(run), parameters: 1e6, tokens: c / 6e6, flops: c, seed: 0,
/// #     loss_nats: 1.5 + (1e17 / c).powf(0.2) }};
/// # let data = Dataset::new(&(0..12).map(point).collect::<Vec<_>>())?;
/// let laws = [LawName::Power, LawName::PowerFloor].map(LawChoice::of);
/// let selection = select(&laws, &data, &FitOptions::default())?;
/// assert_eq!(selection.preferred, Some(1), "these losses have a floor");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A bad option; that a law cannot be fitted to a part is in its candidate.
pub fn select(
    laws: &[LawChoice],
    dataset: &Dataset,
    options: &FitOptions,
) -> Result<Selection, FitError> {
    let splits = splits(dataset);
    let mut candidates = Vec::with_capacity(laws.len());
    for choice in laws {
        let of = |split: &Split| held_out(*choice, dataset, options, *split);
        let held_out: Vec<Result<HeldOut, String>> =
            splits.iter().map(of).collect::<Result<_, FitError>>()?;
        let n_parameters = choice.law().parameter_names().len();
        let (error, size_error, coverage) = (None, None, None);
        let choice = *choice;
        candidates.push(Candidate { choice, n_parameters, held_out, error, size_error, coverage });
    }
    let is_shared = |at: &usize| candidates.iter().all(|one| one.held_out[*at].is_ok());
    let shared = (0..splits.len()).filter(is_shared);
    let (sizes, compute): (Vec<usize>, Vec<usize>) =
        shared.partition(|at| matches!(splits[*at], Split::Size { .. }));
    let has_intervals = |at: &&usize| {
        let of =
            |one: &Candidate| one.held_out[**at].as_ref().is_ok_and(|one| one.coverage.is_some());
        candidates.iter().all(of)
    };
    let covered: Vec<usize> = compute.iter().filter(has_intervals).copied().collect();
    for candidate in &mut candidates {
        candidate.error = mean_error(candidate, &compute);
        candidate.size_error = mean_error(candidate, &sizes);
        candidate.coverage = coverage(candidate, &covered);
    }
    let (preferred, basis) = choice(&candidates);
    Ok(Selection { candidates, preferred, basis })
}

/// By the errors at larger C, and by those at other sizes where there are none.
fn choice(candidates: &[Candidate]) -> (Option<usize>, Option<Basis>) {
    let by_compute = preferred(candidates, |one| one.error);
    let basis = if by_compute.is_some() { Basis::Compute } else { Basis::Sizes };
    let preferred = by_compute.or_else(|| preferred(candidates, |one| one.size_error));
    (preferred, preferred.map(|_| basis))
}

/// Over these splits; `None` without any.
fn mean_error(candidate: &Candidate, splits: &[usize]) -> Option<f64> {
    let errors = splits.iter().filter_map(|at| candidate.held_out[*at].as_ref().ok());
    let sum: f64 = errors.map(|one| one.mean_absolute_error).sum();
    (!splits.is_empty()).then(|| sum / splits.len() as f64)
}

/// Over the points of these splits.
fn coverage(candidate: &Candidate, splits: &[usize]) -> Option<f64> {
    let of = |at: &usize| {
        let one = candidate.held_out[*at].as_ref().ok()?;
        let n = one.n_predicted as f64;
        Some((one.coverage? * n, n))
    };
    let counts: Vec<(f64, f64)> = splits.iter().map(of).collect::<Option<_>>()?;
    let (inside, n) = counts.iter().fold((0.0, 0.0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    (n > 0.0).then(|| inside / n)
}

fn preferred(candidates: &[Candidate], error: impl Fn(&Candidate) -> Option<f64>) -> Option<usize> {
    let best = candidates.iter().filter_map(&error).fold(f64::INFINITY, f64::min);
    let good = (0..candidates.len())
        .filter(|at| error(&candidates[*at]).is_some_and(|error| error <= best + SEED_NOISE));
    let key = |at: &usize| {
        let one = &candidates[*at];
        (one.n_parameters, error(one).map(f64::to_bits))
    };
    good.min_by_key(key)
}

/// Whether a point is held out, where `most` is the largest C.
fn is_out(split: Split, most: f64, point: &Observation) -> bool {
    match split {
        Split::Beyond { factor } => point.flops > most / factor / SAME_COMPUTE,
        Split::LargestCompute => point.flops >= most * SAME_COMPUTE,
        Split::Size { parameters } => (point.parameters / parameters - 1.0).abs() < 1e-6,
    }
}

fn largest(dataset: &Dataset) -> f64 {
    dataset.range(|point| point.flops).map_or(f64::NAN, |range| range.1)
}

fn splits(dataset: &Dataset) -> Vec<Split> {
    let beyond = FACTORS.iter().map(|factor| Split::Beyond { factor: *factor });
    let most = largest(dataset);
    let mut splits = Vec::new();
    // What holds out the same points is one split: counted twice it would weigh twice.
    let mut known: BTreeSet<Vec<bool>> = BTreeSet::new();
    for split in std::iter::once(Split::LargestCompute).chain(beyond) {
        let out = dataset.points().iter().map(|point| is_out(split, most, point)).collect();
        if known.insert(out) {
            splits.push(split);
        }
    }
    let mut sizes: Vec<f64> = dataset.points().iter().map(|point| point.parameters).collect();
    sizes.sort_unstable_by(f64::total_cmp);
    sizes.dedup_by(|later, earlier| *later / *earlier - 1.0 < 1e-6);
    if sizes.len() > 1 {
        // Each is a fit from all starts: of many, those that lie evenly among them.
        let n = sizes.len().min(MOST_SIZES);
        let chosen = (0..n).map(|i| sizes[i * sizes.len() / n]);
        splits.extend(chosen.map(|parameters| Split::Size { parameters }));
    }
    splits
}

/// The errors of one law at one split; an inner error where the split leaves too little.
fn held_out(
    choice: LawChoice,
    dataset: &Dataset,
    options: &FitOptions,
    split: Split,
) -> Result<Result<HeldOut, String>, FitError> {
    let law = choice.law();
    let most = largest(dataset);
    let is_out = |point: &Observation| is_out(split, most, point);
    let rows: Vec<(Observation, Covariates)> =
        dataset.points().iter().copied().zip(dataset.covariates().iter().copied()).collect();
    let out: Vec<&(Observation, Covariates)> = rows.iter().filter(|row| is_out(&row.0)).collect();
    // Earlier points of a run that is predicted have its luck, and so have runs of its trunk.
    let (units, _) = dataset.unit_of_points();
    let named = rows.iter().zip(&units).filter(|(row, _)| is_out(&row.0));
    let named: BTreeSet<usize> = named.map(|(_, unit)| *unit).collect();
    let kept = rows.iter().zip(&units).filter(|(_, unit)| !named.contains(unit));
    let kept: Vec<(Observation, Covariates)> = kept.map(|(row, _)| *row).collect();
    let needed = law.parameter_names().len() + SPARE_POINTS;
    if out.is_empty() || kept.len() < needed {
        return Ok(Err(format!("{} points are left, {needed} are needed", kept.len())));
    }
    let part = Dataset::select_rows(&kept, |_, _| None).and_then(|part| part.clustered_as(dataset));
    let Ok(part) = part else {
        return Ok(Err("the points that are left are not valid".to_owned()));
    };
    let fitted = match fit(law, &part, options) {
        Ok(fitted) => fitted,
        Err(error @ FitError::NotConverged { .. }) => return Ok(Err(error.to_string())),
        Err(error) => return Err(error),
    };
    // What the starts chose among equals says nothing about the law.
    if let Some(reason) = &fitted.identifiability.whole {
        return Ok(Err(reason.clone()));
    }
    let error = |row: &(Observation, Covariates)| {
        let at = LogPoint::from(&row.0).with(&row.1);
        fitted.predict_at(&at) / row.0.loss_nats - 1.0
    };
    let errors: Vec<f64> = out.iter().map(|row| error(row)).collect();
    let n = errors.len() as f64;
    let largest = out.iter().zip(&errors).max_by(|a, b| a.0.0.flops.total_cmp(&b.0.0.flops));
    Ok(Ok(HeldOut {
        split,
        n_fitted: kept.len(),
        n_predicted: out.len(),
        mean_absolute_error: errors.iter().map(|e| e.abs()).sum::<f64>() / n,
        bias: errors.iter().sum::<f64>() / n,
        worst_error: errors.iter().fold(0.0, |worst: f64, e| worst.max(e.abs())),
        error_at_largest: largest.map_or(f64::NAN, |pair| *pair.1),
        coverage: match split {
            // Of many sizes each would be resampled.
            Split::Size { .. } => None,
            Split::Beyond { .. } | Split::LargestCompute => inside((&fitted, &part), options, &out),
        },
    }))
}

/// Share of the rows inside the predictive interval of a fit to others.
fn inside(
    (fitted, part): (&Fit, &Dataset),
    options: &FitOptions,
    out: &[&(Observation, Covariates)],
) -> Option<f64> {
    let interval = IntervalOptions { level: LEVEL, draws: DRAWS, seed: 0 };
    let inference = infer(fitted, part, options, &interval).ok()?;
    let is_inside = |row: &&(Observation, Covariates)| {
        let at = LogPoint::from(&row.0).with(&row.1);
        let (low, high) = inference.predict_at(&at).measured.interval()?;
        Some((low..=high).contains(&row.0.loss_nats))
    };
    let found: Vec<bool> = out.iter().map(is_inside).collect::<Option<_>>()?;
    Some(found.iter().filter(|is_inside| **is_inside).count() as f64 / found.len() as f64)
}

#[cfg(test)]
mod tests;
