//! A fit of rows as it is shown: coefficients, minima, what was held out.
//!
//! It fits nothing.

use std::collections::BTreeMap;

use api::EstimateView;
use scaling::fit::{Audit, Fit};
use scaling::interval::{Inference, IntervalOptions};
use scaling::law::{Law, LogPoint, Quantity};
use scaling::noise::{LEAST_SD_LOG, SeedNoise};
use scaling::observation::{Dataset, Weighting};
use scaling::profile::FloorProfile;

use super::hold_out::Out;
use super::read::Row;
use super::{Job, approaches, keep};
use crate::fit_document::estimate_view;
use crate::output::file_fit::{
    AuditView, ExcludedRow, FileFit, FloorProfileView, HeldOutRow, HeldOutSummary, MinimumView,
    SeedNoiseView,
};

/// A fit as it is shown.
pub(super) fn report(
    job: &Job<'_>,
    (fitted, inference, dataset): (&Fit, &Inference, &Dataset),
    interval: &IntervalOptions,
    (excluded, held_out, warnings): (Vec<ExcludedRow>, Vec<HeldOutRow>, Vec<String>),
) -> FileFit {
    let law = fitted.form.law();
    let named = |theta: &[f64]| -> BTreeMap<String, f64> {
        law.coefficients(theta).iter().map(|one| (one.name.to_owned(), one.value)).collect()
    };
    let rivals = fitted.convergence.rivals.iter();
    let minima = std::iter::once((fitted.objective, &fitted.theta))
        .chain(rivals.map(|rival| (rival.objective, &rival.theta)))
        .map(|(objective, theta)| MinimumView { objective, coefficients: named(theta) });
    let is_number = |minimum: &MinimumView| {
        minimum.objective.is_finite() && minimum.coefficients.values().all(|one| one.is_finite())
    };
    // The fit's own stays whatever it is; `not_finite` refuses it then.
    let minima = minima.enumerate().filter(|(index, one)| *index == 0 || is_number(one));
    let conventions = keep::conventions(job, dataset);
    FileFit {
        group: None,
        file: job.file.display().to_string(),
        law: fitted.law.to_string(),
        formula: law.formula().to_owned(),
        n_counts: match conventions.n_column {
            Some(_) => conventions.n_counts,
            None => "no column".to_owned(),
        },
        flops: conventions.c_source,
        c_counts: conventions.c_counts,
        coefficients: inference
            .coefficients
            .iter()
            .map(|one| (one.name.to_owned(), estimate_view(&one.estimate)))
            .collect(),
        floor_profile: None,
        seed_noise: None,
        selection: Vec::new(),
        selected_by: None,
        audit: None,
        ladder: Vec::new(),
        bca: bca(fitted, inference),
        end_errors: end_errors(fitted, inference),
        derived: derived(inference),
        approaches: Vec::new(),
        minima: minima.map(|(_, one)| one).collect(),
        n_starts: fitted.convergence.n_starts as u64,
        n_followed: fitted.convergence.n_polished as u64,
        n_converged: fitted.convergence.n_converged as u64,
        n_at_best: fitted.convergence.n_at_best as u64,
        n_observations: fitted.n_points as u64,
        n_runs: fitted.n_runs as u64,
        n_trunks: None,
        residual_rms_log: fitted.residual_rms_log,
        objective_name: fitted.objective_name(),
        objective: fitted.objective,
        huber_delta: fitted.objective_kind.huber_delta(),
        confidence: interval.level,
        intervals: inference.resampled.scheme.to_string(),
        draws: u32::try_from(interval.draws).unwrap_or(u32::MAX),
        seed: job.args.seed(),
        held_out_summary: HeldOutSummary::of(&held_out),
        held_out,
        excluded,
        warnings,
    }
}

/// A number of the report that is none, which JSON would show as `null`; rivals with such a number are left out before.
pub(super) fn not_finite(report: &FileFit) -> Option<String> {
    if !report.objective.is_finite() {
        return Some("the objective".to_owned());
    }
    if !report.residual_rms_log.is_finite() {
        return Some("the root mean square of the residuals".to_owned());
    }
    let best = report.minima.first()?.coefficients.iter().find(|(_, value)| !value.is_finite());
    best.map(|(name, _)| format!("the coefficient `{name}`"))
}

/// What the classic grid found, as it is shown.
pub(super) fn audit_view(law: &dyn Law, audit: &Audit, is_as_good: bool) -> AuditView {
    let coefficients = law.coefficients(&audit.theta);
    AuditView {
        n_starts: audit.n_starts as u64,
        n_converged: audit.n_converged as u64,
        n_at_best: audit.n_at_best as u64,
        objective: audit.objective,
        coefficients: coefficients.iter().map(|one| (one.name.to_owned(), one.value)).collect(),
        is_as_good,
    }
}

pub(super) fn noise_view(noise: &SeedNoise, fitted: &Fit, dataset: &Dataset) -> SeedNoiseView {
    let rows = dataset.points().iter().zip(&fitted.residuals_log);
    // Each over the noise at the loss that the law gives, as the weights have it.
    let shares = rows
        .map(|(point, residual)| residual / noise.sd_log_at(point.loss_nats * (-residual).exp()));
    let mut squares: Vec<f64> = shares.map(|share| share * share).collect();
    // So that the order of rows changes no bit of the sum.
    squares.sort_unstable_by(f64::total_cmp);
    let squares: f64 = squares.iter().sum();
    let freedom = fitted.n_points.saturating_sub(fitted.theta.len()).max(1);
    SeedNoiseView {
        sd_log: noise.sd_log,
        power: noise.power,
        at_loss_nats: noise.at_loss_nats,
        n_places: noise.n_places as u64,
        n_freedom: noise.n_freedom as u64,
        is_least: noise.sd_log <= LEAST_SD_LOG,
        is_used: fitted.weighting == Weighting::SeedNoise,
        lack_of_fit: (squares / freedom as f64).sqrt(),
    }
}

pub(super) fn floor_view(profile: &FloorProfile) -> FloorProfileView {
    FloorProfileView {
        name: profile.name.to_owned(),
        low: profile.low,
        high: profile.high,
        flat_nats: profile.flat_nats,
    }
}

/// Predicted against measured, for the rows that a rule held out.
pub(super) fn held_out(
    rows: &[&Row],
    reasons: &[Option<Out>],
    inference: &Inference,
    has_flops: bool,
) -> Vec<HeldOutRow> {
    let is_predicted = |out: &Option<Out>| out.as_ref().is_some_and(|one| one.is_predicted);
    let pairs = rows.iter().zip(reasons).filter(|(_, out)| is_predicted(out));
    pairs
        .map(|(row, _)| {
            let point = LogPoint::from(&row.observation).with(&row.covariates);
            let prediction = inference.predict_at(&point);
            let measured = row.observation.loss_nats;
            let predicted = estimate_view(&prediction.measured);
            let relative_error = prediction.curve.value().map(|value| value / measured - 1.0);
            let is_inside = prediction
                .measured
                .interval()
                .map(|(low, high)| low <= measured && measured <= high);
            // What stands in the place of C where none is known is no compute.
            let extrapolation =
                Some(prediction.extrapolation).filter(|factor| has_flops && factor.is_finite());
            HeldOutRow {
                line: row.line,
                measured,
                predicted,
                relative_error,
                is_inside,
                extrapolation,
            }
        })
        .collect()
}

fn bca(fitted: &Fit, inference: &Inference) -> BTreeMap<String, EstimateView> {
    of_identified(fitted, inference, |quantity, value| {
        inference.resampled.estimate_bca(quantity, value).map(|estimate| estimate_view(&estimate))
    })
}

fn end_errors(fitted: &Fit, inference: &Inference) -> BTreeMap<String, [f64; 2]> {
    of_identified(fitted, inference, |quantity, value| {
        inference.resampled.end_errors(quantity, value).map(|(low, high)| [low, high])
    })
}

/// Something of each coefficient that the data identify, from how it follows from a draw.
fn of_identified<T>(
    fitted: &Fit,
    inference: &Inference,
    ask: impl Fn(Quantity, &dyn Fn(&[f64]) -> f64) -> Option<T>,
) -> BTreeMap<String, T> {
    let law = fitted.form.law();
    let named = inference.coefficients.iter().zip(&fitted.coefficients).enumerate();
    named
        .filter(|(_, (one, _))| one.estimate.value().is_some())
        .filter_map(|(index, (one, coefficient))| {
            let value = |theta: &[f64]| law.coefficients(theta)[index].value;
            Some((one.name.to_owned(), ask(coefficient.quantity, &value)?))
        })
        .collect()
}

/// a and b of N_opt ∝ C^a and D_opt ∝ C^b for C = κ N D, which need no κ.
fn derived(inference: &Inference) -> BTreeMap<String, EstimateView> {
    let Some(law) = approaches::of_law(inference) else { return BTreeMap::new() };
    [("parameters_exponent", law.parameters_exponent), ("tokens_exponent", law.tokens_exponent)]
        .map(|(name, estimate)| (name.to_owned(), estimate_view(&estimate)))
        .into()
}
