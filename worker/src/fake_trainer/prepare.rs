//! Fake data preparation: one token a byte, whatever tokenizer was asked for.
//!
//! It trains no tokenizer.

use domain::attempt::AttemptEnd;
use domain::ids::ContentHash;
use domain::recipe::PreparationConfig;
use proto::v1::{self, event};

use super::train::{data_failure, parse, put_files, write_failure};
use super::{Failure, Trainer};
use crate::artifacts::manifest::{Content, DataContent, Manifest};

pub(super) fn prepare(
    trainer: &mut Trainer,
    assignment: &v1::Assignment,
    work: &v1::PrepareData,
) -> Result<AttemptEnd, Failure> {
    let config: PreparationConfig = parse(&work.config_json)?;
    let artifacts = trainer.artifacts()?;
    let mut text = Vec::new();
    for source in &work.sources {
        let content = artifacts.read(source).map_err(|error| data_failure(&error))?;
        text.extend_from_slice(&content);
    }
    if text.is_empty() {
        return Err(Failure::new(AttemptEnd::BadData, "the sources hold no text"));
    }
    let (training, validation) = split(&text, config.validation_fraction);
    let content = DataContent {
        preparation_hash: ContentHash::of(work.config_json.as_bytes()).as_str().to_owned(),
        n_training_tokens: training.len() as u64,
        n_validation_tokens: validation.len() as u64,
        vocab_size: config.tokenizer.vocab_size(),
    };
    let files = [
        ("tokenizer.json", b"{}".to_vec()),
        ("train.bin", to_tokens(training)),
        ("validation.bin", to_tokens(validation)),
    ];
    let folder = format!("preparations/{}/{}", assignment.work_id, assignment.attempt);
    let (files, _) = put_files(artifacts, &folder, files)?;
    let manifest = Manifest::new(Content::Data(content.clone()), files);
    let reference = artifacts
        .put_manifest(&format!("{folder}/manifest.json"), &manifest)
        .map_err(|error| write_failure(&error))?;
    trainer.report(event::Kind::Preparation(v1::PreparationResult {
        manifest: Some(reference),
        n_training_tokens: content.n_training_tokens,
        n_validation_tokens: content.n_validation_tokens,
        vocab_size: content.vocab_size,
    }))?;
    Ok(AttemptEnd::Succeeded)
}

/// The first part to train on, the rest held out.
fn split(text: &[u8], validation_fraction: f64) -> (&[u8], &[u8]) {
    let held_out = (text.len() as f64 * validation_fraction.clamp(0.0, 1.0)).round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least zero and at most the length"
    )]
    let n_validation = held_out as usize;
    text.split_at(text.len() - n_validation)
}

fn to_tokens(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| u16::from(*byte).to_le_bytes()).collect()
}
