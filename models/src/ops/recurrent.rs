//! The linear operators after a past: the state of the tokens read so far comes in with the next
//! ones and moves on over them.
//!
//! It keeps no state, the caller does, and it has no gradients: it is for generation.
//!
//! One token is one step of the recurrence, in place; more go in the form that trains, and the state is
//! the same to rounding. Either way the state keeps its size.

use tch::{Kind, Tensor};

use super::decay_attention::{self, DecayTable, decay_attention_with_state};
use super::gated_attention::{self, GateTable, gated_attention};
use super::sizes;
use super::table::constant;
use super::toeplitz::{FilterForm, Toeplitz, mode_power};

/// Linear attention with a fixed decay per head, `rates[head]` = −log λ: q, k `[B, T, H, K]` and
/// v `[B, T, H, V]` of the next T tokens to their outputs `[B, T, H, V]`; `state` `[B, H, K, V]`
/// moves on.
pub fn decay_after([q, k, v]: [&Tensor; 3], rates: &[f64], state: &mut Tensor) -> Tensor {
    let [_, t, h, _] = sizes(q);
    if t > 1 {
        let chunk = decay_attention::CHUNK;
        let table = DecayTable::new(rates, t, chunk, q.kind(), q.device());
        let (output, last) = decay_attention_with_state(q, k, v, &table, state);
        *state = own(&last);
        return output;
    }
    if rates.iter().any(|rate| *rate != 0.0) {
        let decays: Vec<f64> = rates.iter().map(|rate| (-rate).exp()).collect();
        *state *= constant(&decays, &[h, 1, 1], q.kind(), q.device());
    }
    write(state, k, v);
    read(state, q)
}

/// Linear attention with a decay per key channel and token: q, k, log_forget `[B, T, H, K]` and
/// v `[B, T, H, V]` of the next T tokens to their outputs `[B, T, H, V]`; `state` `[B, H, K, V]`
/// moves on.
pub fn gated_after(inputs: [&Tensor; 4], state: &mut Tensor) -> Tensor {
    let [q, k, v, log_forget] = inputs;
    let [_, t, _, _] = sizes(q);
    if t > 1 {
        let table = GateTable::new(t, gated_attention::CHUNK, q.kind(), q.device());
        let (output, last) = gated_attention(inputs, &table, Some(state));
        *state = own(&last);
        return output;
    }
    *state *= log_forget.select(1, 0).exp().unsqueeze(-1); // [B, H, K, 1]
    write(state, k, v);
    read(state, q)
}

/// The Toeplitz filter with the weight `[E, J]`: x `[B, T, E]` of the next T tokens to the same
/// shape; `state`, the modes u `[B, E, J]`, moves on.
pub fn toeplitz_after(
    filter: &Toeplitz,
    weight: &Tensor,
    x: &Tensor,
    state: &mut Tensor,
) -> Tensor {
    let [_, t, _] = sizes(x);
    let [_, modes] = sizes(weight);
    let powers = |rows: i64, power: &dyn Fn(i64) -> i64| {
        let power_at = |at: i64| mode_power(at % modes, modes, power(at / modes));
        let values: Vec<f64> = (0..rows * modes).map(power_at).collect();
        constant(&values, &[rows, modes], x.kind(), x.device())
    };
    let faded = &*state * powers(1, &|_| t); // [B, E, J]
    let seen = x.transpose(1, 2).matmul(&powers(t, &|row| t - 1 - row)); // [B, E, J]
    let output = if t > 1 {
        let of_state = (&*state * weight).matmul(&powers(t, &|row| row + 1).transpose(0, 1));
        filter.forward(x, FilterForm::Fastest) + of_state.transpose(1, 2) // [B, T, E]
    } else {
        ((&faded + &seen) * weight).sum_dim_intlist(-1, false, None::<Kind>).unsqueeze(1)
    };
    *state = faded + seen;
    output
}

/// S += kᵀ v for k `[B, 1, H, K]` and v `[B, 1, H, V]`.
fn write(state: &mut Tensor, k: &Tensor, v: &Tensor) {
    let (k, v) = (k.select(1, 0).unsqueeze(-1), v.select(1, 0).unsqueeze(-2));
    *state = state.addcmul_(&k, &v);
}

/// o = q S for q `[B, 1, H, K]`, `[B, 1, H, V]`.
fn read(state: &Tensor, q: &Tensor) -> Tensor {
    q.select(1, 0).unsqueeze(-2).matmul(state).squeeze_dim(-2).unsqueeze(1)
}

/// A tensor of its own: a view would keep the states of every chunk alive.
fn own(state: &Tensor) -> Tensor {
    state.copy()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{TOLERANCE, TOLERANCE_FLOAT32, random, relative_error};
    use crate::ops::toeplitz;

    /// Aim: any cut of a text gives what the recurrence gives for the whole. Method: pieces of the
    /// given lengths, among them single tokens, against the naive twin in float64.
    fn check(
        inputs: &[Tensor],
        first_state: &Tensor,
        (outputs, last): (&Tensor, &Tensor),
        after: impl Fn(&[Tensor], &mut Tensor) -> Tensor,
    ) {
        for (kind, tolerance) in [(Kind::Double, TOLERANCE), (Kind::Float, TOLERANCE_FLOAT32)] {
            for pieces in [&[1; 70][..], &[70], &[1, 69], &[69, 1], &[3, 1, 1, 40, 25]] {
                let mut state = first_state.to_kind(kind).copy();
                let mut position = 0;
                let mut found = Vec::new();
                for &length in pieces {
                    let piece = |x: &Tensor| x.to_kind(kind).narrow(1, position, length);
                    found.push(after(&inputs.iter().map(piece).collect::<Vec<_>>(), &mut state));
                    position += length;
                }
                let error = relative_error(&Tensor::cat(&found, 1), outputs)
                    .max(relative_error(&state, last));
                assert!(error <= tolerance, "{kind:?} in {pieces:?}: {error:e}");
            }
        }
    }

    fn queries_keys_values(heads: i64) -> Vec<Tensor> {
        let of = |width: i64, seed: i64| random(&[2, 70, heads, width], seed);
        vec![of(5, 1), of(5, 2), of(4, 3)]
    }

    #[test]
    fn fixed_decays_go_on_after_any_cut() {
        for rates in [[0.84, 0.0039, 0.0], [0.0; 3]] {
            let x = queries_keys_values(3);
            let state = random(&[2, 3, 5, 4], 4);
            let expected = decay_attention::naive(&x[0], &x[1], &x[2], &rates, Some(&state));
            check(&x, &state, (&expected.0, &expected.1), |x, state| {
                decay_after([&x[0], &x[1], &x[2]], &rates, state)
            });
        }
    }

    #[test]
    fn gates_go_on_after_any_cut() {
        let mut x = queries_keys_values(3);
        x.push(-(random(&[2, 70, 3, 5], 5) * 4.0).exp() * 0.1);
        let state = random(&[2, 3, 5, 4], 4);
        let expected = gated_attention::naive([&x[0], &x[1], &x[2], &x[3]], Some(&state));
        check(&x, &state, (&expected.0, &expected.1), |x, state| {
            gated_after([&x[0], &x[1], &x[2], &x[3]], state)
        });
    }

    #[test]
    fn the_filter_goes_on_after_any_cut() {
        for modes in [1, 2, 9] {
            let (x, weight) = (random(&[2, 70, 6], 1), random(&[6, modes], 2));
            // From nothing the recurrence is the whole text's; its last state is that of the step.
            let state = Tensor::zeros([2, 6, modes], (Kind::Double, x.device()));
            let mut last = state.copy();
            for position in 0..70 {
                let decays: Vec<f64> = (0..modes).map(|mode| mode_power(mode, modes, 1)).collect();
                last = last * Tensor::from_slice(&decays) + x.select(1, position).unsqueeze(-1);
            }
            check(
                &[x.shallow_clone()],
                &state,
                (&toeplitz::naive(&x, &weight), &last),
                |x, state| {
                    let weight = weight.to_kind(x[0].kind());
                    let filter = Toeplitz::new(weight.shallow_clone());
                    toeplitz_after(&filter, &weight, &x[0], state)
                },
            );
        }
    }
}
