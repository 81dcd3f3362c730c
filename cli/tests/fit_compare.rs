//! Groups of a file that must not be compared as they are: what is said of it.

#![expect(clippy::unwrap_used, reason = "a helper of a test may panic")]

mod support;

use std::fmt::Write as _;

use support::{file, gradus, json, shown};

const FIT: &str =
    "fit --csv points.csv --law chinchilla --n n --d d --loss loss --group-by arch --draws 200";

/// Digits of multiples of the golden ratio: irregular, and the same on every machine.
fn luck(place: i32) -> f64 {
    (f64::from(place) * 0.618_033_988_749).fract() - 0.5
}

fn loss(factor: f64, n: f64, d: f64) -> f64 {
    1.7 + factor * (400.0 / n.powf(0.34) + 900.0 / d.powf(0.31))
}

#[test]
fn groups_of_one_ratio_of_tokens_to_parameters_are_not_compared() {
    let mut text = String::from("arch,n,d,loss\n");
    for (index, (arch, factor)) in [("plain", 1.0), ("mixer", 1.1)].into_iter().enumerate() {
        for size in 0..24_i32 {
            let n = 1e6 * 1.5_f64.powi(size);
            let luck = luck(size + 31 * i32::try_from(index).unwrap());
            let loss = loss(factor, n, 20.0 * n) * (1.0 + 0.002 * luck);
            writeln!(text, "{arch},{n},{},{loss}", 20.0 * n).unwrap();
        }
    }
    let folder = file(&text);
    let fits = json(&folder, &format!("{FIT} --json"));
    let comparison = &fits["comparisons"][0];
    let budget = &comparison["budgets"][0];
    assert_eq!(budget["first_is_better"], serde_json::Value::Null);
    let estimates = ["loss_difference_nats", "loss_ratio", "flops_ratio"].map(|name| &budget[name]);
    for estimate in estimates.into_iter().chain([&comparison["crossover_flops"]]) {
        assert_eq!(estimate["status"], "not_identified", "{estimate}");
        let reason = estimate["reason"].as_str().unwrap();
        assert!(reason.starts_with("of the first: alpha: "), "{reason}");
    }
    let text = shown(&gradus(&folder, FIT));
    let line = text.lines().find(|line| line.starts_with("probability that")).unwrap();
    assert!(line.contains("not identified  (1)"), "{line}");
}

#[test]
fn a_budget_far_beyond_the_data_is_named_as_a_prediction_there_is() {
    let found = warnings(&two("x", ["1", "1"]), &format!("{FIT} --compare-at 1e32"));
    let far: Vec<&String> =
        found.iter().filter(|text| text.starts_with("far-extrapolation: C = 1.000e32")).collect();
    assert_eq!(far.len(), 2, "{found:?}");
    assert!(far[0].contains("e11 times the largest fitted, ") && far[0].ends_with(", of `mixer`"));
}

/// Two groups of 5 × 6 with whatever else their rows say.
fn two(header: &str, others: [&str; 2]) -> String {
    let mut text = format!("arch,n,d,loss,{header}\n");
    for (index, (arch, other)) in ["plain", "mixer"].into_iter().zip(others).enumerate() {
        for size in 0..5_i32 {
            for count in 0..6_i32 {
                let (n, d) = (1e6 * 5_f64.powi(size), 3e7 * 5_f64.powi(count));
                let luck = luck(size * 6 + count + 31 * i32::try_from(index).unwrap());
                let loss = loss(1.0, n, d) * (1.0 + 0.002 * luck);
                writeln!(text, "{arch},{n},{d},{loss},{other}").unwrap();
            }
        }
    }
    text
}

fn warnings(text: &str, arguments: &str) -> Vec<String> {
    let fits = json(&file(text), &format!("{arguments} --json"));
    let all = fits["comparisons"][0]["warnings"].as_array().unwrap();
    all.iter().map(|one| one.as_str().unwrap().to_owned()).collect()
}

#[test]
fn groups_that_differ_in_more_than_their_name_are_compared_with_a_warning() {
    let columns = "tokenizer,schedule,eval_set";
    let found = warnings(&two(columns, ["byte,cosine,web", "gpt2,cosine,web"]), FIT);
    // Groups stand in the order of their names.
    let expected = "unlike: column `tokenizer` is `gpt2` in `mixer` and `byte` in `plain`; losses \
                    per token cannot be compared";
    assert_eq!(found, [expected]);
    assert!(warnings(&two(columns, ["byte,cosine,web"; 2]), FIT).is_empty());
    let found = warnings(&two(columns, ["byte,cosine,web", "byte,wsd,books"]), FIT);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("the difference may be that of this column"), "{found:?}");
    assert!(found[1].contains("losses on different texts cannot be compared"), "{found:?}");
    // A tokenizer that the groups are made by is still two tokenizers; a schedule is the question.
    let by = |column: &str| FIT.replace("--group-by arch", &format!("--group-by {column}"));
    let found = warnings(&two(columns, ["byte,cosine,web", "gpt2,cosine,web"]), &by("tokenizer"));
    assert!(found[0].contains("is `byte` in `byte` and `gpt2` in `gpt2`"), "{found:?}");
    assert!(
        warnings(&two(columns, ["byte,cosine,web", "byte,wsd,web"]), &by("schedule")).is_empty()
    );
}

// FLOPs of a token with attention over a long text, which weighs less the larger a model is.
#[test]
fn one_kappa_for_several_is_warned_of_in_the_fit_and_for_each_side() {
    let mut text = String::from("arch,n,d,f,loss\n");
    for (index, (arch, attention)) in [("long", 3e5), ("short", 0.0)].into_iter().enumerate() {
        for size in 0..5_i32 {
            for count in 0..6_i32 {
                let (n, d) = (1e6 * 5_f64.powi(size), 3e7 * 5_f64.powi(count));
                let luck = luck(size * 6 + count + 31 * i32::try_from(index).unwrap());
                let loss = loss(1.0, n, d) * (1.0 + 0.002 * luck);
                writeln!(text, "{arch},{n},{d},{},{loss}", 6.0 * n + attention * n.cbrt() / 100.0)
                    .unwrap();
            }
        }
    }
    let fit = format!("{FIT} --flops-per-token f");
    let folder = file(&text);
    let fits = json(&folder, &format!("{fit} --json"));
    let named = |warnings: &serde_json::Value| -> Vec<String> {
        let all = warnings.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned());
        all.filter(|text| text.starts_with("flops-per-parameter: ")).collect()
    };
    let expected = "flops-per-parameter: C / (N D) of the fitted rows lies between 6.004 and \
                    6.300; its median 6.035 stands for all; best N and D along the sizes of the \
                    file are exact in this";
    assert_eq!(named(&fits["groups"][0]["warnings"]), [expected]);
    assert!(named(&fits["groups"][1]["warnings"]).is_empty());
    let of_side = expected.replace("rows lies", "rows of `long` lies");
    assert_eq!(named(&fits["comparisons"][0]["warnings"]), [of_side]);
    // A law of C alone asks for no split of a budget.
    let power = fit.replace("chinchilla", "power_floor");
    assert!(
        named(&json(&folder, &format!("{power} --json"))["comparisons"][0]["warnings"]).is_empty()
    );
}
