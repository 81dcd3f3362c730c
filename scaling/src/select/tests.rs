//! Which law predicts what it has not seen, and what counts as not seen.

use super::*;
use crate::law::LawName;
use crate::observation::RunKey;
use crate::planted::Study;
use crate::random::Stream;

#[test]
fn the_planted_law_is_preferred_and_a_tie_goes_to_fewer_parameters() {
    let study = Study { point_sd: 0.002, seed: 8, ..Study::ladder(7) };
    let laws = [LawName::Coupled, LawName::Power, LawName::Chinchilla].map(LawChoice::of);
    let selection = select(&laws, &study.dataset(), &FitOptions::default()).unwrap();
    assert_eq!(selection.preferred, Some(2), "{selection:?}");
    let errors: Vec<f64> = selection.candidates.iter().map(|one| one.error.unwrap()).collect();
    assert!(errors[1] > 10.0 * errors[2], "{errors:?}");
    let splits = &selection.candidates[0].held_out;
    assert_eq!(splits.len(), 5 + 7);
}

#[test]
fn splits_that_leave_too_little_say_so_and_are_not_counted() {
    let study = Study { point_sd: 0.002, seed: 8, ..Study::ladder(2) };
    let tokens = study.tokens[..4].to_vec();
    let data = Study { tokens, ..study }.dataset();
    let laws = [LawName::Chinchilla].map(LawChoice::of);
    let selection = select(&laws, &data, &FitOptions::default()).unwrap();
    let text = format!("{:?}", selection.candidates[0].held_out);
    assert!(text.contains("points are left, 7 are needed"), "{text}");
}

/// Runs of a law of C, each 5 times the last, with an earlier point at half of its C that has luck
/// of its own.
fn curves(n: u32) -> Dataset {
    let mut points = Vec::new();
    for run in 0..n {
        for (share, luck) in [(0.5, 0.05), (1.0, 0.0)] {
            let flops = share * 1e15 * 5.0_f64.powf(f64::from(run));
            points.push(Observation {
                run: RunKey(run),
                parameters: 1e6 * f64::from(run + 1),
                tokens: flops / 6e6,
                flops,
                loss_nats: (1.5 + (1e17 / flops).powf(0.2)) * (1.0 + luck),
                seed: 0,
            });
        }
    }
    Dataset::new(&points).unwrap()
}

#[test]
fn no_point_of_a_predicted_run_is_fitted() {
    let laws = [LawName::PowerFloor].map(LawChoice::of);
    let selection = select(&laws, &curves(8), &FitOptions::default()).unwrap();
    let found: Vec<HeldOut> =
        selection.candidates[0].held_out.iter().filter_map(|one| one.clone().ok()).collect();
    for one in &found {
        assert_eq!(one.n_fitted % 2, 0, "whole runs are left: {one:?}");
    }
    // The end of the largest run alone is predicted; seven runs of two points are left.
    let largest = found.iter().find(|one| one.split == Split::LargestCompute).unwrap();
    assert_eq!((largest.n_fitted, largest.n_predicted), (14, 1));
}

/// Eight sizes at each of four budgets, each a little off, such as by 0.002 for whole steps.
fn budgets(off: f64) -> Dataset {
    let study = Study::ladder(8);
    let mut points = Vec::new();
    for (step, budget) in (0_u32..).zip([1e14, 3e14, 9e14, 2.7e15]) {
        for (size, parameters) in (0_u32..).zip(&study.sizes) {
            let flops = budget * (1.0 - off * f64::from((3 * size + step) % 8));
            let tokens = flops / (6.0 * parameters);
            points.push(Observation {
                run: RunKey(8 * step + size),
                parameters: *parameters,
                tokens,
                flops,
                loss_nats: study.loss(*parameters, tokens),
                seed: 0,
            });
        }
    }
    Dataset::new(&points).unwrap()
}

#[test]
fn a_budget_is_held_out_whole() {
    let laws = [LawName::Chinchilla].map(LawChoice::of);
    for off in [0.0, 0.002] {
        let selection = select(&laws, &budgets(off), &FitOptions::default()).unwrap();
        let found = selection.candidates[0].held_out.iter().filter_map(|one| one.clone().ok());
        let by_compute = found.filter(|one| !matches!(one.split, Split::Size { .. }));
        let counts: Vec<(usize, usize)> =
            by_compute.map(|one| (one.n_fitted, one.n_predicted)).collect();
        assert_eq!(counts, [(24, 8), (16, 16), (8, 24)], "{off}: {selection:?}");
    }
}

/// Where one budget is left a law of C fits with any exponent.
#[test]
fn what_starts_choose_among_equals_is_not_counted() {
    let laws = [LawName::Power].map(LawChoice::of);
    let selection = select(&laws, &budgets(0.002), &FitOptions::default()).unwrap();
    let text = format!("{:?}", selection.candidates[0].held_out);
    assert!(text.contains("distinct compute values C"), "{text}");
}

#[test]
fn runs_of_a_predicted_runs_trunk_are_not_fitted() {
    let mut points = curves(8).points().to_vec();
    for point in &mut points {
        point.parameters = 1e6 * f64::from(point.run.0 / 2 + 1);
    }
    let clustered = Dataset::new(&points).unwrap().clustered(|point| point.run.0 / 2).unwrap();
    let laws = [LawName::PowerFloor].map(LawChoice::of);
    let selection = select(&laws, &clustered, &FitOptions::default()).unwrap();
    let first = selection.candidates[0].held_out[0].clone().unwrap();
    assert_eq!((first.split, first.n_fitted, first.n_predicted), (Split::LargestCompute, 12, 1));
}

#[test]
fn splits_that_hold_out_the_same_count_once_and_sizes_stand_beside_them() {
    let laws = [LawName::Power, LawName::PowerFloor].map(LawChoice::of);
    let selection = select(&laws, &curves(8), &FitOptions::default()).unwrap();
    let one = &selection.candidates[0];
    let (sizes, compute): (Vec<HeldOut>, Vec<HeldOut>) = one
        .held_out
        .iter()
        .filter_map(|one| one.clone().ok())
        .partition(|one| matches!(one.split, Split::Size { .. }));
    // Beyond 1/2 there is the end of the largest run alone, which is the largest C.
    let beyond = |factor| Split::Beyond { factor };
    let splits: Vec<Split> = compute.iter().map(|one| one.split).collect();
    assert_eq!(splits, [Split::LargestCompute, beyond(4.0), beyond(10.0), beyond(30.0)]);
    let mean = |all: &[HeldOut]| {
        all.iter().map(|one| one.mean_absolute_error).sum::<f64>() / all.len() as f64
    };
    assert!((one.error.unwrap() / mean(&compute) - 1.0).abs() < 1e-12, "{one:?}");
    assert!((one.size_error.unwrap() / mean(&sizes) - 1.0).abs() < 1e-12, "{one:?}");
    assert_eq!(selection.basis, Some(Basis::Compute));
}

#[test]
fn errors_at_larger_compute_decide_and_a_tie_goes_to_fewer_parameters() {
    let candidate = |name, n_parameters, error, size_error| Candidate {
        choice: LawChoice::of(name),
        n_parameters,
        held_out: Vec::new(),
        error: Some(error),
        size_error: Some(size_error),
        coverage: None,
    };
    let all = [
        candidate(LawName::Power, 2, 0.03, 0.001),
        candidate(LawName::Coupled, 6, 0.0100, 0.02),
        candidate(LawName::Chinchilla, 5, 0.0105, 0.03),
    ];
    assert_eq!(choice(&all), (Some(2), Some(Basis::Compute)));
}

// All runs end at one C, so that without the runs of what is predicted nothing is left to fit.
#[test]
fn where_no_split_by_compute_is_left_sizes_decide_and_it_is_said() {
    let study = Study::ladder(7);
    let mut points = study.observations();
    for point in &mut points {
        let factor = study.sizes[0] / point.parameters;
        point.tokens *= factor;
        point.flops *= factor;
        point.loss_nats = study.loss(point.parameters, point.tokens);
    }
    let data = Dataset::new(&points).unwrap();
    let laws = [LawName::Power, LawName::Chinchilla].map(LawChoice::of);
    let selection = select(&laws, &data, &FitOptions::default()).unwrap();
    assert_eq!((selection.preferred, selection.basis), (Some(1), Some(Basis::Sizes)));
    assert!(selection.candidates.iter().all(|one| one.error.is_none()), "{selection:?}");
}

#[test]
fn the_right_law_covers_what_it_has_not_seen_and_a_wrong_one_does_not() {
    let laws = [LawName::PowerFloor, LawName::Power].map(LawChoice::of);
    let mut shares = [0.0; 2];
    let n = 10;
    for seed in 0..n {
        let mut stream = Stream::new(seed, 0);
        // One run a budget, with a floor.
        let point = |run: u32| {
            let flops = 1e15 * 2_f64.powi(run.cast_signed());
            let loss_nats = (1.5 + (1e17 / flops).powf(0.2)) * (0.001 * stream.normal()).exp();
            let (parameters, tokens) = (1e6, flops / 6e6);
            Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 }
        };
        let data = Dataset::new(&(0..24).map(point).collect::<Vec<_>>()).unwrap();
        let selection = select(&laws, &data, &FitOptions::default()).unwrap();
        assert_eq!(selection.preferred, Some(0));
        for (share, one) in shares.iter_mut().zip(&selection.candidates) {
            *share += one.coverage.unwrap() / n as f64;
        }
    }
    eprintln!("{shares:?}");
    assert!(shares[0] > 0.9 && shares[1] < 0.75, "{shares:?}");
}
