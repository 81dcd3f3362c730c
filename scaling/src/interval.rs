//! Owns intervals: resampling by run, and the rule that a number without an honest interval is *not
//! identified*. Does not know what is fitted; a refit is a function of weights per run (`draw`),
//! for a law that of `refit`.
//!
//! The resampled unit is the run, or the cluster of runs that share a trunk
//! (`observation::Dataset::clustered`). Checkpoints of one run share its luck; resampling them
//! understates standard errors about threefold (`docs/concepts/fitting.md`). How, depends on the
//! number of runs, or of clusters:
//!
//! - fewer than [`MIN_RUNS_FOR_INTERVAL`]: no interval;
//! - fewer than [`MIN_RUNS_FOR_BOOTSTRAP`]: leave-one-run-out jackknife with Student's t of runs -
//!   1 degrees of freedom;
//! - otherwise: bootstrap of runs, percentiles expanded for the number of runs (Hesterberg 2015,
//!   section 4.5).

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use crate::identify::absurd_interval;
use crate::law::Quantity;
use crate::random::Stream;

mod accelerated;
mod draw;
mod inference;
mod order;
mod refit;
mod steps;
mod words;

pub(crate) use draw::{Plan, resample_by, shift};
pub use inference::{
    Inference, NamedEstimate, OptimumEstimate, Prediction, Resampling, infer, infer_with,
};
pub use order::have_same_places;
pub(crate) use steps::estimate_steps;

/// With two runs a difference between them has no scale to be judged by.
pub const MIN_RUNS_FOR_INTERVAL: usize = 3;
/// Below this many runs the bootstrap has too few distinct resamples and misses whole sizes in many
/// of them; percentile intervals are then too narrow. The jackknife with few clusters errs to the
/// wide side (Hansen 2022, "Jackknife standard errors for clustered regression").
pub const MIN_RUNS_FOR_BOOTSTRAP: usize = 12;
/// If more than this share of the draws fails, the surviving ones are a biased sample.
pub const MAX_FAILED_SHARE: f64 = 0.1;
/// With fewer draws the ends of a 95 % interval rest on one or two of them.
pub const MIN_DRAWS: usize = 100;
/// Streams of the noise added to predictions lie above those of the resamples.
const NOISE_STREAM: u64 = 1 << 32;

/// A number with its interval, or the reason why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Estimate {
    /// The data determine it.
    Identified {
        /// Estimate from all runs.
        value: f64,
        /// Lower end.
        low: f64,
        /// Upper end.
        high: f64,
    },
    /// They do not; printing a number would mislead.
    NotIdentified {
        /// Why, in words.
        reason: String,
    },
}

impl Estimate {
    /// The value, if identified.
    pub fn value(&self) -> Option<f64> {
        match self {
            Self::Identified { value, .. } => Some(*value),
            Self::NotIdentified { .. } => None,
        }
    }

    /// The ends of the interval, if identified.
    pub fn interval(&self) -> Option<(f64, f64)> {
        match self {
            Self::Identified { low, high, .. } => Some((*low, *high)),
            Self::NotIdentified { .. } => None,
        }
    }

    /// The same with ends of at most `most`, beyond which no value can be.
    pub(crate) fn at_most(self, most: f64) -> Self {
        match self {
            Self::Identified { value, low, high } => {
                Self::Identified { value, low: low.min(most), high: high.min(most) }
            }
            none @ Self::NotIdentified { .. } => none,
        }
    }

    /// Not identified, for this reason.
    pub fn not_identified(reason: impl Into<String>) -> Self {
        Self::NotIdentified { reason: reason.into() }
    }
}

/// How intervals are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IntervalOptions {
    /// Nominal coverage, between 0 and 1.
    pub level: f64,
    /// Bootstrap draws, at least [`MIN_DRAWS`].
    pub draws: usize,
    /// Seed of the resampling.
    pub seed: u64,
}

impl Default for IntervalOptions {
    fn default() -> Self {
        Self { level: 0.95, draws: 1000, seed: 0 }
    }
}

/// How the replicates were made.
#[derive(Debug, Clone, PartialEq)]
pub enum Scheme {
    /// Runs, or clusters of them, drawn with replacement.
    Bootstrap {
        /// Runs resampled.
        n_runs: usize,
        /// Clusters that they are drawn in; as many as runs where none share a trunk.
        n_clusters: usize,
        /// Strata that these are drawn within; 1 without any.
        n_strata: usize,
        /// Draws made.
        draws: usize,
        /// Of these, without a usable fit.
        failed: usize,
        /// Seed of the draws.
        seed: u64,
    },
    /// Each run, or each cluster of them, left out once.
    Jackknife {
        /// Runs.
        n_runs: usize,
        /// Clusters of runs that share a trunk, which is also the number of replicates; as many as
        /// runs where none do.
        n_clusters: usize,
    },
    /// Every run kept, its ln L shifted by luck of a size that the caller stated: an assumption,
    /// not a finding.
    StatedNoise {
        /// Runs shifted.
        n_runs: usize,
        /// Draws made.
        draws: usize,
        /// Seed of the draws.
        seed: u64,
        /// Stated standard deviation of ln L between seeds.
        sd_log: f64,
    },
    /// No honest interval can be made.
    Unavailable {
        /// Runs there are.
        n_runs: usize,
        /// Why not.
        reason: String,
    },
}

impl Scheme {
    /// What its replicates are called.
    pub(crate) fn replicates(&self) -> &'static str {
        match self {
            Self::Jackknife { .. } => "fits that leave one run out",
            Self::Bootstrap { .. } | Self::StatedNoise { .. } | Self::Unavailable { .. } => "draws",
        }
    }
}

/// A parameter vector with its replicates: everything that is needed for intervals of functions of
/// it.
#[derive(Debug, Clone, PartialEq)]
pub struct Resampled {
    /// The estimate from all runs.
    pub theta: Vec<f64>,
    /// One parameter vector a usable replicate.
    pub replicates: Vec<Vec<f64>>,
    /// How they were made.
    pub scheme: Scheme,
    /// Nominal coverage of intervals.
    pub level: f64,
    /// Residuals of ln L of the fit from the least to the largest, scaled up for the parameters it
    /// spent: the noise of one measured loss.
    pub residuals_log: Vec<f64>,
    /// One parameter vector for each run or cluster left out, where it was asked for: what
    /// `estimate_bca` needs.
    pub influence: Vec<Vec<f64>>,
}

impl Resampled {
    /// Value and interval of a function of the parameters.
    ///
    /// `Scale`, `Floor` and `Loss` are treated as positive, their jackknife interval is symmetric
    /// in the log.
    pub fn estimate(&self, quantity: Quantity, function: impl Fn(&[f64]) -> f64) -> Estimate {
        self.estimate_with(quantity, function, false)
    }

    /// As [`Resampled::estimate`] for a loss, with the noise of one new measurement added to the
    /// interval.
    pub fn estimate_measured(&self, function: impl Fn(&[f64]) -> f64) -> Estimate {
        self.estimate_with(Quantity::Loss, function, true)
    }

    fn estimate_with(
        &self,
        quantity: Quantity,
        function: impl Fn(&[f64]) -> f64,
        with_noise: bool,
    ) -> Estimate {
        let forward = |value: f64| if is_log(quantity) { value.ln() } else { value };
        let back = |value: f64| if is_log(quantity) { value.exp() } else { value };
        let centre = forward(function(&self.theta));
        let values: Vec<f64> = self.replicates.iter().map(|one| forward(function(one))).collect();
        let of_law = self.ends(centre, values.clone(), false);
        let ends = of_law.and_then(|law| {
            if !with_noise {
                return Ok(law);
            }
            // Where the noise is small beside the law's spread, the residuals that a few hundred
            // draws happen to get may make it seem smaller.
            let measured = self.ends(centre, values, true)?;
            Ok((law.0.min(measured.0), law.1.max(measured.1)))
        });
        match ends {
            Ok((low, high)) => judged(quantity, back(centre), back(low), back(high)),
            Err(reason) => Estimate::NotIdentified { reason },
        }
    }

    fn ends(&self, centre: f64, values: Vec<f64>, with_noise: bool) -> Result<(f64, f64), String> {
        // Why nothing was resampled says more than that there is no number.
        if let Scheme::Unavailable { reason, .. } = &self.scheme {
            return Err(reason.clone());
        }
        if !centre.is_finite() {
            return Err("the estimate itself is not finite".to_owned());
        }
        let n_bad = values.iter().filter(|value| !value.is_finite()).count();
        match &self.scheme {
            Scheme::Unavailable { reason, .. } => Err(reason.clone()),
            Scheme::Jackknife { n_runs, n_clusters } => {
                if n_bad > 0 {
                    let counted = words::counted(*n_clusters, *n_runs);
                    return Err(format!("without one of the {counted} it is not finite"));
                }
                let noise = if with_noise { mean_square(&self.residuals_log) } else { 0.0 };
                let (variance, freedom) = jackknife_variance(centre, &values);
                let half = student(self.level, freedom) * (variance + noise).sqrt();
                Ok((centre - half, centre + half))
            }
            Scheme::Bootstrap { n_clusters, draws, failed, seed, .. } => {
                if (n_bad + failed) as f64 > MAX_FAILED_SHARE * *draws as f64 {
                    return Err(format!("{} of {draws} resamples give no number", n_bad + failed));
                }
                let mut finite: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
                if with_noise {
                    self.add_noise(&mut finite, *seed);
                }
                Ok(percentile_ends(finite, self.level, *n_clusters))
            }
            Scheme::StatedNoise { draws, seed, .. } => {
                if n_bad > 0 {
                    return Err(format!("{n_bad} of {draws} draws give no number"));
                }
                let mut values = values;
                if with_noise {
                    self.add_noise(&mut values, *seed);
                }
                values.sort_unstable_by(f64::total_cmp);
                let tail = 0.5 - 0.5 * self.level;
                Ok((percentile(&values, tail), percentile(&values, 1.0 - tail)))
            }
        }
    }

    /// Adds the residual of a random point to each value, and the luck of a new run where that is
    /// known.
    fn add_noise(&self, values: &mut [f64], seed: u64) {
        let luck = if let Scheme::StatedNoise { sd_log, .. } = self.scheme { sd_log } else { 0.0 };
        let n = self.residuals_log.len();
        for (index, value) in values.iter_mut().enumerate() {
            let mut stream = Stream::new(seed, NOISE_STREAM + index as u64);
            if n > 0 {
                *value += self.residuals_log[stream.index(n)];
            }
            *value += luck * stream.normal();
        }
    }
}

/// Interval of a function of two fits, such as the difference of two architectures.
///
/// `is_paired` says that the n-th run, or cluster, of one corresponds to the n-th of the other (the
/// same place in the same ladder). Then replicates are paired, so that what both owe to the choice of
/// sizes cancels: bootstraps of one seed draw the same places, and the jackknife leaves the same
/// place out of both. Otherwise the variances add and the degrees of freedom are Welch and
/// Satterthwaite's.
pub fn estimate_pair(
    (a, b): (&Resampled, &Resampled),
    is_paired: bool,
    quantity: Quantity,
    function: impl Fn(&[f64], &[f64]) -> f64,
) -> Estimate {
    for one in [a, b] {
        match &one.scheme {
            Scheme::Unavailable { reason, .. } => return Estimate::not_identified(reason.clone()),
            Scheme::Bootstrap { draws, failed, .. }
                if *failed as f64 > MAX_FAILED_SHARE * *draws as f64 =>
            {
                return Estimate::not_identified(format!(
                    "{failed} of {draws} resamples give no number"
                ));
            }
            _ => {}
        }
    }
    let forward = |value: f64| if is_log(quantity) { value.ln() } else { value };
    let back = |value: f64| if is_log(quantity) { value.exp() } else { value };
    let value = |x: &[f64], y: &[f64]| forward(function(x, y));
    let centre = value(&a.theta, &b.theta);
    if !centre.is_finite() {
        return Estimate::not_identified("the estimate itself is not finite");
    }
    let pairs = || a.replicates.iter().zip(&b.replicates).map(|(x, y)| value(x, y)).collect();
    let half = |variance: f64, freedom: f64| student(a.level, freedom) * variance.sqrt();
    let around = |half: f64| (centre - half, centre + half);
    let ends = match &a.scheme {
        Scheme::Bootstrap { n_clusters, .. } if is_paired && are_drawn_together(a, b) => {
            finite(a, pairs()).map(|values| percentile_ends(values, a.level, *n_clusters))
        }
        Scheme::Jackknife { .. } if is_paired && are_drawn_together(a, b) => finite(a, pairs())
            .map(|values| {
                let (variance, freedom) = jackknife_variance(centre, &values);
                around(half(variance, freedom))
            }),
        _ => {
            let of_a = a.replicates.iter().map(|one| value(one, &b.theta)).collect();
            let of_b = b.replicates.iter().map(|one| value(&a.theta, one)).collect();
            finite(a, of_a).and_then(|of_a| {
                let parts = [spread(a, centre, of_a), spread(b, centre, finite(b, of_b)?)];
                Ok(around(independent_half(parts, a.level)))
            })
        }
    };
    match ends {
        Ok((low, high)) => judged(quantity, back(centre), back(low), back(high)),
        Err(reason) => Estimate::not_identified(reason),
    }
}

/// The values that are numbers; why nothing can be said where too many are none, or one where none
/// may be.
fn finite(one: &Resampled, mut values: Vec<f64>) -> Result<Vec<f64>, String> {
    let n_all = values.len();
    values.retain(|value| value.is_finite());
    let n_bad = n_all - values.len();
    match &one.scheme {
        Scheme::Jackknife { n_runs, n_clusters } if n_bad > 0 => {
            let counted = words::counted(*n_clusters, *n_runs);
            Err(format!("without one of the {counted} it is not finite"))
        }
        Scheme::StatedNoise { .. } if n_bad > 0 => {
            Err(format!("{n_bad} of {n_all} draws give no number"))
        }
        Scheme::Bootstrap { draws, failed, .. }
            if (n_bad + failed) as f64 > MAX_FAILED_SHARE * *draws as f64 =>
        {
            Err(format!("{} of {draws} resamples give no number", n_bad + failed))
        }
        _ => Ok(values),
    }
}

/// Whether the n-th replicate of one was made from the same places as the n-th of the other, where
/// both have the same places: failed draws would shift the pairs against each other.
pub(crate) fn are_drawn_together(a: &Resampled, b: &Resampled) -> bool {
    let is_whole = match a.scheme {
        Scheme::Bootstrap { failed, .. } => failed == 0,
        Scheme::Jackknife { .. } => true,
        Scheme::StatedNoise { .. } | Scheme::Unavailable { .. } => false,
    };
    is_whole && a.scheme == b.scheme
}

/// Half width from two variances with their degrees of freedom.
fn independent_half(parts: [(f64, f64); 2], level: f64) -> f64 {
    let (total, freedom) = welch(parts);
    student(level, freedom) * total.sqrt()
}

/// The sum of two variances with its degrees of freedom (Welch and Satterthwaite).
fn welch(parts: [(f64, f64); 2]) -> (f64, f64) {
    let total: f64 = parts.iter().map(|(variance, _)| variance).sum();
    let weights: f64 = parts.iter().map(|(variance, freedom)| variance * variance / freedom).sum();
    (total, if weights > 0.0 { total * total / weights } else { 1.0 })
}

/// Variance of one side of a pair and its degrees of freedom.
fn spread(one: &Resampled, centre: f64, values: Vec<f64>) -> (f64, f64) {
    let freedom = match one.scheme {
        Scheme::Bootstrap { n_clusters, .. } => n_clusters - 1,
        // Nothing was estimated: only the number of draws limits the variance.
        Scheme::StatedNoise { draws, .. } => draws - 1,
        Scheme::Jackknife { .. } | Scheme::Unavailable { .. } => {
            return jackknife_variance(centre, &values);
        }
    };
    let deviations: Vec<f64> = values.into_iter().map(|value| value - centre).collect();
    (mean_square(&deviations), freedom as f64)
}

/// Turns the ends of an interval into an estimate, unless the interval is absurd.
pub(crate) fn judged(quantity: Quantity, value: f64, low: f64, high: f64) -> Estimate {
    match absurd_interval(quantity, low, high) {
        Some(reason) => Estimate::NotIdentified { reason },
        None if value.is_finite() => Estimate::Identified { value, low, high },
        None => Estimate::not_identified("the estimate itself is not finite"),
    }
}

fn is_log(quantity: Quantity) -> bool {
    matches!(quantity, Quantity::Scale | Quantity::Floor | Quantity::Loss)
}

fn mean_square(values: &[f64]) -> f64 {
    values.iter().map(|value| value * value).sum::<f64>() / values.len().max(1) as f64
}

/// Leave-one-out variance around the full estimate, and its degrees of freedom (Hansen 2022,
/// equation 8).
fn jackknife_variance(centre: f64, values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - centre).powi(2)).sum();
    ((n - 1.0) / n * squares, n - 1.0)
}

/// Two-sided quantile of Student's t.
pub(crate) fn student(level: f64, freedom: f64) -> f64 {
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(0.5 + 0.5 * level))
}

/// Percentiles, moved outward so that they are as wide as t intervals for so many units drawn
/// (Hesterberg 2015, section 4.5).
fn percentile_ends(mut values: Vec<f64>, level: f64, n_units: usize) -> (f64, f64) {
    values.sort_unstable_by(f64::total_cmp);
    let tail = widened_tail(level, n_units);
    (percentile(&values, tail), percentile(&values, 1.0 - tail))
}

/// The share of the draws beyond each end of such an interval.
fn widened_tail(level: f64, n_units: usize) -> f64 {
    let n = n_units as f64;
    let widened = (n / (n - 1.0)).sqrt() * student(level, n - 1.0);
    Normal::standard().cdf(-widened)
}

/// Linear interpolation between order statistics of sorted `values`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position between zero and the number of values"
)]
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let Some(last) = values.len().checked_sub(1) else { return f64::NAN };
    let position = share.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    values[below] + (position - below as f64) * (values[above] - values[below])
}

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod coverage_tests;
#[cfg(test)]
mod legacy_tests;
#[cfg(test)]
mod tests;
