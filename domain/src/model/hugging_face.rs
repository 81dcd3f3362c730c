//! A LLaMA in the Hugging Face layout: its `config.json` and its tensor names, there and back.
//!
//! It reads no files and moves no numbers. Keys, defaults and mathematics are those of
//! `LlamaForCausalLM` of Transformers 5.23; whatever that class does and the contract cannot say is
//! refused, in both directions.

mod read;

use serde_json::{Map, Value, json};

use super::{
    Architecture, FfnActivation, MixerConfig, ModelConfig, ModelError, Norm, Rope, Shape,
    TensorSpec,
};

/// The only class whose mathematics the contract's `llama` has.
const CLASS: &str = "LlamaForCausalLM";
/// The class's `model_type`.
const MODEL_TYPE: &str = "llama";
/// The only rotation of the contract among those of Transformers.
const ROPE_TYPE: &str = "default";

/// A layer's tensors, ours and theirs, without `layers.{i}.` and `model.layers.{i}.`.
const LAYER_TENSORS: [(&str, &str); 9] = [
    ("mixer_norm", "input_layernorm"),
    ("mixer.q", "self_attn.q_proj"),
    ("mixer.k", "self_attn.k_proj"),
    ("mixer.v", "self_attn.v_proj"),
    ("mixer.o", "self_attn.o_proj"),
    ("channel_norm", "post_attention_layernorm"),
    ("channel.gate", "mlp.gate_proj"),
    ("channel.up", "mlp.up_proj"),
    ("channel.down", "mlp.down_proj"),
];

/// A configuration that has no equal on the other side.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HuggingFaceError {
    /// A key has a value that the other side cannot express.
    #[error("`{field}` is {value}; valid: {valid}")]
    Inexpressible {
        /// The key, with a point before a key inside it.
        field: String,
        /// Its value as JSON.
        value: String,
        /// What would be valid, and why.
        valid: String,
    },
    /// A key that cannot be guessed is absent.
    #[error("`{field}` is missing; valid: {valid}")]
    Missing {
        /// The key.
        field: &'static str,
        /// What it may hold.
        valid: &'static str,
    },
    /// A key would give a configuration that the contract refuses.
    #[error("`{field}`, which becomes `{becomes}`, is not valid")]
    Refused {
        /// Their key.
        field: String,
        /// Our key.
        becomes: String,
        /// Why.
        #[source]
        source: ModelError,
    },
}

/// What was read from a `config.json` of the Hugging Face layout.
#[derive(Debug, Clone, PartialEq)]
pub struct HuggingFaceModel {
    /// The same model by the contract.
    pub config: ModelConfig,
    /// Keys that `LlamaForCausalLM` does not read, so that neither does this.
    pub ignored_keys: Vec<String>,
}

/// One tensor under both of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPair {
    /// The tensor by the contract.
    pub tensor: TensorSpec,
    /// Its name in the Hugging Face layout; the shape is the same, the numbers stand in the same
    /// order.
    pub hugging_face_name: String,
}

/// The `config.json` in the Hugging Face layout of a model; `max_positions` is the longest sequence
/// that its reader should try, which the contract does not know.
///
/// ```
/// use domain::model::{Architecture, ModelConfig, Shape, to_hugging_face};
///
/// let shape = Shape { vocab_size: 64, d_model: 24, n_layers: 2, n_heads: 2, ffn_hidden: 40 };
/// let config = ModelConfig::new(Architecture::Llama, shape)?;
/// assert_eq!(to_hugging_face(&config, 256)?["hidden_size"], 24);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn to_hugging_face(
    config: &ModelConfig,
    max_positions: u32,
) -> Result<Map<String, Value>, HuggingFaceError> {
    let (n_kv_heads, rope_base) = expressible(config)?;
    let Shape { vocab_size, d_model, n_layers, n_heads, ffn_hidden } = config.shape;
    let keys = json!({
        "architectures": [CLASS],
        "model_type": MODEL_TYPE,
        "vocab_size": vocab_size,
        "hidden_size": d_model,
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads,
        "head_dim": config.head_width(),
        "intermediate_size": ffn_hidden,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
        // Readers since Transformers 5 look into the object, those before at the key.
        "rope_parameters": { "rope_type": ROPE_TYPE, "rope_theta": rope_base },
        "rope_theta": rope_base,
        "attention_bias": false,
        "mlp_bias": false,
        "max_position_embeddings": max_positions,
        "torch_dtype": "float32",
        // The class's defaults are the tokens of another tokenizer, at which generation would stop.
        "bos_token_id": null,
        "eos_token_id": null,
        "pad_token_id": null,
    });
    match keys {
        Value::Object(keys) => Ok(keys),
        _ => Ok(Map::new()),
    }
}

/// Every tensor of a model under both names, in the contract's order.
pub fn hugging_face_tensors(config: &ModelConfig) -> Result<Vec<TensorPair>, HuggingFaceError> {
    expressible(config)?;
    let pair = |tensor: TensorSpec| {
        let valid = "a tensor of a LLaMA with RMSNorm";
        let hugging_face_name = hugging_face_name(&tensor.name)
            .ok_or_else(|| label("tensor", &tensor.name, valid.to_owned()))?;
        Ok(TensorPair { tensor, hugging_face_name })
    };
    config.tensors().into_iter().map(pair).collect()
}

fn hugging_face_name(name: &str) -> Option<String> {
    match name {
        "embedding.weight" => return Some("model.embed_tokens.weight".to_owned()),
        "final_norm.weight" => return Some("model.norm.weight".to_owned()),
        "head.weight" => return Some("lm_head.weight".to_owned()),
        _ => {}
    }
    let (layer, part) = name.strip_prefix("layers.")?.split_once('.')?;
    let part = part.strip_suffix(".weight")?;
    let (_, theirs) = LAYER_TENSORS.iter().find(|(ours, _)| *ours == part)?;
    Some(format!("model.layers.{layer}.{theirs}.weight"))
}

/// Refuses what `LlamaForCausalLM` cannot express; gives the key/value heads and the base.
fn expressible(config: &ModelConfig) -> Result<(u32, f64), HuggingFaceError> {
    let of_class = |valid: &str| format!("`{valid}`, the only one that `{CLASS}` has");
    let MixerConfig::Llama { n_kv_heads, rope, rope_base } = config.mixer else {
        let valid = of_class(Architecture::Llama.label());
        return Err(label("architecture", config.architecture().label(), valid));
    };
    if config.norm != Norm::RmsNorm {
        return Err(label("norm", config.norm.label(), of_class(Norm::RmsNorm.label())));
    }
    if rope != Rope::Half {
        return Err(label("rope", rope.label(), of_class(Rope::Half.label())));
    }
    if config.ffn_activation != FfnActivation::Silu {
        let valid = of_class(FfnActivation::Silu.label());
        return Err(label("ffn_activation", config.ffn_activation.label(), valid));
    }
    if config.embedding_scale {
        let valid = format!("`false`: `{CLASS}` does not scale its embedding");
        return Err(inexpressible("embedding_scale", &Value::from(true), valid));
    }
    Ok((n_kv_heads, rope_base))
}

fn inexpressible(
    field: impl Into<String>,
    value: &Value,
    valid: impl Into<String>,
) -> HuggingFaceError {
    let (field, valid) = (field.into(), valid.into());
    HuggingFaceError::Inexpressible { field, value: value.to_string(), valid }
}

fn label(field: &str, value: &str, valid: String) -> HuggingFaceError {
    HuggingFaceError::Inexpressible { field: field.to_owned(), value: format!("`{value}`"), valid }
}

#[cfg(test)]
mod tests;
