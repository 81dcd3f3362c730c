//! Owns the joint law of N and D without a floor.
//! Does not fit a floor beside it: that is the coupled law.

use super::grid::{log_grid, log_or_tiny, mean, project};
use super::{
    Chinchilla, Coefficient, Invariance, Law, LawChoice, LawName, LogPoint, Needs, Quantity,
    Variable,
};

/// Exponents tried in each direction; the published ones are 0.076 and 0.103.
const GRID: usize = 20;

/// L = [(Nc / N)^(alpha_N / alpha_D) + Dc / D]^alpha_D (Kaplan et al. 2020, 2001.08361, equation
/// 1.5).
///
/// `theta` = (ratio · ln Nc, ln Dc, alpha_N, ln alpha_D) with ratio = alpha_N / alpha_D.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kaplan;

impl Law for Kaplan {
    fn choice(&self) -> LawChoice {
        LawChoice::of(LawName::Kaplan)
    }

    fn formula(&self) -> &'static str {
        "L = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D"
    }

    fn variables(&self) -> &'static [Variable] {
        Chinchilla.variables()
    }

    fn invariances(&self) -> &'static [Invariance] {
        Chinchilla.invariances()
    }

    fn identified_by(&self) -> &'static str {
        "three sizes and three token counts off one ray of D/N, with losses far above any floor"
    }

    fn parameter_names(&self) -> &[&'static str] {
        &["k_n", "ln_d_c", "alpha_n", "ln_alpha_d"]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        let alpha_d = theta[3].exp();
        let n_c = (theta[0] * alpha_d / theta[2]).exp();
        vec![
            Coefficient { name: "N_c", quantity: Quantity::Scale, value: n_c },
            Coefficient { name: "D_c", quantity: Quantity::Scale, value: theta[1].exp() },
            Coefficient { name: "alpha_N", quantity: Quantity::Exponent, value: theta[2] },
            Coefficient { name: "alpha_D", quantity: Quantity::Exponent, value: alpha_d },
        ]
    }

    fn needs(&self) -> Needs {
        Needs { n_sizes: 3, n_token_counts: 3, n_budgets: 4 }
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let alpha_d = theta[3].exp();
        let slope = theta[2] / alpha_d;
        let size = theta[0] - slope * point.ln_parameters;
        let data = theta[1] - point.ln_tokens;
        let largest = size.max(data);
        let (size_part, data_part) = ((size - largest).exp(), (data - largest).exp());
        let sum = size_part + data_part;
        let inner = largest + sum.ln();
        let of_size = size_part / sum;
        gradient[0] = alpha_d * of_size;
        gradient[1] = alpha_d * data_part / sum;
        gradient[2] = -of_size * point.ln_parameters;
        gradient[3] = alpha_d * (inner + of_size * slope * point.ln_parameters);
        alpha_d * inner
    }

    /// L^(1 / alpha_D) is linear in two prefactors once the exponents are chosen.
    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let centre_n = mean(points.iter().map(|point| point.ln_parameters));
        let centre_d = mean(points.iter().map(|point| point.ln_tokens));
        let mut starts = Vec::with_capacity(GRID * GRID);
        for alpha_d in log_grid(0.02, 1.0, GRID) {
            let target: Vec<f64> = log_losses.iter().map(|value| value / alpha_d).collect();
            let level = mean(target.iter().copied());
            // Rows are divided by their transformed loss, and columns are given at its typical
            // size.
            let column = |exponent: f64, log: &dyn Fn(&LogPoint) -> f64| -> Vec<f64> {
                let value = |(point, ln_value): (&LogPoint, &f64)| {
                    (level - exponent * log(point) - ln_value).exp()
                };
                points.iter().zip(&target).map(value).collect()
            };
            let data = column(1.0, &|point| point.ln_tokens - centre_d);
            for alpha_n in log_grid(0.02, 1.0, GRID) {
                let ratio = alpha_n / alpha_d;
                let size = column(ratio, &|point| point.ln_parameters - centre_n);
                let found = project(&[&size, &data]);
                starts.push(vec![
                    level + log_or_tiny(found[0], 1.0) + ratio * centre_n,
                    level + log_or_tiny(found[1], 1.0) + centre_d,
                    alpha_n,
                    alpha_d.ln(),
                ]);
            }
        }
        starts
    }
}
