//! The training-curve envelope of a group: L(C), N_opt(C) and D_opt(C), each a power law.
//! The method itself is `scaling::envelope`.

use std::collections::BTreeMap;

use api::{DroppedPoint, EstimateView, FitPoint, MethodFit};
use domain::spec::FitMethod;
use scaling::approach::Approach;
use scaling::envelope::{self, Bracket, EnvelopeFit, EnvelopeOptions, PowerLine};

use super::super::observe::Group;
use super::super::view;
use super::{Fitted, Predictor, Settings, curve_range, unfitted};

/// Stable names, in the order of the formulas.
const NAMES: [&str; 6] = [
    "loss_coefficient",
    "loss_exponent",
    "parameters_coefficient",
    "parameters_exponent",
    "tokens_coefficient",
    "tokens_exponent",
];

/// A loss falls with C, so its exponent is written positive behind a minus sign.
fn formulas(settings: &Settings) -> Vec<String> {
    let unit = settings.unit_text();
    vec![
        format!("L(C) = loss_coefficient·(C / {unit})^-loss_exponent"),
        format!("N_opt(C) = parameters_coefficient·(C / {unit})^parameters_exponent"),
        format!("D_opt(C) = tokens_coefficient·(C / {unit})^tokens_exponent"),
    ]
}

pub(super) fn fit(group: &Group, settings: &Settings) -> Fitted {
    match try_fit(group, settings) {
        Ok(fitted) => fitted,
        Err(reason) => unfitted(FitMethod::Envelope, formulas(settings), &NAMES, &reason),
    }
}

fn try_fit(group: &Group, settings: &Settings) -> Result<Fitted, String> {
    if let Some(reason) = group.why_empty() {
        return Err(reason);
    }
    let dataset = group.dataset().map_err(|error| error.to_string())?;
    let options = EnvelopeOptions {
        unit_flops: settings.unit_flops(),
        interval: settings.interval,
        ..EnvelopeOptions::default()
    };
    let fit = envelope::fit(&dataset, &options).map_err(|error| error.to_string())?;
    let range = curve_range(group, fit.flops_range);
    let scheme = &fit.loss_resampled.scheme;
    let (is_drawn, interval_note) = (view::is_drawn(scheme), view::explain(scheme));
    let view = MethodFit {
        method: FitMethod::Envelope.label().to_owned(),
        formulas: formulas(settings),
        objective: "sum of squared residuals of ln L, of ln N and of ln D over ln C".to_owned(),
        coefficients: coefficients(&fit),
        n_observations: (dataset.points().len() - fit.runs_without_curve.len()) as u64,
        n_runs: fit.n_runs as u64,
        residual_rms_log: view::finite(fit.loss.residual_rms_log),
        intervals: scheme.to_string(),
        curve: view::curve(range, |flops| fit.predict_loss(flops).curve),
        points: points(&fit),
        dropped: dropped(group, &fit),
        warnings: fit.warnings.clone(),
    };
    let approach = Approach {
        name: FitMethod::Envelope.label().to_owned(),
        parameters_exponent: fit.parameters.exponent.clone(),
        tokens_exponent: fit.tokens.exponent.clone(),
        exponent_sum: Some(fit.exponent_sum()),
    };
    let predictor = Predictor::Envelope(Box::new(fit));
    Ok(Fitted { view, predictor, is_drawn, interval_note, approach: Some(approach) })
}

fn coefficients(fit: &EnvelopeFit) -> BTreeMap<String, EstimateView> {
    let exponent = |line: &PowerLine| view::estimate(&line.exponent);
    let prefactor = |line: &PowerLine| view::estimate(&line.prefactor);
    let estimates = [
        prefactor(&fit.loss),
        view::estimate(&view::minus(0.0, &fit.loss.exponent)),
        prefactor(&fit.parameters),
        exponent(&fit.parameters),
        prefactor(&fit.tokens),
        exponent(&fit.tokens),
    ];
    NAMES.into_iter().map(str::to_owned).zip(estimates).collect()
}

fn points(fit: &EnvelopeFit) -> Vec<FitPoint> {
    let point = |one: &envelope::FrontierPoint| FitPoint {
        flops: one.flops,
        parameters: one.parameters,
        tokens: one.tokens,
        loss_nats: one.loss_nats,
    };
    fit.frontier.iter().map(point).collect()
}

/// Neighbouring budgets share their reason, so they are counted and not listed.
fn dropped(group: &Group, fit: &EnvelopeFit) -> Vec<DroppedPoint> {
    let mut dropped: Vec<DroppedPoint> = fit
        .runs_without_curve
        .iter()
        .filter_map(|key| group.run(*key))
        .map(|run| DroppedPoint {
            what: format!("`{}`", run.name),
            reason: "it has one measured checkpoint: two make a curve".to_owned(),
        })
        .collect();
    let n_budgets = fit.frontier.len() + fit.dropped.len();
    if let Some(first) = fit.dropped.first() {
        dropped.push(DroppedPoint {
            what: format!("{} of {n_budgets} budgets", fit.dropped.len()),
            reason: first.reason.clone(),
        });
    }
    let n_edges = fit.frontier.iter().filter(|one| one.bracket != Bracket::Inside).count();
    if n_edges > 0 {
        dropped.push(DroppedPoint {
            what: format!("{n_edges} of {n_budgets} budgets, from N_opt(C) and D_opt(C) only"),
            reason: "the best size is the smallest or the largest measured there".to_owned(),
        });
    }
    dropped
}
