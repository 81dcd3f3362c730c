//! Owns the parametric forms behind one trait: prediction, gradient, names, starting points.
//! Does not fit them; `fit` does, knowing a law only through [`Law`].

use std::fmt;

mod annealing;
mod broken_power;
mod chinchilla;
mod coupled;
mod data_constrained;
mod grid;
mod kaplan;
mod name;
mod overtraining;
mod pinned;
mod point;
mod power;
mod power_floor;
mod precision;
mod sigmoid;
mod transform;

pub use annealing::{Annealing, annealing_areas};
pub use broken_power::{BrokenPower, MAX_BREAKS};
pub(crate) use chinchilla::ADDITIVE_GRID;
pub use chinchilla::{Chinchilla, Optimum};
pub use coupled::Coupled;
pub use data_constrained::DataConstrained;
pub(crate) use grid::{exponent_grid, log_or_tiny};
pub use kaplan::Kaplan;
pub use name::{LawChoice, LawName, UnknownLaw};
pub use overtraining::Overtraining;
pub use pinned::{PinError, Pinned};
pub use point::{Axis, LogPoint, Variable};
pub use power::PowerLaw;
pub use power_floor::PowerFloor;
pub use precision::Precision;
pub use sigmoid::Sigmoid;

/// Largest number of parameters of a law, so that gradients fit on the stack.
pub const MAX_PARAMETERS: usize = 12;

/// What a number stands for; it decides the scale of its interval and when the interval is absurd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// A positive prefactor or count such as A, B, C0, N_opt: judged on a log scale.
    Scale,
    /// An exponent whose sign is the claim.
    Exponent,
    /// The irreducible loss E, in nats.
    Floor,
    /// A predicted loss, in nats, or a predicted accuracy.
    Loss,
    /// A difference, which may well be zero, or a number that may have either sign.
    Difference,
}

/// A named coefficient of a fitted law.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Coefficient {
    /// As in the formula: `E`, `A`, `alpha`.
    pub name: &'static str,
    /// What it stands for.
    pub quantity: Quantity,
    /// Its value; scales and floors as they stand in the formula, not their logs.
    pub value: f64,
}

/// How many distinct values of each variable a law needs before its coefficients can carry an
/// interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Distinct N.
    pub n_sizes: usize,
    /// Distinct D.
    pub n_token_counts: usize,
    /// Distinct C.
    pub n_budgets: usize,
}

/// The range in which a fit looks for a coefficient; a fit that ends there says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bound {
    /// The coefficient's name.
    pub name: &'static str,
    /// Smallest value, in the units of the formula.
    pub low: f64,
    /// Largest value.
    pub high: f64,
}

/// A change of the data that leaves the predictions of a fit as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invariance {
    /// Another unit of the variable, such as millions of parameters: only prefactors change.
    UnitOf(Variable),
    /// Another unit of the loss, such as bits: only prefactors and the floor change.
    UnitOfLoss,
}

/// A parametric form of the loss. `theta` are its free parameters, unbounded reals.
pub trait Law: fmt::Debug + Send + Sync {
    /// Which law this is, with its variable, breaks and precisions.
    fn choice(&self) -> LawChoice;

    /// The name of the law.
    fn name(&self) -> LawName {
        self.choice().name
    }

    /// The formula, for people.
    fn formula(&self) -> &'static str;

    /// What it is a function of.
    fn variables(&self) -> &'static [Variable];

    /// Coefficients that are looked for in a range only; all others are any real or any positive
    /// number.
    fn bounds(&self) -> &'static [Bound] {
        &[]
    }

    /// Which changes of units leave its predictions as they are.
    fn invariances(&self) -> &'static [Invariance];

    /// Which data identify it, in a sentence for people.
    fn identified_by(&self) -> &'static str;

    /// Names of `theta`, in order; at most [`MAX_PARAMETERS`].
    fn parameter_names(&self) -> &[&'static str];

    /// The coefficients of the formula that `theta` stands for.
    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient>;

    /// Distinct values needed, one more than the parameters that each variable has to determine.
    fn needs(&self) -> Needs;

    /// Why data that have the distinct values of [`Law::needs`] still cannot determine it, if so.
    fn missing(&self, _points: &[LogPoint]) -> Option<String> {
        None
    }

    /// The change of parameter `j` of `theta` that counts as one: itself for logs, exponents and
    /// shares; what the data say for a parameter in their units.
    fn unit_of(&self, _j: usize, _points: &[LogPoint], _log_losses: &[f64]) -> f64 {
        1.0
    }

    /// ln L at `point`; writes its derivatives with respect to `theta` into `gradient`.
    ///
    /// Not a number where the law gives no positive loss, which a fit refuses.
    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64;

    /// Starting points for the data, spread over all plausible exponents.
    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>>;

    /// The fewest starting points that must be followed to their minima: more than the usual number
    /// for laws whose objective is known to have many.
    fn least_polished(&self) -> usize {
        0
    }

    /// The law itself, to be kept with a fit.
    fn form(&self) -> LawForm {
        LawForm::Free(self.choice())
    }

    /// L in nats per token at `point`; for `sigmoid` the accuracy.
    fn predict(&self, theta: &[f64], point: &LogPoint) -> f64 {
        self.log_prediction(theta, point, &mut [0.0; MAX_PARAMETERS]).exp()
    }
}

/// A law that a fit keeps: as it is, or with some parameters pinned.
#[derive(Debug, Clone, PartialEq)]
pub enum LawForm {
    /// All parameters free.
    Free(LawChoice),
    /// Some parameters pinned.
    Pinned(Pinned),
}

impl LawForm {
    /// The law.
    pub fn law(&self) -> &dyn Law {
        match self {
            Self::Free(choice) => choice.law(),
            Self::Pinned(pinned) => pinned,
        }
    }
}

#[cfg(test)]
mod tests;
