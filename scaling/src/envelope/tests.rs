use super::*;
use crate::observation::{Observation, RunKey};
use crate::planted::Study;

fn envelope(study: &Study) -> EnvelopeFit {
    fit(&study.dataset(), &EnvelopeOptions::default()).unwrap()
}

fn reason(estimate: &Estimate) -> &str {
    match estimate {
        Estimate::NotIdentified { reason } => reason,
        Estimate::Identified { .. } => panic!("identified: {estimate:?}"),
    }
}

/// A dense ladder on a surface without floor, where the frontier is an exact power law.
fn dense() -> Study {
    Study {
        theta: [60_f64.ln(), 300_f64.ln(), -40.0, 0.35, 0.4],
        sizes: (0..40).map(|i| 1e4 * 1.2_f64.powi(i)).collect(),
        tokens: (0..40).map(|i| 1e5 * 1.15_f64.powi(i)).collect(),
        ..Study::ladder(3)
    }
}

#[test]
fn a_dense_ladder_gives_the_planted_exponents() {
    let fitted = envelope(&dense());
    // a = beta / (alpha + beta); the frontier falls as C^(-alpha beta / (alpha + beta)).
    let (a, b, slope) = (0.4 / 0.75, 0.35 / 0.75, -0.35 * 0.4 / 0.75);
    for (line, expected) in [(&fitted.parameters, a), (&fitted.tokens, b), (&fitted.loss, slope)] {
        let (low, high) = line.exponent.interval().unwrap();
        let value = line.exponent.value().unwrap();
        assert!((value - expected).abs() < 0.02, "{value} for {expected}");
        assert!(low - 0.02 <= expected && expected <= high + 0.02);
    }
    assert!((fitted.six_nd_over_c.0 - 1.0).abs() < 1e-9);
}

#[test]
fn three_sizes_give_a_loss_curve_and_no_exponent_of_the_optimum() {
    let study = Study { run_sd: 0.002, point_sd: 0.001, seed: 5, ..Study::ladder(3) };
    let fitted = envelope(&study);
    let (low, high) = fitted.loss.exponent.interval().unwrap();
    assert!(low < high && high < 0.0, "{:?}", fitted.loss);
    let why = reason(&fitted.parameters.exponent);
    assert!(why.contains("one size is best") || why.contains("no budget"), "{why}");
    assert!(reason(&fitted.tokens.exponent).len() > 10);
    assert_eq!(fitted.loss_resampled.scheme, Scheme::Jackknife { n_runs: 3, n_clusters: 3 });
}

#[test]
fn two_runs_and_one_run_never_give_an_interval() {
    let fitted = envelope(&Study::ladder(2));
    assert!(reason(&fitted.loss.exponent).contains("needs at least 3"), "{:?}", fitted.loss);
    let alone = fit(&Study::ladder(1).dataset(), &EnvelopeOptions::default()).unwrap_err();
    assert_eq!(alone, EnvelopeError::NoOverlap { n_sizes: 1 });
}

#[test]
fn a_budget_that_only_one_size_reaches_is_not_on_the_frontier() {
    let fitted = envelope(&Study::ladder(4));
    let sizes = Study::ladder(4).sizes;
    // The last budget is where the second largest size ends.
    assert!((fitted.flops_range.1 / (6.0 * sizes[2] * 1e7) - 1.0).abs() < 1e-9);
    assert!((fitted.flops_range.0 / (6.0 * sizes[1] * 1e5) - 1.0).abs() < 1e-9);
    assert_eq!((fitted.frontier.len(), fitted.dropped.len()), (64, 0));
}

#[test]
fn a_gap_between_sizes_is_dropped_with_its_reason() {
    let mut points = Study::ladder(2).observations();
    let far = Study { sizes: vec![1e9, 2e9], ..Study::ladder(2) }.observations();
    points.extend(
        far.into_iter().map(|point| Observation { run: RunKey(point.run.0 + 10), ..point }),
    );
    let fitted = fit(&Dataset::new(&points).unwrap(), &EnvelopeOptions::default()).unwrap();
    assert!(!fitted.dropped.is_empty());
    assert!(fitted.dropped.iter().all(|one| one.reason.contains("fewer than two sizes")));
}

#[test]
fn seeds_of_one_size_are_averaged_and_not_raced() {
    let study = Study::ladder(4);
    let plain = envelope(&study);
    let mut points = study.observations();
    let lucky = study.observations().into_iter().map(|point| Observation {
        run: RunKey(point.run.0 + 10),
        loss_nats: point.loss_nats * 0.98,
        ..point
    });
    points.extend(lucky);
    let both = fit(&Dataset::new(&points).unwrap(), &EnvelopeOptions::default()).unwrap();
    for (one, two) in plain.frontier.iter().zip(&both.frontier) {
        assert!((two.loss_nats / one.loss_nats / 0.98_f64.sqrt() - 1.0).abs() < 1e-9);
    }
}

#[test]
fn repeated_compute_within_a_run_is_refused_and_a_single_point_makes_no_curve() {
    let mut points = Study::ladder(3).observations();
    points.push(Observation { loss_nats: 9.0, ..points[0] });
    let repeated = fit(&Dataset::new(&points).unwrap(), &EnvelopeOptions::default()).unwrap_err();
    assert!(matches!(repeated, EnvelopeError::RepeatedFlops { run: 0, .. }));
    let mut points = Study::ladder(3).observations();
    points.push(Observation { run: RunKey(7), ..points[0] });
    let fitted = fit(&Dataset::new(&points).unwrap(), &EnvelopeOptions::default()).unwrap();
    assert_eq!(fitted.runs_without_curve, [RunKey(7)]);
    assert_eq!(fitted.n_runs, 3);
}

/// Aim: intervals of the frontier's exponent, and of its loss, cover the noise-free values. Method:
/// 200 seeded studies with luck per run and noise per point, against the same study without either.
/// Gives the two coverages and the mean width of the exponent's interval over the exponent.
fn coverage(n_sizes: usize, seed_sd_log: Option<f64>) -> (f64, f64, f64) {
    let exact = envelope(&Study::ladder(n_sizes));
    let budget = 2.0 * exact.flops_range.1;
    let slope = exact.loss_resampled.theta[1];
    let expected = exact.predict_loss(budget).curve.value().unwrap();
    let interval = IntervalOptions { draws: 100, ..IntervalOptions::default() };
    let options =
        EnvelopeOptions { n_budgets: 32, interval, seed_sd_log, ..EnvelopeOptions::default() };
    let (mut slopes, mut losses, mut width) = (0.0, 0.0, 0.0);
    for seed in 0..200 {
        let study = Study { run_sd: 0.004, point_sd: 0.001, seed, ..Study::ladder(n_sizes) };
        let fitted = fit(&study.dataset(), &options).unwrap();
        let covers = |(low, high): (f64, f64), value: f64| low <= value && value <= high;
        let of_slope = fitted.loss.exponent.interval().unwrap();
        let of_loss = fitted.predict_loss(budget).curve.interval().unwrap();
        slopes += f64::from(u8::from(covers(of_slope, slope)));
        losses += f64::from(u8::from(covers(of_loss, expected)));
        width += (of_slope.1 - of_slope.0) / slope.abs();
    }
    (slopes / 200.0, losses / 200.0, width / 200.0)
}

#[test]
fn resampled_intervals_of_the_frontier_cover_for_three_to_fourteen_runs() {
    // The widths are what sizes owe to chance of the design; they fall with the number of sizes.
    for (n_sizes, widest) in [(3, 1.5), (4, 1.0), (6, 0.7), (14, 0.4)] {
        let (slopes, losses, width) = coverage(n_sizes, None);
        eprintln!("{n_sizes} runs: exponent {slopes}, loss {losses}, relative width {width:.3}");
        assert!(slopes >= 0.9 && losses >= 0.9, "{n_sizes} runs: {slopes} {losses}");
        assert!(width < widest, "{n_sizes} runs: relative width {width}");
    }
}

#[test]
fn intervals_from_the_true_noise_between_seeds_cover_and_from_too_little_noise_do_not() {
    for n_sizes in [3, 6] {
        let (slopes, losses, width) = coverage(n_sizes, Some(0.004));
        eprintln!("{n_sizes} stated: exponent {slopes}, loss {losses}, relative width {width:.3}");
        assert!(slopes >= 0.85 && losses >= 0.85, "{n_sizes} runs: {slopes} {losses}");
    }
    let (slopes, ..) = coverage(3, Some(0.0004));
    assert!(slopes < 0.5, "a tenth of the noise cannot cover: {slopes}");
}

/// Aim: curves of one trunk are drawn together, whatever the clusters' numbers. Method: two runs at
/// each of 13 sizes are one trunk, and the same under other numbers.
#[test]
fn curves_of_one_trunk_are_drawn_together() {
    let study = Study { run_sd: 0.002, ..Study::ladder(13) };
    let points = study.observations();
    let again = points.iter().map(|point| Observation { run: RunKey(point.run.0 + 13), ..*point });
    let all: Vec<Observation> = points.iter().copied().chain(again).collect();
    let options = EnvelopeOptions::default();
    let fitted = |number: &dyn Fn(u32) -> u32| {
        let data = Dataset::new(&all).unwrap().clustered(|point| number(point.run.0 % 13)).unwrap();
        fit(&data, &options).unwrap()
    };
    let (first, second) = (fitted(&|trunk| trunk), fitted(&|trunk| (trunk * 5 + 2) % 13));
    assert_eq!(first, second);
    assert_eq!(first.unit_of_run[..4], [0, 0, 1, 1]);
    let text = first.loss_resampled.scheme.to_string();
    assert_eq!(text, "bootstrap by trunk (13 trunks of 26 runs), 1000 draws, seed 0");
    // The same curve twice is that curve: what each draw gives is what one run for each gives.
    let once = fit(&Dataset::new(&points).unwrap(), &options).unwrap();
    let pairs = first.loss_resampled.replicates.iter().zip(&once.loss_resampled.replicates);
    assert!(pairs.into_iter().all(|(a, b)| (a[1] - b[1]).abs() < 1e-12));
}
