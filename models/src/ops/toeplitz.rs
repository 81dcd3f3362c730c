//! TPE: a causal Toeplitz filter per channel, a learned mix of fixed exponential modes.
//!
//! It does not scale the embedding it is applied to.
//!
//! With e modes of decays λ_0 = 0 and λ_j = exp(−2^(−10(j−1)/max(e−2, 1))):
//! u_t[c, j] = λ_j u_{t−1}[c, j] + x_t[c],  y_t[c] = Σ_j w[c, j] u_t[c, j]   (the contract).
//!
//! In chunks of C tokens it is one Toeplitz matrix per channel inside a chunk, and one number per
//! channel and mode between chunks.

use tch::{Device, Kind, Tensor};

use super::sizes;
use super::table::{Key, TableCache, constant};

/// Tokens of a chunk: the Toeplitz matrices have d·C² entries, which are made anew in each pass.
const CHUNK: i64 = 32;

/// λ_j^power; power 0 is 1 also where λ is 0.
pub(super) fn mode_power(mode: i64, modes: i64, power: i64) -> f64 {
    if power == 0 {
        return 1.0;
    }
    if mode == 0 {
        return 0.0;
    }
    let rate = (-10.0 * (mode - 1) as f64 / (modes - 2).max(1) as f64).exp2();
    (-rate * power as f64).exp()
}

/// Constant powers of the modes' decays.
#[derive(Debug)]
struct ModeTable {
    chunk: i64,
    n_chunks: i64,
    /// λ_j^{r−s} for r ≥ s, else 0, `[J, C·C]`.
    inside: Tensor,
    /// λ_j^{r+1}, `[C, J]`.
    from_start: Tensor,
    /// λ_j^{C−1−s}, `[J, C]`.
    to_end: Tensor,
    /// λ_j^{C(c−1−i)} for i < c, else 0: chunk i's part in the state before chunk c, transposed:
    /// `[J, N (i), N (c)]`.
    carry: Tensor,
}

impl ModeTable {
    fn new(time: i64, chunk: i64, modes: i64, kind: Kind, device: Device) -> Self {
        let n_chunks = (time + chunk - 1) / chunk;
        let chunk = (time + n_chunks - 1) / n_chunks;
        let table = |rows: i64, columns: i64, mode_and_power: &dyn Fn(i64, i64) -> (i64, i64)| {
            let mut values = Vec::new();
            for row in 0..rows {
                for column in 0..columns {
                    let (mode, power) = mode_and_power(row, column);
                    values.push(if power < 0 { 0.0 } else { mode_power(mode, modes, power) });
                }
            }
            constant(&values, &[rows, columns], kind, device)
        };
        let inside = table(modes, chunk * chunk, &|mode, at| (mode, at / chunk - at % chunk));
        let from_start = table(chunk, modes, &|row, mode| (mode, row + 1));
        let to_end = table(modes, chunk, &|mode, column| (mode, chunk - 1 - column));
        let carry = table(modes, n_chunks * n_chunks, &|mode, at| {
            (mode, chunk * (at % n_chunks - 1 - at / n_chunks))
        });
        let carry = carry.view([modes, n_chunks, n_chunks]);
        Self { chunk, n_chunks, inside, from_start, to_end, carry }
    }

    /// x `[B, T, E]`, weight `[E, J]` to `[B, T, E]`.
    fn apply(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let [b, t, width] = sizes(x);
        let [_, modes] = sizes(weight);
        let (chunk, n) = (self.chunk, self.n_chunks);
        let padded = x.constant_pad_nd([0, 0, 0, n * chunk - t]);
        let by_channel =
            padded.view([b, n, chunk, width]).permute([3, 2, 0, 1]).reshape([width, chunk, b * n]); // [E, C, B·N]
        let toeplitz = weight.matmul(&self.inside).view([width, chunk, chunk]);
        let mut output = toeplitz.bmm(&by_channel);
        if n > 1 {
            let added = self.to_end.matmul(&by_channel); // [E, J, B·N]
            let by_mode =
                added.view([width, modes, b, n]).transpose(0, 1).reshape([modes, width * b, n]);
            let before = by_mode.bmm(&self.carry).view([modes, width, b * n]).transpose(0, 1);
            output += self.from_start.matmul(&(weight.unsqueeze(-1) * before));
        }
        let joined = output.view([width, chunk, b, n]).permute([2, 3, 1, 0]); // [B, N, C, E]
        joined.reshape([b, n * chunk, width]).narrow(1, 0, t)
    }
}

/// The Toeplitz position encoding with its learned weight `[E, J]`.
#[derive(Debug)]
pub struct Toeplitz {
    weight: Tensor,
    tables: TableCache<ModeTable>,
}

impl Toeplitz {
    /// An encoding that shares the given weight.
    pub fn new(weight: Tensor) -> Self {
        Self { weight, tables: TableCache::new() }
    }

    /// x `[B, T, E]`, the same shape back, in chunks of about `chunk` or of the usual length.
    pub fn forward(&self, x: &Tensor, chunk: Option<i64>) -> Tensor {
        let [_, modes] = sizes(&self.weight);
        let key = Key::of(x, chunk.unwrap_or(CHUNK));
        let build = || ModeTable::new(key.time, key.chunk, modes, key.kind, key.device);
        self.tables.with(key, build, |table| table.apply(x, &self.weight))
    }

    /// The naive twin of `forward`.
    pub fn forward_naive(&self, x: &Tensor) -> Tensor {
        naive(x, &self.weight)
    }
}

/// The naive twin: the recurrence over time.
pub fn naive(x: &Tensor, weight: &Tensor) -> Tensor {
    let [b, t, width] = sizes(x);
    let [_, modes] = sizes(weight);
    let decays: Vec<f64> = (0..modes).map(|mode| mode_power(mode, modes, 1)).collect();
    let decay = constant(&decays, &[modes], x.kind(), x.device());
    let mut state = Tensor::zeros([b, width, modes], (x.kind(), x.device()));
    let mut outputs = Vec::new();
    for position in 0..t {
        state = &decay * state + x.select(1, position).unsqueeze(-1); // [B, E, J]
        outputs.push((&state * weight).sum_dim_intlist(-1, false, None::<Kind>)); // [B, E]
    }
    Tensor::stack(&outputs, 1) // [B, T, E]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_with_gradients, random};

    #[test]
    fn chunks_and_recurrence_agree_for_odd_lengths_and_any_number_of_modes() {
        for (time, modes, chunk) in
            [(1, 3, None), (17, 1, Some(5)), (17, 2, Some(17)), (70, 3, None), (129, 8, None)]
        {
            let x = random(&[2, time, 6], 1);
            let weight = random(&[6, modes], 2);
            assert_same_with_gradients(
                &[&x, &weight],
                |x| vec![Toeplitz::new(x[1].shallow_clone()).forward(&x[0], chunk)],
                |x| vec![naive(&x[0], &x[1])],
            );
        }
    }

    #[test]
    fn the_first_weights_are_the_identity() {
        let x = random(&[2, 70, 2], 1);
        let weight = constant(&[1.0, 0.0, 0.0, 1.0, 0.0, 0.0], &[2, 3], Kind::Double, x.device());
        assert!(
            (Toeplitz::new(weight).forward(&x, None) - &x).abs().max().double_value(&[]) < 1e-14
        );
    }
}
