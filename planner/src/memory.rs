//! An estimate of the peak memory of training, so that a plan shows what a machine must have.
//!
//! It is no measurement: the allocator's slack and libtorch's own code are not in it.

use domain::model::{MixerConfig, ModelConfig};

/// Weights, gradients and AdamW's two moments, each a 32-bit float.
const BYTES_PER_PARAMETER: u64 = 4 * 4;

/// Bytes of one activation.
const BYTES_PER_ACTIVATION: u64 = 4;

/// Peak bytes of training a model on `micro_batch_sequences` sequences of `sequence_length` tokens.
///
/// P parameters with embeddings, and with T tokens a sequence, for every token of the micro-batch:
///
/// | term | bytes |
/// |---|---|
/// | weights, gradients, AdamW's moments | 16 · P |
/// | embedding, final norm | 4 · 3d a token |
/// | norms and residual sums (kept: input and output of each) | 4 · 6d a token and layer |
/// | q, k, v, what the mixer makes of them, its output and its gate | 4 · 9d |
/// | scores and weights of the quadratic forms (`llama`, `tnl`, `cosformer2`) | 4 · 2hT |
/// | states at the chunks' ends, decays and their sums (`hgrn2`) | 4 · 6d |
/// | channel mixer: gate, activated gate, up, product | 4 · 4g |
/// | logits, their log-softmax and its gradient | 4 · 3V a token |
pub(crate) fn peak_bytes(
    model: &ModelConfig,
    sequence_length: u32,
    micro_batch_sequences: u32,
) -> u64 {
    let shape = &model.shape;
    let length = u64::from(sequence_length);
    let (d, g) = (u64::from(shape.d_model), u64::from(shape.ffn_hidden));
    let mixing = match model.mixer {
        MixerConfig::Hgrn2 => 6 * d,
        MixerConfig::Llama { .. } | MixerConfig::Tnl { .. } | MixerConfig::CosFormer2 { .. } => {
            2 * u64::from(shape.n_heads) * length
        }
    };
    let per_layer = 6 * d + 9 * d + mixing + 4 * g;
    let per_token = 3 * d + u64::from(shape.n_layers) * per_layer + 3 * u64::from(shape.vocab_size);
    let tokens = u64::from(micro_batch_sequences) * length;
    let activations = tokens.saturating_mul(per_token).saturating_mul(BYTES_PER_ACTIVATION);
    model.parameters_total().saturating_mul(BYTES_PER_PARAMETER).saturating_add(activations)
}
