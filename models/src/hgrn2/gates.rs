//! The gates: log f and k from z and the bound, as one function of the graph.
//!
//! It does not know where bounds come from.
//!
//! f = lb + (1 − lb) σ(z),  k = 1 − f = (1 − lb) σ(−z);  without bound f = σ(z).
//!
//! f is only needed as its log. Where f is small, log f = logaddexp(log lb, log(1 − lb) + log σ(z));
//! where it is near 1, 1 − k would lose what k has, so there log f = log1p(−k). k comes from the other
//! side of the sigmoid for the same reason.
//!
//! Backwards, with s = (1 − lb) σ(z) / f, the part of f that z makes:  d log f / dz = s σ(−z),
//! dk / dz = −k σ(z),  dk / d log(1 − lb) = k. Of the bounds' two logs, log f depends by s on log(1 − lb)
//! and by lb / f on log lb where f is small; where it is near 1 only through k, by −k / f on
//! log(1 − lb), for there the two would cancel.

use tch::{Kind, Tensor};
use torch_ext::{Backward, Forward};

use crate::ops::graph::in_graph;
use crate::ops::{sizes, slabs};

/// Below this k the forget gate counts as near 1.
const NEAR_ONE: f64 = 0.5;

/// The logs of lb and 1 − lb, `[E]` each.
#[derive(Debug)]
pub(super) struct LogBound {
    pub(super) bound: Tensor,
    pub(super) rest: Tensor,
}

/// log f and k, both of the shape of z, `[B, T, E]`.
pub(super) fn gates(z: &Tensor, log_bound: Option<&LogBound>) -> (Tensor, Tensor) {
    let [b, t, width] = sizes(z);
    let rows = z.reshape([b * t, width]);
    let bounds: Vec<&Tensor> =
        log_bound.into_iter().flat_map(|logs| [&logs.bound, &logs.rest]).collect();
    let (log_forget, k) = tch::no_grad(|| forward(&rows, &bounds));
    let inputs: Vec<&Tensor> = [&rows].into_iter().chain(bounds.iter().copied()).collect();
    let saved: Vec<&Tensor> =
        [&rows, &log_forget, &k].into_iter().chain(bounds.iter().copied()).collect();
    let outputs = [&log_forget, &k];
    let function = Forward { name: "gates", inputs: &inputs, outputs: &outputs, saved: &saved };
    let [log_forget, k] = in_graph(&function, backward).map(|x| x.view([b, t, width]));
    (log_forget, k)
}

fn forward(z: &Tensor, bounds: &[&Tensor]) -> (Tensor, Tensor) {
    let [rows, width] = sizes(z);
    let (log_forget, k) = (z.empty_like(), z.empty_like());
    for (from, count) in slabs(rows, width, z.device()) {
        let part = |x: &Tensor| x.narrow(0, from, count);
        let (kept, written) = (part(z).log_sigmoid(), (-part(z)).sigmoid());
        let [log_bound, log_rest] = bounds else {
            part(&log_forget).copy_(&kept);
            part(&k).copy_(&written);
            continue;
        };
        let written = written * log_rest.exp();
        let small = (kept + *log_rest).logaddexp(log_bound);
        let near_one = (-&written).log1p();
        part(&log_forget).copy_(&near_one.where_self(&written.lt(NEAR_ONE), &small));
        part(&k).copy_(&written);
    }
    (log_forget, k)
}

/// The gradients of z and, where there are bounds, of their two logs.
fn backward(given: &Backward<'_>) -> Vec<Option<Tensor>> {
    let [z, log_forget, k, bounds @ ..] = given.saved else {
        unreachable!("three tensors are saved at least")
    };
    let [rows, width] = sizes(z);
    let dz = z.empty_like();
    let mut d_bounds: Vec<Tensor> = bounds.iter().map(Tensor::zeros_like).collect();
    for (from, count) in slabs(rows, width, z.device()) {
        let part = |x: &Tensor| x.narrow(0, from, count);
        let (z, log_forget, k) = (part(z), part(log_forget), part(k));
        let of =
            |output: usize| given.gradients[output].as_ref().map_or_else(|| z.zeros_like(), &part);
        let (d_log_forget, dk) = (of(0), of(1));
        let to_k = &dk * &k;
        let through_k = &to_k * z.sigmoid();
        let [log_bound, log_rest] = bounds else {
            part(&dz).copy_(&(d_log_forget * k - through_k));
            continue;
        };
        let share = (z.log_sigmoid() + log_rest - &log_forget).exp();
        let to_share = &d_log_forget * &share;
        part(&dz).copy_(&(&to_share * (-z).sigmoid() - through_k));
        let is_near_one = k.lt(NEAR_ONE);
        let near_one = &d_log_forget * (&k / -log_forget.exp());
        let to_rest = near_one.where_self(&is_near_one, &to_share) + to_k;
        let to_bound = d_log_forget * (log_bound - log_forget).exp();
        let to_bound = to_bound.masked_fill(&is_near_one, 0.0);
        for (sum, found) in d_bounds.iter_mut().zip([to_bound, to_rest]) {
            *sum += found.sum_dim_intlist(0, false, None::<Kind>);
        }
    }
    [dz].into_iter().chain(d_bounds).map(Some).collect()
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::ops::testing::{assert_same_with_gradients, random};

    /// As the equations say, in operations that libtorch differentiates.
    fn plain(z: &Tensor, bounds: Option<&LogBound>) -> Vec<Tensor> {
        let (kept, written) = (z.log_sigmoid(), (-z).sigmoid());
        let Some(LogBound { bound, rest }) = bounds else {
            return vec![kept, written];
        };
        let k = written * rest.exp();
        let small = bound.logaddexp(&(kept + rest));
        // Clamped, because a gradient of infinity times the zero of the other branch is no number.
        let near_one = (-k.clamp_max(NEAR_ONE)).log1p();
        vec![near_one.where_self(&k.lt(NEAR_ONE), &small), k]
    }

    fn pair((log_forget, k): (Tensor, Tensor)) -> Vec<Tensor> {
        vec![log_forget, k]
    }

    #[test]
    fn gates_and_their_gradients_are_those_of_the_plain_operations() {
        for scale in [1.0, 20.0] {
            let z = random(&[2, 700, 5], 1) * scale;
            assert_same_with_gradients(&[&z], |x| pair(gates(&x[0], None)), |x| plain(&x[0], None));
            // From a bound of 1e-9 to one of 1 − 1e-5. Not 0.5, where k of a closed gate is at the
            // border of the two forms, and rounding decides which log of the bound has the gradient.
            let bound = Tensor::from_slice(&[1e-9, 0.1, 0.4, 0.9, 1.0 - 1e-5]);
            let (log_bound, log_rest) = (bound.log(), (-&bound).log1p());
            let logs =
                |x: &[Tensor]| LogBound { bound: x[1].shallow_clone(), rest: x[2].shallow_clone() };
            assert_same_with_gradients(
                &[&z, &log_bound, &log_rest],
                |x| pair(gates(&x[0], Some(&logs(x)))),
                |x| plain(&x[0], Some(&logs(x))),
            );
        }
    }

    #[test]
    fn saturated_gates_have_finite_gradients() {
        let z = Tensor::from_slice(&[-200.0_f32, -90.0, 0.0, 90.0, 200.0]).view([1, 5, 1]);
        let z = z.set_requires_grad(true);
        let half = Tensor::from_slice(&[0.5_f32.ln()]);
        let rest = half.shallow_clone();
        for bounds in [None, Some(&LogBound { bound: half, rest })] {
            let (log_forget, k) = gates(&z, bounds);
            (log_forget + k).sum(Kind::Float).backward();
            assert_eq!(z.grad().isfinite().all().int64_value(&[]), 1);
        }
        assert_eq!(z.device(), Device::Cpu);
    }
}
