//! Owns the function that a fit minimises: values, gradient and curvature over the points.
//! Does not choose starting points.

use std::cmp::Ordering;

use super::additive::{Additive, Grid};
use super::{FitError, vertex};
use crate::law::{Law, LawForm, LawName, LogPoint, MAX_PARAMETERS};
use crate::minimize::{self, MAX_ITERATIONS, Minimum, Smooth, minimize};
use crate::objective::Objective;
use crate::observation::Dataset;

/// Thresholds of the Huber losses that lead to absolute deviations, each started where the last one
/// ended.
const SHARPENING: [f64; 5] = [1e-3, 1e-4, 1e-5, 1e-6, 1e-7];
/// The residual of ln L that counts as one in sums of squares; of L that times a middling loss.
const SQUARES_UNIT: f64 = 1e-3;
/// The parameter that is the logarithm of a law's floor.
const FLOOR: &str = "ln_e";
/// Shares of the smallest loss: a floor without effect, the least that is one, and one that is clearly
/// there.
const NO_FLOOR: f64 = 1e-11;
const LEAST_FLOOR: f64 = 1e-6;
const SOME_FLOOR: f64 = 0.1;
/// Iterations after which the floor of a descent that is still going on may be falling without end.
const FEW_ITERATIONS: usize = 150;
/// Starts are close when no parameter differs by more than this share of its width over all starts;
/// so many of the best are looked at.
const CLOSE_STARTS: f64 = 0.1;
const MAX_RANKED_APART: usize = 256;

/// The objective: a weighted sum, divided by the unit of a residual squared and the sum of weights.
///
/// Without that division it is so small (0.001) that relative stopping rules end at the starting
/// point, which is how too narrow intervals came to be published (Besiroglu et al. 2024, section
/// 4).
///
/// Points are in an order of their own, by their values, so that sums do not depend on the order of
/// rows.
#[derive(Debug, Clone)]
pub(crate) struct Problem<'a> {
    law: &'a dyn Law,
    pub(crate) points: Vec<LogPoint>,
    pub(crate) log_losses: Vec<f64>,
    /// Of each point, its position in the data set.
    rows: Vec<usize>,
    /// Of each point: how often it counts times its own weight.
    weights: Vec<f64>,
    total_weight: f64,
    objective: Objective,
    /// Residuals beyond this count linearly; infinite for squares.
    threshold: f64,
    unit: f64,
    /// Of each parameter, the change that counts as one (`Law::unit_of`).
    steps: Vec<f64>,
    /// The additive law has a faster descent of its own.
    fast: Option<Additive>,
}

impl<'a> Problem<'a> {
    pub(crate) fn new(
        law: &'a dyn Law,
        dataset: &Dataset,
        objective: Objective,
    ) -> Result<Self, FitError> {
        let (needed, found) = (law.parameter_names().len(), dataset.points().len());
        if let Objective::Huber { delta } = objective
            && !(delta.is_finite() && delta > 0.0)
        {
            return Err(FitError::BadDelta { value: delta });
        }
        if found < needed {
            return Err(FitError::TooFewPoints { law: law.name(), needed, found });
        }
        let points = dataset.log_points();
        for variable in law.variables() {
            if let Some(index) = points.iter().position(|point| !point.value(*variable).is_finite())
            {
                return Err(FitError::MissingVariable {
                    law: law.name(),
                    variable: *variable,
                    index,
                });
            }
        }
        let (threshold, unit) = match objective {
            Objective::Huber { delta } => (delta, delta),
            Objective::AbsoluteDeviations => (SHARPENING[0], SHARPENING[0]),
            Objective::LogSquares => (f64::INFINITY, SQUARES_UNIT),
            Objective::LossSquares => (f64::INFINITY, SQUARES_UNIT * middling_loss(dataset)),
        };
        let given: Vec<f64> = dataset.points().iter().map(|point| point.loss_nats.ln()).collect();
        let covariates = dataset.covariates();
        let mut rows: Vec<usize> = (0..points.len()).collect();
        rows.sort_by(|a, b| {
            by_values(&points[*a], &points[*b])
                .then(given[*a].total_cmp(&given[*b]))
                .then(covariates[*a].weight.total_cmp(&covariates[*b].weight))
        });
        let points: Vec<LogPoint> = rows.iter().map(|row| points[*row]).collect();
        let log_losses: Vec<f64> = rows.iter().map(|row| given[*row]).collect();
        let weights: Vec<f64> = rows.iter().map(|row| covariates[*row].weight).collect();
        let total_weight: f64 = weights.iter().sum();
        let is_additive =
            matches!(law.form(), LawForm::Free(choice) if choice.name == LawName::Chinchilla);
        let is_smooth = matches!(objective, Objective::Huber { .. } | Objective::LogSquares);
        let fast = (is_additive && is_smooth).then(|| {
            let scale = unit * unit * total_weight;
            Additive::new(&points, &log_losses, &weights, (threshold, scale))
        });
        let steps = steps(law, &points, &log_losses);
        Ok(Self {
            law,
            points,
            log_losses,
            rows,
            weights,
            total_weight,
            objective,
            threshold,
            unit,
            steps,
            fast,
        })
    }

    /// The same points under another law of the same variables, without its faster descent.
    pub(crate) fn of_law<'b>(&self, law: &'b dyn Law) -> Problem<'b> {
        Problem {
            law,
            points: self.points.clone(),
            log_losses: self.log_losses.clone(),
            rows: self.rows.clone(),
            weights: self.weights.clone(),
            total_weight: self.total_weight,
            objective: self.objective,
            threshold: self.threshold,
            unit: self.unit,
            steps: steps(law, &self.points, &self.log_losses),
            fast: None,
        }
    }

    /// The same problem with point `i` of the data set counted `counts[i]` times; points that count
    /// zero times are gone.
    pub(crate) fn reweighted(&self, counts: &[f64]) -> Self {
        self.with_weights(&self.weights_of(counts))
    }

    /// The same problem for one of every `step` points, to search in when there are very many.
    /// Which one moves from block to block, so that a design with a period is not seen at one place
    /// of it only.
    pub(crate) fn thinned(&self, step: usize) -> Self {
        const GOLDEN: f64 = 0.618_033_988_749_894_9;
        let is_kept = |at: usize| {
            let place = (GOLDEN * (at / step) as f64).fract() * step as f64;
            place.floor() == (at % step) as f64
        };
        let kept = |(at, weight): (usize, &f64)| if is_kept(at) { *weight } else { 0.0 };
        self.with_weights(&self.weights.iter().enumerate().map(kept).collect::<Vec<f64>>())
    }

    /// The weights in the order of points, with point `i` of the data set counted `counts[i]`
    /// times.
    pub(crate) fn weights_of(&self, counts: &[f64]) -> Vec<f64> {
        self.rows.iter().zip(&self.weights).map(|(row, weight)| counts[*row] * weight).collect()
    }

    fn with_weights(&self, all: &[f64]) -> Self {
        let kept: Vec<usize> = (0..all.len()).filter(|at| all[*at] > 0.0).collect();
        let weights: Vec<f64> = kept.iter().map(|at| all[*at]).collect();
        let total_weight: f64 = weights.iter().sum();
        let scale = self.unit * self.unit * total_weight;
        Self {
            fast: self.fast.as_ref().map(|fast| fast.reweighted(all, scale)),
            points: kept.iter().map(|at| self.points[*at]).collect(),
            log_losses: kept.iter().map(|at| self.log_losses[*at]).collect(),
            rows: kept.iter().map(|at| self.rows[*at]).collect(),
            total_weight,
            weights,
            steps: self.steps.clone(),
            ..*self
        }
    }

    /// The starting points of the law for these points with their ranks, the best first.
    pub(crate) fn ranked_starts(&self) -> Vec<(f64, Vec<f64>)> {
        if let Some(grid) = self.grid() {
            return grid.ranked(&self.weights, self.threshold);
        }
        let mut gradient = vec![0.0; self.n_parameters()];
        let mut ranked: Vec<(f64, Vec<f64>)> = self
            .law
            .starting_grid(&self.points, &self.log_losses)
            .into_iter()
            .map(|theta| (self.value(&theta, &mut gradient), theta))
            .filter(|(value, _)| value.is_finite())
            .collect();
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
        apart_first(ranked)
    }

    /// The grid of exponents of the additive law on these points, to be used for many sets of
    /// weights.
    pub(crate) fn grid(&self) -> Option<Grid> {
        self.fast.as_ref().map(Grid::new)
    }

    /// The best start of `grid`, made from these points, where point `i` of the data set counts
    /// `counts[i]` times.
    pub(crate) fn best_start(&self, grid: &Grid, counts: &[f64]) -> Option<Vec<f64>> {
        grid.best(&self.weights_of(counts), self.threshold)
    }

    pub(crate) fn n_parameters(&self) -> usize {
        self.law.parameter_names().len()
    }

    /// What is minimised at `theta`, as its name says: the plain sum.
    pub(crate) fn plain(&self, theta: &[f64]) -> f64 {
        let mut gradient = [0.0; MAX_PARAMETERS];
        let rows = self.points.iter().zip(&self.log_losses).zip(&self.weights);
        rows.map(|((x, t), weight)| {
            weight * self.objective.of(*t, self.law.log_prediction(theta, x, &mut gradient))
        })
        .sum()
    }

    /// Follows `start` to its minimum.
    ///
    /// A law's floor is followed by its logarithm. Where none is wanted that falls without end, and
    /// where none was, nothing leads to one that is wanted: both ends are looked at.
    pub(crate) fn descend(&self, start: &[f64]) -> Minimum {
        let names = self.law.parameter_names();
        let Some(floor) = names.iter().position(|name| *name == FLOOR) else {
            return self.follow(start, MAX_ITERATIONS);
        };
        let lowest = self.log_losses.iter().copied().fold(f64::INFINITY, f64::min);
        let with_floor = |minimum: &Minimum, share: f64, most: usize| {
            let mut start = minimum.theta.clone();
            start[floor] = lowest + share.ln();
            self.follow(&start, most)
        };
        let mut minimum = self.follow(start, FEW_ITERATIONS);
        if !minimum.converged {
            let without = with_floor(&minimum, NO_FLOOR, MAX_ITERATIONS);
            minimum = if without.converged && without.value <= minimum.value {
                without
            } else {
                self.follow(&minimum.theta, MAX_ITERATIONS)
            };
        }
        if minimum.converged && minimum.theta[floor] < lowest + LEAST_FLOOR.ln() {
            let mut gradient = vec![0.0; names.len()];
            self.value(&minimum.theta, &mut gradient);
            // The sign is that of the slope in E itself, however small E is.
            if gradient[floor] < 0.0 {
                let above = with_floor(&minimum, SOME_FLOOR, MAX_ITERATIONS);
                if above.converged && above.value < minimum.value {
                    return above;
                }
            }
        }
        minimum
    }

    /// Follows `start`, in at most so many iterations of the general minimiser.
    fn follow(&self, start: &[f64], most: usize) -> Minimum {
        if let Some(fast) = &self.fast {
            let minimum = fast.descend(start);
            let is_last = most == MAX_ITERATIONS && !minimum.converged;
            return if is_last { self.minimize(&minimum.theta, most) } else { minimum };
        }
        if self.objective != Objective::AbsoluteDeviations {
            return self.minimize(start, most);
        }
        let mut minimum = self.minimize(start, most);
        for threshold in &SHARPENING[1..] {
            let sharper = Self { threshold: *threshold, unit: *threshold, ..self.clone() };
            let next = sharper.minimize(&minimum.theta, most);
            // The corners of absolute values stop a descent before its tests say so; the smoother
            // problem converged.
            let converged = minimum.converged;
            minimum = Minimum { converged, ..next };
        }
        if let Some((theta, _)) = vertex::nearest(self, &minimum.theta) {
            minimum.theta = theta;
        }
        // In units of the first threshold, so that minima of several starts compare.
        minimum.value = self.plain(&minimum.theta) / (self.unit * self.total_weight);
        minimum
    }

    /// As `minimize::minimize`, which takes one for a step of order one in every parameter.
    fn minimize(&self, start: &[f64], most: usize) -> Minimum {
        if self.steps.iter().all(|step| *step == 1.0) {
            return minimize(self, start, most);
        }
        let steps = &self.steps;
        let start: Vec<f64> = start.iter().zip(steps).map(|(value, step)| value / step).collect();
        let found = minimize(&InSteps { problem: self }, &start, most);
        Minimum { theta: in_units(&found.theta, steps)[..steps.len()].to_vec(), ..found }
    }

    /// Of each parameter, the change that counts as one.
    pub(crate) fn steps(&self) -> &[f64] {
        &self.steps
    }

    /// The minimum that `minimum` is close to, as exactly as rounding allows.
    pub(crate) fn sharpen(&self, minimum: Minimum) -> Minimum {
        match &self.fast {
            Some(fast) => fast.sharpen(minimum),
            // That of absolute deviations is a vertex already.
            None if self.objective == Objective::AbsoluteDeviations => minimum,
            None => minimize::sharpen(self, minimum),
        }
    }

    /// Whether at least half of `residuals` of ln L are small enough to count by their squares.
    pub(crate) fn is_smooth_at(&self, residuals: &[f64]) -> bool {
        let is_kinked = self.objective == Objective::AbsoluteDeviations;
        let n_within = residuals.iter().filter(|one| one.abs() <= self.threshold).count();
        !is_kinked && 2 * n_within >= residuals.len()
    }

    /// Values of the points in the order of the data set that all of them came from.
    pub(crate) fn in_rows(&self, values: &[f64]) -> Vec<f64> {
        let mut ordered = vec![0.0; values.len()];
        self.rows.iter().zip(values).for_each(|(row, value)| ordered[*row] = *value);
        ordered
    }

    /// ln(measured) - ln(predicted).
    pub(crate) fn residuals(&self, theta: &[f64]) -> Vec<f64> {
        let mut gradient = [0.0; MAX_PARAMETERS];
        let pairs = self.points.iter().zip(&self.log_losses);
        pairs.map(|(x, t)| t - self.law.log_prediction(theta, x, &mut gradient)).collect()
    }

    /// The derivatives of ln L at one point, and ln(measured) - ln(predicted) there.
    pub(super) fn row(&self, theta: &[f64], index: usize) -> ([f64; MAX_PARAMETERS], f64) {
        let mut row = [0.0; MAX_PARAMETERS];
        let predicted = self.law.log_prediction(theta, &self.points[index], &mut row);
        (row, self.log_losses[index] - predicted)
    }

    /// The sum of the points' weights.
    pub(crate) fn total_weight(&self) -> f64 {
        self.total_weight
    }

    /// Sum of w · factor(residual of ln L) · J Jᵀ, row-major, with J the derivatives of ln L.
    pub(crate) fn gram(&self, theta: &[f64], factor: impl Fn(f64) -> f64) -> Vec<f64> {
        let n = self.n_parameters();
        let mut sum = vec![0.0; n * n];
        let mut row = [0.0; MAX_PARAMETERS];
        for ((x, t), weight) in self.points.iter().zip(&self.log_losses).zip(&self.weights) {
            let residual = self.law.log_prediction(theta, x, &mut row) - t;
            let weight = weight * factor(residual);
            for i in 0..n {
                for j in 0..n {
                    sum[i * n + j] += weight * row[i] * row[j];
                }
            }
        }
        sum
    }

    fn scale(&self) -> f64 {
        self.unit * self.unit * self.total_weight
    }

    /// The residual that is penalised, and its derivative with respect to the predicted ln L.
    fn residual(&self, predicted: f64, measured: f64) -> (f64, f64) {
        if self.objective == Objective::LossSquares {
            let loss = predicted.exp();
            (loss - measured.exp(), loss)
        } else {
            (predicted - measured, 1.0)
        }
    }
}

impl Smooth for Problem<'_> {
    fn value(&self, theta: &[f64], gradient: &mut [f64]) -> f64 {
        if let Some(fast) = &self.fast {
            return fast.value(theta, gradient);
        }
        let mut row = [0.0; MAX_PARAMETERS];
        let mut sum = 0.0;
        gradient.fill(0.0);
        for ((x, t), weight) in self.points.iter().zip(&self.log_losses).zip(&self.weights) {
            let predicted = self.law.log_prediction(theta, x, &mut row);
            let (residual, slope) = self.residual(predicted, *t);
            let clipped = residual.clamp(-self.threshold, self.threshold);
            // Both branches of the Huber loss in one: c r - c²/2 with c the clipped residual.
            sum += weight * clipped * (residual - 0.5 * clipped);
            for (total, part) in gradient.iter_mut().zip(&row) {
                *total += weight * clipped * slope * part;
            }
        }
        let scale = 1.0 / self.scale();
        for value in gradient.iter_mut() {
            *value *= scale;
        }
        sum * scale
    }

    /// Gauss-Newton with the weights of iterated reweighting, min(1, δ/|r|): it bounds the
    /// curvature from above.
    fn metric(&self, theta: &[f64]) -> Vec<f64> {
        let scale = 1.0 / self.scale();
        if self.objective == Objective::LossSquares {
            // J is that of ln L; of L it is L times as large, and near the optimum L is the
            // measured one.
            let n = self.n_parameters();
            let losses: Vec<f64> = self.log_losses.iter().map(|value| value.exp()).collect();
            let mut sum = vec![0.0; n * n];
            let mut row = [0.0; MAX_PARAMETERS];
            for ((x, loss), weight) in self.points.iter().zip(&losses).zip(&self.weights) {
                self.law.log_prediction(theta, x, &mut row);
                let weight = weight * loss * loss * scale;
                for i in 0..n {
                    for j in 0..n {
                        sum[i * n + j] += weight * row[i] * row[j];
                    }
                }
            }
            return sum;
        }
        let threshold = self.threshold;
        if threshold.is_infinite() {
            return self.gram(theta, |_| scale);
        }
        self.gram(theta, |residual| scale * (threshold / residual.abs().max(threshold)))
    }
}

/// A problem whose parameters are counted in their steps.
struct InSteps<'a> {
    problem: &'a Problem<'a>,
}

impl Smooth for InSteps<'_> {
    fn value(&self, counts: &[f64], gradient: &mut [f64]) -> f64 {
        let steps = &self.problem.steps;
        let theta = in_units(counts, steps);
        let value = self.problem.value(&theta[..steps.len()], gradient);
        gradient.iter_mut().zip(steps).for_each(|(slope, step)| *slope *= step);
        value
    }

    fn metric(&self, counts: &[f64]) -> Vec<f64> {
        let (steps, n) = (&self.problem.steps, counts.len());
        let theta = in_units(counts, steps);
        let mut metric = self.problem.metric(&theta[..n]);
        for (at, value) in metric.iter_mut().enumerate() {
            *value *= steps[at / n] * steps[at % n];
        }
        metric
    }
}

/// The parameters, from how many of their steps they are.
fn in_units(counts: &[f64], steps: &[f64]) -> [f64; MAX_PARAMETERS] {
    let mut theta = [0.0; MAX_PARAMETERS];
    for ((value, count), step) in theta.iter_mut().zip(counts).zip(steps) {
        *value = count * step;
    }
    theta
}

/// The geometric mean of the smallest and the largest loss, which does not depend on the order of
/// rows.
fn middling_loss(dataset: &Dataset) -> f64 {
    let range = dataset.range(|point| point.loss_nats);
    range.map_or(1.0, |(low, high)| (0.5 * (low.ln() + high.ln())).exp())
}

fn steps(law: &dyn Law, points: &[LogPoint], log_losses: &[f64]) -> Vec<f64> {
    (0..law.parameter_names().len()).map(|j| law.unit_of(j, points, log_losses)).collect()
}

/// The starts in their order, but for those among the best that lie close to a better one: these come
/// after the others that do not, for they lead where that one leads.
fn apart_first(ranked: Vec<(f64, Vec<f64>)>) -> Vec<(f64, Vec<f64>)> {
    let n = ranked.first().map_or(0, |one| one.1.len());
    let widths: Vec<f64> = (0..n)
        .map(|i| {
            let (low, high) = ranked
                .iter()
                .map(|one| one.1[i])
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
            (high - low).max(f64::MIN_POSITIVE)
        })
        .collect();
    let is_close = |one: &[f64], other: &[f64]| {
        let pairs = one.iter().zip(other).zip(&widths);
        pairs.into_iter().all(|((a, b), width)| (a - b).abs() < CLOSE_STARTS * width)
    };
    let mut apart: Vec<usize> = Vec::new();
    for at in 0..ranked.len().min(MAX_RANKED_APART) {
        if apart.iter().all(|better| !is_close(&ranked[*better].1, &ranked[at].1)) {
            apart.push(at);
        }
    }
    let mut is_apart = vec![false; ranked.len()];
    for at in apart {
        is_apart[at] = true;
    }
    let (first, later): (Vec<_>, Vec<_>) =
        ranked.into_iter().zip(is_apart).partition(|(_, is_apart)| *is_apart);
    first.into_iter().chain(later).map(|(start, _)| start).collect()
}

/// An order of points that depends on their values alone.
pub(crate) fn by_values(a: &LogPoint, b: &LogPoint) -> Ordering {
    let values = |point: &LogPoint| {
        let [weights, activations, cache] = point.bits;
        [
            point.ln_parameters,
            point.ln_tokens,
            point.ln_flops,
            point.ln_unique_tokens,
            weights,
            activations,
            cache,
            point.task_loss,
            point.rates.0,
            point.rates.1,
        ]
    };
    let pairs = values(a).into_iter().zip(values(b));
    pairs.map(|(a, b)| a.total_cmp(&b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}
