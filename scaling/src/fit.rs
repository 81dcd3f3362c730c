//! Owns robust least squares on log loss: many starts, the convergence report. Does not give
//! intervals or warnings; a fit without them is half an answer, see `interval` and `diagnose`.

use crate::identify::{self, Identifiability};
use crate::law::{Coefficient, Law, LawForm, LawName, LogPoint, Variable};
use crate::minimize::Minimum;
use crate::noise::SeedNoise;
use crate::objective::Objective;
use crate::observation::{Dataset, Excluded, Weighting};

mod additive;
mod audit;
mod lanes;
mod problem;
mod vertex;

pub(crate) use additive::Grid;
pub use audit::{Audit, audit};
pub(crate) use problem::{Problem, by_values};

/// Starting points that are followed to their minimum.
const DEFAULT_N_POLISHED: usize = 16;
/// Of these, so many are the best of the grid that are no neighbours of a better one; the others are
/// spread evenly over its ranking, to find other basins.
const N_POLISHED_BEST: usize = 8;
/// More points than these are searched through a part of them; the best minima are then followed on
/// all.
pub(crate) const MAX_SEARCHED: usize = 8192;
/// Objectives within this share are the same minimum to the optimiser.
pub const EQUAL_OBJECTIVE: f64 = 1e-6;
/// Minima within this share of the best are reported: the data hardly prefer one over the other.
pub const RIVAL_OBJECTIVE: f64 = 5e-3;

/// Minima beside the best that are kept as basins, and how many times its objective they may have:
/// what resampling can turn into the best.
const MAX_BASINS: usize = 4;
const BASIN_OBJECTIVE: f64 = 2.0;

/// How to fit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FitOptions {
    /// What is minimised.
    pub objective: Objective,
    /// Starting points followed to their minimum, after the whole grid was ranked by the objective.
    pub n_polished: usize,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self { objective: Objective::default(), n_polished: DEFAULT_N_POLISHED }
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
    /// Length of the gradient at the best minimum, of the objective divided by δ² and the number of
    /// points.
    pub gradient_norm: f64,
    /// Largest relative difference of each coefficient, in the law's order, among starts that reached
    /// the best objective.
    pub spreads_at_best: Vec<f64>,
    /// Other minima within [`RIVAL_OBJECTIVE`] of the best: objective and coefficients.
    pub rivals: Vec<Rival>,
    /// Other distinct minima up to twice the best objective, the best four: resamples may have theirs
    /// there, and are followed from each.
    pub basins: Vec<Rival>,
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
    /// The law with its variable, and what of it was pinned.
    pub form: LawForm,
    /// Coefficients of the formula at the optimum.
    pub coefficients: Vec<Coefficient>,
    /// The law's free parameters at the optimum.
    pub theta: Vec<f64>,
    /// What was minimised.
    pub objective_kind: Objective,
    /// Where the weights in that sum come from.
    pub weighting: Weighting,
    /// Its value at the optimum: the plain sum over points, as its name says.
    pub objective: f64,
    /// Names of coefficients that ended at the bound of the range in which they are looked for.
    pub at_bound: Vec<&'static str>,
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
}

impl Fit {
    /// The value of the coefficient called `name`.
    pub fn coefficient(&self, name: &str) -> Option<f64> {
        self.coefficients.iter().find(|one| one.name == name).map(|one| one.value)
    }

    /// What was minimised by its whole name, with the weights in the sum: fits are comparable only
    /// where it is the same.
    pub fn objective_name(&self) -> String {
        let weights = match self.weighting {
            Weighting::Equal => "",
            Weighting::Given => ", each times its given weight",
            Weighting::SeedNoise => ", each over the variance of ln L between seeds",
        };
        format!("{}{weights}", self.objective_kind.name_of(self.law.measured()))
    }

    /// Loss in nats per token at N, D and C, without an interval; `interval::Inference::predict`
    /// has one.
    pub fn predict(&self, parameters: f64, tokens: f64, flops: f64) -> f64 {
        self.predict_at(&LogPoint::new(parameters, tokens, flops))
    }

    /// Loss in nats per token at a point of which more is known than N, D and C; for `sigmoid` the
    /// accuracy.
    pub fn predict_at(&self, point: &LogPoint) -> f64 {
        self.form.law().predict(&self.theta, point)
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
    #[error(
        "law `{law}`: none of {n_polished} starting points converged{}",
        because(.reason.as_deref())
    )]
    NotConverged {
        /// The law.
        law: LawName,
        /// Starts that were followed.
        n_polished: usize,
        /// What the data lack, where that is known.
        reason: Option<String>,
    },
    /// The law is one of a variable that a point does not have.
    #[error("law `{law}` needs the {variable}, which observation {index} does not have")]
    MissingVariable {
        /// The law.
        law: LawName,
        /// What is missing.
        variable: Variable,
        /// Position among the points that are in the fit.
        index: usize,
    },
    /// The classic grid is one of another law.
    #[error("the classic grid of starting points is that of `chinchilla`, not of `{law}`")]
    NoClassicGrid {
        /// The law.
        law: LawName,
    },
    /// The threshold of the Huber loss makes no sense.
    #[error("`huber_delta` must be finite and positive, found {value}")]
    BadDelta {
        /// What was given.
        value: f64,
    },
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
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
///         run: RunKey(run), parameters, tokens, flops, seed: 0,
///         loss_nats: 40.0 * flops.powf(-0.07),
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
    let problem = Problem::new(law, dataset, options.objective)?;
    let step = problem.points.len().div_ceil(MAX_SEARCHED);
    let searched = if step > 1 { problem.thinned(step) } else { problem.clone() };
    let starts = searched.ranked_starts();
    let n_starts = starts.len();
    let mut minima = polish(&searched, &starts, options.n_polished.max(law.least_polished()));
    let mut n_polished = minima.len();
    if step > 1 {
        minima.retain(|one| one.converged);
        minima.sort_by(|a, b| a.value.total_cmp(&b.value));
        minima.truncate(N_POLISHED_BEST);
        minima = minima.iter().map(|one| problem.descend(&one.theta)).collect();
        // Those that count are the ones followed on all points.
        n_polished = minima.len();
    }
    let mut converged: Vec<Minimum> = minima.into_iter().filter(|one| one.converged).collect();
    leave_out_infinite(law, &mut converged);
    converged.sort_by(|a, b| a.value.total_cmp(&b.value));
    let Some(first) = converged.first_mut() else {
        let reason = identify::too_few_values(law, dataset);
        return Err(FitError::NotConverged { law: law.name(), n_polished, reason });
    };
    *first = problem.sharpen(first.clone());
    let best = first.clone();
    let convergence = report(law, &problem, &converged, (n_starts, n_polished));
    let mut identifiability = identify::judge(law, dataset, &problem, &best.theta, &convergence);
    let coefficients = law.coefficients(&best.theta);
    let at_bound = at_bound(law, &coefficients);
    identify::refuse_bounds(law, &at_bound, &coefficients, &mut identifiability);
    let residuals = problem.residuals(&best.theta);
    Ok(Fit {
        law: law.name(),
        form: law.form(),
        objective_kind: options.objective,
        weighting: dataset.weighting(),
        objective: problem.plain(&best.theta),
        at_bound,
        coefficients,
        residual_rms_log: rms(&residuals, best.theta.len()),
        residuals_log: problem.in_rows(&residuals),
        n_points: dataset.points().len(),
        n_runs: dataset.runs().len(),
        n_sizes: dataset.n_distinct(|point| point.parameters),
        ranges: ranges(dataset),
        theta: best.theta,
        convergence,
        excluded: dataset.excluded().to_vec(),
        identifiability,
    })
}

/// A minimum at infinity, such as a break beyond all data, is none where there are others.
fn leave_out_infinite(law: &dyn Law, minima: &mut Vec<Minimum>) {
    let is_finite =
        |one: &Minimum| law.coefficients(&one.theta).iter().all(|one| one.value.is_finite());
    if minima.iter().any(is_finite) {
        minima.retain(is_finite);
    }
}

/// Coefficients within a thousandth of the logarithmic width of their range from one of its ends.
fn at_bound(law: &dyn Law, coefficients: &[Coefficient]) -> Vec<&'static str> {
    const EDGE: f64 = 1e-3;
    let is_at = |bound: &&crate::law::Bound| {
        let value = coefficients.iter().find(|one| one.name == bound.name).map(|one| one.value);
        value.is_some_and(|value| {
            let (low, high, at) = if bound.low > 0.0 {
                (bound.low.ln(), bound.high.ln(), value.ln())
            } else {
                (bound.low, bound.high, value)
            };
            at - low <= EDGE * (high - low) || high - at <= EDGE * (high - low)
        })
    };
    law.bounds().iter().filter(is_at).map(|bound| bound.name).collect()
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
fn polish(problem: &Problem<'_>, ranked: &[(f64, Vec<f64>)], n_polished: usize) -> Vec<Minimum> {
    let n = ranked.len();
    let n_best = N_POLISHED_BEST.min(n_polished).min(n);
    let n_others = n_polished.min(n) - n_best;
    let others = (0..n_others).map(|i| n_best + i * (n - n_best) / n_others);
    (0..n_best).chain(others).map(|i| problem.descend(&ranked[i].1)).collect()
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
    let mut spreads = vec![0.0; law.coefficients(&best.theta).len()];
    for one in &at_best {
        let differences = differences(law, &best.theta, &one.theta);
        spreads.iter_mut().zip(differences).for_each(|(most, one)| *most = one.max(*most));
    }
    let distinct = |limit: f64, most: usize| {
        let mut found: Vec<Rival> = Vec::new();
        for one in converged[at_best.len()..].iter().filter(|one| one.value <= limit) {
            let is_new = found.iter().all(|rival| distance(law, &rival.theta, &one.theta) > 1e-2);
            if is_new && distance(law, &best.theta, &one.theta) > 1e-2 && found.len() < most {
                found
                    .push(Rival { objective: problem.plain(&one.theta), theta: one.theta.clone() });
            }
        }
        found
    };
    Convergence {
        n_starts,
        n_polished,
        n_converged: converged.len(),
        n_at_best: at_best.len(),
        gradient_norm: best.gradient_norm,
        spreads_at_best: spreads,
        rivals: distinct(within(RIVAL_OBJECTIVE), usize::MAX),
        basins: distinct(BASIN_OBJECTIVE * best.value, MAX_BASINS),
    }
}

/// The points weighted by the noise between seeds, each at the loss that a fit of `law` without
/// these weights gives it. A noise that is the same everywhere needs no such fit.
///
/// # Errors
/// As [`fit`] for the same inputs.
pub fn weighted_by_noise(
    law: &dyn Law,
    dataset: Dataset,
    noise: &SeedNoise,
    options: &FitOptions,
) -> Result<Dataset, FitError> {
    let residuals = if noise.power == 0.0 {
        vec![0.0; dataset.points().len()]
    } else {
        fit(law, &dataset, options)?.residuals_log
    };
    Ok(dataset.weighted_by(noise, &residuals))
}

/// Relative difference of each coefficient between two parameter vectors.
fn differences(law: &dyn Law, a: &[f64], b: &[f64]) -> Vec<f64> {
    let pairs = law.coefficients(a).into_iter().zip(law.coefficients(b));
    let relative = |x: f64, y: f64| (x - y).abs() / x.abs().max(y.abs()).max(1e-12);
    pairs.map(|(x, y)| relative(x.value, y.value)).collect()
}

/// The largest of them.
fn distance(law: &dyn Law, a: &[f64], b: &[f64]) -> f64 {
    differences(law, a, b).into_iter().fold(0.0, f64::max)
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod invariance_tests;
#[cfg(test)]
mod off_design_tests;
#[cfg(test)]
mod planted_tests;
#[cfg(test)]
pub(crate) mod published_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unit_tests;
