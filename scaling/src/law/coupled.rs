//! Owns the coupled law of N and D, of which the additive one is the case k = 1. Does not own the
//! compute-optimal point: it is that of the additive law with the same A, B, alpha and beta.

use super::chinchilla::Optimum;
use super::grid::{exponent_grid, log_or_tiny, mean, project_onto};
use super::transform::LogBounded;
use super::{
    Bound, Chinchilla, Coefficient, Invariance, Law, LawChoice, LawName, LogPoint, Needs, Quantity,
    Variable,
};

/// Where k is looked for (Videau et al. 2026, 2608.07222, appendix: exponents and k from 0.01 to 2;
/// wider here).
const OUTER: LogBounded = LogBounded { low: 0.05, high: 3.0 };
/// Exponents tried in each direction.
const GRID: usize = 12;
/// Outer exponents tried: measured ones lie between 0.28 and 1.
const OUTER_GRID: [f64; 4] = [1.0, 0.7, 0.45, 0.3];
/// Floors tried, as shares of the smallest loss.
const FLOOR_GRID: [f64; 5] = [0.02, 0.3, 0.6, 0.8, 0.92];

/// L = (A / N^alpha + B / D^beta)^k + E (Videau et al. 2026, 2608.07222).
///
/// `theta` = (ln A, ln B, ln E, alpha, beta, u) with k between 0.05 and 3 by the logistic function
/// of u. k = 1 is [`Chinchilla`]; E = 0 and beta = 1 is [`super::Kaplan`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coupled;

impl Coupled {
    /// The compute-optimal point at `flops` for C = κ N D: as [`Chinchilla::optimum`], because the
    /// outer power is monotonic; only the loss there differs.
    pub fn optimum(theta: &[f64], flops: f64, flops_per_parameter_token: f64) -> Optimum {
        let inner = Chinchilla::optimum(theta, flops, flops_per_parameter_token);
        let point = LogPoint::new(inner.parameters, inner.tokens, flops);
        Optimum { loss_nats: Self.predict(theta, &point), ..inner }
    }
}

impl Law for Coupled {
    fn choice(&self) -> LawChoice {
        LawChoice::of(LawName::Coupled)
    }

    fn formula(&self) -> &'static str {
        "L = E + (A / N^alpha + B / D^beta)^k"
    }

    fn variables(&self) -> &'static [Variable] {
        Chinchilla.variables()
    }

    fn bounds(&self) -> &'static [Bound] {
        &[Bound { name: "k", low: OUTER.low, high: OUTER.high }]
    }

    fn invariances(&self) -> &'static [Invariance] {
        Chinchilla.invariances()
    }

    fn identified_by(&self) -> &'static str {
        "what `chinchilla` needs, and a grid with both terms large and both small, so that their \
         interaction shows"
    }

    fn parameter_names(&self) -> &[&'static str] {
        &["ln_a", "ln_b", "ln_e", "alpha", "beta", "u_k"]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        let mut all = Chinchilla.coefficients(&theta[..5]);
        all.push(Coefficient {
            name: "k",
            quantity: Quantity::Exponent,
            value: OUTER.value(theta[5]),
        });
        all
    }

    fn needs(&self) -> Needs {
        Needs { n_sizes: 4, n_token_counts: 4, n_budgets: 5 }
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let size = theta[0] - theta[3] * point.ln_parameters;
        let data = theta[1] - theta[4] * point.ln_tokens;
        let largest = size.max(data);
        let (size_part, data_part) = ((size - largest).exp(), (data - largest).exp());
        let inner = largest + (size_part + data_part).ln();
        let (ln_k, slope) = OUTER.log(theta[5]);
        let k = ln_k.exp();
        let (reducible, floor) = (k * inner, theta[2]);
        let largest = reducible.max(floor);
        let (power_part, floor_part) = ((reducible - largest).exp(), (floor - largest).exp());
        let sum = power_part + floor_part;
        let share = power_part / sum;
        let of_size = share * k * size_part / (size_part + data_part);
        let of_data = share * k * data_part / (size_part + data_part);
        gradient[0] = of_size;
        gradient[1] = of_data;
        gradient[2] = floor_part / sum;
        gradient[3] = -point.ln_parameters * of_size;
        gradient[4] = -point.ln_tokens * of_data;
        gradient[5] = share * reducible * slope;
        largest + sum.ln()
    }

    /// For given k, E and exponents, (L - E)^(1/k) is linear in A and B, which are solved for.
    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let centre_n = mean(points.iter().map(|point| point.ln_parameters));
        let centre_d = mean(points.iter().map(|point| point.ln_tokens));
        let smallest = log_losses.iter().copied().fold(f64::INFINITY, f64::min).exp();
        let mut starts = Vec::new();
        for k in OUTER_GRID {
            for floor in FLOOR_GRID.map(|share| share * smallest) {
                let targets: Vec<Target> =
                    log_losses.iter().map(|value| Target::new(value.exp(), floor, k)).collect();
                let weights: Vec<f64> = targets.iter().map(|target| target.weight).collect();
                let level = mean(targets.iter().map(|target| target.ln_value)).exp();
                let column = |exponent: f64, log: &dyn Fn(&LogPoint) -> f64| -> Vec<f64> {
                    let value = |(point, target): (&LogPoint, &Target)| {
                        target.weight * (-exponent * log(point) - target.ln_value).exp()
                    };
                    points.iter().zip(&targets).map(value).collect()
                };
                let sizes: Vec<(f64, Vec<f64>)> = exponent_grid(GRID)
                    .map(|alpha| (alpha, column(alpha, &|point| point.ln_parameters - centre_n)))
                    .collect();
                let counts: Vec<(f64, Vec<f64>)> = exponent_grid(GRID)
                    .map(|beta| (beta, column(beta, &|point| point.ln_tokens - centre_d)))
                    .collect();
                for (alpha, size) in &sizes {
                    for (beta, data) in &counts {
                        let found = project_onto(&[size, data], &weights);
                        starts.push(vec![
                            log_or_tiny(found[0], level) + alpha * centre_n,
                            log_or_tiny(found[1], level) + beta * centre_d,
                            floor.ln(),
                            *alpha,
                            *beta,
                            OUTER.inverse(k),
                        ]);
                    }
                }
            }
        }
        starts
    }

    fn least_polished(&self) -> usize {
        48
    }
}

/// The transformed loss of a row, and the weight that makes its residual one of ln L.
struct Target {
    ln_value: f64,
    weight: f64,
}

impl Target {
    fn new(loss: f64, floor: f64, k: f64) -> Self {
        let reducible = loss - floor;
        // d ln L / d ln y with y = (L - E)^(1/k).
        Self { ln_value: reducible.ln() / k, weight: k * reducible / loss }
    }
}
