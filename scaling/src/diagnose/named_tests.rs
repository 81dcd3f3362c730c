//! Warnings that rest on what a fit and its draws look like: each with data that raise it, and with
//! similar data that do not.

use super::Finding;
use super::tests::{along_compute, findings, findings_of, names};
use crate::law::{LawChoice, LawName, LogPoint};
use crate::observation::{Covariates, Dataset, Observation, RunKey};
use crate::random::Stream;

fn text_of(found: &[Finding], name: &str) -> String {
    let one = found.iter().find(|one| one.name == name);
    one.unwrap_or_else(|| panic!("no `{name}` among {found:?}")).text.clone()
}

/// Noisy losses along compute whose slope falls from 0.3 to `between`, and then is `last`; a law
/// with one break can follow one bend.
fn bends(between: f64, last: f64, mut noise: Stream) -> Dataset {
    let exact = along_compute(|run, _| {
        let x = f64::from(run) / 39.0;
        let first = 0.3 * x.min(0.35);
        let middle = between * (x.min(0.65) - 0.35).max(0.0);
        4.0 * (-4.0 * (first + middle + last * (x - 0.65).max(0.0))).exp()
    });
    let noisy = |point: &Observation| {
        let loss_nats = point.loss_nats * (0.002 * noise.normal()).exp();
        Observation { loss_nats, ..*point }
    };
    Dataset::new(&exact.points().iter().map(noisy).collect::<Vec<_>>()).unwrap()
}

#[test]
fn two_bends_and_one_break_have_several_minima_and_draws_that_switch() {
    let noise = Stream::new(2, 0);
    let found = findings(LawName::BrokenPower, &bends(0.15, 0.3, noise.clone()));
    let text = text_of(&found, "several-minima");
    assert!(text.contains("others within 0.5 %, the next 0."), "{text}");
    let text = text_of(&found, "basin-switch");
    assert!(text.ends_with("draws have another minimum than the fit's"), "{text}");
    let found = names(&findings(LawName::BrokenPower, &bends(0.15, 0.15, noise)));
    assert!(!found.contains(&"several-minima") && !found.contains(&"basin-switch"), "{found:?}");
}

#[test]
fn an_exponent_that_noise_hides_is_loose() {
    let noisy = |sd: f64| {
        along_compute(|run, flops| {
            (1e20 / flops).powf(0.05) * (sd * Stream::new(4, u64::from(run)).normal()).exp()
        })
    };
    let text = text_of(&findings(LawName::Power, &noisy(0.8)), "loose-exponent");
    assert!(text.starts_with("the standard error of `alpha` is "), "{text}");
    assert!(!names(&findings(LawName::Power, &noisy(0.08))).contains(&"loose-exponent"));
}

/// Exact accuracies of the sigmoid with so much accuracy at loss zero.
fn accuracies(top: f64, n_losses: u32) -> Dataset {
    let theta = [(top / (1.0 - top)).ln(), -1.1, 1.7, 1.2];
    let law = LawName::Sigmoid.law();
    let row = |run: u32| {
        let task_loss = Some(0.1 + 0.1 * f64::from(run % n_losses));
        let covariates = Covariates { task_loss, ..Covariates::default() };
        let (parameters, tokens) = (1e6, 1e8 * f64::from(1 + run));
        let flops = 6.0 * parameters * tokens;
        let at = LogPoint::new(parameters, tokens, flops).with(&covariates);
        let loss_nats = law.predict(&theta, &at);
        (
            Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 },
            covariates,
        )
    };
    Dataset::select_rows(&(0..24).map(row).collect::<Vec<_>>(), |_, _| None).unwrap()
}

#[test]
fn a_coefficient_at_the_end_of_its_range_is_named() {
    let text = text_of(&findings(LawName::Sigmoid, &accuracies(0.999_9, 24)), "at-bound");
    assert_eq!(text, "`b` = 9.999e-1 at the end of its range");
    assert!(!names(&findings(LawName::Sigmoid, &accuracies(0.9, 24))).contains(&"at-bound"));
}

/// A grid of sizes and token counts with the covariates of `of`, each a run of its own, and exact
/// losses of `choice`.
fn grid(
    (choice, theta): (LawChoice, &[f64]),
    (n_sizes, n_counts): (u32, u32),
    of: impl Fn(u32, f64) -> Covariates,
) -> Dataset {
    let row = |run: u32| {
        let parameters = 1e6 * 3_f64.powi((run / n_counts).cast_signed());
        let tokens = 2e7 * 3_f64.powi((run % n_counts).cast_signed());
        let flops = 6.0 * parameters * tokens;
        let covariates = of(run, tokens);
        let at = LogPoint::new(parameters, tokens, flops).with(&covariates);
        let loss_nats = choice.law().predict(theta, &at);
        (
            Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 },
            covariates,
        )
    };
    let rows: Vec<_> = (0..n_sizes * n_counts).map(row).collect();
    Dataset::select_rows(&rows, |_, _| None).unwrap()
}

const ADDITIVE: [f64; 5] = [6.0, 7.5, 0.6, 0.34, 0.37];

/// What a law needs is missing in `few`, by the words of `why`, and there in `enough`.
fn check_whole(choice: LawChoice, why: &str, few: &Dataset, enough: &Dataset) {
    let (found, inference) = findings_of(choice.law(), few);
    let text = text_of(&found, "whole-law");
    assert!(text.contains(why), "{choice:?}: {text}");
    for one in &inference.coefficients {
        assert_eq!(one.estimate, crate::interval::Estimate::not_identified(text.clone()));
    }
    let (found, _) = findings_of(choice.law(), enough);
    assert!(!names(&found).contains(&"whole-law"), "{choice:?}: {found:?}");
}

#[test]
fn a_law_with_too_few_sizes_or_token_counts_is_refused_as_a_whole() {
    let law = LawChoice::of(LawName::Chinchilla);
    let of = |shape: (u32, u32)| grid((law, &ADDITIVE), shape, |_, _| Covariates::default());
    let needs = law.law().needs();
    let count = |n: usize| u32::try_from(n).unwrap();
    let (n, d) = (count(needs.n_sizes), count(needs.n_token_counts));
    check_whole(law, &format!("{} distinct sizes N", n - 1), &of((n - 1, 8)), &of((n, 8)));
    check_whole(law, &format!("{} distinct token counts D", d - 1), &of((8, d - 1)), &of((8, d)));
}

#[test]
fn a_law_of_bits_is_refused_as_a_whole_without_three_precisions_and_a_low_one() {
    let law = LawChoice::of(LawName::Precision);
    let of = |kinds: &[f64]| {
        let bits = |run: u32, _: f64| {
            let own = kinds[(run + run / 5) as usize % kinds.len()];
            Covariates { bits: [Some(own), None, None], ..Covariates::default() }
        };
        grid((law, &[&ADDITIVE[..], &[0.3]].concat()), (5, 5), bits)
    };
    let (two, three) = (of(&[4.0, 8.0]), of(&[4.0, 8.0, 16.0]));
    check_whole(law, "2 values of the bits of the weights", &two, &three);
    let (high, low) = (of(&[6.0, 8.0, 16.0]), of(&[5.0, 8.0, 16.0]));
    check_whole(law, "the bits of the weights are 6 or more", &high, &low);
}

#[test]
fn laws_of_repetition_rates_and_task_losses_are_refused_as_a_whole_one_run_short() {
    let law = LawChoice::of(LawName::DataConstrained);
    let repeating = |n: u32| {
        let unique = |run: u32, tokens: f64| {
            let reuse = if run < 5 * n && run.is_multiple_of(5) { 6.0 } else { 1.4 };
            Covariates { unique_tokens: Some(tokens / reuse), ..Covariates::default() }
        };
        grid((law, &[&ADDITIVE[..], &[0.05, 0.1]].concat()), (5, 5), unique)
    };
    check_whole(law, "3 points repeat their data", &repeating(3), &repeating(4));
    let law = LawChoice::of(LawName::Annealing);
    let falling = |n: u32| {
        let rates = |run: u32, tokens: f64| {
            let fall = if run < n { 0.2 } else { 0.0 };
            Covariates { rates: Some((tokens * 1e-6, fall)), ..Covariates::default() }
        };
        grid((law, &[0.6, 1.8, 0.3, 0.7]), (1, 12), rates)
    };
    check_whole(law, "1 of 12 points have a falling", &falling(1), &falling(2));
    let law = LawChoice::of(LawName::Sigmoid);
    check_whole(law, "4 distinct task losses", &accuracies(0.9, 4), &accuracies(0.9, 5));
}
