//! What a reader must know before quoting a number of a report.
//! How intervals were made is said by the methods; this is about the study.

use domain::spec::{FitMethod, HoldOut};
use scaling::approach::{self, Approach};

use super::method::{Fitted, Settings};
use super::observe::{Group, Observed, Point, Run};
use super::report::uses_training_curves;

/// Up to so many epochs repeated text is nearly as good as new (Muennighoff et al. 2023,
/// arXiv 2305.16264).
const MOST_EPOCHS: f64 = 4.0;

/// Below both of these a study shows the method and supports no decision: published laws start at
/// some tens of millions of parameters and 1e17 FLOPs.
const SMALL_PARAMETERS: u64 = 10_000_000;
const SMALL_FLOPS: f64 = 1e17;

/// The notes, the most important first; `is_drawn` where an interval is made of draws.
pub(super) fn of(observed: &Observed, settings: &Settings, is_drawn: bool) -> Vec<String> {
    let mut notes = Vec::new();
    notes.extend(provisional(observed, settings, is_drawn));
    notes.extend(small(observed));
    notes.extend(held_out(observed));
    notes.extend(training_curves(observed));
    notes
}

/// What is to be warned of a group as a whole: approaches that disagree, runs that are not alike, and
/// measurements that are no ends of runs.
pub(super) fn of_group(observed: &Observed, group: &Group, fits: &[Fitted]) -> Vec<String> {
    let approaches: Vec<Approach> = fits.iter().filter_map(|one| one.approach.clone()).collect();
    let found = approach::findings(&approaches);
    let mut texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    texts.extend(group.mixed.iter().cloned());
    texts.extend(repeated(group));
    if observed.spec.methods.iter().copied().any(uses_training_curves) {
        texts.extend(unlike_checkpoints(group));
        texts.extend(warm_up(group));
    }
    texts
}

fn repeated(group: &Group) -> Option<String> {
    let epochs: Vec<f64> = group.fitted().filter_map(Run::epochs).collect();
    let n = epochs.iter().filter(|epochs| **epochs > MOST_EPOCHS).count();
    let most = epochs.iter().copied().fold(0.0, f64::max);
    let least = epochs.iter().copied().fold(f64::INFINITY, f64::min);
    (n > 0).then(|| {
        format!(
            "repeated-data: {n} of {} fitted runs read their training text more than {MOST_EPOCHS} \
             times (from {least:.1} to {most:.1} times), and D counts it each time; read again it \
             teaches less than new text does, so that exponents are off where some sizes read it more \
             often than others: prepare more text",
            epochs.len()
        )
    })
}

fn unlike_checkpoints(group: &Group) -> Option<String> {
    let (n, n_fitted) = count(group, Run::is_on_the_way);
    (n > 0).then(|| {
        format!(
            "unlike-checkpoints: {n} of {n_fitted} fitted points were measured before the end of a \
             learning rate that decays, where the loss is above that of a run that ends there; \
             envelopes and laws take them for ends, and their exponents are off: measure ends only \
             (`checkpoints: final`) or train at a constant rate"
        )
    })
}

fn warm_up(group: &Group) -> Option<String> {
    let (n, n_fitted) = count(group, Run::is_in_warm_up);
    (n > 0).then(|| {
        format!(
            "in-warm-up: {n} of {n_fitted} fitted points were measured during the warm-up, where the \
             loss says little; set `checkpoints.log_spaced.first_step`"
        )
    })
}

/// How many of the fitted points are such, and how many there are.
fn count(group: &Group, is_such: fn(&Run, &Point) -> bool) -> (usize, usize) {
    let n_such = |run: &Run| run.points.iter().filter(|point| is_such(run, point)).count();
    let n = group.fitted().map(n_such).sum();
    (n, group.fitted().map(|run| run.points.len()).sum())
}

fn provisional(observed: &Observed, settings: &Settings, is_drawn: bool) -> Option<String> {
    if !observed.is_provisional() {
        return None;
    }
    let n_used = observed.runs().filter(|run| !run.is_over).count();
    let mut parts = vec![match observed.missing.len() {
        0 => "provisional: some evaluations are not over".to_owned(),
        n => format!("provisional: {n} of {} runs are not over", observed.n_runs),
    }];
    if n_used > 0 {
        let what = "fits of training curves use the measured checkpoints of";
        parts.push(format!("{what} {n_used} of them"));
    }
    if is_drawn && settings.draws < observed.spec.draws {
        let (draws, all) = (settings.draws, observed.spec.draws);
        parts.push(format!("until then a bootstrap makes {draws} draws instead of {all}"));
    }
    Some(parts.join("; "))
}

fn small(observed: &Observed) -> Option<String> {
    let parameters = observed.runs().map(|run| run.parameters_non_embedding).max()?;
    let flops = observed.runs().map(|run| run.last().flops).fold(0.0, f64::max);
    let is_small = parameters < SMALL_PARAMETERS && flops < SMALL_FLOPS;
    is_small.then(|| {
        format!(
            "the largest model has {parameters} parameters without embeddings and no run took more \
             than {flops:.1e} FLOPs: a study this small is a demonstration of the method, not \
             evidence for a decision at scale"
        )
    })
}

fn held_out(observed: &Observed) -> Vec<String> {
    if observed.spec.hold_out == HoldOut::None {
        return Vec::new();
    }
    let mut notes = Vec::new();
    let is_predicted = observed.groups.iter().any(|group| group.compared().next().is_some());
    if is_predicted && observed.spec.methods.contains(&FitMethod::Envelope) {
        notes.push(
            "the envelope predicts the best loss that its C can buy; a held-out model that is \
             larger or smaller than the best size at its C has more loss than that"
                .to_owned(),
        );
    }
    let without = observed.groups.iter().filter(|group| group.held_out().next().is_none());
    notes.extend(without.map(|group| {
        format!("{}: what is held out has no measured loss, so nothing is predicted", group.name)
    }));
    notes.extend(observed.groups.iter().filter_map(shared_trunks));
    let ends = observed.groups.iter().flat_map(Group::held_out);
    notes.extend(ends.filter(|run| !run.is_measured_to_the_end()).map(|run| {
        let name = &run.name;
        format!("`{name}` is held out and has no measured loss at its last step: none is compared")
    }));
    notes
}

/// A held-out run that goes on from where fitted ones branched off has their luck.
fn shared_trunks(group: &Group) -> Option<String> {
    let n_compared = group.compared().count();
    let n_shared = group.compared().filter(|run| group.shares_trunk(run)).count();
    (n_shared > 0).then(|| {
        format!(
            "{}: {n_shared} of {n_compared} held-out runs share a trunk with fitted ones, whose luck \
             is in the law: their errors are smaller than those of runs of another seed would be",
            group.name
        )
    })
}

fn training_curves(observed: &Observed) -> Option<String> {
    let is_used = observed.spec.methods.iter().copied().any(uses_training_curves);
    let has_curves = observed.runs().any(|run: &Run| run.points.len() > 1);
    let is_constant = observed.runs().all(|run| run.points.iter().all(|p| !run.is_on_the_way(p)));
    (is_used && has_curves && is_constant).then(|| {
        "every measured checkpoint is a data point, which is right where the learning rate is \
         constant after its warm-up"
            .to_owned()
    })
}
