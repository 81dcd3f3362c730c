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
