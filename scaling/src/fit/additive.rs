//! Owns the fast descent of the additive law: exact second derivatives, vector arithmetic, centred coordinates.
//! Does not know any other law; those descend by `minimize`.
//!
//! Near the optimum most residuals lie beyond the Huber threshold, so what curves the objective is mostly the law itself.
//! Gauss-Newton does not see that and needs 60 steps; Newton's method, damped by the Gauss-Newton bound where it must be,
//! needs about ten.

#![expect(clippy::needless_range_loop, reason = "lanes of several arrays are indexed together")]

use super::lanes::{LANES, Lanes, exp, ln};
use crate::algebra::{cholesky, dot, solve};
use crate::law::LogPoint;
use crate::minimize::Minimum;

const N: usize = 5;
/// Steps after which the general descent takes over.
const MAX_STEPS: usize = 60;
/// The objective, in units of the squared threshold, below which a start is near: about the mean residual over it.
const NEAR: f64 = 30.0;
/// As in `minimize`: the squared Newton decrement against the objective.
const DECREMENT: f64 = 1e-13;
const OBJECTIVE_FLOOR: f64 = 1e-9;
/// Longest step in any parameter, as in `minimize`.
const MAX_STEP: f64 = 4.0;
/// Share of the predicted fall that a step must reach.
const LEAST_FALL: f64 = 1e-4;
/// Damping where undamped steps fail, and the largest one that is tried.
const FIRST_DAMPING: f64 = 0.1;
const LAST_DAMPING: f64 = 1e6;

/// The points of a problem as columns, padded by points of weight zero.
#[derive(Debug, Clone)]
pub(super) struct Additive {
    x: Vec<Lanes>,
    y: Vec<Lanes>,
    inverse_loss: Vec<Lanes>,
    weights: Vec<Lanes>,
    centre: (f64, f64),
    threshold: f64,
    scale: f64,
}

/// The objective around one point, in centred coordinates.
struct Local {
    value: f64,
    gradient: [f64; N],
    /// Second derivatives.
    exact: [f64; N * N],
    /// What is added by damping: the Gauss-Newton matrix with the weights of iterated reweighting, and the second
    /// derivatives of each term without their signs. Added once it makes the sum positive: the curvature of a sum of
    /// exponentials is at least minus that of its terms, whose shares may be far larger than their squares.
    bound: [f64; N * N],
}

impl Additive {
    /// `scale` is what the sum is divided by.
    pub(super) fn new(
        points: &[LogPoint],
        log_losses: &[f64],
        weights: &[f64],
        (threshold, scale): (f64, f64),
    ) -> Self {
        let n = points.len().max(1) as f64;
        let centre = (
            points.iter().map(|point| point.ln_parameters).sum::<f64>() / n,
            points.iter().map(|point| point.ln_tokens).sum::<f64>() / n,
        );
        let column = |padding: f64, of: &dyn Fn(usize) -> f64| -> Vec<Lanes> {
            let lane = |block: usize| {
                std::array::from_fn(|i| {
                    let at = block * LANES + i;
                    if at < points.len() { of(at) } else { padding }
                })
            };
            (0..points.len().div_ceil(LANES)).map(lane).collect()
        };
        Self {
            x: column(0.0, &|at| points[at].ln_parameters - centre.0),
            y: column(0.0, &|at| points[at].ln_tokens - centre.1),
            inverse_loss: column(1.0, &|at| (-log_losses[at]).exp()),
            weights: column(0.0, &|at| weights[at]),
            centre,
            threshold,
            scale,
        }
    }

    /// The same points with other weights, in the order of the points.
    pub(super) fn reweighted(&self, weights: &[f64], scale: f64) -> Self {
        let mut other = self.clone();
        for (block, lanes) in other.weights.iter_mut().enumerate() {
            *lanes =
                std::array::from_fn(|i| weights.get(block * LANES + i).copied().unwrap_or(0.0));
        }
        Self { scale, ..other }
    }

    /// Follows `start` downhill; not converged after [`MAX_STEPS`] or where no step leads down.
    ///
    /// Far from the data the Huber loss is a sum of absolute values, whose valleys have corners on the scale of the
    /// threshold, and second derivatives mislead; such a start is left to the general descent.
    pub(super) fn descend(&self, start: &[f64]) -> Minimum {
        let at = self.centred(start);
        let max_steps = if self.local(&at).value <= NEAR { MAX_STEPS } else { 0 };
        let (at, local, converged) = self.follow(at, max_steps);
        Minimum {
            theta: self.plain(&at),
            value: local.value,
            gradient_norm: dot(&local.gradient, &local.gradient).sqrt(),
            converged,
        }
    }

    /// Damped Newton steps until the squared decrement is below a share of the objective.
    fn follow(&self, start: [f64; N], max_steps: usize) -> ([f64; N], Local, bool) {
        let mut at = start;
        let mut local = self.local(&at);
        let mut damping = 0.0;
        for _ in 0..max_steps {
            if !local.value.is_finite() || damping > LAST_DAMPING {
                break;
            }
            let Some((step, fall)) = local.step(damping) else {
                damping = more(damping);
                continue;
            };
            // The predicted fall of an undamped step is half the squared decrement.
            if damping <= 1.0 && 2.0 * fall <= DECREMENT * (local.value + OBJECTIVE_FLOOR) {
                return (at, local, true);
            }
            let next: [f64; N] = std::array::from_fn(|i| at[i] + step[i]);
            let moved = self.local(&next);
            let rounding = 4.0 * f64::EPSILON * local.value.abs();
            if moved.value <= local.value - LEAST_FALL * fall + rounding {
                (at, local) = (next, moved);
                damping = if damping < 1e-3 { 0.0 } else { 0.2 * damping };
            } else {
                damping = more(damping);
            }
        }
        (at, local, false)
    }

    fn centred(&self, theta: &[f64]) -> [f64; N] {
        [
            theta[0] - theta[3] * self.centre.0,
            theta[1] - theta[4] * self.centre.1,
            theta[2],
            theta[3],
            theta[4],
        ]
    }

    fn plain(&self, at: &[f64; N]) -> Vec<f64> {
        vec![at[0] + at[3] * self.centre.0, at[1] + at[4] * self.centre.1, at[2], at[3], at[4]]
    }

    /// The objective at `theta` as the law has it, not centred; writes its gradient.
    pub(super) fn value(&self, theta: &[f64], gradient: &mut [f64]) -> f64 {
        let at = self.centred(theta);
        let floor = at[2].clamp(-700.0, 700.0).exp();
        let mut sums = [[0.0; LANES]; 1 + N];
        let columns = self.x.iter().zip(&self.y).zip(&self.inverse_loss).zip(&self.weights);
        for (((x, y), inverse_loss), weights) in columns {
            let size = exp(std::array::from_fn(|i| at[0] - at[3] * x[i]));
            let data = exp(std::array::from_fn(|i| at[1] - at[4] * y[i]));
            let total: Lanes = std::array::from_fn(|i| size[i] + data[i] + floor);
            let residual = ln(std::array::from_fn(|i| total[i] * inverse_loss[i]));
            for i in 0..LANES {
                let clipped = residual[i].clamp(-self.threshold, self.threshold);
                let pull = weights[i] * clipped;
                let pull_of_one = pull / total[i];
                let (of_size, of_data) = (pull_of_one * size[i], pull_of_one * data[i]);
                sums[0][i] += pull * (residual[i] - 0.5 * clipped);
                sums[1][i] += of_size;
                sums[2][i] += of_data;
                sums[3][i] += pull_of_one * floor;
                sums[4][i] -= x[i] * of_size;
                sums[5][i] -= y[i] * of_data;
            }
        }
        let scale = 1.0 / self.scale;
        let [value, a, b, e, alpha, beta] = sums.map(|lanes| scale * lanes.iter().sum::<f64>());
        // From centred coordinates: alpha and beta also move the two prefactors.
        let all = [a, b, e, alpha - self.centre.0 * a, beta - self.centre.1 * b];
        gradient.copy_from_slice(&all);
        value
    }

    /// Sums over the points, in blocks of lanes that are added up at the end.
    fn local(&self, at: &[f64; N]) -> Local {
        let threshold = self.threshold;
        let floor = at[2].clamp(-700.0, 700.0).exp();
        let mut sums = Sums::default();
        let columns = self.x.iter().zip(&self.y).zip(&self.inverse_loss).zip(&self.weights);
        for (((x, y), inverse_loss), weights) in columns {
            let size = exp(std::array::from_fn(|i| at[0] - at[3] * x[i]));
            let data = exp(std::array::from_fn(|i| at[1] - at[4] * y[i]));
            let total: Lanes = std::array::from_fn(|i| size[i] + data[i] + floor);
            let residual = ln(std::array::from_fn(|i| total[i] * inverse_loss[i]));
            let mut pull = [0.0; LANES];
            let mut outer = [0.0; LANES];
            let mut bound = [0.0; LANES];
            let mut shares = [[0.0; LANES]; 3];
            for i in 0..LANES {
                let size_of_residual = residual[i].abs();
                let clipped = residual[i].clamp(-threshold, threshold);
                pull[i] = weights[i] * clipped;
                sums.value[i] += pull[i] * (residual[i] - 0.5 * clipped);
                let inside = if size_of_residual <= threshold { weights[i] } else { 0.0 };
                outer[i] = inside - pull[i];
                // min(1, δ / |r|), which is also right for squares, whose δ is infinite.
                let beyond = size_of_residual.max(threshold);
                bound[i] = if threshold.is_finite() {
                    weights[i] * threshold / beyond
                } else {
                    weights[i]
                };
                let inverse = 1.0 / total[i];
                shares[0][i] = size[i] * inverse;
                shares[1][i] = data[i] * inverse;
                shares[2][i] = floor * inverse;
            }
            sums.add(&shares, (x, y), &pull, (&outer, &bound));
        }
        sums.finish(1.0 / self.scale)
    }
}

fn more(damping: f64) -> f64 {
    if damping == 0.0 { FIRST_DAMPING } else { 10.0 * damping }
}

/// Upper triangle of a symmetric matrix of five rows, by lanes.
type Triangle = [Lanes; 15];

#[derive(Default)]
struct Sums {
    value: Lanes,
    gradient: [Lanes; N],
    /// Σ (ψ' - ψ) g gᵀ and Σ ω g gᵀ.
    exact: Triangle,
    bound: Triangle,
    /// Σ ψ w (1, x, x²) of the size term, the same of the data term.
    own: [[Lanes; 3]; 2],
    /// The same of |ψ|, and Σ |ψ| w of the floor.
    own_size: [[Lanes; 3]; 2],
    floor_size: Lanes,
}

impl Sums {
    #[inline]
    fn add(
        &mut self,
        shares: &[Lanes; 3],
        (x, y): (&Lanes, &Lanes),
        pull: &Lanes,
        (outer, bound): (&Lanes, &Lanes),
    ) {
        let derivatives: [Lanes; N] = [
            shares[0],
            shares[1],
            shares[2],
            std::array::from_fn(|i| -x[i] * shares[0][i]),
            std::array::from_fn(|i| -y[i] * shares[1][i]),
        ];
        let mut at = 0;
        for row in 0..N {
            let left: Lanes = std::array::from_fn(|i| outer[i] * derivatives[row][i]);
            let right: Lanes = std::array::from_fn(|i| bound[i] * derivatives[row][i]);
            for column in row..N {
                for i in 0..LANES {
                    self.exact[at][i] += left[i] * derivatives[column][i];
                    self.bound[at][i] += right[i] * derivatives[column][i];
                }
                at += 1;
            }
            for i in 0..LANES {
                self.gradient[row][i] += pull[i] * derivatives[row][i];
            }
        }
        let terms = [(&shares[0], x), (&shares[1], y)];
        for ((own, size), (share, z)) in self.own.iter_mut().zip(&mut self.own_size).zip(terms) {
            for i in 0..LANES {
                let (first, first_size) = (pull[i] * share[i], pull[i].abs() * share[i]);
                let (second, second_size) = (first * z[i], first_size * z[i]);
                own[0][i] += first;
                own[1][i] += second;
                own[2][i] += second * z[i];
                size[0][i] += first_size;
                size[1][i] += second_size;
                size[2][i] += second_size * z[i];
            }
        }
        for i in 0..LANES {
            self.floor_size[i] += pull[i].abs() * shares[2][i];
        }
    }

    fn finish(&self, scale: f64) -> Local {
        let total = |lanes: &Lanes| scale * lanes.iter().sum::<f64>();
        let full = |triangle: &Triangle| {
            let mut matrix = [0.0; N * N];
            let mut at = 0;
            for row in 0..N {
                for column in row..N {
                    let value = total(&triangle[at]);
                    matrix[row * N + column] = value;
                    matrix[column * N + row] = value;
                    at += 1;
                }
            }
            matrix
        };
        let gradient = std::array::from_fn(|i| total(&self.gradient[i]));
        // Second derivatives of each term by itself: ψ w u uᵀ with u = (1, -x) in its two parameters.
        let add_own = |matrix: &mut [f64; N * N], own: &[[Lanes; 3]; 2], floor: f64| {
            for (first, own) in own.iter().enumerate() {
                let exponent = 3 + first;
                matrix[first * N + first] += total(&own[0]);
                matrix[first * N + exponent] -= total(&own[1]);
                matrix[exponent * N + first] -= total(&own[1]);
                matrix[exponent * N + exponent] += total(&own[2]);
            }
            matrix[2 * N + 2] += floor;
        };
        let (mut exact, mut bound) = (full(&self.exact), full(&self.bound));
        add_own(&mut exact, &self.own, gradient[2]);
        add_own(&mut bound, &self.own_size, total(&self.floor_size));
        Local { value: total(&self.value), gradient, exact, bound }
    }
}

impl Local {
    /// The step for a damping, and the fall that the quadratic model predicts; `None` where the model has no minimum.
    fn step(&self, damping: f64) -> Option<([f64; N], f64)> {
        let mut matrix = self.exact;
        for (value, bound) in matrix.iter_mut().zip(&self.bound) {
            *value += damping * bound;
        }
        for i in 0..N {
            // A direction without effect, such as a term that has vanished, must not make the matrix singular.
            matrix[i * N + i] += 1e-11 * (1.0 + damping) * (self.bound[i * N + i] + 1e-6);
        }
        let lower = cholesky(&matrix, N)?;
        let solution = solve(&lower, N, &self.gradient);
        let fall = 0.5 * dot(&solution, &self.gradient);
        let longest = solution.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        let factor = (MAX_STEP / longest).min(1.0);
        let step = std::array::from_fn(|i| -factor * solution[i]);
        // A shortened step falls by less than the whole one.
        (fall.is_finite() && fall >= 0.0).then_some((step, factor * fall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::law::{Chinchilla, Law};

    fn problem() -> (Additive, Vec<LogPoint>, Vec<f64>) {
        let truth = [6.0, 7.5, 0.6, 0.34, 0.37];
        let points: Vec<LogPoint> = (0..30)
            .map(|i| LogPoint::new(1e6 * 1.3_f64.powi(i % 7 * 3), 1e8 * 1.5_f64.powi(i), 1e18))
            .collect();
        let noise = |i: usize| 3e-3 * ((i * i) as f64).sin();
        let losses: Vec<f64> = points
            .iter()
            .enumerate()
            .map(|(i, point)| Chinchilla.predict(&truth, point).ln() + noise(i))
            .collect();
        let weights: Vec<f64> = (0..30).map(|i| f64::from(i % 3 + 1)).collect();
        let fast = Additive::new(&points, &losses, &weights, (1e-3, 1.0));
        (fast, points, losses)
    }

    #[test]
    fn gradient_and_second_derivatives_agree_with_differences() {
        let (fast, ..) = problem();
        let at = fast.centred(&[6.1, 7.4, 0.61, 0.345, 0.366]);
        let local = fast.local(&at);
        for j in 0..N {
            let step = 1e-6;
            let moved = |sign: f64| {
                let mut other = at;
                other[j] += sign * step;
                fast.local(&other)
            };
            let (up, down) = (moved(1.0), moved(-1.0));
            let slope = (up.value - down.value) / (2.0 * step);
            assert!((slope - local.gradient[j]).abs() < 1e-7 * (1.0 + slope.abs()), "{j}");
            for i in 0..N {
                let numeric = (up.gradient[i] - down.gradient[i]) / (2.0 * step);
                let found = local.exact[i * N + j];
                assert!((numeric - found).abs() < 1e-5 * (1.0 + found.abs()), "{i} {j}: {numeric}");
            }
        }
    }

    #[test]
    fn the_value_and_its_gradient_are_those_of_the_law() {
        let (fast, points, losses) = problem();
        let theta = [6.1, 7.4, 0.61, 0.345, 0.366];
        let mut gradient = [0.0; N];
        let value = fast.value(&theta, &mut gradient);
        let huber = crate::objective::Objective::Huber { delta: 1e-3 };
        let plain = |theta: &[f64]| -> f64 {
            let rows = points.iter().zip(&losses).enumerate();
            rows.map(|(i, (point, loss))| {
                (i % 3 + 1) as f64 * huber.of(*loss, Chinchilla.predict(theta, point).ln())
            })
            .sum()
        };
        assert!((value / plain(&theta) - 1.0).abs() < 1e-11, "{value}");
        assert!((value / fast.local(&fast.centred(&theta)).value - 1.0).abs() < 1e-13);
        for j in 0..N {
            let at = |step: f64| {
                let mut moved = theta;
                moved[j] += step;
                plain(&moved)
            };
            let slope = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((slope - gradient[j]).abs() < 1e-6 * (1.0 + slope.abs()), "{j}: {slope}");
        }
    }

    #[test]
    fn other_weights_are_the_same_as_other_points() {
        let (fast, points, losses) = problem();
        let weights: Vec<f64> = (0..30).map(|i| f64::from(i % 4)).collect();
        let other = Additive::new(&points, &losses, &weights, (1e-3, 2.0));
        let again = fast.reweighted(&weights, 2.0);
        let at = [0.5, 0.2, 0.6, 0.34, 0.37];
        assert_eq!(other.local(&at).value, again.local(&at).value);
    }
}
