//! Owns the objective of the additive law as vector arithmetic: value, gradient and exact second
//! derivatives in centred coordinates. Does not know any other law; those descend by `minimize`.
//!
//! Near the optimum most residuals lie beyond the Huber threshold, so what curves the objective is
//! mostly the law itself. Gauss-Newton does not see that and needs 60 steps; Newton's method,
//! damped by the Gauss-Newton bound where it must be, needs about ten.

#![expect(clippy::needless_range_loop, reason = "lanes of several arrays are indexed together")]

mod approach;
mod descent;
mod grid;

pub(crate) use grid::Grid;

use super::lanes::{LANES, Lanes, NEAR_ONE, exp, ln, ln_1p_near};
use crate::law::LogPoint;

const N: usize = 5;
type Matrix = [[f64; N]; N];

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
#[derive(Debug, Clone, Copy)]
struct Local {
    value: f64,
    gradient: [f64; N],
    /// Second derivatives.
    exact: Matrix,
    /// What is added by damping: the Gauss-Newton matrix with the weights of iterated reweighting,
    /// and the second derivatives of each term without their signs. Added once it makes the sum
    /// positive: the curvature of a sum of exponentials is at least minus that of its terms, whose
    /// shares may be far larger than their squares. Not there where it was not asked for.
    bound: Option<Matrix>,
}

/// The law at a block of points: residuals of ln L and the share of each term in L.
struct Terms {
    residual: Lanes,
    size: Lanes,
    data: Lanes,
    floor: Lanes,
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
        Self {
            x: lanes(points.iter().map(|point| point.ln_parameters - centre.0), 0.0),
            y: lanes(points.iter().map(|point| point.ln_tokens - centre.1), 0.0),
            inverse_loss: lanes(log_losses.iter().map(|value| (-value).exp()), 1.0),
            weights: lanes(weights.iter().copied(), 0.0),
            centre,
            threshold,
            scale,
        }
    }

    /// The points of positive weight with other weights, given in the order of the points.
    pub(super) fn reweighted(&self, weights: &[f64], scale: f64) -> Self {
        let kept = || (0..weights.len()).filter(|at| weights[*at] > 0.0);
        let column = |of: &[Lanes], padding: f64| lanes(kept().map(|at| entry(of, at)), padding);
        Self {
            x: column(&self.x, 0.0),
            y: column(&self.y, 0.0),
            inverse_loss: column(&self.inverse_loss, 1.0),
            weights: lanes(kept().map(|at| weights[at]), 0.0),
            centre: self.centre,
            threshold: self.threshold,
            scale,
        }
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
        let local = self.local(&self.centred(theta), false);
        let [a, b, e, alpha, beta] = local.gradient;
        // From centred coordinates: alpha and beta also move the two prefactors.
        let all = [a, b, e, alpha - self.centre.0 * a, beta - self.centre.1 * b];
        gradient.copy_from_slice(&all);
        local.value
    }

    /// Sums over the points, in blocks of lanes that are added up at the end.
    fn local(&self, at: &[f64; N], with_bound: bool) -> Local {
        if with_bound { self.sums::<true>(at) } else { self.sums::<false>(at) }
    }

    fn sums<const WITH_BOUND: bool>(&self, at: &[f64; N]) -> Local {
        let threshold = self.threshold;
        let floor = at[2].clamp(-700.0, 700.0).exp();
        let (mut value, mut gradient) = (Total::default(), Gradient::default());
        let (mut exact, mut bound) = (Curvature::default(), Curvature::default());
        let columns = self.x.iter().zip(&self.y).zip(&self.inverse_loss).zip(&self.weights);
        for (((x, y), inverse_loss), weights) in columns {
            let terms = terms(at, floor, (x, y), inverse_loss);
            let (mut pull, mut outer) = ([0.0; LANES], [0.0; LANES]);
            let mut losses = [0.0; LANES];
            for i in 0..LANES {
                let residual = terms.residual[i];
                let clipped = residual.clamp(-threshold, threshold);
                pull[i] = weights[i] * clipped;
                losses[i] = pull[i] * (residual - 0.5 * clipped);
                outer[i] = if clipped == residual { weights[i] } else { 0.0 } - pull[i];
            }
            value.add(&losses);
            gradient.add(&terms, (x, y), &pull);
            exact.add(&terms, (x, y), &outer, &pull);
            if WITH_BOUND {
                let mut weight = [0.0; LANES];
                for i in 0..LANES {
                    // min(1, δ / |r|), which is also right for squares, whose δ is infinite.
                    let beyond = terms.residual[i].abs().max(threshold);
                    let share = if threshold.is_finite() { threshold / beyond } else { 1.0 };
                    weight[i] = weights[i] * share;
                }
                bound.add(&terms, (x, y), &weight, &pull.map(f64::abs));
            }
        }
        let scale = 1.0 / self.scale;
        Local {
            value: scale * value.value(),
            gradient: gradient.vector(scale),
            exact: exact.matrix(scale),
            bound: WITH_BOUND.then(|| bound.matrix(scale)),
        }
    }
}

/// Blocks of lanes, the last one padded.
fn lanes(values: impl Iterator<Item = f64>, padding: f64) -> Vec<Lanes> {
    let mut blocks: Vec<Lanes> = Vec::with_capacity(values.size_hint().0.div_ceil(LANES));
    for (at, value) in values.enumerate() {
        if at % LANES == 0 {
            blocks.push([padding; LANES]);
        }
        if let Some(block) = blocks.last_mut() {
            block[at % LANES] = value;
        }
    }
    blocks
}

fn entry(blocks: &[Lanes], at: usize) -> f64 {
    blocks[at / LANES][at % LANES]
}

/// A running sum over blocks. A block is folded to two numbers before it is added, so that the many
/// sums of a pass stay in registers or close to them.
#[derive(Debug, Default, Clone, Copy)]
struct Total([f64; 2]);

impl Total {
    #[expect(clippy::inline_always, reason = "a call would put all lanes through memory")]
    #[inline(always)]
    fn add(&mut self, lanes: &Lanes) {
        let [a, b, c, d, e, f, g, h] = lanes;
        self.0[0] += (a + c) + (e + g);
        self.0[1] += (b + d) + (f + h);
    }

    fn value(self) -> f64 {
        self.0[0] + self.0[1]
    }
}

fn sum(lanes: &Lanes) -> f64 {
    lanes.iter().sum()
}

#[expect(clippy::inline_always, reason = "a call would put all lanes through memory")]
#[inline(always)]
fn terms(at: &[f64; N], floor: f64, (x, y): (&Lanes, &Lanes), inverse_loss: &Lanes) -> Terms {
    let size = exp(std::array::from_fn(|i| at[0] - at[3] * x[i]));
    let data = exp(std::array::from_fn(|i| at[1] - at[4] * y[i]));
    let (mut total, mut ratio) = ([0.0; LANES], [0.0; LANES]);
    for i in 0..LANES {
        total[i] = size[i] + data[i] + floor;
        ratio[i] = total[i] * inverse_loss[i];
    }
    let excess: Lanes = std::array::from_fn(|i| ratio[i] - 1.0);
    let (inverse, residual): (Lanes, Lanes);
    if excess.iter().all(|value| value.abs() <= NEAR_ONE) {
        // One division serves both 1 / total and 1 / (1 + ratio).
        let both: Lanes = std::array::from_fn(|i| 1.0 / (total[i] * (1.0 + ratio[i])));
        inverse = std::array::from_fn(|i| both[i] * (1.0 + ratio[i]));
        residual = ln_1p_near(excess, std::array::from_fn(|i| both[i] * total[i]));
    } else {
        inverse = std::array::from_fn(|i| 1.0 / total[i]);
        residual = ln(ratio);
    }
    Terms {
        residual,
        size: std::array::from_fn(|i| size[i] * inverse[i]),
        data: std::array::from_fn(|i| data[i] * inverse[i]),
        floor: std::array::from_fn(|i| floor * inverse[i]),
    }
}

/// Σ p g over the points, with g the derivatives of ln L and weights p of each point.
#[derive(Default)]
struct Gradient([Total; N]);

impl Gradient {
    #[expect(clippy::inline_always, reason = "a call would put all lanes through memory")]
    #[inline(always)]
    fn add(&mut self, terms: &Terms, (x, y): (&Lanes, &Lanes), p: &Lanes) {
        let each = |of: &dyn Fn(usize) -> f64| -> Lanes { std::array::from_fn(of) };
        let (size, data) = (each(&|i| p[i] * terms.size[i]), each(&|i| p[i] * terms.data[i]));
        self.0[0].add(&size);
        self.0[1].add(&data);
        self.0[2].add(&each(&|i| p[i] * terms.floor[i]));
        self.0[3].add(&each(&|i| -x[i] * size[i]));
        self.0[4].add(&each(&|i| -y[i] * data[i]));
    }

    fn vector(&self, scale: f64) -> [f64; N] {
        self.0.map(|total| scale * total.value())
    }
}

/// Σ o g gᵀ + Σ p T over the points, with g the derivatives of ln L, T the second derivatives of
/// each term by itself (w u uᵀ with u = (1, -x) in its two parameters), and weights o and p of each
/// point.
#[derive(Default)]
struct Curvature {
    /// Times (1, x, x²), of the size term with itself.
    size: [Total; 3],
    /// Times (1, y, y²), of the data term with itself.
    data: [Total; 3],
    floor: Total,
    /// Times (1, x, y, x y), of size with data.
    mixed: [Total; 4],
    /// Times (1, x), of size with floor; times (1, y), of data with floor.
    size_floor: [Total; 2],
    data_floor: [Total; 2],
}

impl Curvature {
    #[expect(clippy::inline_always, reason = "a call would put all lanes through memory")]
    #[inline(always)]
    fn add(&mut self, terms: &Terms, (x, y): (&Lanes, &Lanes), o: &Lanes, p: &Lanes) {
        let each = |of: &dyn Fn(usize) -> f64| -> Lanes { std::array::from_fn(of) };
        let outer_size = each(&|i| o[i] * terms.size[i]);
        let size = each(&|i| terms.size[i] * (outer_size[i] + p[i]));
        let size_x = each(&|i| size[i] * x[i]);
        self.size[0].add(&size);
        self.size[1].add(&size_x);
        self.size[2].add(&each(&|i| size_x[i] * x[i]));
        let mixed = each(&|i| outer_size[i] * terms.data[i]);
        let mixed_x = each(&|i| mixed[i] * x[i]);
        self.mixed[0].add(&mixed);
        self.mixed[1].add(&mixed_x);
        self.mixed[2].add(&each(&|i| mixed[i] * y[i]));
        self.mixed[3].add(&each(&|i| mixed_x[i] * y[i]));
        let size_floor = each(&|i| outer_size[i] * terms.floor[i]);
        self.size_floor[0].add(&size_floor);
        self.size_floor[1].add(&each(&|i| size_floor[i] * x[i]));
        let outer_data = each(&|i| o[i] * terms.data[i]);
        let data = each(&|i| terms.data[i] * (outer_data[i] + p[i]));
        let data_y = each(&|i| data[i] * y[i]);
        self.data[0].add(&data);
        self.data[1].add(&data_y);
        self.data[2].add(&each(&|i| data_y[i] * y[i]));
        let data_floor = each(&|i| outer_data[i] * terms.floor[i]);
        self.data_floor[0].add(&data_floor);
        self.data_floor[1].add(&each(&|i| data_floor[i] * y[i]));
        self.floor.add(&each(&|i| terms.floor[i] * (o[i] * terms.floor[i] + p[i])));
    }

    fn matrix(&self, scale: f64) -> Matrix {
        let of = |total: &Total| scale * total.value();
        let [s, sx, sxx] = [0, 1, 2].map(|i| of(&self.size[i]));
        let [d, dy, dyy] = [0, 1, 2].map(|i| of(&self.data[i]));
        let [m, mx, my, mxy] = [0, 1, 2, 3].map(|i| of(&self.mixed[i]));
        let [sf, sfx] = [0, 1].map(|i| of(&self.size_floor[i]));
        let [df, dfy] = [0, 1].map(|i| of(&self.data_floor[i]));
        let f = of(&self.floor);
        [
            [s, m, sf, -sx, -my],
            [m, d, df, -mx, -dy],
            [sf, df, f, -sfx, -dfy],
            [-sx, -mx, -sfx, sxx, mxy],
            [-my, -dy, -dfy, mxy, dyy],
        ]
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
        let local = fast.local(&at, false);
        for j in 0..N {
            let step = 1e-6;
            let moved = |sign: f64| {
                let mut other = at;
                other[j] += sign * step;
                fast.local(&other, false)
            };
            let (up, down) = (moved(1.0), moved(-1.0));
            let slope = (up.value - down.value) / (2.0 * step);
            assert!((slope - local.gradient[j]).abs() < 1e-7 * (1.0 + slope.abs()), "{j}");
            for i in 0..N {
                let numeric = (up.gradient[i] - down.gradient[i]) / (2.0 * step);
                let found = local.exact[i][j];
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
        assert!((value / fast.local(&fast.centred(&theta), true).value - 1.0).abs() < 1e-13);
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
        let at = [6.1, 7.4, 0.61, 0.345, 0.366];
        let value = |of: &Additive| of.local(&of.centred(&at), false).value;
        assert!((value(&other) / value(&again) - 1.0).abs() < 1e-14);
    }
}
