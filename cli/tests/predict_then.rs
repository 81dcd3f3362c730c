//! `gradus predict --then`: the accuracy of a task from a fit of its loss and one of the accuracy at
//! that loss.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic")]

mod support;

use std::fmt::Write as _;

use serde_json::Value;
use support::{file, gradus, json, shown};
use tempfile::TempDir;

fn loss(n: f64, d: f64) -> f64 {
    0.5 + 30.0 / n.powf(0.3) + 40.0 / d.powf(0.28)
}

fn accuracy(task_loss: f64) -> f64 {
    0.95 - 0.7 / (1.0 + (-6.0 * (task_loss - 0.8)).exp())
}

/// Six sizes at six token counts in two groups, without luck; the second is a little worse.
fn study() -> String {
    let mut text = "run,arch,n,d,task_loss,other_loss,accuracy\n".to_owned();
    for (group, worse) in [("plain", 1.0), ("mixer", 1.02)] {
        for i in 0..36 {
            let n = 1e6 * 3_f64.powi(i % 6);
            let d = 1e8 * 3_f64.powi(i / 6);
            let l = worse * loss(n, d);
            writeln!(text, "{group}{i},{group},{n},{d},{l},{l},{}", accuracy(l)).unwrap();
        }
    }
    text
}

fn fitted(groups: &str) -> TempDir {
    let folder = file(&study());
    let fits = [
        format!("--law chinchilla --n n --d d --loss task_loss {groups} --out loss.json"),
        format!("--law sigmoid --loss task_loss --accuracy accuracy {groups} --out accuracy.json"),
        "--law sigmoid --loss other_loss --accuracy accuracy --out other.json".to_owned(),
    ];
    for fit in fits {
        let output = gradus(&folder, &format!("fit --csv points.csv --draws 120 {fit}"));
        assert!(output.status.success(), "{}", shown(&output));
    }
    folder
}

fn near(found: &Value, expected: f64) {
    let found = found.as_f64().unwrap_or(f64::NAN);
    assert!((found / expected - 1.0).abs() < 1e-5, "{found} for {expected}");
}

#[test]
fn the_planted_accuracy_is_predicted_at_a_place_and_at_a_budget() {
    let folder = fitted("--group-by arch");
    let list = json(&folder, "predict loss.json --n 3e9 --d 1e12 --then accuracy.json --json");
    for (view, worse) in list["predictions"].as_array().unwrap().iter().zip([1.02, 1.0]) {
        let task_loss = worse * loss(3e9, 1e12);
        near(&view["curve"]["value"], task_loss);
        near(&view["accuracy"]["curve"]["value"], accuracy(task_loss));
        assert_eq!(view["accuracy"]["fit"], "accuracy.json");
        let outside = view["warnings"].as_array().unwrap().iter();
        let of_loss = |text: &&Value| text.as_str().unwrap().contains(": task loss = ");
        assert_eq!(outside.filter(of_loss).count(), 1, "{view}");
        let last = view["extrapolation"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (last["variable"].as_str(), last["is_inside"].as_bool()),
            (Some("task loss"), Some(false))
        );
    }
    let best =
        json(&folder, "predict loss.json --c 1e19 --group plain --then accuracy.json --json");
    let view = &best["predictions"][0];
    near(&view["accuracy"]["curve"]["value"], accuracy(view["curve"]["value"].as_f64().unwrap()));
    let table = gradus(&folder, "predict loss.json --c 1e19 --group plain --then accuracy.json");
    let table = shown(&table);
    assert!(table.contains("accuracy, measured once"), "{table}");
    assert!(table.contains("accuracy from `accuracy.json`, fitted to `points.csv`"), "{table}");
}

#[test]
fn fits_that_do_not_go_together_are_refused_or_warned_of() {
    let folder = fitted("");
    let refused = |arguments: &str, words: &[&str]| {
        let output = gradus(&folder, &format!("predict {arguments} --n 1e9 --d 1e11"));
        let text = shown(&output);
        assert!(!output.status.success(), "{arguments}: {text}");
        for word in words {
            assert!(text.contains(word), "{arguments}: {text}");
        }
    };
    refused("loss.json --then loss.json", &["`--then loss.json`", "`chinchilla`", "`sigmoid`"]);
    refused("accuracy.json --then accuracy.json", &["put the fit of the task loss first"]);
    refused("loss.json --then missing.json", &["could not read `missing.json`"]);
    refused("f_0123456789abcdef --then accuracy.json", &["--then", "--out FILE"]);
    let list = json(&folder, "predict loss.json --n 1e9 --d 1e11 --then other.json --json");
    let warnings = list["predictions"][0]["warnings"].to_string();
    assert!(warnings.contains("task-loss: ") && warnings.contains("`other_loss`"), "{warnings}");
    // A fit of all rows serves a group too, and one of groups no fit of all rows.
    let grouped = "--law sigmoid --loss task_loss --accuracy accuracy --group-by arch";
    let output =
        gradus(&folder, &format!("fit --csv points.csv --draws 120 {grouped} --out groups.json"));
    assert!(output.status.success(), "{}", shown(&output));
    refused("loss.json --then groups.json", &["`mixer`, `plain`", "none of a fit of all rows"]);
}
