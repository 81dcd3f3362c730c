//! What is fitted to a study's results, and by what rules: the `fit` section of a study file.
//!
//! It fits nothing. The doc comments are the text of the JSON Schema.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// What the laws minimise; `envelope` and `isoflop` have an objective of their own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub objective: FitObjective,
    /// How much each measured loss counts in a law.
    #[serde(default, skip_serializing_if = "is_default")]
    pub weights: FitWeights,
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
            objective: FitObjective::default(),
            weights: FitWeights::default(),
            parameters: ParameterKind::default(),
            flops: FlopKind::default(),
            draws: default_draws(),
            seed: 0,
        }
    }
}

/// A key that a file leaves out is left out when it is written, so that nothing kept changes.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
    /// L = E + (A/N^α + B/D^β)^k (Videau et al. 2026).
    Coupled,
    /// L = ((N_c/N)^(α_N/α_D) + D_c/D)^α_D (Kaplan et al. 2020).
    Kaplan,
    /// L = E + (a M^η + b M^-η) C^-η with M = D/N (Gadre et al. 2024).
    Overtraining,
    /// L = β C^-α (Kaplan et al. 2020).
    Power,
    /// L = E + (C0/C)^α (Henighan et al. 2020).
    PowerFloor,
    /// A power law of C with a break (Caballero et al. 2022).
    BrokenPower,
}

impl FitMethod {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Envelope,
        Self::Isoflop,
        Self::Chinchilla,
        Self::Coupled,
        Self::Kaplan,
        Self::Overtraining,
        Self::Power,
        Self::PowerFloor,
        Self::BrokenPower,
    ];

    /// The name in study files, reports and commands.
    pub fn label(self) -> &'static str {
        match self {
            Self::Envelope => "envelope",
            Self::Isoflop => "isoflop",
            Self::Chinchilla => "chinchilla",
            Self::Coupled => "coupled",
            Self::Kaplan => "kaplan",
            Self::Overtraining => "overtraining",
            Self::Power => "power",
            Self::PowerFloor => "power_floor",
            Self::BrokenPower => "broken_power",
        }
    }

    /// The method called so.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.label() == label)
    }
}

/// What is summed over the measured losses of a law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FitObjective {
    /// Huber losses of the residuals of ln L, with the threshold 0.001.
    #[default]
    Huber,
    /// Absolute residuals of ln L.
    Lad,
    /// Squared residuals of ln L.
    LogSquares,
    /// Squared residuals of L.
    LossSquares,
}

impl FitObjective {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Huber, Self::Lad, Self::LogSquares, Self::LossSquares];

    /// The name in study files and commands.
    pub fn label(self) -> &'static str {
        match self {
            Self::Huber => "huber",
            Self::Lad => "lad",
            Self::LogSquares => "log-squares",
            Self::LossSquares => "loss-squares",
        }
    }

    /// The objective called so.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.label() == label)
    }
}

/// How much each measured loss counts in a law.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FitWeights {
    /// All the same.
    #[default]
    Equal,
    /// By the inverse of the variance that seeds have at its loss.
    SeedNoise,
}

impl FitWeights {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Equal, Self::SeedNoise];

    /// The name in study files and commands.
    pub fn label(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::SeedNoise => "seed_noise",
        }
    }

    /// The weights called so.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.label() == label)
    }
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
    /// The runs with the most FLOPs of each group.
    LargestCompute,
}

impl HoldOut {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::LargestSize, Self::LargestCompute];

    /// The name in study files and requests.
    pub fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LargestSize => "largest_size",
            Self::LargestCompute => "largest_compute",
        }
    }

    /// The rule called so.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.label() == label)
    }
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
