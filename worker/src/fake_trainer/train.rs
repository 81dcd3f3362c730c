//! Fake training and evaluation: points along the curve, real checkpoints, resume from the newest
//! valid one.
//!
//! It computes no gradient.

use std::collections::HashMap;
use std::time::Instant;

use domain::attempt::AttemptEnd;
use domain::cell::Identity;
use domain::recipe::{CellConfig, EvaluationConfig, PretrainCell};
use domain::spec::FlopKind;
use proto::v1::{self, event};
use serde::de::DeserializeOwned;

use super::curve::loss_nats;
use super::state::FakeState;
use super::{Failure, Trainer, Wish};
use crate::artifacts::manifest::{Content, Manifest, ManifestFile};
use crate::artifacts::{ArtifactError, Artifacts};
use crate::checkpoint::Owner;

/// The noise of a step's training loss, as a share of it.
const STEP_NOISE: f64 = 0.01;

/// The noise of a checkpoint's validation loss, as a share of it: small, so that fits find the law.
const EVALUATION_NOISE: f64 = 0.001;

/// The name of the file with the state.
const WEIGHTS: &str = "model.safetensors";

pub(super) fn parse<T: DeserializeOwned>(json: &str) -> Result<T, Failure> {
    Identity::parse(json).map_err(|error| Failure::because(AttemptEnd::Bug, &error))
}

fn cell(json: &str) -> Result<PretrainCell, Failure> {
    let CellConfig::Pretrain(cell) = parse(json)?;
    Ok(cell)
}

/// One attempt at a run.
struct Run<'a> {
    assignment: &'a v1::Assignment,
    work: &'a v1::Train,
    cell: PretrainCell,
    owner: Owner,
    state: FakeState,
}

pub(super) fn train(
    trainer: &mut Trainer,
    assignment: &v1::Assignment,
    work: &v1::Train,
) -> Result<AttemptEnd, Failure> {
    let config: CellConfig = parse(&work.config_json)?;
    let owner = Owner::new(&config).map_err(|error| Failure::because(AttemptEnd::Bug, &error))?;
    let CellConfig::Pretrain(cell) = config;
    check_data(trainer, work.data_manifest.as_ref())?;
    let state = resume(trainer, work, &assignment.work_id, (&cell, &owner))?;
    let numerics = work.numerics.clone().unwrap_or_else(|| v1::Numerics {
        device_kind: "cpu".to_owned(),
        intra_op_threads: trainer.n_threads,
        micro_batch_sequences: work.micro_batch_sequences,
        cpu_capability: "FAKE".to_owned(),
        libtorch_version: "fake".to_owned(),
    });
    let resumed_from_step = state.step;
    let numerics = Some(numerics);
    trainer.report(event::Kind::Started(v1::Started { numerics, resumed_from_step }))?;
    Run { assignment, work, cell, owner, state }.walk(trainer)
}

impl Run<'_> {
    fn walk(&mut self, trainer: &mut Trainer) -> Result<AttemptEnd, Failure> {
        let mut saved_at = Instant::now();
        let rolling_seconds = u64::from(self.work.rolling_checkpoint_seconds.max(1));
        while self.state.step < self.cell.steps {
            match trainer.wish(self.assignment.lease_token, trainer.faults.step) {
                Wish::GoOn => {}
                Wish::Stop => return Ok(AttemptEnd::Cancelled),
                Wish::Preempt => {
                    self.save(trainer, false)?;
                    return Ok(AttemptEnd::Preempted);
                }
            }
            self.state.advance();
            let step = self.state.step;
            self.go_wrong(trainer, step);
            if trainer.faults.diverge_at == Some(step) {
                let message = format!("the loss of step {step} is not finite");
                return Err(Failure::new(AttemptEnd::Diverged, message));
            }
            self.point(trainer)?;
            let is_data_point = self.work.data_point_steps.binary_search(&step).is_ok();
            let is_due = saved_at.elapsed().as_secs() >= rolling_seconds
                || trainer.faults.checkpoint_every.is_some_and(|n| step.is_multiple_of(n));
            let is_branch = step == self.work.branch_step;
            if is_data_point || is_branch || is_due || step == self.cell.steps {
                self.save(trainer, is_data_point)?;
                saved_at = Instant::now();
            }
        }
        Ok(AttemptEnd::Succeeded)
    }

    fn go_wrong(&self, trainer: &Trainer, step: u64) {
        let is_first = self.assignment.attempt == 1;
        assert!(
            !(is_first && trainer.faults.crash_at == Some(step)),
            "the test wants a crash at step {step}"
        );
        if trainer.faults.hang_at.is_some_and(|at| at <= step) {
            loop {
                std::thread::park();
            }
        }
    }

    fn point(&self, trainer: &mut Trainer) -> Result<(), Failure> {
        let step = self.state.step;
        let loss = loss_nats(&self.cell, step) * (1.0 + STEP_NOISE * self.state.noise());
        let flops_per_token = self.cell.flops_per_token(FlopKind::Exact);
        let tokens_per_second = 1_000.0;
        let values = [
            ("train_loss_nats", loss),
            ("gradient_norm", 1.0),
            ("learning_rate", self.cell.learning_rate(step - 1)),
            ("tokens_per_second", tokens_per_second),
            ("flops_per_second", tokens_per_second * flops_per_token),
        ];
        let values: HashMap<_, _> =
            values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        trainer.report(event::Kind::Point(v1::MetricPoint { step, values }))
    }

    fn save(&self, trainer: &mut Trainer, is_data_point: bool) -> Result<(), Failure> {
        let artifacts = trainer.artifacts()?;
        let step = self.state.step;
        let v1::Assignment { work_id, attempt, lease_token, .. } = self.assignment;
        let folder = format!("runs/{work_id}/{attempt}-{lease_token}/{step}");
        let optimizer = format!("optimizer of step {step}").into_bytes();
        let state = serde_json::to_vec(&self.state)
            .map_err(|error| Failure::because(AttemptEnd::Bug, &error))?;
        let contents = [
            (WEIGHTS, self.state.to_weights()),
            ("optimizer.safetensors", optimizer),
            ("state.json", state),
        ];
        let (files, references) = put_files(artifacts, &folder, contents)?;
        let content = Content::Checkpoint(self.owner.content(step));
        let manifest = Manifest::new(content, files);
        let n_bytes = manifest.n_bytes();
        let reference = artifacts
            .put_manifest(&format!("{folder}/manifest.json"), &manifest)
            .map_err(|error| write_failure(&error))?;
        let weights = references.into_iter().next();
        let manifest = Some(reference);
        let checkpoint = v1::Checkpoint { step, manifest, weights, is_data_point, n_bytes };
        trainer.report(event::Kind::Checkpoint(checkpoint))
    }
}

/// Writes files below a folder of the store.
pub(super) fn put_files<const N: usize>(
    artifacts: &Artifacts,
    folder: &str,
    contents: [(&str, Vec<u8>); N],
) -> Result<(Vec<ManifestFile>, Vec<v1::ArtifactRef>), Failure> {
    let mut files = Vec::new();
    let mut references = Vec::new();
    for (name, content) in contents {
        let reference = artifacts
            .put(&format!("{folder}/{name}"), content)
            .map_err(|error| write_failure(&error))?;
        files.push(ManifestFile {
            name: name.to_owned(),
            key: reference.key.clone(),
            hash: reference.hash.clone(),
            n_bytes: reference.n_bytes,
        });
        references.push(reference);
    }
    Ok((files, references))
}

pub(super) fn write_failure(error: &ArtifactError) -> Failure {
    let end = if error.is_damage() { AttemptEnd::Bug } else { AttemptEnd::WorkerLost };
    Failure::because(end, error)
}

/// Every file of the data is read and checked, as a real trainer would.
fn check_data(trainer: &Trainer, manifest: Option<&v1::ArtifactRef>) -> Result<u64, Failure> {
    let Some(reference) = manifest else {
        return Err(Failure::new(AttemptEnd::BadData, "the assignment names no data"));
    };
    let artifacts = trainer.artifacts()?;
    let read = || {
        let manifest = artifacts.manifest(reference)?;
        for file in &manifest.files {
            artifacts.fetch(&manifest.file(&file.name)?)?;
        }
        Ok(manifest.data(&reference.key)?.n_validation_tokens)
    };
    read().map_err(|error| data_failure(&error))
}

/// As a real trainer has it: what cannot be reached says nothing about the data.
pub(super) fn data_failure(error: &ArtifactError) -> Failure {
    let end = if error.is_damage() { AttemptEnd::BadData } else { AttemptEnd::WorkerLost };
    Failure::because(end, error)
}

/// The state of the newest valid checkpoint; those that are damaged are reported, and passed over
/// when an earlier attempt found them so too.
fn resume(
    trainer: &mut Trainer,
    work: &v1::Train,
    work_id: &str,
    (cell, owner): (&PretrainCell, &Owner),
) -> Result<FakeState, Failure> {
    let mut doubtful = None;
    let mut found = None;
    for checkpoint in &work.checkpoints {
        let Some(reference) = &checkpoint.manifest else { continue };
        let artifacts = trainer.artifacts()?;
        let is_own = reference.key.starts_with(&format!("runs/{work_id}/"));
        if !is_own && !is_of(artifacts, reference, owner) {
            continue;
        }
        let reason = match load(artifacts, reference) {
            Ok(Some(state)) if state.step == checkpoint.step => {
                found = Some(state);
                break;
            }
            Ok(_) => "its files are not those of its step".to_owned(),
            Err(error) if error.is_damage() || error.is_missing() => {
                Failure::because(AttemptEnd::BadCheckpoint, &error).message
            }
            Err(error) => return Err(Failure::because(AttemptEnd::WorkerLost, &error)),
        };
        if !checkpoint.has_failed {
            doubtful = doubtful.or(Some(checkpoint.step));
        }
        let step = checkpoint.step;
        let manifest_key = reference.key.clone();
        let refused = v1::CheckpointRefused { step, manifest_key, reason };
        trainer.report(event::Kind::CheckpointRefused(refused))?;
    }
    match doubtful {
        Some(step) => {
            let message = format!("the checkpoint of step {step} is looked at once more");
            Err(Failure::new(AttemptEnd::WorkerLost, message))
        }
        None => Ok(found.unwrap_or_else(|| FakeState::new(cell.training.seed))),
    }
}

/// Whether a checkpoint's manifest says that the run may go on from it.
fn is_of(artifacts: &Artifacts, reference: &v1::ArtifactRef, owner: &Owner) -> bool {
    artifacts.manifest(reference).is_ok_and(|manifest| {
        manifest.checkpoint(&reference.key).is_ok_and(|content| owner.check(content).is_ok())
    })
}

/// The state in a checkpoint, every file checked.
fn load(
    artifacts: &Artifacts,
    reference: &v1::ArtifactRef,
) -> Result<Option<FakeState>, ArtifactError> {
    let manifest = artifacts.manifest(reference)?;
    for file in &manifest.files {
        artifacts.read(&manifest.file(&file.name)?)?;
    }
    Ok(FakeState::from_weights(&artifacts.read(&manifest.file(WEIGHTS)?)?))
}

pub(super) fn evaluate(trainer: &mut Trainer, work: &v1::Evaluate) -> Result<AttemptEnd, Failure> {
    // Read only to refuse what a real trainer would refuse.
    parse::<EvaluationConfig>(&work.config_json)?;
    let cell = cell(&work.cell_config_json)?;
    let n_tokens = check_data(trainer, work.data_manifest.as_ref())?;
    let Some(reference) = &work.checkpoint_manifest else {
        return Err(Failure::new(AttemptEnd::BadCheckpoint, "the assignment names no checkpoint"));
    };
    let state = load(trainer.artifacts()?, reference)
        .map_err(|error| Failure::because(AttemptEnd::BadCheckpoint, &error))?
        .ok_or_else(|| Failure::new(AttemptEnd::BadCheckpoint, "the weights cannot be read"))?;
    let value = loss_nats(&cell, state.step) * (1.0 + EVALUATION_NOISE * state.noise());
    trainer.report(event::Kind::Evaluation(v1::EvaluationResult {
        name: "validation_loss_nats".to_owned(),
        value,
        standard_error: None,
        n_tokens,
    }))?;
    Ok(AttemptEnd::Succeeded)
}
