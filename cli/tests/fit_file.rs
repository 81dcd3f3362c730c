//! `gradus fit --csv` as a user calls it: every law, every flag, and files that are wrong.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic")]

mod support;

use std::fmt::Write as _;

use support::{file, gradus, json, planted, shown};

fn check(law: &str, columns: &str, expected: &[(&str, f64)]) {
    let folder = file(&planted());
    let fit =
        json(&folder, &format!("fit --csv points.csv --law {law} {columns} --draws 100 --json"));
    for (name, planted) in expected {
        let found = fit["minima"][0]["coefficients"][name].as_f64().unwrap_or(f64::NAN);
        assert!((found / planted - 1.0).abs() < 1e-5, "{law} {name}: {found} for {planted}");
    }
}

#[test]
fn every_law_is_fitted_to_a_file_and_finds_what_was_planted() {
    check("power", "--c c --loss power", &[("beta", 60.0), ("alpha", 0.06)]);
    check("power_floor", "--c c --loss floor", &[("E", 1.6), ("C0", 1e15), ("alpha", 0.12)]);
    check("kaplan", "--n n --d d --loss kaplan", &[("alpha_N", 0.076), ("alpha_D", 0.103)]);
    check(
        "chinchilla",
        "--n n --d d --loss chinchilla",
        &[("E", 1.7), ("A", 400.0), ("beta", 0.31)],
    );
    check("coupled", "--n n --d d --loss coupled", &[("E", 1.4), ("k", 0.45), ("alpha", 0.55)]);
    check(
        "overtraining",
        "--n n --d d --c c --loss over",
        &[("a", 150.0), ("b", 200.0), ("eta", 0.12)],
    );
    check(
        "data_constrained",
        "--n n --d d --unique unique --loss repeated",
        &[("R_D", 12.0), ("R_N", 6.0), ("E", 1.7)],
    );
    check(
        "precision",
        "--n n --d d --bits bits --loss precise",
        &[("gamma_w", 2.5), ("alpha", 0.34)],
    );
    check(
        "annealing",
        "--rate-sum s1 --rate-fall s2 --loss annealed",
        &[("L0", 1.8), ("alpha", 0.3), ("C", 0.7)],
    );
    check("sigmoid", "--loss task --accuracy accuracy", &[("a", -0.7), ("b", 0.95), ("k", 5.0)]);
    // Without a break a broken power law is the power law; its exponent before the break is that.
    let folder = file(&planted());
    let fit = json(
        &folder,
        "fit --csv points.csv --law broken_power --c c --loss floor --draws 100 --json",
    );
    assert!(fit["residual_rms_log"].as_f64().unwrap() < 1e-4, "{fit}");
}

#[test]
fn the_objective_is_named_and_another_one_gives_another_value() {
    let folder = file(&planted());
    let of = |more: &str| {
        json(
            &folder,
            &format!(
                "fit --csv points.csv --law power --c c --loss floor --draws 100 --json {more}"
            ),
        )
    };
    let (huber, lad) = (of(""), of("--objective lad"));
    assert_eq!(huber["objective_name"], "sum of Huber losses of the residuals of ln L, δ = 0.001");
    assert_eq!(huber["huber_delta"], 0.001);
    assert!(lad["objective_name"].as_str().unwrap().contains("least absolute deviations"));
    assert!(lad["huber_delta"].is_null());
    assert!(lad["objective"].as_f64().unwrap() > huber["objective"].as_f64().unwrap());
    assert_eq!(of("--delta 0.01")["huber_delta"], 0.01);
}

#[test]
fn an_accuracy_is_called_so_and_drawn_to_the_rows_that_are_held_out() {
    let folder = file(&planted());
    let arguments = "fit --csv points.csv --law sigmoid --loss task --accuracy accuracy --draws 100 \
                     --hold-out loss<0.7 --plot fit.svg";
    let fit = json(&folder, &format!("{arguments} --json"));
    assert_eq!(fit["objective_name"], "sum of squared residuals of accuracy");
    let text = shown(&gradus(&folder, arguments));
    assert!(
        text.contains("rms of ln accuracy") && text.contains("accuracy over task loss"),
        "{text}"
    );
    assert!(text.contains("an error is predicted over measured, less one"), "{text}");
    let svg = std::fs::read_to_string(folder.path().join("fit.svg")).unwrap();
    assert!(svg.contains("predicted / measured − 1, %"), "{svg}");
    // The first broken part of the curve begins where the first held-out row is.
    let number = |text: &str| -> f64 {
        text.split([',', '"']).next().unwrap().parse().unwrap_or_else(|_| panic!("{text}"))
    };
    let (_, curve) = svg.split_once("<polyline class=\"line s0 dashed\" points=\"").unwrap();
    let (_, mark) = curve.split_once("<circle class=\"mark s0 f0\" cx=\"").unwrap();
    assert!((number(curve) - number(mark)).abs() < 0.1, "{svg}");
}

/// Aim: a user can do what the hint says. Method: it is done, with a number for each word in capitals.
#[test]
fn the_hint_after_a_fit_is_a_question_that_the_fit_can_answer() {
    for columns in [
        "--law chinchilla --n n --d d --loss chinchilla",
        "--law kaplan --n n --d d --loss kaplan",
        "--law overtraining --n n --d d --c c --loss over",
        "--law data_constrained --n n --d d --unique unique --loss repeated",
        "--law precision --n n --d d --bits bits --loss precise",
        "--law power --d d --loss power",
        "--law annealing --rate-sum s1 --rate-fall s2 --loss annealed",
        "--law sigmoid --loss task --accuracy accuracy",
    ] {
        let folder = file(&planted());
        let fit = format!("fit --csv points.csv {columns} --draws 100 --out fit.json");
        let text = shown(&gradus(&folder, &fit));
        let (_, hint) = text.split_once("hint: `gradus ").unwrap_or_else(|| panic!("{text}"));
        let command = hint.split('`').next().unwrap();
        let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_uppercase());
        let words = command.split(' ').map(|word| if is_name(&word) { "1" } else { word });
        let command = words.collect::<Vec<_>>().join(" ");
        let output = gradus(&folder, &command);
        assert!(output.status.success(), "{command}\n{}", shown(&output));
    }
}

#[test]
fn threads_change_no_byte() {
    let folder = file(&planted());
    let arguments =
        "fit --csv points.csv --law chinchilla --n n --d d --loss coupled --draws 120 --json";
    let on = |threads: u8| gradus(&folder, &format!("{arguments} --threads {threads}")).stdout;
    assert_eq!(on(1), on(2));
    assert_eq!(on(1), on(7));
}

#[test]
fn groups_are_fitted_apart_and_held_out_rows_are_predicted() {
    let folder = file(&planted());
    let arguments = "fit --csv points.csv --law chinchilla --n n --d d --loss chinchilla --run n \
                     --group-by arch --hold-out largest-size --json";
    let fits = json(&folder, arguments);
    let groups = fits["groups"].as_array().unwrap();
    let names: Vec<&str> = groups.iter().map(|one| one["group"].as_str().unwrap()).collect();
    assert_eq!(names, ["llama", "tnl"]);
    for group in groups {
        assert_eq!(
            (group["n_observations"].as_u64(), group["n_runs"].as_u64()),
            (Some(12), Some(4))
        );
        assert_eq!(group["held_out"].as_array().unwrap().len(), 3);
        assert_eq!(group["excluded"][0]["reason"], "held out by `largest-size`");
    }
    let rule = "fit --csv points.csv --law chinchilla --n n --d d --loss chinchilla --json --draws 100 \
                --hold-out c>1e17";
    let fit = json(&folder, rule);
    let worst = fit["held_out_summary"]["worst_error"].as_f64().unwrap();
    assert!(worst < 1e-6, "exact losses are predicted exactly: {worst}");
}

#[test]
fn laws_are_compared_by_their_error_on_rows_they_have_not_seen() {
    let folder = file(&planted());
    let arguments = "fit --csv points.csv --law power --n n --d d --loss chinchilla --draws 100 \
                     --against chinchilla --against kaplan";
    let fit = json(&folder, &format!("{arguments} --json"));
    let laws = fit["selection"].as_array().unwrap();
    let preferred: Vec<&str> = laws
        .iter()
        .filter(|law| law["is_preferred"] == true)
        .map(|law| law["law"].as_str().unwrap())
        .collect();
    assert_eq!(preferred, ["chinchilla"]);
    let text = shown(&gradus(&folder, arguments));
    assert!(text.contains("ERROR AT LARGER C  INSIDE  AT OTHER SIZES"), "{text}");
    assert_eq!(fit["selected_by"], "compute");
    // Each counts once: the largest C is also what lies beyond half of it.
    let splits = laws[1]["splits"].as_array().unwrap();
    let mean = |is_size: bool| {
        let own =
            splits.iter().filter(|one| one["split"].as_str().unwrap().starts_with('N') == is_size);
        let errors: Vec<f64> =
            own.map(|one| one["mean_absolute_error"].as_f64().unwrap()).collect();
        errors.iter().sum::<f64>() / errors.len() as f64
    };
    assert!((laws[1]["mean_absolute_error"].as_f64().unwrap() - mean(false)).abs() < 1e-12);
    assert!((laws[1]["mean_absolute_size_error"].as_f64().unwrap() - mean(true)).abs() < 1e-12);
    refused(&planted(), "--law power --c c --loss floor --against sigmoid", &["--accuracy"]);
}

/// What a wrong file or command is answered with.
fn refused(text: &str, arguments: &str, expected: &[&str]) {
    let folder = file(text);
    let output = gradus(&folder, &format!("fit --csv points.csv {arguments}"));
    let all = shown(&output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments}\n{all}");
    assert!(output.stdout.is_empty(), "{all}");
    for part in expected {
        assert!(all.contains(part), "no {part:?} in\n{all}");
    }
}

#[test]
fn a_wrong_cell_is_named_by_line_column_and_value() {
    let law = "--law power --c c --loss l";
    refused("c,l\n1e10,3\n1e11,NaN\n", law, &["points.csv:3", "column `l`", "finite", "`NaN`"]);
    refused("c,l\n1e10,3\n1e11,-2\n", law, &["points.csv:3", "column `l`", "above zero", "`-2`"]);
    refused("c,l\n0,3\n1e11,2\n", law, &["points.csv:2", "column `c`", "above zero"]);
    refused("c,l\n1e10,\n1e11,2\n", law, &["points.csv:2", "column `l` is empty"]);
    refused("c,l\n1e10,inf\n", law, &["must be finite", "`inf`"]);
    refused("c,l\n1e10,3,4\n", law, &["points.csv:2: the row has 3 cells and the header 2"]);
    refused("c,l\n", law, &["has no row"]);
    refused("", law, &["`points.csv` is empty"]);
    refused("c,c,l\n1,2,3\n", law, &["there are two columns `c`"]);
    refused("c,l\n1e10,3\n", law, &["law `power` has 2 parameters, found 1 points"]);
}

#[test]
fn a_missing_column_is_named_with_its_flag() {
    let text = planted();
    refused(&text, "--law chinchilla --n n --loss floor", &["needs the D", "`--d COLUMN`"]);
    refused(&text, "--law data_constrained --n n --d d --loss floor", &["`--unique COLUMN`"]);
    refused(
        &text,
        "--law precision --n n --d d --loss floor",
        &["bits of the weights", "`--bits COLUMN`"],
    );
    refused(&text, "--law sigmoid --loss task", &["`--accuracy COLUMN`"]);
    refused(&text, "--law power --loss floor", &["needs the C", "--c COLUMN"]);
    refused(&text, "--law power --c c --loss floor --objective mse", &["`mse`", "`huber`"]);
    refused(&text, "--law power --c c --loss floor --objective lad --delta 1", &["`lad` has none"]);
    refused(&text, "--law power --c c --loss floor --delta -1", &["--delta"]);
    refused(&text, "--law power --c c --loss floor --hold-out big", &["is no rule"]);
    let rule = "--law power --c c --loss floor --hold-out c>large";
    refused(&text, rule, &["`--hold-out c>large` is no rule", "`large` is not a number"]);
    for draws in ["--draws 99", "--bootstrap 0"] {
        let few = format!("--law power --c c --loss floor {draws}");
        refused(&text, &few, &["`--bootstrap`, must be at least 100"]);
    }
    for approach in ["envelope", "isoflop"] {
        let columns = format!("--law {approach} --n n --d d --loss floor");
        let expected = format!("`{approach}` is no law, but another approach");
        refused(&text, &columns, &[&expected, "`--law chinchilla`", "gradus fit STUDY"]);
    }
    refused(&text, "--law power --c c --loss floor --hold-out c>1", &["every row is held out"]);
}

/// No number may be printed that the data do not determine, and none that is not a number.
fn check_quiet_numbers(text: &str, arguments: &str, expected_warning: &str) {
    let folder = file(text);
    let fit = json(&folder, &format!("fit --csv points.csv --draws 100 --json {arguments}"));
    let all = fit.to_string();
    for estimate in fit["coefficients"].as_object().unwrap().values() {
        if estimate["status"] == "identified" {
            assert!(estimate["value"].as_f64().is_some_and(f64::is_finite), "{all}");
        }
    }
    let said = format!("{} {}", fit["warnings"], fit["coefficients"]);
    assert!(said.contains(expected_warning), "no {expected_warning:?} in {said}");
}

#[test]
fn data_that_say_nothing_give_warnings_and_reasons_instead_of_numbers() {
    let rows = |count: usize, row: &dyn Fn(usize) -> String| -> String {
        let lines: Vec<String> = (0..count).map(row).collect();
        format!("n,d,c,l\n{}\n", lines.join("\n"))
    };
    let both = "--law chinchilla --n n --d d --c c --loss l";
    let constant = rows(30, &|i| {
        format!("{},{},{},3", 1e6 * (1 + i % 5) as f64, 1e7 * (1 + i / 5) as f64, 1e13 + i as f64)
    });
    check_quiet_numbers(&constant, both, "all losses are 3");
    check_quiet_numbers(&constant, "--law power --c c --loss l", "all losses are 3");
    let one_size = rows(20, &|i| {
        format!("1e6,{},{},{}", 1e7 * (i + 1) as f64, 6e13 * (i + 1) as f64, 3.0 - 0.01 * i as f64)
    });
    check_quiet_numbers(&one_size, both, "1 distinct sizes N");
    let copies = rows(20, &|_| "1e6,1e7,6e13,3.1".to_owned());
    check_quiet_numbers(&copies, both, "19 of 20 rows are copies");
    let ray = rows(20, &|i| {
        let n = 1e6 * 1.5_f64.powf(i as f64);
        format!("{n},{},{},{}", 20.0 * n, 120.0 * n * n, 1.7 + 100.0 * n.powf(-0.3))
    });
    check_quiet_numbers(&ray, both, "move together");
}

/// Aim: where a token does not cost 6 N, C and the best size follow the column. Method: planted
/// losses, and FLOPs with a part that small models have most of; the same with 6 N gives the closed
/// form.
#[test]
fn flops_for_a_token_give_c_and_the_best_size_along_the_file() {
    let text = |price: fn(f64) -> f64| {
        let mut text = String::from("n,d,f,loss\n");
        for size in 0..7_i32 {
            for count in 0..6_i32 {
                let (n, d) = (1e6 * 3_f64.powi(size), 1e7 * 4_f64.powi(count));
                let luck = (f64::from(size * 6 + count) * 0.618_033_988_749).fract() - 0.5;
                let exact = 1.7 + 400.0 / n.powf(0.34) + 900.0 / d.powf(0.31);
                let loss = exact * (1.0 + 0.004 * luck);
                writeln!(text, "{n},{d},{},{loss}", price(n)).unwrap();
            }
        }
        text
    };
    let fit = "fit --csv points.csv --law chinchilla --n n --d d --loss loss --draws 200";
    let of = |price: fn(f64) -> f64, budget: usize, key: &str| {
        let fit = json(&file(&text(price)), &format!("{fit} --flops-per-token f --json"));
        assert_eq!(fit["flops"], "column `f` times D");
        let one = &fit["ladder"][budget];
        let c = one["flops"].as_f64().unwrap();
        let ends = one[key].as_object().unwrap_or_else(|| panic!("{fit}"));
        (c, ends["value"].as_f64().unwrap(), ends["low"].as_f64().unwrap())
    };
    let (c, n, low) = of(|n| 6.0 * n, 0, "parameters");
    let (_, d, _) = of(|n| 6.0 * n, 0, "tokens");
    assert!((6.0 * n * d / c - 1.0).abs() < 1e-9 && low < n, "{c} {n} {d}");
    // N_opt = G (C / 6)^(β / (α + β)) of the planted surface.
    let g = (0.34 * 400.0 / (0.31 * 900.0_f64)).powf(1.0 / 0.65);
    let expected = g * (c / 6.0).powf(0.31 / 0.65);
    assert!((n / expected).ln().abs() < 0.2, "{n:e} {expected:e}");
    // The fit is the same whatever a token costs. Where small models are dear, a larger one is
    // better than in closed form with the price at the optimum.
    let dear = |n: f64| 6.0 * n + 3e3 * n.sqrt();
    let (other_c, other_n, _) = of(dear, 0, "parameters");
    let products = (other_c * other_n / dear(other_n)) / (c / 6.0);
    let closed = n * products.powf(0.31 / 0.65);
    assert!(other_n > 1.01 * closed, "{other_n:e} {closed:e}");
    let shown_text = shown(&gradus(&file(&text(dear)), &format!("{fit} --flops-per-token f")));
    assert!(shown_text.contains("best N and D along the sizes of the file"), "{shown_text}");
    let falling = "n,d,f,loss\n1,1,9,3\n2,1,6,3\n3,1,7,2\n3,2,7,2\n3,4,7,1.9\n";
    let refused = shown(&gradus(&file(falling), &format!("{fit} --flops-per-token f")));
    assert!(refused.contains("`--flops-per-token`") && refused.contains("less than"), "{refused}");
}
