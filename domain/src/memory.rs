//! An estimate of the peak memory of a training run before it runs, by named terms.
//!
//! It knows the CPU only, and measures nothing: `worker/tests/memory.rs` holds it against what the
//! kernel says.

use crate::model::{Architecture, FfnActivation};
use crate::recipe::PretrainCell;
use crate::spec::Precision;

/// Bytes of a weight, gradient, moment or activation, unless it is said otherwise.
const BYTES: f64 = 4.0;

/// Code of kernels and their workspaces that training touches and loading libtorch does not.
const KERNELS: f64 = 32.0 * 1024.0 * 1024.0;

/// Rows of logits that live at a time: a slice has at most this many, and a twentieth of the batch.
const LONGEST_SLICE: u64 = 1024;
const SLICES: u64 = 20;

/// Bytes of one run at its peak, beside libtorch after loading.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryEstimate {
    /// Weights, and their gradients.
    pub weights: f64,
    /// AdamW's two moments.
    pub optimizer: f64,
    /// The average of the weights, if one is kept.
    pub average: f64,
    /// A checkpoint that is being written: copies of the above but the gradients, and a file.
    pub checkpoint: f64,
    /// What one micro-batch leaves for its backward pass, and what that makes of it.
    pub activations: f64,
    /// Slices of logits, and the gradient of the head.
    pub loss: f64,
    /// Code and workspaces of kernels.
    pub kernels: f64,
}

impl MemoryEstimate {
    /// All terms, in whole bytes.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "no term is negative, and a fraction of a byte is nothing"
    )]
    pub fn total(&self) -> u64 {
        let training = self.weights + self.optimizer + self.average + self.checkpoint;
        (training + self.activations + self.loss + self.kernels) as u64
    }
}

/// Numbers that live for each token, by part of the network.
struct Live {
    /// Multiples of `d_model` in each layer: norms, mixer and residual sums.
    layer_widths: f64,
    /// Multiples of `d_model` outside of the layers: embedding, positions, final norm.
    widths: f64,
}

/// Multiples of `ffn_hidden` in each layer. With SiLU gate, up, their product, and a tenth more that the
/// allocator keeps; in bfloat16 half of that, and something for the float32 copies of factors that a
/// CPU without bfloat16 products makes. Without an activation the multiples of `d_model` below were
/// fitted beside 4.4 in both precisions, and hold the peaks with it.
fn hidden_widths(activation: FfnActivation, precision: Precision) -> f64 {
    match (activation, precision) {
        (FfnActivation::Silu, Precision::Fp32) => 3.3,
        (FfnActivation::Silu, Precision::Bf16) => 2.0,
        (FfnActivation::Identity, _) => 4.4,
    }
}

/// By least squares over the peaks of models of 3M to 11M parameters with 512 to 4,096 tokens in a
/// micro-batch; all but the multiples of `ffn_hidden`, which the shapes give.
fn live(architecture: Architecture) -> Live {
    let (layer_widths, widths) = match architecture {
        Architecture::Llama => (12.9, 0.0),
        Architecture::Tnl => (15.0, 12.5),
        Architecture::Hgrn2 => (11.2, 13.2),
        Architecture::CosFormer2 => (15.8, 37.6),
    };
    Live { layer_widths, widths }
}

impl PretrainCell {
    /// The peak memory of training this on a CPU with so many sequences in a micro-batch.
    ///
    /// With P parameters, embeddings included, T tokens in a sequence and m sequences:
    ///
    /// | term | bytes |
    /// |---|---|
    /// | `weights` | 4 · 2P |
    /// | `optimizer` | 4 · 2P |
    /// | `average` | 4 · P if kept |
    /// | `checkpoint` | the weights without gradients, `optimizer` and `average` once more, and 4 · P |
    /// | `activations` | 4 · m · T · (L · (a · d + b · g) + c · d): a, c of `live`, b of `hidden_widths` |
    /// | `loss` | 4 · 2V for each of min(mT / 20, 1024) rows, and 4 · V · d |
    /// | `kernels` | 32 MiB |
    pub fn memory(&self, micro_batch_sequences: u32) -> MemoryEstimate {
        let shape = &self.model.shape;
        let (d, g) = (f64::from(shape.d_model), f64::from(shape.ffn_hidden));
        let vocabulary = f64::from(shape.vocab_size);
        let parameters = BYTES * self.model.parameters_total() as f64;
        let average = if self.training.weight_average.is_some() { parameters } else { 0.0 };
        let n_tokens = u64::from(micro_batch_sequences) * u64::from(self.training.sequence_length);
        let Live { layer_widths, widths } = live(self.model.architecture());
        let hidden_widths = hidden_widths(self.model.ffn_activation, self.training.precision);
        let of_layer = layer_widths * d + hidden_widths * g;
        let per_token = f64::from(shape.n_layers) * of_layer + widths * d;
        let rows = (n_tokens / SLICES).clamp(1, LONGEST_SLICE) as f64;
        MemoryEstimate {
            weights: 2.0 * parameters,
            optimizer: 2.0 * parameters,
            average,
            checkpoint: 4.0 * parameters + average,
            activations: BYTES * n_tokens as f64 * per_token,
            loss: BYTES * vocabulary * (2.0 * rows + d),
            kernels: KERNELS,
        }
    }
}
