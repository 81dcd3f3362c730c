//! Owns the interval of what two fits predict one after the other, such as an accuracy from a
//! predicted task loss. Does not know the two laws; they are one function of both parameter vectors.

use super::{Estimate, Resampled, Scheme, finite, judged, mean_square, spread, student, welch};
use crate::law::Quantity;
use crate::random::Stream;

/// Streams of the residuals that are drawn for the first step's measurement.
const STEP_STREAM: u64 = 3 << 32;

/// A positive quantity by two independent fits: its estimate, and that with the noise of one new
/// measurement of both steps.
///
/// `function` gets the first fit's parameters, the residual of ln of what it predicts, and the second
/// fit's parameters.
///
/// Draws of both are put together, each with one of another number, so that equal seeds do not pair
/// what is independent. Where one has no draws, as the jackknife has none, variances of the log add
/// and the degrees of freedom are Welch and Satterthwaite's.
pub(crate) fn estimate_steps(
    (first, second): (&Resampled, &Resampled),
    function: impl Fn(&[f64], f64, &[f64]) -> f64,
) -> (Estimate, Estimate) {
    match (&first.scheme, &second.scheme) {
        (Scheme::Bootstrap { .. }, Scheme::Bootstrap { .. }) => {
            let joint = joint(first, second);
            let n = first.theta.len();
            let of = |with_noise: bool| {
                let function = &function;
                move |theta: &[f64]| {
                    let noise = if with_noise { theta[n] } else { 0.0 };
                    function(&theta[..n], noise, &theta[n + 1..])
                }
            };
            let curve = joint.estimate(Quantity::Loss, of(false));
            (curve, joint.estimate_measured(of(true)))
        }
        _ => match around((first, second), &function) {
            Ok(both) => both,
            Err(reason) => {
                let none = Estimate::not_identified(reason);
                (none.clone(), none)
            }
        },
    }
}

fn n_clusters(one: &Resampled) -> usize {
    if let Scheme::Bootstrap { n_clusters, .. } = one.scheme { n_clusters } else { 0 }
}

/// Both parameter vectors in one, with a residual of the first step between them.
fn joint(first: &Resampled, second: &Resampled) -> Resampled {
    let (n_first, n_second) = (first.replicates.len(), second.replicates.len());
    let seed = if let Scheme::Bootstrap { seed, .. } = first.scheme { seed } else { 0 };
    let put = |a: &[f64], residual: f64, b: &[f64]| [a, &[residual], b].concat();
    let one = |index: usize| {
        let mut stream = Stream::new(seed, STEP_STREAM + index as u64);
        let residuals = &first.residuals_log;
        let residual =
            if residuals.is_empty() { 0.0 } else { residuals[stream.index(residuals.len())] };
        let other = (index + n_second / 2) % n_second;
        put(&first.replicates[index % n_first], residual, &second.replicates[other])
    };
    let n_draws = if n_first == 0 || n_second == 0 { 0 } else { n_first.max(n_second) };
    Resampled {
        theta: put(&first.theta, 0.0, &second.theta),
        replicates: (0..n_draws).map(one).collect(),
        // An interval is as wide as the fewer clusters demand.
        scheme: if n_clusters(first) <= n_clusters(second) { first } else { second }.scheme.clone(),
        level: first.level,
        residuals_log: second.residuals_log.clone(),
        influence: Vec::new(),
    }
}

/// Intervals around the estimate, from the variances of its log.
fn around(
    (first, second): (&Resampled, &Resampled),
    function: &impl Fn(&[f64], f64, &[f64]) -> f64,
) -> Result<(Estimate, Estimate), String> {
    for one in [first, second] {
        if let Scheme::Unavailable { reason, .. } = &one.scheme {
            return Err(reason.clone());
        }
    }
    let log = |a: &[f64], noise: f64, b: &[f64]| function(a, noise, b).ln();
    let (a, b) = (&first.theta, &second.theta);
    let centre = log(a, 0.0, b);
    if !centre.is_finite() {
        return Err("the estimate itself is not finite".to_owned());
    }
    let of_first = finite(first, first.replicates.iter().map(|one| log(one, 0.0, b)).collect())?;
    let of_second = finite(second, second.replicates.iter().map(|one| log(a, 0.0, one)).collect())?;
    let parts = [spread(first, centre, of_first), spread(second, centre, of_second)];
    let by_loss = first.residuals_log.iter().map(|one| log(a, *one, b) - centre);
    let noise = mean_square(&by_loss.collect::<Vec<_>>()) + mean_square(&second.residuals_log);
    let (variance, freedom) = welch(parts);
    let estimate = |variance: f64| {
        let half = student(first.level, freedom) * variance.sqrt();
        judged(Quantity::Loss, centre.exp(), (centre - half).exp(), (centre + half).exp())
    };
    Ok((estimate(variance), estimate(variance + noise)))
}
