//! The tensors of a model by name and shape, and how many numbers they hold.
//!
//! It does not hold the numbers.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{MixerConfig, ModelConfig, Norm, Shape};

/// One tensor of the checkpoint format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TensorSpec {
    /// The name in `model.safetensors`.
    pub name: String,
    /// The sizes, `[out, in]` for a linear layer.
    pub shape: Vec<u64>,
}

impl TensorSpec {
    /// How many numbers the tensor holds.
    pub fn count(&self) -> u64 {
        self.shape.iter().product()
    }
}

impl ModelConfig {
    /// Every tensor, in the contract's order: embedding, what the model has once, layers, final
    /// norm, head.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let mut tensors = Vec::new();
        self.visit(&mut |name, shape| {
            tensors.push(TensorSpec { name: name.to_string(), shape: shape.to_vec() });
        });
        tensors
    }

    /// Shows every tensor's name and shape, in that order. Names that nobody looks at are not made.
    fn visit(&self, show: &mut dyn FnMut(fmt::Arguments<'_>, &[u64])) {
        let Shape { vocab_size, d_model, n_layers, ffn_hidden, .. } = self.shape;
        let (v, d, g) = (u64::from(vocab_size), u64::from(d_model), u64::from(ffn_hidden));
        show(format_args!("embedding.weight"), &[v, d]);
        match self.mixer {
            MixerConfig::Hgrn2 => show(format_args!("lower_bounds"), &[u64::from(n_layers), d]),
            MixerConfig::CosFormer2 { tpe_modes, .. } if tpe_modes > 0 => {
                show(format_args!("tpe.weight"), &[d, u64::from(tpe_modes)]);
            }
            _ => {}
        }
        for layer in 0..n_layers {
            self.visit_norm(format_args!("layers.{layer}.mixer_norm"), show);
            for (name, out_width, in_width) in self.mixer_weights() {
                let shape = [out_width, in_width];
                show(format_args!("layers.{layer}.mixer.{name}.weight"), &shape);
            }
            self.visit_norm(format_args!("layers.{layer}.channel_norm"), show);
            show(format_args!("layers.{layer}.channel.gate.weight"), &[g, d]);
            show(format_args!("layers.{layer}.channel.up.weight"), &[g, d]);
            show(format_args!("layers.{layer}.channel.down.weight"), &[d, g]);
        }
        self.visit_norm(format_args!("final_norm"), show);
        if !self.tie_embeddings {
            show(format_args!("head.weight"), &[v, d]);
        }
    }

    fn visit_norm(
        &self,
        path: fmt::Arguments<'_>,
        show: &mut dyn FnMut(fmt::Arguments<'_>, &[u64]),
    ) {
        let width = u64::from(self.shape.d_model);
        if self.norm != Norm::SrmsNorm {
            show(format_args!("{path}.weight"), &[width]);
        }
        if self.norm == Norm::LayerNorm {
            show(format_args!("{path}.bias"), &[width]);
        }
    }

    /// The linear layers of one mixer: name, output width, input width.
    pub(super) fn mixer_weights(&self) -> Vec<(&'static str, u64, u64)> {
        let d = u64::from(self.shape.d_model);
        match self.mixer {
            MixerConfig::Llama { n_kv_heads, .. } => {
                let kv_width = u64::from(n_kv_heads) * u64::from(self.head_width());
                vec![("q", d, d), ("k", kv_width, d), ("v", kv_width, d), ("o", d, d)]
            }
            MixerConfig::Hgrn2 => vec![("q", d, d), ("f", d, d), ("v", d, d), ("o", d, d)],
            MixerConfig::Tnl { gate_rank } | MixerConfig::CosFormer2 { gate_rank, .. } => {
                let r = u64::from(gate_rank);
                let (down, up) = (("gate_down", r, d), ("gate_up", d, r));
                vec![("q", d, d), ("k", d, d), ("v", d, d), down, up, ("o", d, d)]
            }
        }
    }

    /// All parameters.
    pub fn parameters_total(&self) -> u64 {
        let mut n = 0;
        self.visit(&mut |_, shape| n += shape.iter().product::<u64>());
        n
    }

    /// All parameters but `embedding.weight` and `head.weight`: the study's N.
    pub fn parameters_non_embedding(&self) -> u64 {
        let of_one = u64::from(self.shape.vocab_size) * u64::from(self.shape.d_model);
        let n_of_them = if self.tie_embeddings { 1 } else { 2 };
        self.parameters_total() - n_of_them * of_one
    }
}
