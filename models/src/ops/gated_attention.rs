//! Linear attention whose state fades by a factor per key channel and token, given as its log.
//!
//! It does not make the gates, and does not assume k = 1 − forget.
//!
//! Per head, with row vectors:  S_t = Diag(f_t) S_{t−1} + k_tᵀ v_t,  o_t = q_t S_t.
//!
//! Chunk form with a = log f ≤ 0 and the sums A_rs = Σ_{s<i≤r} a_i inside a chunk:
//!
//! - inside: o_r += Σ_{s≤r} (Σ_j q_rj k_sj e^{A_rsj}) v_s;
//! - what a chunk adds: Σ_s (k_s ⊙ e^{A_Cs})ᵀ v_s, and it fades the state by e^{Σ a};
//! - between chunks the same recurrence with chunks for tokens, solved by [`scan`].
//!
//! Every exponent is a sum of non-positive numbers, made by a product with a matrix of zeros and
//! ones: no e^{−A} that overflows, and no difference of two long sums that would lose digits.

use tch::{Device, Kind, Tensor};

use super::sizes;
use super::table::constant;

/// Tokens of a chunk. The C² products per channel inside a chunk and the states of K·V per chunk
/// cost about the same at 8 for heads of 8 to 64.
pub const CHUNK: i64 = 8;

/// Steps that [`scan`] takes in one piece; more are cut into blocks of half as many.
const DENSE_STEPS: i64 = 32;
const BLOCK: i64 = DENSE_STEPS / 2;

/// Matrices of zeros and ones that make sums of neighbouring steps.
#[derive(Debug)]
struct Sums {
    steps: i64,
    /// Row (r, s): ones where s < i ≤ r. `[n·n, n]`.
    between: Tensor,
    /// Row r: ones where i ≤ r. `[n, n]`.
    up_to: Tensor,
    /// One where s ≤ r. `[n, n]`.
    causal: Tensor,
}

impl Sums {
    fn new(steps: i64, kind: Kind, device: Device) -> Self {
        let table = |shape: &[i64], is_one: &dyn Fn(i64) -> bool| {
            let entries: i64 = shape.iter().product();
            let values: Vec<f64> = (0..entries).map(|at| f64::from(u8::from(is_one(at)))).collect();
            constant(&values, shape, kind, device)
        };
        let between = table(&[steps * steps, steps], &|at| {
            let (r, s, i) = (at / steps / steps, at / steps % steps, at % steps);
            s < i && i <= r
        });
        let lower = |at: i64| at % steps <= at / steps;
        let up_to = table(&[steps, steps], &lower);
        Self { steps, between, causal: up_to.shallow_clone(), up_to }
    }
}

/// The constants for one length, chunk length, element type and device.
#[derive(Debug)]
pub struct GateTable {
    time: i64,
    n_chunks: i64,
    inside: Sums,
    /// One for each level of [`scan`], from chunks upwards.
    levels: Vec<Sums>,
}

impl GateTable {
    /// Tables for texts of `time` tokens in chunks of about `chunk`, evened out.
    pub fn new(time: i64, chunk: i64, kind: Kind, device: Device) -> Self {
        let n_chunks = (time + chunk - 1) / chunk;
        let chunk = (time + n_chunks - 1) / n_chunks;
        let mut levels = Vec::new();
        let mut steps = n_chunks;
        while steps > DENSE_STEPS {
            levels.push(Sums::new(BLOCK, kind, device));
            steps = (steps + BLOCK - 1) / BLOCK;
        }
        levels.push(Sums::new(steps, kind, device));
        Self { time, n_chunks, inside: Sums::new(chunk, kind, device), levels }
    }

    /// `[B, T, H, X]` to `[C, B·N, H·X]`, zeros after the text: long rows for element-wise work.
    fn split(&self, x: &Tensor) -> Tensor {
        let [b, t, h, width] = sizes(x);
        let chunk = self.inside.steps;
        let padded = pad(&x.reshape([b, t, h * width]), self.n_chunks * chunk);
        let chunks = padded.reshape([b * self.n_chunks, chunk, h * width]);
        chunks.transpose(0, 1).contiguous()
    }
}

/// `[B, n, …]` with zeros after the n-th step.
fn pad(x: &Tensor, steps: i64) -> Tensor {
    let missing = steps - x.size()[1];
    if missing == 0 {
        return x.shallow_clone();
    }
    let mut padding = vec![0; 2 * (x.dim() - 1)];
    padding[2 * (x.dim() - 2) + 1] = missing;
    x.constant_pad_nd(padding)
}

/// The outputs `[B, T, H, V]` and the state after the last token `[B, H, K, V]`, for q, k and
/// log_forget `[B, T, H, K]`, v `[B, T, H, V]` and an initial state (zeros if none).
pub fn gated_attention(
    [q, k, v, log_forget]: [&Tensor; 4],
    table: &GateTable,
    initial: Option<&Tensor>,
) -> (Tensor, Tensor) {
    let [b, _, h, key] = sizes(q);
    let [_, _, _, value] = sizes(v);
    let (chunk, n) = (table.inside.steps, table.n_chunks);
    let rows = b * n;
    let heads = |x: &Tensor, width: i64| x.view([chunk, rows, h, width]).permute([1, 2, 0, 3]);
    let (q, k, a) = (table.split(q), table.split(k), table.split(log_forget)); // [C, B·N, H·K]
    let v = heads(&table.split(v), value).contiguous(); // [B·N, H, C, V]

    let flat = a.view([chunk, -1]);
    let fade = table.inside.between.matmul(&flat).exp().view([chunk, chunk, rows, h * key]);
    let scores = (q.unsqueeze(1) * &fade * k.unsqueeze(0)) // [C, C, B·N, H·K]
        .view([chunk, chunk, rows, h, key])
        .sum_dim_intlist(-1, false, None::<Kind>)
        * table.inside.causal.view([chunk, chunk, 1, 1]); // [C, C, B·N, H]
    let inside = scores.permute([2, 3, 0, 1]).matmul(&v); // [B·N, H, C, V]

    let up_to = table.inside.up_to.matmul(&flat); // [C, B·N·H·K]
    let to_end = k * fade.select(0, chunk - 1); // [C, B·N, H·K]
    let added = heads(&to_end, key).transpose(-1, -2).matmul(&v).reshape([b, n, h * key, value]);
    let total = up_to.select(0, chunk - 1).view([b, n, h * key]);
    let state = initial.map(|state| state.reshape([b, h * key, value]));
    let ends = scan(&total, &added, state.as_ref(), &table.levels); // [B, N, H·K, V]
    let starts = starts(&ends, state.as_ref()).reshape([rows, h, key, value]);

    let from_start = q * up_to.exp().view([chunk, rows, h * key]);
    let output = inside + heads(&from_start, key).matmul(&starts); // [B·N, H, C, V]
    let output = output.transpose(1, 2).reshape([b, n * chunk, h, value]);
    let last = ends.select(1, n - 1).reshape([b, h, key, value]);
    (output.narrow(1, 0, table.time), last)
}

/// The states after each step of S_i = Diag(e^{a_i}) S_{i−1} + U_i: a `[B, n, E]`, U `[B, n, E, V]`
/// to `[B, n, E, V]`. Up to 32 steps are one batched product; more go by blocks, so that the work
/// grows with n and not with n².
fn scan(a: &Tensor, added: &Tensor, initial: Option<&Tensor>, levels: &[Sums]) -> Tensor {
    let [b, n, width, value] = sizes(added);
    let sums = &levels[0];
    let Some(upper) = levels.get(1..).filter(|upper| !upper.is_empty()) else {
        let ends = scan_dense(a, added, sums);
        return match initial {
            Some(state) => {
                let fade = sums.up_to.matmul(a).exp().unsqueeze(-1); // [B, n, E, 1]
                ends + fade * state.unsqueeze(1)
            }
            None => ends,
        };
    };
    let n_blocks = (n + BLOCK - 1) / BLOCK;
    let a = pad(a, n_blocks * BLOCK).reshape([b * n_blocks, BLOCK, width]);
    let added = pad(added, n_blocks * BLOCK).reshape([b * n_blocks, BLOCK, width, value]);
    let within = scan_dense(&a, &added, sums); // [B·M, n, E, V]
    let up_to = sums.up_to.matmul(&a); // [B·M, n, E]
    let block_total = up_to.select(1, BLOCK - 1).reshape([b, n_blocks, width]);
    let block_added = within.select(1, BLOCK - 1).reshape([b, n_blocks, width, value]);
    let block_ends = scan(&block_total, &block_added, initial, upper);
    let before = starts(&block_ends, initial).reshape([b * n_blocks, 1, width, value]);
    let ends = within + up_to.exp().unsqueeze(-1) * before;
    ends.reshape([b, n_blocks * BLOCK, width, value]).narrow(1, 0, n)
}

/// The states after each step from zeros, as one product per channel.
fn scan_dense(a: &Tensor, added: &Tensor, sums: &Sums) -> Tensor {
    let [b, n, width, value] = sizes(added);
    let a = a.transpose(1, 2).reshape([b * width, n]);
    let fade = a.matmul(&sums.between.transpose(0, 1)).exp().view([-1, n, n]) * &sums.causal;
    let by_channel = added.transpose(1, 2).reshape([b * width, n, value]);
    fade.bmm(&by_channel).view([b, width, n, value]).transpose(1, 2) // [B, n, E, V]
}

/// The states before each step, from those after each step.
fn starts(ends: &Tensor, initial: Option<&Tensor>) -> Tensor {
    let [_, n, _, _] = sizes(ends);
    let first = match initial {
        Some(state) => state.unsqueeze(1),
        None => ends.narrow(1, 0, 1).zeros_like(),
    };
    Tensor::cat(&[first, ends.narrow(1, 0, n - 1)], 1)
}

/// The naive twin: the recurrence over time.
pub fn naive([q, k, v, log_forget]: [&Tensor; 4], initial: Option<&Tensor>) -> (Tensor, Tensor) {
    let [b, t, h, key] = sizes(q);
    let [_, _, _, value] = sizes(v);
    let mut state = initial.map_or_else(
        || Tensor::zeros([b, h, key, value], (q.kind(), q.device())),
        Tensor::shallow_clone,
    );
    let mut outputs = Vec::new();
    for position in 0..t {
        let at = |x: &Tensor| x.select(1, position); // [B, H, X]
        let forget = at(log_forget).exp().unsqueeze(-1); // [B, H, K, 1]
        state = forget * state + at(k).unsqueeze(-1) * at(v).unsqueeze(-2); // [B, H, K, V]
        outputs.push(at(q).unsqueeze(-2).matmul(&state).squeeze_dim(-2)); // [B, H, V]
    }
    (Tensor::stack(&outputs, 1), state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_with_gradients, random};

    /// `scale` multiplies the log forget values: 1 is ordinary, 40 wipes most channels each token.
    fn check(time: i64, heads: i64, key: i64, value: i64, chunk: i64, scale: f64) {
        let q = random(&[2, time, heads, key], 1);
        let k = random(&[2, time, heads, key], 2);
        let v = random(&[2, time, heads, value], 3);
        let a = -(random(&[2, time, heads, key], 4) * scale).exp() * 0.1;
        let state = random(&[2, heads, key, value], 5);
        let table = |x: &Tensor| GateTable::new(time, chunk, x.kind(), x.device());
        assert_same_with_gradients(
            &[&q, &k, &v, &a],
            |x| {
                let inputs = [&x[0], &x[1], &x[2], &x[3]];
                vec![gated_attention(inputs, &table(&x[0]), None).0]
            },
            |x| vec![naive([&x[0], &x[1], &x[2], &x[3]], None).0],
        );
        assert_same_with_gradients(
            &[&q, &k, &v, &a, &state],
            |x| {
                let inputs = [&x[0], &x[1], &x[2], &x[3]];
                let (o, s) = gated_attention(inputs, &table(&x[0]), Some(&x[4]));
                vec![o, s]
            },
            |x| {
                let (o, s) = naive([&x[0], &x[1], &x[2], &x[3]], Some(&x[4]));
                vec![o, s]
            },
        );
    }

    #[test]
    fn chunks_and_recurrence_agree_for_odd_lengths_and_any_chunk() {
        for (time, chunk) in [(1, 8), (2, 1), (17, 8), (17, 64), (70, 16), (129, 8), (61, 7)] {
            check(time, 3, 5, 4, chunk, 1.0);
        }
        check(33, 1, 12, 24, 8, 1.0);
    }

    #[test]
    fn many_chunks_go_through_two_and_three_levels_of_the_scan() {
        check(301, 2, 3, 2, 8, 1.0);
        check(530, 1, 2, 3, 1, 1.0);
    }

    #[test]
    fn extreme_forgetting_stays_finite_and_exact() {
        // Log forget values from −e^−12 to −e^12 beside each other in one channel.
        for time in [70, 301] {
            check(time, 2, 4, 3, 8, 4.0);
        }
    }
}
