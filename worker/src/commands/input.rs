//! The files that commands read, with errors that name the file.
//!
//! It runs no model.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use domain::model::ModelConfig;
use models::LanguageModel;
use serde_json::{Map, Value};
use tch::Device;

use crate::checkpoint::{CONFIG_FILE, MODEL_FILE, tensors};

/// A model's configuration from a file, or from standard input where the path is `-`.
pub(super) fn config(path: &Path) -> Result<ModelConfig> {
    let text = text(path)?;
    let name = path.display();
    let keys: Map<String, Value> =
        serde_json::from_str(&text).with_context(|| format!("`{name}` is no JSON object"))?;
    ModelConfig::from_map(&keys).with_context(|| format!("`{name}` is no configuration of a model"))
}

/// The model of a folder with its weights, on the CPU.
pub(super) fn model(folder: &Path) -> Result<LanguageModel> {
    let config = config(&folder.join(CONFIG_FILE))?;
    let path = folder.join(MODEL_FILE);
    let name = path.display();
    let bytes = std::fs::read(&path).with_context(|| format!("could not read `{name}`"))?;
    let weights =
        tensors::from_bytes(&bytes).with_context(|| format!("`{name}` is no file of tensors"))?;
    let mut model = LanguageModel::new(&config, Device::Cpu, 0)?;
    model.load(&weights).with_context(|| {
        format!("the weights in `{}` do not fit its configuration", folder.display())
    })?;
    Ok(model)
}

/// Rows of token ids, all of one length and below `vocab_size`: the ids row by row, and the length.
pub(super) fn tokens(path: &Path, vocab_size: u32) -> Result<(Vec<i64>, i64)> {
    let text = text(path)?;
    let name = path.display();
    let rows: Vec<Vec<i64>> = serde_json::from_str(&text)
        .with_context(|| format!("`{name}` is no list of lists of token ids"))?;
    let Some(length) = rows.first().map(Vec::len) else { bail!("`{name}` holds no rows") };
    ensure!(length > 0, "`{name}`: row 0 is empty");
    for (number, row) in rows.iter().enumerate() {
        ensure!(
            row.len() == length,
            "`{name}`: row {number} has {} tokens, row 0 has {length}; all rows must be equally \
             long",
            row.len()
        );
        let bad = row.iter().enumerate().find(|(_, id)| !(0..i64::from(vocab_size)).contains(*id));
        if let Some((at, id)) = bad {
            bail!(
                "`{name}`: row {number}, token {at} is {id}; `vocab_size` {vocab_size} allows 0 \
                 to {}",
                vocab_size - 1
            );
        }
    }
    Ok((rows.into_iter().flatten().collect(), i64::try_from(length)?))
}

fn text(path: &Path) -> Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("could not read standard input")?;
        return Ok(text);
    }
    std::fs::read_to_string(path).with_context(|| format!("could not read `{}`", path.display()))
}
