use super::*;
use crate::fit::{FitOptions, fit};
use crate::interval::{IntervalOptions, Resampling, infer_with};
use crate::law::{Axis, Law, LawChoice, LogPoint};
use crate::observation::{Covariates, Observation};
use crate::planted::Study;
use crate::random::Stream;

pub(super) fn findings(law: LawName, dataset: &Dataset) -> Vec<Finding> {
    findings_of(law.law(), dataset).0
}

pub(super) fn findings_of(law: &dyn Law, dataset: &Dataset) -> (Vec<Finding>, Inference) {
    let options = FitOptions::default();
    let fitted = fit(law, dataset, &options).unwrap();
    let interval = IntervalOptions { draws: 100, ..IntervalOptions::default() };
    let resampling = Resampling { has_influence: true, ..Resampling::default() };
    let inference = infer_with(&fitted, dataset, &options, &interval, &resampling).unwrap();
    let profile = crate::profile::floor(&fitted, dataset, &options, 0.95).unwrap();
    let name_of = |run: RunKey| format!("run {}", run.0);
    (diagnose(&fitted, &inference, dataset, profile.as_ref(), &name_of), inference)
}

pub(super) fn names(found: &[Finding]) -> Vec<&'static str> {
    found.iter().map(|one| one.name).collect()
}

/// Each point a run of its own, on a broad grid.
fn broad(seed: u64) -> Vec<Observation> {
    let study = Study { point_sd: 0.003, seed, ..Study::ladder(8) };
    let key = |index: usize| crate::observation::RunKey(u32::try_from(index).unwrap());
    let own = |(index, point): (usize, &Observation)| Observation { run: key(index), ..*point };
    study.observations().iter().enumerate().map(own).collect()
}

#[test]
fn a_broad_study_of_the_right_law_gives_no_warning() {
    let found = findings(LawName::Chinchilla, &Dataset::new(&broad(3)).unwrap());
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_narrow_study_is_told_what_it_lacks() {
    let points: Vec<Observation> =
        broad(3).into_iter().filter(|point| point.parameters < 7e5 && point.tokens < 6e5).collect();
    let found = findings(LawName::Chinchilla, &Dataset::new(&points).unwrap());
    let names = names(&found);
    assert!(names.contains(&"few-sizes") && names.contains(&"narrow-span"), "{found:?}");
    assert!(names.contains(&"narrow-compute"), "{found:?}");
}

#[test]
fn one_outlying_run_and_a_missing_interaction_are_seen() {
    let mut points = broad(3);
    points[79].loss_nats *= 1.2;
    points[7].loss_nats *= 1.3;
    let found = findings(LawName::Chinchilla, &Dataset::new(&points).unwrap());
    // A robust fit is moved little, but by few runs.
    assert!(found.iter().all(|one| one.name != "few-sizes"), "{found:?}");
    let mut saddle = broad(3);
    for point in &mut saddle {
        let product = (point.parameters / 4e5).ln() * (point.tokens / 1e6).ln();
        point.loss_nats *= (0.01 * product).exp();
    }
    let found = findings(LawName::Chinchilla, &Dataset::new(&saddle).unwrap());
    assert!(names(&found).contains(&"interaction"), "{found:?}");
}

#[test]
fn the_influence_of_a_run_is_told_by_the_name_of_the_run() {
    // A law of one variable with one run far out, which alone says how the line is tilted.
    let point = |run: u32| {
        let flops = if run == 29 { 1e22 } else { 1e15 * 1.05_f64.powi(run.cast_signed()) };
        let noise = 0.01 * f64::from(run).sin();
        let loss_nats = (1e20 / flops).powf(0.05) * (1.0 + noise);
        let (parameters, tokens) = (1e6, flops / 6e6);
        Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 }
    };
    let data = Dataset::new(&(0..30).map(point).collect::<Vec<_>>()).unwrap();
    let found = findings(LawName::Power, &data);
    let influence = found.iter().find(|one| one.name == "influence").unwrap();
    assert!(influence.text.starts_with("run 29 carries"), "{influence}");
}

#[test]
fn a_coupled_fit_of_additive_data_says_that_one_exponent_would_do() {
    let found = findings(LawName::Coupled, &Dataset::new(&broad(5)).unwrap());
    assert!(names(&found).contains(&"outer-exponent"), "{found:?}");
}

/// Runs of one variable on an exact law, with a pattern of signs on top.
pub(super) fn along_compute(loss: impl Fn(u32, f64) -> f64) -> Dataset {
    let point = |run: u32| {
        let flops = 1e15 * 1.5_f64.powi(run.cast_signed());
        let (parameters, tokens) = (1e6, flops / 6e6);
        let loss_nats = loss(run, flops);
        Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 }
    };
    Dataset::new(&(0..40).map(point).collect::<Vec<_>>()).unwrap()
}

#[test]
fn a_bow_of_residuals_is_seen_by_its_runs_of_signs_and_noise_is_not() {
    let bowed = along_compute(|_, flops| 1.5 + (1e17 / flops).powf(0.2));
    let found = findings(LawName::Power, &bowed);
    let runs = found.iter().find(|one| one.name == "residual-runs").expect("a bow");
    assert!(runs.text.contains("by chance (z = -"), "{runs}");
    let noisy = along_compute(|run, flops| {
        (1e20 / flops).powf(0.05) * (0.01 * Stream::new(4, u64::from(run)).normal()).exp()
    });
    assert!(!names(&findings(LawName::Power, &noisy)).contains(&"residual-runs"));
}

/// Aim: what the points of a run share is no pattern. Method: 24 runs of ten checkpoints, whose
/// luck is ten times the noise of a point.
#[test]
fn the_luck_of_runs_is_no_pattern_of_their_points() {
    let runs = |seed: u64| {
        let point = |index: u32| {
            let (run, at) = (index / 10, index % 10);
            let flops = 1e15 * 1.5_f64.powi(run.cast_signed()) * 1.03_f64.powi(at.cast_signed());
            let luck = 0.01 * Stream::new(seed, u64::from(run)).normal();
            let noise = 0.001 * Stream::new(seed, 1000 + u64::from(index)).normal();
            let loss_nats = (1e20 / flops).powf(0.05) * (luck + noise).exp();
            let (parameters, tokens) = (1e6, flops / 6e6);
            Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 }
        };
        Dataset::new(&(0..240).map(point).collect::<Vec<_>>()).unwrap()
    };
    for seed in 0..10 {
        let found = findings(LawName::Power, &runs(seed));
        let names = names(&found);
        assert!(!names.contains(&"residual-runs"), "{found:?}");
        assert!(!names.contains(&"residual-trend"), "{found:?}");
    }
}

#[test]
fn residuals_of_one_sign_are_told_without_a_number_that_is_none() {
    let dataset = along_compute(|_, flops| 1.5 + (1e17 / flops).powf(0.2));
    let fitted = fit(LawName::Power.law(), &dataset, &FitOptions::default()).unwrap();
    let one_sided = Fit { residuals_log: vec![-0.1; 40], ..fitted };
    let text = pattern::residual_runs(&one_sided, &dataset).unwrap();
    assert_eq!(text, "the mean losses of all 40 places lie below the law");
}

#[test]
fn few_large_losses_that_decide_the_fit_are_named() {
    let mut points = broad(3);
    let mut n_large = 0;
    for point in points.iter_mut().filter(|point| point.loss_nats > 4.0) {
        point.loss_nats *= if n_large % 2 == 0 { 1.2 } else { 0.85 };
        n_large += 1;
    }
    assert!((4..40).contains(&n_large), "{n_large}");
    let found = findings(LawName::Chinchilla, &Dataset::new(&points).unwrap());
    let large = found.iter().find(|one| one.name == "large-losses").expect("large losses");
    assert!(large.text.contains("points have a loss above 4 nats and make"), "{large}");
}

#[test]
fn five_seeds_beside_single_ones_are_unbalanced_and_two_are_not() {
    let with_seeds = |n: u32| {
        let mut points = broad(3);
        for seed in 1..n {
            let again = Observation { run: RunKey(1000 + seed), ..points[17] };
            points.push(Observation { loss_nats: again.loss_nats * 1.001, ..again });
        }
        findings(LawName::Chinchilla, &Dataset::new(&points).unwrap())
    };
    let found = with_seeds(5);
    let seeds = found.iter().find(|one| one.name == "unbalanced-seeds").expect("five of one");
    assert!(seeds.text.starts_with("one place of N and D has 5 runs, and 79 of 80 have 1"));
    assert!(!names(&with_seeds(2)).contains(&"unbalanced-seeds"));
}

#[test]
fn draws_that_trade_the_outer_exponent_for_the_floor_are_seen() {
    let dataset = Dataset::new(&broad(5)).unwrap();
    let options = FitOptions::default();
    let fitted = fit(LawName::Coupled.law(), &dataset, &options).unwrap();
    let interval = IntervalOptions { draws: 100, ..IntervalOptions::default() };
    let mut inference =
        infer_with(&fitted, &dataset, &options, &interval, &Resampling::default()).unwrap();
    let draw = |index: usize, share: f64| {
        let (a, b) = ((0.7 * index as f64).sin(), (1.9 * index as f64 + 1.0).sin());
        let mut theta = fitted.theta.clone();
        theta[2] -= 0.1 * (share * a + (1.0 - share) * b);
        theta[5] += 0.1 * a;
        theta
    };
    inference.resampled.replicates = (0..100).map(|index| draw(index, 1.0)).collect();
    let text = coefficient::tied_floor(&fitted, &inference).expect("one is the other");
    assert!(text.contains("correlation of -1.000"), "{text}");
    inference.resampled.replicates = (0..100).map(|index| draw(index, 0.0)).collect();
    assert_eq!(coefficient::tied_floor(&fitted, &inference), None);
}

/// Exact losses of the law of repeated data, repeated up to so many times beyond the first.
fn repeated(most: f64) -> Dataset {
    let decay = |value: f64| {
        // The free parameter of a value between 0.01 and 10,000.
        let share = (value / 1e-2).ln() / (1e4_f64 / 1e-2).ln();
        (share / (1.0 - share)).ln()
    };
    repeated_on(&[6.0, 7.0, 0.6, 0.35, 0.37, decay(6.0), decay(4.0)], most)
}

fn repeated_on(planted: &[f64], most: f64) -> Dataset {
    let law = LawName::DataConstrained.law();
    let mut rows = Vec::new();
    for size in 0..6 {
        for count in 0..10 {
            let (parameters, tokens) = (1e7 * 4_f64.powi(size), 1e9 * 1.6_f64.powi(count));
            let unique = tokens / (1.0 + most * f64::from(count + size) / 14.0);
            let covariates = Covariates { unique_tokens: Some(unique), ..Covariates::default() };
            let flops = 6.0 * parameters * tokens;
            let at = LogPoint::new(parameters, tokens, flops).with(&covariates);
            let loss_nats = law.predict(planted, &at);
            let run = RunKey(u32::try_from(rows.len()).unwrap());
            rows.push((
                Observation { run, parameters, tokens, flops, loss_nats, seed: 0 },
                covariates,
            ));
        }
    }
    Dataset::select_rows(&rows, |_, _| None).unwrap()
}

#[test]
fn decay_constants_need_runs_beyond_them() {
    let found = findings(LawName::DataConstrained, &repeated(3.0));
    let few = found.iter().find(|one| one.name == "few-repetitions").expect("few repetitions");
    assert!(few.text.starts_with("0 points repeat their data more than 4 times"), "{few}");
    let outside = found.iter().find(|one| one.name == "outside-repetitions").expect("far outside");
    assert!(outside.text.contains("R_D = 6.000, and the largest measured is 3.000"), "{outside}");
    let many = names(&findings(LawName::DataConstrained, &repeated(60.0)));
    assert!(
        !many.contains(&"few-repetitions") && !many.contains(&"outside-repetitions"),
        "{many:?}"
    );
}

#[test]
fn values_that_should_be_one_are_counted_and_named() {
    let count = |values: &[(&str, usize)]| {
        let counts = values.iter().map(|(value, n)| ((*value).to_owned(), *n)).collect();
        mixed("column `schedule`", "rows", &counts)
    };
    assert_eq!(count(&[("cosine", 12)]), None);
    let found = count(&[("cosine", 12), ("wsd", 30)]).unwrap();
    assert_eq!(found.name, "mixed");
    assert!(found.text.contains("2 values in one fit: `wsd` (30 rows), `cosine` (12 rows)"));
    let many = count(&[("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1), ("f", 1)]).unwrap();
    assert!(many.text.contains("`d` (1 rows), 2 more;"), "{many}");
}

#[test]
fn a_prefactor_is_no_steep_exponent() {
    let noisy = along_compute(|run, flops| {
        30.0 * flops.powf(-0.05) * (0.01 * Stream::new(4, u64::from(run)).normal()).exp()
    });
    assert!(!names(&findings(LawName::Power, &noisy)).contains(&"steep-exponent"));
    let steep = along_compute(|_, flops| (1e22 / flops).powf(1.6));
    assert!(names(&findings(LawName::Power, &steep)).contains(&"steep-exponent"));
}

#[test]
fn a_coefficient_at_the_end_of_its_range_is_not_identified() {
    // Parameters never lose their value here, so that R_N goes as far as it is let.
    let law = LawName::DataConstrained.law();
    let planted = [6.0, 7.0, 0.6, 0.35, 0.37, 0.0, 40.0];
    let data = repeated_on(&planted, 60.0);
    let fitted = fit(law, &data, &FitOptions::default()).unwrap();
    assert_eq!(fitted.at_bound, ["R_N"]);
    let reason = fitted.identifiability.coefficients[6].as_ref().expect("at its end");
    assert!(reason.contains("an end of the range") || reason.contains("hardly depend"), "{reason}");
}

fn says_no_frontier(choice: LawChoice, points: &[Observation]) -> bool {
    design::not_a_frontier(choice.law().variables(), &Dataset::new(points).unwrap()).is_some()
}

#[test]
fn a_law_of_one_variable_over_runs_that_differ_in_another_is_no_frontier() {
    let of = |axis| LawChoice { axis, ..LawChoice::of(LawName::Power) };
    let grid = broad(3);
    for axis in [Axis::Parameters, Axis::Tokens, Axis::Flops] {
        assert!(says_no_frontier(of(axis), &grid), "{axis:?}");
    }
    // One run at each budget, with 20 tokens for each parameter.
    let along = |run: u32| {
        let parameters = 1e6 * 2_f64.powi(run.cast_signed());
        let tokens = 20.0 * parameters;
        let flops = 6.0 * parameters * tokens;
        Observation { run: RunKey(run), parameters, tokens, flops, loss_nats: 3.0, seed: 0 }
    };
    let frontier: Vec<Observation> = (0..8).map(along).collect();
    for axis in [Axis::Parameters, Axis::Tokens, Axis::Flops] {
        assert!(!says_no_frontier(of(axis), &frontier), "{axis:?}");
    }
    // Two sizes at one budget, which whole steps let differ.
    let mut two = frontier.clone();
    two.push(Observation {
        run: RunKey(8),
        parameters: 3e6,
        flops: 0.98 * frontier[3].flops,
        ..frontier[3]
    });
    assert!(says_no_frontier(of(Axis::Flops), &two));
    assert!(!says_no_frontier(LawChoice::of(LawName::Chinchilla), &grid));
}

// No two rows have the same N, and D goes its own way.
#[test]
fn a_variable_that_goes_its_own_way_is_no_frontier_and_one_that_follows_is() {
    let of = |axis| LawChoice { axis, ..LawChoice::of(LawName::Power) };
    let rows = |tokens: &dyn Fn(f64, f64) -> f64| -> Vec<Observation> {
        let row = |run: u32| {
            let parameters = 1e6 * 1.4_f64.powi(run.cast_signed());
            let tokens = tokens(parameters, Stream::new(9, u64::from(run)).uniform());
            let flops = 6.0 * parameters * tokens;
            Observation { run: RunKey(run), parameters, tokens, flops, loss_nats: 3.0, seed: 0 }
        };
        (0..24).map(row).collect()
    };
    let own = rows(&|_, uniform| 1e9 * 400_f64.powf(uniform));
    let power = rows(&|n, uniform| 3e3 * n.powf(0.7) * (0.9 + 0.2 * uniform));
    for axis in [Axis::Parameters, Axis::Tokens] {
        assert!(says_no_frontier(of(axis), &own), "{axis:?}");
        assert!(!says_no_frontier(of(axis), &power), "{axis:?}");
    }
    // Steps a factor of ten wide, a power with more luck, and one D for all.
    let steps = rows(&|n, _| 20.0 * 10_f64.powf(n.log10().round()));
    let loose = rows(&|n, uniform| 3e3 * n.powf(0.7) * (0.4 + uniform));
    let same = rows(&|_, _| 3e11);
    for frontier in [&steps, &loose, &same] {
        assert!(!says_no_frontier(of(Axis::Parameters), frontier));
    }
}

#[test]
fn a_loss_that_rises_is_named_and_one_that_falls_is_not() {
    let text = |dataset: &Dataset, law| {
        let found = findings(law, dataset);
        found.into_iter().find(|one| one.name == "loss-rises").map(|one| one.text)
    };
    let luck = |run: u32| (0.01 * Stream::new(4, u64::from(run)).normal()).exp();
    let accuracy = along_compute(|run, flops| 0.9 - (1e15 / flops).powf(0.2) * 0.6 * luck(run));
    for law in [LawName::Power, LawName::PowerFloor] {
        let said = text(&accuracy, law).unwrap_or_else(|| panic!("{law}"));
        assert!(said.contains("is a law of a loss that falls"), "{said}");
    }
    let falling = along_compute(|run, flops| 1.5 + (1e17 / flops).powf(0.2) * luck(run));
    let flat = along_compute(|run, _| 3.0 * luck(run));
    assert_eq!(text(&falling, LawName::Power), None);
    assert_eq!(text(&flat, LawName::Power), None);
    let mut points = broad(3);
    assert_eq!(text(&Dataset::new(&points).unwrap(), LawName::Chinchilla), None);
    for point in &mut points {
        point.loss_nats = 1.0 / point.loss_nats;
    }
    assert!(text(&Dataset::new(&points).unwrap(), LawName::Chinchilla).is_some());
}
