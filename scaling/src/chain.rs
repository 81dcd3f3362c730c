//! Owns the two-step prediction of a task's accuracy: a law gives the task loss, a second one the
//! accuracy at it. Does not fit the two; their intervals are carried through both.

use crate::fit::Fit;
use crate::interval::{Estimate, Inference, estimate_pair};
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

/// As [`predict`], with the interval that both steps leave.
///
/// `is_paired` says that both were resampled from the same runs with the same seed; then what they
/// share is kept. Otherwise their variances add, and the draws of one say nothing about the other.
pub fn estimate(
    task_loss: &Inference,
    accuracy: &Inference,
    is_paired: bool,
    point: &LogPoint,
) -> Estimate {
    for one in [task_loss, accuracy] {
        if let Some(reason) = &one.whole {
            return Estimate::not_identified(reason.clone());
        }
    }
    let (first, second) = (task_loss.form.law(), accuracy.form.law());
    estimate_pair(
        (&task_loss.resampled, &accuracy.resampled),
        is_paired,
        Quantity::Loss,
        |a: &[f64], b: &[f64]| through((first, a), (second, b), point),
    )
}

fn through(first: (&dyn Law, &[f64]), second: (&dyn Law, &[f64]), point: &LogPoint) -> f64 {
    let task_loss = Some(first.0.predict(first.1, point));
    let at = LogPoint::of_logs(0.0, 0.0, 0.0).with(&Covariates { task_loss, ..Default::default() });
    second.0.predict(second.1, &at)
}
