//! Studies as tables: the list, and one of them.

use api::{StateCounts, StudyList, StudySummary, StudyView};

use super::{View, format, pairs, run, sections, table, worker};

/// The states in the order of life.
const STATES: [&str; 8] =
    ["waiting", "queued", "leased", "backoff", "succeeded", "failed", "cancelled", "diverged"];

impl View for StudyList {
    fn table(&self) -> String {
        if self.studies.is_empty() {
            return "no studies yet".to_owned();
        }
        let row = |study: &StudySummary| {
            vec![
                study.name.clone(),
                study.state.clone(),
                format::percent(share(study)),
                counts(&study.runs),
                format::optional(study.eta_seconds, format::duration),
            ]
        };
        let rows = self.studies.iter().map(row).collect();
        table(&["STUDY", "STATE", ">DONE", "RUNS", ">ETA"], rows)
    }

    fn names(&self) -> Vec<String> {
        self.studies.iter().map(|study| study.name.clone()).collect()
    }
}

impl View for StudyView {
    fn table(&self) -> String {
        let summary = &self.summary;
        let facts = pairs(&[
            ("study", format!("{} ({})", summary.name, summary.id)),
            ("asks", summary.description.clone()),
            ("state", summary.state.clone()),
            ("cancelled because", self.cancel_reason.clone()),
            ("paused because", self.pause_reason.clone()),
            ("priority", priority(summary)),
            ("progress", progress(summary)),
            ("runs", counts(&summary.runs)),
            ("evaluations", counts(&summary.evaluations)),
            ("preparations", counts(&summary.preparations)),
            ("axes", self.axes.join(", ")),
            ("study file", self.spec_file.clone()),
            ("applied", format::time(summary.created_at_ms)),
        ]);
        let active = if self.active_runs.is_empty() {
            String::new()
        } else {
            run::table_of(&self.active_runs, false)
        };
        let workers = if self.workers.is_empty() {
            "no workers".to_owned()
        } else {
            worker::table_of(&self.workers)
        };
        let dropped: Vec<String> = self
            .dropped
            .iter()
            .map(|cell| format!("dropped `{}`: {}", cell.name, cell.reason))
            .collect();
        sections(&[facts, active, workers, dropped.join("\n")])
    }

    fn names(&self) -> Vec<String> {
        vec![self.summary.name.clone()]
    }
}

/// The trained share of a study's FLOPs; all of nothing is everything.
pub(crate) fn share(summary: &StudySummary) -> f64 {
    if summary.flops_total > 0.0 { summary.flops_done / summary.flops_total } else { 1.0 }
}

/// FLOPs, speed and estimate in a line.
pub(crate) fn progress(summary: &StudySummary) -> String {
    let mut parts = vec![format!(
        "{} of {} FLOPs ({})",
        format::flops(summary.flops_done),
        format::flops(summary.flops_total),
        format::percent(share(summary)),
    )];
    if let Some(speed) = summary.flops_per_second {
        parts.push(format!("{}FLOP/s", format::count(speed)));
    }
    if let Some(eta) = summary.eta_seconds {
        parts.push(format!("{} left", format::duration(eta)));
    }
    parts.join(", ")
}

/// The states that have something, such as `3 leased, 13 succeeded`.
pub(crate) fn counts(counts: &StateCounts) -> String {
    let shown: Vec<String> = STATES
        .iter()
        .filter_map(|state| counts.get(*state).map(|n| (n, state)))
        .filter(|(n, _)| **n > 0)
        .map(|(n, state)| format!("{n} {state}"))
        .collect();
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") }
}

/// Only one that somebody chose.
fn priority(summary: &StudySummary) -> String {
    if summary.priority == 0 { String::new() } else { summary.priority.to_string() }
}
