//! The types of `training` in the study file, version 1: all that decides a run's numbers but the model
//! and the data. The doc comments are the text of its JSON Schema.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

impl ScheduleSpec {
    /// Whether the learning rate falls after the warm-up, so that a checkpoint on the way is not what
    /// a shorter run ends with.
    pub fn is_decaying(&self) -> bool {
        match self {
            Self::Constant { .. } => false,
            Self::Cosine { .. } | Self::Wsd { .. } => true,
        }
    }
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
