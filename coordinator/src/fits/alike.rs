//! Axes in which the runs of one fit differ though a law takes them as alike: a schedule, a rate, a
//! text length.
//! It knows axes by their values alone; the warning itself is `scaling::diagnose`'s.

use std::collections::{BTreeMap, BTreeSet};

use domain::spec::FitSpec;
use scaling::diagnose::mixed;

use crate::store::read::FitRun;

/// The axis in which runs of one law are always meant to be alike: architectures have other N, so
/// that no two share a place.
const ARCHITECTURE: &str = "architecture";

/// A warning for each axis that is no axis of the design: two runs have the same N and D, and the
/// same values of all other axes, and differ in it. Seeds are meant to differ, and groups are fits
/// of their own; architectures are never a design of one law.
pub(super) fn mixed_axes(runs: &[&FitRun], spec: &FitSpec) -> Vec<String> {
    let axes: BTreeSet<&String> = runs.iter().flat_map(|run| run.axis_values.keys()).collect();
    let is_meant = |axis: &String| {
        spec.group_by.as_ref() == Some(axis) || axis.to_lowercase().contains("seed")
    };
    let is_wrong = |axis: &String| axis == ARCHITECTURE || differs_at_a_place(runs, axis);
    let found = axes.into_iter().filter(|axis| !is_meant(axis) && is_wrong(axis));
    let warnings = found.filter_map(|axis| {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for value in runs.iter().filter_map(|run| run.axis_values.get(axis)) {
            *counts.entry(value.clone()).or_default() += 1;
        }
        mixed(&format!("axis `{axis}`"), "runs", &counts)
    });
    warnings.map(|finding| finding.to_string()).collect()
}

/// N, D and the values of all other axes.
type Place<'a> = (u64, u64, Vec<(&'a String, &'a String)>);

fn differs_at_a_place(runs: &[&FitRun], axis: &str) -> bool {
    let mut values: BTreeMap<Place<'_>, &String> = BTreeMap::new();
    runs.iter().any(|run| {
        let Some(value) = run.axis_values.get(axis) else { return false };
        let others = run.axis_values.iter().filter(|(name, _)| *name != axis).collect();
        let tokens = run.batch_tokens.saturating_mul(run.steps);
        let known = values.entry((run.parameters_total, tokens, others)).or_insert(value);
        *known != value
    })
}
