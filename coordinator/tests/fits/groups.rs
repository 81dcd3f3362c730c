//! A run that cells of several groups have.

use api::EstimateView;
use coordinator::fits::{Comparing, fit_model, fit_report};
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

/// Aim: architectures are held against each other with what a planted advantage is. Method: one has
/// 1.03 times the loss of the other, a third has too few sizes for a law.
#[test]
fn two_groups_stand_beside_each_other() {
    let spec = json!({
        "methods": ["chinchilla", "envelope"], "group_by": "architecture", "draws": 200,
        "hold_out": "none",
    });
    let mut inputs = study(&["llama", "tnl"], 6, &spec);
    inputs.runs.push(run("other", 40_000, 0));
    let worse: Vec<_> = inputs.runs.iter().filter(|run| run.name.starts_with("tnl")).collect();
    let worse: Vec<_> = worse.into_iter().map(|run| run.run_id.clone()).collect();
    for one in inputs.evaluations.iter_mut().filter(|one| worse.contains(&one.run_id)) {
        one.value *= 1.03;
    }
    let model = fit_model(&inputs).expect("it is fitted");
    let [pair] = model.report().comparisons.as_slice() else { panic!("one pair, by one law") };
    assert_eq!(
        (pair.method.as_str(), &pair.names),
        ("chinchilla", &["llama", "tnl"].map(String::from))
    );
    assert!(pair.is_at_best_sizes && pair.warnings.is_empty(), "{:?}", pair.warnings);
    let [at] = pair.budgets.as_slice() else { panic!("the largest budget of both") };
    let largest = inputs.runs.iter().map(|run| run.flops_exact).fold(0.0, f64::max);
    assert!((at.flops / largest - 1.0).abs() < 1e-9 && at.is_inside_both);
    let EstimateView::Identified { low, high, .. } = at.loss_ratio else { panic!("{at:?}") };
    assert!(low < 1.0 / 1.03 && 1.0 / 1.03 < high && high < 1.0, "{low} {high}");
    let EstimateView::Identified { low, .. } = at.flops_ratio else { panic!("{at:?}") };
    assert!(low > 1.0, "the second needs more: {low}");
    assert_eq!(at.first_is_better, None, "six runs are left out in turn and not drawn");

    // Elsewhere, and only what is asked for.
    let far = Comparing {
        group: Some("tnl".to_owned()),
        budgets: vec![100.0 * largest],
        ..Comparing::default()
    };
    let found = model.compare(&far);
    assert_eq!((found.fit.as_str(), found.comparisons.len()), (model.report().id.as_str(), 1));
    assert!(!found.comparisons[0].budgets[0].is_inside_both);
    let warnings = found.comparisons[0].warnings.join("\n");
    assert!(warnings.contains("far-extrapolation") && warnings.contains("of `tnl`"), "{warnings}");
    let envelope = Comparing { method: Some("envelope".to_owned()), ..Comparing::default() };
    assert_eq!(model.compare(&envelope).comparisons, []);
}

/// Of many groups a report holds none against each other, says so, and answers for two of them.
#[test]
fn many_groups_are_compared_two_at_a_time() {
    let names: Vec<String> = (0..9).map(|index| format!("g{index}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let spec = json!({
        "methods": ["chinchilla"], "group_by": "architecture", "draws": 100, "hold_out": "none",
    });
    let model = fit_model(&study(&names, 4, &spec)).expect("it is fitted");
    assert_eq!(model.report().comparisons, []);
    let notes = &model.report().notes;
    assert!(notes.iter().any(|note| note.contains("9 groups are too many")), "{notes:?}");
    let two = Comparing {
        group: Some("g3".to_owned()),
        with: Some("g7".to_owned()),
        ..Comparing::default()
    };
    let found = model.compare(&two).comparisons;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].names, ["g3", "g7"].map(String::from));
}
