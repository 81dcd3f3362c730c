//! The configuration of a language model with every default filled in, and what makes it valid.
//!
//! Reading and writing `config.json` is in `read`; the keys' meaning is the contract's
//! (`docs/reference`, checkpoint format).

use serde_json::{Map, Value, json};

use super::{Architecture, FfnActivation, ModelError, Norm, Rope};

/// The largest width, vocabulary or number of heads; keeps every count below 2^64.
const MAX_SIZE: u32 = 1 << 24;
/// The largest number of layers, for the same reason.
const MAX_LAYERS: u32 = 1 << 12;

/// The sizes every architecture has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Number of token ids, V.
    pub vocab_size: u32,
    /// Model width, d.
    pub d_model: u32,
    /// Number of layers, L.
    pub n_layers: u32,
    /// Number of heads, h.
    pub n_heads: u32,
    /// Width of the channel mixer, g.
    pub ffn_hidden: u32,
}

/// The keys that only some architectures have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MixerConfig {
    /// Softmax attention.
    Llama {
        /// Key and value heads; divides the number of heads.
        n_kv_heads: u32,
        /// Layout of the rotation.
        rope: Rope,
        /// Base of the rotation's frequencies.
        rope_base: f64,
    },
    /// Linear attention with scalar decay.
    Tnl {
        /// Inner width of the output gate, r.
        gate_rank: u32,
    },
    /// Linear attention with data-dependent decay.
    Hgrn2,
    /// Linear attention without decay.
    CosFormer2 {
        /// Inner width of the output gate, r.
        gate_rank: u32,
        /// Modes of the Toeplitz position encoding, e; 0 switches it off.
        tpe_modes: u32,
    },
}

/// A language model of the contract, every default filled in.
///
/// The fields may be set freely; [`ModelConfig::validate`] says whether the result makes sense, and
/// whoever builds a network calls it.
///
/// ```
/// use domain::model::{Architecture, ModelConfig, Shape};
///
/// let shape = Shape { vocab_size: 64, d_model: 24, n_layers: 2, n_heads: 2, ffn_hidden: 40 };
/// let config = ModelConfig::new(Architecture::Tnl, shape)?;
/// assert_eq!(config.head_width(), 12);
/// assert!(config.embedding_scale);
/// # Ok::<(), domain::model::ModelError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModelConfig {
    /// Sizes.
    pub shape: Shape,
    /// The output projection is the token embedding.
    pub tie_embeddings: bool,
    /// The norm outside the mixers.
    pub norm: Norm,
    /// Added to the mean square or the variance in every norm.
    pub norm_eps: f64,
    /// Multiply the embedding by √d.
    pub embedding_scale: bool,
    /// Activation of the gate branch of the channel mixer.
    pub ffn_activation: FfnActivation,
    /// What only this architecture has.
    pub mixer: MixerConfig,
}

impl ModelConfig {
    /// The contract's defaults for an architecture of a shape.
    pub fn new(architecture: Architecture, shape: Shape) -> Result<Self, ModelError> {
        // Before the division below can meet a zero.
        shape.validate()?;
        let config = Self::defaults(architecture, shape);
        config.validate()?;
        Ok(config)
    }

    /// The defaults, unchecked beyond what `shape.validate` has seen.
    pub(super) fn defaults(architecture: Architecture, shape: Shape) -> Self {
        let head_width = shape.d_model / shape.n_heads;
        let is_llama = architecture == Architecture::Llama;
        let mixer = match architecture {
            Architecture::Llama => MixerConfig::Llama {
                n_kv_heads: shape.n_heads,
                rope: Rope::Half,
                rope_base: 10_000.0,
            },
            Architecture::Tnl => MixerConfig::Tnl { gate_rank: head_width },
            Architecture::Hgrn2 => MixerConfig::Hgrn2,
            Architecture::CosFormer2 => {
                MixerConfig::CosFormer2 { gate_rank: head_width, tpe_modes: head_width }
            }
        };
        Self {
            shape,
            tie_embeddings: true,
            norm: if is_llama { Norm::RmsNorm } else { Norm::SrmsNorm },
            norm_eps: 1e-6,
            embedding_scale: matches!(architecture, Architecture::Tnl | Architecture::CosFormer2),
            ffn_activation: if is_llama { FfnActivation::Silu } else { FfnActivation::Identity },
            mixer,
        }
    }

    /// Which architecture this is.
    pub const fn architecture(&self) -> Architecture {
        match self.mixer {
            MixerConfig::Llama { .. } => Architecture::Llama,
            MixerConfig::Tnl { .. } => Architecture::Tnl,
            MixerConfig::Hgrn2 => Architecture::Hgrn2,
            MixerConfig::CosFormer2 { .. } => Architecture::CosFormer2,
        }
    }

    /// Channels of one head, d_h = d / h. Meaningful once validated.
    pub const fn head_width(&self) -> u32 {
        self.shape.d_model / self.shape.n_heads
    }

    /// Refuses what the contract does not allow, naming field, value and what would be valid.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.shape.validate()?;
        if !(self.norm_eps.is_finite() && self.norm_eps > 0.0) {
            return Err(ModelError::invalid("norm_eps", &self.norm_eps, "a positive number"));
        }
        match self.mixer {
            MixerConfig::Llama { n_kv_heads, rope, rope_base } => {
                self.validate_llama(n_kv_heads, rope, rope_base)
            }
            MixerConfig::Tnl { gate_rank } => {
                if self.shape.n_layers < 2 {
                    let valid = "at least 2 for `tnl`, whose decay runs from the first to the last";
                    return Err(ModelError::invalid("n_layers", &self.shape.n_layers, valid));
                }
                size("gate_rank", gate_rank)
            }
            MixerConfig::Hgrn2 => Ok(()),
            MixerConfig::CosFormer2 { gate_rank, tpe_modes } => {
                if tpe_modes > MAX_SIZE {
                    let valid = format!("0 (no position encoding) to {MAX_SIZE}");
                    return Err(ModelError::invalid("tpe_modes", &tpe_modes, valid));
                }
                size("gate_rank", gate_rank)
            }
        }
    }

    fn validate_llama(&self, n_kv_heads: u32, rope: Rope, base: f64) -> Result<(), ModelError> {
        let Shape { d_model, n_heads, .. } = self.shape;
        if !self.head_width().is_multiple_of(2) {
            let head_width = self.head_width();
            let valid = format!(
                "an even width per head for `llama`, for `n_heads` {n_heads} a multiple of {} \
                 (this one gives {head_width})",
                2 * n_heads
            );
            return Err(ModelError::invalid("d_model", &d_model, valid));
        }
        if n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
            let valid = format!("a divisor of `n_heads` {n_heads}");
            return Err(ModelError::invalid("n_kv_heads", &n_kv_heads, valid));
        }
        if rope == Rope::InterleavedFull && n_kv_heads != n_heads {
            let valid = format!("{n_heads} (`n_heads`) with `rope` `interleaved_full`");
            return Err(ModelError::invalid("n_kv_heads", &n_kv_heads, valid));
        }
        if !(base.is_finite() && base > 0.0) {
            return Err(ModelError::invalid("rope_base", &base, "a positive number"));
        }
        Ok(())
    }
}

impl Shape {
    /// Refuses zero and absurd sizes, and heads that do not divide the width.
    pub(super) fn validate(&self) -> Result<(), ModelError> {
        size("vocab_size", self.vocab_size)?;
        size("d_model", self.d_model)?;
        if !(1..=MAX_LAYERS).contains(&self.n_layers) {
            let valid = format!("1 to {MAX_LAYERS}");
            return Err(ModelError::invalid("n_layers", &self.n_layers, valid));
        }
        size("n_heads", self.n_heads)?;
        size("ffn_hidden", self.ffn_hidden)?;
        if !self.d_model.is_multiple_of(self.n_heads) {
            let below = self.d_model / self.n_heads * self.n_heads;
            let above = below + self.n_heads;
            let near = if below == 0 { format!("{above}") } else { format!("{below} or {above}") };
            let valid = format!("a multiple of `n_heads` {}, such as {near}", self.n_heads);
            return Err(ModelError::invalid("d_model", &self.d_model, valid));
        }
        Ok(())
    }
}

fn size(field: &'static str, value: u32) -> Result<(), ModelError> {
    if (1..=MAX_SIZE).contains(&value) {
        return Ok(());
    }
    Err(ModelError::invalid(field, &value, format!("1 to {MAX_SIZE}")))
}

/// A named set of keys. It is no value of `architecture`: what is stored are the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    /// The defaults of `llama`.
    Llama,
    /// The baseline of the linear-model study: LayerNorm, rotation over the full width, scaled
    /// embedding.
    LlamaStudy,
}

impl Preset {
    /// The names of all presets.
    pub const LABELS: &'static [&'static str] = &["llama", "llama_study"];

    /// The name in study files.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::LlamaStudy => "llama_study",
        }
    }

    /// The keys and values that the name stands for.
    pub fn keys(self) -> Map<String, Value> {
        let keys = match self {
            Self::Llama => json!({ "architecture": "llama" }),
            Self::LlamaStudy => json!({
                "architecture": "llama",
                "norm": "layernorm",
                "norm_eps": 1e-5,
                "rope": "interleaved_full",
                "embedding_scale": true,
            }),
        };
        match keys {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// Adds the preset's keys to those given; a key that is given wins.
    pub fn fill(self, keys: &mut Map<String, Value>) {
        for (key, value) in self.keys() {
            keys.entry(key).or_insert(value);
        }
    }
}

impl std::str::FromStr for Preset {
    type Err = ModelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "llama" => Ok(Self::Llama),
            "llama_study" => Ok(Self::LlamaStudy),
            _ => Err(ModelError::unknown_name("preset", text, Self::LABELS)),
        }
    }
}

impl std::fmt::Display for Preset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}
