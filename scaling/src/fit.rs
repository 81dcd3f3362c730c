//! Owns robust least squares on log loss: many starts, the convergence report, warnings.
//! Does not give intervals; a fit without them is half an answer, see `interval`.

use crate::identify::{self, Identifiability};
use crate::law::{Coefficient, Law, LawName, LogPoint, MAX_PARAMETERS};
use crate::minimize::{Minimum, Objective, minimize};
use crate::observation::{Dataset, Excluded};

/// Threshold of the Huber loss on log residuals (Hoffmann et al. 2022, section 3.3; Besiroglu et al. 2024, section 3).
///
/// It lies below the usual residuals (0.003 on their points), so the objective is close to absolute deviations.
pub const DEFAULT_HUBER_DELTA: f64 = 1e-3;
/// Starting points that are followed to their minimum.
const DEFAULT_N_POLISHED: usize = 32;
/// Of these, so many are the best of the grid; the others are spread evenly over its ranking, to find other basins.
const N_POLISHED_BEST: usize = 8;
/// Objectives within this share are the same minimum to the optimiser.
pub const EQUAL_OBJECTIVE: f64 = 1e-6;
/// Minima within this share of the best are reported: the data hardly prefer one over the other.
pub const RIVAL_OBJECTIVE: f64 = 5e-3;

/// How to fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitOptions {
    /// Residuals of ln L beyond this count linearly.
    pub huber_delta: f64,
    /// Starting points followed to their minimum, after the whole grid was ranked by the objective.
    pub n_polished: usize,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self { huber_delta: DEFAULT_HUBER_DELTA, n_polished: DEFAULT_N_POLISHED }
    }
}

/// What the optimiser saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Convergence {
    /// Starting points whose objective was computed.
    pub n_starts: usize,
    /// Of these, followed to a minimum.
    pub n_polished: usize,
    /// Of these, converged.
    pub n_converged: usize,
    /// Of these, at the best minimum (objective within [`EQUAL_OBJECTIVE`]).
    pub n_at_best: usize,
    /// Length of the gradient at the best minimum, of the objective divided by δ² and the number of points.
    pub gradient_norm: f64,
    /// Largest relative difference of any coefficient among starts that reached the best objective.
    pub spread_at_best: f64,
    /// Other minima within [`RIVAL_OBJECTIVE`] of the best: objective and coefficients.
    pub rivals: Vec<Rival>,
}

/// A minimum nearly as good as the best.
#[derive(Debug, Clone, PartialEq)]
pub struct Rival {
    /// Its objective.
    pub objective: f64,
    /// Its free parameters.
    pub theta: Vec<f64>,
}

/// Smallest and largest value of each variable among the fitted points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranges {
    /// N.
    pub parameters: (f64, f64),
    /// D.
    pub tokens: (f64, f64),
    /// C.
    pub flops: (f64, f64),
}

/// A fitted law. Its numbers may be unidentified: print them through `interval::infer`.
#[derive(Debug, Clone, PartialEq)]
pub struct Fit {
    /// The law.
    pub law: LawName,
    /// Coefficients of the formula at the optimum.
    pub coefficients: Vec<Coefficient>,
    /// The law's free parameters at the optimum.
    pub theta: Vec<f64>,
    /// Sum over points of the Huber loss of the residual of ln L.
    pub objective: f64,
    /// δ of that loss.
    pub huber_delta: f64,
    /// Root of the sum of squared residuals of ln L over (points - parameters).
    pub residual_rms_log: f64,
    /// Residuals ln(measured) - ln(predicted), in the order of the data set's points.
    pub residuals_log: Vec<f64>,
    /// Points fitted.
    pub n_points: usize,
    /// Runs they belong to.
    pub n_runs: usize,
    /// Distinct N among them.
    pub n_sizes: usize,
    /// Where the points lie.
    pub ranges: Ranges,
    /// The optimiser's report.
    pub convergence: Convergence,
    /// Points left out, with reasons, as the data set had them.
    pub excluded: Vec<Excluded>,
    /// What the data cannot determine, before any resampling.
    pub identifiability: Identifiability,
    /// What a reader should know before using the numbers.
    pub warnings: Vec<String>,
}

impl Fit {
    /// The value of the coefficient called `name`.
    pub fn coefficient(&self, name: &str) -> Option<f64> {
        self.coefficients.iter().find(|one| one.name == name).map(|one| one.value)
    }

    /// Loss in nats per token at N, D and C, without an interval; `interval::Inference::predict` has one.
    pub fn predict(&self, parameters: f64, tokens: f64, flops: f64) -> f64 {
        self.law.law().predict(&self.theta, &LogPoint::new(parameters, tokens, flops))
    }
}

/// Why there is no fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum FitError {
    /// Fewer points than free parameters.
    #[error("law `{law}` has {needed} parameters, found {found} points")]
    TooFewPoints {
        /// The law.
        law: LawName,
        /// Its number of parameters.
        needed: usize,
        /// Points in the data set.
        found: usize,
    },
    /// No start reached a minimum.
    #[error("law `{law}`: none of {n_polished} starting points converged")]
    NotConverged {
        /// The law.
        law: LawName,
        /// Starts that were followed.
        n_polished: usize,
    },
    /// The threshold of the Huber loss makes no sense.
    #[error("`huber_delta` must be finite and positive, found {value}")]
    BadDelta {
        /// What was given.
        value: f64,
    },
}

/// Fits `law` to the points of `dataset`.
///
/// The result depends on the inputs alone; no random number is drawn.
///
/// ```
/// use scaling::fit::{FitOptions, fit};
/// use scaling::law::LawName;
/// use scaling::observation::{Dataset, Observation, RunKey};
/// let points: Vec<Observation> = (0..8_u32).map(|run| {
///     let (parameters, tokens) = (1e6, 1e7 * f64::from(run + 1));
///     let flops = 6.0 * parameters * tokens;
///     Observation {
///         run: RunKey(run), parameters, tokens, flops, loss_nats: 40.0 * flops.powf(-0.07), seed: 0,
///     }
/// }).collect();
/// let fitted = fit(LawName::Power.law(), &Dataset::new(&points)?, &FitOptions::default())?;
/// assert!((fitted.coefficient("alpha").unwrap() - 0.07).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`FitError`]: too few points, a bad option, or no convergence.
pub fn fit(law: &dyn Law, dataset: &Dataset, options: &FitOptions) -> Result<Fit, FitError> {
    let problem = Problem::new(law, dataset, options)?;
    let n_starts;
    let minima = {
        let starts = law.starting_grid(&problem.points, &problem.log_losses);
        n_starts = starts.len();
        polish(&problem, starts, options.n_polished)
    };
    let n_polished = minima.len();
    let mut converged: Vec<Minimum> = minima.into_iter().filter(|one| one.converged).collect();
    converged.sort_by(|a, b| a.value.total_cmp(&b.value));
    let Some(best) = converged.first().cloned() else {
        return Err(FitError::NotConverged { law: law.name(), n_polished });
    };
    let convergence = report(law, &problem, &converged, (n_starts, n_polished));
    let identifiability = identify::judge(law, dataset, &problem, &best.theta, &convergence);
    let warnings = identify::warnings(dataset, &convergence, &identifiability, law);
    let residuals_log = problem.residuals(&best.theta);
    Ok(Fit {
        law: law.name(),
        coefficients: law.coefficients(&best.theta),
        objective: best.value * problem.scale(),
        huber_delta: options.huber_delta,
        residual_rms_log: rms(&residuals_log, best.theta.len()),
        residuals_log,
        n_points: dataset.points().len(),
        n_runs: dataset.runs().len(),
        n_sizes: dataset.n_distinct(|point| point.parameters),
        ranges: ranges(dataset),
        theta: best.theta,
        convergence,
        excluded: dataset.excluded().to_vec(),
        identifiability,
        warnings,
    })
}

fn rms(residuals: &[f64], n_parameters: usize) -> f64 {
    let freedom = residuals.len().saturating_sub(n_parameters).max(1);
    (residuals.iter().map(|r| r * r).sum::<f64>() / freedom as f64).sqrt()
}

fn ranges(dataset: &Dataset) -> Ranges {
    let of = |field: fn(&crate::observation::Observation) -> f64| {
        dataset.range(field).unwrap_or((f64::NAN, f64::NAN))
    };
    Ranges {
        parameters: of(|point| point.parameters),
        tokens: of(|point| point.tokens),
        flops: of(|point| point.flops),
    }
}

/// Follows the best starts and a sample of the others.
fn polish(problem: &Problem<'_>, starts: Vec<Vec<f64>>, n_polished: usize) -> Vec<Minimum> {
    let mut gradient = vec![0.0; problem.n_parameters()];
    let mut ranked: Vec<(f64, Vec<f64>)> = starts
        .into_iter()
        .map(|theta| (problem.value(&theta, &mut gradient), theta))
        .filter(|(value, _)| value.is_finite())
        .collect();
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let n = ranked.len();
    let n_best = N_POLISHED_BEST.min(n_polished).min(n);
    let n_others = n_polished.min(n) - n_best;
    let others = (0..n_others).map(|i| n_best + i * (n - n_best) / n_others);
    (0..n_best).chain(others).map(|i| minimize(problem, &ranked[i].1)).collect()
}

fn report(
    law: &dyn Law,
    problem: &Problem<'_>,
    converged: &[Minimum],
    (n_starts, n_polished): (usize, usize),
) -> Convergence {
    let best = &converged[0];
    let within = |share: f64| best.value * (1.0 + share) + 1e-12;
    let at_best: Vec<&Minimum> =
        converged.iter().filter(|one| one.value <= within(EQUAL_OBJECTIVE)).collect();
    let spread = at_best.iter().map(|one| distance(law, &best.theta, &one.theta));
    let mut rivals: Vec<Rival> = Vec::new();
    for one in &converged[at_best.len()..] {
        let is_new = rivals.iter().all(|rival| distance(law, &rival.theta, &one.theta) > 1e-2);
        let is_apart = distance(law, &best.theta, &one.theta) > 1e-2;
        if one.value <= within(RIVAL_OBJECTIVE) && is_new && is_apart {
            let objective = one.value * problem.scale();
            rivals.push(Rival { objective, theta: one.theta.clone() });
        }
    }
    Convergence {
        n_starts,
        n_polished,
        n_converged: converged.len(),
        n_at_best: at_best.len(),
        gradient_norm: best.gradient_norm,
        spread_at_best: spread.fold(0.0, f64::max),
        rivals,
    }
}

/// Largest relative difference of a coefficient between two parameter vectors.
fn distance(law: &dyn Law, a: &[f64], b: &[f64]) -> f64 {
    let pairs = law.coefficients(a).into_iter().zip(law.coefficients(b));
    pairs
        .map(|(x, y)| (x.value - y.value).abs() / x.value.abs().max(y.value.abs()).max(1e-12))
        .fold(0.0, f64::max)
}

/// The objective: a weighted sum of Huber losses, divided by δ² and the sum of weights.
///
/// Without that division it is so small (0.001) that relative stopping rules end at the starting point,
/// which is how too narrow intervals came to be published (Besiroglu et al. 2024, section 4).
#[derive(Debug, Clone)]
pub(crate) struct Problem<'a> {
    law: &'a dyn Law,
    pub(crate) points: Vec<LogPoint>,
    log_losses: Vec<f64>,
    weights: Vec<f64>,
    total_weight: f64,
    delta: f64,
}

impl<'a> Problem<'a> {
    pub(crate) fn new(
        law: &'a dyn Law,
        dataset: &Dataset,
        options: &FitOptions,
    ) -> Result<Self, FitError> {
        let (needed, found) = (law.parameter_names().len(), dataset.points().len());
        let delta = options.huber_delta;
        if !(delta.is_finite() && delta > 0.0) {
            return Err(FitError::BadDelta { value: delta });
        }
        if found < needed {
            return Err(FitError::TooFewPoints { law: law.name(), needed, found });
        }
        Ok(Self {
            law,
            points: dataset.points().iter().map(LogPoint::from).collect(),
            log_losses: dataset.points().iter().map(|point| point.loss_nats.ln()).collect(),
            weights: vec![1.0; found],
            total_weight: found as f64,
            delta,
        })
    }

    /// The same problem with point `i` counted `weights[i]` times; points that count zero times are gone.
    pub(crate) fn reweighted(&self, weights: &[f64]) -> Self {
        let kept: Vec<usize> = (0..weights.len()).filter(|i| weights[*i] > 0.0).collect();
        Self {
            law: self.law,
            points: kept.iter().map(|i| self.points[*i]).collect(),
            log_losses: kept.iter().map(|i| self.log_losses[*i]).collect(),
            weights: kept.iter().map(|i| weights[*i]).collect(),
            total_weight: weights.iter().sum(),
            delta: self.delta,
        }
    }

    pub(crate) fn n_parameters(&self) -> usize {
        self.law.parameter_names().len()
    }

    /// What the value is multiplied by to give the plain sum.
    pub(crate) fn scale(&self) -> f64 {
        self.delta * self.delta * self.total_weight
    }

    /// ln(measured) - ln(predicted).
    pub(crate) fn residuals(&self, theta: &[f64]) -> Vec<f64> {
        let mut gradient = [0.0; MAX_PARAMETERS];
        let pairs = self.points.iter().zip(&self.log_losses);
        pairs.map(|(x, t)| t - self.law.log_prediction(theta, x, &mut gradient)).collect()
    }

    /// Sum of w · factor(residual) · J Jᵀ, row-major.
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
}

impl Objective for Problem<'_> {
    fn value(&self, theta: &[f64], gradient: &mut [f64]) -> f64 {
        let mut row = [0.0; MAX_PARAMETERS];
        let mut sum = 0.0;
        gradient.fill(0.0);
        for ((x, t), weight) in self.points.iter().zip(&self.log_losses).zip(&self.weights) {
            let residual = self.law.log_prediction(theta, x, &mut row) - t;
            let clipped = residual.clamp(-self.delta, self.delta);
            // Both branches of the Huber loss in one: c r - c²/2 with c the clipped residual.
            sum += weight * clipped * (residual - 0.5 * clipped);
            for (total, part) in gradient.iter_mut().zip(&row) {
                *total += weight * clipped * part;
            }
        }
        let scale = 1.0 / self.scale();
        for value in gradient.iter_mut() {
            *value *= scale;
        }
        sum * scale
    }

    /// Gauss-Newton with the weights of iterated reweighting, min(1, δ/|r|): it bounds the curvature from above.
    fn metric(&self, theta: &[f64]) -> Vec<f64> {
        let scale = 1.0 / self.scale();
        self.gram(theta, |residual| scale * (self.delta / residual.abs().max(self.delta)))
    }
}

#[cfg(test)]
mod tests;
