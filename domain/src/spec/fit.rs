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
    /// Bootstrap draws, at least 100.
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

/// The fewest draws that make an interval.
pub const LEAST_DRAWS: u32 = 100;

/// A setting of a fit that contradicts another, or makes no fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`fit.{field}` is `{value}`; {valid}")]
pub struct FitSettingError {
    /// The key within the section.
    pub field: &'static str,
    /// What it holds.
    pub value: String,
    /// What would be valid, and why.
    pub valid: String,
}

impl FitSpec {
    /// Checks the settings together: each may be fine, and say nothing beside another.
    ///
    /// # Errors
    /// The first that does not go with the others.
    pub fn check(&self) -> Result<(), FitSettingError> {
        let wrong = |field, value: &str, valid: &str| {
            Err(FitSettingError { field, value: value.to_owned(), valid: valid.to_owned() })
        };
        if self.methods.is_empty() {
            let all = FitMethod::ALL.map(FitMethod::label).join(", ");
            return wrong("methods", "[]", &format!("name at least one of {all}"));
        }
        let repeated = (1..).zip(&self.methods).find_map(|(next, method)| {
            self.methods[next..].contains(method).then(|| method.label())
        });
        if let Some(method) = repeated {
            return wrong("methods", method, "it is named twice; name each method once");
        }
        if self.draws < LEAST_DRAWS {
            let valid = format!("a bootstrap needs at least {LEAST_DRAWS}");
            return wrong("draws", &self.draws.to_string(), &valid);
        }
        let has_law = self.methods.iter().any(|method| method.is_law());
        if !has_law && self.objective != FitObjective::default() {
            let valid = "`envelope` and `isoflop` have an objective of their own: leave it out, or \
                         name a law among `methods`";
            return wrong("objective", self.objective.label(), valid);
        }
        if !has_law && self.weights != FitWeights::Equal {
            let valid = "`envelope` and `isoflop` take `equal` only; name a law among `methods`";
            return wrong("weights", self.weights.label(), valid);
        }
        if self.weights == FitWeights::SeedNoise && self.objective == FitObjective::LossSquares {
            let valid = "with the objective `loss-squares`, whose residuals are those of L, it must \
                         be `equal`: the noise of seeds is that of ln L";
            return wrong("weights", self.weights.label(), valid);
        }
        Ok(())
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

    /// Whether it fits a law, by an objective that can be chosen.
    pub fn is_law(self) -> bool {
        !matches!(self, Self::Envelope | Self::Isoflop)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_contradict_each_other_are_refused_with_what_is_valid() {
        let profiles = FitSpec { methods: vec![FitMethod::Isoflop], ..FitSpec::default() };
        let seeds = FitSpec { weights: FitWeights::SeedNoise, ..FitSpec::default() };
        let (lad, squares) = (FitObjective::Lad, FitObjective::LossSquares);
        for (spec, said) in [
            (FitSpec { draws: 99, ..FitSpec::default() }, "`fit.draws` is `99`; a bootstrap needs"),
            (FitSpec { methods: Vec::new(), ..FitSpec::default() }, "`fit.methods` is `[]`; name"),
            (
                FitSpec { methods: vec![FitMethod::Power; 2], ..FitSpec::default() },
                "`fit.methods` is `power`; it is named twice",
            ),
            (FitSpec { objective: lad, ..profiles.clone() }, "`fit.objective` is `lad`"),
            (
                FitSpec { weights: FitWeights::SeedNoise, ..profiles },
                "`fit.weights` is `seed_noise`",
            ),
            (
                FitSpec { objective: squares, ..seeds.clone() },
                "`fit.weights` is `seed_noise`; with",
            ),
        ] {
            let text = spec.check().unwrap_err().to_string();
            assert!(text.starts_with(said), "{text}");
        }
        assert_eq!(seeds.check(), Ok(()));
        assert_eq!(FitSpec::default().check(), Ok(()));
    }
}
