//! Owns the power law of compute above an irreducible loss.
//! Does not model N and D.

use super::{Coefficient, Law, LawName, LogPoint, Needs, Quantity};
use super::{exponent_grid, mean, non_negative};

/// L = E + (C0 / C)^alpha.
///
/// `theta` = (ln E, k, alpha) with k = alpha · ln C0: unlike ln C0, k stays finite as alpha falls towards zero.
#[derive(Debug, Clone, Copy)]
pub struct PowerFloor;

impl Law for PowerFloor {
    fn name(&self) -> LawName {
        LawName::PowerFloor
    }

    fn formula(&self) -> &'static str {
        "L = E + (C0 / C)^alpha"
    }

    fn parameter_names(&self) -> &'static [&'static str] {
        &["ln_e", "k", "alpha"]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        let c0 = (theta[1] / theta[2]).exp();
        vec![
            Coefficient { name: "E", quantity: Quantity::Floor, value: theta[0].exp() },
            Coefficient { name: "C0", quantity: Quantity::Scale, value: c0 },
            Coefficient { name: "alpha", quantity: Quantity::Exponent, value: theta[2] },
        ]
    }

    fn needs(&self) -> Needs {
        Needs { n_sizes: 1, n_token_counts: 1, n_budgets: 4 }
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let (floor, power) = (theta[0], theta[1] - theta[2] * point.ln_flops);
        let largest = floor.max(power);
        let (floor_part, power_part) = ((floor - largest).exp(), (power - largest).exp());
        let sum = floor_part + power_part;
        gradient[0] = floor_part / sum;
        gradient[1] = power_part / sum;
        gradient[2] = -point.ln_flops * power_part / sum;
        largest + sum.ln()
    }

    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let centre = mean(points.iter().map(|point| point.ln_flops));
        let level = mean(log_losses.iter().copied()).exp();
        let start = |alpha: f64| {
            // Relative residuals: each row is divided by its loss.
            let (mut gram, mut target) = ([0.0; 4], [0.0; 2]);
            for (point, log_loss) in points.iter().zip(log_losses) {
                let floor = (-log_loss).exp();
                let power = floor * (-alpha * (point.ln_flops - centre)).exp();
                gram[0] += floor * floor;
                gram[1] += floor * power;
                gram[3] += power * power;
                target[0] += floor;
                target[1] += power;
            }
            gram[2] = gram[1];
            let found = non_negative(&gram, &target);
            let log = |value: f64| value.max(1e-3 * level).ln();
            vec![log(found[0]), log(found[1]) + alpha * centre, alpha]
        };
        exponent_grid(48).map(start).collect()
    }
}
