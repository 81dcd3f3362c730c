//! Owns how a start far from the data comes near them: Huber losses of larger thresholds, each
//! leading to where the next one is near. Does not end at a minimum of the objective; `descent`
//! goes on from there.
//!
//! Far from the data the Huber loss is a sum of absolute values, whose valleys have corners on the
//! scale of the threshold, and second derivatives mislead. With a threshold as large as the
//! residuals it is a sum of squares, which Levenberg's and Marquardt's steps follow. The valleys of
//! sums of powers are long and curved, so each step is bent by the second derivative along it
//! (geodesic acceleration, Transtrum and Sethna 2012, 1201.5885).

use super::{Additive, Curvature, Gradient, Local, Matrix, N, Terms, Total, terms};
use crate::algebra::solve_positive;
use crate::fit::lanes::{LANES, Lanes};
use crate::minimize::MAX_STEP;

/// Mean residual over the threshold up to which the objective is followed as it is.
const NEAR: f64 = 8.0;
/// A sum of squares, in units of a residual of a thousandth, from which on a start is far:
/// residuals of a twentieth.
const FAR_SQUARES: f64 = 1e3;
/// Thresholds before that of the objective, and by how much each is at least below the last.
const MAX_STAGES: usize = 8;
const SHARPENING: f64 = 0.25;
const MAX_STEPS: usize = 60;
/// A stage ends where a step promises less than this share of its objective.
const LEAST_FALL: f64 = 1e-3;
const LOW_DAMPING: f64 = 1e-3;
/// A term that has vanished promises nothing at first; it is followed while its log grows by this
/// much a step.
const GROWTH: f64 = 1.0;
/// Mean share in L below which a term is hardly there.
const LEAST_SHARE: f64 = 1e-2;
/// Share of the predicted fall that a step must reach.
const LEAST_GAIN: f64 = 1e-3;
/// Longest bend of a step, as a share of it.
const MAX_BEND: f64 = 0.75;
const FIRST_DAMPING: f64 = 0.1;
const LAST_DAMPING: f64 = 1e8;

/// The sum of a larger threshold around one point.
struct Far {
    value: f64,
    gradient: [f64; N],
    /// Gauss and Newton's matrix with the weights of iterated reweighting.
    gauss: Matrix,
    /// What is added to its diagonal by damping: the diagonal itself and the second derivatives of
    /// each term without their signs, which a vanished term has more of than of squares.
    size: [f64; N],
    /// Mean share of each term in L.
    shares: [f64; 3],
}

/// What a step needs again of each block of points: the law's terms there and the weights.
type Kept = Vec<(Terms, Lanes)>;

impl Additive {
    /// From `start` to where the mean residual is near the threshold, if there is a way; and the
    /// objective there.
    pub(super) fn approach(&self, start: [f64; N]) -> ([f64; N], Local) {
        let mut at = start;
        let mut last = f64::INFINITY;
        let mut local = self.local(&at, true);
        if self.threshold.is_infinite() {
            // Squares have no corners: one stage of them, if it is needed.
            if local.value.is_finite() && local.value > FAR_SQUARES {
                at = self.stage(at, f64::MAX);
                local = self.local(&at, true);
            }
            return (at, local);
        }
        for _ in 0..MAX_STAGES {
            // Beyond the threshold the objective is about the mean residual over the threshold.
            let threshold = (self.threshold * local.value).min(SHARPENING * last);
            let is_far = local.value.is_finite() && local.value > NEAR;
            if !is_far || threshold <= self.threshold {
                break;
            }
            at = self.stage(at, threshold);
            local = self.local(&at, true);
            last = threshold;
        }
        (at, local)
    }

    /// Damped steps at one threshold until they gain little.
    fn stage(&self, start: [f64; N], threshold: f64) -> [f64; N] {
        let mut at = start;
        let (mut kept, mut other) = (Kept::new(), Kept::new());
        let mut far = self.far(&at, threshold, &mut kept);
        let mut damping = FIRST_DAMPING;
        let mut was_refused = false;
        for _ in 0..MAX_STEPS {
            if !far.value.is_finite() || damping > LAST_DAMPING {
                break;
            }
            let Some((step, fall)) = self.bent_step(&far, damping, &kept) else {
                damping *= 3.0;
                continue;
            };
            let grows = step[0].max(step[1]).max(step[2]) >= GROWTH;
            if damping <= LOW_DAMPING && fall <= LEAST_FALL * far.value && !grows {
                break;
            }
            let next: [f64; N] = std::array::from_fn(|i| at[i] + step[i]);
            let below = self.far(&next, threshold, &mut other);
            let gain = (far.value - below.value) / fall;
            if gain > LEAST_GAIN {
                (at, far) = (next, below);
                std::mem::swap(&mut kept, &mut other);
            }
            // A damping that has just been found necessary is kept for a step.
            damping *= match gain {
                gain if gain > 0.7 && !was_refused => 0.2,
                gain if gain > 0.3 => 0.7,
                gain if gain > LEAST_GAIN => 2.0,
                _ => 4.0,
            };
            was_refused = gain <= LEAST_GAIN;
        }
        at
    }

    /// A damped step with its bend, and the fall that the straight one predicts.
    fn bent_step(&self, far: &Far, damping: f64, kept: &Kept) -> Option<([f64; N], f64)> {
        let mut matrix = far.gauss;
        for i in 0..N {
            matrix[i][i] += (damping + 1e-11) * (far.size[i] + 1e-12);
        }
        let straight = far.clamped(solve_positive(&matrix, &far.gradient)?.map(|value| -value));
        let mut fall = 0.0;
        for i in 0..N {
            let along: f64 = (0..N).map(|j| far.gauss[i][j] * straight[j]).sum();
            fall -= straight[i] * (far.gradient[i] + 0.5 * along);
        }
        if !(fall.is_finite() && fall > 0.0) {
            return None;
        }
        let bend = solve_positive(&matrix, &self.second_along(&straight, kept))?;
        let length = |step: &[f64; N]| -> f64 {
            step.iter().zip(&far.size).map(|(value, size)| value * value * size).sum()
        };
        let is_straight = length(&bend) > (MAX_BEND * MAX_BEND) * length(&straight);
        let share = if is_straight { 0.0 } else { 0.5 };
        Some((far.clamped(std::array::from_fn(|i| straight[i] - share * bend[i])), fall))
    }

    /// Jᵀ W r'' with r'' the second derivatives of the residuals along `step`.
    fn second_along(&self, step: &[f64; N], kept: &Kept) -> [f64; N] {
        let mut total = Gradient::default();
        for ((x, y), (terms, weight)) in self.x.iter().zip(&self.y).zip(kept) {
            let mut pull = [0.0; LANES];
            for i in 0..LANES {
                let (w, v, u) = (terms.size[i], terms.data[i], terms.floor[i]);
                let (size, data) = (step[0] - step[3] * x[i], step[1] - step[4] * y[i]);
                let mean = w * size + v * data + u * step[2];
                let squares = w * size * size + v * data * data + u * step[2] * step[2];
                pull[i] = weight[i] * (squares - mean * mean);
            }
            total.add(terms, (x, y), &pull);
        }
        total.vector(1.0)
    }

    /// Sums over the points for a threshold, per unit of it and of weight; keeps the terms of each
    /// point.
    fn far(&self, at: &[f64; N], threshold: f64, kept: &mut Kept) -> Far {
        kept.clear();
        let floor = at[2].clamp(-700.0, 700.0).exp();
        // The scale is that of the objective's own threshold; here values are in units of this one.
        // Of squares it stays.
        let unit = if self.threshold.is_finite() { self.threshold / threshold } else { 1.0 };
        let scale = unit * unit / self.scale;
        let (mut value, mut gradient) = (Total::default(), Gradient::default());
        let (mut size, mut shares) = ([Total::default(); N], [Total::default(); 3]);
        let mut gauss = Curvature::default();
        let columns = self.x.iter().zip(&self.y).zip(&self.inverse_loss).zip(&self.weights);
        for (((x, y), inverse_loss), weights) in columns {
            let terms = terms(at, floor, (x, y), inverse_loss);
            let (mut weight, mut pull) = ([0.0; LANES], [0.0; LANES]);
            let mut losses = [0.0; LANES];
            for i in 0..LANES {
                let residual = terms.residual[i];
                let clipped = residual.clamp(-threshold, threshold);
                pull[i] = scale * weights[i] * clipped;
                losses[i] = pull[i] * (residual - 0.5 * clipped);
                weight[i] = scale * weights[i] * (threshold / residual.abs().max(threshold));
            }
            value.add(&losses);
            gradient.add(&terms, (x, y), &pull);
            gauss.add(&terms, (x, y), &weight, &[0.0; LANES]);
            let each = |of: &dyn Fn(usize) -> f64| -> Lanes { std::array::from_fn(of) };
            let of_size = each(&|i| pull[i].abs() * terms.size[i]);
            let of_data = each(&|i| pull[i].abs() * terms.data[i]);
            size[0].add(&of_size);
            size[1].add(&of_data);
            size[2].add(&each(&|i| pull[i].abs() * terms.floor[i]));
            size[3].add(&each(&|i| x[i] * x[i] * of_size[i]));
            size[4].add(&each(&|i| y[i] * y[i] * of_data[i]));
            shares[0].add(&each(&|i| weights[i] * terms.size[i]));
            shares[1].add(&each(&|i| weights[i] * terms.data[i]));
            shares[2].add(&each(&|i| weights[i] * terms.floor[i]));
            kept.push((terms, weight));
        }
        let gauss = gauss.matrix(1.0);
        let shares = shares.map(Total::value);
        let all: f64 = shares.iter().sum();
        Far {
            value: value.value(),
            gradient: gradient.vector(1.0),
            size: std::array::from_fn(|i| size[i].value() + gauss[i][i]),
            gauss,
            shares: shares.map(|share| share / all),
        }
    }
}

impl Far {
    /// No parameter moves too far, and a term that is hardly there is not made smaller: that gains
    /// nothing, and it is hard to come back.
    fn clamped(&self, step: [f64; N]) -> [f64; N] {
        let mut step = step.map(|value| value.clamp(-MAX_STEP, MAX_STEP));
        for (value, share) in step.iter_mut().zip(&self.shares) {
            if *share < LEAST_SHARE {
                *value = value.max(0.0);
            }
        }
        step
    }
}
