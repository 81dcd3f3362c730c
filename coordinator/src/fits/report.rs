//! The report: groups, their fits, predictions of what was held out, and what a reader must know.
//! It reads nothing and stores nothing.

use api::{ComparisonView, EstimateView, FitReport, GroupFit, HeldOutView, ObservationView};
use domain::ids::{ContentHash, FitId};
use domain::spec::{FitMethod, FlopKind, ParameterKind};

use super::compare::{self, Comparing};
use super::method::{self, CONFIDENCE, Fitted, Predictor, Settings};
use super::notes;
use super::observe::{Group, Observed, Point, Run};

/// C beyond the fitted range by this factor is worth a warning.
const WARN_EXTRAPOLATION: f64 = 1.5;

/// A report, and what it is to be asked by.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) report: FitReport,
    /// Of each group each method, in the report's order.
    pub(super) predictors: Vec<Vec<Predictor>>,
    /// Of each group what is warned of it as a whole.
    pub(super) findings: Vec<Vec<String>>,
}

/// Fits everything that the study asks for. Takes seconds of one core at the worst.
pub(super) fn make(observed: &Observed, inputs_hash: &ContentHash) -> Made {
    let settings = Settings::new(observed);
    let mut interval_notes: Vec<String> = Vec::new();
    let mut groups = Vec::with_capacity(observed.groups.len());
    let mut predictors = Vec::with_capacity(observed.groups.len());
    let mut is_drawn = false;
    let mut findings = Vec::new();
    for group in &observed.groups {
        let fits: Vec<Fitted> =
            observed.spec.methods.iter().map(|one| method::fit(*one, group, &settings)).collect();
        findings.push(notes::of_group(observed, group, &fits));
        is_drawn |= fits.iter().any(|fitted| fitted.is_drawn);
        for note in fits.iter().filter_map(|fitted| fitted.interval_note.as_ref()) {
            if !interval_notes.contains(note) {
                interval_notes.push(note.clone());
            }
        }
        let (view, own) = group_fit(group, fits);
        groups.push(view);
        predictors.push(own);
    }
    let mut notes = notes::of(observed, &settings, is_drawn);
    for (group, found) in observed.groups.iter().zip(&findings) {
        let is_grouped = observed.spec.group_by.is_some();
        let named = |text: &String| format!("{}: {text}", group.name);
        notes.extend(found.iter().map(|text| if is_grouped { named(text) } else { text.clone() }));
    }
    notes.extend(interval_notes);
    let comparisons = comparisons(observed, &predictors, &mut notes);
    let report = FitReport {
        id: FitId::from_hash(inputs_hash).to_string(),
        study: observed.study.clone(),
        is_provisional: observed.is_provisional(),
        inputs_hash: inputs_hash.to_string(),
        parameter_kind: parameter_kind(observed.spec.parameters).to_owned(),
        flop_kind: flop_kind(observed.spec.flops).to_owned(),
        loss: observed.loss.clone(),
        objective: settings.objective.label().to_owned(),
        weights: settings.weights.label().to_owned(),
        draws: settings.draws,
        seed: observed.spec.seed,
        confidence: CONFIDENCE,
        group_by: observed.spec.group_by.clone(),
        groups,
        comparisons,
        excluded: observed.excluded.clone(),
        missing: observed.missing.clone(),
        notes,
    };
    Made { report, predictors, findings }
}

/// Every two groups beside each other, unless they are too many.
fn comparisons(
    observed: &Observed,
    predictors: &[Vec<Predictor>],
    notes: &mut Vec<String>,
) -> Vec<ComparisonView> {
    let n_groups = observed.groups.len();
    if n_groups > compare::MOST_GROUPS {
        notes.push(format!(
            "{n_groups} groups are too many to hold each against each other: ask for two of them \
             (`GET /api/v1/fits/FIT/compare?group=…&with=…`)"
        ));
        return Vec::new();
    }
    let methods: Vec<&str> = observed.spec.methods.iter().map(|one| one.label()).collect();
    let groups = observed.groups.iter().zip(predictors);
    let groups: Vec<_> = groups.map(|(group, own)| (group.name.as_str(), own.as_slice())).collect();
    compare::compare(&methods, &groups, &Comparing::default())
}

fn parameter_kind(kind: ParameterKind) -> &'static str {
    match kind {
        ParameterKind::NonEmbedding => "non_embedding",
        ParameterKind::Total => "total",
    }
}

fn flop_kind(kind: FlopKind) -> &'static str {
    match kind {
        FlopKind::Exact => "exact",
        FlopKind::Published => "published",
    }
}

fn group_fit(group: &Group, fits: Vec<Fitted>) -> (GroupFit, Vec<Predictor>) {
    let mut held_out = Vec::new();
    let mut predictors = Vec::with_capacity(fits.len());
    let mut views = Vec::with_capacity(fits.len());
    for fitted in fits {
        let Fitted { mut view, predictor, .. } = fitted;
        let mut farthest: f64 = 0.0;
        for run in group.compared() {
            let point = run.last();
            let (predicted, extrapolation) =
                predictor.predict(run.parameters as f64, point.tokens, point.flops);
            farthest = farthest.max(extrapolation.unwrap_or(0.0));
            held_out.push(held_out_view(run, &view.method, predicted));
        }
        if farthest > WARN_EXTRAPOLATION {
            view.warnings.push(format!(
                "extrapolation: what is held out lies at {farthest:.1} times the largest fitted C"
            ));
        }
        views.push(view);
        predictors.push(predictor);
    }
    let observations = group.runs.iter().flat_map(|run| observations(group, run)).collect();
    let view = GroupFit { group: group.name.clone(), observations, fits: views, held_out };
    (view, predictors)
}

fn held_out_view(run: &Run, method: &str, predicted: EstimateView) -> HeldOutView {
    let point = run.last();
    let relative_error = match &predicted {
        EstimateView::Identified { value, .. } => Some((value - point.loss_nats) / point.loss_nats),
        EstimateView::NotIdentified { .. } => None,
    };
    HeldOutView {
        run_id: run.id.clone(),
        name: run.name.clone(),
        method: method.to_owned(),
        parameters: run.parameters as f64,
        tokens: point.tokens,
        flops: point.flops,
        measured_loss_nats: point.loss_nats,
        predicted_loss_nats: predicted,
        relative_error,
    }
}

fn observations(group: &Group, run: &Run) -> Vec<ObservationView> {
    let trunk = group.trunk_of(run);
    let observation = |point: &Point| ObservationView {
        run_id: run.id.clone(),
        name: run.name.clone(),
        step: point.step,
        parameters: run.parameters as f64,
        tokens: point.tokens,
        flops: point.flops,
        loss_nats: point.loss_nats,
        is_held_out: run.is_held_out,
        trunk: trunk.clone(),
    };
    run.points.iter().map(observation).collect()
}

/// Whether a method takes every checkpoint of a run, and not its end alone.
pub(super) fn uses_training_curves(method: FitMethod) -> bool {
    method != FitMethod::Isoflop
}
