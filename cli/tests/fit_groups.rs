//! Groups of a file beside each other, the audit of the search, and the figure.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic")]

mod support;

use std::fmt::Write as _;

use serde_json::Value;
use support::{file, gradus, json, planted, shown};

/// Two architectures on one design; the second has this many times the reducible loss of the first.
fn two(factor: f64, noise: f64) -> String {
    let mut text = String::from("arch,n,d,loss\n");
    for (index, (arch, factor)) in [("alpha", 1.0), ("beta", factor)].into_iter().enumerate() {
        for size in 0..5_i32 {
            for count in 0..6_i32 {
                let (n, d) = (1e6 * 5_f64.powi(size), 3e7 * 5_f64.powi(count));
                let loss = 1.7 + factor * (400.0 / n.powf(0.34) + 900.0 / d.powf(0.31));
                // Irregular and the same on every machine: digits of multiples of the golden ratio.
                let place = f64::from(size * 6 + count + 31 * i32::try_from(index).unwrap());
                let luck = (place * 0.618_033_988_749).fract() - 0.5;
                writeln!(text, "{arch},{n},{d},{}", loss * (1.0 + noise * luck)).unwrap();
            }
        }
    }
    text
}

const FIT: &str =
    "fit --csv points.csv --law chinchilla --n n --d d --loss loss --group-by arch --draws 200";

fn value(estimate: &Value) -> f64 {
    estimate["value"].as_f64().unwrap_or_else(|| panic!("{estimate}"))
}

fn ends(estimate: &Value) -> (f64, f64) {
    (estimate["low"].as_f64().unwrap(), estimate["high"].as_f64().unwrap())
}

#[test]
fn a_planted_advantage_is_found_as_loss_compute_and_probability() {
    // With A and B 1.1 times as large and E the same, the loss of the second at its best N and D for
    // 1.1^(1 / c) times the compute is that of the first, c = alpha beta / (alpha + beta).
    let folder = file(&two(1.1, 0.0));
    let fits = json(&folder, &format!("{FIT} --compare-at 1e19 --compare-at 1e21 --json"));
    let comparison = &fits["comparisons"][0];
    assert_eq!(comparison["names"], serde_json::json!(["alpha", "beta"]));
    assert_eq!(comparison["is_paired"], true);
    let expected = 1.1_f64.powf(0.65 / (0.34 * 0.31));
    for budget in comparison["budgets"].as_array().unwrap() {
        let found = value(&budget["flops_ratio"]);
        assert!((found / expected - 1.0).abs() < 1e-3, "{found} for {expected}");
        assert!(value(&budget["loss_difference_nats"]) < 0.0, "{budget}");
        assert_eq!(budget["first_is_better"], 1.0);
        let (difference, ratio) =
            (value(&budget["loss_difference_nats"]), value(&budget["loss_ratio"]));
        // L1 - L2 = L1 (1 - 1 / ratio).
        assert!(difference < 0.0 && ratio < 1.0, "{budget}");
    }
    let inside: Vec<&Value> = comparison["budgets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["is_inside_both"])
        .collect();
    assert_eq!(inside, [true, false]);
    let text = comparison["warnings"].to_string();
    assert!(text.contains("outside-data: C = 1.000e21 is 2.844 times the largest"), "{text}");
    assert_eq!(comparison["crossover_flops"]["status"], "not_identified");
}

#[test]
fn equal_architectures_are_not_told_apart_and_nobody_is_ranked() {
    let folder = file(&two(1.0, 0.01));
    let fits = json(&folder, &format!("{FIT} --compare-at 1e19 --json"));
    let budget = &fits["comparisons"][0]["budgets"][0];
    let (low, high) = ends(&budget["loss_difference_nats"]);
    assert!(low < 0.0 && 0.0 < high, "{budget}");
    let share = budget["first_is_better"].as_f64().unwrap();
    assert!((0.01..0.99).contains(&share), "{share}");
    let text = shown(&gradus(&folder, FIT));
    assert!(text.contains("`alpha` against `beta`"), "{text}");
    assert!(text.contains("probability that `alpha` is better"), "{text}");
}

#[test]
fn a_planted_crossing_is_found() {
    // Floors and prefactors such that both have the same loss at one budget: 1.6 + 1.2 R = 1.7 + R
    // where the reducible loss R of the first is 0.5.
    let mut text = String::from("arch,n,d,loss\n");
    for (arch, floor, factor) in [("low_floor", 1.6, 1.2), ("steep", 1.7, 1.0)] {
        for size in 0..5_i32 {
            for count in 0..6_i32 {
                let (n, d) = (1e6 * 5_f64.powi(size), 3e7 * 5_f64.powi(count));
                let loss = floor + factor * (400.0 / n.powf(0.34) + 900.0 / d.powf(0.31));
                writeln!(text, "{arch},{n},{d},{loss}").unwrap();
            }
        }
    }
    let folder = file(&text);
    let fits = json(&folder, &format!("{FIT} --json"));
    let found = value(&fits["comparisons"][0]["crossover_flops"]);
    // R at the best split of C / 6 into N and D, halved until it is 0.5.
    let g = (0.34 * 400.0 / (0.31 * 900.0_f64)).powf(1.0 / 0.65);
    let reducible = |flops: f64| {
        let n = g * (flops / 6.0).powf(0.31 / 0.65);
        400.0 / n.powf(0.34) + 900.0 / (flops / 6.0 / n).powf(0.31)
    };
    let (mut low, mut high) = (1e12_f64, 1e26_f64);
    for _ in 0..200 {
        let middle = (low * high).sqrt();
        if reducible(middle) > 0.5 { low = middle } else { high = middle }
    }
    assert!((found / low - 1.0).abs() < 1e-3, "{found} for {low}");
}

fn refused(text: &str, arguments: &str, expected: &[&str]) {
    let folder = file(text);
    let output = gradus(&folder, arguments);
    let all = shown(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments}\n{all}");
    for part in expected {
        assert!(all.contains(part), "no {part:?} in\n{all}");
    }
}

#[test]
fn a_comparison_that_means_nothing_is_refused() {
    let text = two(1.1, 0.0);
    refused(&text, &format!("{FIT} --compare-at -1"), &["`--compare-at`", "above zero", "-1"]);
    let kaplan = FIT.replace("chinchilla", "kaplan");
    refused(&text, &format!("{kaplan} --compare-at 1e19"), &["`kaplan` of N, D", "`chinchilla`"]);
    let one: String =
        text.lines().filter(|line| !line.starts_with("beta")).flat_map(|l| [l, "\n"]).collect();
    refused(&one, &format!("{FIT} --compare-at 1e19"), &["needs two groups", "`alpha`"]);
    // Without the flag a law that says nothing about budgets is simply not compared.
    let fits = json(&file(&text), &format!("{kaplan} --json"));
    assert_eq!(fits["comparisons"], serde_json::json!([]));
}

#[test]
fn the_audit_follows_the_classic_grid_and_finds_no_better_minimum() {
    let folder = file(&two(1.0, 0.01));
    let arguments = FIT.replace(" --group-by arch", " --audit");
    let fit = json(&folder, &format!("{arguments} --json"));
    let audit = &fit["audit"];
    assert_eq!(audit["n_starts"], 4500);
    assert_eq!(audit["is_as_good"], true);
    let (grid, found) = (audit["objective"].as_f64().unwrap(), fit["objective"].as_f64().unwrap());
    assert!(found <= grid * (1.0 + 1e-6), "{found} {grid}");
    assert!(audit["n_at_best"].as_u64().unwrap() >= 1);
    assert!(shown(&gradus(&folder, &arguments)).contains("audit: of 4500 classic starts"));
    let power = arguments.replace("chinchilla", "power");
    refused(&two(1.0, 0.01), &power, &["--audit", "that of `chinchilla`, not of `power`"]);
}

#[test]
fn a_figure_has_its_panels_and_is_the_same_again() {
    let folder = file(&two(1.1, 0.01));
    let draw = || {
        let output = gradus(&folder, &format!("{FIT} --plot fit.svg --hold-out largest"));
        assert!(output.status.success(), "{}", shown(&output));
        std::fs::read_to_string(folder.path().join("fit.svg")).unwrap()
    };
    let svg = draw();
    assert_eq!(svg, draw());
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{svg}");
    for part in ["Residuals", "IsoFLOP profiles of alpha", "prefers-color-scheme", "class=\"band"] {
        assert!(svg.contains(part), "no {part}");
    }
    // Every fitted row is a hollow mark of its group in the first panel, the profiles and the
    // residuals; every held-out row is filled.
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
    assert!(svg.contains("mark s0 f0") && svg.contains("mark s1 f1"));
    let opened = svg.matches("<g").count();
    assert_eq!(opened, svg.matches("</g>").count());
}

/// Aim: no fit is made whose result cannot be written. Method: the file to be fitted is not there
/// either, which a fit would say first.
#[test]
fn a_path_that_cannot_be_written_is_refused_before_the_fit() {
    let folder = file(&two(1.1, 0.01));
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    let columns = "--law chinchilla --n n --d d --loss loss";
    for flag in ["--plot", "--out"] {
        for path in ["nowhere/fit.svg", "folder"] {
            let output = gradus(&folder, &format!("fit --csv absent.csv {columns} {flag} {path}"));
            let text = shown(&output);
            assert!(!output.status.success(), "{text}");
            assert!(text.contains(&format!("could not write `{path}`")), "{text}");
            assert!(!text.contains("absent.csv"), "{text}");
        }
    }
    // What can be written leaves nothing behind before the fit.
    let output = gradus(&folder, &format!("fit --csv absent.csv {columns} --plot fit.svg"));
    assert!(shown(&output).contains("absent.csv"), "{}", shown(&output));
    let names = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["folder", "points.csv"]);
}

/// The groups of `two` and a third one of four rows.
fn with_a_small_one() -> String {
    let small = [(1e6, 3e7, 5.2), (5e6, 3e7, 4.6), (1e6, 3e8, 4.9), (5e6, 3e8, 4.1)];
    small
        .iter()
        .fold(two(1.1, 0.01), |text, (n, d, loss)| text + &format!("small,{n},{d},{loss}\n"))
}

const SMALL: &str = "law `chinchilla` has 5 parameters, found 4 points";

/// Aim: one group that cannot be fitted costs the others nothing. Method: everything that a fit of groups can be asked
/// for, of a file with such a group.
#[test]
fn a_group_without_a_fit_is_listed_and_the_others_are_fitted() {
    let folder = file(&with_a_small_one());
    let asked = format!("{FIT} --compare-at 1e19 --out fit.json --plot fit.svg");
    let fits = json(&folder, &format!("{asked} --json"));
    let groups: Vec<&Value> =
        fits["groups"].as_array().unwrap().iter().map(|one| &one["group"]).collect();
    assert_eq!(groups, ["alpha", "beta"]);
    assert_eq!(fits["unfitted"], serde_json::json!([{"group": "small", "reason": SMALL}]));
    let expected = "unfitted-groups: 1 of 3 groups could not be fitted: `small`";
    assert_eq!(fits["warnings"], serde_json::json!([expected]));
    assert_eq!(fits["comparisons"].as_array().unwrap().len(), 1);
    let text = shown(&gradus(&folder, &asked));
    assert!(text.contains("GROUP WITHOUT A FIT") && text.contains(expected), "{text}");
    assert!(!std::fs::read_to_string(folder.path().join("fit.svg")).unwrap().contains("small"));
    let predicted = json(&folder, "predict fit.json --c 1e18 --json");
    assert_eq!(predicted["predictions"].as_array().unwrap().len(), 2);
    let again = shown(&gradus(&folder, "fit --again fit.json"));
    assert!(again.contains("was made again, bit for bit"), "{again}");
}

#[test]
fn a_group_that_is_held_out_leaves_the_others_and_what_is_alone_is_not_compared() {
    let folder = file(&two(1.1, 0.01));
    let fits = json(&folder, &format!("{FIT} --hold-out arch=beta --compare-at 1e19 --json"));
    assert_eq!(fits["groups"].as_array().unwrap().len(), 1);
    let reason = "every row is held out";
    assert_eq!(fits["unfitted"], serde_json::json!([{"group": "beta", "reason": reason}]));
    assert_eq!(fits["comparisons"], serde_json::json!([]));
    let text = fits["warnings"][0].as_str().unwrap();
    assert!(text.ends_with("`beta`; fewer than two are left, so that none are compared"), "{text}");
    let own = fits["groups"][0]["warnings"].to_string();
    assert!(!own.contains("nothing-held-out"), "{own}");
}

#[test]
fn a_file_none_of_whose_groups_can_be_fitted_is_refused_with_the_reason_of_each() {
    let text = with_a_small_one();
    let held_out = format!("{FIT} --hold-out arch=alpha --hold-out arch=beta");
    let each = ["group `alpha`: every row", "group `beta`: every row"];
    let small = format!("group `small`: {SMALL}");
    refused(&text, &held_out, &["no group that can be fitted", each[0], each[1], &small]);
    // What is wrong with a row is wrong with the file.
    let wrong = text.replace("small,1000000,30000000,5.2", "small,1000000,-3,5.2");
    assert_ne!(wrong, text);
    refused(&wrong, FIT, &["column `d` must be above zero", "`-3`"]);
}

#[test]
fn rows_of_a_group_are_counted_in_the_group() {
    let fits = json(&file(&two(1.1, 0.01)), &format!("{FIT} --json"));
    for group in fits["groups"].as_array().unwrap() {
        let warnings = group["warnings"].as_array().unwrap();
        let mut all = warnings.iter().map(|one| one.as_str().unwrap());
        let found = all.find(|text| text.starts_with("rows-as-runs: ")).unwrap();
        assert!(found.contains("the 30 rows"), "{found}");
    }
}

/// A line of thirty runs of which one lies far out.
fn with_one_far_run(has_runs: bool) -> String {
    let mut text = String::from(if has_runs { "name,c,loss\n" } else { "c,loss\n" });
    for run in 0..30_i32 {
        let c = if run == 4 { 1e22 } else { 1e15 * 1.05_f64.powi(run) };
        let loss = (1e20 / c).powf(0.05) * (1.0 + 0.01 * f64::from(run).sin());
        let name = if has_runs { format!("size-{run},") } else { String::new() };
        writeln!(text, "{name}{c},{loss}").unwrap();
    }
    text
}

#[test]
fn the_run_with_much_influence_is_named_as_the_file_names_it() {
    let fit = "fit --csv points.csv --law power --c c --loss loss --draws 100";
    let by_name = gradus(&file(&with_one_far_run(true)), &format!("{fit} --run name"));
    assert!(shown(&by_name).contains("influence: run `size-4` carries"), "{}", shown(&by_name));
    // The header is line 1.
    let by_line = gradus(&file(&with_one_far_run(false)), fit);
    assert!(
        shown(&by_line).contains("influence: the row in line 6 carries"),
        "{}",
        shown(&by_line)
    );
}

#[test]
fn every_law_can_be_drawn() {
    let folder = file(&planted());
    for columns in [
        "--law power --n n --loss power",
        "--law power_floor --c c --loss floor",
        "--law kaplan --n n --d d --loss kaplan",
        "--law coupled --n n --d d --loss coupled",
        "--law data_constrained --n n --d d --unique unique --loss repeated",
        "--law sigmoid --loss task --accuracy accuracy",
    ] {
        let command = format!("fit --csv points.csv {columns} --draws 100 --plot fit.svg");
        let output = gradus(&folder, &command);
        assert!(output.status.success(), "{columns}\n{}", shown(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains('┤') && text.contains('○'), "{columns}\n{text}");
        let svg = std::fs::read_to_string(folder.path().join("fit.svg")).unwrap();
        // 30 rows over the law or the prediction, and 30 residuals, beside the legend's mark.
        let marks = svg.matches("<circle class=\"mark s0\"").count();
        assert!(marks >= 61, "{columns}: {marks}");
        assert!(!svg.contains("NaN"), "{columns}");
    }
}
