//! Owns the curve law that knows the learning rate, as a preview: it is fitted to checkpoints of
//! one size. Does not run a schedule; it is given the learning rates of all steps.

use super::grid::{exponent_grid, mean, project};
use super::{
    Coefficient, Invariance, Law, LawChoice, LawName, LogPoint, Needs, Quantity, Variable,
};

/// L(s) = L0 + A S1^-alpha - C S2 (Tissue et al. 2024, 2408.11029, equation 1).
///
/// S1 and S2 are [`annealing_areas`] at step s. `theta` = (ln L0, ln A, alpha, C).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annealing;

/// S1 and S2 after each step: the sum of learning rates, and the sum of their falls, each decayed
/// by `decay` for every step since (2408.11029, section 3; 0.999 there).
///
/// ```
/// let areas = scaling::law::annealing_areas(&[1.0, 1.0, 0.5], 0.9);
/// assert_eq!(areas, [(1.0, 0.0), (2.0, 0.0), (2.5, 0.5)]);
/// ```
pub fn annealing_areas(rates: &[f64], decay: f64) -> Vec<(f64, f64)> {
    let (mut sum, mut momentum, mut fall) = (0.0, 0.0, 0.0);
    let mut before = rates.first().copied().unwrap_or(0.0);
    let mut areas = Vec::with_capacity(rates.len());
    for rate in rates {
        sum += rate;
        momentum = decay * momentum + (before - rate);
        fall += momentum;
        before = *rate;
        areas.push((sum, fall));
    }
    areas
}

impl Law for Annealing {
    fn choice(&self) -> LawChoice {
        LawChoice::of(LawName::Annealing)
    }

    fn formula(&self) -> &'static str {
        "L = L0 + A S1^-alpha - C S2"
    }

    fn variables(&self) -> &'static [Variable] {
        &[Variable::RateSum, Variable::RateFall]
    }

    fn invariances(&self) -> &'static [Invariance] {
        &[
            Invariance::UnitOf(Variable::RateSum),
            Invariance::UnitOf(Variable::RateFall),
            Invariance::UnitOfLoss,
        ]
    }

    fn identified_by(&self) -> &'static str {
        "checkpoints of one size under a constant and under a falling learning rate"
    }

    fn parameter_names(&self) -> &[&'static str] {
        &["ln_l0", "ln_a", "alpha", "c"]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        vec![
            Coefficient { name: "L0", quantity: Quantity::Floor, value: theta[0].exp() },
            Coefficient { name: "A", quantity: Quantity::Scale, value: theta[1].exp() },
            Coefficient { name: "alpha", quantity: Quantity::Exponent, value: theta[2] },
            Coefficient { name: "C", quantity: Quantity::Difference, value: theta[3] },
        ]
    }

    fn needs(&self) -> Needs {
        Needs { n_sizes: 1, n_token_counts: 1, n_budgets: 1 }
    }

    fn missing(&self, points: &[LogPoint]) -> Option<String> {
        let sizes = points.iter().map(|point| point.ln_parameters);
        let (low, high) = sizes.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), size| {
            (low.min(size), high.max(size))
        });
        if low < high {
            return Some(format!(
                "N goes from {:.3e} to {:.3e}; `annealing` is the curve of one size",
                low.exp(),
                high.exp()
            ));
        }
        let falling = points.iter().filter(|point| point.rates.1.abs() > 0.0).count();
        (falling < 2 || points.len() - falling < 2).then(|| {
            format!(
                "{falling} of {} points have a falling learning rate; `annealing` needs 2 with \
                 and 2 without",
                points.len()
            )
        })
    }

    fn unit_of(&self, j: usize, points: &[LogPoint], log_losses: &[f64]) -> f64 {
        // C at which the largest fall takes as much as the smallest loss.
        let fall = points.iter().map(|point| point.rates.1.abs()).fold(0.0, f64::max);
        let loss = log_losses.iter().copied().fold(f64::INFINITY, f64::min).exp();
        if j == 3 && fall > 0.0 { loss / fall } else { 1.0 }
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let (sum, fall) = point.rates;
        let ln_sum = sum.ln();
        let (floor, power) = (theta[0].exp(), (theta[1] - theta[2] * ln_sum).exp());
        let loss = floor + power - theta[3] * fall;
        gradient[0] = floor / loss;
        gradient[1] = power / loss;
        gradient[2] = -ln_sum * power / loss;
        gradient[3] = -fall / loss;
        // The logarithm of a negative loss is not a number, and a fit refuses it.
        loss.ln()
    }

    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let centre = mean(points.iter().map(|point| point.rates.0.ln()));
        let level = mean(log_losses.iter().copied()).exp();
        let smallest = log_losses.iter().copied().fold(f64::INFINITY, f64::min).exp();
        let most = points.iter().map(|point| point.rates.1.abs()).fold(1e-300, f64::max);
        let inverse: Vec<f64> = log_losses.iter().map(|value| (-value).exp()).collect();
        let mut starts = Vec::new();
        for alpha in exponent_grid(24) {
            for share in [0.0, 0.02, 0.1, 0.3] {
                let c = share * smallest / most;
                // What the fall took is given back, then the rest is linear in L0 and A.
                let scaled =
                    |(point, inverse): (&LogPoint, &f64)| 1.0 / (1.0 / inverse + c * point.rates.1);
                let floors: Vec<f64> = points.iter().zip(&inverse).map(scaled).collect();
                let power: Vec<f64> = points
                    .iter()
                    .zip(&floors)
                    .map(|(point, floor)| floor * (-alpha * (point.rates.0.ln() - centre)).exp())
                    .collect();
                let found = project(&[&floors, &power]);
                starts.push(vec![
                    found[0].max(1e-2 * level).ln(),
                    found[1].max(1e-3 * level).ln() + alpha * centre,
                    alpha,
                    c,
                ]);
            }
        }
        starts
    }
}
