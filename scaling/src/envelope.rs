//! Owns the training-curve envelope of one architecture: the frontier and the power laws L(C),
//! N_opt(C), D_opt(C). Does not smooth, choose checkpoints or cut warm-up; the caller gives the
//! points that count.
//!
//! The method is approach 1 of Hoffmann et al. 2022 as used by Shen et al. 2024 (2406.16690,
//! section 4), made exact:
//!
//! 1. Each run's loss and tokens are interpolated linearly in logs over its own range of C, never
//!    beyond it.
//! 2. A log-spaced grid of budgets covers the range in which at least two sizes have curves; runs
//!    of equal size are averaged in the log, for the least of several seeds would be biased
//!    downward.
//! 3. At each budget the size with the least loss wins. It is *bracketed* if a smaller and a larger
//!    size were measured at that same budget, otherwise the winner is an *edge*.
//! 4. L(C) is fitted to all budgets. At an edge the best size may lie outside those sampled, but
//!    the loss is flat around the best size: a factor-of-two error in N changes it in second order
//!    only. The number of edge budgets is reported, and it is a warning when they are the majority.
//! 5. N_opt(C) and D_opt(C) are fitted to bracketed budgets only: there an edge is wrong in first
//!    order.
//! 6. Each line is ordinary least squares in logs; a and b are independent, and 6ND/C is reported
//!    beside them.
//! 7. Intervals resample runs, or clusters of those that share a trunk, rebuilding the frontier on
//!    the same budgets (see `interval`), or vary their luck by a stated noise.

use crate::algebra::{Line, line};
use crate::diagnose::shared_trunks;
use crate::fit::Ranges;
use crate::interval::{
    Estimate, IntervalOptions, Prediction, Resampled, Scheme, resample_by, shift,
};
use crate::law::Quantity;
use crate::observation::{Dataset, RunKey};

mod frontier;

pub use frontier::{Bracket, FrontierPoint};
use frontier::{Curves, Draw, RawPoint};

/// FLOPs of one PFLOP/s-day, the unit of the published prefactors (2406.16690, section 4).
pub const PFLOP_DAY: f64 = 8.64e19;
/// Fewer budgets than this leave a line no residual to speak of.
const MIN_BUDGETS: usize = 4;
/// Frontiers over a smaller span of C have a slope made of the curvature of two curves.
const MIN_FLOPS_SPAN: f64 = 2.0;
/// A frontier that one size holds alone is a training curve, not a frontier.
const MIN_WINNERS: usize = 2;
/// A resample that covers fewer budgets than this share estimates the line elsewhere.
const MIN_COVERED_SHARE: f64 = 0.5;
/// 6ND/C outside this band means that N, D and C do not follow C = 6ND, so a + b need not be 1.
const CONSISTENT_FLOPS: (f64, f64) = (0.9, 1.1);

/// How to fit the envelope.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EnvelopeOptions {
    /// Budgets on the grid.
    pub n_budgets: usize,
    /// C in which prefactors are given.
    pub unit_flops: f64,
    /// How intervals are made.
    pub interval: IntervalOptions,
    /// Standard deviation of ln L between seeds, if the caller knows it or wants to assume it.
    ///
    /// `None` (the default) resamples runs, which assumes nothing and with few sizes gives wide
    /// intervals: they hold what another choice of sizes would have given. With a stated noise the
    /// sizes are taken as they are and only luck is varied, as Porian et al. 2024 (2406.19146) do
    /// with 0.002 and 0.01; whoever prints such an interval prints the assumption with it.
    pub seed_sd_log: Option<f64>,
}

impl Default for EnvelopeOptions {
    fn default() -> Self {
        // Enough that the winner's changes are placed to a few per cent of C; more points hold no
        // more data.
        let interval = IntervalOptions::default();
        Self { n_budgets: 64, unit_flops: PFLOP_DAY, interval, seed_sd_log: None }
    }
}

/// Why there is no envelope.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EnvelopeError {
    /// C must grow along a run.
    #[error("run {run} has two points with {flops:e} FLOPs")]
    RepeatedFlops {
        /// The run.
        run: u32,
        /// C of both points.
        flops: f64,
    },
    /// A frontier compares sizes.
    #[error(
        "the envelope needs two sizes measured at equal compute, found {n_sizes} and no overlap"
    )]
    NoOverlap {
        /// Distinct sizes with a curve of at least two points.
        n_sizes: usize,
    },
    /// An option makes no sense.
    #[error("`{field}` must be at least {least}, found {value}")]
    BadOption {
        /// Which.
        field: &'static str,
        /// The least allowed value.
        least: f64,
        /// What was given.
        value: f64,
    },
}

/// A budget that is not used, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct DroppedBudget {
    /// C.
    pub flops: f64,
    /// Why, in words.
    pub reason: String,
}

/// A power law `y = prefactor · (C / unit)^exponent` with intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct PowerLine {
    /// Exponent of C, with its sign.
    pub exponent: Estimate,
    /// y at C = `unit_flops`.
    pub prefactor: Estimate,
    /// C at which the prefactor is given.
    pub unit_flops: f64,
    /// Budgets fitted.
    pub n_points: usize,
    /// Distinct winning sizes among them.
    pub n_sizes: usize,
    /// Root-mean-square residual of ln y.
    pub residual_rms_log: f64,
}

/// The envelope of one architecture.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvelopeFit {
    /// The frontier, one point a budget.
    pub frontier: Vec<FrontierPoint>,
    /// Budgets left out of L(C) too, with reasons.
    pub dropped: Vec<DroppedBudget>,
    /// L(C) over all budgets.
    pub loss: PowerLine,
    /// N_opt(C) over bracketed budgets.
    pub parameters: PowerLine,
    /// D_opt(C) over bracketed budgets.
    pub tokens: PowerLine,
    /// Replicates of L(C): (ln L at `reference_flops`, exponent).
    pub loss_resampled: Resampled,
    /// Replicates of the optimum: (ln N, exponent, ln D, exponent), at `reference_flops`.
    pub optimum_resampled: Resampled,
    /// Centre of the grid, where the lines are anchored.
    pub reference_flops: f64,
    /// First and last budget.
    pub flops_range: (f64, f64),
    /// Where the measured points lie.
    pub ranges: Ranges,
    /// Smallest and largest 6ND/C over the frontier.
    pub six_nd_over_c: (f64, f64),
    /// Runs used.
    pub n_runs: usize,
    /// Per run, in the order of resampling (by size, then key): the place of its size, from the
    /// smallest.
    pub size_of_run: Vec<usize>,
    /// Per run, in the same order: which runs are drawn together, because they share a trunk.
    pub unit_of_run: Vec<usize>,
    /// Runs without two points, which have no curve.
    pub runs_without_curve: Vec<RunKey>,
    /// What a reader should know before using the numbers.
    pub warnings: Vec<String>,
}

/// Builds the frontier and fits its three lines. Held-out runs must not be in `dataset`.
///
/// # Errors
/// [`EnvelopeError`]: a run with repeated C, no overlap of sizes, or a bad option.
pub fn fit(dataset: &Dataset, options: &EnvelopeOptions) -> Result<EnvelopeFit, EnvelopeError> {
    check(options)?;
    let curves = Curves::new(dataset)?;
    let budgets = curves.budgets(options.n_budgets)?;
    let reference = 0.5 * (budgets[0] + budgets[budgets.len() - 1]);
    let raw = curves.frontier(&Draw::plain(curves.n_runs()), &budgets, 2);
    let builder = Builder { curves: &curves, budgets: &budgets, reference, options };
    let (loss, loss_resampled) = builder.loss(&raw);
    let (parameters, tokens, optimum_resampled) = builder.optimum(&raw);
    let frontier: Vec<FrontierPoint> = raw.iter().flatten().map(RawPoint::describe).collect();
    let dropped = budgets.iter().zip(&raw).filter(|(_, point)| point.is_none());
    let dropped = dropped
        .map(|(ln_flops, _)| DroppedBudget {
            flops: ln_flops.exp(),
            reason: "fewer than two sizes were measured at this compute".to_owned(),
        })
        .collect();
    let six_nd_over_c = frontier
        .iter()
        .map(FrontierPoint::six_nd_over_c)
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    let range = |field: fn(&crate::observation::Observation) -> f64| {
        dataset.range(field).unwrap_or((f64::NAN, f64::NAN))
    };
    Ok(EnvelopeFit {
        warnings: warnings(&frontier, six_nd_over_c, &curves),
        frontier,
        dropped,
        loss,
        parameters,
        tokens,
        loss_resampled,
        optimum_resampled,
        reference_flops: reference.exp(),
        flops_range: (budgets[0].exp(), budgets[budgets.len() - 1].exp()),
        ranges: Ranges {
            parameters: range(|point| point.parameters),
            tokens: range(|point| point.tokens),
            flops: range(|point| point.flops),
        },
        six_nd_over_c,
        n_runs: curves.n_runs(),
        size_of_run: curves.size_of_run(),
        unit_of_run: curves.unit_of_run(),
        runs_without_curve: curves.without_curve.clone(),
    })
}

impl EnvelopeFit {
    /// The frontier's loss at `flops`, with the intervals of the curve and of one new measurement
    /// on the frontier.
    ///
    /// A run off the frontier has more loss than this at its own C.
    pub fn predict_loss(&self, flops: f64) -> Prediction {
        let distance = (flops / self.reference_flops).ln();
        let at = |theta: &[f64]| (theta[0] + theta[1] * distance).exp();
        Prediction {
            curve: self.loss_resampled.estimate(Quantity::Loss, at),
            measured: self.loss_resampled.estimate_measured(at),
            extrapolation: flops / self.flops_range.1,
        }
    }

    /// a + b of N_opt ∝ C^a and D_opt ∝ C^b, jointly; 1 where C is proportional to N D.
    pub fn exponent_sum(&self) -> Estimate {
        self.optimum_resampled.estimate(Quantity::Difference, |theta| theta[1] + theta[3])
    }

    /// N_opt and D_opt at `flops`.
    pub fn predict_optimum(&self, flops: f64) -> (Estimate, Estimate) {
        let distance = (flops / self.reference_flops).ln();
        let at = |first: usize| {
            let value = |theta: &[f64]| (theta[first] + theta[first + 1] * distance).exp();
            self.optimum_resampled.estimate(Quantity::Scale, value)
        };
        (at(0), at(2))
    }
}

fn check(options: &EnvelopeOptions) -> Result<(), EnvelopeError> {
    if options.n_budgets < MIN_BUDGETS {
        let (field, least) = ("n_budgets", MIN_BUDGETS as f64);
        let value = options.n_budgets as f64;
        return Err(EnvelopeError::BadOption { field, least, value });
    }
    let value = options.unit_flops;
    if !(value.is_finite() && value > 0.0) {
        let (field, least) = ("unit_flops", f64::MIN_POSITIVE);
        return Err(EnvelopeError::BadOption { field, least, value });
    }
    Ok(())
}

struct Builder<'a> {
    curves: &'a Curves,
    /// ln C of the grid.
    budgets: &'a [f64],
    /// ln C at which lines are anchored.
    reference: f64,
    options: &'a EnvelopeOptions,
}

impl Builder<'_> {
    fn loss(&self, raw: &[Option<RawPoint>]) -> (PowerLine, Resampled) {
        let points: Vec<&RawPoint> = raw.iter().flatten().collect();
        let n_sizes = n_winners(&points);
        let span = (self.budgets[self.budgets.len() - 1] - self.budgets[0]).exp();
        let blocked = if points.len() < MIN_BUDGETS {
            Some(format!("only {} budgets with two sizes", points.len()))
        } else if span < MIN_FLOPS_SPAN {
            Some(format!("sizes overlap over a factor of {span:.2} of compute only"))
        } else if n_sizes < MIN_WINNERS {
            Some("one size is best at every budget: its training curve is no frontier".to_owned())
        } else {
            None
        };
        let refit = |draw: &Draw| -> Result<Vec<f64>, String> {
            let raw = self.curves.frontier(draw, self.budgets, 1);
            let kept: Vec<&RawPoint> = raw.iter().flatten().collect();
            if (kept.len() as f64) < MIN_COVERED_SHARE * points.len() as f64 {
                return Err(format!("{} of {} budgets are covered", kept.len(), points.len()));
            }
            let fitted = self.line(&kept, |point| point.ln_loss);
            fitted.map(|one| vec![one.value, one.slope]).ok_or_else(|| "no line".to_owned())
        };
        let fitted = self.line(&points, |point| point.ln_loss);
        let resampled = self.resampled(&[fitted], &points, blocked, refit);
        let line = self.power_line(&resampled, (Quantity::Loss, 0), fitted, &points);
        (line, resampled)
    }

    fn optimum(&self, raw: &[Option<RawPoint>]) -> (PowerLine, PowerLine, Resampled) {
        let points = bracketed(raw);
        let blocked = match (points.len(), n_winners(&points)) {
            (0, _) => Some("no budget has its best size between a smaller and a larger one".into()),
            (n, 1) => Some(format!("one size is best at all {n} budgets that bracket their best")),
            (n, _) if n < MIN_BUDGETS => Some(format!("only {n} budgets bracket their best size")),
            _ => None,
        };
        let lines = |points: &[&RawPoint]| {
            [self.line(points, |point| point.ln_parameters), self.line(points, |p| p.ln_tokens)]
        };
        let refit = |draw: &Draw| -> Result<Vec<f64>, String> {
            let raw = self.curves.frontier(draw, self.budgets, 1);
            let kept = bracketed(&raw);
            if n_winners(&kept) < MIN_WINNERS {
                return Err("fewer than two sizes win bracketed budgets".to_owned());
            }
            let [Some(n), Some(d)] = lines(&kept) else { return Err("no line".to_owned()) };
            Ok(vec![n.value, n.slope, d.value, d.slope])
        };
        let fitted = lines(&points);
        let resampled = self.resampled(&fitted, &points, blocked, refit);
        let parameters = self.power_line(&resampled, (Quantity::Scale, 0), fitted[0], &points);
        let tokens = self.power_line(&resampled, (Quantity::Scale, 2), fitted[1], &points);
        (parameters, tokens, resampled)
    }

    fn line(&self, points: &[&RawPoint], y: impl Fn(&RawPoint) -> f64) -> Option<Line> {
        let pairs: Vec<(f64, f64)> =
            points.iter().map(|point| (point.ln_flops, y(point))).collect();
        line(&pairs, self.reference)
    }

    fn resampled(
        &self,
        fitted: &[Option<Line>],
        points: &[&RawPoint],
        blocked: Option<String>,
        refit: impl Fn(&Draw) -> Result<Vec<f64>, String> + Sync,
    ) -> Resampled {
        let n_runs = self.curves.n_runs();
        let theta = fitted
            .iter()
            .flat_map(|one| one.map_or([f64::NAN, f64::NAN], |line| [line.value, line.slope]));
        let options = &self.options.interval;
        let (replicates, scheme) = match (blocked, self.options.seed_sd_log) {
            (Some(reason), _) => (Vec::new(), Scheme::Unavailable { n_runs, reason }),
            (None, None) => resample_by(&self.curves.plan(), options, |weights, _| {
                refit(&Draw::weighted(self.curves.of_runs(weights)))
            }),
            (None, Some(sd)) => shift(&self.curves.plan(), options, sd, |luck| {
                refit(&Draw::shifted(self.curves.of_runs(luck)))
            }),
        };
        // Only L(C) predicts measured losses; the optimum's lines have one more line and no noise
        // to add.
        let inflation = (points.len() as f64 / (points.len().max(3) - 2) as f64).sqrt();
        let residuals_log = match fitted {
            [Some(one)] => {
                let line =
                    |point: &RawPoint| one.value + one.slope * (point.ln_flops - self.reference);
                points.iter().map(|point| inflation * (point.ln_loss - line(point))).collect()
            }
            _ => Vec::new(),
        };
        let level = self.options.interval.level;
        let (theta, influence) = (theta.collect(), Vec::new());
        Resampled { theta, replicates, scheme, level, residuals_log, influence }
    }

    fn power_line(
        &self,
        resampled: &Resampled,
        (quantity, first): (Quantity, usize),
        fitted: Option<Line>,
        points: &[&RawPoint],
    ) -> PowerLine {
        let unit = self.options.unit_flops.ln() - self.reference;
        let prefactor = |theta: &[f64]| (theta[first] + theta[first + 1] * unit).exp();
        let squares = fitted.map_or(f64::NAN, |line| line.residual_squares);
        PowerLine {
            exponent: resampled.estimate(Quantity::Exponent, |theta| theta[first + 1]),
            prefactor: resampled.estimate(quantity, prefactor),
            unit_flops: self.options.unit_flops,
            n_points: points.len(),
            n_sizes: n_winners(points),
            residual_rms_log: (squares / (points.len().max(3) - 2) as f64).sqrt(),
        }
    }
}

fn bracketed(raw: &[Option<RawPoint>]) -> Vec<&RawPoint> {
    raw.iter().flatten().filter(|point| point.bracket == Bracket::Inside).collect()
}

fn n_winners(points: &[&RawPoint]) -> usize {
    let mut sizes: Vec<usize> = points.iter().map(|point| point.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.len()
}

fn warnings(frontier: &[FrontierPoint], (low, high): (f64, f64), curves: &Curves) -> Vec<String> {
    let n_sizes = curves.n_sizes();
    let mut warnings = Vec::new();
    let n_edges = frontier.iter().filter(|point| point.bracket != Bracket::Inside).count();
    let n = frontier.len();
    if 2 * n_edges > n {
        warnings.push(format!(
            "edge-winners: at {n_edges} of {n} budgets the best size is the smallest or largest \
             measured there"
        ));
    }
    if low < CONSISTENT_FLOPS.0 || high > CONSISTENT_FLOPS.1 {
        warnings.push(format!(
            "flops-not-6nd: 6ND/C runs from {low:.2} to {high:.2}, so a + b need not be 1"
        ));
    }
    if n_sizes < 5 {
        warnings.push(format!("few-sizes: only {n_sizes} sizes"));
    }
    let shared = shared_trunks(curves.n_units(), curves.n_runs());
    warnings.extend(shared.map(|text| format!("shared-trunks: {text}")));
    warnings
}

#[cfg(test)]
mod tests;
