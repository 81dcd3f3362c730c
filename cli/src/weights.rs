//! Weights to and from the Hugging Face layout: everything is checked before anything is written.
//!
//! Which configurations are the same model on both sides, `domain::model` knows. No tensor is ever
//! in memory as a whole, so the size of a model does not matter.

mod error;
mod files;
mod numbers;
mod target;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use domain::model::{HuggingFaceModel, ModelConfig, hugging_face_tensors, to_hugging_face};
use serde_json::{Map, Value};

pub(crate) use error::WeightsError;
use files::{StoredTensor, TensorFiles};
use numbers::Element;

/// The configuration's file name on both sides.
const CONFIG_FILE: &str = "config.json";
/// The name of a file with all weights on both sides.
const MODEL_FILE: &str = "model.safetensors";

/// Where Transformers looks for the tokens that end a text before it looks into the configuration.
const GENERATION_FILE: &str = "generation_config.json";

/// A buffer of old files, which Transformers computes from the configuration and ignores as well.
const COMPUTED_BUFFER: &str = ".rotary_emb.inv_freq";

/// One tensor on its way.
#[derive(Debug)]
struct TensorCopy {
    stored: StoredTensor,
    element: Element,
    /// The name that it gets.
    name: String,
}

/// A model that was read and checked, ready to be written in the other layout.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// The model by the contract.
    pub(crate) config: ModelConfig,
    /// Keys of the configuration that mean nothing to the model.
    pub(crate) ignored_keys: Vec<String>,
    /// Tensors that the configuration already says.
    pub(crate) ignored_tensors: Vec<String>,
    /// The ids of the tokens that end a text there; the contract has no place for them.
    pub(crate) stop_tokens: Vec<u64>,
    /// What is written as `config.json`.
    config_text: String,
    /// What the header of the safetensors file says beside the tensors.
    format: Option<&'static str>,
    source: TensorFiles,
    copies: Vec<TensorCopy>,
}

/// A tensor's name there, its name here, and its shape.
struct Expected {
    from: String,
    to: String,
    shape: Vec<u64>,
}

impl Transfer {
    /// A model in the Hugging Face layout, to be written by the contract.
    pub(crate) fn import(folder: &Path) -> Result<Self, WeightsError> {
        let path = folder.join(CONFIG_FILE);
        let keys = read_keys(&path)?;
        let model = HuggingFaceModel::from_map(&keys)
            .map_err(|source| WeightsError::Model { path, source: source.into() })?;
        let expected = expected(&model.config, true)?;
        let source = TensorFiles::open_sharded(folder)?;
        let mut ignored_tensors = source.names_that(|name| name.ends_with(COMPUTED_BUFFER));
        if model.config.tie_embeddings {
            ignored_tensors.extend(copy_of_the_embedding(&source)?);
        }
        let copies = matched(&source, expected, &ignored_tensors)?;
        Ok(Self {
            config_text: text(&model.config)?,
            config: model.config,
            ignored_keys: model.ignored_keys,
            ignored_tensors,
            stop_tokens: stop_tokens(folder, &keys)?,
            // As a trainer writes it: then the same weights are the same file.
            format: None,
            source,
            copies,
        })
    }

    /// A model by the contract, to be written in the Hugging Face layout.
    pub(crate) fn export(folder: &Path, max_positions: u32) -> Result<Self, WeightsError> {
        let path = folder.join(CONFIG_FILE);
        let config = ModelConfig::from_map(&read_keys(&path)?).map_err(|source| {
            WeightsError::Contract { path: path.clone(), source: source.into() }
        })?;
        let keys = to_hugging_face(&config, max_positions)
            .map_err(|source| WeightsError::Model { path, source: source.into() })?;
        let source = TensorFiles::open(&folder.join(MODEL_FILE))?;
        let copies = matched(&source, expected(&config, false)?, &[])?;
        Ok(Self {
            config_text: text(&keys)?,
            config,
            ignored_keys: Vec::new(),
            ignored_tensors: Vec::new(),
            stop_tokens: Vec::new(),
            // Transformers refuses a file that does not say it.
            format: Some("pt"),
            source,
            copies,
        })
    }

    /// Writes both files; the folder is there as a whole or not at all.
    pub(crate) fn write(&self, out: &Path) -> Result<(), WeightsError> {
        let target = target::Target::beside(out)?;
        let path = target.path().join(MODEL_FILE);
        numbers::write(&path, &self.source, &self.copies, self.format)?;
        target.write(CONFIG_FILE, self.config_text.as_bytes())?;
        target.publish()
    }

    /// How many bytes the numbers take once written.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.copies.iter().map(|copy| numbers::n_written_bytes(&copy.stored)).sum()
    }

    /// How many tensors are written.
    pub(crate) fn n_tensors(&self) -> usize {
        self.copies.len()
    }

    /// How many tensors of each element type come in another one than they are written in.
    pub(crate) fn widened(&self) -> BTreeMap<String, usize> {
        let mut widened = BTreeMap::new();
        for copy in self.copies.iter().filter(|copy| copy.element != Element::F32) {
            *widened.entry(copy.element.label().to_owned()).or_insert(0) += 1;
        }
        widened
    }
}

/// Refuses a folder that has something in it, before any work is done.
pub(crate) fn check_out(out: &Path) -> Result<(), WeightsError> {
    target::check(out)
}

fn read_keys(path: &Path) -> Result<Map<String, Value>, WeightsError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| WeightsError::Read { path: path.to_owned(), source })?;
    serde_json::from_str(&text)
        .map_err(|source| WeightsError::Json { path: path.to_owned(), source })
}

/// What `eos_token_id` says, one id or several. It changes no logit, so another value is passed over as
/// if it were absent.
fn stop_tokens(folder: &Path, keys: &Map<String, Value>) -> Result<Vec<u64>, WeightsError> {
    let path = folder.join(GENERATION_FILE);
    let generation = if path.exists() { read_keys(&path)? } else { Map::new() };
    let of_file = |keys: &Map<String, Value>| -> Vec<u64> {
        match keys.get("eos_token_id") {
            Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).collect(),
            Some(id) => id.as_u64().into_iter().collect(),
            None => Vec::new(),
        }
    };
    let found = of_file(&generation);
    Ok(if found.is_empty() { of_file(keys) } else { found })
}

fn text(value: &impl serde::Serialize) -> Result<String, WeightsError> {
    let path = PathBuf::from(CONFIG_FILE);
    serde_json::to_string_pretty(value).map_err(|source| WeightsError::Json { path, source })
}

fn expected(config: &ModelConfig, is_import: bool) -> Result<Vec<Expected>, WeightsError> {
    let pairs = hugging_face_tensors(config).map_err(|source| WeightsError::Model {
        path: PathBuf::from(CONFIG_FILE),
        source: source.into(),
    })?;
    let expected = pairs.into_iter().map(|pair| {
        let (ours, theirs) = (pair.tensor.name, pair.hugging_face_name);
        let (from, to) = if is_import { (theirs, ours) } else { (ours, theirs) };
        Expected { from, to, shape: pair.tensor.shape }
    });
    Ok(expected.collect())
}

/// Some files hold the tied output projection a second time. If it is another matrix, nobody can
/// say which of the two is meant.
fn copy_of_the_embedding(source: &TensorFiles) -> Result<Option<String>, WeightsError> {
    let name = "lm_head.weight";
    let (Some(head), Some(embedding)) = (source.get(name), source.get("model.embed_tokens.weight"))
    else {
        return Ok(None);
    };
    if numbers::hash(source, name, head)? == numbers::hash(source, name, embedding)? {
        Ok(Some(name.to_owned()))
    } else {
        Err(WeightsError::UntiedHead)
    }
}

/// Every tensor of the model, and no other, with its shape and a type that can be read.
fn matched(
    source: &TensorFiles,
    expected: Vec<Expected>,
    ignored: &[String],
) -> Result<Vec<TensorCopy>, WeightsError> {
    let is_expected = |name: &str| expected.iter().any(|one| one.from == name);
    let extra = source
        .names_that(|name| !is_expected(name) && !ignored.iter().any(|ignored| ignored == name));
    let missing: Vec<String> = expected
        .iter()
        .filter(|one| source.get(&one.from).is_none())
        .map(|one| one.from.clone())
        .collect();
    if !missing.is_empty() || !extra.is_empty() {
        return Err(WeightsError::Names { missing, extra });
    }
    let mut copies = Vec::with_capacity(expected.len());
    for Expected { from, to, shape } in expected {
        let Some(stored) = source.get(&from) else { continue };
        if stored.shape != shape {
            let found = stored.shape.clone();
            return Err(WeightsError::Shape { name: from, found, expected: shape });
        }
        let element = Element::of(&from, stored.dtype)?;
        copies.push(TensorCopy { stored: stored.clone(), element, name: to });
    }
    // The order that safetensors gives files of one element type.
    copies.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(copies)
}

#[cfg(test)]
mod tests;
