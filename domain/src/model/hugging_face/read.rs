//! Reading a `config.json` of the Hugging Face layout.
//!
//! It does not write one.

use serde_json::{Map, Value, json};

use super::{CLASS, HuggingFaceError, HuggingFaceModel, MODEL_TYPE, ROPE_TYPE, inexpressible};
use crate::model::{Architecture, ModelConfig};

/// Keys that only have another name, theirs and ours.
const RENAMED: [(&str, &str); 8] = [
    ("vocab_size", "vocab_size"),
    ("hidden_size", "d_model"),
    ("num_hidden_layers", "n_layers"),
    ("num_attention_heads", "n_heads"),
    ("intermediate_size", "ffn_hidden"),
    ("num_key_value_heads", "n_kv_heads"),
    ("rms_norm_eps", "norm_eps"),
    ("tie_word_embeddings", "tie_embeddings"),
];

/// The sizes: without them the class's defaults, those of a 7B model, would be meant by nobody.
const REQUIRED: [&str; 5] =
    ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"];

/// Keys that hold the rotation: today's and the one before.
const ROPE_OBJECTS: [&str; 2] = ["rope_parameters", "rope_scaling"];

/// Keys that do not change the logits of given tokens.
const NEUTRAL: [&str; 14] = [
    "_name_or_path",
    // Dropout is active in training only.
    "attention_dropout",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    // How many slices a matrix product is cut into.
    "pretraining_tp",
    "initializer_range",
    "max_position_embeddings",
    "pad_token_id",
    "torch_dtype",
    "transformers_version",
    "use_cache",
    // Checked on their own.
    "head_dim",
    "rope_theta",
];

impl HuggingFaceModel {
    /// Reads the keys of a `config.json`; a key that is `null` counts as absent, as there.
    pub fn from_map(keys: &Map<String, Value>) -> Result<Self, HuggingFaceError> {
        let reader = Reader { keys };
        reader.check_class()?;
        for (field, allowed, valid) in fixed_keys() {
            if let Some(value) = reader.get(field)
                && !allowed.contains(value)
            {
                return Err(inexpressible(field, value, valid));
            }
        }
        let config = reader.config()?;
        let head_width = config.head_width();
        if let Some(value) = reader.get("head_dim")
            && value.as_u64() != Some(u64::from(head_width))
        {
            let valid = format!("{head_width}, that is `hidden_size` / `num_attention_heads`");
            return Err(inexpressible("head_dim", value, valid));
        }
        Ok(Self { config, ignored_keys: reader.ignored_keys() })
    }
}

/// Keys that may only have the values at which the class computes what the contract says.
fn fixed_keys() -> [(&'static str, Vec<Value>, &'static str); 11] {
    let no_bias = "`false`; a linear layer of the contract has no bias";
    let none = "absent; the contract's attention is over all earlier tokens";
    let no_cap = "absent; the contract does not cap scores or logits";
    [
        ("hidden_act", vec!["silu".into(), "swish".into()], "`silu`"),
        ("attention_bias", vec![false.into()], no_bias),
        ("mlp_bias", vec![false.into()], no_bias),
        ("sliding_window", vec![], none),
        ("use_sliding_window", vec![false.into()], none),
        ("is_causal", vec![true.into()], "`true`; the contract's attention is causal"),
        ("quantization_config", vec![], "absent; only F32, F16 and BF16 weights can be read"),
        ("auto_map", vec![], "absent; a model with code of its own may be any model"),
        ("partial_rotary_factor", vec![1.into(), 1.0.into()], "1; every channel is rotated"),
        ("attn_logit_softcapping", vec![], no_cap),
        ("final_logit_softcapping", vec![], no_cap),
    ]
}

/// Access to the keys of a `config.json`.
struct Reader<'a> {
    keys: &'a Map<String, Value>,
}

impl<'a> Reader<'a> {
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.keys.get(key).filter(|value| !value.is_null())
    }

    fn check_class(&self) -> Result<(), HuggingFaceError> {
        let (model_type, classes) = (self.get("model_type"), self.get("architectures"));
        if let Some(value) = model_type
            && *value != MODEL_TYPE
        {
            let valid = format!("`{MODEL_TYPE}`; other models compute something else");
            return Err(inexpressible("model_type", value, valid));
        }
        if let Some(value) = classes
            && *value != json!([CLASS])
        {
            return Err(inexpressible("architectures", value, format!("[\"{CLASS}\"]")));
        }
        if model_type.is_none() && classes.is_none() {
            return Err(HuggingFaceError::Missing { field: "model_type", valid: "`llama`" });
        }
        Ok(())
    }

    fn config(&self) -> Result<ModelConfig, HuggingFaceError> {
        let mut ours = Map::new();
        ours.insert("architecture".to_owned(), Architecture::Llama.label().into());
        // The class's default, which is not the contract's.
        ours.insert("tie_embeddings".to_owned(), false.into());
        for (theirs, our_key) in RENAMED {
            if let Some(value) = self.get(theirs) {
                ours.insert(our_key.to_owned(), value.clone());
            }
        }
        if let Some(field) = REQUIRED.into_iter().find(|key| self.get(key).is_none()) {
            return Err(HuggingFaceError::Missing { field, valid: "a whole number from 1" });
        }
        if let Some(base) = self.rope_base()? {
            ours.insert("rope_base".to_owned(), base.clone());
        }
        ModelConfig::from_map(&ours).map_err(|source| {
            let becomes = source.field().to_owned();
            let renamed = RENAMED.into_iter().find(|(_, our_key)| *our_key == becomes);
            let field = renamed.map_or("rope_theta", |(theirs, _)| theirs).to_owned();
            HuggingFaceError::Refused { field, becomes, source }
        })
    }

    /// The base of the rotation, wherever it stands; everything else that rotates is refused.
    fn rope_base(&self) -> Result<Option<&'a Value>, HuggingFaceError> {
        let mut base = self.get("rope_theta");
        for object in ROPE_OBJECTS {
            let Some(value) = self.get(object) else { continue };
            let Value::Object(entries) = value else {
                return Err(inexpressible(object, value, "an object"));
            };
            refuse_scaled_rotation(object, entries)?;
            let value = entries.get("rope_theta").filter(|value| !value.is_null());
            let Some(value) = value else { continue };
            if let Some(other) = base
                && other.as_f64() != value.as_f64()
            {
                let valid = format!("{other}, as elsewhere in the file");
                return Err(inexpressible(format!("{object}.rope_theta"), value, valid));
            }
            base = Some(value);
        }
        Ok(base)
    }

    fn ignored_keys(&self) -> Vec<String> {
        let is_known = |key: &str| {
            NEUTRAL.contains(&key)
                || ROPE_OBJECTS.contains(&key)
                || ["model_type", "architectures"].contains(&key)
                || RENAMED.iter().any(|(theirs, _)| *theirs == key)
                || fixed_keys().iter().any(|(fixed, ..)| *fixed == key)
        };
        self.keys.keys().filter(|key| !is_known(key)).cloned().collect()
    }
}

/// The type first: it says best what is wrong.
fn refuse_scaled_rotation(
    object: &str,
    entries: &Map<String, Value>,
) -> Result<(), HuggingFaceError> {
    let types = ["rope_type", "type"];
    for key in types {
        if let Some(value) = entries.get(key)
            && *value != ROPE_TYPE
        {
            let valid = "`default`; the contract has no scaled rotation";
            return Err(inexpressible(format!("{object}.{key}"), value, valid));
        }
    }
    for (key, value) in entries {
        let is_plain = match key.as_str() {
            "rope_theta" => true,
            "partial_rotary_factor" => value.as_f64() == Some(1.0),
            key => types.contains(&key) || value.is_null(),
        };
        if !is_plain {
            let valid = "absent; the contract has no scaled rotation";
            return Err(inexpressible(format!("{object}.{key}"), value, valid));
        }
    }
    Ok(())
}
