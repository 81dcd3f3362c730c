//! How the runs of a study are resampled: by themselves, or with those that share their trunk.

use api::MethodFit;
use coordinator::fits::fit_report;
use coordinator::store::read::FitInputs;
use domain::ids::ContentHash;
use serde_json::json;

use super::{BETA, CHECKPOINTS, evaluations, identified, method, run, sizes, study};

#[test]
fn sixteen_runs_of_one_group_are_resampled_by_bootstrap() {
    let mut inputs = study(&[], 0, &json!({"group_by": "architecture"}));
    for (seed, luck) in (0..).zip([-0.003, -0.001, 0.001, 0.003]) {
        for parameters in sizes(4) {
            let one = run("llama", parameters, seed);
            inputs.evaluations.extend(evaluations(&one, &CHECKPOINTS, luck));
            inputs.runs.push(one);
        }
    }
    let report = fit_report(&inputs).unwrap();
    assert!(report.notes.iter().any(|note| note.contains("1000 draws")), "{:?}", report.notes);
    let fit = method(&report.groups[0], "chinchilla");
    assert_eq!(fit.intervals, "bootstrap by run in 4 strata, 1000 draws, seed 0");
    let (value, low, high) = identified(fit, "beta");
    assert!(low <= BETA && BETA <= high, "{value} [{low}, {high}]");
}

/// So many trunks at each of six sizes, and runs of four lengths from each.
fn branched(fit: &serde_json::Value, n_trunks: u32) -> FitInputs {
    let mut inputs = study(&[], 0, fit);
    for (place, parameters) in sizes(6).into_iter().enumerate() {
        for seed in 0..n_trunks {
            let luck = 0.003 * (40.0 * place as f64 + 7.0 * f64::from(seed)).sin();
            for (length, steps) in (0..).zip([1000, 2154, 4642, 10_000]) {
                let mut one = run("llama", parameters, 10 * seed + length);
                one.flops_exact *= steps as f64 / one.steps as f64;
                one.steps = steps;
                one.data_point_steps = vec![one.steps];
                one.trunk = Some(ContentHash::of(format!("{parameters}-{seed}").as_bytes()));
                inputs.evaluations.extend(evaluations(&one, &[one.steps], luck));
                inputs.runs.push(one);
            }
        }
    }
    inputs
}

#[test]
fn runs_of_one_trunk_are_resampled_together() {
    let fit = json!({"group_by": "architecture", "methods": ["chinchilla"], "draws": 200});
    let mut inputs = branched(&fit, 2);
    let report = fit_report(&inputs).unwrap();
    let fit = method(&report.groups[0], "chinchilla");
    assert_eq!(fit.intervals, "bootstrap by trunk (12 trunks of 48 runs), 200 draws, seed 0");
    let is_said =
        |note: &&String| note.contains("intervals from 12 trunks of 48 runs: whole trunks");
    assert!(report.notes.iter().any(|note| is_said(&note)), "{:?}", report.notes);
    let width = |fit: &MethodFit| {
        let (_, low, high) = identified(fit, "alpha");
        high - low
    };
    let observations = &report.groups[0].observations;
    assert_eq!(observations[3].trunk.as_deref(), Some("llama-40000-0"), "{:?}", observations[3]);
    // Without trunks each run is drawn by itself; one of its own changes nothing.
    let by_run = |inputs: &FitInputs| {
        let report = fit_report(inputs).unwrap();
        assert!(report.groups[0].observations.iter().all(|one| one.trunk.is_none()));
        method(&report.groups[0], "chinchilla").clone()
    };
    for run in &mut inputs.runs {
        run.trunk = Some(ContentHash::of(run.name.as_bytes()));
    }
    let alone = by_run(&inputs);
    inputs.runs.iter_mut().for_each(|run| run.trunk = None);
    assert_eq!(alone, by_run(&inputs));
    assert!(alone.intervals.starts_with("bootstrap by run"), "{}", alone.intervals);
    assert!(width(fit) > width(&alone), "{} {}", width(fit), width(&alone));
}

#[test]
fn few_trunks_and_held_out_runs_of_fitted_trunks_are_said() {
    let methods = json!(["chinchilla"]);
    let fit =
        json!({"group_by": "architecture", "methods": methods, "hold_out": "largest_compute"});
    let report = fit_report(&branched(&fit, 1)).unwrap();
    let fit = method(&report.groups[0], "chinchilla");
    assert!(fit.intervals.starts_with("leave-one-trunk-out jackknife (6 trunks"), "{fit:?}");
    let shared = fit.warnings.iter().find(|text| text.starts_with("shared-trunks: ")).unwrap();
    assert!(shared.contains("23 runs have 6 trunks"), "{shared}");
    let said = |note: &String| note.contains("1 of 1 held-out runs share a trunk with fitted ones");
    assert!(report.notes.iter().any(said), "{:?}", report.notes);
}
