//! Owns a fitted law together with intervals: of coefficients, predictions and the compute-optimal
//! point. Does not fit from scratch; replicates start at the optimum that `fit` found.

use std::num::NonZeroUsize;

use super::draw::{Units, leave_one_out};
use super::order::ranks;
use super::refit::Refitter;
use super::{Estimate, IntervalOptions, Plan, Resampled, Scheme, resample_by};
use crate::fit::{Fit, FitError, FitOptions, Problem, Ranges};
use crate::law::{
    Chinchilla, Coupled, Law, LawForm, LawName, LogPoint, Optimum, Quantity, Variable,
};
use crate::observation::Dataset;

/// The exponents by whose ratio N and D share a budget, in the laws that look at both.
const SHARING: [&str; 4] = ["alpha", "beta", "alpha_N", "alpha_D"];

/// The compute-optimal point by parameters, C and κ.
type OptimumOf = fn(&[f64], f64, f64) -> Optimum;

/// How the work of resampling is done; no number depends on the threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resampling {
    /// Threads that refit.
    pub n_threads: NonZeroUsize,
    /// Whether each run, and each cluster of them, is also left out once: what
    /// `Resampled::estimate_bca` and the warning `influence` need.
    pub has_influence: bool,
    /// Whether every replicate is searched by the law's grid of exponents too, and not only from the
    /// minima that the fit found: where resamples can share the grid, as those of `chinchilla` by
    /// Huber losses or squares of ln L do, up to 8,192 points.
    pub is_global: bool,
}

impl Default for Resampling {
    fn default() -> Self {
        Self { n_threads: NonZeroUsize::MIN, has_influence: false, is_global: true }
    }
}

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
    /// The law with its variable, and what of it was pinned.
    pub form: LawForm,
    /// Its coefficients, in the order of the formula.
    pub coefficients: Vec<NamedEstimate>,
    /// Replicates, and how they were made (scheme, seed, draws, failed draws).
    pub resampled: Resampled,
    /// As `resampled.influence` by run, where clusters are drawn; empty where runs are.
    pub influence_of_runs: Vec<Vec<f64>>,
    /// Draws whose minimum was reached only from a start that is not the fit's own optimum.
    pub n_switched: usize,
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

/// Gives `fit` its intervals, by refitting resampled runs, or clusters of them, of the data set it
/// was made from.
///
/// # Errors
/// As `fit::fit` for the same inputs.
pub fn infer(
    fit: &Fit,
    dataset: &Dataset,
    options: &FitOptions,
    interval: &IntervalOptions,
) -> Result<Inference, FitError> {
    infer_with(fit, dataset, options, interval, &Resampling::default())
}

/// As [`infer`], on several threads or with more work in each replicate.
///
/// Equal seeds give equal bits on any number of threads.
///
/// # Errors
/// As `fit::fit` for the same inputs.
pub fn infer_with(
    fit: &Fit,
    dataset: &Dataset,
    options: &FitOptions,
    interval: &IntervalOptions,
    resampling: &Resampling,
) -> Result<Inference, FitError> {
    let law = fit.form.law();
    let problem = Problem::new(law, dataset, options.objective)?;
    let refitter = Refitter::new(law, &problem, dataset, fit, resampling.is_global);
    let (unit_of_points, n_units) = dataset.unit_of_points();
    let plan = plan(fit, dataset, &problem, (&unit_of_points, n_units), resampling.n_threads);
    // A unit's weight is that of all its points.
    let refit_by = |of_points: &[usize], weights: &[f64], stream| {
        let weights: Vec<f64> = of_points.iter().map(|unit| weights[*unit]).collect();
        refitter.refit(&weights, stream)
    };
    let refit = |weights: &[f64], stream| refit_by(&unit_of_points, weights, stream);
    let (replicates, scheme) = resample_by(&plan, interval, refit);
    let n_switched = refitter.n_switched();
    let is_drawn = matches!(scheme, Scheme::Bootstrap { .. });
    let (mut influence, mut influence_of_runs) = (Vec::new(), Vec::new());
    if resampling.has_influence && is_drawn {
        // A run without which there is no fit has no finite influence, and then there is no BCa.
        influence = leave_one_out(&plan, interval.seed, refit).unwrap_or_default();
        if n_units < fit.n_runs {
            let runs = dataset.run_of_points();
            let ranks = ranks(dataset, &runs, fit.n_runs);
            let plan = Plan::of_runs(&ranks, resampling.n_threads);
            let refit = |weights: &[f64], stream| refit_by(&runs, weights, stream);
            influence_of_runs = leave_one_out(&plan, interval.seed, refit).unwrap_or_default();
        }
    }
    let freedom = fit.n_points.saturating_sub(fit.theta.len()).max(1) as f64;
    let inflation = (fit.n_points as f64 / freedom).sqrt();
    let mut residuals_log: Vec<f64> =
        fit.residuals_log.iter().map(|residual| residual * inflation).collect();
    // The noise of a draw is one of them by its place, which must not be that of a row.
    residuals_log.sort_unstable_by(f64::total_cmp);
    let resampled = Resampled {
        theta: fit.theta.clone(),
        replicates,
        scheme,
        level: interval.level,
        residuals_log,
        influence,
    };
    let whole = fit.identifiability.whole.clone();
    let coefficients = coefficients(fit, law, &resampled);
    Ok(Inference {
        law: fit.law,
        form: fit.form.clone(),
        coefficients,
        resampled,
        influence_of_runs,
        n_switched,
        whole,
        ranges: fit.ranges,
    })
}

fn plan(
    fit: &Fit,
    dataset: &Dataset,
    problem: &Problem<'_>,
    (unit_of_points, n_units): (&[usize], usize),
    n_threads: NonZeroUsize,
) -> Plan {
    let units = Units {
        n_runs: fit.n_runs,
        labels: &dataset.strata_of_units(),
        sizes: &dataset.sizes_of_units(),
        ranks: &ranks(dataset, unit_of_points, n_units),
        is_smooth: problem.is_smooth_at(&fit.residuals_log),
    };
    Plan::stratified(&units, n_threads)
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

    /// One parameter vector for each run left out, in the order of `Dataset::runs`; empty where it
    /// was not asked for.
    pub(crate) fn without_each_run(&self) -> &[Vec<f64>] {
        match self.resampled.scheme {
            Scheme::Bootstrap { n_runs, n_clusters, .. } if n_clusters < n_runs => {
                &self.influence_of_runs
            }
            _ => &self.resampled.influence,
        }
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
        self.predict_at(&LogPoint::new(parameters, tokens, flops))
    }

    /// The loss at a point of which more is known than N, D and C; for `sigmoid` the accuracy.
    pub fn predict_at(&self, point: &LogPoint) -> Prediction {
        let law = self.form.law();
        let predict = |theta: &[f64]| law.predict(theta, point);
        let measured = match &self.whole {
            Some(reason) => Estimate::not_identified(reason.clone()),
            None => self.resampled.estimate_measured(predict),
        };
        // What `sigmoid` predicts is a share.
        let most = if self.law == LawName::Sigmoid { 1.0 } else { f64::INFINITY };
        Prediction {
            curve: self.derive(Quantity::Loss, predict).at_most(most),
            measured: measured.at_most(most),
            extrapolation: point.ln_flops.exp() / self.ranges.flops.1,
        }
    }

    /// What one new measurement at the compute-optimal point of `flops` should be, as
    /// [`Inference::optimum`] has it for the curve; not identified for laws that have no such
    /// point.
    pub fn optimum_measured(&self, flops: f64, flops_per_parameter_token: f64) -> Estimate {
        let Some(optimum) = self.optimum_in_closed_form() else {
            return Estimate::not_identified("the law has no compute-optimal point in closed form");
        };
        match self.why_no_optimum() {
            Some(reason) => Estimate::not_identified(reason),
            None => self.resampled.estimate_measured(|theta| {
                optimum(theta, flops, flops_per_parameter_token).loss_nats
            }),
        }
    }

    /// The compute-optimal point as a function of parameters, C and κ, for laws that have it.
    pub(crate) fn optimum_in_closed_form(&self) -> Option<OptimumOf> {
        // Pinned exponents have other positions; their optimum is not offered.
        match (self.law, &self.form) {
            (LawName::Chinchilla, LawForm::Free(_)) => Some(Chinchilla::optimum),
            (LawName::Coupled, LawForm::Free(_)) => Some(Coupled::optimum),
            _ => None,
        }
    }

    /// Why what follows from the best N and D of a budget, such as the loss there, is not
    /// identified, if so: the law is not as a whole, or an exponent by which N and D share the
    /// budget is not.
    ///
    /// A law that does not look at both N and D has nothing to share, and only the first reason.
    pub fn why_no_optimum(&self) -> Option<String> {
        let variables = self.form.law().variables();
        let is_joint =
            [Variable::Parameters, Variable::Tokens].iter().all(|one| variables.contains(one));
        let of_exponent = |name: &&str| match self.coefficient(name) {
            Some(Estimate::NotIdentified { reason }) => Some(format!("{name}: {reason}")),
            _ => None,
        };
        let exponents = || SHARING.iter().filter(|_| is_joint).find_map(of_exponent);
        self.whole.clone().or_else(exponents)
    }

    /// The compute-optimal point at `flops` = κ N D with κ = `flops_per_parameter_token`; `None`
    /// for laws that have no such point in closed form.
    pub fn optimum(&self, flops: f64, flops_per_parameter_token: f64) -> Option<OptimumEstimate> {
        let optimum = self.optimum_in_closed_form()?;
        let blocked = self.why_no_optimum();
        let of = |quantity: Quantity, function: &dyn Fn(&[f64]) -> f64| match &blocked {
            Some(reason) => Estimate::not_identified(reason.clone()),
            None => self.derive(quantity, function),
        };
        let at = |theta: &[f64]| optimum(theta, flops, flops_per_parameter_token);
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
