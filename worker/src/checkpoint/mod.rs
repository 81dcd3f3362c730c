//! Checkpoints: everything needed to continue a run bit for bit, as files behind a manifest.
//!
//! It does not choose when one is written, nor which of several is used.
//!
//! | file | what |
//! |---|---|
//! | `model.safetensors` | the weights under the contract's names; their average, if one is kept |
//! | `trained.safetensors` | the weights that the training goes on with, if `model` is an average |
//! | `config.json` | the model's configuration, so that the weights can be used alone |
//! | `optimizer.safetensors` | both moments and the number of steps |
//! | `state.json` | [`State`] |
//!
//! There is no data position: batches are a pure function of (seed, step).

mod error;
pub mod tensors;

use domain::cell::IdentityError;
use domain::model::ModelConfig;
use domain::recipe::{CellConfig, Trunk};
use domain::stability::StabilityState;
use proto::v1;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use crate::artifacts::Artifacts;
use crate::artifacts::manifest::{CheckpointContent, Content, Manifest, ManifestFile};

pub use error::CheckpointError;

/// The name of the weights' file.
pub const MODEL_FILE: &str = "model.safetensors";
/// The name of the model's configuration.
pub const CONFIG_FILE: &str = "config.json";
const TRAINED_FILE: &str = "trained.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";

/// The version of [`State`]'s form.
const STATE_VERSION: u32 = 2;

/// Tensors with their names.
pub type NamedTensors = Vec<(String, Tensor)>;

/// What is neither weight nor moment.
///
/// Of the random generators it holds that of the CPU alone, because training draws nothing on a device.
/// A layer that did, such as dropout, would need the device's generator in here too: without it a run
/// that goes on from a checkpoint would not be the uninterrupted one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The version of this form.
    pub version: u32,
    /// How many steps were made, those without an update included.
    pub step: u64,
    /// Tokens they took.
    pub tokens: u64,
    /// The last step whose metric point is reported before this checkpoint.
    pub metric_step: u64,
    /// What decides whether a step is in order.
    pub stability: StabilityState,
    /// Updates whose weights are in the average; 0 without one.
    pub n_averaged: u64,
    /// libtorch's default CPU generator, hexadecimal.
    pub generator_state: String,
    /// What decided the rounding so far.
    pub numerics: NumericsState,
    /// The identity of the cell.
    pub config_hash: String,
    /// The hash of the cell's trunk, where the step belongs to it. The manifest says it.
    #[serde(skip)]
    pub trunk_hash: Option<String>,
}

/// The run whose checkpoints are written and read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The identity of its cell.
    pub config_hash: String,
    /// What it has in common with runs of other lengths.
    pub trunk: Option<Trunk>,
}

impl Owner {
    /// The owner of a cell's checkpoints.
    ///
    /// # Errors
    /// As [`domain::cell::Identity::of`].
    pub fn new(config: &CellConfig) -> Result<Self, IdentityError> {
        let CellConfig::Pretrain(cell) = config;
        let config_hash = config.identity()?.hash.to_string();
        Ok(Self { config_hash, trunk: cell.trunk()? })
    }

    /// What a checkpoint after `step` steps says that it belongs to.
    pub fn content(&self, step: u64) -> CheckpointContent {
        let trunk = self.trunk.as_ref().filter(|trunk| step <= trunk.steps);
        let trunk_hash = trunk.map(|trunk| trunk.hash.to_string());
        CheckpointContent { step, config_hash: self.config_hash.clone(), trunk_hash }
    }

    /// Refuses a checkpoint of another run, unless its step belongs to the trunk of both.
    pub fn check(&self, found: &CheckpointContent) -> Result<(), CheckpointError> {
        let is_of_trunk = self.trunk.as_ref().is_some_and(|trunk| {
            found.trunk_hash.as_deref() == Some(trunk.hash.as_str()) && found.step <= trunk.steps
        });
        if is_of_trunk {
            return Ok(());
        }
        check_config(&self.config_hash, &found.config_hash)
    }
}

/// `proto`'s `Numerics` in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumericsState {
    /// `cpu` or `cuda`.
    pub device_kind: String,
    /// Intra-op threads.
    pub intra_op_threads: u32,
    /// Sequences in one forward pass.
    pub micro_batch_sequences: u32,
    /// The CPU capability that libtorch found.
    pub cpu_capability: String,
    /// The libtorch build.
    pub libtorch_version: String,
}

/// What is in a checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// The weights that the training goes on with.
    pub weights: NamedTensors,
    /// Their average, which is published in their place.
    pub average: Option<NamedTensors>,
    /// The optimiser's state.
    pub optimizer: NamedTensors,
    /// The rest.
    pub state: State,
}

impl State {
    /// The state after `step` steps, all of which were in order.
    pub fn new(
        step: u64,
        tokens: u64,
        generator_state: &[u8],
        numerics: &v1::Numerics,
        owner: &Owner,
    ) -> Self {
        let CheckpointContent { config_hash, trunk_hash, .. } = owner.content(step);
        Self {
            version: STATE_VERSION,
            step,
            tokens,
            metric_step: step,
            stability: StabilityState::default(),
            n_averaged: 0,
            generator_state: to_hex(generator_state),
            numerics: numerics.into(),
            config_hash,
            trunk_hash,
        }
    }

    /// The generator's state; nothing when the text is not hexadecimal.
    pub fn generator_bytes(&self) -> Option<Vec<u8>> {
        from_hex(&self.generator_state)
    }
}

impl From<&v1::Numerics> for NumericsState {
    fn from(numerics: &v1::Numerics) -> Self {
        Self {
            device_kind: numerics.device_kind.clone(),
            intra_op_threads: numerics.intra_op_threads,
            micro_batch_sequences: numerics.micro_batch_sequences,
            cpu_capability: numerics.cpu_capability.clone(),
            libtorch_version: numerics.libtorch_version.clone(),
        }
    }
}

impl Checkpoint {
    /// Writes the files below `prefix` (which ends in `/`), then the manifest.
    ///
    /// Each part is dropped once it is written, so that beside the copies themselves at most 4 bytes
    /// for each parameter are held. When this returns, all of it is durable. Of an attempt that dies in
    /// between, no manifest is left, so nobody reads half a checkpoint.
    pub fn save(
        self,
        artifacts: &Artifacts,
        prefix: &str,
        model: &ModelConfig,
        is_data_point: bool,
    ) -> Result<v1::Checkpoint, CheckpointError> {
        let mut files = Vec::new();
        let mut put = |name: &str, content: Vec<u8>| -> Result<(), CheckpointError> {
            let reference = artifacts.put(&format!("{prefix}{name}"), content)?;
            files.push(ManifestFile::new(name, reference));
            Ok(())
        };
        put(CONFIG_FILE, serde_json::to_vec_pretty(model).map_err(CheckpointError::encode)?)?;
        put(STATE_FILE, serde_json::to_vec_pretty(&self.state).map_err(CheckpointError::encode)?)?;
        if let Some(average) = self.average {
            put(MODEL_FILE, tensors::to_bytes(&average)?)?;
            drop(average);
            put(TRAINED_FILE, tensors::to_bytes(&self.weights)?)?;
        } else {
            put(MODEL_FILE, tensors::to_bytes(&self.weights)?)?;
        }
        drop(self.weights);
        put(OPTIMIZER_FILE, tensors::to_bytes(&self.optimizer)?)?;
        let State { step, config_hash, trunk_hash, .. } = self.state;
        let content = CheckpointContent { step, config_hash, trunk_hash };
        let manifest = Manifest::new(Content::Checkpoint(content), files);
        let reference = artifacts.put_manifest(&format!("{prefix}manifest.json"), &manifest)?;
        Ok(v1::Checkpoint {
            step,
            weights: Some(manifest.file(MODEL_FILE)?),
            n_bytes: manifest.n_bytes(),
            manifest: Some(reference),
            is_data_point,
        })
    }

    /// Reads a checkpoint that `owner` may go on from, checking every file's size and hash.
    pub fn load(
        artifacts: &Artifacts,
        reference: &v1::CheckpointRef,
        owner: &Owner,
    ) -> Result<Self, CheckpointError> {
        let manifest_reference = reference.manifest.as_ref().ok_or(CheckpointError::NoManifest)?;
        let manifest = artifacts.manifest(manifest_reference)?;
        let content = manifest.checkpoint(&manifest_reference.key)?;
        owner.check(content)?;
        let state: State = serde_json::from_slice(&artifacts.read(&manifest.file(STATE_FILE)?)?)
            .map_err(CheckpointError::State)?;
        check_config(&content.config_hash, &state.config_hash)?;
        if state.version != STATE_VERSION {
            return Err(CheckpointError::StateVersion { found: state.version });
        }
        // Every point up to the checkpoint's step was reported before it, so that the next is that of
        // the next step.
        for found in [content.step, state.step, state.metric_step] {
            if found != reference.step {
                return Err(CheckpointError::OtherStep { expected: reference.step, found });
            }
        }
        let read = |name: &str| tensors::from_bytes(&artifacts.read(&manifest.file(name)?)?);
        let published = read(MODEL_FILE)?;
        let (weights, average) = if manifest.file(TRAINED_FILE).is_ok() {
            (read(TRAINED_FILE)?, Some(published))
        } else {
            (published, None)
        };
        Ok(Self { weights, average, optimizer: read(OPTIMIZER_FILE)?, state })
    }
}

/// The published weights alone, for an evaluation; refuses others than those of hash `weights_hash`.
pub fn load_weights(
    artifacts: &Artifacts,
    manifest_reference: &v1::ArtifactRef,
    weights_hash: &str,
) -> Result<NamedTensors, CheckpointError> {
    let manifest = artifacts.manifest(manifest_reference)?;
    let weights = manifest.file(MODEL_FILE)?;
    if weights.hash != weights_hash {
        let (expected, found) = (weights_hash.to_owned(), weights.hash);
        return Err(CheckpointError::OtherWeights { expected, found });
    }
    tensors::from_bytes(&artifacts.read(&weights)?)
}

fn check_config(expected: &str, found: &str) -> Result<(), CheckpointError> {
    if found == expected {
        return Ok(());
    }
    let (expected, found) = (expected.to_owned(), found.to_owned());
    Err(CheckpointError::OtherConfig { expected, found })
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).expect("four bits are a digit");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_as_hexadecimal() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("0g"), None);
    }
}
