//! Warnings about a file as a whole: rows that are not alike, and approaches that disagree.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic")]

mod support;

use std::fmt::Write as _;

use serde_json::Value;
use support::{file, gradus, json, shown};

fn warnings(fit: &Value, name: &str) -> Vec<String> {
    let all = fit["warnings"].as_array().unwrap();
    let texts = all.iter().map(|one| one.as_str().unwrap().to_owned());
    texts.filter(|text| text.starts_with(&format!("{name}: "))).collect()
}

/// Six budgets of seven sizes each around the best one of `additive`, with a loss by N and D.
fn profiles(loss: impl Fn(f64, f64) -> f64) -> String {
    let mut text = String::from("n,d,c,loss,Schedule,lr\n");
    for budget in 0..6_i32 {
        let c = 1e18 * 4_f64.powi(budget);
        for size in -3..=3_i32 {
            let n = best(c) * 2.0_f64.powi(size);
            let place = f64::from(budget * 7 + size);
            let luck = 1.0 + 5e-4 * ((place * 0.618_033_988_749).fract() - 0.5);
            let schedule = if budget < 2 { "wsd" } else { "cosine" };
            let (d, loss) = (c / (6.0 * n), loss(n, c / (6.0 * n)) * luck);
            writeln!(text, "{n},{d},{c},{loss},{schedule},{}", 1e-3 * f64::from(size + 4)).unwrap();
        }
    }
    text
}

fn additive(n: f64, d: f64) -> f64 {
    1.7 + 400.0 / n.powf(0.34) + 1100.0 / d.powf(0.31)
}

/// N_opt of `additive`.
fn best(c: f64) -> f64 {
    let g = (0.34 * 400.0 / (0.31 * 1100.0_f64)).powf(1.0 / 0.65);
    g * (c / 6.0).powf(0.31 / 0.65)
}

const FIT: &str = "fit --csv points.csv --law chinchilla --n n --d d --c c --loss loss --draws 200";

#[test]
fn rows_that_are_not_alike_are_counted_by_value() {
    let folder = file(&profiles(additive));
    let fit = json(&folder, &format!("{FIT} --json"));
    let found = warnings(&fit, "mixed");
    assert_eq!(found.len(), 1, "{found:?}");
    let expected =
        "mixed: column `Schedule` has 2 values in one fit: `cosine` (28 rows), `wsd` (14 rows)";
    assert!(found[0].starts_with(expected), "{found:?}");
    // Rows that are not fitted do not count.
    let fit = json(&folder, &format!("{FIT} --hold-out Schedule=wsd --json"));
    assert_eq!(warnings(&fit, "mixed"), Vec::<String>::new());
    let fit = json(&folder, &format!("{FIT} --hold-out Schedule=wsd --same lr --json"));
    let found = warnings(&fit, "mixed");
    assert!(found[0].contains("column `lr` has 7 values"), "{found:?}");
    let grouped = json(&folder, &format!("{FIT} --group-by Schedule --json"));
    let groups = grouped["groups"].as_array().unwrap();
    assert!(groups.iter().all(|one| warnings(one, "mixed").is_empty()), "{grouped}");
}

#[test]
fn approaches_stand_side_by_side_and_agree_on_what_is_additive() {
    let folder = file(&profiles(additive));
    let fit = json(&folder, &format!("{FIT} --json"));
    let names: Vec<&Value> =
        fit["approaches"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["isoflop", "corrected", "chinchilla"]);
    for one in fit["approaches"].as_array().unwrap() {
        let a = one["parameters_exponent"]["value"].as_f64().unwrap();
        assert!((a - 0.31 / 0.65).abs() < 0.03, "{one}");
    }
    let sum = fit["approaches"][0]["exponent_sum"]["value"].as_f64().unwrap();
    assert!((sum - 1.0).abs() < 1e-3, "{sum}");
    assert_eq!(warnings(&fit, "approaches-disagree"), Vec::<String>::new());
    assert_eq!(warnings(&fit, "exponent-sum"), Vec::<String>::new());
    let text = shown(&gradus(&folder, FIT));
    assert!(text.contains("APPROACH") && text.contains("by its form"), "{text}");
}

/// Aim: a law that misses the wings of profiles says another exponent than their middles. Method: the sizes eight times
/// from the best, which no parabola is fitted to, are worse on the small side at small budgets and on the large side at
/// large ones.
#[test]
fn approaches_that_disagree_are_named_with_both_intervals() {
    let bent = |n: f64, d: f64| {
        let c = 6.0 * n * d;
        let side = (n / best(c)).ln() / 8_f64.ln();
        let wing = if side.abs() > 0.9 { side * (c / 3.2e19).ln() } else { 0.0 };
        additive(n, d) * (0.008 * wing).exp()
    };
    let fit = json(&file(&profiles(bent)), &format!("{FIT} --json"));
    let found = warnings(&fit, "approaches-disagree");
    assert_eq!(found.len(), 1, "{fit}");
    assert!(found[0].contains("by `isoflop` and") && found[0].contains("by `chinchilla`"));
    assert!(found[0].contains("where their intervals allow"), "{found:?}");
}

#[test]
fn counts_of_flops_that_are_no_multiple_of_n_d_show_in_the_sum_of_exponents() {
    // C grows as N^0.8 D, as attention over a long text makes it; D is what the budget buys at that.
    let text = profiles(additive);
    let mut changed = String::new();
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.split(',').collect();
        if index == 0 {
            writeln!(changed, "{line}").unwrap();
            continue;
        }
        let number = |at: usize| cells[at].parse::<f64>().unwrap();
        let (n, c) = (number(0), number(2));
        let d = c / (6.0 * 1e9_f64.powf(0.2) * n.powf(0.8));
        writeln!(changed, "{n},{d},{c},{},{},{}", additive(n, d), cells[4], cells[5]).unwrap();
    }
    let fit = json(&file(&changed), &format!("{FIT} --json"));
    let found = warnings(&fit, "exponent-sum");
    assert!(found[0].contains("by `isoflop`, and 1 for C proportional to N D"), "{fit}");
}

// A surface whose sides differ much, sampled off its best sizes: what the parabolas miss is said by
// the law, and the numbers of the parabolas stay their own.
#[test]
fn the_bias_of_parabolas_is_told_by_the_law_of_the_same_rows() {
    let (alpha, beta) = (0.465, 0.155);
    let g = (alpha * 406.4 / (beta * 410.7_f64)).powf(1.0 / (alpha + beta));
    let best = |c: f64| g * (c / 6.0).powf(beta / (alpha + beta));
    let mut text = String::from("n,d,c,loss\n");
    for budget in 0..6_i32 {
        let c = 1e18 * 4_f64.powi(budget);
        for size in -4..=4_i32 {
            let n = 1.5 * best(c) * 2.0_f64.powf(f64::from(size) / 2.0);
            let luck =
                1.0 + 2e-4 * ((f64::from(budget * 9 + size) * 0.618_033_988_749).fract() - 0.5);
            let d = c / (6.0 * n);
            let loss = (1.7 + 406.4 / n.powf(alpha) + 410.7 / d.powf(beta)) * luck;
            writeln!(text, "{n},{d},{c},{loss}").unwrap();
        }
    }
    let fit = json(&file(&text), &format!("{FIT} --json"));
    let found = warnings(&fit, "parabola-bias");
    assert_eq!(found.len(), 1, "{fit}");
    // The best N at the largest budget, to the digits that the losses know.
    let said: Vec<f64> = found[0].split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let truth = best(1e18 * 4_f64.powi(5));
    assert!(said.iter().any(|n| (n / truth - 1.0).abs() < 0.02), "{truth:e} {found:?}");
    // A surface with hardly any bias says nothing.
    let fit = json(&file(&profiles(additive)), &format!("{FIT} --json"));
    assert!(warnings(&fit, "parabola-bias").is_empty(), "{fit}");
}

#[test]
fn an_accuracy_that_was_given_as_a_loss_is_said_to_rise() {
    let mut text = String::from("n,d,loss,accuracy\n");
    for (size, count) in (0..30_i32).map(|at| (at / 6, at % 6)) {
        let (n, d) = (1e7 * 4_f64.powi(size), 2e8 * 4_f64.powi(count));
        let luck = 1.0 + 2e-3 * ((f64::from(size * 6 + count) * 0.618_033_988_749).fract() - 0.5);
        let loss = additive(n, d) * luck;
        writeln!(text, "{n},{d},{loss},{}", 1.5 / loss).unwrap();
    }
    let folder = file(&text);
    let of = |law: &str, column: &str| {
        let fit =
            format!("fit --csv points.csv --law {law} --n n --d d --loss {column} --draws 100");
        warnings(&json(&folder, &format!("{fit} --json")), "loss-rises")
    };
    for law in ["power", "chinchilla"] {
        assert_eq!(of(law, "loss"), Vec::<String>::new());
        let said = of(law, "accuracy");
        assert!(said.len() == 1 && said[0].contains("is it an accuracy?"), "{law}: {said:?}");
    }
}

// Every N is another, so that no two rows contradict each other; D goes its own way.
#[test]
fn a_law_of_n_over_rows_of_any_d_is_no_frontier() {
    let rows = |ratio: &dyn Fn(f64) -> f64| {
        let mut text = String::from("n,d,loss\n");
        for row in 0..24_i32 {
            let n = 1e7 * 1.3_f64.powi(row);
            let d = n * ratio((f64::from(row + 1) * 0.618_033_988_749).fract());
            writeln!(text, "{n},{d},{}", additive(n, d)).unwrap();
        }
        text
    };
    let said = |text: &str| {
        let fit =
            "fit --csv points.csv --law power_floor --of n --n n --d d --loss loss --draws 100";
        warnings(&json(&file(text), &format!("{fit} --json")), "not-a-frontier")
    };
    let own = said(&rows(&|place| 400_f64.powf(place)));
    assert!(own.len() == 1 && own[0].contains("off a power of N"), "{own:?}");
    assert_eq!(said(&rows(&|_| 20.0)), Vec::<String>::new());
}

/// Aim: checkpoints are not taken for runs where a column says what they are, also without N.
#[test]
fn an_unused_column_of_runs_is_named_where_it_has_fewer_names_than_rows() {
    let table = |runs: usize| {
        let mut text = String::from("Run,d,loss\n");
        for (i, power) in (0..24).zip(0..) {
            let d = 1e8 * 1.3_f64.powi(power);
            writeln!(text, "r{},{d},{}", i % runs, 9.0 * d.powf(-0.05)).unwrap();
        }
        file(&text)
    };
    let law = "fit --csv points.csv --law power --d d --loss loss --json";
    let said = warnings(&json(&table(3), law), "rows-as-runs");
    assert!(said.len() == 1 && said[0].contains("column `Run` names 3 runs"), "{said:?}");
    assert_eq!(warnings(&json(&table(24), law), "rows-as-runs"), [""; 0]);
    assert_eq!(warnings(&json(&table(3), &format!("{law} --run Run")), "rows-as-runs"), [""; 0]);
}

/// Aim: the design of the paper that the law of over-training is from is fitted. Method: four sizes at
/// one ratio D/N, and one of them at another (Gadre et al. 2024, section 3).
#[test]
fn over_training_is_fitted_to_two_ratios_with_a_warning() {
    let mut text = String::from("n,d,loss\n");
    let rows =
        [(0, 20.0), (1, 20.0), (2, 20.0), (3, 20.0), (4, 20.0), (5, 20.0), (0, 320.0), (1, 320.0)];
    for (i, (size, ratio)) in rows.into_iter().enumerate() {
        let n = 1e7 * 3_f64.powi(size);
        let c = 6.0 * n * n * ratio;
        let m = f64::powf(ratio, 0.12);
        let luck = 1.0 + 1e-4 * f64::from([1, -1, -1, 1, 1, -1, -1, 1][i]);
        let loss = (1.5 + (141.0 * m + 190.0 / m) * c.powf(-0.12)) * luck;
        writeln!(text, "{n},{},{loss}", n * ratio).unwrap();
    }
    let law = "--law overtraining --n n --d d --loss loss";
    let fit = json(&file(&text), &format!("fit --csv points.csv {law} --json"));
    let eta = &fit["coefficients"]["eta"];
    assert_eq!(eta["status"], "identified", "{fit}");
    assert!((eta["value"].as_f64().unwrap() - 0.12).abs() < 0.01, "{eta}");
    let said = warnings(&fit, "few-ratios");
    assert!(said.len() == 1 && said[0].starts_with("few-ratios: 2 ratios D/N"), "{said:?}");
}
