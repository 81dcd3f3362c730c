//! Linear attention whose state fades by one fixed factor per head, or does not fade.
//!
//! It does not know queries' and keys' activations, positions, or what is done with the output.
//!
//! Per head, with row vectors:  S_t = λ S_{t−1} + k_tᵀ v_t,  o_t = q_t S_t.
//!
//! Chunk form (linear-model study's notes, section 3.2), e_c the number of tokens before chunk c:
//!
//! - inside a chunk: (Q Kᵀ ⊙ M) V with M_rs = λ^{r−s} for r ≥ s;
//! - what chunk c adds: U_c = Σ_t λ^{e_{c+1} − 1 − t} k_tᵀ v_t;
//! - state before chunk c: Σ_{j<c} λ^{e_c − e_{j+1}} U_j, one product with a constant matrix;
//! - between chunks: λ^{t − e_c + 1} q_t S.
//!
//! Only powers λ^m with m ≥ 0 are ever formed. Every step is one batched product over all chunks.

use tch::{Device, Kind, Tensor};

use super::sizes;
use super::table::constant;

/// Tokens of a chunk: a compromise of the C² inside and the state between, for heads of 8 to 64.
pub const CHUNK: i64 = 64;

/// The constant powers of λ for one length, chunk length, element type and device.
#[derive(Debug)]
pub struct DecayTable {
    time: i64,
    chunk: i64,
    n_chunks: i64,
    fades: bool,
    /// λ^{r−s} for r ≥ s, else 0, `[H, 1, C, C]`.
    inside: Tensor,
    /// λ^{r+1} for row r of a chunk, `[H, 1, C, 1]`.
    from_start: Tensor,
    /// λ^{tokens to the chunk's last}, 0 past the text, `[H, N, C, 1]`.
    to_end: Tensor,
    /// Row c: the state before chunk c from the initial state (column 0) and U_0 … (columns 1 …);
    /// row N is the state after the last chunk. `[H, N+1, N+1]`.
    carry: Tensor,
}

impl DecayTable {
    /// Tables for `rates[head]` = −log λ ≥ 0, texts of `time` tokens and chunks of about `chunk`:
    /// chunks are evened out, so that 70 tokens make two of 35 and not 64 and 6.
    pub fn new(rates: &[f64], time: i64, chunk: i64, kind: Kind, device: Device) -> Self {
        let n_chunks = (time + chunk - 1) / chunk;
        let chunk = (time + n_chunks - 1) / n_chunks;
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
            constant(&values, &[&[heads], shape].concat(), kind, device)
        };
        let not_negative = |power: i64| (power >= 0).then_some(power);
        let inside = table(&[1, chunk, chunk], &|at| not_negative(at / chunk - at % chunk));
        let from_start = table(&[1, chunk, 1], &|at| Some(at + 1));
        // Chunks lie one after the other, so the entry's number is the token's position.
        let to_end =
            table(&[n_chunks, chunk, 1], &|at| (at < time).then(|| end(at / chunk + 1) - 1 - at));
        let rows = n_chunks + 1;
        let carry = table(&[rows, rows], &|at| {
            let (row, column) = (at / rows, at % rows);
            (column <= row).then(|| end(row) - end(column))
        });
        let fades = rates.iter().any(|rate| *rate != 0.0);
        Self { time, chunk, n_chunks, fades, inside, from_start, to_end, carry }
    }

    /// `[B, T, H, X]` to `[B, H, N, C, X]`, zeros after the text.
    fn split(&self, x: &Tensor) -> Tensor {
        let [b, t, h, width] = sizes(x);
        let padding = self.n_chunks * self.chunk - t;
        let padded = if padding == 0 {
            x.shallow_clone()
        } else {
            x.constant_pad_nd([0, 0, 0, 0, 0, padding])
        };
        padded.reshape([b, self.n_chunks, self.chunk, h, width]).permute([0, 3, 1, 2, 4])
    }

    /// The opposite of `split`.
    fn join(&self, x: &Tensor) -> Tensor {
        let [b, h, _, _, width] = sizes(x);
        let flat = x.permute([0, 2, 3, 1, 4]).reshape([b, -1, h, width]);
        flat.narrow(1, 0, self.time) // [B, T, H, V]
    }

    /// The states before each chunk and after the last, `[B, H, N+1, K, V]`.
    fn states(&self, k: &Tensor, v: &Tensor, initial: Option<&Tensor>) -> Tensor {
        let faded = if self.fades { k * &self.to_end } else { k.shallow_clone() };
        let added = faded.transpose(-1, -2).matmul(v); // [B, H, N, K, V]
        let [b, h, n, key, value] = sizes(&added);
        let (sources, carry) = match initial {
            Some(state) => {
                (Tensor::cat(&[&state.unsqueeze(2), &added], 2), self.carry.shallow_clone())
            }
            None => (added, self.carry.narrow(2, 1, n)),
        };
        carry.matmul(&sources.reshape([b, h, -1, key * value])).view([b, h, n + 1, key, value])
    }

    fn inside_chunks(&self, q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let scores = q.matmul(&k.transpose(-1, -2)) * &self.inside; // [B, H, N, C, C]
        scores.matmul(v) // [B, H, N, C, V]
    }

    fn between_chunks(&self, q: &Tensor, states: &Tensor) -> Tensor {
        let read = q.matmul(&states.narrow(2, 0, self.n_chunks)); // [B, H, N, C, V]
        if self.fades { read * &self.from_start } else { read }
    }
}

/// The outputs from a state of zeros: q, k `[B, T, H, K]`, v `[B, T, H, V]` to `[B, T, H, V]`.
pub fn decay_attention(q: &Tensor, k: &Tensor, v: &Tensor, table: &DecayTable) -> Tensor {
    let (q, k, v) =
        (table.split(q).contiguous(), table.split(k).contiguous(), table.split(v).contiguous());
    let mut output = table.inside_chunks(&q, &k, &v);
    if table.n_chunks > 1 {
        output += table.between_chunks(&q, &table.states(&k, &v, None));
    }
    table.join(&output)
}

/// The outputs and the state after the last token, from an initial state `[B, H, K, V]`.
pub fn decay_attention_with_state(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    table: &DecayTable,
    initial: &Tensor,
) -> (Tensor, Tensor) {
    let (q, k, v) = (table.split(q), table.split(k), table.split(v));
    let states = table.states(&k, &v, Some(initial));
    let output = table.inside_chunks(&q, &k, &v) + table.between_chunks(&q, &states);
    (table.join(&output), states.select(2, table.n_chunks))
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
}
