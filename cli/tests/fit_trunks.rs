//! Runs that share a trunk: drawn together, named in what is said, kept with the fit and made again.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic")]

mod support;

use std::fmt::Write as _;

use support::{file, gradus, json, shown};

/// Eight sizes with `n_trunks` trunks of four lengths each; a trunk's luck is that of its four runs.
fn trunks(n_trunks: i32) -> String {
    let mut text = String::from("run,trunk,n,d,loss\n");
    for trunk in 0..8 * n_trunks {
        let place = f64::from(trunk + 1);
        let luck = 0.01 * ((place * 0.618_033_988_749).fract() - 0.5);
        for length in 0..4_i32 {
            let (n, d) = (1e6 * 3_f64.powi(trunk / n_trunks), 3e7 * 5_f64.powi(length));
            let loss = 1.7 + 400.0 / n.powf(0.34) + 900.0 / d.powf(0.31);
            writeln!(text, "r{trunk}-{length},t{trunk},{n},{d},{}", loss * luck.exp()).unwrap();
        }
    }
    text
}

const FIT: &str =
    "fit --csv points.csv --law chinchilla --n n --d d --loss loss --run run --draws 200";

#[test]
fn trunks_are_drawn_and_intervals_are_wider_than_by_run() {
    let folder = file(&trunks(2));
    let by_run = json(&folder, &format!("{FIT} --json"));
    let by_trunk = json(&folder, &format!("{FIT} --trunk trunk --json"));
    assert_eq!((&by_run["n_runs"], by_run.get("n_trunks")), (&64.into(), None));
    assert_eq!((&by_trunk["n_runs"], &by_trunk["n_trunks"]), (&64.into(), &16.into()));
    assert_eq!(
        by_trunk["intervals"],
        "bootstrap by trunk (16 trunks of 64 runs), 200 draws, seed 0"
    );
    let width = |fit: &serde_json::Value| {
        let alpha = &fit["coefficients"]["alpha"];
        alpha["high"].as_f64().unwrap() - alpha["low"].as_f64().unwrap()
    };
    assert!(width(&by_trunk) > 1.4 * width(&by_run), "{} {}", width(&by_trunk), width(&by_run));
    let floor = |fit: &serde_json::Value| {
        let profile = &fit["floor_profile"];
        profile["high"].as_f64().unwrap() - profile["low"].as_f64().unwrap()
    };
    assert!(floor(&by_trunk) > 1.4 * floor(&by_run), "{} {}", floor(&by_trunk), floor(&by_run));
    let text = shown(&gradus(&folder, &format!("{FIT} --trunk trunk")));
    assert!(text.contains("64 points of 64 runs, 16 trunks, in `points.csv`"), "{text}");
    // A run of its own in every row's trunk changes nothing.
    let mut alone = json(&folder, &format!("{FIT} --trunk run --json"));
    assert_eq!(alone["warnings"], by_run["warnings"]);
    alone["warnings"] = by_run["warnings"].clone();
    assert_eq!(alone, by_run);
}

#[test]
fn few_trunks_are_left_out_in_turn_and_said_to_be_few() {
    let fit = json(&file(&trunks(1)), &format!("{FIT} --trunk trunk --json"));
    let intervals = fit["intervals"].as_str().unwrap();
    assert!(intervals.starts_with("leave-one-trunk-out jackknife (8 trunks of 32 runs)"), "{fit}");
    let warnings = fit["warnings"].to_string();
    assert!(warnings.contains("shared-trunks: 32 runs have 8 trunks"), "{warnings}");
}

#[test]
fn a_fit_by_trunk_is_made_again_and_predicts_with_its_own_intervals() {
    for (n_trunks, hold_out) in [(2, ""), (1, ""), (2, "--hold-out d>3e9")] {
        let folder = file(&trunks(n_trunks));
        let asked = format!("{FIT} --trunk trunk {hold_out} --out fit.json --json");
        let fit = json(&folder, &asked);
        let again = gradus(&folder, "fit --again fit.json --threads 2");
        assert!(again.status.success(), "{asked}: {}", shown(&again));
        let warnings = fit["warnings"].to_string();
        let is_said = warnings.contains("shared-trunks: 16 of 16 held-out rows share a trunk");
        assert_eq!(is_said, !hold_out.is_empty(), "{warnings}");
        if let Some(held_out) = fit["held_out"].get(0) {
            let line = usize::try_from(held_out["line"].as_u64().unwrap()).unwrap();
            let text = trunks(n_trunks);
            let cells: Vec<&str> = text.lines().nth(line - 1).unwrap().split(',').collect();
            let (n, d) = (cells[2], cells[3]);
            let said = json(&folder, &format!("predict fit.json --n {n} --d {d} --json"));
            assert_eq!(said["predictions"][0]["measured"], held_out["predicted"]);
        }
    }
    // What was touched is refused.
    let folder = file(&trunks(2));
    json(&folder, &format!("{FIT} --trunk trunk --out fit.json --json"));
    let path = folder.path().join("fit.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"n_trunks\":16"), "{text}");
    std::fs::write(&path, text.replace("\"n_trunks\":16", "\"n_trunks\":64")).unwrap();
    let output = gradus(&folder, "predict fit.json --c 1e18");
    let text = shown(&output);
    assert!(!output.status.success() && text.contains("scheme.n_trunks"), "{text}");
}

#[test]
fn profiles_whose_budgets_share_trunks_say_so() {
    // Nine sizes, one trunk each, measured where they meet five budgets.
    let mut text = String::from("run,trunk,n,d,loss\n");
    for size in 0..9_i32 {
        for budget in 0..5_i32 {
            let (n, c) = (1e7 * 2_f64.powi(size), 1e17 * 4_f64.powi(budget));
            let d = c / 6.0 / n;
            let loss = 1.7 + 400.0 / n.powf(0.34) + 900.0 / d.powf(0.31);
            writeln!(text, "r{size}-{budget},t{size},{n},{d},{loss}").unwrap();
        }
    }
    let folder = file(&text);
    let warned = |columns: &str| {
        let fit = json(&folder, &format!("{FIT} {columns} --json"));
        fit["warnings"].to_string().contains("runs have 9 trunks that lie at several budgets")
    };
    assert!(warned("--trunk trunk") && !warned(""));
}
