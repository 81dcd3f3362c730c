//! Owns the local minimiser: BFGS with a weak-Wolfe line search, started in the Gauss-Newton
//! metric. Does not choose starting points; `fit` does.
//!
//! A Huber loss with a threshold far below the residuals is nearly a sum of absolute values. The
//! bracketing line search of Lewis and Overton (2013, "Nonsmooth optimization via quasi-Newton
//! methods") keeps BFGS reliable there, where interpolating searches meet kinks.

use crate::algebra::{cholesky, dot, inverse, multiply, solve};

/// Sufficient decrease of the line search (Nocedal and Wright 2006, section 3.1).
const ARMIJO: f64 = 1e-4;
/// Curvature condition for quasi-Newton directions (Nocedal and Wright 2006, section 3.1).
const CURVATURE: f64 = 0.9;
/// Steps of one line search before it is given up; 2^-50 is below the resolution of `f64`.
const LINE_STEPS: usize = 50;
/// Iterations of one descent; converged ones need 20 to 150.
pub(crate) const MAX_ITERATIONS: usize = 400;
/// Converged when the squared Newton decrement, about twice the gain left, is below this share of
/// the objective.
pub(crate) const DECREMENT: f64 = 1e-13;
/// Where no step decreases the objective in floating point, this share is still accepted as
/// converged.
const DECREMENT_STALLED: f64 = 1e-8;
/// Added to the objective in those tests, so that an exact fit with objective 0 can converge.
pub(crate) const OBJECTIVE_FLOOR: f64 = 1e-9;
/// Longest first step in any parameter: parameters are logs and exponents, beyond this the law
/// overflows.
pub(crate) const MAX_STEP: f64 = 4.0;
/// Newton steps that bring a minimum to the limit of rounding.
const SHARPENING_STEPS: usize = 8;
/// Step of differences of the gradient, in changes of a parameter that move residuals by their
/// unit: small, because the corners of a Huber loss that lie within it are smoothed.
const DIFFERENCE: f64 = 1e-4;

/// A function to minimise; values should be of order one at the minimum.
pub(crate) trait Smooth {
    /// Value at `theta`; writes the gradient.
    fn value(&self, theta: &[f64], gradient: &mut [f64]) -> f64;
    /// A positive semi-definite approximation of the second derivatives, row-major.
    fn metric(&self, theta: &[f64]) -> Vec<f64>;
}

/// Where a descent ended.
#[derive(Debug, Clone)]
pub(crate) struct Minimum {
    pub(crate) theta: Vec<f64>,
    pub(crate) value: f64,
    /// Length of the gradient of the scaled objective.
    pub(crate) gradient_norm: f64,
    pub(crate) converged: bool,
}

/// The minimum that `minimum` is close to, as exactly as rounding allows: Newton steps with second
/// derivatives from differences of the gradient, until a step promises no less than the one before.
pub(crate) fn sharpen(objective: &impl Smooth, minimum: Minimum) -> Minimum {
    let n = minimum.theta.len();
    let mut best: Option<(f64, Minimum)> = None;
    let mut theta = minimum.theta.clone();
    let mut gradient = vec![0.0; n];
    for _ in 0..SHARPENING_STEPS {
        let value = objective.value(&theta, &mut gradient);
        let Some(step) = newton_step(objective, &theta, &gradient) else { break };
        let fall = dot(&step, &gradient);
        let is_better = best.as_ref().is_none_or(|(least, _)| fall < *least);
        if !(fall >= 0.0 && is_better) {
            break;
        }
        let gradient_norm = dot(&gradient, &gradient).sqrt();
        let reached = Minimum { theta: theta.clone(), value, gradient_norm, ..minimum };
        best = Some((fall, reached));
        theta.iter_mut().zip(&step).for_each(|(value, change)| *value -= change);
    }
    // Steps to a saddle or into another basin are not what was asked for.
    let is_same = |one: &Minimum| one.value <= minimum.value + 1e-12 * (1.0 + minimum.value);
    best.map(|(_, reached)| reached).filter(is_same).unwrap_or(minimum)
}

/// H⁻¹ g with H from central differences of the gradient; `None` where H is not positive definite.
fn newton_step(objective: &impl Smooth, theta: &[f64], gradient: &[f64]) -> Option<Vec<f64>> {
    let n = theta.len();
    let metric = objective.metric(theta);
    // The change of a parameter that moves residuals by about their unit.
    let scales: Vec<f64> = (0..n).map(|i| 1.0 / metric[i * n + i].sqrt()).collect();
    if scales.iter().any(|scale| !scale.is_finite()) {
        return None;
    }
    let mut scaled = vec![0.0; n * n];
    let (mut up, mut down) = (vec![0.0; n], vec![0.0; n]);
    for column in 0..n {
        let mut moved = theta.to_vec();
        let step = DIFFERENCE * scales[column];
        moved[column] = theta[column] + step;
        let above = moved[column];
        objective.value(&moved, &mut up);
        moved[column] = theta[column] - step;
        objective.value(&moved, &mut down);
        let width = above - moved[column];
        for row in 0..n {
            let second = scales[row] * scales[column] * (up[row] - down[row]) / width;
            scaled[row * n + column] += 0.5 * second;
            scaled[column * n + row] += 0.5 * second;
        }
    }
    let lower = cholesky(&scaled, n)?;
    let right: Vec<f64> = gradient.iter().zip(&scales).map(|(g, scale)| g * scale).collect();
    Some(solve(&lower, n, &right).iter().zip(&scales).map(|(x, scale)| x * scale).collect())
}

struct State {
    theta: Vec<f64>,
    gradient: Vec<f64>,
    value: f64,
}

/// Descends from `start`, in at most so many iterations.
pub(crate) fn minimize(objective: &impl Smooth, start: &[f64], most: usize) -> Minimum {
    let mut gradient = vec![0.0; start.len()];
    let value = objective.value(start, &mut gradient);
    let mut state = State { theta: start.to_vec(), gradient, value };
    let converged = value.is_finite() && descend(objective, &mut state, most);
    Minimum {
        gradient_norm: dot(&state.gradient, &state.gradient).sqrt(),
        theta: state.theta,
        value: state.value,
        converged,
    }
}

fn descend(objective: &impl Smooth, state: &mut State, most: usize) -> bool {
    let mut metric = inverse_metric(objective, &state.theta);
    let mut is_fresh = true;
    for _ in 0..most {
        let uphill = multiply(&metric, &state.gradient);
        let direction: Vec<f64> = uphill.iter().map(|value| -value).collect();
        let decrement = -dot(&direction, &state.gradient);
        let scale = state.value + OBJECTIVE_FLOOR;
        if decrement.abs() <= DECREMENT * scale {
            return true;
        }
        match line_search(objective, state, &direction) {
            Some(next) => {
                update(&mut metric, state, &next);
                *state = next;
                is_fresh = false;
            }
            None if !is_fresh => {
                metric = inverse_metric(objective, &state.theta);
                is_fresh = true;
            }
            None => return decrement <= DECREMENT_STALLED * scale,
        }
    }
    false
}

fn inverse_metric(objective: &impl Smooth, theta: &[f64]) -> Vec<f64> {
    let n = theta.len();
    let mut metric = objective.metric(theta);
    let largest = (0..n).map(|i| metric[i * n + i]).fold(0.0, f64::max).max(1e-12);
    let mut ridge = 1e-10;
    loop {
        let mut damped = metric.clone();
        for i in 0..n {
            damped[i * n + i] += ridge * (metric[i * n + i] + 1e-3 * largest);
        }
        if let Some(lower) = cholesky(&damped, n) {
            return inverse(&lower, n);
        }
        ridge *= 100.0;
        if ridge > 1.0 {
            // The metric itself is not finite: fall back to steepest descent.
            metric.fill(0.0);
            (0..n).for_each(|i| metric[i * n + i] = 1.0);
            return metric;
        }
    }
}

fn line_search(objective: &impl Smooth, from: &State, direction: &[f64]) -> Option<State> {
    let slope = dot(direction, &from.gradient);
    if slope.is_nan() || slope >= 0.0 {
        return None;
    }
    let longest = direction.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    let (mut low, mut high) = (0.0, f64::INFINITY);
    let mut step = (MAX_STEP / longest).min(1.0);
    let mut next =
        State { theta: from.theta.clone(), gradient: from.gradient.clone(), value: from.value };
    // Rounding of the sum: without this allowance the last steps before the optimum are refused.
    let rounding = 4.0 * f64::EPSILON * from.value.abs();
    for _ in 0..LINE_STEPS {
        for ((to, start), along) in next.theta.iter_mut().zip(&from.theta).zip(direction) {
            *to = start + step * along;
        }
        next.value = objective.value(&next.theta, &mut next.gradient);
        let decreases = next.value <= from.value + ARMIJO * step * slope + rounding;
        if !(decreases && next.value.is_finite()) {
            high = step;
        } else if dot(&next.gradient, direction) < CURVATURE * slope {
            low = step;
        } else {
            return Some(next);
        }
        step = if high.is_finite() { 0.5 * (low + high) } else { 2.0 * step };
        if step * longest > 100.0 * MAX_STEP {
            // The objective falls without end along this direction; a finite point is still
            // progress.
            return Some(next).filter(|state| state.value < from.value);
        }
    }
    None
}

/// The BFGS update of the inverse (Nocedal and Wright 2006, equation 6.17).
fn update(metric: &mut [f64], from: &State, to: &State) {
    let n = from.theta.len();
    let s: Vec<f64> = to.theta.iter().zip(&from.theta).map(|(a, b)| a - b).collect();
    let y: Vec<f64> = to.gradient.iter().zip(&from.gradient).map(|(a, b)| a - b).collect();
    let sy = dot(&s, &y);
    if sy.is_nan() || sy <= 1e-300 {
        return;
    }
    let hy = multiply(metric, &y);
    let factor = (1.0 + dot(&y, &hy) / sy) / sy;
    for row in 0..n {
        for column in 0..n {
            metric[row * n + column] +=
                factor * s[row] * s[column] - (hy[row] * s[column] + s[row] * hy[column]) / sy;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Rosenbrock;

    impl Smooth for Rosenbrock {
        fn value(&self, theta: &[f64], gradient: &mut [f64]) -> f64 {
            let (x, y) = (theta[0], theta[1]);
            let valley = y - x * x;
            gradient[0] = -2.0 * (1.0 - x) - 400.0 * x * valley;
            gradient[1] = 200.0 * valley;
            (1.0 - x).powi(2) + 100.0 * valley.powi(2)
        }

        fn metric(&self, _theta: &[f64]) -> Vec<f64> {
            vec![1.0, 0.0, 0.0, 1.0]
        }
    }

    #[test]
    fn the_curved_valley_is_followed_to_its_end() {
        let minimum = minimize(&Rosenbrock, &[-1.2, 1.0], MAX_ITERATIONS);
        assert!(minimum.converged);
        assert!(minimum.theta.iter().all(|x| (x - 1.0).abs() < 1e-5), "{minimum:?}");
    }
}
