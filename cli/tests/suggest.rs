//! `gradus suggest`: the study that it writes is one, and costs what was allowed; the cells that it
//! proposes lower the variance.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic")]

mod support;

use std::fmt::Write as _;

use domain::ids::ContentHash;
use planner::{CorpusHashes, plan_view};
use support::{file, gradus, json, planted, shown};
use tempfile::TempDir;

/// A saved fit of noisy losses on a design of 6 × 6 up to 3.6e16 FLOPs.
fn saved() -> TempDir {
    let mut text = String::from("n,d,loss\n");
    for size in 0..6_i32 {
        for count in 0..6_i32 {
            let (n, d) = (2e5 * 3_f64.powi(size), 4e6 * 3_f64.powi(count));
            let luck = (f64::from(size * 6 + count) * 0.618_033_988_749).fract() - 0.5;
            let loss = (1.7 + 400.0 / n.powf(0.34) + 900.0 / d.powf(0.31)) * (1.0 + 0.01 * luck);
            writeln!(text, "{n},{d},{loss}").unwrap();
        }
    }
    let folder = file(&text);
    let output = gradus(
        &folder,
        "fit --csv points.csv --law chinchilla --n n --d d --loss loss --draws 300 --out fit.json",
    );
    assert!(output.status.success(), "{}", shown(&output));
    folder
}

#[test]
fn the_suggested_study_is_valid_and_costs_what_was_allowed() {
    let folder = saved();
    for (budget, preset) in [(3e17, "llama_study"), (1e19, "tnl"), (2e21, "hgrn2")] {
        let name = format!("next-{preset}.yaml");
        let command = format!(
            "suggest fit.json --budget {budget} --preset {preset} --out {name} --name up-{preset} --json"
        );
        let view = json(&folder, &command);
        let text = std::fs::read_to_string(folder.path().join(&name)).unwrap();
        let parsed =
            domain::spec::parse(&text, &name).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(parsed.spec.name, format!("up-{preset}"));
        let hashes = vec![ContentHash::of(b"text")];
        let corpus = parsed.spec.data.corpora[0].name.clone();
        let sources = [CorpusHashes { corpus, file_hashes: hashes }];
        let plan = plan_view(&planner::plan(&parsed, &sources).unwrap());
        assert!(plan.flops_exact_total <= budget, "{preset}: {:e}", plan.flops_exact_total);
        assert!(plan.flops_exact_total > 0.7 * budget, "{preset}: {:e}", plan.flops_exact_total);
        assert_eq!(view["flops_exact_total"], plan.flops_exact_total);
        assert_eq!(view["budgets"].as_array().unwrap().len(), 4);
        // Each budget has the sizes of a parabola, on both sides of the best.
        for flops in view["budgets"].as_array().unwrap() {
            let of_budget = plan.cells.iter().filter(|cell| cell.budget_flops == flops.as_f64());
            let n = of_budget.count();
            assert!(n >= 4, "{preset}: {n} cells at {flops}\n{text}");
        }
    }
}

#[test]
fn a_suggestion_that_makes_no_sense_is_refused_or_named() {
    let folder = saved();
    let check = |arguments: &str, expected: &[&str]| {
        let output = gradus(&folder, arguments);
        let all = shown(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments}\n{all}");
        for part in expected {
            assert!(all.contains(part), "no {part:?} in\n{all}");
        }
    };
    check("suggest fit.json --budget -1", &["`--budget` must be finite and above zero", "-1"]);
    check("suggest fit.json --budget 1e9", &["no study of 1e9 FLOPs", "`--budget`"]);
    check("suggest fit.json --budget 1e18 --preset gpt", &["`--preset gpt`", "`llama`"]);
    check("suggest fit.json --budget 1e18 --refine", &["`--quantity`", "`alpha`", "`n@C`"]);
    check("suggest fit.json --budget 1e18 --refine --quantity gamma", &["`gamma`", "`alpha`"]);
    check("suggest fit.json --budget 1e18 --refine --quantity n@x", &["`n@x`", "`loss@C`"]);
    check(
        "suggest fit.json --budget 1 --refine --quantity alpha",
        &["no candidate costs at most 1e0", "candidates lie at N", "C at most"],
    );
    std::fs::write(folder.path().join("there.yaml"), "").unwrap();
    check("suggest fit.json --budget 1e18 --out there.yaml", &["is there already"]);
    // Smaller than what was fitted is allowed, and said.
    let small = json(&folder, "suggest fit.json --budget 1e17 --json");
    assert!(small["warnings"].to_string().contains("not-larger"), "{small}");
    let text = small["text"].as_str().unwrap();
    assert!(text.contains("description: 'Sizes around the best that a fit predicts"), "{text}");
}

// Budgets of a study are exact FLOPs: a fit of others, or of nobody knows which, has other best sizes.
#[test]
fn a_count_of_flops_that_is_not_exact_or_not_stated_is_named() {
    let mut text = String::from("n,d,c,loss\n");
    for (size, count) in (0..36_i32).map(|at| (at / 6, at % 6)) {
        let (n, d) = (2e5 * 3_f64.powi(size), 4e6 * 3_f64.powi(count));
        let luck = (f64::from(size * 6 + count) * 0.618_033_988_749).fract() - 0.5;
        let loss = (1.7 + 400.0 / n.powf(0.34) + 900.0 / d.powf(0.31)) * (1.0 + 0.01 * luck);
        writeln!(text, "{n},{d},{},{loss}", 6.0 * n * d).unwrap();
    }
    let said = |counts: &str| {
        let folder = file(&text);
        let fit = format!(
            "fit --csv points.csv --law chinchilla --n n --d d --c c --loss loss --draws 200 \
             --out fit.json {counts}"
        );
        assert!(gradus(&folder, &fit).status.success());
        json(&folder, "suggest fit.json --budget 1e19 --json")["warnings"].to_string()
    };
    assert!(
        said("").contains("flop-count: what C of the fit counts is not stated"),
        "{}",
        said("")
    );
    assert!(said("--c-counts published").contains("flop-count: the fit counts C as `published`"));
    assert!(!said("--c-counts exact").contains("flop-count"));
}

#[test]
fn proposed_cells_lower_the_standard_deviation_step_by_step_within_the_budget() {
    let folder = saved();
    for quantity in ["alpha", "E", "n_exponent", "loss@1e19", "n@1e19", "d@1e19"] {
        for per in ["flop", "run"] {
            let command = format!(
                "suggest fit.json --budget 1e17 --refine --quantity {quantity} --per {per} --cells 4 --json"
            );
            let view = json(&folder, &command);
            let cells = view["cells"].as_array().unwrap();
            assert!(!cells.is_empty(), "{view}");
            let number = |cell: &serde_json::Value, key: &str| cell[key].as_f64().unwrap();
            let total: f64 = cells.iter().map(|cell| number(cell, "flops")).sum();
            assert!(total <= 1e17, "{view}");
            for cell in cells {
                assert!(number(cell, "sd_after") < number(cell, "sd_before"), "{view}");
                let product = 6.0 * number(cell, "n") * number(cell, "d");
                assert!((number(cell, "flops") / product - 1.0).abs() < 1e-9);
            }
            for pair in cells.windows(2) {
                assert_eq!(pair[0]["sd_after"], pair[1]["sd_before"]);
            }
        }
    }
    // What costs nothing extra gains at least as much: per run more is gained than per FLOP.
    let last = |per: &str| {
        let command = format!(
            "suggest fit.json --budget 1e17 --refine --quantity loss@1e19 --per {per} --cells 1 --json"
        );
        json(&folder, &command)["cells"][0]["sd_after"].as_f64().unwrap()
    };
    assert!(last("run") <= last("flop"));
    let text =
        shown(&gradus(&folder, "suggest fit.json --budget 1e17 --refine --quantity loss@1e19"));
    assert!(
        text.contains("relative standard deviation") && text.contains("outside-data"),
        "{text}"
    );
}

/// Aim: however large the budget, no cell lies where the law is not known. Method: a budget that
/// pays for anything.
#[test]
fn no_proposed_cell_lies_farther_out_than_the_stated_limits() {
    let folder = saved();
    for quantity in ["E", "alpha", "loss@1e19"] {
        let command = format!(
            "suggest fit.json --budget 1e30 --refine --quantity {quantity} --per run --cells 6 --json"
        );
        let view = json(&folder, &command);
        let limits = &view["limits"];
        let end = |key: &str, at: usize| limits[key][at].as_f64().unwrap();
        let fit = std::fs::read_to_string(folder.path().join("fit.json")).unwrap();
        let fit: serde_json::Value = serde_json::from_str(&fit).unwrap();
        let ranges = &fit["fits"][0]["ranges"];
        for key in ["n", "d"] {
            for (at, factor) in [(0, 0.25), (1, 4.0)] {
                let fitted = ranges[key][at].as_f64().unwrap();
                assert!((end(key, at) / (factor * fitted) - 1.0).abs() < 1e-12, "{view}");
            }
        }
        let most = limits["flops"].as_f64().unwrap();
        assert!((most / (10.0 * ranges["c"][1].as_f64().unwrap()) - 1.0).abs() < 1e-12, "{view}");
        for cell in view["cells"].as_array().unwrap() {
            for key in ["n", "d"] {
                let value = cell[key].as_f64().unwrap();
                let is_inside =
                    end(key, 0) * 0.999_999 <= value && value <= end(key, 1) * 1.000_001;
                assert!(is_inside, "{key} {view}");
            }
            assert!(cell["flops"].as_f64().unwrap() <= most, "{view}");
        }
    }
    let command = "suggest fit.json --budget 1e30 --refine --quantity E --per run";
    let text = shown(&gradus(&folder, command));
    assert!(text.contains("at-limit") && text.contains("C at most"), "{text}");
}

// Sizes at one ratio of D to N: alpha and a of N_opt are what would be refined, and have no value
// yet.
#[test]
fn a_quantity_that_is_not_identified_has_no_value_and_the_fit_is_quoted_with_its_warnings() {
    let mut text = String::from("n,d,c,loss\n");
    for size in 0..24_i32 {
        let n = 1e6 * 1.5_f64.powi(size);
        let luck = (f64::from(size) * 0.618_033_988_749).fract() - 0.5;
        let d = 20.0 * n;
        let loss = (1.7 + 400.0 / n.powf(0.34) + 900.0 / d.powf(0.31)) * (1.0 + 0.002 * luck);
        writeln!(text, "{n},{d},{},{loss}", (6.0 + 3e5 / n) * n * d).unwrap();
    }
    let folder = file(&text);
    let fit = "fit --csv points.csv --law chinchilla --n n --d d --c c --loss loss --draws 200 \
               --out fit.json";
    assert!(gradus(&folder, fit).status.success());
    for quantity in ["alpha", "n_exponent"] {
        let command = format!("suggest fit.json --budget 1e20 --refine --quantity {quantity}");
        let view = json(&folder, &format!("{command} --json"));
        assert_eq!(view["value"], serde_json::Value::Null, "{view}");
        assert_eq!(view["estimate"]["status"], "not_identified", "{view}");
        assert!(!view["cells"].as_array().unwrap().is_empty());
        let warnings = view["warnings"].to_string();
        assert!(warnings.contains("of the fit: fixed-ratio: "), "{warnings}");
        assert_eq!(warnings.matches("flops-per-parameter: C / (N D)").count(), 1, "{warnings}");
        let text = shown(&gradus(&folder, &command));
        assert!(text.contains(&format!("`{quantity}` is not identified: ")), "{text}");
        assert!(!text.contains(&format!("`{quantity}` = ")), "{text}");
    }
}

// A warning of the saved fit is one of what rests on it, whether the study is printed or written.
#[test]
fn a_suggested_study_repeats_the_warnings_of_its_fit() {
    let folder = saved();
    let path = folder.path().join("fit.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut fit: serde_json::Value = serde_json::from_str(&text).unwrap();
    fit["fits"][0]["warnings"] = serde_json::json!(["floor: it may be lower"]);
    std::fs::write(&path, fit.to_string()).unwrap();
    let warnings = &json(&folder, "suggest fit.json --budget 1e19 --json")["warnings"];
    assert!(warnings.to_string().contains("of the fit: floor: it may be lower"), "{warnings}");
    let output = gradus(&folder, "suggest fit.json --budget 1e19");
    let all = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(all.contains("warning: of the fit: floor: it may be lower"), "{all}");
}

#[test]
fn losses_without_noise_have_nothing_to_be_averaged_out() {
    let folder = file(&planted());
    let fit =
        "fit --csv points.csv --law power_floor --c c --loss floor --draws 100 --out fit.json";
    assert!(gradus(&folder, fit).status.success());
    let output = gradus(&folder, "suggest fit.json --budget 1e20");
    assert!(shown(&output).contains("does not know N and D"), "{}", shown(&output));
}
