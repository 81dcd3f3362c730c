//! Owns the law of compute and tokens per parameter.
//! Does not assume that C = 6 N D: C is a variable of its own.

use super::grid::{exponent_grid, log_or_tiny, mean, project};
use super::{
    Coefficient, Invariance, Law, LawChoice, LawName, LogPoint, Needs, Quantity, Variable,
};

/// L = E + (a M^eta + b M^-eta) C^-eta with M = D / N (Gadre et al. 2024, 2403.08540, equation 4).
///
/// It is the additive law with one exponent for both terms, where 2 eta is that exponent and C = 6
/// N D. `theta` = (ln a, ln b, ln E, eta).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overtraining;

impl Overtraining {
    /// Ratios D/N of the points, those within one per cent counted once.
    ///
    /// Two identify the law, as in the study it comes from, whose fit has M = 20 and one run of M =
    /// 320; only a third could contradict how the loss depends on M.
    pub(crate) fn n_ratios(points: &[LogPoint]) -> usize {
        let mut ratios: Vec<f64> =
            points.iter().map(|point| point.ln_tokens - point.ln_parameters).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios.dedup_by(|later, earlier| *later - *earlier < 0.01);
        ratios.len()
    }
}

impl Law for Overtraining {
    fn choice(&self) -> LawChoice {
        LawChoice::of(LawName::Overtraining)
    }

    fn formula(&self) -> &'static str {
        "L = E + (a M^eta + b M^-eta) C^-eta, M = D / N"
    }

    fn variables(&self) -> &'static [Variable] {
        &[Variable::Parameters, Variable::Tokens, Variable::Flops]
    }

    fn invariances(&self) -> &'static [Invariance] {
        &[
            Invariance::UnitOf(Variable::Parameters),
            Invariance::UnitOf(Variable::Tokens),
            Invariance::UnitOf(Variable::Flops),
            Invariance::UnitOfLoss,
        ]
    }

    fn identified_by(&self) -> &'static str {
        "two ratios D/N, better three on both sides of the best one, and four values of C"
    }

    fn parameter_names(&self) -> &[&'static str] {
        &["ln_a", "ln_b", "ln_e", "eta"]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        vec![
            Coefficient { name: "E", quantity: Quantity::Floor, value: theta[2].exp() },
            Coefficient { name: "a", quantity: Quantity::Scale, value: theta[0].exp() },
            Coefficient { name: "b", quantity: Quantity::Scale, value: theta[1].exp() },
            Coefficient { name: "eta", quantity: Quantity::Exponent, value: theta[3] },
        ]
    }

    fn needs(&self) -> Needs {
        Needs { n_sizes: 2, n_token_counts: 3, n_budgets: 4 }
    }

    fn missing(&self, points: &[LogPoint]) -> Option<String> {
        (Self::n_ratios(points) < 2).then(|| {
            "1 ratio D/N, within one per cent; `overtraining` needs 2 to tell `a` from `b`"
                .to_owned()
        })
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let ratio = point.ln_tokens - point.ln_parameters;
        let (up, down) = (ratio - point.ln_flops, -ratio - point.ln_flops);
        let logs = [theta[0] + theta[3] * up, theta[1] + theta[3] * down, theta[2]];
        let largest = logs[0].max(logs[1]).max(logs[2]);
        let parts = logs.map(|log| (log - largest).exp());
        let sum: f64 = parts.iter().sum();
        gradient[0] = parts[0] / sum;
        gradient[1] = parts[1] / sum;
        gradient[2] = parts[2] / sum;
        gradient[3] = up * gradient[0] + down * gradient[1];
        largest + sum.ln()
    }

    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let ratio = |point: &LogPoint| point.ln_tokens - point.ln_parameters;
        let up_centre = mean(points.iter().map(|point| ratio(point) - point.ln_flops));
        let down_centre = mean(points.iter().map(|point| -ratio(point) - point.ln_flops));
        let level = mean(log_losses.iter().copied()).exp();
        let floors: Vec<f64> = log_losses.iter().map(|value| (-value).exp()).collect();
        let start = |eta: f64| {
            let column = |sign: f64, centre: f64| -> Vec<f64> {
                let log = |point: &LogPoint| sign * ratio(point) - point.ln_flops - centre;
                let rows = points.iter().zip(&floors);
                rows.map(|(point, floor)| floor * (eta * log(point)).exp()).collect()
            };
            let found = project(&[&column(1.0, up_centre), &column(-1.0, down_centre), &floors]);
            vec![
                log_or_tiny(found[0], level) - eta * up_centre,
                log_or_tiny(found[1], level) - eta * down_centre,
                log_or_tiny(found[2], level),
                eta,
            ]
        };
        exponent_grid(64).map(start).collect()
    }
}
