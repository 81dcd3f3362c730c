//! Owns the choice of the next runs: which cell lowers the variance of a named quantity most.
//! Does not know what runs are for; candidates, costs and quantity are the caller's.
//!
//! The criterion is local c-optimality (Fedorov 1972, *Theory of optimal experiments*, chapter 2.7;
//! in the form of Cohn, Ghahramani and Jordan 1996, *Active learning with statistical models*,
//! section 2): one more measurement of y = ln L at x, with noise of variance s², lowers the
//! variance of a quantity g from Var(g) to Var(g) - Cov(g, f_x)² / (Var(f_x) + s²), where f_x is
//! the law's ln L at x. For a law that is linear around its optimum and a covariance from the
//! Fisher information this is the Sherman-Morrison formula; here the moments are those of the joint
//! draws, so neither a gradient nor a parametrisation enters.
//!
//! Several cells are chosen one after another. Between them the draws are contracted by the square
//! root of the update (Whitaker and Hamill 2002, *Ensemble data assimilation without perturbed
//! observations*, equations 10 and 13), which gives the draws exactly the moments of the formula
//! above.

use crate::interval::{Resampled, Scheme};
use crate::law::{Law, LogPoint};

/// What is to be gained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion {
    /// The most variance for each FLOP.
    PerFlop,
    /// The most variance with each run, whatever it costs within the budget.
    PerRun,
}

/// A run that could be trained: one measurement of the loss at the end of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Where the loss would be measured.
    pub point: LogPoint,
    /// What it costs, FLOPs.
    pub cost_flops: f64,
}

/// A run to train next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proposal {
    /// Position among the candidates.
    pub index: usize,
    /// Standard deviation of the quantity before it.
    pub sd_before: f64,
    /// And after it.
    pub sd_after: f64,
}

/// How much is to be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RefineOptions {
    /// What is to be gained.
    pub criterion: Criterion,
    /// FLOPs of all proposed runs together.
    pub budget_flops: f64,
    /// Most runs.
    pub n_cells: usize,
}

/// Why nothing can be proposed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RefineError {
    /// There are no draws.
    #[error("there are no draws to know the variance from: {reason}")]
    NoDraws {
        /// Why not.
        reason: String,
    },
    /// The quantity is no number in many draws.
    #[error("the quantity is not finite in {n_bad} of {n_draws} draws")]
    NotFinite {
        /// Draws without a number.
        n_bad: usize,
        /// All draws.
        n_draws: usize,
    },
    /// The quantity does not vary.
    #[error("the draws all give the same value of the quantity, so nothing can be gained")]
    NoVariance,
    /// The fit leaves no scatter, so that one measurement would settle everything.
    #[error(
        "the residuals have a standard deviation of {sd_log:e}: these losses have no noise to be \
         averaged out"
    )]
    NoNoise {
        /// Root mean square of the residuals of ln L.
        sd_log: f64,
    },
    /// No candidate can be paid, or none has a predicted loss.
    #[error("no candidate costs at most {budget_flops:e} FLOPs and has a predicted loss")]
    NoCandidate {
        /// The budget.
        budget_flops: f64,
    },
}

/// Draws without a number beyond this share are no small accident.
const MAX_BAD_SHARE: f64 = 0.1;
/// A relative noise below this is rounding.
const LEAST_NOISE: f64 = 1e-12;

/// Proposes runs, the best first; each choice knows those before it.
///
/// `quantity` is a function of the law's free parameters; of a positive quantity give the
/// logarithm, so that its relative variance counts. A candidate may be proposed more than once:
/// that is a second seed.
///
/// # Errors
/// [`RefineError`]: the draws do not give a variance, or no candidate fits.
pub fn refine(
    law: &dyn Law,
    resampled: &Resampled,
    quantity: impl Fn(&[f64]) -> f64,
    candidates: &[Candidate],
    options: &RefineOptions,
) -> Result<Vec<Proposal>, RefineError> {
    let noise = noise_variance(resampled)?;
    let mut state = State::new(law, resampled, &quantity, candidates)?;
    let mut left = options.budget_flops;
    let mut proposals = Vec::new();
    while proposals.len() < options.n_cells {
        let Some(index) = state.best(candidates, noise, left, options.criterion) else { break };
        let sd_before = variance(&state.quantity).sqrt();
        state.measure(index, noise);
        let sd_after = variance(&state.quantity).sqrt();
        proposals.push(Proposal { index, sd_before, sd_after });
        left -= candidates[index].cost_flops;
    }
    if proposals.is_empty() {
        return Err(RefineError::NoCandidate { budget_flops: options.budget_flops });
    }
    Ok(proposals)
}

/// Mean square of the residuals, which are scaled up for the parameters that the fit spent.
fn noise_variance(resampled: &Resampled) -> Result<f64, RefineError> {
    let noise = variance(&resampled.residuals_log);
    // Written so that what is no number is refused.
    let is_noise = noise.sqrt() >= LEAST_NOISE;
    if is_noise { Ok(noise) } else { Err(RefineError::NoNoise { sd_log: noise.sqrt() }) }
}

/// Deviations from the centre in each draw, scaled so that their mean square is a variance.
struct State {
    quantity: Vec<f64>,
    /// Per candidate, of ln L there; `None` where some draw has no loss.
    losses: Vec<Option<Vec<f64>>>,
}

impl State {
    fn new(
        law: &dyn Law,
        resampled: &Resampled,
        quantity: &dyn Fn(&[f64]) -> f64,
        candidates: &[Candidate],
    ) -> Result<Self, RefineError> {
        let n_draws = resampled.replicates.len();
        let is_jackknife = match &resampled.scheme {
            Scheme::Unavailable { reason, .. } => {
                return Err(RefineError::NoDraws { reason: reason.clone() });
            }
            Scheme::Jackknife { .. } => true,
            Scheme::Bootstrap { .. } | Scheme::StatedNoise { .. } => false,
        };
        let draws = resampled.replicates.iter();
        let valued: Vec<(&Vec<f64>, f64)> = draws.map(|theta| (theta, quantity(theta))).collect();
        let known: Vec<&(&Vec<f64>, f64)> =
            valued.iter().filter(|(_, value)| value.is_finite()).collect();
        let n_bad = n_draws - known.len();
        if known.len() < 2 || n_bad as f64 > MAX_BAD_SHARE * n_draws as f64 {
            return Err(RefineError::NotFinite { n_bad, n_draws });
        }
        // The jackknife's deviations are those of a mean of n, each (n - 1) times too small for one
        // run (Efron and Tibshirani 1993, equation 11.5): its variance is (n - 1) times their mean
        // square.
        let factor = if is_jackknife { (n_draws as f64 - 1.0).sqrt() } else { 1.0 };
        let deviations = |values: Vec<f64>| -> Option<Vec<f64>> {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let all: Vec<f64> = values.iter().map(|value| factor * (value - mean)).collect();
            all.iter().all(|value| value.is_finite()).then_some(all)
        };
        let of = |candidate: &Candidate| {
            let loss = |theta: &Vec<f64>| law.predict(theta, &candidate.point).ln();
            deviations(known.iter().map(|(theta, _)| loss(theta)).collect())
        };
        let quantity = deviations(known.iter().map(|(_, value)| *value).collect())
            .filter(|values| variance(values) > 0.0)
            .ok_or(RefineError::NoVariance)?;
        Ok(Self { quantity, losses: candidates.iter().map(of).collect() })
    }

    /// How much variance a measurement at a candidate takes away.
    fn gain(&self, index: usize, noise: f64) -> Option<f64> {
        let loss = self.losses[index].as_ref()?;
        Some(covariance(&self.quantity, loss).powi(2) / (variance(loss) + noise))
    }

    fn best(
        &self,
        candidates: &[Candidate],
        noise: f64,
        left: f64,
        criterion: Criterion,
    ) -> Option<usize> {
        let worth = |index: usize| {
            let cost = candidates[index].cost_flops;
            let is_paid = cost > 0.0 && cost <= left;
            let gain = self.gain(index, noise).filter(|gain| is_paid && gain.is_finite())?;
            Some(if criterion == Criterion::PerFlop { gain / cost } else { gain })
        };
        let worths = (0..candidates.len()).filter_map(|index| Some((index, worth(index)?)));
        // Of equals the first, so that the order of the candidates decides and nothing else.
        worths
            .fold(None, |best: Option<(usize, f64)>, one| match best {
                Some((_, most)) if most >= one.1 => best,
                _ => Some(one),
            })
            .map(|(index, _)| index)
    }

    /// Contracts all draws as a measurement at `index` would.
    fn measure(&mut self, index: usize, noise: f64) {
        let Some(seen) = self.losses[index].clone() else { return };
        let total = variance(&seen) + noise;
        let root = 1.0 / (1.0 + (noise / total).sqrt());
        let contract = |values: &mut Vec<f64>| {
            let share = root * covariance(values, &seen) / total;
            values.iter_mut().zip(&seen).for_each(|(value, other)| *value -= share * other);
        };
        contract(&mut self.quantity);
        self.losses.iter_mut().flatten().for_each(contract);
    }
}

fn covariance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>() / a.len().max(1) as f64
}

fn variance(values: &[f64]) -> f64 {
    covariance(values, values)
}

#[cfg(test)]
mod tests;
