//! Linear attention whose state fades by one fixed factor per head, or does not fade.
//!
//! It does not know queries' and keys' activations, positions, or what is done with the output.
//!
//! Per head, with row vectors:  S_t = λ S_{t−1} + k_tᵀ v_t,  o_t = q_t S_t.
//!
//! Chunk form (linear-model study's notes, section 3.2), for a chunk of m tokens r = 0 … m − 1 and the
//! state S before it:
//!
//! - o_r = Σ_{s≤r} λ^{r−s} (q_r · k_s) v_s + λ^{r+1} q_r S;
//! - the state after it is λ^m S + Σ_s λ^{m−1−s} k_sᵀ v_s.
//!
//! Backwards (section 3.4), with G the gradient of the state after the chunk:
//!
//! - dq_r = Σ_{s≤r} λ^{r−s} (do_r · v_s) k_s + λ^{r+1} do_r Sᵀ;
//! - dk_s = Σ_{r≥s} λ^{r−s} (do_r · v_s) q_r + λ^{m−1−s} v_s Gᵀ;
//! - dv_s = Σ_{r≥s} λ^{r−s} (q_r · k_s) do_r + λ^{m−1−s} k_s G;
//! - the gradient of the state before it is λ^m G + Σ_r λ^{r+1} q_rᵀ do_r.
//!
//! Only powers λ^p with p ≥ 0 are ever formed. Saved are the inputs and the states before the chunks;
//! the scores are made again. Heads go one after the other, because a head's chunks lie in the inputs
//! as matrices with a stride, which products take as they are: nothing is rearranged.

use tch::{Device, Kind, Tensor};
use torch_ext::{Backward, Forward};

use super::graph::in_graph;
use super::scan::{state_gradients, states};
use super::table::{Constant, constant};
use super::{even_chunks, multiply_into, pad, sizes};

/// Tokens of a chunk: a compromise of the C² inside and the state between, for heads of 8 to 128.
pub const CHUNK: i64 = 64;

/// The constant powers of λ for one length, chunk length, element type and device.
#[derive(Debug, Clone)]
pub struct DecayTable {
    time: i64,
    chunk: i64,
    n_chunks: i64,
    has_decay: bool,
    /// λ^{r−s} for r ≥ s, else 0, `[H, C, C]`.
    inside: Constant,
    /// λ^{r+1} for row r of a chunk, `[H, C, 1]`.
    from_start: Constant,
    /// λ^{tokens to the chunk's last}, 0 past the text, `[H, N, C, 1]`.
    to_end: Constant,
    /// λ^{tokens of the chunk}, `[H, 1, N, 1, 1]`.
    fades: Constant,
}

impl DecayTable {
    /// Tables for `rates[head]` = −log λ ≥ 0, texts of `time` tokens and chunks of about `chunk`.
    pub fn new(rates: &[f64], time: i64, chunk: i64, kind: Kind, device: Device) -> Self {
        let (chunk, n_chunks) = even_chunks(time, chunk);
        let end = |index: i64| (index * chunk).min(time);
        let heads = i64::try_from(rates.len()).expect("the number of heads is small");
        let table = |shape: &[i64], power: &dyn Fn(i64) -> Option<i64>| {
            let entries: i64 = shape.iter().product();
            let values: Vec<f64> = rates
                .iter()
                .flat_map(|rate| {
                    (0..entries).map(move |entry| {
                        power(entry).map_or(0.0, |power| (-rate * power as f64).exp())
                    })
                })
                .collect();
            Constant::from(constant(&values, &[&[heads], shape].concat(), kind, device))
        };
        let not_negative = |power: i64| (power >= 0).then_some(power);
        let inside = table(&[chunk, chunk], &|at| not_negative(at / chunk - at % chunk));
        let from_start = table(&[chunk, 1], &|at| Some(at + 1));
        // Chunks lie one after the other, so the entry's number is the token's position.
        let to_end =
            table(&[n_chunks, chunk, 1], &|at| (at < time).then(|| end(at / chunk + 1) - 1 - at));
        let fades = table(&[1, n_chunks, 1, 1], &|at| Some(end(at + 1) - end(at)));
        let has_decay = rates.iter().any(|rate| *rate != 0.0);
        Self { time, chunk, n_chunks, has_decay, inside, from_start, to_end, fades }
    }

    /// `[B, T, H, X]` with zeros up to whole chunks.
    fn padded(&self, x: &Tensor) -> Tensor {
        pad(x, self.n_chunks * self.chunk).contiguous()
    }

    /// The chunks of one head of a padded tensor, `[B·N, C, X]`, in place.
    fn chunks(&self, x: &Tensor, head: i64) -> Tensor {
        let [b, _, _, width] = sizes(x);
        x.select(HEADS, head).view([b * self.n_chunks, self.chunk, width])
    }

    /// The states of one head, `[B·N, K, V]`, in place.
    fn head_states(states: &Tensor, head: i64) -> Tensor {
        let [_, b, n, key, value] = sizes(states);
        states.select(0, head).view([b * n, key, value])
    }

    /// Σ of `a[r] · b[s]` where r ≥ s, faded by λ^{r−s}: `[B·N, C, C]`.
    fn faded_products(&self, a: &Tensor, b: &Tensor, head: i64) -> Tensor {
        let mut products = a.bmm(&b.transpose(1, 2));
        products *= self.inside.select(0, head);
        products
    }

    fn faded_from_start(&self, x: Tensor, head: i64) -> Tensor {
        if self.has_decay { x * self.from_start.select(0, head) } else { x }
    }

    fn faded_to_end(&self, x: Tensor, head: i64) -> Tensor {
        if !self.has_decay {
            return x;
        }
        let [rows, chunk, width] = sizes(&x);
        let by_chunk = x.view([rows / self.n_chunks, self.n_chunks, chunk, width]);
        (by_chunk * self.to_end.select(0, head)).view([rows, chunk, width])
    }

    /// Outputs, last state and the states before each chunk.
    fn forward(&self, [q, k, v]: [&Tensor; 3], initial: Option<&Tensor>) -> [Tensor; 3] {
        let [q, k, v] = [q, k, v].map(|x| self.padded(x));
        let ([b, t, h, key], [_, _, _, value]) = (sizes(&q), sizes(&v));
        let options = (q.kind(), q.device());
        let added = Tensor::empty([h, b, self.n_chunks, key, value], options);
        for head in 0..h {
            let k = self.faded_to_end(self.chunks(&k, head), head);
            let (target, v) = (Self::head_states(&added, head), self.chunks(&v, head));
            multiply_into(&target, &k.transpose(1, 2), &v);
        }
        let (starts, last) = states(&added, &self.fades, initial);
        let output = Tensor::empty([b, t, h, value], options);
        for head in 0..h {
            let [q, k, v] = [&q, &k, &v].map(|x| self.chunks(x, head));
            let mut o = self.faded_products(&q, &k, head).bmm(&v); // [B·N, C, V]
            let start = Self::head_states(&starts, head);
            o = o.baddbmm_(&self.faded_from_start(q, head), &start);
            output.select(HEADS, head).copy_(&o.view([b, t, value]));
        }
        [output.narrow(TIME, 0, self.time), last, starts]
    }

    /// The gradients of q, k, v and the initial state.
    fn backward(&self, given: &Backward<'_>) -> Vec<Option<Tensor>> {
        let [q, k, v, starts] = given.saved else { unreachable!("four tensors are saved") };
        let [q, k, v] = [q, k, v].map(|x| self.padded(x));
        let [b, t, h, _] = sizes(&q);
        let d_output = match &given.gradients[0] {
            Some(gradient) => self.padded(gradient),
            None => v.zeros_like(),
        };
        let read = starts.empty_like();
        for head in 0..h {
            let q = self.faded_from_start(self.chunks(&q, head), head);
            let d_output = self.chunks(&d_output, head);
            multiply_into(&Self::head_states(&read, head), &q.transpose(1, 2), &d_output);
        }
        let (ends, d_initial) = state_gradients(&read, &self.fades, given.gradients[1].as_ref());
        let gradients = [&q, &k, &v].map(Tensor::empty_like);
        for head in 0..h {
            let [q, k, v, d_output] = [&q, &k, &v, &d_output].map(|x| self.chunks(x, head));
            let start = Self::head_states(starts, head).transpose(1, 2);
            let end = Self::head_states(&ends, head);
            let d_scores = self.faded_products(&d_output, &v, head);
            let scores = self.faded_products(&q, &k, head);
            let mut dq = self.faded_from_start(d_output.bmm(&start), head);
            let mut dk = self.faded_to_end(v.bmm(&end.transpose(1, 2)), head);
            let mut dv = self.faded_to_end(k.bmm(&end), head);
            dq = dq.baddbmm_(&d_scores, &k);
            dk = dk.baddbmm_(&d_scores.transpose(1, 2), &q);
            dv = dv.baddbmm_(&scores.transpose(1, 2), &d_output);
            for (gradient, found) in gradients.iter().zip([dq, dk, dv]) {
                gradient.select(HEADS, head).copy_(&found.view([b, t, -1]));
            }
        }
        let mut found: Vec<_> =
            gradients.iter().map(|x| Some(x.narrow(TIME, 0, self.time))).collect();
        if given.wanted.len() > found.len() {
            found.push(Some(d_initial));
        }
        found
    }
}

/// Dimensions of `[B, T, H, X]`.
const TIME: i64 = 1;
const HEADS: i64 = 2;

/// The outputs from a state of zeros: q, k `[B, T, H, K]`, v `[B, T, H, V]` to `[B, T, H, V]`.
pub fn decay_attention(q: &Tensor, k: &Tensor, v: &Tensor, table: &DecayTable) -> Tensor {
    attention([q, k, v], table, None).0
}

/// The outputs and the state after the last token, from an initial state `[B, H, K, V]`.
pub fn decay_attention_with_state(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    table: &DecayTable,
    initial: &Tensor,
) -> (Tensor, Tensor) {
    attention([q, k, v], table, Some(initial))
}

fn attention(
    [q, k, v]: [&Tensor; 3],
    table: &DecayTable,
    initial: Option<&Tensor>,
) -> (Tensor, Tensor) {
    let [output, last, starts] = tch::no_grad(|| table.forward([q, k, v], initial));
    let inputs: Vec<&Tensor> = [q, k, v].into_iter().chain(initial).collect();
    let forward = Forward {
        name: "decay_attention",
        inputs: &inputs,
        outputs: &[&output, &last],
        saved: &[q, k, v, &starts],
    };
    let table = table.clone();
    let [output, last] = in_graph(&forward, move |given| table.backward(given));
    (output, last)
}

/// The naive twin: the recurrence over time; also returns the last state.
pub fn naive(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    rates: &[f64],
    initial: Option<&Tensor>,
) -> (Tensor, Tensor) {
    let [b, t, h, key] = sizes(q);
    let [_, _, _, value] = sizes(v);
    let decays: Vec<f64> = rates.iter().map(|rate| (-rate).exp()).collect();
    let decay = constant(&decays, &[h, 1, 1], q.kind(), q.device());
    let mut state = initial.map_or_else(
        || Tensor::zeros([b, h, key, value], (q.kind(), q.device())),
        Tensor::shallow_clone,
    );
    let mut outputs = Vec::new();
    for position in 0..t {
        let at = |x: &Tensor| x.select(1, position); // [B, H, X]
        state = &decay * state + at(k).unsqueeze(-1) * at(v).unsqueeze(-2); // [B, H, K, V]
        outputs.push(at(q).unsqueeze(-2).matmul(&state).squeeze_dim(-2)); // [B, H, V]
    }
    (Tensor::stack(&outputs, 1), state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_with_gradients, random};

    fn check(rates: &[f64], time: i64, key: i64, value: i64, chunk: i64) {
        let heads = i64::try_from(rates.len()).unwrap();
        let q = random(&[2, time, heads, key], 1);
        let k = random(&[2, time, heads, key], 2);
        let v = random(&[2, time, heads, value], 3);
        let state = random(&[2, heads, key, value], 4);
        let table = |x: &Tensor| DecayTable::new(rates, time, chunk, x.kind(), x.device());
        assert_same_with_gradients(
            &[&q, &k, &v],
            |x| vec![decay_attention(&x[0], &x[1], &x[2], &table(&x[0]))],
            |x| vec![naive(&x[0], &x[1], &x[2], rates, None).0],
        );
        assert_same_with_gradients(
            &[&q, &k, &v, &state],
            |x| {
                let table = table(&x[0]);
                let (o, s) = decay_attention_with_state(&x[0], &x[1], &x[2], &table, &x[3]);
                vec![o, s]
            },
            |x| {
                let (o, s) = naive(&x[0], &x[1], &x[2], rates, Some(&x[3]));
                vec![o, s]
            },
        );
    }

    #[test]
    fn chunks_and_recurrence_agree_for_odd_lengths_and_any_chunk() {
        for (time, chunk) in [(1, 64), (2, 1), (17, 64), (17, 5), (70, 64), (129, 64), (61, 7)] {
            check(&[0.84, 0.0039, 0.0], time, 5, 3, chunk);
        }
        check(&[0.5], 33, 24, 12, 16);
    }

    #[test]
    fn without_decay_chunks_and_recurrence_agree() {
        for (time, chunk) in [(17, 64), (61, 7), (129, 64)] {
            check(&[0.0, 0.0], time, 6, 5, chunk);
        }
    }

    #[test]
    fn a_decay_to_zero_stays_finite() {
        // λ^600 is e^−3000 here; dividing by it would give infinity.
        check(&[5.0, 1e-5], 601, 3, 4, 64);
    }

    #[test]
    fn a_long_text_is_exact_from_no_decay_to_one_that_underflows_in_a_chunk() {
        // e^−320 over a chunk of 64 in the first head, e^−0.0004 over the whole text in the last.
        check(&[5.0, 0.84, 1e-7], 4096, 3, 2, CHUNK);
    }

    #[test]
    fn heads_of_one_channel_agree_with_the_recurrence_over_several_chunks() {
        for (time, key, value) in [(65, 1, 1), (129, 2, 1), (129, 1, 3)] {
            check(&[0.84, 0.0039, 0.0], time, key, value, CHUNK);
            check(&[0.0, 0.0], time, key, value, CHUNK);
        }
    }

    #[test]
    fn wide_heads_and_shared_gradients_agree() {
        check(&[0.25, 0.0039], 150, 128, 64, CHUNK);
    }
}
