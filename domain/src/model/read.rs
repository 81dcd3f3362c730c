//! `config.json`: from a map of keys to a configuration, and back.
//!
//! It does not open files.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::error::list;
use super::{Architecture, MixerConfig, ModelConfig, ModelError, Shape};

/// Every key of the contract, in its order.
pub const KEYS: &[&str] = &[
    "architecture",
    "vocab_size",
    "d_model",
    "n_layers",
    "n_heads",
    "ffn_hidden",
    "tie_embeddings",
    "norm",
    "norm_eps",
    "embedding_scale",
    "ffn_activation",
    "n_kv_heads",
    "rope",
    "rope_base",
    "gate_rank",
    "tpe_modes",
];

/// Keys that only some architectures have.
const OWNED_KEYS: &[(&str, &[Architecture])] = &[
    ("n_kv_heads", &[Architecture::Llama]),
    ("rope", &[Architecture::Llama]),
    ("rope_base", &[Architecture::Llama]),
    ("gate_rank", &[Architecture::Tnl, Architecture::CosFormer2]),
    ("tpe_modes", &[Architecture::CosFormer2]),
];

impl ModelConfig {
    /// A configuration from the keys of `config.json`; an absent key has its default.
    ///
    /// Refused: keys that the contract does not have, keys of another architecture (they would be
    /// ignored in silence), wrong types, and combinations that [`ModelConfig::validate`] refuses.
    pub fn from_map(keys: &Map<String, Value>) -> Result<Self, ModelError> {
        if let Some(key) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(ModelError::unknown_key(key, KEYS));
        }
        let reader = Reader { keys };
        let architecture = reader
            .name("architecture")?
            .ok_or_else(|| missing("architecture", list(Architecture::LABELS)))?;
        reader.refuse_keys_of_others(architecture)?;
        let shape = Shape {
            vocab_size: reader.required_size("vocab_size")?,
            d_model: reader.required_size("d_model")?,
            n_layers: reader.required_size("n_layers")?,
            n_heads: reader.required_size("n_heads")?,
            ffn_hidden: reader.required_size("ffn_hidden")?,
        };
        shape.validate()?;
        let mut config = Self::defaults(architecture, shape);
        reader.apply(&mut config)?;
        config.validate()?;
        Ok(config)
    }

    /// The keys that apply to the architecture, in the contract's order, defaults spelled out.
    pub fn to_entries(&self) -> Vec<(&'static str, Value)> {
        let Shape { vocab_size, d_model, n_layers, n_heads, ffn_hidden } = self.shape;
        let mut entries: Vec<(&'static str, Value)> = vec![
            ("architecture", self.architecture().label().into()),
            ("vocab_size", vocab_size.into()),
            ("d_model", d_model.into()),
            ("n_layers", n_layers.into()),
            ("n_heads", n_heads.into()),
            ("ffn_hidden", ffn_hidden.into()),
            ("tie_embeddings", self.tie_embeddings.into()),
            ("norm", self.norm.label().into()),
            ("norm_eps", self.norm_eps.into()),
            ("embedding_scale", self.embedding_scale.into()),
            ("ffn_activation", self.ffn_activation.label().into()),
        ];
        match self.mixer {
            MixerConfig::Llama { n_kv_heads, rope, rope_base } => entries.extend([
                ("n_kv_heads", Value::from(n_kv_heads)),
                ("rope", rope.label().into()),
                ("rope_base", rope_base.into()),
            ]),
            MixerConfig::Tnl { gate_rank } => entries.push(("gate_rank", gate_rank.into())),
            MixerConfig::Hgrn2 => {}
            MixerConfig::CosFormer2 { gate_rank, tpe_modes } => entries
                .extend([("gate_rank", Value::from(gate_rank)), ("tpe_modes", tpe_modes.into())]),
        }
        entries
    }
}

impl Serialize for ModelConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = self.to_entries();
        let mut map = serializer.serialize_map(Some(entries.len()))?;
        for (key, value) in entries {
            map.serialize_entry(key, &value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for ModelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = Map::<String, Value>::deserialize(deserializer)?;
        Self::from_map(&keys).map_err(serde::de::Error::custom)
    }
}

fn missing(field: &'static str, valid: impl Into<String>) -> ModelError {
    ModelError::Missing { field, valid: valid.into() }
}

/// Typed access to the keys.
struct Reader<'a> {
    keys: &'a Map<String, Value>,
}

impl Reader<'_> {
    fn refuse_keys_of_others(&self, architecture: Architecture) -> Result<(), ModelError> {
        for &(field, owners) in OWNED_KEYS {
            if self.keys.contains_key(field) && !owners.contains(&architecture) {
                let labels: Vec<_> = owners.iter().map(|owner| owner.label()).collect();
                return Err(ModelError::KeyOfOtherArchitecture {
                    field,
                    architecture: architecture.label(),
                    valid: list(&labels),
                });
            }
        }
        Ok(())
    }

    /// Overwrites defaults with the optional keys that are given.
    fn apply(&self, config: &mut ModelConfig) -> Result<(), ModelError> {
        set(&mut config.tie_embeddings, self.boolean("tie_embeddings")?);
        set(&mut config.norm, self.name("norm")?);
        set(&mut config.norm_eps, self.number("norm_eps")?);
        set(&mut config.embedding_scale, self.boolean("embedding_scale")?);
        set(&mut config.ffn_activation, self.name("ffn_activation")?);
        match &mut config.mixer {
            MixerConfig::Llama { n_kv_heads, rope, rope_base } => {
                set(n_kv_heads, self.size("n_kv_heads")?);
                set(rope, self.name("rope")?);
                set(rope_base, self.number("rope_base")?);
            }
            MixerConfig::Tnl { gate_rank } => set(gate_rank, self.size("gate_rank")?),
            MixerConfig::Hgrn2 => {}
            MixerConfig::CosFormer2 { gate_rank, tpe_modes } => {
                set(gate_rank, self.size("gate_rank")?);
                set(tpe_modes, self.size("tpe_modes")?);
            }
        }
        Ok(())
    }

    fn required_size(&self, field: &'static str) -> Result<u32, ModelError> {
        self.size(field)?.ok_or_else(|| missing(field, "a whole number from 1"))
    }

    fn size(&self, field: &'static str) -> Result<Option<u32>, ModelError> {
        self.typed(field, "a whole number", |value| {
            value.as_u64().and_then(|size| u32::try_from(size).ok())
        })
    }

    fn number(&self, field: &'static str) -> Result<Option<f64>, ModelError> {
        self.typed(field, "a number", Value::as_f64)
    }

    fn boolean(&self, field: &'static str) -> Result<Option<bool>, ModelError> {
        self.typed(field, "`true` or `false`", Value::as_bool)
    }

    fn name<T>(&self, field: &'static str) -> Result<Option<T>, ModelError>
    where
        T: std::str::FromStr<Err = ModelError>,
    {
        let text = self.typed(field, "a name", |value| value.as_str().map(str::to_owned))?;
        text.map(|text| text.parse()).transpose()
    }

    fn typed<T>(
        &self,
        field: &'static str,
        valid: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.keys.get(field) else {
            return Ok(None);
        };
        read(value).map(Some).ok_or_else(|| ModelError::invalid(field, value, valid))
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}
