//! A run that cells of several groups have.

use coordinator::fits::fit_report;
use serde_json::json;

use super::{CHECKPOINTS, run, sizes, study};

/// Aim: it is fitted in each of its groups, once, and counted once. Method: the same six runs stand in
/// two groups, in one of them under two cells.
#[test]
fn a_run_of_several_groups_is_fitted_in_each() {
    let spec =
        json!({"methods": ["envelope"], "group_by": "architecture", "hold_out": "largest_size"});
    let mut inputs = study(&["llama"], 6, &spec);
    let again: Vec<_> = ["other", "other"]
        .iter()
        .flat_map(|group| inputs.runs.clone().into_iter().map(move |run| (group, run)))
        .map(|(group, mut run)| {
            run.axis_values.insert("architecture".to_owned(), (*group).to_owned());
            run.name = format!("{group}: {}", run.name);
            run
        })
        .collect();
    inputs.runs.extend(again);
    let mut open = run("llama", 7_000_000, 9);
    "queued".clone_into(&mut open.state);
    inputs.runs.extend([open.clone(), open]);
    let report = fit_report(&inputs).expect("it is fitted");
    let [one, other] = report.groups.as_slice() else { panic!("two groups") };
    assert_eq!((one.group.as_str(), other.group.as_str()), ("llama", "other"));
    assert_eq!(one.observations.len(), sizes(6).len() * CHECKPOINTS.len());
    assert_eq!(other.observations.len(), one.observations.len());
    assert_eq!(report.missing.len(), 1);
    assert!(report.notes.iter().any(|note| note.contains("1 of 7 runs are not over")));
    let held: Vec<usize> = report.groups.iter().map(|group| group.held_out.len()).collect();
    assert_eq!(held, [0, 1], "the largest planned size of the one group is not over");
}
