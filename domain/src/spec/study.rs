//! The types of the study file, version 1. The doc comments are the text of its JSON Schema.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// How a cell is trained. Everything here changes the numbers and is part of the identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainingSpec {
    /// Tokens in one training sequence.
    pub sequence_length: u32,
    /// Sequences in one step, all micro-batches together.
    pub batch_sequences: u32,
    /// Seed of the initial weights and of the order of the data.
    #[serde(default)]
    pub seed: u32,
    /// Precision of the matrix products; weights, states and reductions are always fp32.
    #[serde(default)]
    pub precision: Precision,
    /// The optimizer.
    #[serde(default)]
    pub optimizer: OptimizerSpec,
    /// The learning rate over the steps.
    #[serde(default)]
    pub schedule: ScheduleSpec,
    /// Coefficient of the z-loss, the mean of (ln Σ exp logits)², in the objective (Chowdhery et al.
    /// 2022, PaLM, section 5); 0 leaves it out. Reported losses never contain it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub z_loss: f64,
    /// What happens when a step's loss or gradient is out of order.
    #[serde(default, skip_serializing_if = "StabilitySpec::is_default")]
    pub stability: StabilitySpec,
    /// An average of the weights over the updates, kept beside them. Checkpoints publish it, and
    /// evaluations measure it, in place of the weights that are trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_average: Option<WeightAverageSpec>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

/// How weights are averaged over the updates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum WeightAverageSpec {
    /// The exponential moving average, corrected for its beginning: after t updates the weights of
    /// update i count in proportion to decay^(t − i) (Kingma and Ba 2015, Adam, section 7.2).
    Ema {
        /// Above 0 and below 1; about 1 / (1 − decay) updates count.
        decay: f64,
    },
}

/// What happens when a step's loss or gradient is out of order. By default a number that is not
/// finite ends the run as diverged, and any finite loss is trained on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StabilitySpec {
    /// What happens to a step whose loss or gradient is not a finite number.
    #[serde(default)]
    pub non_finite: UnstableStep,
    /// What happens to a step whose loss jumps; absent means that a jump is trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_spike: Option<LossSpikeSpec>,
}

impl StabilitySpec {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What happens to a step that is out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum UnstableStep {
    /// The run ends as diverged.
    #[default]
    Stop,
    /// The batch is passed over without an update. It still counts in D and C: it was computed.
    Skip {
        /// One more than so many in a row end the run as diverged.
        at_most_in_a_row: u32,
    },
}

/// When a loss is a jump, and what happens then.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LossSpikeSpec {
    /// A loss so many nats per token above the running mean is a jump.
    pub above_nats: f64,
    /// The steps of the running mean; before so many, nothing is a jump.
    pub window_steps: u32,
    /// What happens to the step.
    #[serde(default)]
    pub then: UnstableStep,
}

/// Precision of the matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    Fp32,
    /// bfloat16 inputs, fp32 accumulation.
    Bf16,
}

/// AdamW (Loshchilov and Hutter 2019, algorithm 2).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptimizerSpec {
    /// The peak learning rate. A study may leave it out; a planned cell has it, by
    /// `ModelConfig::default_learning_rate` where the study has not.
    #[serde(default)]
    pub learning_rate: Option<f64>,
    /// Decay of the first moment.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay of the second moment.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// Added to the root of the second moment.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Decoupled weight decay, on the weight matrices of linear layers only.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// The gradient's norm is clipped to this.
    #[serde(default = "default_gradient_clip")]
    pub gradient_clip: f64,
}

impl Default for OptimizerSpec {
    fn default() -> Self {
        Self {
            learning_rate: None,
            beta1: default_beta1(),
            beta2: default_beta2(),
            eps: default_eps(),
            weight_decay: default_weight_decay(),
            gradient_clip: default_gradient_clip(),
        }
    }
}

fn default_beta1() -> f64 {
    0.9
}
fn default_beta2() -> f64 {
    0.95
}
fn default_eps() -> f64 {
    1e-8
}
fn default_weight_decay() -> f64 {
    0.1
}
fn default_gradient_clip() -> f64 {
    1.0
}

/// The learning rate as a share of its peak, over the steps. Warm-up is linear from 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleSpec {
    /// Constant after the warm-up, so that every checkpoint is a data point.
    Constant {
        /// Steps of warm-up.
        warmup_steps: u64,
    },
    /// Cosine from the peak to a floor at the last step.
    Cosine {
        /// Steps of warm-up.
        warmup_steps: u64,
        /// The floor as a share of the peak, 0 to 1.
        #[serde(default)]
        final_share: f64,
    },
    /// Warm-up, stable, then a decay to zero over the last steps (Hu et al. 2024, MiniCPM,
    /// section 4). Runs that differ in their length only are one run up to where the shorter decays.
    Wsd {
        /// Steps of warm-up.
        warmup_steps: u64,
        /// The share of all steps that decays, above 0 and up to 1.
        decay_share: f64,
        /// How the rate falls.
        #[serde(default, skip_serializing_if = "DecayShape::is_default")]
        decay: DecayShape,
    },
}

/// How a learning rate falls to zero over x from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DecayShape {
    /// 1 − x.
    #[default]
    Linear,
    /// 1 − √x, which falls fast first (Hägele et al. 2024, section 4).
    OneMinusSqrt,
}

impl DecayShape {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for ScheduleSpec {
    fn default() -> Self {
        Self::Constant { warmup_steps: 0 }
    }
}

impl ScheduleSpec {
    /// Steps of warm-up.
    pub fn warmup_steps(&self) -> u64 {
        match self {
            Self::Constant { warmup_steps }
            | Self::Cosine { warmup_steps, .. }
            | Self::Wsd { warmup_steps, .. } => *warmup_steps,
        }
    }
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

/// What is fitted to the results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FitSpec {
    /// How the scaling law is found.
    #[serde(default = "default_methods")]
    pub methods: Vec<FitMethod>,
    /// One fit for each value of this axis; absent means one fit of all.
    #[serde(default)]
    pub group_by: Option<String>,
    /// What is kept out of the fit and only predicted.
    #[serde(default)]
    pub hold_out: HoldOut,
    /// What N counts.
    #[serde(default)]
    pub parameters: ParameterKind,
    /// What C counts.
    #[serde(default)]
    pub flops: FlopKind,
    /// Bootstrap draws.
    #[serde(default = "default_draws")]
    pub draws: u32,
    /// Seed of the bootstrap.
    #[serde(default)]
    pub seed: u32,
}

impl Default for FitSpec {
    fn default() -> Self {
        Self {
            methods: default_methods(),
            group_by: None,
            hold_out: HoldOut::default(),
            parameters: ParameterKind::default(),
            flops: FlopKind::default(),
            draws: default_draws(),
            seed: 0,
        }
    }
}

fn default_methods() -> Vec<FitMethod> {
    vec![FitMethod::Envelope, FitMethod::Chinchilla]
}

fn default_draws() -> u32 {
    1000
}

/// How a scaling law is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FitMethod {
    /// The lower envelope of the training curves (Hoffmann et al. 2022, approach 1).
    Envelope,
    /// A parabola over model size at each budget (Hoffmann et al. 2022, approach 2).
    Isoflop,
    /// L = E + A/N^α + B/D^β (Hoffmann et al. 2022, approach 3).
    Chinchilla,
}

/// What is kept out of the fit and only predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HoldOut {
    /// Nothing.
    #[default]
    None,
    /// The runs with the most parameters of each group.
    LargestSize,
}

/// What N counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParameterKind {
    /// Everything but the embedding and the head.
    #[default]
    NonEmbedding,
    /// Everything.
    Total,
}

/// What C counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FlopKind {
    /// From the tensor shapes, head included.
    #[default]
    Exact,
    /// The closed form of the published study, without the head.
    Published,
}

/// How a study is run; nothing here changes a number beyond rounding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuntimeSpec {
    /// Higher runs first.
    #[serde(default)]
    pub priority: i32,
    /// Sequences in one forward pass; by default the whole batch.
    #[serde(default)]
    pub micro_batch_sequences: Option<u32>,
    /// Seconds between checkpoints kept for recovery only.
    #[serde(default = "default_rolling_checkpoint_seconds")]
    pub rolling_checkpoint_seconds: u32,
    /// How often a run may fail by its own fault before it is given up.
    #[serde(default = "default_max_failures")]
    pub max_failures: u32,
}

impl Default for RuntimeSpec {
    fn default() -> Self {
        Self {
            priority: 0,
            micro_batch_sequences: None,
            rolling_checkpoint_seconds: default_rolling_checkpoint_seconds(),
            max_failures: default_max_failures(),
        }
    }
}

fn default_rolling_checkpoint_seconds() -> u32 {
    60
}

fn default_max_failures() -> u32 {
    3
}
