//! The pure half of each recipe: what one cell of it is, its N, D and FLOPs, its learning rate.
//!
//! The executing half is `worker::recipes`.

use serde::{Deserialize, Serialize};

use crate::cell::{Identity, IdentityError};
use crate::ids::ContentHash;
use crate::model::ModelConfig;
use crate::spec::{
    CorpusFormat, DecayShape, FlopKind, ParameterKind, ScheduleSpec, TokenizerSpec, TrainingSpec,
};

/// Grows whenever the trainer's arithmetic changes, so that old results are never taken for new.
pub const NUMERICS_VERSION: u32 = 5;

/// Grows whenever the same sources would become other tokens.
pub const PREPARATION_VERSION: u32 = 1;

/// The most steps, and the most training tokens, of a cell: floats, and the numbers of JSON in most
/// readers, are exact up to here (2^53).
pub const MOST_TOKENS: u64 = 1 << 53;

/// What one cell of a stage is: everything that changes its numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellConfig {
    /// A language model trained from scratch.
    Pretrain(PretrainCell),
}

/// One cell of the `pretrain` recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainCell {
    /// [`NUMERICS_VERSION`] of the trainer that this is meant for.
    pub numerics_version: u32,
    /// The network.
    pub model: ModelConfig,
    /// How it is trained.
    pub training: TrainingSpec,
    /// Optimizer steps.
    pub steps: u64,
    /// The hash of the data's [`PreparationConfig`].
    pub preparation_hash: String,
}

impl CellConfig {
    /// The hash that is this cell's key, and the text that was hashed.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        Identity::of(self)
    }

    /// The recipe's name.
    pub fn recipe(&self) -> &'static str {
        match self {
            Self::Pretrain(_) => "pretrain",
        }
    }
}

impl PretrainCell {
    /// Tokens in one step.
    pub fn batch_tokens(&self) -> u64 {
        u64::from(self.training.batch_sequences) * u64::from(self.training.sequence_length)
    }

    /// D: training tokens after `steps` steps; the planner lets no cell have more than
    /// [`MOST_TOKENS`].
    pub fn tokens_at(&self, steps: u64) -> u64 {
        steps * self.batch_tokens()
    }

    /// N.
    pub fn parameters(&self, kind: ParameterKind) -> u64 {
        match kind {
            ParameterKind::NonEmbedding => self.model.parameters_non_embedding(),
            ParameterKind::Total => self.model.parameters_total(),
        }
    }

    /// Training FLOPs for each token, forward and backward.
    pub fn flops_per_token(&self, kind: FlopKind) -> f64 {
        let sequence_length = u64::from(self.training.sequence_length);
        match kind {
            FlopKind::Exact => self.model.flops_exact(sequence_length).total(),
            FlopKind::Published => self.model.flops_published(sequence_length).total(),
        }
    }

    /// C: training FLOPs after `steps` steps.
    pub fn flops_at(&self, steps: u64, kind: FlopKind) -> f64 {
        self.flops_per_token(kind) * self.tokens_at(steps) as f64
    }

    /// The peak learning rate: the one that was planned.
    pub fn peak_learning_rate(&self) -> f64 {
        let planned = self.training.optimizer.learning_rate;
        planned.unwrap_or_else(|| self.model.default_learning_rate())
    }

    /// The learning rate of a step, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        self.peak_learning_rate() * schedule_share(&self.training.schedule, step, self.steps)
    }
}

/// The share of the peak learning rate at a step (from 0) of `steps`.
///
/// Warm-up is linear and reaches the peak at step `warmup_steps`, so that the first step is never
/// wasted on a rate of zero: step s of w has the share (s + 1) / (w + 1).
pub fn schedule_share(schedule: &ScheduleSpec, step: u64, steps: u64) -> f64 {
    let warmup_steps = schedule.warmup_steps();
    if step < warmup_steps {
        return (step + 1) as f64 / (warmup_steps + 1) as f64;
    }
    match schedule {
        ScheduleSpec::Constant { .. } => 1.0,
        ScheduleSpec::Cosine { final_share, .. } => {
            let span = steps.saturating_sub(warmup_steps + 1).max(1) as f64;
            let progress = ((step - warmup_steps) as f64 / span).min(1.0);
            let cosine = 0.5 * (1.0 + (std::f64::consts::PI * progress).cos());
            final_share + (1.0 - final_share) * cosine
        }
        ScheduleSpec::Wsd { decay_share, decay, .. } => {
            let left = steps.saturating_sub(step) as f64 / decay_steps(*decay_share, steps);
            match decay {
                _ if left >= 1.0 => 1.0,
                DecayShape::Linear => left,
                DecayShape::OneMinusSqrt => 1.0 - (1.0 - left).sqrt(),
            }
        }
    }
}

/// The branch point of a schedule over `steps` steps: the number of steps after which its rate
/// depends on `steps`. Runs that differ in their length only are equal bit for bit up to the least
/// of their branch points, so a checkpoint there is the common trunk's.
///
/// A constant rate never branches; a cosine does where its warm-up ends.
pub fn branch_step(schedule: &ScheduleSpec, steps: u64) -> u64 {
    match schedule {
        ScheduleSpec::Constant { .. } => steps,
        ScheduleSpec::Cosine { warmup_steps, .. } => steps.min(warmup_steps + 1),
        // The first step of the decay still has the full rate.
        ScheduleSpec::Wsd { decay_share, .. } => {
            (steps + 1).saturating_sub(whole_decay_steps(*decay_share, steps)).min(steps)
        }
    }
}

/// The stem that a run has in common with every other run of its configuration, whatever their
/// lengths and decays: at a constant rate after the warm-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trunk {
    /// Equal for exactly the runs whose first steps are the same, bit for bit under the same
    /// `numerics`.
    pub hash: ContentHash,
    /// So many steps of the run belong to the trunk: its branch point ([`branch_step`]).
    pub steps: u64,
}

impl PretrainCell {
    /// The trunk of the run; none under a schedule whose rate depends on the length from its
    /// warm-up on, and none where nothing is left at the full rate.
    ///
    /// # Errors
    /// As [`Identity::of`].
    pub fn trunk(&self) -> Result<Option<Trunk>, IdentityError> {
        let schedule = &self.training.schedule;
        if matches!(schedule, ScheduleSpec::Cosine { .. }) {
            return Ok(None);
        }
        let steps = branch_step(schedule, self.steps);
        let mut stem = self.clone();
        stem.steps = 0;
        stem.training.schedule = ScheduleSpec::Constant { warmup_steps: schedule.warmup_steps() };
        let hash = CellConfig::Pretrain(stem).identity()?.hash;
        Ok((steps > 0).then_some(Trunk { hash, steps }))
    }
}

/// How many steps of `steps` a schedule decays over after its plateau; none where it has no plateau.
/// The first of n still has the full rate, the last one 1/n of it where the rate falls linearly.
pub fn n_decay_steps(schedule: &ScheduleSpec, steps: u64) -> Option<u64> {
    match schedule {
        ScheduleSpec::Wsd { decay_share, .. } => Some(whole_decay_steps(*decay_share, steps)),
        ScheduleSpec::Constant { .. } | ScheduleSpec::Cosine { .. } => None,
    }
}

/// [`decay_steps`] as a count.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number from 1 up to the number of steps"
)]
fn whole_decay_steps(decay_share: f64, steps: u64) -> u64 {
    decay_steps(decay_share, steps) as u64
}

/// Steps of the decay of `wsd`, a whole number of at least 1.
fn decay_steps(decay_share: f64, steps: u64) -> f64 {
    // 0.07 of 100 steps is 7.000000000000001 and means 7.
    const ROUNDING: f64 = 1e-9;
    (decay_share * steps as f64 - ROUNDING).ceil().max(1.0)
}

/// Why a schedule's warm-up and decay do not fit into `steps`; `None` when they do.
///
/// Overlapping, the rate would jump where the warm-up ends and never reach its peak. The first step of
/// a decay still has the full rate, so that one of a single step would be none.
pub fn schedule_misfit(schedule: &ScheduleSpec, steps: u64) -> Option<String> {
    match schedule {
        ScheduleSpec::Constant { .. } => None,
        ScheduleSpec::Cosine { warmup_steps, .. } => cosine_misfit(*warmup_steps, steps),
        ScheduleSpec::Wsd { warmup_steps, decay_share, .. } => {
            wsd_misfit(*warmup_steps, *decay_share, steps)
        }
    }
}

fn cosine_misfit(warmup_steps: u64, steps: u64) -> Option<String> {
    let falling = steps.saturating_sub(warmup_steps);
    (falling < 2).then(|| {
        format!(
            "the cosine over the last {falling} of {steps} steps, after the warm-up of \
             {warmup_steps}, would not lower the rate; it needs 2 steps at least"
        )
    })
}

fn wsd_misfit(warmup_steps: u64, decay_share: f64, steps: u64) -> Option<String> {
    let decay_steps = decay_steps(decay_share, steps);
    if decay_steps < 2.0 {
        return Some(format!(
            "the decay of the last {decay_steps} of {steps} steps would not lower the rate; it needs \
             2 steps at least"
        ));
    }
    (warmup_steps as f64 + decay_steps > steps as f64).then(|| {
        format!(
            "the warm-up of {warmup_steps} steps and the decay of the last {decay_steps} steps \
             overlap in a run of {steps} steps"
        )
    })
}

/// Everything that decides which tokens a data preparation makes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreparationConfig {
    /// [`PREPARATION_VERSION`].
    pub preparation_version: u32,
    /// The sources in the study file's order.
    pub sources: Vec<SourceConfig>,
    /// How text becomes tokens.
    pub tokenizer: TokenizerSpec,
    /// The share of the text held out.
    pub validation_fraction: f64,
    /// Seed of the split.
    pub seed: u32,
}

/// The most source files that one preparation may have, of all corpora together: its assignment
/// names each by key and hash, and must fit into a message.
pub const MAX_SOURCE_FILES: usize = 100_000;

/// One corpus of a preparation. File names are not part of it: only the bytes count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// How a file holds its documents.
    pub format: CorpusFormat,
    /// The field with the text, for `jsonl`.
    pub text_field: String,
    /// The BLAKE3 hashes of the files, in the order of their names.
    pub file_hashes: Vec<String>,
}

impl PreparationConfig {
    /// The hash that is this preparation's key, and the text that was hashed.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        Identity::of(self)
    }
}

/// What makes one evaluation: the weights, the task and its options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// The task's name.
    pub task: String,
    /// Grows whenever the task would measure something else.
    pub task_version: u32,
    /// The hash of the weights file.
    pub weights_hash: String,
    /// The data it is measured on: the hash of a [`PreparationConfig`].
    pub preparation_hash: String,
    /// Tokens in one sequence.
    pub sequence_length: u32,
    /// At most so many sequences; absent means all.
    pub sequences: Option<u32>,
}

/// The version of [`crate::spec::EvaluationTask::ValidationLoss`].
pub const VALIDATION_LOSS_VERSION: u32 = 3;

impl EvaluationConfig {
    /// The hash that is this evaluation's key, and the text that was hashed.
    pub fn identity(&self) -> Result<Identity, IdentityError> {
        Identity::of(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(schedule: &ScheduleSpec, step: u64, share: f64) {
        let found = schedule_share(schedule, step, 100);
        assert!((found - share).abs() < 1e-12, "step {step}: {found} is not {share}");
    }

    fn wsd(warmup_steps: u64, decay_share: f64, decay: DecayShape) -> ScheduleSpec {
        ScheduleSpec::Wsd { warmup_steps, decay_share, decay }
    }

    #[test]
    fn one_minus_sqrt_falls_fast_first() {
        let schedule = wsd(0, 0.2, DecayShape::OneMinusSqrt);
        check(&schedule, 79, 1.0);
        check(&schedule, 80, 1.0);
        check(&schedule, 85, 0.5);
        check(&schedule, 99, 1.0 - 0.95_f64.sqrt());
    }

    #[test]
    fn runs_of_two_lengths_are_one_up_to_their_branch_point_and_no_further() {
        let schedules = [
            wsd(10, 0.2, DecayShape::Linear),
            wsd(10, 0.2, DecayShape::OneMinusSqrt),
            ScheduleSpec::Cosine { warmup_steps: 10, final_share: 0.1 },
            ScheduleSpec::Constant { warmup_steps: 10 },
        ];
        for schedule in &schedules {
            let (short, long) = (100, 150);
            let branch = branch_step(schedule, short);
            let share = |step, steps| schedule_share(schedule, step, steps);
            assert!((0..branch).all(|step| share(step, short) == share(step, long)));
            let is_constant = matches!(schedule, ScheduleSpec::Constant { .. });
            assert_eq!(branch == short, is_constant);
            assert!(is_constant || share(branch, short) != share(branch, long), "{schedule:?}");
        }
    }

    #[test]
    fn runs_of_one_trunk_differ_in_length_and_decay_and_in_nothing_else() {
        let cell = |steps: u64, change: &dyn Fn(&mut serde_json::Value)| {
            let mut value = serde_json::json!({
                "numerics_version": NUMERICS_VERSION,
                "model": { "architecture": "llama", "vocab_size": 256, "d_model": 64,
                    "n_layers": 2, "n_heads": 2, "ffn_hidden": 128 },
                "training": { "batch_sequences": 4, "sequence_length": 32,
                    "schedule": { "wsd": { "warmup_steps": 10, "decay_share": 0.2 } } },
                "steps": steps,
                "preparation_hash": "aa",
            });
            change(&mut value);
            serde_json::from_value::<PretrainCell>(value).unwrap().trunk().unwrap()
        };
        let first = cell(100, &|_| ()).unwrap();
        assert_eq!(first.steps, 81);
        let same = |steps, of_trunk, schedule: &str| {
            let schedule: serde_json::Value = serde_json::from_str(schedule).unwrap();
            let trunk = cell(steps, &|cell| cell["training"]["schedule"] = schedule.clone());
            assert_eq!(trunk, Some(Trunk { hash: first.hash.clone(), steps: of_trunk }));
        };
        same(200, 161, r#"{"wsd": {"warmup_steps": 10, "decay_share": 0.2}}"#);
        same(100, 91, r#"{"wsd": {"warmup_steps": 10, "decay_share": 0.1, "decay": "linear"}}"#);
        same(
            100,
            81,
            r#"{"wsd": {"warmup_steps": 10, "decay_share": 0.2,
            "decay": "one_minus_sqrt"}}"#,
        );
        same(70, 70, r#"{"constant": {"warmup_steps": 10}}"#);
        for pointer in ["/preparation_hash", "/training/seed", "/training/sequence_length"] {
            let other = cell(100, &|cell| match pointer {
                "/preparation_hash" => cell["preparation_hash"] = "bb".into(),
                "/training/seed" => cell["training"]["seed"] = 7.into(),
                _ => cell["training"]["sequence_length"] = 64.into(),
            });
            assert_ne!(other.unwrap().hash, first.hash, "{pointer}");
        }
        let warmup = cell(100, &|cell| {
            cell["training"]["schedule"]["wsd"]["warmup_steps"] = 11.into();
        });
        assert_ne!(warmup.unwrap().hash, first.hash);
        let cosine = cell(100, &|cell| {
            cell["training"]["schedule"] = serde_json::json!({"cosine": {"warmup_steps": 10}});
        });
        assert_eq!(cosine, None);
    }

    #[test]
    fn a_constant_schedule_stays_at_the_peak_after_the_warm_up() {
        let schedule = ScheduleSpec::Constant { warmup_steps: 4 };
        check(&schedule, 0, 0.2);
        check(&schedule, 3, 0.8);
        check(&schedule, 4, 1.0);
        check(&schedule, 99, 1.0);
    }

    #[test]
    fn a_cosine_ends_at_its_floor() {
        let schedule = ScheduleSpec::Cosine { warmup_steps: 9, final_share: 0.1 };
        check(&schedule, 9, 1.0);
        check(&schedule, 54, 0.55);
        check(&schedule, 99, 0.1);
    }

    #[test]
    fn wsd_decays_over_its_last_steps_only() {
        let schedule = wsd(0, 0.2, DecayShape::Linear);
        check(&schedule, 79, 1.0);
        check(&schedule, 80, 1.0);
        check(&schedule, 90, 0.5);
        check(&schedule, 99, 0.05);
    }

    #[test]
    fn rounding_makes_no_decay_a_step_longer() {
        for (share, steps, exact) in
            [(0.07, 100, 7), (0.14, 100, 14), (0.28, 100, 28), (0.55, 200, 110)]
        {
            let schedule = wsd(0, share, DecayShape::Linear);
            let first = schedule_share(&schedule, steps - exact, steps);
            let second = schedule_share(&schedule, steps - exact + 1, steps);
            assert!(first == 1.0 && second < 1.0, "{share} of {steps}: {first}, {second}");
        }
    }

    #[test]
    fn a_warm_up_and_a_decay_that_share_a_step_overlap() {
        let overlap =
            |warmup_steps| schedule_misfit(&wsd(warmup_steps, 0.195, DecayShape::Linear), 100);
        assert_eq!(overlap(80), None);
        let problem = overlap(81).unwrap();
        assert!(problem.contains("81 steps") && problem.contains("last 20 steps"), "{problem}");
        assert_eq!(schedule_misfit(&ScheduleSpec::Constant { warmup_steps: 99 }, 100), None);
    }

    #[test]
    fn a_cosine_of_a_single_step_falls_nowhere_and_does_not_fit() {
        let cosine = |warmup_steps| ScheduleSpec::Cosine { warmup_steps, final_share: 0.1 };
        check(&cosine(99), 99, 1.0);
        let problem = schedule_misfit(&cosine(99), 100).unwrap();
        assert!(problem.contains("last 1 of 100 steps, after the warm-up of 99"), "{problem}");
        check(&cosine(98), 99, 0.1);
        assert_eq!(schedule_misfit(&cosine(98), 100), None);
    }
}
