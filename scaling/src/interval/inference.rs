//! Owns a fitted law together with intervals: of coefficients, predictions and the compute-optimal point.
//! Does not fit from scratch; replicates start at the optimum that `fit` found.

use super::{Estimate, IntervalOptions, Resampled, resample};
use crate::algebra::{cholesky, solve_upper};
use crate::fit::{Fit, FitError, FitOptions, Problem, Ranges};
use crate::law::{Chinchilla, Law, LawName, LogPoint, Quantity};
use crate::minimize::minimize;
use crate::observation::{Dataset, Observation, RunKey};
use crate::random::Stream;

/// Perturbed starts of each refit, beside the optimum and its rivals.
const N_PERTURBED: usize = 2;
/// Rival minima that each refit starts from as well.
const N_RIVALS: usize = 2;
/// Size of the perturbation in first-order standard errors; these are two to four times too small themselves.
const PERTURBATION: f64 = 3.0;

/// A coefficient's name with its estimate.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedEstimate {
    /// As in the formula.
    pub name: &'static str,
    /// Its value and interval, or why there is none.
    pub estimate: Estimate,
}

/// A fitted law with intervals.
#[derive(Debug, Clone, PartialEq)]
pub struct Inference {
    /// The law.
    pub law: LawName,
    /// Its coefficients, in the order of the formula.
    pub coefficients: Vec<NamedEstimate>,
    /// Replicates, and how they were made (scheme, seed, draws, failed draws).
    pub resampled: Resampled,
    /// Why no number may be used at all, if so.
    pub whole: Option<String>,
    /// Where the fitted points lie.
    pub ranges: Ranges,
}

/// A predicted loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// The law's curve at this point, nats per token.
    pub curve: Estimate,
    /// The same with the interval of one new measurement: what a measured loss is held against.
    pub measured: Estimate,
    /// C over the largest fitted C; above 1 it is an extrapolation.
    pub extrapolation: f64,
}

/// The compute-optimal point of a budget.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimumEstimate {
    /// N_opt.
    pub parameters: Estimate,
    /// D_opt.
    pub tokens: Estimate,
    /// Loss there, nats per token.
    pub loss_nats: Estimate,
    /// a of N_opt ∝ C^a; b is 1 - a.
    pub parameters_exponent: Estimate,
}

/// Gives `fit` its intervals, by refitting resampled runs of the data set it was made from.
///
/// # Errors
/// As `fit::fit` for the same inputs.
pub fn infer(
    fit: &Fit,
    dataset: &Dataset,
    options: &FitOptions,
    interval: &IntervalOptions,
) -> Result<Inference, FitError> {
    let law = fit.law.law();
    let problem = Problem::new(law, dataset, options)?;
    let refitter = Refitter::new(law, &problem, dataset, fit);
    let (replicates, scheme) =
        resample(refitter.runs.len(), interval, |weights, stream| refitter.refit(weights, stream));
    let freedom = fit.n_points.saturating_sub(fit.theta.len()).max(1) as f64;
    let inflation = (fit.n_points as f64 / freedom).sqrt();
    let resampled = Resampled {
        theta: fit.theta.clone(),
        replicates,
        scheme,
        level: interval.level,
        residuals_log: fit.residuals_log.iter().map(|residual| residual * inflation).collect(),
    };
    let whole = fit.identifiability.whole.clone();
    let coefficients = coefficients(fit, law, &resampled);
    Ok(Inference { law: fit.law, coefficients, resampled, whole, ranges: fit.ranges })
}

fn coefficients(fit: &Fit, law: &dyn Law, resampled: &Resampled) -> Vec<NamedEstimate> {
    let judged = fit.coefficients.iter().zip(&fit.identifiability.coefficients).enumerate();
    let estimate = |i: usize, quantity: Quantity, reason: &Option<String>| match fit
        .identifiability
        .whole
        .as_ref()
        .or(reason.as_ref())
    {
        Some(reason) => Estimate::not_identified(reason.clone()),
        None => resampled.estimate(quantity, |theta| law.coefficients(theta)[i].value),
    };
    judged
        .map(|(i, (coefficient, reason))| NamedEstimate {
            name: coefficient.name,
            estimate: estimate(i, coefficient.quantity, reason),
        })
        .collect()
}

impl Inference {
    /// The estimate of the coefficient called `name`.
    pub fn coefficient(&self, name: &str) -> Option<&Estimate> {
        self.coefficients.iter().find(|one| one.name == name).map(|one| &one.estimate)
    }

    /// Value and interval of a function of the law's free parameters.
    pub fn derive(&self, quantity: Quantity, function: impl Fn(&[f64]) -> f64) -> Estimate {
        match &self.whole {
            Some(reason) => Estimate::not_identified(reason.clone()),
            None => self.resampled.estimate(quantity, function),
        }
    }

    /// The loss at N, D and C; a law of C alone ignores N and D.
    pub fn predict(&self, parameters: f64, tokens: f64, flops: f64) -> Prediction {
        let law = self.law.law();
        let point = LogPoint::new(parameters, tokens, flops);
        let predict = |theta: &[f64]| law.predict(theta, &point);
        let measured = match &self.whole {
            Some(reason) => Estimate::not_identified(reason.clone()),
            None => self.resampled.estimate_measured(predict),
        };
        Prediction {
            curve: self.derive(Quantity::Loss, predict),
            measured,
            extrapolation: flops / self.ranges.flops.1,
        }
    }

    /// The compute-optimal point at `flops` = κ N D with κ = `flops_per_parameter_token`; `None` for a law of C alone.
    pub fn optimum(&self, flops: f64, flops_per_parameter_token: f64) -> Option<OptimumEstimate> {
        if self.law != LawName::Chinchilla {
            return None;
        }
        let blocked = ["alpha", "beta"].into_iter().find_map(|name| match self.coefficient(name) {
            Some(Estimate::NotIdentified { reason }) => Some(format!("{name}: {reason}")),
            _ => None,
        });
        let of = |quantity: Quantity, function: &dyn Fn(&[f64]) -> f64| match &blocked {
            Some(reason) => Estimate::not_identified(reason.clone()),
            None => self.derive(quantity, function),
        };
        let at = |theta: &[f64]| Chinchilla::optimum(theta, flops, flops_per_parameter_token);
        Some(OptimumEstimate {
            parameters: of(Quantity::Scale, &|theta| at(theta).parameters),
            tokens: of(Quantity::Scale, &|theta| at(theta).tokens),
            loss_nats: of(Quantity::Loss, &|theta| at(theta).loss_nats),
            parameters_exponent: of(Quantity::Exponent, &|theta| {
                Chinchilla::optimum_exponents(theta).0
            }),
        })
    }
}

/// Refits resampled runs from starts near the optimum.
struct Refitter<'a> {
    problem: &'a Problem<'a>,
    runs: Vec<RunKey>,
    /// Per point, the position of its run.
    run_of_point: Vec<usize>,
    /// Per variable: what it is called, the class of equal values of each point, how many classes a refit needs.
    classes: [(&'static str, Vec<usize>, usize); 3],
    starts: Vec<Vec<f64>>,
    /// Factor of the inverse normal matrix, for perturbed starts.
    lower: Option<Vec<f64>>,
    noise: f64,
}

impl<'a> Refitter<'a> {
    fn new(law: &dyn Law, problem: &'a Problem<'a>, dataset: &Dataset, fit: &Fit) -> Self {
        let runs = dataset.runs();
        let run_of_point = dataset
            .points()
            .iter()
            .map(|point| runs.binary_search(&point.run).expect("every run is listed"))
            .collect();
        let needs = law.needs();
        // One fewer than for an interval: a replicate need only be solvable.
        let classes = [
            ("sizes", classes(dataset, |point| point.parameters), needs.n_sizes - 1),
            ("token counts", classes(dataset, |point| point.tokens), needs.n_token_counts - 1),
            ("compute values", classes(dataset, |point| point.flops), needs.n_budgets - 1),
        ];
        let rivals = fit.convergence.rivals.iter().take(N_RIVALS).map(|rival| rival.theta.clone());
        let starts = std::iter::once(fit.theta.clone()).chain(rivals).collect();
        let mut gram = problem.gram(&fit.theta, |_| 1.0);
        let n = fit.theta.len();
        (0..n).for_each(|i| gram[i * n + i] *= 1.0 + 1e-9);
        let (lower, noise) = (cholesky(&gram, n), fit.residual_rms_log);
        Self { problem, runs, run_of_point, classes, starts, lower, noise }
    }

    fn refit(&self, weights: &[f64], mut stream: Stream) -> Result<Vec<f64>, String> {
        let weights: Vec<f64> = self.run_of_point.iter().map(|run| weights[*run]).collect();
        for (what, classes, needed) in &self.classes {
            let mut seen = vec![false; classes.len()];
            let kept = classes.iter().zip(&weights).filter(|(_, weight)| **weight > 0.0);
            kept.for_each(|(class, _)| seen[*class] = true);
            let found = seen.iter().filter(|is_seen| **is_seen).count();
            if found < *needed {
                return Err(format!("{found} distinct {what} are left"));
            }
        }
        let problem = self.problem.reweighted(&weights);
        let perturbed = (0..N_PERTURBED).filter_map(|_| self.perturbed(&mut stream));
        let mut best: Option<(f64, Vec<f64>)> = None;
        for start in self.starts.iter().cloned().chain(perturbed) {
            let minimum = minimize(&problem, &start);
            let is_better = best.as_ref().is_none_or(|(value, _)| minimum.value < *value);
            if minimum.converged && is_better {
                best = Some((minimum.value, minimum.theta));
            }
        }
        best.map(|(_, theta)| theta).ok_or_else(|| "no start converged".to_owned())
    }

    fn perturbed(&self, stream: &mut Stream) -> Option<Vec<f64>> {
        let centre = self.starts.first()?;
        let n = centre.len();
        let noise: Vec<f64> = (0..n).map(|_| PERTURBATION * self.noise * stream.normal()).collect();
        let step = solve_upper(self.lower.as_ref()?, n, &noise);
        Some(centre.iter().zip(&step).map(|(value, step)| value + step).collect())
    }
}

/// Numbers the points so that equal values of `field` get equal numbers.
fn classes(dataset: &Dataset, field: impl Fn(&Observation) -> f64) -> Vec<usize> {
    let mut order: Vec<(f64, usize)> =
        dataset.points().iter().map(|point| field(point).ln()).zip(0..).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut classes = vec![0; order.len()];
    let mut class = 0;
    for i in 1..order.len() {
        class += usize::from(order[i].0 - order[i - 1].0 >= 1e-6);
        classes[order[i].1] = class;
    }
    classes
}
