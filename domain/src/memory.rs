//! An estimate of the peak memory of a training run before it runs, by named terms.
//!
//! It knows the CPU only, and measures nothing: `worker/tests/memory.rs` holds it against what the
//! kernel says.

use crate::model::{Architecture, FfnActivation, MixerConfig, ModelConfig};
use crate::recipe::PretrainCell;
use crate::spec::Precision;

/// Bytes of a weight, gradient, moment or activation, unless it is said otherwise.
const BYTES: f64 = 4.0;

/// Rows of logits that live at a time: a slice has at most this many, and one 28th of the batch.
const LONGEST_SLICE: u64 = 1024;
const SLICES: u64 = 28;

/// Tokens of a chunk of the linear mixers, each of which has a state.
const CHUNK: u32 = 64;
/// States of one layer that its backward pass has beside those that all layers keep: what chunks read
/// of the gradients, and the gradients after them.
const PASSING_STATES: f64 = 2.0;

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
    /// The states of the linear mixers' chunks, which are larger the wider a head is.
    pub states: f64,
    /// Slices of logits, and the gradient of the head where it is not yet that of the weights.
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
        (training + self.activations + self.states + self.loss + self.kernels) as u64
    }
}

/// Numbers that live for each token in each layer, and code and workspaces of kernels that training
/// touches and loading libtorch does not.
struct Live {
    /// Multiples of `d_model`: norms, mixer and residual sums, but for the states of chunks.
    widths: f64,
    /// Multiples of `ffn_hidden`: gate, up and their product, and what the allocator keeps beside
    /// them. In bfloat16 half of that, and something for the float32 copies that some kernels make.
    hidden_widths: f64,
    /// Bytes. Products in bfloat16 rearrange their factors first.
    kernels: f64,
}

/// By least squares over the peaks of 87 models of 7M to 54M parameters: d = 256 to 768, g = d to 8d,
/// 6 to 12 layers, 1k to 32k words, 256 to 2,048 tokens in a micro-batch of sequences of 256 to 2,048.
/// The estimate is then within 8 % of each peak, lowest for sequences of 2,048. What the states of heads
/// of 64 channels take in 8 layers has been taken out of `widths` since, as `states` counts it.
fn live(architecture: Architecture, activation: FfnActivation, precision: Precision) -> Live {
    const MIB: f64 = 1024.0 * 1024.0;
    let is_bf16 = precision == Precision::Bf16;
    let either = |fp32: f64, bf16: f64| if is_bf16 { bf16 } else { fp32 };
    let widths = match architecture {
        Architecture::Llama => either(10.5, 7.5),
        Architecture::Tnl => either(18.4, 18.9),
        Architecture::Hgrn2 => either(15.75, 14.25),
        Architecture::CosFormer2 => either(24.5, 26.0),
    };
    let hidden_widths = match activation {
        FfnActivation::Silu => either(3.3, 1.8),
        FfnActivation::Identity => either(2.8, 1.7),
    };
    Live { widths, hidden_widths, kernels: either(75.0, 100.0) * MIB }
}

/// The widths of a head's keys, added up over the states that a chunk has at one time: one in every
/// layer and the passing ones of a layer. LRPE doubles the keys; in TNL it stands in the first layer
/// alone, whose passing states are then the largest.
fn state_keys(model: &ModelConfig) -> f64 {
    let n_layers = f64::from(model.shape.n_layers);
    let n_states = match model.mixer {
        MixerConfig::Llama { .. } => 0.0,
        MixerConfig::Hgrn2 => n_layers + PASSING_STATES,
        MixerConfig::Tnl { .. } => n_layers + 1.0 + 2.0 * PASSING_STATES,
        MixerConfig::CosFormer2 { .. } => 2.0 * (n_layers + PASSING_STATES),
    };
    n_states * f64::from(model.head_width())
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
    /// | `activations` | 4 · m · T · L · (a · d + b · g): a is `widths`, b `hidden_widths` of `live` |
    /// | `states` | 4 · m · ⌈T / 64⌉ · d · k · (L + 2) for the linear mixers: k is the width of a head, with LRPE twice that; in TNL (L + 5) for (L + 2) |
    /// | `loss` | 4 · 2V for each of min(mT / 28, 1024) rows; 4 · V · d where the gradient of the head is added to another one, which a head of its own has only from other micro-batches |
    /// | `kernels` | 75 MiB, with bfloat16 products 100 MiB |
    pub fn memory(&self, micro_batch_sequences: u32) -> MemoryEstimate {
        let shape = &self.model.shape;
        let (d, g) = (f64::from(shape.d_model), f64::from(shape.ffn_hidden));
        let vocabulary = f64::from(shape.vocab_size);
        let parameters = BYTES * self.model.parameters_total() as f64;
        let average = if self.training.weight_average.is_some() { parameters } else { 0.0 };
        let n_tokens = u64::from(micro_batch_sequences) * u64::from(self.training.sequence_length);
        let live =
            live(self.model.architecture(), self.model.ffn_activation, self.training.precision);
        let of_layer = live.widths * d + live.hidden_widths * g;
        let per_token = f64::from(shape.n_layers) * of_layer;
        let n_chunks = f64::from(micro_batch_sequences)
            * f64::from(self.training.sequence_length.div_ceil(CHUNK));
        let rows = (n_tokens / SLICES).clamp(1, LONGEST_SLICE) as f64;
        let is_added =
            self.model.tie_embeddings || micro_batch_sequences < self.training.batch_sequences;
        let of_head = if is_added { d } else { 0.0 };
        MemoryEstimate {
            weights: 2.0 * parameters,
            optimizer: 2.0 * parameters,
            average,
            checkpoint: 4.0 * parameters + average,
            activations: BYTES * n_tokens as f64 * per_token,
            states: BYTES * n_chunks * d * state_keys(&self.model),
            loss: BYTES * vocabulary * (2.0 * rows + of_head),
            kernels: live.kernels,
        }
    }
}
