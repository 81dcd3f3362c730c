//! Which law predicts what it has not seen, and what counts as not seen.

use super::*;
use crate::law::LawName;
use crate::planted::Study;

#[test]
fn the_planted_law_is_preferred_and_a_tie_goes_to_fewer_parameters() {
    let study = Study { point_sd: 0.002, seed: 8, ..Study::ladder(7) };
    let laws = [LawName::Coupled, LawName::Power, LawName::Chinchilla].map(LawChoice::of);
    let selection = select(&laws, &study.dataset(), &FitOptions::default()).unwrap();
    assert_eq!(selection.preferred, Some(2), "{selection:?}");
    let errors: Vec<f64> = selection.candidates.iter().map(|one| one.error.unwrap()).collect();
    assert!(errors[1] > 10.0 * errors[2], "{errors:?}");
    let splits = &selection.candidates[0].held_out;
    assert_eq!(splits.len(), 4 + 1 + 7);
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

/// Runs of a law of C, each 5 times the last, with an earlier point at half of its C that has luck of
/// its own.
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
