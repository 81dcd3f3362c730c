//! The tensors of a model by name and shape, and how many numbers they hold.
//!
//! It does not hold the numbers.

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
        let Shape { vocab_size, d_model, n_layers, ffn_hidden, .. } = self.shape;
        let (v, d, g) = (u64::from(vocab_size), u64::from(d_model), u64::from(ffn_hidden));
        let mut list = List { tensors: Vec::new() };
        list.push("embedding.weight", &[v, d]);
        match self.mixer {
            MixerConfig::Hgrn2 => list.push("lower_bounds", &[u64::from(n_layers), d]),
            MixerConfig::CosFormer2 { tpe_modes, .. } if tpe_modes > 0 => {
                list.push("tpe.weight", &[d, u64::from(tpe_modes)]);
            }
            _ => {}
        }
        for layer in 0..n_layers {
            list.norm(&format!("layers.{layer}.mixer_norm"), self.norm, d);
            for (name, out_width, in_width) in self.mixer_weights() {
                list.push(&format!("layers.{layer}.mixer.{name}.weight"), &[out_width, in_width]);
            }
            list.norm(&format!("layers.{layer}.channel_norm"), self.norm, d);
            list.push(&format!("layers.{layer}.channel.gate.weight"), &[g, d]);
            list.push(&format!("layers.{layer}.channel.up.weight"), &[g, d]);
            list.push(&format!("layers.{layer}.channel.down.weight"), &[d, g]);
        }
        list.norm("final_norm", self.norm, d);
        if !self.tie_embeddings {
            list.push("head.weight", &[v, d]);
        }
        list.tensors
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
        self.tensors().iter().map(TensorSpec::count).sum()
    }

    /// All parameters but `embedding.weight` and `head.weight`: the study's N.
    pub fn parameters_non_embedding(&self) -> u64 {
        let is_embedding = |name: &str| name == "embedding.weight" || name == "head.weight";
        let tensors = self.tensors();
        tensors.iter().filter(|tensor| !is_embedding(&tensor.name)).map(TensorSpec::count).sum()
    }
}

struct List {
    tensors: Vec<TensorSpec>,
}

impl List {
    fn push(&mut self, name: &str, shape: &[u64]) {
        self.tensors.push(TensorSpec { name: name.to_owned(), shape: shape.to_vec() });
    }

    fn norm(&mut self, path: &str, norm: Norm, width: u64) {
        if norm != Norm::SrmsNorm {
            self.push(&format!("{path}.weight"), &[width]);
        }
        if norm == Norm::LayerNorm {
            self.push(&format!("{path}.bias"), &[width]);
        }
    }
}
