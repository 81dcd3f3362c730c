//! Owns the two-step prediction of a task's accuracy: a law gives the task loss, a second one the
//! accuracy at it. Does not fit the two; their intervals are carried through both.

use crate::fit::Fit;
use crate::interval::{Estimate, Inference, estimate_steps};
use crate::law::{Law, LogPoint, Quantity};
use crate::observation::Covariates;

/// Accuracy at `point`, from the fit of the task loss and that of the accuracy (Bhagia et al. 2024,
/// 2412.04403, section 3).
///
/// ```
/// # use scaling::{chain, fit::{fit, FitOptions}, law::{LawName, LogPoint}};
/// # use scaling::observation::{Covariates, Dataset, Observation, RunKey};
/// # let point = |run: u32, d: f64, l: f64| Observation {
/// #     run: RunKey(run), parameters: 1e6, tokens: d, flops: 6e6 * d, loss_nats: l, seed: 0,
/// # };
/// # let losses: Vec<Observation> =
/// #     (0..8).map(|i| (i, 1e7 * f64::from(i + 1)))
/// #     .map(|(i, d)| point(i, d, 30.0 * (6e6 * d).powf(-0.1))).collect();
/// # let rows: Vec<(Observation, Covariates)> = (0..20).map(|i| {
/// #     let x = 0.5 + 0.1 * f64::from(i);
/// #     let accuracy = 0.95 - 0.7 / (1.0 + (-4.0 * (x - 1.2)).exp());
/// #     (point(i, 1.0, accuracy), Covariates { task_loss: Some(x), ..Covariates::default() })
/// # }).collect();
/// let options = FitOptions::default();
/// let loss = fit(LawName::Power.law(), &Dataset::new(&losses)?, &options)?;
/// let rows = Dataset::select_rows(&rows, |_, _| None)?;
/// let accuracy = fit(LawName::Sigmoid.law(), &rows, &options)?;
/// let at = LogPoint::new(1e6, 1e8, 6e14);
/// let expected = 0.95 - 0.7 / (1.0 + (-4.0 * (30.0 * 6e14_f64.powf(-0.1) - 1.2)).exp());
/// assert!((chain::predict(&loss, &accuracy, &at) - expected).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn predict(task_loss: &Fit, accuracy: &Fit, point: &LogPoint) -> f64 {
    through((task_loss.form.law(), &task_loss.theta), (accuracy.form.law(), &accuracy.theta), point)
}

/// An accuracy that two steps predict.
#[derive(Debug, Clone, PartialEq)]
pub struct Chained {
    /// The accuracy that the second law has at the task loss of the first.
    pub accuracy: Estimate,
    /// The same with the interval of one new measurement: its run has luck in the task loss, and in
    /// the accuracy at that loss.
    pub measured: Estimate,
}

/// As [`predict`], with the interval that both steps leave; at most 1, as an accuracy is.
///
/// The two are taken as independent: the first leaves open what the task loss is, the second what
/// accuracy goes with it, and the luck of a run in the one says nothing about the other.
pub fn estimate(task_loss: &Inference, accuracy: &Inference, point: &LogPoint) -> Chained {
    let law = task_loss.form.law();
    match &task_loss.whole {
        Some(reason) => Chained::not_identified(reason),
        None => chained(task_loss, accuracy, |theta| law.predict(theta, point)),
    }
}

/// As [`estimate`] at the compute-optimal point of `flops` = κ N D with κ =
/// `flops_per_parameter_token`; `None` where the first law has no such point in closed form.
pub fn estimate_at_budget(
    task_loss: &Inference,
    accuracy: &Inference,
    flops: f64,
    flops_per_parameter_token: f64,
) -> Option<Chained> {
    let optimum = task_loss.optimum_in_closed_form()?;
    Some(match task_loss.why_no_optimum() {
        Some(reason) => Chained::not_identified(&reason),
        None => chained(task_loss, accuracy, |theta| {
            optimum(theta, flops, flops_per_parameter_token).loss_nats
        }),
    })
}

impl Chained {
    fn not_identified(reason: &str) -> Self {
        let none = Estimate::not_identified(reason);
        Self { accuracy: none.clone(), measured: none }
    }
}

fn chained(first: &Inference, second: &Inference, loss: impl Fn(&[f64]) -> f64) -> Chained {
    if let Some(reason) = &second.whole {
        return Chained::not_identified(reason);
    }
    // An accuracy at a task loss that nobody knows would be one of chance.
    if let Estimate::NotIdentified { reason } = first.resampled.estimate(Quantity::Loss, &loss) {
        return Chained::not_identified(&format!("the task loss is not identified: {reason}"));
    }
    let law = second.form.law();
    let of = |x: &[f64], noise_log: f64, y: &[f64]| at_loss((law, y), loss(x) * noise_log.exp());
    let (accuracy, measured) = estimate_steps((&first.resampled, &second.resampled), of);
    Chained { accuracy: accuracy.at_most(1.0), measured: measured.at_most(1.0) }
}

fn through(first: (&dyn Law, &[f64]), second: (&dyn Law, &[f64]), point: &LogPoint) -> f64 {
    at_loss(second, first.0.predict(first.1, point))
}

fn at_loss((law, theta): (&dyn Law, &[f64]), task_loss: f64) -> f64 {
    let known = Covariates { task_loss: Some(task_loss), ..Covariates::default() };
    law.predict(theta, &LogPoint::of_logs(0.0, 0.0, 0.0).with(&known))
}

#[cfg(test)]
mod tests;
