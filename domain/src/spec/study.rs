//! The types of the study file, version 1. The doc comments are the text of its JSON Schema.
//!
//! How a cell is trained stands in `training`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fit::FitSpec;
use super::placement::{LogRule, PlacementSpec};
use super::retries::{RetriesSpec, RetryRules};
use super::training::TrainingSpec;

/// A study: one question, the data, the stages that train, and the fits that answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StudySpec {
    /// The version of the study file: 1.
    pub version: u32,
    /// The study's name: up to 64 letters, digits, `-`, `_` and `.`, the first no `.`.
    pub name: String,
    /// What the study asks, in a sentence.
    #[serde(default)]
    pub description: String,
    /// What is trained on.
    pub data: DataSpec,
    /// What is trained; in version 1 exactly one stage.
    pub stages: Vec<StageSpec>,
    /// What is fitted to the results.
    #[serde(default)]
    pub fit: FitSpec,
    /// How it is run; nothing here changes a number.
    #[serde(default)]
    pub runtime: RuntimeSpec,
}

/// The text, how it is split, and how it becomes tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataSpec {
    /// Where the text comes from.
    pub corpora: Vec<CorpusSpec>,
    /// How text becomes tokens.
    #[serde(default)]
    pub tokenizer: TokenizerSpec,
    /// The share of the documents' text held out for validation, above 0 and below 1.
    #[serde(default = "default_validation_fraction")]
    pub validation_fraction: f64,
    /// Seed of the split.
    #[serde(default)]
    pub seed: u32,
}

fn default_validation_fraction() -> f64 {
    0.05
}

/// One source of text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CorpusSpec {
    /// A name for messages.
    pub name: String,
    /// File names relative to the study file; `*` stands for any part of a file name.
    pub files: Vec<String>,
    /// How a file holds its documents.
    #[serde(default)]
    pub format: CorpusFormat,
    /// The field with the text, for `jsonl`.
    #[serde(default = "default_text_field")]
    pub text_field: String,
}

fn default_text_field() -> String {
    "text".to_owned()
}

/// How a file holds its documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CorpusFormat {
    /// One document a file, UTF-8.
    #[default]
    Text,
    /// One JSON object a line.
    Jsonl,
}

/// How text becomes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TokenizerSpec {
    /// One token a byte, and an end-of-document token: 257 in all.
    #[default]
    Byte,
    /// Byte-level byte-pair encoding, trained on the training split.
    Bpe {
        /// The number of tokens, end-of-document token included; at least 257.
        vocab_size: u32,
    },
}

impl TokenizerSpec {
    /// The number of token ids.
    pub fn vocab_size(self) -> u32 {
        match self {
            Self::Byte => SMALLEST_VOCABULARY,
            Self::Bpe { vocab_size } => vocab_size,
        }
    }
}

/// Every byte, and the end of a document.
pub(super) const SMALLEST_VOCABULARY: u32 = 257;

/// Token shards hold 16-bit ids.
pub(super) const LARGEST_VOCABULARY: u32 = 65_536;

/// A part of a study with one recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StageSpec {
    /// The stage's name.
    pub name: String,
    /// What the stage does.
    pub recipe: RecipeSpec,
}

/// What a stage does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RecipeSpec {
    /// Train language models from scratch on next-token prediction.
    Pretrain(Box<PretrainSpec>),
}

/// The `pretrain` recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainSpec {
    /// Keys of the model's `config.json` shared by all cells; `preset` names a set of keys;
    /// `vocab_size` comes from the tokenizer.
    #[serde(default)]
    pub model: Map<String, Value>,
    /// How every cell is trained.
    pub training: TrainingSpec,
    /// What varies. Each axis multiplies the number of cells.
    #[serde(default)]
    pub axes: Vec<AxisSpec>,
    /// How many tokens each cell gets.
    pub design: DesignSpec,
    /// Which steps leave a checkpoint that is a data point.
    #[serde(default)]
    pub checkpoints: CheckpointSpec,
    /// What is measured on those checkpoints.
    #[serde(default = "default_evaluations")]
    pub evaluate: Vec<EvaluateSpec>,
}

fn default_evaluations() -> Vec<EvaluateSpec> {
    vec![EvaluateSpec { task: EvaluationTask::ValidationLoss, sequences: None }]
}

/// One axis: a list of values of one field, or of named bundles of fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AxisSpec {
    /// The axis's name, such as `architecture`, `size` or `seed`.
    pub name: String,
    /// The field that takes the values, such as `training.seed`; absent when values are bundles.
    #[serde(default)]
    pub field: Option<String>,
    /// The values: scalars with `field`, or mappings with a `label` and fields such as
    /// `model.d_model`.
    pub values: Vec<Value>,
}

/// How many tokens each cell gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DesignSpec {
    /// Every cell trains on the same number of tokens.
    FixedTokens {
        /// Training tokens, rounded up to whole steps.
        tokens: u64,
    },
    /// Every combination of the axes at every budget: the tokens are what the budget buys.
    Isoflop {
        /// Budgets in FLOPs (`flops_exact`, training).
        budgets: Vec<f64>,
        /// A cell with fewer tokens than this per non-embedding parameter is dropped.
        #[serde(default)]
        min_tokens_per_parameter: f64,
        /// A cell with more tokens than this per non-embedding parameter is dropped.
        #[serde(default = "default_max_tokens_per_parameter")]
        max_tokens_per_parameter: f64,
    },
}

fn default_max_tokens_per_parameter() -> f64 {
    f64::MAX
}

/// Which steps leave a checkpoint that is a data point. The last step always does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CheckpointSpec {
    /// So many, evenly spaced in the logarithm of the step.
    LogSpaced {
        /// How many, the last step included.
        count: u32,
        /// The first one's step; by default a hundredth of the steps, or 1.
        #[serde(default)]
        first_step: Option<u64>,
    },
    /// Only the last step.
    Final,
}

impl Default for CheckpointSpec {
    fn default() -> Self {
        Self::LogSpaced { count: 10, first_step: None }
    }
}

/// One measurement on the data-point checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateSpec {
    /// What is measured.
    pub task: EvaluationTask,
    /// At most so many validation sequences; by default all of them.
    #[serde(default)]
    pub sequences: Option<u32>,
}

/// What can be measured on a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EvaluationTask {
    /// Mean cross-entropy on the validation split, in nats per token.
    ValidationLoss,
}

impl EvaluationTask {
    /// The name in the store, on the wire and in the study file.
    pub fn label(self) -> &'static str {
        match self {
            Self::ValidationLoss => "validation_loss",
        }
    }
}

/// How a study is run; nothing here changes a number beyond rounding.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuntimeSpec {
    /// Higher runs first.
    #[serde(default)]
    pub priority: i32,
    /// Its share of the grants among studies of one priority, above 0: one of weight 2 is granted
    /// two runs for each of a study of weight 1.
    #[serde(default = "default_weight", skip_serializing_if = "is_usual_weight")]
    pub weight: f64,
    /// FLOPs (exact) that may be spent: a run is begun only while all runs that were begun for this
    /// study, itself included, stay within it at their planned cost. By default there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_flops: Option<f64>,
    /// Which machines may carry it out; by default any.
    #[serde(default, skip_serializing_if = "is_anywhere")]
    pub placement: PlacementSpec,
    /// What follows when a failed attempt had said something.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_rules: Vec<LogRule>,
    /// Sequences in one forward pass; by default the whole batch.
    #[serde(default)]
    pub micro_batch_sequences: Option<u32>,
    /// Seconds between checkpoints kept for recovery only.
    #[serde(default = "default_rolling_checkpoint_seconds")]
    pub rolling_checkpoint_seconds: u32,
    /// Whether runs that differ in their length and decay only train their common steps once: a
    /// longer one goes on from the checkpoint with which a shorter one begins its decay, and is bit
    /// for bit what it would have been from scratch. Under `constant` and `wsd` schedules.
    #[serde(default, skip_serializing_if = "is_false")]
    pub share_trunks: bool,
    /// How often a run may fail by its own fault, in each way, before it is given up.
    #[serde(default = "default_max_failures")]
    pub max_failures: u32,
    /// Other numbers and pauses for some ways to fail.
    #[serde(default, skip_serializing_if = "is_usual")]
    pub retries: RetriesSpec,
}

fn default_weight() -> f64 {
    1.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_usual_weight(weight: &f64) -> bool {
    weight.total_cmp(&default_weight()).is_eq()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn is_anywhere(placement: &PlacementSpec) -> bool {
    *placement == PlacementSpec::default()
}

fn is_usual(retries: &RetriesSpec) -> bool {
    *retries == RetriesSpec::default()
}

impl Default for RuntimeSpec {
    fn default() -> Self {
        Self {
            priority: 0,
            weight: default_weight(),
            budget_flops: None,
            placement: PlacementSpec::default(),
            log_rules: Vec::new(),
            micro_batch_sequences: None,
            rolling_checkpoint_seconds: default_rolling_checkpoint_seconds(),
            share_trunks: false,
            max_failures: default_max_failures(),
            retries: RetriesSpec::default(),
        }
    }
}

impl RuntimeSpec {
    /// How often, and after which pause, each way to fail is tried again.
    pub fn retry_rules(&self) -> RetryRules {
        RetryRules::of(self.max_failures, self.retries)
    }
}

fn default_rolling_checkpoint_seconds() -> u32 {
    60
}

pub(super) fn default_max_failures() -> u32 {
    3
}
