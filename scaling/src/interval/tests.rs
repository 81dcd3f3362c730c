use super::*;
use crate::fit::{FitOptions, fit};
use crate::law::LawName;
use crate::objective::Objective;
use crate::observation::{Dataset, Observation, RunKey};
use crate::planted::Study;

/// As [`resample_by`], of runs that share no trunk.
fn resample(
    n_runs: usize,
    options: &IntervalOptions,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> (Vec<Vec<f64>>, Scheme) {
    resample_by(&Plan::plain(n_runs, n_runs), options, refit)
}

fn line_replicates(n_runs: usize, options: &IntervalOptions) -> (Vec<Vec<f64>>, Scheme) {
    resample(n_runs, options, |weights, _| Ok(vec![weights.iter().sum()]))
}

#[test]
fn the_scheme_follows_from_the_number_of_runs() {
    let options = IntervalOptions::default();
    let (none, scheme) = line_replicates(MIN_RUNS_FOR_INTERVAL - 1, &options);
    assert!(none.is_empty() && matches!(scheme, Scheme::Unavailable { .. }));
    let (some, scheme) = line_replicates(MIN_RUNS_FOR_INTERVAL, &options);
    assert_eq!((some.len(), scheme), (3, Scheme::Jackknife { n_runs: 3, n_clusters: 3 }));
    let (many, scheme) = line_replicates(MIN_RUNS_FOR_BOOTSTRAP, &options);
    assert_eq!(many.len(), 1000);
    let (n_runs, n_clusters, n_strata, draws) = (12, 12, 1, 1000);
    let expected = Scheme::Bootstrap { n_runs, n_clusters, n_strata, draws, failed: 0, seed: 0 };
    assert_eq!(scheme, expected);
}

#[test]
fn failing_resamples_are_counted_and_too_many_leave_no_interval() {
    let options = IntervalOptions { draws: 200, ..IntervalOptions::default() };
    let fail = |limit: f64| {
        resample(20, &options, move |weights, _| {
            if weights[0] >= limit { Err("run 0 again".to_owned()) } else { Ok(vec![1.0]) }
        })
    };
    let Scheme::Bootstrap { failed, .. } = fail(4.0).1 else { panic!("few resamples fail") };
    assert!(failed > 0 && failed < 20, "{failed}");
    let Scheme::Unavailable { reason, .. } = fail(1.0).1 else { panic!("most resamples fail") };
    assert!(reason.ends_with("the first: run 0 again"), "{reason}");
}

/// Aim: what is measured once is no more certain than the law there. Method: noise far below the
/// spread of the draws, so that chance decides which residuals they get.
#[test]
fn a_measured_loss_is_no_more_certain_than_the_law() {
    for seed in 0..20 {
        let mut stream = Stream::new(seed, 0);
        let mut normals =
            |sd: f64, n: usize| -> Vec<f64> { (0..n).map(|_| sd * stream.normal()).collect() };
        let mut residuals_log = normals(1e-4, 30);
        residuals_log.sort_unstable_by(f64::total_cmp);
        let (n_runs, draws) = (30, 200);
        let scheme =
            Scheme::Bootstrap { n_runs, n_clusters: n_runs, n_strata: 1, draws, failed: 0, seed };
        let replicates = normals(0.05, draws).into_iter().map(|one| vec![one]).collect();
        let resampled = Resampled {
            theta: vec![0.0],
            replicates,
            scheme,
            level: 0.95,
            residuals_log,
            influence: Vec::new(),
        };
        let loss = |theta: &[f64]| theta[0].exp();
        let law = resampled.estimate(Quantity::Loss, loss).interval().unwrap();
        let measured = resampled.estimate_measured(loss).interval().unwrap();
        assert!(measured.0 <= law.0 && measured.1 >= law.1, "{measured:?} {law:?}");
    }
}

#[test]
fn a_jackknife_replicate_that_fails_leaves_no_interval() {
    let options = IntervalOptions::default();
    let refit = |weights: &[f64], _| {
        if weights[1] == 0.0 { Err("it carries the slope".to_owned()) } else { Ok(vec![1.0]) }
    };
    let Scheme::Unavailable { reason, .. } = resample(5, &options, refit).1 else { panic!() };
    assert_eq!(reason, "leaving out one of 5 runs: it carries the slope");
}

#[test]
fn a_bad_level_and_too_few_draws_give_a_reason_and_no_number() {
    let bad = IntervalOptions { level: 95.0, ..IntervalOptions::default() };
    assert!(matches!(line_replicates(20, &bad).1, Scheme::Unavailable { .. }));
    let few = IntervalOptions { draws: 10, ..IntervalOptions::default() };
    assert!(matches!(line_replicates(20, &few).1, Scheme::Unavailable { .. }));
}

#[test]
fn the_jackknife_of_a_mean_is_its_t_interval() {
    // For a mean the leave-one-out variance is the usual s²/n, exactly.
    let values = [1.0, 2.0, 4.0, 9.0];
    let options = IntervalOptions::default();
    let mean = |weights: &[f64]| {
        let total: f64 = weights.iter().sum();
        weights.iter().zip(values).map(|(w, v)| w * v).sum::<f64>() / total
    };
    let (replicates, scheme) = resample(4, &options, |weights, _| Ok(vec![mean(weights)]));
    let resampled = Resampled {
        theta: vec![4.0],
        replicates,
        scheme,
        level: 0.95,
        residuals_log: vec![],
        influence: vec![],
    };
    let (low, high) =
        resampled.estimate(Quantity::Difference, |theta| theta[0]).interval().unwrap();
    // s² = 38/3, standard error 1.7795, t(3, 0.975) = 3.18245.
    let half = 3.182_446_3 * (38.0_f64 / 3.0 / 4.0).sqrt();
    assert!((high - low - 2.0 * half).abs() < 1e-5 && (high + low - 8.0).abs() < 1e-9);
}

#[test]
fn equal_seeds_give_equal_intervals_and_others_do_not() {
    let study = Study { run_sd: 0.01, ..Study::ladder(14) };
    let (data, options) = (study.dataset(), FitOptions::default());
    let fitted = fit(LawName::Power.law(), &data, &options).unwrap();
    let of = |seed: u64| {
        let interval = IntervalOptions { seed, draws: 100, ..IntervalOptions::default() };
        infer(&fitted, &data, &options, &interval).unwrap()
    };
    assert_eq!(of(1), of(1));
    assert_ne!(of(1).coefficients, of(2).coefficients);
}

/// Aim: the interval of alpha covers the planted value about as often as it says, with runs as the
/// luck. Method: `studies` seeded studies of `n_sizes` runs, five points each; points of a run
/// share most of their noise.
fn coverage_of_alpha(n_sizes: usize, studies: u64) -> f64 {
    let ladder = Study::ladder(n_sizes);
    let tokens: Vec<f64> = ladder.tokens.iter().step_by(2).copied().collect();
    let options = FitOptions { n_polished: 4, ..FitOptions::default() };
    let mut covered = 0;
    for seed in 0..studies {
        let tokens = tokens.clone();
        let study = Study { run_sd: 0.004, point_sd: 0.001, seed, tokens, ..ladder.clone() };
        let data = study.dataset();
        let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
        let interval = IntervalOptions { draws: MIN_DRAWS, seed, ..IntervalOptions::default() };
        let inference = infer(&fitted, &data, &options, &interval).unwrap();
        // Not identified counts as a miss.
        let interval = inference.coefficient("alpha").unwrap().interval();
        covered += u32::from(interval.is_some_and(|(low, high)| low <= 0.35 && 0.35 <= high));
    }
    f64::from(covered) / studies as f64
}

#[test]
fn jackknife_intervals_of_few_runs_cover_the_planted_exponent() {
    for n_sizes in [5, 8] {
        let coverage = coverage_of_alpha(n_sizes, 100);
        eprintln!("{n_sizes} runs: {coverage}");
        assert!(coverage >= 0.88, "{n_sizes} runs: {coverage}");
    }
}

#[test]
fn bootstrap_intervals_of_fourteen_runs_cover_the_planted_exponent() {
    let coverage = coverage_of_alpha(14, 60);
    eprintln!("14 runs: {coverage}");
    assert!(coverage >= 0.88, "{coverage}");
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let study = Study { run_sd: 0.01, ..Study::ladder(14) };
    let (data, options) =
        (study.dataset().stratified(|point| point.run.0 % 2), FitOptions::default());
    let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
    let interval = IntervalOptions { draws: 100, ..IntervalOptions::default() };
    let on = |n_threads: usize| {
        let n_threads = std::num::NonZeroUsize::new(n_threads).unwrap();
        let resampling = Resampling { n_threads, has_influence: true, is_global: true };
        infer_with(&fitted, &data, &options, &interval, &resampling).unwrap()
    };
    let one = on(1);
    assert_eq!(one, on(3));
    assert_eq!(one, on(64));
    assert_eq!(one.resampled.influence.len(), 14);
}

/// Aim: the 95 % interval of a, of N_opt ∝ C^a, covers the planted value in 90 to 98 % of studies.
/// Method: studies of 56 runs, each a point of a grid with noise of its own; 200 studies of 400
/// draws with `SLOW_TESTS`, fewer otherwise.
#[test]
fn the_interval_of_the_optimal_exponent_covers_the_planted_one() {
    let is_slow = std::env::var_os("SLOW_TESTS").is_some();
    let (studies, draws) = if is_slow { (200, 400) } else { (50, 150) };
    let options = FitOptions { n_polished: 4, ..FitOptions::default() };
    let mut covered = 0;
    for seed in 0..studies {
        let study = Study { point_sd: 0.004, seed, ..Study::ladder(7) };
        let own = |(run, point): (u32, &crate::observation::Observation)| {
            crate::observation::Observation { run: crate::observation::RunKey(run), ..*point }
        };
        let points: Vec<_> = (0..)
            .zip(study.observations().iter())
            .filter(|(_, p)| p.tokens < 5e6)
            .map(own)
            .collect();
        let data = crate::observation::Dataset::new(&points).unwrap();
        let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
        let interval = IntervalOptions { draws, seed, ..IntervalOptions::default() };
        let inference = infer(&fitted, &data, &options, &interval).unwrap();
        let exponent = inference.optimum(1e15, 6.0).unwrap().parameters_exponent;
        let planted = 0.4 / 0.75;
        covered +=
            u32::from(exponent.interval().is_some_and(|(a, b)| a <= planted && planted <= b));
    }
    let share = f64::from(covered) / studies as f64;
    eprintln!("{covered} of {studies}");
    // Fewer studies leave more chance.
    let allowed = if is_slow { 0.90..=0.98 } else { 0.86..=1.0 };
    assert!(allowed.contains(&share), "{share}");
}

/// The same rows in another order; each run has the number of its first row among runs, as in a
/// file.
fn reordered(points: &[Observation], by: usize) -> Vec<Observation> {
    let n = points.len();
    let mut numbers: Vec<u32> = Vec::new();
    let rows = (0..n).map(|at| points[(at * by + 5) % n]);
    rows.map(|point| {
        let known = numbers.iter().position(|run| *run == point.run.0);
        let number = known.unwrap_or_else(|| {
            numbers.push(point.run.0);
            numbers.len() - 1
        });
        Observation { run: RunKey(u32::try_from(number).unwrap()), ..point }
    })
    .collect()
}

/// Aim: the order of rows changes no bit of an interval. Method: points that are runs of their own,
/// runs of ten points (a bootstrap and a jackknife), and two points twice, in other orders; all
/// with labels of strata, which also are numbered as they come.
#[test]
fn the_order_of_rows_changes_no_bit_of_an_interval() {
    let study = |n: usize| Study { run_sd: 0.01, point_sd: 0.004, ..Study::ladder(n) };
    let alone = |(run, point): (u32, &Observation)| Observation { run: RunKey(run), ..*point };
    let mut single: Vec<Observation> = (0..).zip(&study(7).observations()).map(alone).collect();
    for at in [3, 40] {
        let run = RunKey(u32::try_from(single.len()).unwrap());
        single.push(Observation { run, ..single[at] });
    }
    let options = FitOptions::default();
    let interval = IntervalOptions { draws: 100, ..IntervalOptions::default() };
    let resampling = Resampling { has_influence: true, ..Resampling::default() };
    for points in [single, study(14).observations(), study(6).observations()] {
        let inferred = |points: &[Observation]| {
            // By place, so that the label is the same in every order, and its number is not.
            let first = points[0].parameters;
            let label = |one: &Observation| u32::from((one.parameters > 3e5) == (first > 3e5));
            let data = Dataset::new(points).unwrap().stratified(label);
            let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
            infer_with(&fitted, &data, &options, &interval, &resampling).unwrap()
        };
        let first = inferred(&points);
        for by in [1, 11, 71] {
            let again = inferred(&reordered(&points, by));
            assert_eq!(again.resampled.replicates, first.resampled.replicates);
            assert_eq!(again.coefficients, first.coefficients);
            assert_eq!(again.predict(1e7, 1e9, 6e16), first.predict(1e7, 1e9, 6e16));
            let alpha =
                |one: &Inference| one.resampled.estimate_bca(Quantity::Exponent, |theta| theta[3]);
            let (a, b) = (alpha(&again), alpha(&first));
            let ends = |one: &Option<Estimate>| one.as_ref().and_then(Estimate::interval);
            match (ends(&a), ends(&b)) {
                (Some(a), Some(b)) => assert!((a.0 - b.0).abs() + (a.1 - b.1).abs() < 1e-12),
                (a, b) => assert_eq!(a, b),
            }
        }
    }
}

/// Aim: the units of N, D and C change no interval. Method: N in millions, D in billions and C in
/// petaFLOP-days; what has no unit of these must agree to 1e-9: exponents, the floor, the loss at
/// the same place, and N_opt in its unit.
#[test]
fn units_change_no_interval() {
    let alone = |(run, point): (u32, &Observation)| Observation { run: RunKey(run), ..*point };
    let study = Study { run_sd: 0.01, point_sd: 0.004, ..Study::ladder(7) };
    let points: Vec<Observation> = (0..).zip(&study.observations()).map(alone).collect();
    let (of_n, of_d) = (1e-6, 1e-9);
    let of_c = 1.0 / 8.64e19;
    let scaled = |point: &Observation| Observation {
        parameters: of_n * point.parameters,
        tokens: of_d * point.tokens,
        flops: of_c * point.flops,
        ..*point
    };
    let other: Vec<Observation> = points.iter().map(scaled).collect();
    let interval = IntervalOptions { draws: 200, ..IntervalOptions::default() };
    for objective in [Objective::default(), Objective::LogSquares, Objective::LossSquares] {
        let options = FitOptions { objective, ..FitOptions::default() };
        let inferred = |points: &[Observation]| {
            let data = Dataset::new(points).unwrap();
            let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
            infer(&fitted, &data, &options, &interval).unwrap()
        };
        let (first, second) = (inferred(&points), inferred(&other));
        let same = |what: &str, a: &Estimate, b: &Estimate, unit: f64| {
            let (low, high) = a.interval().unwrap_or_else(|| panic!("{what}: {a:?}"));
            let pairs = [(a.value().unwrap(), b.value().unwrap()), (low, b.interval().unwrap().0)];
            for (a, b) in pairs.into_iter().chain([(high, b.interval().unwrap().1)]) {
                let apart = (b / (unit * a) - 1.0).abs();
                assert!(apart < 1e-9, "{objective}, {what}: {a} and {b}, {apart:e}");
            }
        };
        for name in ["alpha", "beta", "E"] {
            let of = |one: &Inference| one.coefficient(name).unwrap().clone();
            same(name, &of(&first), &of(&second), 1.0);
        }
        let at = |one: &Inference, n: f64, d: f64, c: f64| one.predict(n * 1e7, d * 1e8, c * 6e15);
        let (a, b) = (at(&first, 1.0, 1.0, 1.0), at(&second, of_n, of_d, of_c));
        same("loss", &a.curve, &b.curve, 1.0);
        same("measured loss", &a.measured, &b.measured, 1.0);
        let a = first.optimum(1e15, 6.0).unwrap();
        let b = second.optimum(of_c * 1e15, 6.0 * of_c / (of_n * of_d)).unwrap();
        same("N_opt", &a.parameters, &b.parameters, of_n);
        same("D_opt", &a.tokens, &b.tokens, of_d);
    }
}
