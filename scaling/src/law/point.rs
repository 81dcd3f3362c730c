//! Owns where a law is evaluated: the variables, and the logs of their values at a point.
//! Does not know any law.

use std::fmt;

use crate::observation::{Covariates, Observation};

/// What a law may be a function of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variable {
    /// N.
    Parameters,
    /// D.
    Tokens,
    /// C.
    Flops,
    /// Distinct tokens among D.
    UniqueTokens,
    /// Bits of the weights.
    WeightBits,
    /// Bits of the activations.
    ActivationBits,
    /// Bits of the key-value cache.
    CacheBits,
    /// Loss on the task, in nats or bits, whatever the caller uses.
    TaskLoss,
    /// Sum of the learning rates of all steps.
    RateSum,
    /// Decayed sum of the falls of the learning rate.
    RateFall,
}

impl Variable {
    /// Bits of weights, activations and key-value cache, in the order of [`LogPoint::bits`].
    pub const BITS: [Self; 3] = [Self::WeightBits, Self::ActivationBits, Self::CacheBits];

    /// The letter or the words for it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Parameters => "N",
            Self::Tokens => "D",
            Self::Flops => "C",
            Self::UniqueTokens => "unique tokens",
            Self::WeightBits => "bits of the weights",
            Self::ActivationBits => "bits of the activations",
            Self::CacheBits => "bits of the key-value cache",
            Self::TaskLoss => "task loss",
            Self::RateSum => "sum of learning rates",
            Self::RateFall => "sum of learning-rate falls",
        }
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

/// The variable of a law of one variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Axis {
    /// N.
    Parameters,
    /// D.
    Tokens,
    /// C.
    #[default]
    Flops,
}

impl Axis {
    /// ln of the variable at `point`.
    pub fn log(self, point: &LogPoint) -> f64 {
        match self {
            Self::Parameters => point.ln_parameters,
            Self::Tokens => point.ln_tokens,
            Self::Flops => point.ln_flops,
        }
    }

    /// The variable, as a list of one.
    pub(super) fn variables(self) -> &'static [Variable] {
        match self {
            Self::Parameters => &[Variable::Parameters],
            Self::Tokens => &[Variable::Tokens],
            Self::Flops => &[Variable::Flops],
        }
    }
}

/// The values a law is evaluated at; what is not given is not a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogPoint {
    /// ln N.
    pub ln_parameters: f64,
    /// ln D.
    pub ln_tokens: f64,
    /// ln C.
    pub ln_flops: f64,
    /// ln of the distinct tokens among D; ln D where nothing is said, for then nothing is repeated.
    pub ln_unique_tokens: f64,
    /// Bits of weights, activations and key-value cache.
    pub bits: [f64; 3],
    /// Loss on the task.
    pub task_loss: f64,
    /// Sum of learning rates, and decayed sum of their falls.
    pub rates: (f64, f64),
}

impl LogPoint {
    /// The point with the given N, D and C, all positive.
    pub fn new(parameters: f64, tokens: f64, flops: f64) -> Self {
        Self::of_logs(parameters.ln(), tokens.ln(), flops.ln())
    }

    /// The point with the given logs of N, D and C.
    pub fn of_logs(ln_parameters: f64, ln_tokens: f64, ln_flops: f64) -> Self {
        Self {
            ln_parameters,
            ln_tokens,
            ln_flops,
            ln_unique_tokens: ln_tokens,
            bits: [f64::NAN; 3],
            task_loss: f64::NAN,
            rates: (f64::NAN, f64::NAN),
        }
    }

    /// The same point with what else is known of it.
    #[must_use]
    pub fn with(self, covariates: &Covariates) -> Self {
        Self {
            // More distinct tokens than were seen are all the tokens that were seen.
            ln_unique_tokens: covariates
                .unique_tokens
                .map_or(self.ln_tokens, |unique| unique.ln().min(self.ln_tokens)),
            bits: covariates.bits.map(|bits| bits.unwrap_or(f64::NAN)),
            task_loss: covariates.task_loss.unwrap_or(f64::NAN),
            rates: covariates.rates.unwrap_or((f64::NAN, f64::NAN)),
            ..self
        }
    }

    /// Times that the data were repeated beyond the first pass: D/U - 1, never below zero.
    pub fn repetitions(&self) -> f64 {
        (self.ln_tokens - self.ln_unique_tokens).exp_m1().max(0.0)
    }

    /// The value of `variable`, as it stands in a formula.
    pub fn value(&self, variable: Variable) -> f64 {
        match variable {
            Variable::Parameters => self.ln_parameters.exp(),
            Variable::Tokens => self.ln_tokens.exp(),
            Variable::Flops => self.ln_flops.exp(),
            Variable::UniqueTokens => self.ln_unique_tokens.exp(),
            Variable::WeightBits => self.bits[0],
            Variable::ActivationBits => self.bits[1],
            Variable::CacheBits => self.bits[2],
            Variable::TaskLoss => self.task_loss,
            Variable::RateSum => self.rates.0,
            Variable::RateFall => self.rates.1,
        }
    }
}

impl From<&Observation> for LogPoint {
    fn from(point: &Observation) -> Self {
        Self::new(point.parameters, point.tokens, point.flops)
    }
}
