//! Single settings of a fit in place of the study's own.
//! It reads no request; what was asked is parsed already.

use domain::spec::{FitMethod, FitObjective, FitSpec, FitWeights, HoldOut};

/// What is to be otherwise; nothing where all is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FitChange {
    /// The whole section, before the others.
    pub spec: Option<FitSpec>,
    /// The only method.
    pub method: Option<FitMethod>,
    /// What the laws minimise.
    pub objective: Option<FitObjective>,
    /// How much each point counts.
    pub weights: Option<FitWeights>,
    /// The axis of the groups; `Some(None)` for one fit of all.
    pub group_by: Option<Option<String>>,
    /// What is only predicted.
    pub hold_out: Option<HoldOut>,
    /// Bootstrap draws.
    pub draws: Option<u32>,
    /// Seed of the bootstrap.
    pub seed: Option<u32>,
}

impl FitChange {
    /// Whether anything is to be otherwise.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The settings with the change made.
    pub(super) fn apply(&self, own: FitSpec) -> FitSpec {
        let mut spec = self.spec.clone().unwrap_or(own);
        if let Some(method) = self.method {
            spec.methods = vec![method];
            // What the study says of its laws is not said of a method that has none.
            if !method.is_law() {
                spec.objective = FitObjective::default();
                spec.weights = FitWeights::default();
            }
        }
        spec.objective = self.objective.unwrap_or(spec.objective);
        spec.weights = self.weights.unwrap_or(spec.weights);
        if let Some(axis) = &self.group_by {
            spec.group_by.clone_from(axis);
        }
        spec.hold_out = self.hold_out.unwrap_or(spec.hold_out);
        spec.draws = self.draws.unwrap_or(spec.draws);
        spec.seed = self.seed.unwrap_or(spec.seed);
        spec
    }
}
