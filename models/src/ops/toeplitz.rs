//! TPE: a causal Toeplitz filter per channel, a learned mix of fixed exponential modes.
//!
//! It does not scale the embedding it is applied to.
//!
//! With e modes of decays λ_0 = 0 and λ_j = exp(−2^(−10(j−1)/max(e−2, 1))):
//!
//! ```text
//! u_t[c, j] = λ_j u_{t−1}[c, j] + x_t[c],  y_t[c] = Σ_j w[c, j] u_t[c, j]   (the contract)
//! ```
//!
//! Two forms train. As a convolution with the filter h_p[c] = Σ_j w[c, j] λ_j^p it is a product of
//! Fourier transforms (`fourier`), which is the faster one for short texts. In chunks of C tokens it is
//! a Toeplitz matrix per channel inside a chunk, and one number per channel and mode between chunks, so
//! that it costs the same for each token of any text; `make bench-ops` compares the two.
//!
//! Backwards, with dy: dx is the filter run from the right, `dw[c, j] = Σ_t dy_t[c] u_t[c, j]`. Saved are x and w;
//! the modes' states are made again.

mod fourier;

use tch::{Device, Kind, Tensor};
use torch_ext::{Backward, Forward};

use super::graph::in_graph;
use super::scan::{state_gradients, states};
use super::table::{Constant, Key, TableCache, constant};
use super::{even_chunks, pad, sizes};

use fourier::PowerTable;

/// Tokens of a chunk: the Toeplitz matrices have d·C² entries, the states d·e for each chunk.
pub const CHUNK: i64 = 64;

/// Texts up to this length train by Fourier transforms. They are the faster form up to 2048 tokens (2.1
/// times at 256, 1.2 at 2048, by `docs/reference/performance.md`); a longer range would change the
/// losses of longer texts by rounding, for less than a hundredth of a step. No GPU was measured.
const LONGEST_FOURIER: i64 = 256;

/// A form of the filter that trains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterForm {
    /// The faster one for the text's length.
    Fastest,
    /// A product of Fourier transforms.
    Fourier,
    /// In chunks of about this many tokens.
    Chunked(i64),
}

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
#[derive(Debug, Clone)]
struct ModeTable {
    time: i64,
    chunk: i64,
    n_chunks: i64,
    /// λ_j^{r−s} for r ≥ s, else 0, `[J, C·C]`.
    inside: Constant,
    /// λ_j^{r+1}, `[J, C]`.
    from_start: Constant,
    /// λ_j^{C−1−s}, `[C, J]`.
    to_end: Constant,
    /// λ_j^C for each chunk, `[1, 1, N, J, 1]`.
    fades: Constant,
}

impl ModeTable {
    fn new(time: i64, chunk: i64, modes: i64, kind: Kind, device: Device) -> Self {
        let (chunk, n_chunks) = even_chunks(time, chunk);
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
        let from_start = table(modes, chunk, &|mode, row| (mode, row + 1));
        let to_end = table(chunk, modes, &|column, mode| (mode, chunk - 1 - column));
        let fades = table(n_chunks, modes, &|_, mode| (mode, chunk));
        Self {
            time,
            chunk,
            n_chunks,
            inside: inside.into(),
            from_start: from_start.into(),
            to_end: to_end.into(),
            fades: fades.view([1, 1, n_chunks, modes, 1]).into(),
        }
    }

    /// `[B, T, E]` to the chunks of each channel, `[E, B·N, C]`, zeros after the text.
    fn split(&self, x: &Tensor) -> Tensor {
        let [b, _, width] = sizes(x);
        let padded = pad(x, self.n_chunks * self.chunk);
        let by_channel = padded.reshape([-1, width]).transpose(0, 1).contiguous();
        by_channel.view([width, b * self.n_chunks, self.chunk])
    }

    /// The opposite of `split`.
    fn join(&self, x: &Tensor) -> Tensor {
        let [width, rows, chunk] = sizes(x);
        let by_token = x.view([width, rows * chunk]).transpose(0, 1).contiguous();
        by_token.view([rows / self.n_chunks, -1, width]).narrow(1, 0, self.time)
    }

    /// Row r, column s of each channel's matrix: its filter at r − s. `[E, C, C]`.
    fn matrices(&self, weight: &Tensor) -> Tensor {
        let [width, _] = sizes(weight);
        weight.matmul(&self.inside).view([width, self.chunk, self.chunk])
    }

    /// The modes before each chunk, `[E, B·N, J]`, for x `[E, B·N, C]`.
    fn modes(&self, x: &Tensor) -> Tensor {
        let [width, rows, _] = sizes(x);
        let [_, _, _, modes, _] = sizes(&self.fades);
        let added = x.matmul(&self.to_end).view([width, -1, self.n_chunks, modes, 1]);
        states(&added, &self.fades, None).0.view([width, rows, modes])
    }

    /// x `[B, T, E]`, weight `[E, J]` to `[B, T, E]`.
    fn forward(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        let x = self.split(x);
        let mut y = (self.modes(&x) * weight.unsqueeze(1)).matmul(&self.from_start);
        y = y.baddbmm_(&x, &self.matrices(weight).transpose(1, 2));
        self.join(&y)
    }

    /// The gradients of x and the weight.
    fn backward(&self, given: &Backward<'_>) -> Vec<Option<Tensor>> {
        let [x, weight] = given.saved else { unreachable!("two tensors are saved") };
        let dy = given.gradients[0].as_ref().expect("the only output has the gradient");
        let (x, dy) = (self.split(x), self.split(dy));
        let [width, rows, _] = sizes(&x);
        let [_, modes] = sizes(weight);
        let d_read = dy.matmul(&self.from_start.transpose(0, 1)); // [E, B·N, J]
        let of_matrices = dy.transpose(1, 2).bmm(&x).view([width, -1]); // [E, C·C]
        let of_modes = (&d_read * self.modes(&x)).sum_dim_intlist(1, false, None::<Kind>);
        let d_weight = of_modes + of_matrices.matmul(&self.inside.transpose(0, 1));
        let read = (d_read * weight.unsqueeze(1)).view([width, -1, self.n_chunks, modes, 1]);
        let ends = state_gradients(&read, &self.fades, None).0.view([width, rows, modes]);
        let mut dx = ends.matmul(&self.to_end.transpose(0, 1));
        dx = dx.baddbmm_(&dy, &self.matrices(weight));
        vec![Some(self.join(&dx)), Some(d_weight)]
    }
}

/// The Toeplitz position encoding with its learned weight `[E, J]`.
#[derive(Debug)]
pub struct Toeplitz {
    weight: Tensor,
    chunks: TableCache<ModeTable>,
    powers: TableCache<PowerTable>,
}

impl Toeplitz {
    /// An encoding that shares the given weight.
    pub fn new(weight: Tensor) -> Self {
        Self { weight, chunks: TableCache::new(), powers: TableCache::new() }
    }

    /// x `[B, T, E]`, the same shape back.
    pub fn forward(&self, x: &Tensor, form: FilterForm) -> Tensor {
        let [_, time, _] = sizes(x);
        match form {
            FilterForm::Fastest if time <= LONGEST_FOURIER => self.by_transforms(x),
            FilterForm::Fastest => self.in_chunks(x, CHUNK),
            FilterForm::Fourier => self.by_transforms(x),
            FilterForm::Chunked(chunk) => self.in_chunks(x, chunk),
        }
    }

    fn by_transforms(&self, x: &Tensor) -> Tensor {
        let [_, modes] = sizes(&self.weight);
        let key = Key::of(x, 0);
        let build = || PowerTable::new(key.time, modes, key.kind, key.device);
        self.powers.with(key, build, |table| fourier::apply(x, &self.weight, table))
    }

    fn in_chunks(&self, x: &Tensor, chunk: i64) -> Tensor {
        let [_, modes] = sizes(&self.weight);
        let key = Key::of(x, chunk);
        let build = || ModeTable::new(key.time, key.chunk, modes, key.kind, key.device);
        self.chunks.with(key, build, |table| apply(x, &self.weight, table))
    }

    /// The naive twin of `forward`.
    pub fn forward_naive(&self, x: &Tensor) -> Tensor {
        naive(x, &self.weight)
    }
}

fn apply(x: &Tensor, weight: &Tensor, table: &ModeTable) -> Tensor {
    let output = tch::no_grad(|| table.forward(x, weight));
    let inputs = [x, weight];
    let forward =
        Forward { name: "toeplitz", inputs: &inputs, outputs: &[&output], saved: &inputs };
    let table = table.clone();
    let [output] = in_graph(&forward, move |given| table.backward(given));
    output
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
    fn every_form_and_the_recurrence_agree_for_odd_lengths_and_any_number_of_modes() {
        use FilterForm::{Chunked, Fastest, Fourier};
        for (time, modes, forms) in [
            (1, 3, &[Fastest, Fourier, Chunked(5)][..]),
            (17, 1, &[Fourier, Chunked(5)]),
            (17, 2, &[Fourier, Chunked(17)]),
            (70, 3, &[Fastest, Chunked(CHUNK)]),
            (256, 4, &[Fastest]),
            (513, 4, &[Fastest, Fourier]),
            (4097, 8, &[Fourier, Chunked(CHUNK)]),
        ] {
            let x = random(&[2, time, 6], 1);
            let weight = random(&[6, modes], 2);
            for form in forms {
                assert_same_with_gradients(
                    &[&x, &weight],
                    |x| vec![Toeplitz::new(x[1].shallow_clone()).forward(&x[0], *form)],
                    |x| vec![naive(&x[0], &x[1])],
                );
            }
        }
    }

    #[test]
    fn the_first_weights_are_the_identity() {
        let x = random(&[2, 70, 2], 1);
        let weight = constant(&[1.0, 0.0, 0.0, 1.0, 0.0, 0.0], &[2, 3], Kind::Double, x.device());
        let found = Toeplitz::new(weight).forward(&x, FilterForm::Fastest);
        // Nothing but the rounding of a transform and its inverse, of numbers up to about 3.
        assert!((found - &x).abs().max().double_value(&[]) < 1e-13);
    }
}
