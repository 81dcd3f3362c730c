//! Studies on a planted loss surface, from stored results to the report.

use std::collections::BTreeMap;

use api::{EstimateView, FitReport, GroupFit, MethodFit};
use coordinator::fits::fit_report;
use coordinator::store::read::{FitEvaluation, FitInputs, FitRun, FitUnmeasured};
use domain::attempt::AttemptEnd;
use domain::ids::RunId;
use serde_json::json;

mod groups;
mod resampling;
mod schedules;

const BATCH_TOKENS: u64 = 1000;
const ALPHA: f64 = 0.35;
const BETA: f64 = 0.4;
const FLOOR: f64 = 1.5;

fn planted_loss(parameters: f64, tokens: f64) -> f64 {
    FLOOR + 60.0 * parameters.powf(-ALPHA) + 300.0 * tokens.powf(-BETA)
}

/// From 40,000 parameters on, each size 2.5 times the last.
fn sizes(n: usize) -> Vec<u64> {
    [40_000, 100_000, 250_000, 625_000, 1_562_500, 3_906_250][..n].to_vec()
}

/// Ten steps over two decades.
const CHECKPOINTS: [u64; 10] = [100, 167, 278, 464, 774, 1292, 2154, 3594, 5995, 10_000];

fn run(group: &str, parameters: u64, seed: u32) -> FitRun {
    let steps = CHECKPOINTS[9];
    let flops = 6.0 * parameters as f64 * (steps * BATCH_TOKENS) as f64;
    FitRun {
        run_id: format!("r_{group}-{parameters}-{seed}").parse::<RunId>().expect("a run id"),
        name: format!("{group}-{parameters}-{seed}"),
        axis_values: BTreeMap::from([("architecture".to_owned(), group.to_owned())]),
        state: "succeeded".to_owned(),
        parameters_non_embedding: parameters,
        parameters_total: parameters + 50_000,
        batch_tokens: BATCH_TOKENS,
        steps,
        flops_exact: flops,
        flops_published: 0.9 * flops,
        budget_flops: None,
        trunk: None,
        training_tokens: None,
        warmup_steps: 0,
        is_decaying: false,
        data_point_steps: CHECKPOINTS.to_vec(),
        end: Some(AttemptEnd::Succeeded),
        message: String::new(),
    }
}

/// Its measured checkpoints, with a small wobble that stands for the noise of a seed.
fn evaluations(run: &FitRun, steps: &[u64], luck: f64) -> Vec<FitEvaluation> {
    let measure = |step: &u64| FitEvaluation {
        run_id: run.run_id.clone(),
        step: *step,
        task: "validation_loss".to_owned(),
        value: planted_loss(run.parameters_non_embedding as f64, (step * BATCH_TOKENS) as f64)
            * (luck + 0.001 * ((step + 3 * run.parameters_non_embedding) as f64).sin()).exp(),
    };
    steps.iter().map(measure).collect()
}

fn study(groups: &[&str], n_sizes: usize, fit: &serde_json::Value) -> FitInputs {
    let mut inputs = FitInputs {
        study: "planted".to_owned(),
        fit_spec_json: fit.to_string(),
        runs: Vec::new(),
        evaluations: Vec::new(),
        unmeasured: Vec::new(),
        n_open_evaluations: 0,
    };
    for group in groups {
        for (place, parameters) in sizes(n_sizes).into_iter().enumerate() {
            let one = run(group, parameters, 0);
            // Irregular over the sizes: a smooth one would be a term of the law.
            let luck = 0.002 * (40.0 * place as f64).sin();
            inputs.evaluations.extend(evaluations(&one, &CHECKPOINTS, luck));
            inputs.runs.push(one);
        }
    }
    inputs
}

fn by_architecture() -> serde_json::Value {
    json!({"group_by": "architecture", "hold_out": "largest_size"})
}

fn method<'a>(group: &'a GroupFit, name: &str) -> &'a MethodFit {
    group.fits.iter().find(|fit| fit.method == name).expect("no method vanishes")
}

#[track_caller]
fn identified(fit: &MethodFit, name: &str) -> (f64, f64, f64) {
    match &fit.coefficients[name] {
        EstimateView::Identified { value, low, high } => (*value, *low, *high),
        EstimateView::NotIdentified { reason } => panic!("{name}: {reason}"),
    }
}

#[track_caller]
fn reasons(fit: &MethodFit) -> Vec<&str> {
    fit.coefficients.values().map(reason).collect()
}

#[track_caller]
fn reason(estimate: &EstimateView) -> &str {
    match estimate {
        EstimateView::NotIdentified { reason } => reason,
        EstimateView::Identified { .. } => panic!("{estimate:?}"),
    }
}

#[test]
fn four_sizes_of_two_architectures_give_a_frontier_that_predicts_the_largest() {
    let report = fit_report(&study(&["llama", "tnl"], 4, &by_architecture())).unwrap();
    assert!(!report.is_provisional);
    assert_eq!(report.groups.len(), 2);
    for group in &report.groups {
        assert_eq!(group.observations.len(), 40);
        assert_eq!(group.observations.iter().filter(|one| one.is_held_out).count(), 10);
        let envelope = method(group, "envelope");
        assert_eq!((envelope.n_runs, envelope.n_observations), (3, 30));
        let (value, low, high) = identified(envelope, "loss_exponent");
        assert!(0.0 < low && low < value && value < high, "{value} [{low}, {high}]");
        let [held, other] = &group.held_out[..] else { panic!("{:?}", group.held_out) };
        assert_eq!((held.method.as_str(), other.method.as_str()), ("envelope", "chinchilla"));
        assert!(held.relative_error.unwrap().abs() < 0.1, "{held:?}");
        assert_eq!(other.relative_error, None);
        let last = envelope.curve.last().unwrap();
        assert!(last.flops > held.flops, "{last:?}");
        assert!(last.low < Some(last.loss_nats) && Some(last.loss_nats) < last.high);
        for reason in reasons(method(group, "chinchilla")) {
            assert!(reason.contains("3 distinct sizes"), "{reason}");
        }
    }
    assert!(report.notes.iter().any(|note| note.contains("demonstration")));
    assert!(report.notes.iter().any(|note| note.contains("jackknife")));
}

#[test]
fn six_sizes_give_back_the_planted_law() {
    let inputs = study(&["llama"], 6, &json!({"methods": ["chinchilla"]}));
    let report = fit_report(&inputs).unwrap();
    let fit = method(&report.groups[0], "chinchilla");
    let planted = [("E", FLOOR), ("A", 60.0), ("B", 300.0), ("alpha", ALPHA), ("beta", BETA)];
    let derived = [
        ("parameters_exponent", BETA / (ALPHA + BETA)),
        ("tokens_exponent", ALPHA / (ALPHA + BETA)),
    ];
    for (name, planted) in planted.into_iter().chain(derived) {
        let (value, low, high) = identified(fit, name);
        assert!(low <= planted && planted <= high, "{name}: {value} [{low}, {high}]");
    }
    assert_eq!(fit.curve.len(), 40);
    assert_eq!(report.groups[0].group, "all");
}

#[test]
fn coefficients_have_stable_names() {
    let fit = json!({"methods": ["envelope", "isoflop", "chinchilla"]});
    let report = fit_report(&study(&["llama"], 4, &fit)).unwrap();
    let lines: Vec<String> = report.groups[0]
        .fits
        .iter()
        .flat_map(|fit| {
            let names: Vec<&str> = fit.coefficients.keys().map(String::as_str).collect();
            std::iter::once(format!("{}: {}", fit.method, names.join(" ")))
                .chain(fit.formulas.clone())
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    envelope: loss_coefficient loss_exponent parameters_coefficient parameters_exponent tokens_coefficient tokens_exponent
    L(C) = loss_coefficient·(C / 1e12)^-loss_exponent
    N_opt(C) = parameters_coefficient·(C / 1e12)^parameters_exponent
    D_opt(C) = tokens_coefficient·(C / 1e12)^tokens_exponent
    isoflop: parameters_coefficient parameters_exponent tokens_coefficient tokens_exponent
    N_opt(C) = parameters_coefficient·(C / 1e12)^parameters_exponent
    D_opt(C) = tokens_coefficient·(C / 1e12)^tokens_exponent
    chinchilla: A B E alpha beta parameters_exponent tokens_exponent
    L = E + A / N^alpha + B / D^beta
    N_opt(C) ∝ C^parameters_exponent with parameters_exponent = beta / (alpha + beta)
    D_opt(C) ∝ C^tokens_exponent with tokens_exponent = alpha / (alpha + beta)
    ");
}

#[test]
fn isoflop_profiles_find_the_planted_optimum() {
    let mut inputs = study(&[], 0, &json!({"methods": ["isoflop"]}));
    for budget in [1e13, 1e14, 1e15] {
        let best = (budget / 6.0_f64).powf(BETA / (ALPHA + BETA))
            * (ALPHA * 60.0 / (BETA * 300.0)).powf(1.0 / (ALPHA + BETA));
        for (seed, factor) in (0..).zip([0.25, 0.5, 1.0, 2.0, 4.0]) {
            let parameters = (best * factor).round();
            let tokens = budget / 6.0 / parameters;
            let mut one = run(&format!("b{budget:.0}"), 1, seed);
            one.parameters_non_embedding = parameters.to_string().parse().unwrap();
            one.batch_tokens = 1;
            one.steps = tokens.round().to_string().parse().unwrap();
            one.flops_exact = 6.0 * parameters * one.steps as f64;
            one.flops_published = 0.7 * one.flops_exact;
            one.budget_flops = Some(budget);
            one.data_point_steps = vec![one.steps];
            inputs.evaluations.push(FitEvaluation {
                run_id: one.run_id.clone(),
                step: one.steps,
                task: "validation_loss".to_owned(),
                value: planted_loss(parameters, tokens),
            });
            inputs.runs.push(one);
        }
    }
    let report = fit_report(&inputs).unwrap();
    let fit = method(&report.groups[0], "isoflop");
    assert_eq!((fit.n_runs, fit.points.len()), (15, 3));
    assert_eq!(fit.dropped, []);
    assert!(fit.intervals.contains("regression over budgets, 1 degrees"), "{}", fit.intervals);
    let (value, ..) = identified(fit, "parameters_exponent");
    assert!((value - BETA / (ALPHA + BETA)).abs() < 0.02, "{value}");
    // Budgets are exact FLOPs also where C counts otherwise.
    inputs.fit_spec_json = json!({"methods": ["isoflop"], "flops": "published"}).to_string();
    let published = fit_report(&inputs).unwrap();
    assert_eq!(method(&published.groups[0], "isoflop").points.len(), 3);
}

#[test]
fn without_budgets_the_isoflop_method_stands_there_with_the_reason() {
    let fit = json!({"methods": ["isoflop"], "hold_out": "largest_size"});
    let report = fit_report(&study(&["llama"], 4, &fit)).unwrap();
    let group = &report.groups[0];
    for reason in reasons(method(group, "isoflop")) {
        assert!(reason.contains("no run belongs to a budget"), "{reason}");
    }
    let held = &group.held_out[0];
    assert!(matches!(held.predicted_loss_nats, EstimateView::NotIdentified { .. }));
}

#[test]
fn a_diverged_run_is_excluded_with_all_its_points_and_not_replaced_as_held_out() {
    let mut inputs = study(&["llama"], 4, &by_architecture());
    let largest = inputs.runs.last_mut().unwrap();
    "diverged".clone_into(&mut largest.state);
    largest.end = Some(AttemptEnd::Diverged);
    "loss is not finite at step 9000\nmore".clone_into(&mut largest.message);
    let report = fit_report(&inputs).unwrap();
    let [excluded] = &report.excluded[..] else { panic!("{:?}", report.excluded) };
    assert_eq!(excluded.name, "llama-625000-0");
    assert_eq!(excluded.reason, "diverged: loss is not finite at step 9000");
    let group = &report.groups[0];
    assert_eq!(group.observations.len(), 30);
    assert!(group.held_out.is_empty());
    assert_eq!(method(group, "envelope").n_runs, 3);
    let said = "llama: what is held out has no measured loss, so nothing is predicted";
    assert!(report.notes.iter().any(|note| note == said), "{:?}", report.notes);
}

#[test]
fn failed_and_cancelled_runs_say_so() {
    let mut inputs = study(&["llama"], 4, &json!({}));
    "failed".clone_into(&mut inputs.runs[0].state);
    inputs.runs[0].end = Some(AttemptEnd::OutOfMemory);
    "killed".clone_into(&mut inputs.runs[0].message);
    "cancelled".clone_into(&mut inputs.runs[1].state);
    let report = fit_report(&inputs).unwrap();
    let reasons: Vec<&str> = report.excluded.iter().map(|one| one.reason.as_str()).collect();
    assert_eq!(reasons, ["failed (out_of_memory): killed", "cancelled"]);
    assert!(!report.is_provisional);
}

#[test]
fn a_running_study_is_fitted_provisionally_from_the_checkpoints_there_are() {
    let mut inputs = study(&["llama"], 4, &json!({"methods": ["envelope"]}));
    let (unfinished, unmeasured) = (inputs.runs[2].run_id.clone(), inputs.runs[3].run_id.clone());
    inputs.evaluations.retain(|one| one.run_id != unmeasured);
    inputs.evaluations.retain(|one| one.run_id != unfinished || one.step < 4000);
    "leased".clone_into(&mut inputs.runs[2].state);
    "queued".clone_into(&mut inputs.runs[3].state);
    let report = fit_report(&inputs).unwrap();
    assert!(report.is_provisional);
    let envelope = method(&report.groups[0], "envelope");
    assert_eq!(envelope.n_runs, 3);
    // What may still come is not missing, and a jackknife makes no draws.
    assert!(envelope.dropped.iter().all(|one| !one.what.contains("step")), "{envelope:?}");
    assert!(envelope.intervals.contains("jackknife"), "{}", envelope.intervals);
    assert!(!report.notes[0].contains("draws"), "{}", report.notes[0]);
    assert_eq!(report.draws, 200);
    assert!(report.notes[0].contains("2 of 4 runs are not over"), "{}", report.notes[0]);
    assert!(report.notes[0].contains("checkpoints of 1 of them"), "{}", report.notes[0]);
    assert_eq!(report.excluded[0].reason, "not finished: no checkpoint has a usable loss yet");

    let mut evaluated = study(&["llama"], 4, &json!({}));
    evaluated.n_open_evaluations = 1;
    assert!(fit_report(&evaluated).unwrap().is_provisional);
}

#[test]
fn a_study_without_results_names_every_method_and_no_number() {
    let mut inputs = study(&["llama"], 4, &by_architecture());
    inputs.evaluations.clear();
    let report = fit_report(&inputs).unwrap();
    assert_eq!(report.excluded.len(), 4);
    let group = &report.groups[0];
    assert_eq!(group.fits.len(), 2);
    for fit in &group.fits {
        assert!(reasons(fit).iter().all(|reason| *reason == "no run has a measured loss"));
        assert!(fit.curve.is_empty());
    }
    assert!(fit_report(&study(&[], 0, &json!({}))).unwrap().groups.is_empty());
}

#[test]
fn one_run_identifies_nothing() {
    let all = json!({"methods": ["envelope", "isoflop", "chinchilla"]});
    for fit in &fit_report(&study(&["llama"], 1, &all)).unwrap().groups[0].fits {
        assert!(!reasons(fit).is_empty(), "{}", fit.method);
    }
    let held = json!({"hold_out": "largest_size"});
    let report = fit_report(&study(&["llama"], 1, &held)).unwrap();
    let fits = &report.groups[0].fits;
    assert!(reasons(&fits[0])[0].contains("held out"), "{fits:?}");
}

#[test]
fn losses_that_are_no_numbers_are_left_out_with_the_reason() {
    let mut inputs = study(&["llama"], 4, &json!({}));
    inputs.evaluations[0].value = f64::INFINITY;
    inputs.evaluations[1].value = f64::NAN;
    inputs.evaluations[2].step = 0;
    let report = fit_report(&inputs).unwrap();
    let dropped = &method(&report.groups[0], "chinchilla").dropped;
    assert_eq!(dropped[0].what, "`llama-40000-0` at step 100");
    assert!(dropped[1].reason.contains("NaN"), "{dropped:?}");
    assert!(dropped[2].reason.contains("nothing was trained"), "{dropped:?}");
    // A number that is not finite would be null, which no reader of a report takes for one.
    let text = serde_json::to_string(&report).unwrap();
    serde_json::from_str::<FitReport>(&text).unwrap();
}

#[test]
fn the_hash_follows_the_results_and_not_the_queue() {
    let mut inputs = study(&["llama"], 2, &json!({}));
    "queued".clone_into(&mut inputs.runs[1].state);
    let hash = |inputs: &FitInputs| fit_report(inputs).unwrap().inputs_hash;
    let first = hash(&inputs);
    "leased".clone_into(&mut inputs.runs[1].state);
    assert_eq!(hash(&inputs), first);
    let last = inputs.evaluations.pop();
    assert_ne!(hash(&inputs), first);
    inputs.evaluations.extend(last);
    inputs.fit_spec_json = json!({"draws": 500}).to_string();
    assert_ne!(hash(&inputs), first);
}

#[test]
fn a_checkpoint_that_is_never_measured_is_listed_with_the_reason() {
    let mut inputs = study(&["llama"], 4, &json!({"methods": ["envelope"]}));
    let (first, second) = (inputs.runs[0].run_id.clone(), inputs.runs[1].run_id.clone());
    inputs.evaluations.retain(|one| one.run_id != first || one.step != 774);
    inputs.evaluations.retain(|one| one.run_id != second || ![100, 167].contains(&one.step));
    for (step, state) in [(100, "diverged"), (167, "queued")] {
        let (run_id, task) = (second.clone(), "validation_loss".to_owned());
        inputs.unmeasured.push(FitUnmeasured { run_id, step, task, state: state.to_owned() });
    }
    let report = fit_report(&inputs).unwrap();
    let dropped = &method(&report.groups[0], "envelope").dropped;
    let at_steps: Vec<(&str, &str)> = dropped
        .iter()
        .filter(|one| one.what.contains("at step"))
        .map(|one| (one.what.as_str(), one.reason.as_str()))
        .collect();
    assert_eq!(
        at_steps,
        [
            ("`llama-40000-0` at step 774", "the run is over and it was never measured"),
            ("`llama-100000-0` at step 100", "its evaluation ended as diverged, without a value"),
        ]
    );
}

#[test]
fn a_held_out_run_is_compared_at_its_last_step_or_not_at_all() {
    let mut inputs = study(&["llama"], 4, &by_architecture());
    let largest = inputs.runs[3].run_id.clone();
    inputs.evaluations.retain(|one| one.run_id != largest || one.step < 10_000);
    let report = fit_report(&inputs).unwrap();
    assert!(report.groups[0].held_out.is_empty());
    let is_said = |note: &String| note.contains("`llama-625000-0` is held out and has no measured");
    assert!(report.notes.iter().any(is_said), "{:?}", report.notes);
}

fn settings(mut inputs: FitInputs, fit: &serde_json::Value) -> FitReport {
    inputs.fit_spec_json = fit.to_string();
    fit_report(&inputs).expect("the settings are those of this build")
}

#[test]
fn other_laws_and_objectives_are_fitted_as_they_are_asked_for() {
    let inputs = study(&["llama"], 6, &json!({}));
    let names = ["coupled", "kaplan", "overtraining", "power", "power_floor", "broken_power"];
    let report = settings(inputs.clone(), &json!({"methods": names, "objective": "log-squares"}));
    let group = &report.groups[0];
    assert_eq!(group.fits.iter().map(|fit| fit.method.as_str()).collect::<Vec<_>>(), names);
    for fit in &group.fits {
        assert_eq!(fit.objective, "sum of squared residuals of ln L", "{}", fit.method);
        assert!(!fit.coefficients.is_empty() && fit.n_runs == 6, "{fit:?}");
    }
    // Those of C alone and those with a best N and D have a curve; the others say where to ask.
    for name in ["power", "power_floor"] {
        assert!(!method(group, name).curve.is_empty(), "{name}");
    }
    assert!(method(group, "kaplan").curve.is_empty());
    let (alpha, low, high) = identified(method(group, "power"), "alpha");
    assert!(0.0 < low && low < alpha && alpha < high);
    assert!(method(group, "coupled").coefficients.contains_key("parameters_exponent"));
    assert!(!method(group, "power").coefficients.contains_key("parameters_exponent"));
    // Every objective of one law gives another value to the same coefficient.
    let beta = |objective: &str| {
        let fit = json!({"methods": ["power"], "objective": objective});
        identified(method(&settings(inputs.clone(), &fit).groups[0], "power"), "alpha").0
    };
    let all = ["huber", "lad", "log-squares", "loss-squares"].map(beta);
    assert!((0..4).all(|i| (0..i).all(|j| all[i] != all[j])), "{all:?}");
}

#[test]
fn weights_of_seeds_are_named_with_their_noise_and_refused_without_seeds() {
    let mut inputs = study(&["llama"], 6, &json!({}));
    let fit = json!({"methods": ["chinchilla"], "weights": "seed_noise"});
    let bare = settings(inputs.clone(), &fit);
    let why = reasons(method(&bare.groups[0], "chinchilla"));
    assert!(why.iter().all(|text| text.contains("noise between seeds needs 4 runs")), "{why:?}");
    for seed in 1..3 {
        for (place, parameters) in sizes(6).into_iter().enumerate() {
            let one = run("llama", parameters, seed);
            let luck = 0.002 * (17.0 * (place + 6 * seed as usize) as f64).sin();
            inputs.evaluations.extend(evaluations(&one, &CHECKPOINTS, luck));
            inputs.runs.push(one);
        }
    }
    let report = settings(inputs, &fit);
    let text = &method(&report.groups[0], "chinchilla").objective;
    assert!(
        text.contains(", each over the variance of ln L between seeds; seeds vary by"),
        "{text}"
    );
    assert!(text.contains("6 places, 12 degrees of freedom"), "{text}");
}

#[test]
fn the_runs_of_most_compute_can_be_held_out() {
    let mut inputs = study(&["llama"], 6, &json!({}));
    // Of the largest size there is also a short run, which is not one of the most compute.
    let mut short = run("llama", sizes(6)[5], 1);
    short.steps = 1292;
    short.flops_exact *= 0.1292;
    let steps: Vec<u64> = CHECKPOINTS[..6].to_vec();
    short.data_point_steps.clone_from(&steps);
    inputs.evaluations.extend(evaluations(&short, &steps, 0.0));
    inputs.runs.push(short);
    let report =
        settings(inputs, &json!({"methods": ["chinchilla"], "hold_out": "largest_compute"}));
    let held: Vec<&str> = report.groups[0].held_out.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(held, ["llama-3906250-0"]);
    assert_eq!(method(&report.groups[0], "chinchilla").n_runs, 6);
}

/// Aim: all runs of the largest budget are held out, though whole steps move their C apart. Method: two runs of it
/// that differ by 1 %, with planned budgets and without.
#[test]
fn runs_of_one_budget_are_held_out_together() {
    for has_budgets in [true, false] {
        let mut inputs = study(&["llama"], 6, &json!({}));
        let most = inputs.runs[5].flops_exact;
        let mut other = run("llama", 3_000_000, 1);
        other.flops_exact = 0.99 * most;
        inputs.evaluations.extend(evaluations(&other, &CHECKPOINTS, 0.0));
        inputs.runs.push(other);
        for one in inputs.runs.iter_mut().filter(|_| has_budgets) {
            let is_largest = one.flops_exact > 0.9 * most;
            one.budget_flops = Some(if is_largest { 1.005 * most } else { one.flops_exact });
        }
        let report =
            settings(inputs, &json!({"methods": ["chinchilla"], "hold_out": "largest_compute"}));
        let held = report.groups[0].held_out.iter().map(|one| one.name.as_str());
        let held: Vec<&str> = held.collect();
        assert_eq!(held, ["llama-3906250-0", "llama-3000000-1"], "budgets: {has_budgets}");
    }
}

#[test]
fn runs_at_one_place_that_differ_in_a_rate_are_no_seeds() {
    let mut inputs = study(&["llama"], 6, &json!({}));
    for seed in 1..3 {
        for parameters in sizes(6) {
            let mut one = run("llama", parameters, seed);
            one.axis_values.insert("lr".to_owned(), format!("{seed}e-3"));
            inputs.evaluations.extend(evaluations(&one, &CHECKPOINTS, 0.01 * f64::from(seed)));
            inputs.runs.push(one);
        }
    }
    let report = settings(inputs, &json!({"methods": ["chinchilla"], "weights": "seed_noise"}));
    let why = reasons(method(&report.groups[0], "chinchilla"));
    assert!(why.iter().all(|text| text.contains("axis `lr` has 2 values")), "{why:?}");
}

#[test]
fn a_law_of_compute_says_that_it_is_no_frontier() {
    let inputs = study(&["llama"], 6, &json!({}));
    let report = settings(inputs, &json!({"methods": ["power_floor", "chinchilla"]}));
    let says = |name: &str| {
        let warnings = &method(&report.groups[0], name).warnings;
        warnings.iter().any(|text| text.starts_with("not-a-frontier: "))
    };
    assert!(says("power_floor") && !says("chinchilla"));
}

#[test]
fn architectures_in_one_fit_are_named_though_they_share_no_size() {
    let mut inputs = study(&["llama", "tnl"], 6, &json!({}));
    for one in inputs.runs.iter_mut().filter(|one| one.name.starts_with("tnl")) {
        one.parameters_total += 1;
        one.parameters_non_embedding += 1;
    }
    let is_named = |note: &String| note.contains("mixed: axis `architecture` has 2 values");
    let notes = settings(inputs.clone(), &json!({"methods": ["envelope"]})).notes;
    assert!(notes.iter().any(is_named), "{notes:?}");
    let grouped = json!({"methods": ["envelope"], "group_by": "architecture"});
    let notes = settings(inputs, &grouped).notes;
    assert!(!notes.iter().any(is_named), "{notes:?}");
}

/// Aim: runs that differ in more than size, tokens and seed are named, and a design is not. Method: an axis of
/// schedules, an axis of sizes and one of seeds.
#[test]
fn an_axis_in_which_runs_of_one_place_differ_is_named() {
    let said = |axis: &str, values: [&str; 2]| {
        let mut inputs = study(&["llama"], 6, &json!({"methods": ["envelope"]}));
        let again: Vec<FitRun> = sizes(6).into_iter().map(|n| run("llama", n, 1)).collect();
        for one in &again {
            inputs.evaluations.extend(evaluations(one, &CHECKPOINTS, 0.001));
        }
        for one in &mut inputs.runs {
            one.axis_values.insert(axis.to_owned(), values[0].to_owned());
        }
        for mut one in again {
            one.axis_values.insert(axis.to_owned(), values[1].to_owned());
            inputs.runs.push(one);
        }
        let notes = fit_report(&inputs).unwrap().notes;
        notes.into_iter().filter(|note| note.contains("mixed: ")).collect::<Vec<_>>()
    };
    let mixed = said("schedule", ["cosine", "wsd"]);
    assert_eq!(mixed.len(), 1, "{mixed:?}");
    let expected =
        "mixed: axis `schedule` has 2 values in one fit: `cosine` (6 runs), `wsd` (6 runs)";
    assert!(mixed[0].starts_with(expected), "{mixed:?}");
    assert_eq!(said("seed", ["0", "1"]), Vec::<String>::new());
    assert_eq!(said("schedule", ["wsd", "wsd"]), Vec::<String>::new());
}

#[test]
fn warnings_of_a_study_have_names_and_approaches_are_held_against_each_other() {
    let mut inputs = study(&["llama"], 6, &json!({}));
    // D counts every token twice for the largest sizes: N and D do not multiply to C any more.
    for one in &mut inputs.runs {
        let n = one.parameters_non_embedding as f64;
        one.flops_exact *= (n / 4e4).powf(0.4);
    }
    let report = fit_report(&inputs).unwrap();
    for fit in report.groups.iter().flat_map(|group| &group.fits) {
        for warning in &fit.warnings {
            let name = warning.split(": ").next().unwrap();
            let is_name =
                name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
            assert!(
                is_name && name.contains('-') || name == "floor" || name == "influence",
                "{warning}"
            );
        }
    }
    let law = &method(&report.groups[0], "chinchilla").warnings;
    assert!(law.iter().any(|text| text.starts_with("kappa-varies: ")), "{law:?}");
}
