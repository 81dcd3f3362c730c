use super::*;
use crate::envelope::{self, EnvelopeOptions};
use crate::isoflop::{self, IsoflopOptions};
use crate::law::{Chinchilla, Law, LogPoint};
use crate::observation::{Dataset, Observation, RunKey};
use crate::planted::Study;

fn known(value: f64, half: f64) -> Estimate {
    Estimate::Identified { value, low: value - half, high: value + half }
}

fn approach(name: &str, a: Estimate, sum: Option<Estimate>) -> Approach {
    let (name, tokens_exponent) = (name.to_owned(), Estimate::not_identified("not asked"));
    Approach { name, parameters_exponent: a, tokens_exponent, exponent_sum: sum }
}

#[test]
fn exponents_beyond_their_intervals_disagree_and_others_do_not() {
    let with = |other: f64| {
        let all = [
            approach("envelope", known(0.50, 0.03), None),
            approach("isoflop", Estimate::not_identified("two budgets"), None),
            approach("chinchilla", known(other, 0.04), None),
        ];
        findings(&all)
    };
    // The root of 0.03² + 0.04² is 0.05.
    assert_eq!(with(0.549), Vec::new());
    assert_eq!(with(0.451), Vec::new());
    let found = with(0.56);
    assert_eq!(found.len(), 1);
    assert_eq!(
        found[0].to_string(),
        "approaches-disagree: a of N_opt is 0.500 (0.470 to 0.530) by `envelope` and 0.560 (0.520 \
         to 0.600) by `chinchilla`: 0.060 apart, where their intervals allow 0.050"
    );
}

#[test]
fn a_sum_is_a_warning_where_it_is_apart_from_one_beyond_its_interval() {
    let with = |sum: Estimate| findings(&[approach("isoflop", known(0.5, 0.1), Some(sum))]);
    assert_eq!(with(known(1.05, 0.06)), Vec::new());
    assert_eq!(with(known(1.001, 1e-6)), Vec::new(), "the rounding to whole steps");
    let found = with(known(1.222, 0.05));
    let text = "exponent-sum: a + b = 1.222 (1.172 to 1.272) by `isoflop`";
    assert!(found[0].to_string().starts_with(text), "{}", found[0]);
}

/// Profiles whose C grows as N^0.83 D, as softmax attention over a long text makes it (fitting.md,
/// section 1.18), or as N D.
fn profiles(power_of_n: f64) -> (Dataset, Vec<f64>) {
    let theta = [6.0, 7.0, 0.5, 0.34, 0.30];
    let budgets: Vec<f64> = (0..6).map(|i| 1e19 * 4_f64.powi(i)).collect();
    let mut points = Vec::new();
    for (budget, centre) in budgets.iter().zip(0..) {
        for size in -3..=3 {
            let parameters = 2e8 * 2_f64.powi(size) * 4_f64.powf(0.47 * f64::from(centre));
            let tokens =
                budget / (6.0 * 1e9_f64.powf(1.0 - power_of_n) * parameters.powf(power_of_n));
            let run = RunKey(u32::try_from(points.len()).unwrap());
            let exact = Chinchilla.predict(&theta, &LogPoint::new(parameters, tokens, *budget));
            let luck = 1.0 + 5e-4 * (f64::from(run.0) * 2.3).sin();
            let (flops, loss_nats) = (*budget, exact * luck);
            points.push(Observation { run, parameters, tokens, flops, loss_nats, seed: 0 });
        }
    }
    (Dataset::new(&points).unwrap(), budgets)
}

#[test]
fn profiles_say_what_their_exponents_add_up_to() {
    let sum = |power: f64| {
        let (dataset, budgets) = profiles(power);
        isoflop::fit(&dataset, &budgets, &IsoflopOptions::default()).exponent_sum
    };
    let plain = sum(1.0);
    assert!((plain.value().unwrap() - 1.0).abs() < 0.02, "{plain:?}");
    assert_eq!(findings(&[approach("isoflop", known(0.5, 0.1), Some(plain))]), Vec::new());
    let other = sum(0.83);
    let found = findings(&[approach("isoflop", known(0.5, 0.1), Some(other.clone()))]);
    assert_eq!(found.len(), 1, "{other:?}");
    assert_eq!(found[0].name, "exponent-sum");
}

#[test]
fn the_sum_of_an_envelope_is_that_of_its_two_lines() {
    // A dense ladder on a surface without floor: the best size is bracketed nearly everywhere.
    let study = Study {
        theta: [60_f64.ln(), 300_f64.ln(), -40.0, 0.35, 0.4],
        sizes: (0..40).map(|i| 1e4 * 1.2_f64.powi(i)).collect(),
        tokens: (0..40).map(|i| 1e5 * 1.15_f64.powi(i)).collect(),
        ..Study::ladder(3)
    };
    let fitted = envelope::fit(&study.dataset(), &EnvelopeOptions::default()).unwrap();
    let sum = fitted.exponent_sum();
    let value = |line: &crate::envelope::PowerLine| line.exponent.value().unwrap();
    let added = value(&fitted.parameters) + value(&fitted.tokens);
    assert!((sum.value().unwrap() - added).abs() < 1e-12);
    let (low, high) = sum.interval().unwrap();
    assert!(low <= 1.0 && 1.0 <= high, "C is 6 N D: {low} to {high}");
}
