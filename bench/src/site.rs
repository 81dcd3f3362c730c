//! A folder with an artifact store and prepared tokens in it, for as long as a benchmark takes.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use domain::recipe::CellConfig;
use tempfile::TempDir;
use worker::artifacts::Artifacts;
use worker::artifacts::manifest::{Content, DataContent, Manifest, ManifestFile};
use worker::data::{Batches, Shard, shard};
use worker::recipes::TRAINING_FILE;

use crate::case::{PREPARATION_HASH, VOCAB_SIZE};

/// Enough that no benchmark sees a sequence twice within a thousand steps of 2048 (120 of 16,384, as
/// a GPU makes them), and read in a moment.
const N_TOKENS: u32 = 1 << 21;

const MANIFEST_KEY: &str = "data/manifest.json";

/// The folder.
#[derive(Debug)]
pub(crate) struct Site {
    folder: TempDir,
}

impl Site {
    /// A folder inside `parent`, with the same tokens each time.
    pub(crate) fn new(parent: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("gradus-bench-").tempdir_in(parent)?;
        let site = Self { folder };
        std::fs::create_dir(site.store()).context("could not make the artifact store")?;
        let artifacts = site.artifacts()?;
        let shard = artifacts.put("data/train.bin", shard::to_bytes(&tokens()))?;
        let content = Content::Data(DataContent {
            preparation_hash: PREPARATION_HASH.to_owned(),
            n_training_tokens: u64::from(N_TOKENS),
            n_validation_tokens: 0,
            vocab_size: u32::from(VOCAB_SIZE),
        });
        let manifest = Manifest::new(content, vec![ManifestFile::new(TRAINING_FILE, shard)]);
        artifacts.put_manifest(MANIFEST_KEY, &manifest)?;
        Ok(site)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The artifact store's folder.
    pub(crate) fn store(&self) -> PathBuf {
        self.path().join("store")
    }

    /// The key of the tokens' manifest.
    pub(crate) fn manifest_key() -> String {
        MANIFEST_KEY.to_owned()
    }

    /// The batches that the trainer takes in the first steps of a cell, rows of T + 1 one after the
    /// other, as 16-bit numbers.
    pub(crate) fn batches(&self, cell: &CellConfig) -> Result<Vec<u8>> {
        let CellConfig::Pretrain(cell) = cell;
        let training = &cell.training;
        let shard = Shard::open(&self.store().join("data/train.bin"))?;
        let mut batches =
            Batches::new(shard, training.sequence_length, training.batch_sequences, training.seed)?;
        let mut rows = Vec::new();
        for step in 0..cell.steps {
            for id in batches.load(step)?.ids {
                rows.push(u16::try_from(id).context("a token of more than 16 bits")?);
            }
        }
        Ok(shard::to_bytes(&rows))
    }

    /// Removes the checkpoints of all that was trained so far: those of a large model would fill a
    /// disk within a few rounds.
    pub(crate) fn forget_runs(&self) -> Result<()> {
        let runs = self.store().join("runs");
        match std::fs::remove_dir_all(&runs) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("could not remove `{}`", runs.display()))
            }
            _ => Ok(()),
        }
    }

    fn artifacts(&self) -> Result<Artifacts> {
        Ok(Artifacts::open(&uri(&self.store()), &self.path().join("scratch"))?)
    }
}

/// A folder as the artifact store's URI.
pub(crate) fn uri(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

/// Tokens with something to learn: every other one follows from the one before.
fn tokens() -> Vec<u16> {
    // A linear congruential generator (Knuth's constants).
    let mut state = 1_u32;
    let mut draw = |limit: u16| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u16::try_from((u64::from(state) * u64::from(limit)) >> 32).expect("below the limit")
    };
    let mut tokens = Vec::new();
    while tokens.len() < N_TOKENS as usize {
        let token = draw(VOCAB_SIZE);
        tokens.extend([token, (token ^ 0x155) % VOCAB_SIZE]);
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_forgotten_and_the_tokens_stay() {
        let parent = tempfile::tempdir().unwrap();
        let site = Site::new(parent.path()).unwrap();
        let run = site.store().join("runs/r_bench1/1-1");
        std::fs::create_dir_all(&run).unwrap();
        std::fs::write(run.join("model.safetensors"), "weights").unwrap();
        for _ in 0..2 {
            site.forget_runs().unwrap();
            assert!(!site.store().join("runs").exists());
            assert!(site.store().join(MANIFEST_KEY).exists());
        }
    }
}
