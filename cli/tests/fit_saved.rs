//! `gradus fit --csv --out` and `gradus predict`: a saved fit predicts what was planted, to the last
//! bit the same again, and a file that was touched is refused.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic")]

mod support;

use serde_json::Value;
use support::{file, gradus, json, planted, shown};
use tempfile::TempDir;

const CHINCHILLA: &str = "fit --csv points.csv --law chinchilla --n n --d d --loss chinchilla";

fn saved(columns: &str) -> TempDir {
    let folder = file(&planted());
    let output = gradus(&folder, &format!("{columns} --draws 120 --out fit.json"));
    assert!(output.status.success(), "{}", shown(&output));
    folder
}

fn document(folder: &TempDir) -> Value {
    let text = std::fs::read_to_string(folder.path().join("fit.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn near(found: &Value, expected: f64, share: f64) {
    let found = found.as_f64().unwrap_or(f64::NAN);
    assert!((found / expected - 1.0).abs() < share, "{found} for {expected}");
}

#[test]
fn a_saved_fit_predicts_the_planted_loss_and_the_best_size() {
    let folder = saved(CHINCHILLA);
    let (n, d) = (2e8_f64, 4e9_f64);
    let point = json(&folder, &format!("predict fit.json --n {n} --d {d} --json"));
    let view = &point["predictions"][0];
    let loss = |n: f64, d: f64| 1.7 + 400.0 / n.powf(0.34) + 900.0 / d.powf(0.31);
    near(&view["curve"]["value"], loss(n, d), 1e-7);
    near(&view["at"]["c"], 6.0 * n * d, 1e-12);
    assert_eq!(view["conventions"]["c_counts"], "6ND");
    let by_budget = json(&folder, "predict fit.json --c 6e19 --json");
    let view = &by_budget["predictions"][0];
    // N_opt of Hoffmann et al. 2022, equation 4, from the planted coefficients.
    let g = (0.34 * 400.0 / (0.31 * 900.0_f64)).powf(1.0 / 0.65);
    let best_n = g * 1e19_f64.powf(0.31 / 0.65);
    near(&view["optimum"]["n"]["value"], best_n, 1e-4);
    near(&view["optimum"]["d"]["value"], 1e19 / best_n, 1e-4);
    near(&view["optimum"]["tokens_per_parameter"]["value"], 1e19 / best_n / best_n, 2e-4);
    near(&view["curve"]["value"], loss(best_n, 1e19 / best_n), 1e-7);
    // Two of three give the third.
    let other = json(&folder, &format!("predict fit.json --n {n} --c {} --json", 6.0 * n * d));
    near(&other["predictions"][0]["at"]["d"], d, 1e-12);
}

#[test]
fn intervals_of_a_saved_fit_are_those_of_the_fit() {
    // Aim: nothing is lost between fit and file. Method: a held-out row is predicted by the fit
    // itself, and from the file at the same place; the numbers must be equal to the last bit.
    let folder = file(&planted());
    let fit = json(
        &folder,
        "fit --csv points.csv --law chinchilla --n n --d d --loss coupled --draws 120 --json \
         --hold-out c>4e18 --out fit.json",
    );
    let held_out = &fit["held_out"][0];
    let line = usize::try_from(held_out["line"].as_u64().unwrap()).unwrap();
    let text = planted();
    let cells: Vec<&str> = text.lines().nth(line - 1).unwrap().split(',').collect();
    let (n, d) = (cells[1], cells[2]);
    let again = json(&folder, &format!("predict fit.json --n {n} --d {d} --json"));
    assert_eq!(again["predictions"][0]["measured"], held_out["predicted"]);
    let factor = again["predictions"][0]["extrapolation"][2]["factor"].as_f64().unwrap();
    near(&held_out["extrapolation"], factor, 1e-12);
}

#[test]
fn a_saved_fit_is_made_again_bit_for_bit_on_any_number_of_threads() {
    let folder = saved(&format!("{CHINCHILLA} --group-by arch --objective lad --threads 1"));
    let bytes = || std::fs::read(folder.path().join("fit.json")).unwrap();
    let first = bytes();
    let output = gradus(
        &folder,
        &format!(
            "{CHINCHILLA} --group-by arch --objective lad --threads 2 --draws 120 --out fit.json"
        ),
    );
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(first, bytes());
    let output = gradus(&folder, "fit --again fit.json --threads 2");
    assert!(shown(&output).contains("was made again, bit for bit"), "{}", shown(&output));
    // Another file under that name is not what was fitted.
    let changed = planted().replacen("tnl", "tnl ", 1);
    std::fs::write(folder.path().join("points.csv"), changed).unwrap();
    let output = gradus(&folder, "fit --again fit.json");
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output).contains("is not the file"), "{}", shown(&output));
}

#[test]
fn a_draw_that_was_touched_is_noticed_when_the_fit_is_made_again() {
    let folder = saved(CHINCHILLA);
    let mut document = document(&folder);
    let draw = &mut document["fits"][0]["draws"][17][3];
    *draw = serde_json::json!(draw.as_f64().unwrap() + 1e-9);
    std::fs::write(folder.path().join("fit.json"), document.to_string()).unwrap();
    let output = gradus(&folder, "fit --again fit.json");
    assert_eq!(output.status.code(), Some(1));
    assert!(shown(&output).contains("`fits[0].draws` differs"), "{}", shown(&output));
}

#[test]
fn a_place_outside_the_data_is_named_with_its_factor() {
    let folder = saved(CHINCHILLA);
    let text = shown(&gradus(&folder, "predict fit.json --n 1e12 --d 1e11"));
    assert!(
        text.contains("far-extrapolation: N = 1.000e12 is 771.605 times the largest"),
        "{text}"
    );
    assert!(!text.contains("outside-data: D"), "{text}");
    let inside = json(&folder, "predict fit.json --n 1e7 --d 1e9 --json");
    let factors = inside["predictions"][0]["extrapolation"].as_array().unwrap();
    assert!(factors.iter().all(|one| one["is_inside"] == true && one["factor"] == 1.0), "{inside}");
    let small = shown(&gradus(&folder, "predict fit.json --n 1e4 --d 1e9"));
    assert!(small.contains("outside-data: N = 1.000e4 is 0.010 times the smallest"), "{small}");
}

// N and D are both among the fitted ones, and the largest N was never trained on the smallest D.
#[test]
fn a_ratio_outside_the_data_is_named_though_both_its_numbers_are_inside() {
    let table = planted();
    let is_inside = |line: &&str| {
        let cell = |at: usize| line.split(',').nth(at).unwrap().parse::<f64>().ok();
        // The header has no numbers.
        cell(1).zip(cell(2)).is_none_or(|(n, d)| (5.0..=500.0).contains(&(d / n)))
    };
    let lines: Vec<&str> = table.lines().filter(is_inside).collect();
    let folder = file(&(lines.join("\n") + "\n"));
    let output = gradus(&folder, &format!("{CHINCHILLA} --draws 120 --out fit.json"));
    assert!(output.status.success(), "{}", shown(&output));
    let range = &document(&folder)["fits"][0]["ranges"]["others"]["D / N"];
    let [low, high] = [&range[0], &range[1]].map(|end| end.as_f64().unwrap());
    assert!(low >= 5.0 * (1.0 - 1e-9) && high <= 500.0 * (1.0 + 1e-9), "{range}");
    let said = |arguments: &str| shown(&gradus(&folder, &format!("predict fit.json {arguments}")));
    let far = said("--n 2e6 --d 2e10");
    assert!(far.contains("far-extrapolation: D / N = 1.000e4"), "{far}");
    assert!(!far.contains(": N = ") && !far.contains(": D = "), "{far}");
    assert!(!said("--n 2e7 --d 1e9").contains("D / N ="), "{}", said("--n 2e7 --d 1e9"));
    // A budget of which the best split has another ratio than any row.
    let view = json(&folder, "predict fit.json --c 1e24 --json");
    let ratio =
        view["predictions"][0]["optimum"]["tokens_per_parameter"]["value"].as_f64().unwrap();
    let warnings = view["predictions"][0]["warnings"].to_string();
    assert_eq!(warnings.contains(": D / N = "), ratio < low || ratio > high, "{ratio} {warnings}");
    // A fit from before there were ratios says nothing of them.
    let mut older = document(&folder);
    older["fits"][0]["ranges"]["others"].as_object_mut().unwrap().remove("D / N");
    std::fs::write(folder.path().join("fit.json"), older.to_string()).unwrap();
    assert!(!said("--n 2e6 --d 2e10").contains("D / N ="), "{}", said("--n 2e6 --d 2e10"));
}

#[test]
fn more_epochs_than_fitted_and_more_unique_tokens_than_d_are_named() {
    let folder = saved(
        "fit --csv points.csv --law data_constrained --n n --d d --unique unique --loss repeated",
    );
    let said = |unique: &str| {
        let arguments = format!("predict fit.json --n 3.6e7 --d 6e9 --unique {unique}");
        shown(&gradus(&folder, &arguments))
    };
    // The rows read their text up to 15 times.
    assert!(said("3e8").contains("outside-data: D / U = 2.000e1"), "{}", said("3e8"));
    let few = said("1e9");
    assert!(!few.contains("D / U =") && !few.contains("unique-above-d"), "{few}");
    let above = said("1e10");
    assert!(above.contains("unique-above-d: `--unique 10000000000` is more than D"), "{above}");
}

#[test]
fn every_group_is_predicted_and_one_can_be_chosen() {
    let folder = saved(&format!("{CHINCHILLA} --group-by arch"));
    let all = json(&folder, "predict fit.json --c 1e18 --json");
    let groups: Vec<&Value> =
        all["predictions"].as_array().unwrap().iter().map(|one| &one["group"]).collect();
    assert_eq!(groups, ["llama", "tnl"]);
    let one = json(&folder, "predict fit.json --c 1e18 --group tnl --json");
    assert_eq!(one["predictions"][0], all["predictions"][1]);
    refused(
        &folder,
        "predict fit.json --c 1e18 --group gpt",
        &["no group `gpt`", "`llama`, `tnl`"],
    );
}

fn refused(folder: &TempDir, arguments: &str, expected: &[&str]) {
    let output = gradus(folder, arguments);
    let all = shown(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments}\n{all}");
    assert!(output.stdout.is_empty(), "{all}");
    for part in expected {
        assert!(all.contains(part), "no {part:?} in\n{all}");
    }
}

#[test]
fn a_question_that_cannot_be_answered_is_told_what_is_missing() {
    let folder = saved(CHINCHILLA);
    refused(&folder, "predict fit.json", &["needs the N", "`--n NUMBER`"]);
    refused(&folder, "predict fit.json --n 1e9", &["needs the D", "`--d NUMBER`"]);
    refused(
        &folder,
        "predict fit.json --n -1 --d 1",
        &["`--n` must be finite and above zero", "-1"],
    );
    refused(&folder, "predict fit.json --c NaN", &["`--c` must be finite and above zero", "NaN"]);
    refused(&folder, "predict fit.json --n 1 --d 1 --c 1", &["does not look at C"]);
    let kaplan = saved("fit --csv points.csv --law kaplan --n n --d d --loss kaplan");
    refused(&kaplan, "predict fit.json --c 1e18", &["`kaplan` has no best size for a budget"]);
    let precision =
        saved("fit --csv points.csv --law precision --n n --d d --bits bits --loss precise");
    refused(&precision, "predict fit.json --n 1e8 --d 1e9", &["`--bits NUMBER`"]);
    let point = json(&precision, "predict fit.json --n 1e8 --d 1e9 --bits 2 --json");
    assert!(point.to_string().contains("outside-data: bits of the weights = 2"), "{point}");
}

#[test]
fn a_file_that_cannot_be_is_refused_by_field_and_value() {
    let folder = saved(CHINCHILLA);
    let original = document(&folder);
    let check = |pointer: &str, value: Value, expected: &[&str]| {
        let mut changed = original.clone();
        *changed.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        std::fs::write(folder.path().join("fit.json"), changed.to_string()).unwrap();
        refused(&folder, "predict fit.json --n 1e8 --d 1e9", expected);
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    check("/format", json("\"other\""), &["`format` \"other\"", "reads \"gradus-fit\""]);
    check("/version", json("2"), &["`version` 2", "reads 1"]);
    check("/fits/0/law", json("\"chincilla\""), &["`law` is `chincilla`", "`chinchilla`"]);
    check("/fits/0/of", json("\"x\""), &["`of` is `x`", "`n`, `d` or `c`"]);
    check("/fits/0/level", json("1.5"), &["`level` is 1.5", "between 0 and 1"]);
    check("/fits/0/draws/3", json("[1, 2]"), &["`draws[3]` is a list of 2", "5 numbers"]);
    check("/fits/0/draws", json("[]"), &["`draws` is a list of 0", "one of 120"]);
    check("/fits/0/draws/0/0", json("null"), &["is no saved fit"]);
    check(
        "/fits/0/coefficients/0/estimate/value",
        json("1.8"),
        &["`coefficients.E` is 1.8", "which `parameters` give"],
    );
    check("/fits/0/ranges/n", json("[5, 1]"), &["`ranges.n` is 5 to 1", "ascending"]);
    std::fs::write(folder.path().join("fit.json"), "{").unwrap();
    refused(&folder, "predict fit.json --c 1e18", &["is no saved fit", "--out FILE"]);
    refused(&folder, "predict other.json --c 1e18", &["could not read `other.json`"]);
}

#[test]
fn a_law_of_one_variable_is_saved_with_it() {
    let folder =
        saved("fit --csv points.csv --law power_floor --c c --loss floor --c-counts exact");
    let at = json(&folder, "predict fit.json --c 1e18 --json");
    near(&at["predictions"][0]["curve"]["value"], 1.6 + 1e-3_f64.powf(0.12), 1e-6);
    assert_eq!(at["predictions"][0]["conventions"]["c_counts"], "exact");
    let of_n = saved("fit --csv points.csv --law power --n n --loss power");
    assert_eq!(document(&of_n)["fits"][0]["of"], "n");
    refused(&of_n, "predict fit.json --c 1e18", &["`power` needs the N"]);
}
