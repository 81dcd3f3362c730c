//! Owns the power law of compute without a floor.
//! Does not model N and D; the envelope gives the compute-optimal frontier it is fitted to.

use super::{Coefficient, Law, LawName, LogPoint, Needs, Quantity, exponent_grid, mean};

/// L = beta · C^(-alpha), as in Kaplan et al. 2020 (2001.08361) and Shen et al. 2024 (2406.16690, section 4).
///
/// `theta` = (ln beta, alpha).
#[derive(Debug, Clone, Copy)]
pub struct PowerLaw;

impl Law for PowerLaw {
    fn name(&self) -> LawName {
        LawName::Power
    }

    fn formula(&self) -> &'static str {
        "L = beta * C^-alpha"
    }

    fn parameter_names(&self) -> &'static [&'static str] {
        &["ln_beta", "alpha"]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        vec![
            Coefficient { name: "beta", quantity: Quantity::Scale, value: theta[0].exp() },
            Coefficient { name: "alpha", quantity: Quantity::Exponent, value: theta[1] },
        ]
    }

    fn needs(&self) -> Needs {
        Needs { n_sizes: 1, n_token_counts: 1, n_budgets: 3 }
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        gradient[0] = 1.0;
        gradient[1] = -point.ln_flops;
        theta[0] - theta[1] * point.ln_flops
    }

    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let centre = mean(points.iter().map(|point| point.ln_flops));
        let level = mean(log_losses.iter().copied());
        exponent_grid(16).map(|alpha| vec![level + alpha * centre, alpha]).collect()
    }
}
