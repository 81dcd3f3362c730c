//! Owns the additive law of N and D, and the optimum it implies.
//! Does not choose a FLOP convention: the caller gives FLOPs per parameter and token.

use super::grid::{exponent_grid, log_or_tiny, mean, project};
use super::{
    Coefficient, Invariance, Law, LawChoice, LawName, LogPoint, Needs, Quantity, Variable,
};

/// Exponents tried in each direction; 24 × 24 starting points, a step of 0.064.
pub(crate) const ADDITIVE_GRID: usize = 24;

/// L = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, 2203.15556, equation 2).
///
/// `theta` = (ln A, ln B, ln E, alpha, beta); ln L is a log-sum-exp, as in their section D.2.
#[derive(Debug, Clone, Copy)]
pub struct Chinchilla;

/// The compute-optimal point at a budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Optimum {
    /// N_opt.
    pub parameters: f64,
    /// D_opt.
    pub tokens: f64,
    /// L at N_opt and D_opt, nats per token.
    pub loss_nats: f64,
}

impl Chinchilla {
    /// a and b of N_opt ∝ C^a and D_opt ∝ C^b for C = κ N D: a = beta / (alpha + beta), b = 1 - a.
    ///
    /// ```
    /// let (a, b) = scaling::law::Chinchilla::optimum_exponents(&[6.0, 7.0, 0.5, 0.3, 0.2]);
    /// assert!((a - 0.4).abs() < 1e-12 && (b - 0.6).abs() < 1e-12);
    /// ```
    pub fn optimum_exponents(theta: &[f64]) -> (f64, f64) {
        let (alpha, beta) = (theta[3], theta[4]);
        (beta / (alpha + beta), alpha / (alpha + beta))
    }

    /// The optimum at `flops` for C = κ N D, with κ = `flops_per_parameter_token` (6 in the usual
    /// convention).
    ///
    /// N_opt = G (C/κ)^a with G = (alpha A / (beta B))^(1/(alpha+beta)) (Hoffmann et al. 2022,
    /// equation 4).
    pub fn optimum(theta: &[f64], flops: f64, flops_per_parameter_token: f64) -> Optimum {
        let (ln_a, ln_b, alpha, beta) = (theta[0], theta[1], theta[3], theta[4]);
        let (exponent, _) = Self::optimum_exponents(theta);
        let ln_g = ((alpha / beta).ln() + ln_a - ln_b) / (alpha + beta);
        let ln_product = (flops / flops_per_parameter_token).ln();
        let ln_parameters = ln_g + exponent * ln_product;
        let ln_tokens = ln_product - ln_parameters;
        let point = LogPoint::of_logs(ln_parameters, ln_tokens, flops.ln());
        Optimum {
            parameters: ln_parameters.exp(),
            tokens: ln_tokens.exp(),
            loss_nats: Self.predict(theta, &point),
        }
    }
}

impl Law for Chinchilla {
    fn choice(&self) -> LawChoice {
        LawChoice::of(LawName::Chinchilla)
    }

    fn formula(&self) -> &'static str {
        "L = E + A / N^alpha + B / D^beta"
    }

    fn variables(&self) -> &'static [Variable] {
        &[Variable::Parameters, Variable::Tokens]
    }

    fn invariances(&self) -> &'static [Invariance] {
        &[
            Invariance::UnitOf(Variable::Parameters),
            Invariance::UnitOf(Variable::Tokens),
            Invariance::UnitOfLoss,
        ]
    }

    fn identified_by(&self) -> &'static str {
        "four sizes and four token counts that do not lie on one ray of constant D/N"
    }

    fn parameter_names(&self) -> &[&'static str] {
        &["ln_a", "ln_b", "ln_e", "alpha", "beta"]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        vec![
            Coefficient { name: "E", quantity: Quantity::Floor, value: theta[2].exp() },
            Coefficient { name: "A", quantity: Quantity::Scale, value: theta[0].exp() },
            Coefficient { name: "B", quantity: Quantity::Scale, value: theta[1].exp() },
            Coefficient { name: "alpha", quantity: Quantity::Exponent, value: theta[3] },
            Coefficient { name: "beta", quantity: Quantity::Exponent, value: theta[4] },
        ]
    }

    fn needs(&self) -> Needs {
        // E, A and alpha are three numbers per N; the fourth size is the first that could
        // contradict them.
        Needs { n_sizes: 4, n_token_counts: 4, n_budgets: 4 }
    }

    #[inline]
    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let size = theta[0] - theta[3] * point.ln_parameters;
        let data = theta[1] - theta[4] * point.ln_tokens;
        let floor = theta[2];
        let largest = size.max(data).max(floor);
        let size_part = (size - largest).exp();
        let data_part = (data - largest).exp();
        let floor_part = (floor - largest).exp();
        let sum = size_part + data_part + floor_part;
        gradient[0] = size_part / sum;
        gradient[1] = data_part / sum;
        gradient[2] = floor_part / sum;
        gradient[3] = -point.ln_parameters * gradient[0];
        gradient[4] = -point.ln_tokens * gradient[1];
        largest + sum.ln()
    }

    /// For each pair of exponents the law is linear in A, B and E, which are solved for exactly
    /// (variable projection), so that every start lies near the data.
    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let centre_n = mean(points.iter().map(|point| point.ln_parameters));
        let centre_d = mean(points.iter().map(|point| point.ln_tokens));
        let level = mean(log_losses.iter().copied()).exp();
        // Rows are divided by their loss, so that residuals are relative and every target is one.
        let floors: Vec<f64> = log_losses.iter().map(|value| (-value).exp()).collect();
        let column = |exponent: f64, log: &dyn Fn(&LogPoint) -> f64| -> Vec<f64> {
            let value = |(point, floor): (&LogPoint, &f64)| floor * (-exponent * log(point)).exp();
            points.iter().zip(&floors).map(value).collect()
        };
        let sizes: Vec<(f64, Vec<f64>)> = exponent_grid(ADDITIVE_GRID)
            .map(|alpha| (alpha, column(alpha, &|point| point.ln_parameters - centre_n)))
            .collect();
        let counts: Vec<(f64, Vec<f64>)> = exponent_grid(ADDITIVE_GRID)
            .map(|beta| (beta, column(beta, &|point| point.ln_tokens - centre_d)))
            .collect();
        let log = |value: f64| log_or_tiny(value, level);
        let mut starts = Vec::with_capacity(ADDITIVE_GRID * ADDITIVE_GRID);
        for (alpha, size) in &sizes {
            for (beta, data) in &counts {
                let found = project(&[size, data, &floors]);
                starts.push(vec![
                    log(found[0]) + alpha * centre_n,
                    log(found[1]) + beta * centre_d,
                    log(found[2]),
                    *alpha,
                    *beta,
                ]);
            }
        }
        starts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_split_of_the_budget_beats_the_optimum() {
        let theta = [6.0, 7.5, 0.6, 0.34, 0.37];
        let (flops, kappa) = (1e20, 6.0);
        let best = Chinchilla::optimum(&theta, flops, kappa);
        assert!((kappa * best.parameters * best.tokens / flops - 1.0).abs() < 1e-12);
        for factor in [0.5, 0.9, 1.1, 2.0] {
            let parameters = best.parameters * factor;
            let point = LogPoint::new(parameters, flops / kappa / parameters, flops);
            assert!(Chinchilla.predict(&theta, &point) > best.loss_nats);
        }
    }
}
