//! Owns the laws' names, and the choice of a law with its variable, breaks and precisions.
//! Does not hold any formula.

use std::fmt;
use std::str::FromStr;

use super::{
    Annealing, Axis, BrokenPower, Chinchilla, Coupled, DataConstrained, Kaplan, Law, Overtraining,
    PowerFloor, PowerLaw, Precision, Sigmoid,
};

/// The laws that exist.
///
/// ```
/// use scaling::law::LawName;
/// assert_eq!("chinchilla".parse::<LawName>()?.law().parameter_names().len(), 5);
/// let error = "chinchila".parse::<LawName>().unwrap_err();
/// assert!(error.to_string().contains("`power`, `power_floor`, `kaplan`, `chinchilla`"));
/// # Ok::<(), scaling::law::UnknownLaw>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LawName {
    /// [`PowerLaw`].
    Power,
    /// [`PowerFloor`].
    PowerFloor,
    /// [`Kaplan`].
    Kaplan,
    /// [`Chinchilla`].
    Chinchilla,
    /// [`Coupled`].
    Coupled,
    /// [`Overtraining`].
    Overtraining,
    /// [`DataConstrained`].
    DataConstrained,
    /// [`Precision`].
    Precision,
    /// [`BrokenPower`].
    BrokenPower,
    /// [`Sigmoid`].
    Sigmoid,
    /// [`Annealing`]; a preview.
    Annealing,
}

impl LawName {
    /// All of them, in the order in which they are listed to people.
    pub const ALL: [Self; 11] = [
        Self::Power,
        Self::PowerFloor,
        Self::Kaplan,
        Self::Chinchilla,
        Self::Coupled,
        Self::Overtraining,
        Self::DataConstrained,
        Self::Precision,
        Self::BrokenPower,
        Self::Sigmoid,
        Self::Annealing,
    ];

    /// The name in study files, on the command line and in the store.
    pub fn label(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::PowerFloor => "power_floor",
            Self::Kaplan => "kaplan",
            Self::Chinchilla => "chinchilla",
            Self::Coupled => "coupled",
            Self::Overtraining => "overtraining",
            Self::DataConstrained => "data_constrained",
            Self::Precision => "precision",
            Self::BrokenPower => "broken_power",
            Self::Sigmoid => "sigmoid",
            Self::Annealing => "annealing",
        }
    }

    /// What the law predicts, in words: L, of `sigmoid` the accuracy.
    pub fn measured(self) -> &'static str {
        match self {
            Self::Sigmoid => "accuracy",
            _ => "L",
        }
    }

    /// The law itself: of C where it is one of a single variable, with one break, with the bits of
    /// the weights.
    pub fn law(self) -> &'static dyn Law {
        LawChoice::of(self).law()
    }
}

impl fmt::Display for LawName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

impl FromStr for LawName {
    type Err = UnknownLaw;

    fn from_str(name: &str) -> Result<Self, UnknownLaw> {
        let found = Self::ALL.into_iter().find(|law| law.label() == name);
        found.ok_or_else(|| UnknownLaw { name: name.to_owned() })
    }
}

/// A name that is no law.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no law is called `{name}`; the laws are {}", valid_names())]
pub struct UnknownLaw {
    /// What was asked for.
    pub name: String,
}

fn valid_names() -> String {
    LawName::ALL.map(|law| format!("`{law}`")).join(", ")
}

/// A law with what it leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LawChoice {
    /// The law.
    pub name: LawName,
    /// The variable of `power`, `power_floor` and `broken_power`.
    pub axis: Axis,
    /// The breaks of `broken_power`, from 1 to [`super::MAX_BREAKS`]; others are taken for the
    /// nearest of these.
    pub n_breaks: usize,
    /// Whether `precision` knows the bits of weights, activations and key-value cache.
    pub bits: [bool; 3],
}

impl LawChoice {
    /// `name` with its defaults: C, one break, the bits of the weights.
    pub fn of(name: LawName) -> Self {
        Self { name, axis: Axis::Flops, n_breaks: 1, bits: [true, false, false] }
    }

    /// The law itself.
    ///
    /// ```
    /// use scaling::law::{Axis, LawChoice, LawName};
    /// let of_size = LawChoice { axis: Axis::Parameters, ..LawChoice::of(LawName::Power) };
    /// assert_eq!(of_size.law().formula(), "L = beta * N^-alpha");
    /// ```
    pub fn law(self) -> &'static dyn Law {
        match self.name {
            LawName::Power => PowerLaw::of(self.axis),
            LawName::PowerFloor => PowerFloor::of(self.axis),
            LawName::Kaplan => &Kaplan,
            LawName::Chinchilla => &Chinchilla,
            LawName::Coupled => &Coupled,
            LawName::Overtraining => &Overtraining,
            LawName::DataConstrained => &DataConstrained,
            LawName::Precision => Precision::of(self.bits),
            LawName::BrokenPower => BrokenPower::of(self.axis, self.n_breaks),
            LawName::Sigmoid => &Sigmoid,
            LawName::Annealing => &Annealing,
        }
    }
}
