//! Owns what a fit minimises, by exact name: two fits are comparable only if these are equal.
//! Does not minimise.

use std::fmt;
use std::str::FromStr;

/// Threshold of the Huber loss on log residuals (Hoffmann et al. 2022, section 3.3; Besiroglu et
/// al. 2024, section 3).
///
/// It lies below the usual residuals (0.003 on their points), so the objective is close to absolute
/// deviations.
pub const DEFAULT_HUBER_DELTA: f64 = 1e-3;

/// What is summed over the points, each times its weight; always a sum, never a mean.
///
/// A mean with default stopping rules ends where it starts, and gave published intervals that are
/// far too narrow (Besiroglu et al. 2024, 2404.10102, section 4).
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Objective {
    /// Huber loss of r = ln(measured) - ln(predicted): r²/2 up to `delta`, `delta` (|r| -
    /// `delta`/2) beyond.
    Huber {
        /// δ.
        delta: f64,
    },
    /// |r|: least absolute deviations of ln L. The coefficients that Besiroglu et al. 2024 print
    /// are this optimum and not that of the Huber loss which they describe.
    AbsoluteDeviations,
    /// r²: least squares of ln L.
    LogSquares,
    /// (measured - predicted)²: least squares of the loss itself, which trusts large losses most.
    LossSquares,
}

impl Default for Objective {
    fn default() -> Self {
        Self::Huber { delta: DEFAULT_HUBER_DELTA }
    }
}

impl Objective {
    /// The names on the command line.
    pub const NAMES: [&'static str; 4] = ["huber", "lad", "log-squares", "loss-squares"];

    /// δ of a Huber loss.
    pub fn huber_delta(self) -> Option<f64> {
        match self {
            Self::Huber { delta } => Some(delta),
            _ => None,
        }
    }

    /// The name on the command line; the threshold is not in it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Huber { .. } => Self::NAMES[0],
            Self::AbsoluteDeviations => Self::NAMES[1],
            Self::LogSquares => Self::NAMES[2],
            Self::LossSquares => Self::NAMES[3],
        }
    }

    /// The whole name, where `what` stands for what is measured and predicted.
    pub fn name_of(self, what: &str) -> String {
        match self {
            Self::Huber { delta } => {
                format!("sum of Huber losses of the residuals of ln {what}, δ = {delta}")
            }
            Self::AbsoluteDeviations => {
                format!("sum of absolute residuals of ln {what} (least absolute deviations)")
            }
            Self::LogSquares => format!("sum of squared residuals of ln {what}"),
            Self::LossSquares => format!("sum of squared residuals of {what}"),
        }
    }

    /// The contribution of one point of weight 1 with the measured and predicted logs.
    pub fn of(self, log_measured: f64, log_predicted: f64) -> f64 {
        let residual = log_predicted - log_measured;
        match self {
            Self::Huber { delta } => {
                let clipped = residual.clamp(-delta, delta);
                clipped * (residual - 0.5 * clipped)
            }
            Self::AbsoluteDeviations => residual.abs(),
            Self::LogSquares => residual * residual,
            Self::LossSquares => (log_predicted.exp() - log_measured.exp()).powi(2),
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.name_of("L"))
    }
}

/// A name that is no objective.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no objective is called `{name}`; they are `huber`, `lad`, `log-squares`, `loss-squares`")]
pub struct UnknownObjective {
    /// What was asked for.
    pub name: String,
}

impl FromStr for Objective {
    type Err = UnknownObjective;

    /// The objective of that name, a Huber loss with the usual threshold.
    fn from_str(name: &str) -> Result<Self, UnknownObjective> {
        let all = [Self::default(), Self::AbsoluteDeviations, Self::LogSquares, Self::LossSquares];
        let found = all.into_iter().find(|one| one.label() == name);
        found.ok_or_else(|| UnknownObjective { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_another_is_refused() {
        for name in Objective::NAMES {
            assert_eq!(name.parse::<Objective>().unwrap().label(), name);
        }
        let message = "mse".parse::<Objective>().unwrap_err().to_string();
        assert!(message.starts_with("no objective is called `mse`"), "{message}");
    }

    #[test]
    fn a_name_says_what_is_measured_and_without_more_it_is_the_loss() {
        assert_eq!(Objective::LossSquares.to_string(), "sum of squared residuals of L");
        let huber = Objective::default();
        let expected = "sum of Huber losses of the residuals of ln accuracy, δ = 0.001";
        assert_eq!(huber.name_of("accuracy"), expected);
        assert_eq!(huber.to_string(), expected.replace("accuracy", "L"));
    }

    #[test]
    fn the_huber_loss_is_square_inside_and_linear_outside() {
        let huber = Objective::Huber { delta: 0.1 };
        assert!((huber.of(1.0, 1.05) - 0.5 * 0.05 * 0.05).abs() < 1e-15);
        assert!((huber.of(1.0, 0.5) - 0.1 * (0.5 - 0.05)).abs() < 1e-15);
        assert!((Objective::LossSquares.of(2_f64.ln(), 3_f64.ln()) - 1.0).abs() < 1e-12);
    }
}
