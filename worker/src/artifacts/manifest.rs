//! The manifests of checkpoints and of prepared data: which files belong together, by key and hash.
//!
//! A manifest is written after its files, so whoever can read it can read them.

use proto::v1::ArtifactRef;
use serde::{Deserialize, Serialize};

use super::ArtifactError;

/// The version of the form below.
pub const VERSION: u32 = 1;

/// A list of files with what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub version: u32,
    /// The files.
    pub files: Vec<ManifestFile>,
    /// What the files are together; its `kind` says which form it has.
    #[serde(flatten)]
    pub content: Content,
}

/// One file of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// The name that readers ask for, such as `model.safetensors`.
    pub name: String,
    /// The key in the artifact store.
    pub key: String,
    /// BLAKE3, hexadecimal.
    pub hash: String,
    /// The size in bytes.
    pub n_bytes: u64,
}

/// What the files of a manifest are together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Content {
    /// Everything needed to continue a run.
    Checkpoint(CheckpointContent),
    /// A tokenizer and the token shards of both splits.
    Data(DataContent),
}

/// What a checkpoint's manifest says about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointContent {
    /// How many updates were made.
    pub step: u64,
    /// The identity of the cell.
    pub config_hash: String,
    /// The hash of the cell's trunk (`domain::recipe::Trunk`), where the step belongs to it: other
    /// runs of that trunk may go on from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk_hash: Option<String>,
}

/// What the manifest of prepared data says about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataContent {
    /// The identity of the preparation.
    pub preparation_hash: String,
    /// Tokens in `train.bin`.
    pub n_training_tokens: u64,
    /// Tokens in `validation.bin`.
    pub n_validation_tokens: u64,
    /// The number of token ids a model needs.
    pub vocab_size: u32,
}

impl Manifest {
    /// A manifest of this build's version.
    pub fn new(content: Content, files: Vec<ManifestFile>) -> Self {
        Self { version: VERSION, files, content }
    }

    /// The file of this name.
    pub fn file(&self, name: &str) -> Result<ArtifactRef, ArtifactError> {
        let found = self.files.iter().find(|file| file.name == name);
        found
            .map(ManifestFile::reference)
            .ok_or_else(|| ArtifactError::NoFile { name: name.to_owned() })
    }

    /// The size of all files together.
    pub fn n_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.n_bytes).sum()
    }

    /// What a manifest of prepared data says; `key` names the manifest in the error.
    pub fn data(&self, key: &str) -> Result<&DataContent, ArtifactError> {
        match &self.content {
            Content::Data(content) => Ok(content),
            Content::Checkpoint(_) => Err(wrong_kind(key, "data")),
        }
    }

    /// What a checkpoint's manifest says; `key` names the manifest in the error.
    pub fn checkpoint(&self, key: &str) -> Result<&CheckpointContent, ArtifactError> {
        match &self.content {
            Content::Checkpoint(content) => Ok(content),
            Content::Data(_) => Err(wrong_kind(key, "checkpoint")),
        }
    }

    /// The manifest as it is stored.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("only texts and whole numbers, with text keys")
    }

    /// A stored manifest.
    pub(super) fn from_json(key: &str, content: &[u8]) -> Result<Self, ArtifactError> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let bad = |source| ArtifactError::Manifest { key: key.to_owned(), source };
        let found = serde_json::from_slice::<Version>(content).map_err(bad)?.version;
        if found != VERSION {
            return Err(ArtifactError::ManifestVersion { key: key.to_owned(), found });
        }
        serde_json::from_slice(content).map_err(bad)
    }
}

impl ManifestFile {
    /// The file `name` behind a reference.
    pub fn new(name: &str, reference: ArtifactRef) -> Self {
        let ArtifactRef { key, hash, n_bytes } = reference;
        Self { name: name.to_owned(), key, hash, n_bytes }
    }

    fn reference(&self) -> ArtifactRef {
        ArtifactRef { key: self.key.clone(), hash: self.hash.clone(), n_bytes: self.n_bytes }
    }
}

fn wrong_kind(key: &str, expected: &'static str) -> ArtifactError {
    ArtifactError::WrongKind { key: key.to_owned(), expected }
}
