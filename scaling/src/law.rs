//! Owns the parametric forms behind one trait: prediction, gradient, names, starting points.
//! Does not fit them; `fit` does, knowing a law only through [`Law`].

use std::fmt;
use std::str::FromStr;

use crate::observation::Observation;

mod chinchilla;
mod power;
mod power_floor;

pub use chinchilla::{Chinchilla, Optimum};
pub use power::PowerLaw;
pub use power_floor::PowerFloor;

/// Largest number of parameters of a law, so that gradients fit on the stack.
pub const MAX_PARAMETERS: usize = 8;

/// The logs a law is evaluated at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogPoint {
    /// ln N.
    pub ln_parameters: f64,
    /// ln D.
    pub ln_tokens: f64,
    /// ln C.
    pub ln_flops: f64,
}

impl LogPoint {
    /// The point with the given N, D and C, all positive.
    pub fn new(parameters: f64, tokens: f64, flops: f64) -> Self {
        Self { ln_parameters: parameters.ln(), ln_tokens: tokens.ln(), ln_flops: flops.ln() }
    }
}

impl From<&Observation> for LogPoint {
    fn from(point: &Observation) -> Self {
        Self::new(point.parameters, point.tokens, point.flops)
    }
}

/// What a number stands for; it decides the scale of its interval and when the interval is absurd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// A positive prefactor or count such as A, B, C0, N_opt: judged on a log scale.
    Scale,
    /// An exponent whose sign is the claim.
    Exponent,
    /// The irreducible loss E, in nats.
    Floor,
    /// A predicted loss, in nats.
    Loss,
    /// A difference, which may well be zero.
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

/// How many distinct values of each variable a law needs before its coefficients can carry an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Distinct N.
    pub n_sizes: usize,
    /// Distinct D.
    pub n_token_counts: usize,
    /// Distinct C.
    pub n_budgets: usize,
}

/// A parametric form of the loss. `theta` are its free parameters, unbounded reals.
pub trait Law: fmt::Debug + Sync {
    /// Which law this is.
    fn name(&self) -> LawName;

    /// The formula, for people.
    fn formula(&self) -> &'static str;

    /// Names of `theta`, in order; at most [`MAX_PARAMETERS`].
    fn parameter_names(&self) -> &'static [&'static str];

    /// The coefficients of the formula that `theta` stands for.
    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient>;

    /// Distinct values needed, one more than the parameters that each variable has to determine.
    fn needs(&self) -> Needs;

    /// ln L at `point`; writes its derivatives with respect to `theta` into `gradient`.
    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64;

    /// Starting points for the data, spread over all plausible exponents.
    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>>;

    /// L in nats per token at `point`.
    fn predict(&self, theta: &[f64], point: &LogPoint) -> f64 {
        self.log_prediction(theta, point, &mut [0.0; MAX_PARAMETERS]).exp()
    }
}

/// The laws that exist.
///
/// ```
/// use scaling::law::LawName;
/// assert_eq!("chinchilla".parse::<LawName>()?.law().parameter_names().len(), 5);
/// let error = "chinchila".parse::<LawName>().unwrap_err();
/// assert!(error.to_string().contains("`power`, `power_floor`, `chinchilla`"));
/// # Ok::<(), scaling::law::UnknownLaw>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LawName {
    /// [`PowerLaw`].
    Power,
    /// [`PowerFloor`].
    PowerFloor,
    /// [`Chinchilla`].
    Chinchilla,
}

impl LawName {
    /// All of them, in the order in which they are listed to people.
    pub const ALL: [Self; 3] = [Self::Power, Self::PowerFloor, Self::Chinchilla];

    /// The name in study files, on the command line and in the store.
    pub fn label(self) -> &'static str {
        match self {
            Self::Power => "power",
            Self::PowerFloor => "power_floor",
            Self::Chinchilla => "chinchilla",
        }
    }

    /// The law itself.
    pub fn law(self) -> &'static dyn Law {
        match self {
            Self::Power => &PowerLaw,
            Self::PowerFloor => &PowerFloor,
            Self::Chinchilla => &Chinchilla,
        }
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

/// Exponents tried as starting points: published ones lie between 0.03 and 0.8, doubtful data go beyond.
fn exponent_grid(count: usize) -> impl Iterator<Item = f64> + Clone {
    const LOW: f64 = 0.02;
    const HIGH: f64 = 1.5;
    (0..count).map(move |i| LOW + (HIGH - LOW) * i as f64 / (count - 1) as f64)
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// Least squares with non-negative coefficients for up to three columns, from `gram` and `target`.
///
/// Tries every non-empty support and keeps the feasible one that explains most (Lawson and Hanson's problem,
/// small enough to enumerate). Coefficients outside the support are zero.
fn non_negative(gram: &[f64], target: &[f64]) -> Vec<f64> {
    let n = target.len();
    let mut best = (0.0, vec![0.0; n]);
    for support in 1_usize..1 << n {
        let chosen: Vec<usize> = (0..n).filter(|i| support >> i & 1 == 1).collect();
        let k = chosen.len();
        let part: Vec<f64> =
            chosen.iter().flat_map(|i| chosen.iter().map(move |j| gram[i * n + j])).collect();
        let right: Vec<f64> = chosen.iter().map(|i| target[*i]).collect();
        let Some(lower) = crate::algebra::cholesky(&part, k) else { continue };
        let solution = crate::algebra::solve(&lower, k, &right);
        let explained = crate::algebra::dot(&solution, &right);
        if solution.iter().all(|value| *value >= 0.0) && explained > best.0 {
            let mut full = vec![0.0; n];
            chosen.iter().zip(&solution).for_each(|(i, value)| full[*i] = *value);
            best = (explained, full);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_gradient_agrees_with_central_differences() {
        let points = [LogPoint::new(1e6, 3e7, 2e14), LogPoint::new(4e8, 1e9, 2.4e18)];
        let thetas: [(LawName, &[f64]); 3] = [
            (LawName::Power, &[3.0, 0.07]),
            (LawName::PowerFloor, &[0.5, 4.0, 0.12]),
            (LawName::Chinchilla, &[6.0, 7.5, 0.6, 0.34, 0.37]),
        ];
        for (name, theta) in thetas {
            let law = name.law();
            assert_eq!(law.parameter_names().len(), theta.len());
            for point in &points {
                let mut gradient = vec![0.0; theta.len()];
                law.log_prediction(theta, point, &mut gradient);
                for (j, analytic) in gradient.iter().enumerate() {
                    let at = |step: f64| {
                        let mut moved = theta.to_vec();
                        moved[j] += step;
                        law.predict(&moved, point).ln()
                    };
                    let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
                    let allowed = 1e-7 * (1.0 + analytic.abs());
                    assert!((numeric - analytic).abs() < allowed, "{name} {j}: {numeric}");
                }
            }
        }
    }

    #[test]
    fn labels_are_read_back() {
        for name in LawName::ALL {
            assert_eq!(name.label().parse::<LawName>().unwrap(), name);
            assert_eq!(name.law().name(), name);
        }
    }

    #[test]
    fn a_negative_column_is_left_out_of_the_non_negative_solution() {
        // y = 2 x1 - x2 on orthonormal columns: the best non-negative answer drops x2.
        assert_eq!(non_negative(&[1.0, 0.0, 0.0, 1.0], &[2.0, -1.0]), [2.0, 0.0]);
    }
}
