//! The gated linear unit's inner part: φ(gate) ⊙ up.
//!
//! It does not know the products around it.
//!
//! Backwards, with g the gate, u the other factor and dh the gradient: du = φ(g) ⊙ dh and
//! dg = φ′(g) ⊙ u ⊙ dh. Saved are g and u; φ(g) is made again, a slab at a time, which costs less
//! than bringing it back from memory.

use domain::model::FfnActivation;
use tch::Tensor;
use torch_ext::{Backward, Forward};

use super::graph::in_graph;
use super::{sizes, slabs};

/// φ(gate) ⊙ up, both `[…, F]`; the result `[…, F]` in their kind.
pub fn glu(gate: &Tensor, up: &Tensor, activation: FfnActivation) -> Tensor {
    match activation {
        FfnActivation::Identity => gate * up,
        FfnActivation::Silu => silu_times(gate, up),
    }
}

fn silu_times(gate: &Tensor, up: &Tensor) -> Tensor {
    let shape = gate.size();
    let width = *shape.last().expect("a gate has channels");
    let [gate, up] = [gate, up].map(|x| x.view([-1, width])); // [R, F]
    let output = tch::no_grad(|| forward(&gate, &up));
    let inputs = [&gate, &up];
    let forward = Forward { name: "glu", inputs: &inputs, outputs: &[&output], saved: &inputs };
    let [output] = in_graph(&forward, backward);
    output.view(shape.as_slice())
}

fn forward(gate: &Tensor, up: &Tensor) -> Tensor {
    let [rows, width] = sizes(gate);
    let output = Tensor::empty([rows, width], (gate.kind(), gate.device()));
    for (from, count) in slabs(rows, width, gate.device()) {
        let part = |x: &Tensor| x.narrow(0, from, count);
        drop(part(gate).silu().mul_out(&part(&output), &part(up)));
    }
    output
}

fn backward(given: &Backward<'_>) -> Vec<Option<Tensor>> {
    let [gate, up] = given.saved else { unreachable!("two tensors are saved") };
    let d_output = given.gradients[0].as_ref().expect("the only output has the gradient");
    let [rows, width] = sizes(gate);
    let [d_gate, d_up] = [0, 1].map(|_| Tensor::empty([rows, width], (gate.kind(), gate.device())));
    for (from, count) in slabs(rows, width, gate.device()) {
        let part = |x: &Tensor| x.narrow(0, from, count);
        let (gate, d_output) = (part(gate), part(d_output));
        drop(gate.silu().mul_out(&part(&d_up), &d_output));
        let d_activation = d_output * part(up);
        drop(gate.silu_backward_grad_input(&part(&d_gate), &d_activation));
    }
    vec![Some(d_gate), Some(d_up)]
}

/// The naive twin: as the contract writes it.
pub fn naive(gate: &Tensor, up: &Tensor, activation: FfnActivation) -> Tensor {
    match activation {
        FfnActivation::Identity => gate * up,
        FfnActivation::Silu => gate * gate.sigmoid() * up,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_with_gradients, random};

    #[test]
    fn the_fused_unit_and_the_formula_agree_in_slabs_and_for_parts_of_a_row() {
        for activation in [FfnActivation::Silu, FfnActivation::Identity] {
            // The last has more numbers than a slab.
            for (rows, width) in [(1, 1), (7, 5), (600, 700)] {
                let both = random(&[1, rows, 2 * width], 1) * 4.0;
                let halves = |x: &Tensor| [0, 1].map(|at| x.narrow(2, at * width, width));
                assert_same_with_gradients(
                    &[&both],
                    |x| {
                        let [gate, up] = halves(&x[0]);
                        vec![glu(&gate, &up, activation)]
                    },
                    |x| {
                        let [gate, up] = halves(&x[0]);
                        vec![naive(&gate, &up, activation)]
                    },
                );
            }
        }
    }
}
