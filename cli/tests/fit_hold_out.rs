//! Rows of a file that are predicted and not fitted, and what of their runs goes with them.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic")]

mod support;

use std::fmt::Write as _;

use support::{file, json};

/// Six runs of five checkpoints, each run longer than the next smaller one, or all as long as the
/// first.
fn curves(is_alike: bool) -> String {
    let mut text = String::from("run,n,d,loss\n");
    for run in 0..6_i32 {
        let (n, length) = (1e6 * 3_f64.powi(run), if is_alike { 0 } else { run });
        let luck = 1.0 + 0.004 * ((f64::from(run) * 0.618_033_988_749).fract() - 0.5);
        for step in 0..5_i32 {
            let d = 2e7 * 2_f64.powi(step + length);
            let loss = (1.7 + 400.0 / n.powf(0.34) + 900.0 / d.powf(0.31)) * luck;
            writeln!(text, "r{run},{n},{d},{loss}").unwrap();
        }
    }
    text
}

const CURVES: &str =
    "fit --csv points.csv --law chinchilla --n n --d d --loss loss --run run --draws 100";

// Aim: a run that is predicted at its end is not fitted at its start. Method: curves whose ends
// cost more and more; then curves that all end at one D, where nothing would be left.
#[test]
fn a_run_is_held_out_whole_or_its_luck_in_the_law_is_said() {
    let folder = file(&curves(false));
    for (rule, n_runs, n_predicted) in
        [("largest", 5, 1), ("c>7e18", 5, 2), ("d>=3e9", 4, 3), ("largest-size", 5, 5)]
    {
        let fit = json(&folder, &format!("{CURVES} --hold-out {rule} --json"));
        assert_eq!(fit["n_runs"].as_u64(), Some(n_runs), "{rule}");
        assert_eq!(fit["n_observations"].as_u64(), Some(5 * n_runs), "{rule}");
        assert_eq!(fit["held_out"].as_array().unwrap().len(), n_predicted, "{rule} {fit}");
        let excluded = fit["excluded"].as_array().unwrap();
        assert_eq!(excluded.len() as u64, 30 - 5 * n_runs, "{rule}");
        let of = |text: &str| {
            let reason = format!("{text} `{rule}`");
            excluded.iter().filter(|one| one["reason"] == reason.as_str()).count()
        };
        assert_eq!(of("held out by"), n_predicted, "{rule}");
        assert_eq!(of("of a run that is held out by"), excluded.len() - n_predicted, "{rule}");
        assert!(!fit["warnings"].to_string().contains("same-run"), "{rule}");
    }
    // What is smaller, or named otherwise, is held out by row.
    let fit = json(&folder, &format!("{CURVES} --hold-out d<3e7 --json"));
    assert_eq!(fit["n_observations"], 29);
    let said = |fit: &serde_json::Value, text: &str| fit["warnings"].to_string().contains(text);
    assert!(said(&fit, "same-run: 1 of 1 held-out rows are of runs that are fitted too"), "{fit}");
    let fit = json(&file(&curves(true)), &format!("{CURVES} --hold-out d>3e8 --json"));
    assert_eq!((&fit["n_observations"], &fit["n_runs"]), (&24.into(), &6.into()));
    assert!(said(&fit, "same-run: 6 of 6 held-out rows"), "{fit}");
}
