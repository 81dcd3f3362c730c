//! Owns the power law of one variable without a floor. Does not model N and D together; the
//! envelope gives the compute-optimal frontier it is fitted to.

use super::grid::{exponent_grid, mean};
use super::{
    Axis, Coefficient, Invariance, Law, LawChoice, LawName, LogPoint, Needs, Quantity, Variable,
};

/// L = beta · C^(-alpha), or the same in N or D, as in Kaplan et al. 2020 (2001.08361, equations
/// 1.1 to 1.3) and Shen et al. 2024 (2406.16690, section 4).
///
/// `theta` = (ln beta, alpha).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerLaw {
    /// Its variable.
    pub axis: Axis,
}

impl PowerLaw {
    pub(super) fn of(axis: Axis) -> &'static Self {
        match axis {
            Axis::Parameters => &Self { axis: Axis::Parameters },
            Axis::Tokens => &Self { axis: Axis::Tokens },
            Axis::Flops => &Self { axis: Axis::Flops },
        }
    }
}

impl Law for PowerLaw {
    fn choice(&self) -> LawChoice {
        LawChoice { axis: self.axis, ..LawChoice::of(LawName::Power) }
    }

    fn formula(&self) -> &'static str {
        match self.axis {
            Axis::Parameters => "L = beta * N^-alpha",
            Axis::Tokens => "L = beta * D^-alpha",
            Axis::Flops => "L = beta * C^-alpha",
        }
    }

    fn variables(&self) -> &'static [Variable] {
        self.axis.variables()
    }

    fn invariances(&self) -> &'static [Invariance] {
        unit_invariances(self.axis)
    }

    fn identified_by(&self) -> &'static str {
        "three values of its variable, over losses far above any floor"
    }

    fn parameter_names(&self) -> &[&'static str] {
        &["ln_beta", "alpha"]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        vec![
            Coefficient { name: "beta", quantity: Quantity::Scale, value: theta[0].exp() },
            Coefficient { name: "alpha", quantity: Quantity::Exponent, value: theta[1] },
        ]
    }

    fn needs(&self) -> Needs {
        needs_along(self.axis, 3)
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let x = self.axis.log(point);
        gradient[0] = 1.0;
        gradient[1] = -x;
        theta[0] - theta[1] * x
    }

    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let centre = mean(points.iter().map(|point| self.axis.log(point)));
        let level = mean(log_losses.iter().copied());
        exponent_grid(16).map(|alpha| vec![level + alpha * centre, alpha]).collect()
    }
}

/// `count` distinct values along `axis`, and one of the other variables.
pub(super) fn needs_along(axis: Axis, count: usize) -> Needs {
    let of = |other: Axis| if other == axis { count } else { 1 };
    Needs {
        n_sizes: of(Axis::Parameters),
        n_token_counts: of(Axis::Tokens),
        n_budgets: of(Axis::Flops),
    }
}

/// Of a law of one variable: its unit and that of the loss.
pub(super) fn unit_invariances(axis: Axis) -> &'static [Invariance] {
    match axis {
        Axis::Parameters => &[Invariance::UnitOf(Variable::Parameters), Invariance::UnitOfLoss],
        Axis::Tokens => &[Invariance::UnitOf(Variable::Tokens), Invariance::UnitOfLoss],
        Axis::Flops => &[Invariance::UnitOf(Variable::Flops), Invariance::UnitOfLoss],
    }
}
