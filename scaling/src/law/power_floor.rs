//! Owns the power law of one variable above an irreducible loss.
//! Does not model N and D together.

use super::grid::{exponent_grid, log_or_tiny, mean, project};
use super::power::{needs_along, unit_invariances};
use super::{
    Axis, Coefficient, Invariance, Law, LawChoice, LawName, LogPoint, Needs, Quantity, Variable,
};

/// L = E + (C0 / C)^alpha, or the same in N or D (Henighan et al. 2020, 2010.14701, equation 1.1).
///
/// `theta` = (ln E, k, alpha) with k = alpha · ln C0: unlike ln C0, k stays finite as alpha falls
/// towards zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerFloor {
    /// Its variable.
    pub axis: Axis,
}

impl PowerFloor {
    pub(super) fn of(axis: Axis) -> &'static Self {
        match axis {
            Axis::Parameters => &Self { axis: Axis::Parameters },
            Axis::Tokens => &Self { axis: Axis::Tokens },
            Axis::Flops => &Self { axis: Axis::Flops },
        }
    }
}

impl Law for PowerFloor {
    fn choice(&self) -> LawChoice {
        LawChoice { axis: self.axis, ..LawChoice::of(LawName::PowerFloor) }
    }

    fn formula(&self) -> &'static str {
        match self.axis {
            Axis::Parameters => "L = E + (N0 / N)^alpha",
            Axis::Tokens => "L = E + (D0 / D)^alpha",
            Axis::Flops => "L = E + (C0 / C)^alpha",
        }
    }

    fn variables(&self) -> &'static [Variable] {
        self.axis.variables()
    }

    fn invariances(&self) -> &'static [Invariance] {
        unit_invariances(self.axis)
    }

    fn identified_by(&self) -> &'static str {
        "four values of its variable over decades, with losses that visibly bend towards the floor"
    }

    fn parameter_names(&self) -> &[&'static str] {
        &["ln_e", "k", "alpha"]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        let name = match self.axis {
            Axis::Parameters => "N0",
            Axis::Tokens => "D0",
            Axis::Flops => "C0",
        };
        let scale = (theta[1] / theta[2]).exp();
        vec![
            Coefficient { name: "E", quantity: Quantity::Floor, value: theta[0].exp() },
            Coefficient { name, quantity: Quantity::Scale, value: scale },
            Coefficient { name: "alpha", quantity: Quantity::Exponent, value: theta[2] },
        ]
    }

    fn needs(&self) -> Needs {
        needs_along(self.axis, 4)
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let x = self.axis.log(point);
        let (floor, power) = (theta[0], theta[1] - theta[2] * x);
        let largest = floor.max(power);
        let (floor_part, power_part) = ((floor - largest).exp(), (power - largest).exp());
        let sum = floor_part + power_part;
        gradient[0] = floor_part / sum;
        gradient[1] = power_part / sum;
        gradient[2] = -x * power_part / sum;
        largest + sum.ln()
    }

    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let centre = mean(points.iter().map(|point| self.axis.log(point)));
        let level = mean(log_losses.iter().copied()).exp();
        // Relative residuals: each row is divided by its loss.
        let floors: Vec<f64> = log_losses.iter().map(|value| (-value).exp()).collect();
        let start = |alpha: f64| {
            let power: Vec<f64> = points
                .iter()
                .zip(&floors)
                .map(|(point, floor)| floor * (-alpha * (self.axis.log(point) - centre)).exp())
                .collect();
            let found = project(&[&floors, &power]);
            vec![log_or_tiny(found[0], level), log_or_tiny(found[1], level) + alpha * centre, alpha]
        };
        exponent_grid(48).map(start).collect()
    }
}
