//! Assignments for small models on a small text.

use std::collections::BTreeMap;

use domain::cell::Identity;
use domain::model::ModelConfig;
use domain::recipe::{
    CellConfig, EvaluationConfig, NUMERICS_VERSION, PREPARATION_VERSION, PreparationConfig,
    PretrainCell, SourceConfig, VALIDATION_LOSS_VERSION,
};
use domain::spec::{
    CorpusFormat, OptimizerSpec, Precision, ScheduleSpec, StabilitySpec, TokenizerSpec,
    TrainingSpec,
};
use proto::v1::{self, assignment::Work};
use serde_json::json;

use super::{Site, Story, Trainer};

pub(crate) const ARCHITECTURES: [&str; 4] = ["llama", "tnl", "hgrn2", "cosformer2"];

/// A text with words, sentences and lines, the same each time.
pub(crate) fn text(n_lines: u32, mut seed: u32) -> String {
    let subjects = ["the king", "a fool", "my lord", "the queen", "this ghost", "the player"];
    let verbs = ["speaks of", "comes to", "hears", "would not leave", "remembers", "fears"];
    let objects = ["the castle", "a crown", "the night", "his brother", "an old song", "the sea"];
    let mut pick = |words: &[&'static str; 6]| -> &'static str {
        // A linear congruential generator (Knuth's constants).
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        words[(seed >> 16) as usize % 6]
    };
    let mut line = || format!("{} {} {}.\n", pick(&subjects), pick(&verbs), pick(&objects));
    (0..n_lines).map(|_| line()).collect()
}

/// A preparation of one corpus whose files are given.
pub(crate) fn preparation(
    site: &Site,
    format: CorpusFormat,
    tokenizer: TokenizerSpec,
    files: &[&[u8]],
) -> (PreparationConfig, v1::Assignment) {
    let sources: Vec<_> = files
        .iter()
        .map(|content| site.put(&format!("sources/{}", blake3::hash(content)), content))
        .collect();
    let config = PreparationConfig {
        preparation_version: PREPARATION_VERSION,
        sources: vec![SourceConfig {
            format,
            text_field: "text".into(),
            file_hashes: sources.iter().map(|source| source.hash.clone()).collect(),
        }],
        tokenizer,
        validation_fraction: 0.2,
        seed: 1,
    };
    let config_json = config.identity().unwrap().canonical_json;
    let work = v1::PrepareData { config_json, sources };
    (config, assignment(Work::PrepareData(work), "p_test", 1))
}

pub(crate) fn assignment(work: Work, work_id: &str, attempt: u32) -> v1::Assignment {
    v1::Assignment {
        lease_token: u64::from(attempt),
        work_id: work_id.to_owned(),
        attempt,
        rank: 0,
        world_size: 1,
        rendezvous: String::new(),
        work: Some(work),
    }
}

/// Prepared data, and cells to train on it.
pub(crate) struct Bench {
    pub(crate) site: Site,
    pub(crate) preparation_hash: String,
    pub(crate) data_manifest: v1::ArtifactRef,
    pub(crate) vocab_size: u32,
    /// Intra-op threads of the trainers.
    pub(crate) threads: u32,
}

impl Bench {
    /// Bytes of about 50 kB of text.
    pub(crate) fn new() -> Self {
        let site = Site::new();
        let text = text(1500, 1);
        let (config, assignment) =
            preparation(&site, CorpusFormat::Text, TokenizerSpec::Byte, &[text.as_bytes()]);
        let story = site.trainer(1).carry_out(assignment);
        assert_eq!(story.end, "succeeded", "{}", story.message);
        let result = story.preparation();
        Self {
            preparation_hash: config.identity().unwrap().hash.to_string(),
            data_manifest: result.manifest.clone().unwrap(),
            vocab_size: result.vocab_size,
            threads: 1,
            site,
        }
    }

    /// A cell of a tiny model.
    pub(crate) fn cell(&self, architecture: &str, steps: u64) -> PretrainCell {
        let keys = json!({
            "architecture": architecture, "vocab_size": self.vocab_size, "d_model": 24,
            "n_layers": 2, "n_heads": 2, "ffn_hidden": 40,
        });
        let model: ModelConfig = serde_json::from_value(keys).unwrap();
        PretrainCell {
            numerics_version: NUMERICS_VERSION,
            model,
            training: TrainingSpec {
                sequence_length: 33,
                batch_sequences: 4,
                seed: 3,
                precision: Precision::Fp32,
                optimizer: OptimizerSpec {
                    learning_rate: Some(0.01),
                    beta1: 0.9,
                    beta2: 0.95,
                    eps: 1e-8,
                    weight_decay: 0.1,
                    gradient_clip: 1.0,
                },
                schedule: ScheduleSpec::Constant { warmup_steps: 3 },
                z_loss: 0.0,
                stability: StabilitySpec::default(),
                weight_average: None,
            },
            steps,
            preparation_hash: self.preparation_hash.clone(),
        }
    }

    /// The first attempt to train a cell.
    pub(crate) fn train(&self, cell: &PretrainCell, data_point_steps: &[u64]) -> v1::Train {
        let config = CellConfig::Pretrain(cell.clone());
        v1::Train {
            config_json: config.identity().unwrap().canonical_json,
            data_manifest: Some(self.data_manifest.clone()),
            micro_batch_sequences: 0,
            data_point_steps: data_point_steps.to_vec(),
            rolling_checkpoint_seconds: 0,
            checkpoints: vec![],
            numerics: None,
            branch_step: 0,
        }
    }

    /// The evaluation of a checkpoint.
    pub(crate) fn evaluate(
        &self,
        cell: &PretrainCell,
        checkpoint: &v1::Checkpoint,
    ) -> v1::Evaluate {
        let config = EvaluationConfig {
            task: "validation_loss".into(),
            task_version: VALIDATION_LOSS_VERSION,
            weights_hash: checkpoint.weights.clone().unwrap().hash,
            preparation_hash: self.preparation_hash.clone(),
            sequence_length: cell.training.sequence_length,
            sequences: None,
        };
        v1::Evaluate {
            config_json: Identity::of(&config).unwrap().canonical_json,
            cell_config_json: Identity::of(&CellConfig::Pretrain(cell.clone()))
                .unwrap()
                .canonical_json,
            checkpoint_manifest: checkpoint.manifest.clone(),
            data_manifest: Some(self.data_manifest.clone()),
        }
    }

    pub(crate) fn trainer(&self) -> Trainer {
        self.site.trainer(self.threads)
    }

    /// One attempt in a process of its own.
    pub(crate) fn attempt(&self, train: v1::Train, attempt: u32) -> Story {
        self.trainer().carry_out(run(train, attempt))
    }
}

/// An attempt of a run.
pub(crate) fn run(train: v1::Train, attempt: u32) -> v1::Assignment {
    assignment(Work::Train(train), "r_test", attempt)
}

/// The losses of a run's attempts by step. A step that was trained twice, because the training goes
/// on while a checkpoint is written, must have come out the same.
pub(crate) fn joined(attempts: &[&Story]) -> Vec<(u64, f64)> {
    let mut losses = BTreeMap::new();
    for (step, loss) in attempts.iter().flat_map(|story| story.losses()) {
        let before = losses.insert(step, loss);
        assert!(before.is_none_or(|before| before == loss), "step {step}: {before:?} and {loss}");
    }
    losses.into_iter().collect()
}

/// The next attempt after one that left these checkpoints.
pub(crate) fn resumed(train: v1::Train, before: &Story) -> v1::Train {
    let checkpoints = before.checkpoints().into_iter().rev();
    let checkpoints = checkpoints
        .map(|found| (found.step, found.manifest.clone()))
        .map(|(step, manifest)| v1::CheckpointRef { step, manifest, has_failed: false });
    v1::Train {
        checkpoints: checkpoints.collect(),
        numerics: before.found_start().and_then(|started| started.numerics.clone()),
        ..train
    }
}

/// The same, when another attempt has found all of them damaged.
pub(crate) fn resumed_after_doubt(train: v1::Train, before: &Story) -> v1::Train {
    let mut train = resumed(train, before);
    train.checkpoints.iter_mut().for_each(|checkpoint| checkpoint.has_failed = true);
    train
}
