//! Owns the law of repeated data: tokens and parameters lose their value with repetition and
//! excess. Does not model unique tokens that differ in quality.

use super::grid::log_grid;
use super::transform::LogBounded;
use super::{
    Bound, Chinchilla, Coefficient, Invariance, Law, LawChoice, LawName, LogPoint, Needs, Quantity,
    Variable,
};

/// Where R_D* and R_N* are looked for: below, the first repetition is worth nothing; above, a
/// thousand are all worth as much as new tokens. The published interval of R_D* has no upper end,
/// so some bound is needed.
const DECAY: LogBounded = LogBounded { low: 1e-2, high: 1e4 };
/// Values of R_D* and R_N* tried.
const DECAY_GRID: usize = 8;
/// Of the additive law's starts, one of so many is tried with each pair of decays.
const THINNING: usize = 7;
/// R beyond which runs say how fast the value decays, and how many of them are needed.
const REPEATED: f64 = 0.5;
const MIN_REPEATED: usize = 4;

/// L = E + A / N'^alpha + B / D'^beta (Muennighoff et al. 2023, 2305.16264, equations 5 to 7).
///
/// D' = U (1 + R_D* (1 - exp(-R_D / R_D*))) with U the distinct tokens and R_D = D / U - 1. N' is
/// the same of N, with U_N = min(N, N_opt(U)), the size for which U tokens would be compute-optimal
/// under the same coefficients. `theta` = (ln A, ln B, ln E, alpha, beta, u_D, u_N), the last two
/// for R_D* and R_N* between 0.01 and 10,000. Its objective is known to have several minima.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataConstrained;

/// What a quantity is worth that is `excess` times beyond the first use, and the derivative with
/// respect to the decay constant: s (1 - exp(-r / s)), by expm1 because the naive form rounds at
/// large s.
fn worth(excess: f64, decay: f64) -> (f64, f64) {
    let ratio = excess / decay;
    let value = -decay * (-ratio).exp_m1();
    (value, -(-ratio).exp_m1() - ratio * (-ratio).exp())
}

impl DataConstrained {
    /// R_N: how often N goes into the size that the point's unique tokens justify, beyond the
    /// first.
    pub(crate) fn excess_parameters(theta: &[f64], point: &LogPoint) -> f64 {
        let (ln_useful, _) = Self::useful_parameters(theta, point);
        (point.ln_parameters - ln_useful).exp_m1()
    }

    /// ln U_N and its derivatives with respect to (ln A, ln B, alpha, beta); all zero where N
    /// itself is smaller.
    fn useful_parameters(theta: &[f64], point: &LogPoint) -> (f64, [f64; 4]) {
        let (alpha, beta) = (theta[3], theta[4]);
        let total = alpha + beta;
        let ln_g = ((alpha / beta).ln() + theta[0] - theta[1]) / total;
        let along = point.ln_unique_tokens + ln_g;
        let optimal = beta / alpha * along + ln_g;
        // Where exponents are not positive there is no optimum, and the comparison below is false.
        if optimal >= point.ln_parameters {
            return (point.ln_parameters, [0.0; 4]);
        }
        let of_g = beta / alpha + 1.0;
        (
            optimal,
            [
                of_g / total,
                -of_g / total,
                of_g * (1.0 / alpha - ln_g) / total - beta / (alpha * alpha) * along,
                of_g * (-1.0 / beta - ln_g) / total + along / alpha,
            ],
        )
    }
}

impl Law for DataConstrained {
    fn choice(&self) -> LawChoice {
        LawChoice::of(LawName::DataConstrained)
    }

    fn formula(&self) -> &'static str {
        "L = E + A / N'^alpha + B / D'^beta, X' = U_X (1 + R_X* (1 - exp(-R_X / R_X*)))"
    }

    fn variables(&self) -> &'static [Variable] {
        &[Variable::Parameters, Variable::Tokens, Variable::UniqueTokens]
    }

    fn bounds(&self) -> &'static [Bound] {
        &[
            Bound { name: "R_D", low: DECAY.low, high: DECAY.high },
            Bound { name: "R_N", low: DECAY.low, high: DECAY.high },
        ]
    }

    fn invariances(&self) -> &'static [Invariance] {
        Chinchilla.invariances()
    }

    fn identified_by(&self) -> &'static str {
        "what `chinchilla` needs, runs that repeat their data several times, and runs far larger \
         than their unique tokens would justify"
    }

    fn parameter_names(&self) -> &[&'static str] {
        &["ln_a", "ln_b", "ln_e", "alpha", "beta", "u_d", "u_n"]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        let mut all = Chinchilla.coefficients(&theta[..5]);
        for (name, u) in [("R_D", theta[5]), ("R_N", theta[6])] {
            all.push(Coefficient { name, quantity: Quantity::Scale, value: DECAY.value(u) });
        }
        all
    }

    fn needs(&self) -> Needs {
        Chinchilla.needs()
    }

    fn missing(&self, points: &[LogPoint]) -> Option<String> {
        let found = points.iter().filter(|point| point.repetitions() > REPEATED).count();
        (found < MIN_REPEATED).then(|| {
            format!(
                "{found} points repeat their data by more than half; `data_constrained` needs \
                 {MIN_REPEATED}"
            )
        })
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let (ln_decay_d, slope_d) = DECAY.log(theta[5]);
        let (ln_decay_n, slope_n) = DECAY.log(theta[6]);
        let (decay_d, decay_n) = (ln_decay_d.exp(), ln_decay_n.exp());
        let (more_d, by_decay_d) = worth(point.repetitions(), decay_d);
        let ln_tokens = point.ln_unique_tokens + more_d.ln_1p();
        let (ln_useful, by_theta) = Self::useful_parameters(theta, point);
        let excess = (point.ln_parameters - ln_useful).exp_m1();
        let (more_n, by_decay_n) = worth(excess, decay_n);
        let ln_parameters = ln_useful + more_n.ln_1p();
        // d ln N' / d ln U_N: more useful parameters, and less excess.
        let by_useful = 1.0 - (-excess / decay_n).exp() * (excess + 1.0) / (1.0 + more_n);
        let effective = LogPoint { ln_parameters, ln_tokens, ..*point };
        let value = Chinchilla.log_prediction(&theta[..5], &effective, &mut gradient[..5]);
        let (of_size, of_data) = (gradient[0], gradient[1]);
        let (by_ln_n, by_ln_d) = (-theta[3] * of_size, -theta[4] * of_data);
        for (index, derivative) in [0, 1, 3, 4].into_iter().zip(by_theta) {
            gradient[index] += by_ln_n * by_useful * derivative;
        }
        gradient[5] = by_ln_d * by_decay_d * decay_d * slope_d / (1.0 + more_d);
        gradient[6] = by_ln_n * by_decay_n * decay_n * slope_n / (1.0 + more_n);
        value
    }

    /// The additive law's starts for the points as they are, each with a grid of decays.
    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let additive = Chinchilla.starting_grid(points, log_losses);
        let decays: Vec<f64> = log_grid(0.3, 300.0, DECAY_GRID).map(|v| DECAY.inverse(v)).collect();
        let mut starts = Vec::new();
        for start in additive.iter().step_by(THINNING) {
            for u_d in &decays {
                for u_n in &decays {
                    starts.push([start.as_slice(), &[*u_d, *u_n]].concat());
                }
            }
        }
        starts
    }

    fn least_polished(&self) -> usize {
        128
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_repetition_and_excess_it_is_the_additive_law() {
        let theta = [6.0, 7.5, 0.6, 0.34, 0.37, 0.1, -0.2];
        // Twenty tokens a parameter: N is below what D tokens justify, and nothing is repeated.
        let point = LogPoint::new(1e8, 2e10, 1.2e19);
        let mut gradient = [0.0; 7];
        let value = DataConstrained.log_prediction(&theta, &point, &mut gradient);
        assert!((value.exp() - Chinchilla.predict(&theta[..5], &point)).abs() < 1e-12);
        assert_eq!((gradient[5], gradient[6]), (0.0, 0.0));
    }

    #[test]
    fn worth_is_exact_where_one_minus_an_exponential_rounds() {
        let (value, _) = worth(3.0, 1e17);
        assert!((value - 3.0).abs() < 1e-12, "{value}");
        assert!((worth(1e6, 2.0).0 - 2.0).abs() < 1e-12);
    }
}
