//! Owns the descent of the additive law: damped Newton steps with exact second derivatives.
//! Does not choose starting points; `approach` brings those that are far from the data near them.

use super::{Additive, Local, Matrix, N, sum};
use crate::algebra::solve_positive;
use crate::minimize::{DECREMENT, MAX_STEP, Minimum, OBJECTIVE_FLOOR};

/// Steps at one threshold after which a descent has failed.
const MAX_STEPS: usize = 60;
/// Share of the predicted fall that a step must reach.
const LEAST_FALL: f64 = 1e-4;
/// Damping where undamped steps fail, and the largest one that is tried.
const FIRST_DAMPING: f64 = 0.1;
const LAST_DAMPING: f64 = 1e6;
/// Root mean square of residuals of ln L below which a descent that is still going on has
/// converged: losses without noise whose coefficients can be traded lie in a valley that is flat to
/// rounding.
const EXACT: f64 = 1e-6;
/// Newton steps that bring a minimum to the limit of rounding; two are enough, since each squares
/// the error.
const LAST_STEPS: usize = 6;

/// Where a descent is.
struct State {
    at: [f64; N],
    local: Local,
    is_converged: bool,
}

impl Additive {
    /// Follows `start` downhill; not converged where no step leads down or too many are needed.
    pub(in crate::fit) fn descend(&self, start: &[f64]) -> Minimum {
        let (at, local) = self.approach(self.centred(start));
        self.minimum(&self.follow(at, local))
    }

    /// The minimum that `minimum` is close to, to the limit of rounding.
    pub(in crate::fit) fn sharpen(&self, minimum: Minimum) -> Minimum {
        let mut best: Option<(f64, State)> = None;
        let mut at = self.centred(&minimum.theta);
        for _ in 0..LAST_STEPS {
            let local = self.local(&at, false);
            let Some((step, fall)) = local.step(0.0) else { break };
            // Beyond the limit of rounding a step no longer lowers what the next one can gain.
            if best.as_ref().is_some_and(|(least, _)| fall >= *least) {
                break;
            }
            best = Some((fall, State { at, local, is_converged: minimum.converged }));
            at = moved(&at, &step);
        }
        match best {
            Some((_, state)) if state.local.value <= minimum.value * (1.0 + 1e-12) => {
                self.minimum(&state)
            }
            _ => minimum,
        }
    }

    fn minimum(&self, end: &State) -> Minimum {
        Minimum {
            theta: self.plain(&end.at),
            value: end.local.value,
            gradient_norm: end.local.gradient.iter().map(|value| value * value).sum::<f64>().sqrt(),
            converged: end.is_converged,
        }
    }

    /// Damped Newton steps until the squared decrement is below a share of the objective.
    fn follow(&self, mut at: [f64; N], mut local: Local) -> State {
        let mut damping = 0.0;
        for _ in 0..MAX_STEPS {
            if !local.value.is_finite() || damping > LAST_DAMPING {
                break;
            }
            if damping > 0.0 && local.bound.is_none() {
                local = self.local(&at, true);
            }
            let Some((step, fall)) = local.step(damping) else {
                damping = more(damping);
                continue;
            };
            // The predicted fall of an undamped step is half the squared decrement.
            if damping <= 1.0 && 2.0 * fall <= DECREMENT * (local.value + OBJECTIVE_FLOOR) {
                return State { at, local, is_converged: true };
            }
            let next = moved(&at, &step);
            let below = self.local(&next, damping > 0.0);
            let rounding = 4.0 * f64::EPSILON * local.value.abs();
            if below.value <= local.value - LEAST_FALL * fall + rounding {
                (at, local) = (next, below);
                damping = if damping < 1e-3 { 0.0 } else { 0.2 * damping };
            } else {
                damping = more(damping);
            }
        }
        let total: f64 = self.weights.iter().map(sum).sum();
        let is_exact = 2.0 * local.value * self.scale <= EXACT * EXACT * total;
        State { at, local, is_converged: is_exact }
    }
}

impl Local {
    /// The step for a damping, and the fall that the quadratic model predicts; `None` where the
    /// model has no minimum.
    fn step(&self, damping: f64) -> Option<([f64; N], f64)> {
        let matrix = self.damped(damping);
        let solution = solve_positive(&matrix, &self.gradient)?;
        let fall: f64 = 0.5 * solution.iter().zip(&self.gradient).map(|(a, b)| a * b).sum::<f64>();
        let longest = solution.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
        let factor = (MAX_STEP / longest).min(1.0);
        let step = solution.map(|value| -factor * value);
        // A shortened step falls by less than the whole one.
        (fall.is_finite() && fall >= 0.0).then_some((step, factor * fall))
    }

    fn damped(&self, damping: f64) -> Matrix {
        let mut matrix = self.exact;
        if let Some(bound) = &self.bound {
            for (row, others) in matrix.iter_mut().zip(bound) {
                row.iter_mut().zip(others).for_each(|(value, other)| *value += damping * other);
            }
        }
        for i in 0..N {
            // A direction without effect, such as a term that has vanished, must not make the
            // matrix singular.
            let size = self.bound.as_ref().map_or(self.exact[i][i].abs(), |bound| bound[i][i]);
            matrix[i][i] += 1e-11 * (1.0 + damping) * (size + 1e-6);
        }
        matrix
    }
}

fn moved(at: &[f64; N], step: &[f64; N]) -> [f64; N] {
    std::array::from_fn(|i| at[i] + step[i])
}

fn more(damping: f64) -> f64 {
    if damping == 0.0 { FIRST_DAMPING } else { 10.0 * damping }
}
