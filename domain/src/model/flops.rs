//! The two FLOP counts of a model, per token of training, with named terms.
//!
//! They are never mixed: every fit names the one it used. Neither knows a batch size: multiply by
//! the tokens.

use schemars::JsonSchema;
use serde::Serialize;

use super::{MixerConfig, ModelConfig, Shape};

/// A training step is the forward pass and a backward pass of twice its work.
const FORWARD_AND_BACKWARD: f64 = 3.0;
/// A multiply-add is two operations.
const MULTIPLY_ADD: f64 = 2.0;

/// One named part of a count.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FlopTerm {
    /// What is counted.
    pub name: &'static str,
    /// Operations per token of training, forward and backward.
    pub flops: f64,
}

/// Operations per token of training: forward and backward, backward = 2 × forward.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FlopCount {
    /// The parts; their sum is the count.
    pub terms: Vec<FlopTerm>,
}

impl FlopCount {
    /// Operations per token of training.
    pub fn total(&self) -> f64 {
        self.terms.iter().map(|term| term.flops).sum()
    }

    /// Operations per token of the forward pass alone, a third of the total.
    pub fn forward(&self) -> f64 {
        self.total() / FORWARD_AND_BACKWARD
    }

    /// From terms of the forward pass, dropping those an architecture does not have.
    fn from_forward(terms: &[(&'static str, f64)]) -> Self {
        let present = terms.iter().filter(|(_, forward)| *forward > 0.0);
        let terms = present
            .map(|&(name, forward)| FlopTerm { name, flops: FORWARD_AND_BACKWARD * forward });
        Self { terms: terms.collect() }
    }
}

impl ModelConfig {
    /// The exact count per token at a length, from the tensor shapes of the contract.
    ///
    /// A multiply-add counts as 2; backward is twice forward. Per token, forward:
    ///
    /// | term | what | operations |
    /// |---|---|---|
    /// | `projections` | the mixer's q, k (or f), v and o, all layers | 2 · out · in each |
    /// | `output_gate` | `gate_down` and `gate_up` of `tnl` and `cosformer2` | 2 · 2·d·r a layer |
    /// | `mixing` | `llama`: scores and weighted values over the full T × T, nothing saved for the causal half or for shared keys | 4·T·d a layer |
    /// | | the linear three in chunk form with chunk d_h, whatever kernel runs: inside a chunk scores and weighted values, between chunks reading and writing the state, with keys d_k wide (2·d_h where LRPE doubles them, else d_h) | h · (2·d_h·d_k + 2·d_h·d_h + 4·d_k·d_h) a layer |
    /// | `position_encoding` | `cosformer2`: one multiply-add per mode for the state and one for the output, once a model | 4·d·e |
    /// | `channel_mixer` | gate, up and down, all layers | 6·d·g a layer |
    /// | `head` | the output projection, also when tied | 2·V·d |
    ///
    /// Not counted: the embedding lookup, norms, activations, element-wise gates, residual sums,
    /// rotations and LRPE's cosines, decays and their exponentials, softmax, loss, optimiser. They
    /// grow with d, not with d², and no two kernels agree on them.
    pub fn flops_exact(&self, seq_len: u64) -> FlopCount {
        let Shape { vocab_size, d_model, n_layers, ffn_hidden, .. } = self.shape;
        let (d, layers) = (f64::from(d_model), f64::from(n_layers));
        let (mut projections, mut output_gate) = (0.0, 0.0);
        for (name, out_width, in_width) in self.mixer_weights() {
            let flops = MULTIPLY_ADD * layers * out_width as f64 * in_width as f64;
            if name.starts_with("gate_") {
                output_gate += flops;
            } else {
                projections += flops;
            }
        }
        let tpe_modes = match self.mixer {
            MixerConfig::CosFormer2 { tpe_modes, .. } => f64::from(tpe_modes),
            _ => 0.0,
        };
        FlopCount::from_forward(&[
            ("projections", projections),
            ("output_gate", output_gate),
            ("mixing", self.mixing_forward(seq_len)),
            ("position_encoding", 2.0 * MULTIPLY_ADD * d * tpe_modes),
            ("channel_mixer", 3.0 * MULTIPLY_ADD * layers * d * f64::from(ffn_hidden)),
            ("head", MULTIPLY_ADD * f64::from(vocab_size) * d),
        ])
    }

    /// The mixing of all layers, forward, per token: the term `mixing` of the exact count.
    fn mixing_forward(&self, seq_len: u64) -> f64 {
        let d = f64::from(self.shape.d_model);
        let layers = f64::from(self.shape.n_layers);
        let d_h = f64::from(self.head_width());
        // All heads of one layer in chunk form: h · d_h = d.
        let chunked = |d_k: f64| MULTIPLY_ADD * d * (d_k + d_h + 2.0 * d_k);
        match self.mixer {
            MixerConfig::Llama { .. } => layers * 2.0 * MULTIPLY_ADD * seq_len as f64 * d,
            MixerConfig::Tnl { .. } => chunked(2.0 * d_h) + (layers - 1.0) * chunked(d_h),
            MixerConfig::Hgrn2 => layers * chunked(d_h),
            MixerConfig::CosFormer2 { .. } => layers * chunked(2.0 * d_h),
        }
    }

    /// The closed form of "Scaling Laws for Linear Complexity Language Models" (arXiv 2406.16690,
    /// Table 1), per token at a length.
    ///
    /// It takes g = 8d/3, r = d_h and chunks of d_h whatever the configuration says, ignores the
    /// doubled keys of TNL's first layer, the position encoding and the head. With h heads, n the
    /// length, per token: 72·L·d² times
    ///
    /// | architecture | factor |
    /// |---|---|
    /// | `llama` | 1 + n/(6d) + 5/(18d) |
    /// | `tnl` | 1 + 1/(2h) + 5/(18d) |
    /// | `hgrn2` | 1 + 1/(3h) + 29/(72d) |
    /// | `cosformer2` | 1 + 3/(4h) + 23/(72d) |
    ///
    /// split here into `projections` and `channel_mixer` (the 1, as 24 and 48 of 72), `output_gate`
    /// (4·d²/h a layer, forward), `mixing` (the rest of the second summand) and `elementwise` (the
    /// third). Reproduces the printed FLOPs of all 24 models of Table 7.
    pub fn flops_published(&self, seq_len: u64) -> FlopCount {
        let d = f64::from(self.shape.d_model);
        let h = f64::from(self.shape.n_heads);
        let layers = f64::from(self.shape.n_layers);
        let per_head = layers * d * d / h;
        let gate = 4.0 * per_head;
        let (output_gate, mixing, elementwise) = match self.mixer {
            MixerConfig::Llama { .. } => (0.0, 4.0 * layers * d * seq_len as f64, 20.0),
            MixerConfig::Tnl { .. } => (gate, 8.0 * per_head, 20.0),
            MixerConfig::Hgrn2 => (0.0, 8.0 * per_head, 29.0),
            MixerConfig::CosFormer2 { .. } => (gate, 14.0 * per_head, 23.0),
        };
        FlopCount::from_forward(&[
            ("projections", 8.0 * layers * d * d),
            ("output_gate", output_gate),
            ("mixing", mixing),
            ("channel_mixer", 16.0 * layers * d * d),
            ("elementwise", elementwise * layers * d / FORWARD_AND_BACKWARD),
        ])
    }
}
