//! The interval of a chain against what is planted, and against the spread over studies.

use super::*;
use crate::fit::{FitOptions, fit};
use crate::interval::{IntervalOptions, Scheme, infer};
use crate::law::LawName;
use crate::objective::Objective;
use crate::observation::{Dataset, Observation, RunKey};
use crate::random::Stream;

/// ln of the prefactor and exponent of the task loss in C.
const LOSS: [f64; 2] = [3.4, 0.1];
/// u_b, u_a, ln k and x0 of the accuracy.
const ACCURACY: [f64; 4] = [3.0, -1.1, 1.7, 0.9];
/// Standard deviation of the luck in ln of the task loss, and in ln of the accuracy.
const LUCK: [f64; 2] = [0.01, 0.02];

struct Study {
    losses: Vec<(Observation, Covariates)>,
    accuracies: Vec<(Observation, Covariates)>,
}

fn law_of_loss() -> &'static dyn Law {
    LawName::Power.law()
}

/// A run of so many FLOPs: its task loss and its accuracy, with luck.
fn measured(flops: f64, stream: &mut Stream) -> (f64, f64) {
    let at = LogPoint::new(1.0, 1.0, flops);
    let task_loss = law_of_loss().predict(&LOSS, &at) * (LUCK[0] * stream.normal()).exp();
    let accuracy = at_loss((LawName::Sigmoid.law(), &ACCURACY), task_loss);
    (task_loss, accuracy * (LUCK[1] * stream.normal()).exp())
}

fn study(n_runs: u32, stream: &mut Stream) -> Study {
    let mut study = Study { losses: Vec::new(), accuracies: Vec::new() };
    for run in 0..n_runs {
        let flops = 1e12 * 1e5_f64.powf(f64::from(run) / f64::from(n_runs - 1));
        let (task_loss, accuracy) = measured(flops, stream);
        let row = |loss_nats| Observation {
            run: RunKey(run),
            parameters: 1.0,
            tokens: flops / 6.0,
            flops,
            loss_nats,
            seed: 0,
        };
        let known = Covariates { task_loss: Some(task_loss), ..Covariates::default() };
        study.losses.push((row(task_loss), Covariates::default()));
        study.accuracies.push((row(accuracy.min(1.0)), known));
    }
    study
}

fn inference(law: LawName, rows: &[(Observation, Covariates)], draws: usize) -> Inference {
    let data = Dataset::select_rows(rows, |_, _| None).unwrap();
    let objective =
        if law == LawName::Sigmoid { Objective::LossSquares } else { Objective::LogSquares };
    let options = FitOptions { objective, ..FitOptions::default() };
    let fitted = fit(law.law(), &data, &options).unwrap();
    let interval = IntervalOptions { draws, ..IntervalOptions::default() };
    infer(&fitted, &data, &options, &interval).unwrap()
}

fn chain_of(study: &Study, draws: usize, flops: f64) -> Chained {
    let first = inference(LawName::Power, &study.losses, draws);
    let second = inference(LawName::Sigmoid, &study.accuracies, draws);
    estimate(&first, &second, &LogPoint::new(1.0, 1.0, flops))
}

#[test]
fn the_value_is_that_of_the_two_laws_one_after_the_other() {
    for n_runs in [8, 20] {
        let found = chain_of(&study(n_runs, &mut Stream::new(3, 1)), 200, 1e17);
        let truth = at_loss(
            (LawName::Sigmoid.law(), &ACCURACY),
            law_of_loss().predict(&LOSS, &LogPoint::new(1.0, 1.0, 1e17)),
        );
        let (value, (low, high)) =
            (found.accuracy.value().unwrap(), found.accuracy.interval().unwrap());
        assert!((value / truth - 1.0).abs() < 0.05, "{n_runs}: {value} for {truth}");
        assert!(low < value && value < high && high <= 1.0, "{n_runs}: {low} {value} {high}");
        let (wider_low, wider_high) = found.measured.interval().unwrap();
        assert!(wider_low < low && high <= wider_high && wider_high <= 1.0, "{n_runs}");
    }
}

/// Aim: the interval of the law holds the truth, and that of one measurement a new run, about as
/// often as they say. Method: studies of 20 runs, predicted at three times the largest C.
#[test]
fn intervals_hold_the_truth_and_a_new_run_as_often_as_they_say() {
    const STUDIES: u64 = 150;
    let flops = 3e17;
    let at = LogPoint::new(1.0, 1.0, flops);
    let truth = at_loss((LawName::Sigmoid.law(), &ACCURACY), law_of_loss().predict(&LOSS, &at));
    let (mut n_law, mut n_new, mut n_known) = (0, 0, 0);
    for seed in 0..STUDIES {
        let mut stream = Stream::new(seed, 2);
        let found = chain_of(&study(20, &mut stream), 200, flops);
        let (_, new) = measured(flops, &mut stream);
        let holds = |estimate: &Estimate, value: f64| {
            estimate.interval().is_some_and(|(low, high)| low <= value && value <= high)
        };
        n_known += usize::from(found.accuracy.value().is_some());
        n_law += usize::from(holds(&found.accuracy, truth));
        n_new += usize::from(holds(&found.measured, new.min(1.0)));
    }
    let share = |n: usize| n as f64 / n_known as f64;
    assert!(n_known as u64 > STUDIES * 9 / 10, "{n_known}");
    assert!((0.88..=0.99).contains(&share(n_law)), "{}", share(n_law));
    assert!((0.88..=0.99).contains(&share(n_new)), "{}", share(n_new));
}

#[test]
fn what_one_step_does_not_tell_the_chain_does_not_either() {
    let study = study(20, &mut Stream::new(5, 1));
    let whole = inference(LawName::Power, &study.losses, 200);
    let mut blind = inference(LawName::Sigmoid, &study.accuracies, 200);
    blind.whole = Some("there is no top".to_owned());
    let found = estimate(&whole, &blind, &LogPoint::new(1.0, 1.0, 1e17));
    assert_eq!(found.accuracy, Estimate::not_identified("there is no top"));
    assert_eq!(found.measured, found.accuracy);
    assert_eq!(estimate_at_budget(&whole, &blind, 1e17, 6.0), None);
    let reason = |chained: &Chained| match &chained.accuracy {
        Estimate::NotIdentified { reason } => reason.clone(),
        known @ Estimate::Identified { .. } => format!("{known:?}"),
    };
    blind.whole = None;
    let why = "two runs are too few".to_owned();
    blind.resampled.scheme = Scheme::Unavailable { n_runs: 2, reason: why.clone() };
    blind.resampled.replicates.clear();
    let at = LogPoint::new(1.0, 1.0, 1e17);
    assert_eq!(reason(&estimate(&whole, &blind, &at)), why);
    // Draws of the task loss that lie far apart tell nothing of the accuracy.
    let seen = inference(LawName::Sigmoid, &study.accuracies, 200);
    let mut wide = whole.clone();
    for (n, draw) in wide.resampled.replicates.iter_mut().enumerate() {
        draw[0] += if n % 2 == 0 { 1.0 } else { -1.0 };
    }
    let found = reason(&estimate(&wide, &seen, &at));
    assert!(found.starts_with("the task loss is not identified: its interval"), "{found}");
}
