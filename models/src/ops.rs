//! What two or more architectures share: linear layers, norms, rotations and the linear-attention
//! operators, each with its naive twin.
//!
//! It holds no parameters of its own; layers own them.

pub mod decay_attention;
pub mod gated_attention;
pub mod glu;
pub(crate) mod graph;
pub mod linear;
pub mod linear_cross_entropy;
pub mod lrpe;
pub mod norm;
pub mod output_gate;
pub mod recurrent;
pub mod rotary;
pub(crate) mod scan;
pub(crate) mod table;
pub mod toeplitz;

#[cfg(test)]
pub(crate) mod testing;

use tch::{Device, Tensor};

pub use linear::{Linear, MatmulPrecision, forward_together};

/// How the mixing layers compute what they compute. All forms give the same numbers to rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Form {
    /// The form that trains fastest.
    #[default]
    Fast,
    /// The linear mixers in chunks of this many tokens, at least 1; `llama` has no chunks and takes
    /// it as [`Form::Fast`]. A chunk as long as the text is the quadratic parallel form.
    Chunked(i64),
    /// The recurrence over time, as the papers write it: slow, and what the others are tested
    /// against.
    Recurrent,
}

impl Form {
    /// The chunk length where this form has one.
    pub(crate) fn chunk_or(self, usual: i64) -> i64 {
        match self {
            Self::Chunked(length) => length.max(1),
            Self::Fast | Self::Recurrent => usual,
        }
    }
}

/// How a forward pass is carried out; no part of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Execution {
    /// Precision of the products with weight matrices.
    pub precision: MatmulPrecision,
    /// Form of the mixing layers.
    pub form: Form,
}

/// The sizes of a tensor whose rank the caller knows.
pub(crate) fn sizes<const RANK: usize>(x: &Tensor) -> [i64; RANK] {
    x.size().try_into().expect("the rank was fixed where the tensor was made")
}

/// `[B, T, …]` with zeros after the text, up to `steps`.
pub(crate) fn pad(x: &Tensor, steps: i64) -> Tensor {
    let missing = steps - x.size()[1];
    if missing == 0 {
        return x.shallow_clone();
    }
    let mut padding = vec![0; 2 * (x.dim() - 1)];
    padding[2 * (x.dim() - 2) + 1] = missing;
    x.constant_pad_nd(padding)
}

/// Length and number of chunks of about `chunk` tokens, evened out: 70 tokens make two of 35 and
/// not 64 and 6.
pub(crate) fn even_chunks(time: i64, chunk: i64) -> (i64, i64) {
    let n_chunks = (time + chunk - 1) / chunk;
    ((time + n_chunks - 1) / n_chunks, n_chunks)
}

/// target = a · b for stacks of matrices, written in place.
pub(crate) fn multiply_into(target: &Tensor, a: &Tensor, b: &Tensor) {
    drop(a.bmm_out(target, b));
}

/// Numbers of one tensor that are worked on together on a CPU: 1 MB in float32, so that ten or twenty
/// such tensors stay in the shared cache, where whole ones would go through memory for every
/// operation. Gated attention is slower with a quarter or with four times as many.
const SLAB: i64 = 1 << 18;

/// Cuts rows of `width` numbers into slabs: first row and number of rows of each.
pub(crate) fn slabs(rows: i64, width: i64, device: Device) -> impl Iterator<Item = (i64, i64)> {
    let step = if device == Device::Cpu { (SLAB / width).max(1) } else { rows.max(1) };
    let count = (rows + step - 1) / step;
    (0..count).map(move |slab| (slab * step, step.min(rows - slab * step)))
}
