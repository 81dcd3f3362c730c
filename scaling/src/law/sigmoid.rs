//! Owns the step from the loss on a task to the accuracy on it.
//! Does not predict the task loss; a chain of two laws does.

use super::grid::log_grid;
use super::transform::logistic;
use super::{
    Bound, Coefficient, Invariance, Law, LawChoice, LawName, LogPoint, Needs, Quantity, Variable,
};

/// Distinct task losses that four coefficients need.
const MIN_LOSSES: usize = 5;

/// accuracy = b + a / (1 + exp(-k (x - x0))) with x the task loss, b the accuracy at loss zero in
/// [0, 1], a in [-b, 0] and k, x0 >= 0 (Bhagia et al. 2024, 2412.04403, equation 2).
///
/// `theta` = (u_b, u_a, ln k, x0): b is the logistic function of u_b, and b + a, the accuracy of
/// chance, is that share of b that the logistic function of u_a says. The measured *loss* of an
/// observation is here the accuracy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sigmoid;

impl Law for Sigmoid {
    fn choice(&self) -> LawChoice {
        LawChoice::of(LawName::Sigmoid)
    }

    fn formula(&self) -> &'static str {
        "accuracy = b + a / (1 + exp(-k (x - x0))), x the task loss"
    }

    fn variables(&self) -> &'static [Variable] {
        &[Variable::TaskLoss]
    }

    fn bounds(&self) -> &'static [Bound] {
        &[Bound { name: "b", low: 0.0, high: 1.0 }, Bound { name: "a", low: -1.0, high: 0.0 }]
    }

    fn invariances(&self) -> &'static [Invariance] {
        &[Invariance::UnitOf(Variable::TaskLoss)]
    }

    fn identified_by(&self) -> &'static str {
        "checkpoints from chance to well above it; the accuracy at loss zero needs some near it"
    }

    fn parameter_names(&self) -> &[&'static str] {
        &["u_b", "u_a", "ln_k", "x0"]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        let top = logistic(theta[0]);
        let a = -top * logistic(-theta[1]);
        vec![
            Coefficient { name: "a", quantity: Quantity::Difference, value: a },
            Coefficient { name: "b", quantity: Quantity::Loss, value: top },
            Coefficient { name: "k", quantity: Quantity::Scale, value: theta[2].exp() },
            Coefficient { name: "x0", quantity: Quantity::Difference, value: theta[3] },
        ]
    }

    fn needs(&self) -> Needs {
        Needs { n_sizes: 1, n_token_counts: 1, n_budgets: 1 }
    }

    fn missing(&self, points: &[LogPoint]) -> Option<String> {
        let mut losses: Vec<f64> = points.iter().map(|point| point.task_loss).collect();
        losses.sort_unstable_by(f64::total_cmp);
        losses.dedup();
        let n = losses.len();
        (n < MIN_LOSSES).then(|| format!("{n} distinct task losses; `sigmoid` needs {MIN_LOSSES}"))
    }

    fn unit_of(&self, j: usize, points: &[LogPoint], _log_losses: &[f64]) -> f64 {
        // x0 by the range of task losses.
        let losses = points.iter().map(|point| point.task_loss);
        let low = losses.clone().fold(f64::INFINITY, f64::min);
        let width = losses.fold(f64::NEG_INFINITY, f64::max) - low;
        if j == 3 && width > 0.0 { width } else { 1.0 }
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let (top, k) = (logistic(theta[0]), theta[2].exp());
        let (floor_share, fall_share) = (logistic(theta[1]), logistic(-theta[1]));
        let distance = point.task_loss - theta[3];
        let (high, low) = (logistic(k * distance), logistic(-k * distance));
        // accuracy / b = 1 - (1 - floor share) · high, without cancellation where it is small.
        let relative = low + floor_share * high;
        gradient[0] = logistic(-theta[0]);
        gradient[1] = high * floor_share * fall_share / relative;
        let by_argument = -fall_share * high * low / relative;
        gradient[2] = by_argument * k * distance;
        gradient[3] = -by_argument * k;
        (top * relative).ln()
    }

    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let low = points.iter().map(|point| point.task_loss).fold(f64::INFINITY, f64::min);
        let high = points.iter().map(|point| point.task_loss).fold(f64::NEG_INFINITY, f64::max);
        let chance = log_losses.iter().copied().fold(f64::INFINITY, f64::min).exp();
        let best = log_losses.iter().copied().fold(f64::NEG_INFINITY, f64::max).exp();
        let width = (high - low).max(1e-300);
        let logit = |share: f64| (share / (1.0 - share)).ln();
        let mut starts = Vec::new();
        for top in [0.5 * (best + 1.0), 0.999, best * 1.02] {
            let top = top.clamp(1e-6, 1.0 - 1e-9);
            for floor in [chance, 0.5 * chance] {
                let share = (floor / top).clamp(1e-6, 1.0 - 1e-6);
                for k in log_grid(0.5 / width, 100.0 / width, 12) {
                    for place in [0.0, 0.2, 0.4, 0.6, 0.8, 1.0] {
                        starts.push(vec![logit(top), logit(share), k.ln(), low + place * width]);
                    }
                }
            }
        }
        starts
    }
}
