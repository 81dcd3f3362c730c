use super::*;
use crate::fit::{FitOptions, fit};
use crate::interval::{IntervalOptions, infer};
use crate::law::{Chinchilla, LawName};
use crate::observation::{Dataset, Observation, RunKey};
use crate::random::Stream;

const THETA: [f64; 5] = [6.0, 6.1, 0.53, 0.34, 0.28];

/// Sizes a factor of two apart, with the FLOPs that `of` says.
fn ladder(of: impl Fn(f64) -> f64) -> Ladder {
    let rung = |i: i32| {
        let parameters = 1e7 * 2_f64.powi(i);
        Rung { parameters, flops_per_token: of(parameters) }
    };
    Ladder::new(&(0..12).map(rung).collect::<Vec<_>>()).unwrap()
}

/// 6 N and the attention of a model of N = 12 l d² with d = 64 l over a context of 4,096: 6 n l d,
/// with the causal half.
fn with_attention(parameters: f64) -> f64 {
    let layers = (parameters / (12.0 * 64.0 * 64.0)).cbrt();
    6.0 * parameters + 6.0 * 4096.0 * layers * 64.0 * layers
}

#[test]
fn where_a_token_costs_six_n_the_optimum_is_that_of_the_closed_form() {
    let ladder = ladder(|n| 6.0 * n);
    for flops in [1e19, 3e19, 1e20, 1e21, 4e21] {
        let expected = Chinchilla::optimum(&THETA, flops, 6.0);
        let found = ladder.optimum(&Chinchilla, &THETA, flops).unwrap();
        // A minimum is flat: the loss is exact, the place to the root of rounding.
        assert!((found.loss_nats / expected.loss_nats - 1.0).abs() < 1e-13, "{found:?}");
        assert!((found.parameters / expected.parameters - 1.0).abs() < 1e-6, "{found:?}");
        assert!((found.tokens / expected.tokens - 1.0).abs() < 1e-6, "{found:?}");
        assert!(!found.is_end);
        let ratio = found.rung_parameters / found.parameters;
        assert!((0.5..2.0).contains(&ratio), "{found:?}");
    }
}

#[test]
fn with_attention_the_optimum_is_where_the_law_and_the_price_of_size_balance() {
    let ladder = ladder(with_attention);
    for flops in [1e19, 1e20, 1e21] {
        let found = ladder.optimum(&Chinchilla, &THETA, flops).unwrap();
        // Minimised over the exact formula itself, on a grid far finer than the ladder.
        let loss = |n: f64| {
            let point = LogPoint::new(n, flops / with_attention(n), flops);
            Chinchilla.predict(&THETA, &point)
        };
        let fine = (0..200_000).map(|i| 1e7 * (f64::from(i) / 200_000.0 * 2048_f64.ln()).exp());
        let best = fine.min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap();
        // Between rungs the cost is interpolated.
        assert!((found.parameters / best - 1.0).abs() < 2e-3, "{found:?} {best:e}");
        assert!((found.loss_nats / loss(best) - 1.0).abs() < 1e-5, "{found:?}");
        let spent = found.tokens * with_attention(found.parameters);
        assert!((spent / flops - 1.0).abs() < 1e-3, "{spent:e}");
        // A token costs relatively less in a larger model, so the best one is larger for the same
        // product N D.
        let kappa = with_attention(found.parameters) / found.parameters;
        let same_price = Chinchilla::optimum(&THETA, flops, kappa);
        assert!(found.parameters > 1.01 * same_price.parameters, "{found:?} {same_price:?}");
    }
}

#[test]
fn between_rungs_the_price_never_falls_and_meets_every_rung() {
    let rungs = [(1e6, 6e6), (2e6, 6.1e6), (5e6, 9e7), (5.5e6, 9e7), (2e7, 9.1e7), (9e7, 5e9)]
        .map(|(parameters, flops_per_token)| Rung { parameters, flops_per_token });
    let ladder = Ladder::new(&[rungs, rungs].concat()).unwrap();
    assert_eq!(ladder.rungs(), rungs, "each once");
    for rung in &rungs {
        let found = ladder.flops_per_token(rung.parameters);
        assert!((found / rung.flops_per_token - 1.0).abs() < 1e-12, "{rung:?} {found:e}");
    }
    let at = |i: i32| ladder.flops_per_token(1e6 * (f64::from(i) / 5000.0 * 90_f64.ln()).exp());
    for i in 1..=5000 {
        assert!(at(i) >= at(i - 1) * (1.0 - 1e-12), "{i}");
    }
    assert!(ladder.flops_per_token(9e5).is_nan() && ladder.flops_per_token(1e8).is_nan());
}

#[test]
fn what_is_no_ladder_is_refused_by_its_numbers() {
    let of = |pairs: &[(f64, f64)]| {
        let rung = |(parameters, flops_per_token): &(f64, f64)| Rung {
            parameters: *parameters,
            flops_per_token: *flops_per_token,
        };
        Ladder::new(&pairs.iter().map(rung).collect::<Vec<_>>())
    };
    assert_eq!(of(&[(1e6, 6e6), (1e6, 6e6)]), Err(LadderError::TooFew { found: 1 }));
    let error = of(&[(1e6, 6e6), (1e6, 7e6)]).unwrap_err().to_string();
    assert!(error.contains("6e6") && error.contains("7e6"), "{error}");
    let error = of(&[(2e6, 6e6), (1e6, 7e6)]).unwrap_err().to_string();
    assert!(error.starts_with("N = 2e6") && error.contains("less than"), "{error}");
    let zero = LadderError::NotPositive { field: "flops_per_token", value: 0.0 };
    assert_eq!(of(&[(1e6, 0.0)]), Err(zero));
}

// All sizes at one D/N: the law says nothing of other ratios, along a ladder as little as in closed
// form.
#[test]
fn exponents_that_are_not_identified_leave_no_optimum_on_a_ladder() {
    let mut stream = Stream::new(5, 0);
    let point = |run: u32| {
        let parameters = 1e7 * 1.4_f64.powf(f64::from(run));
        let (tokens, flops) = (20.0 * parameters, 20.0 * parameters * with_attention(parameters));
        let loss = Chinchilla.predict(&THETA, &LogPoint::new(parameters, tokens, flops));
        let loss_nats = loss * (0.003 * stream.normal()).exp();
        Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 }
    };
    let points: Vec<Observation> = (0..24).map(point).collect();
    let (data, options) = (Dataset::new(&points).unwrap(), FitOptions::default());
    let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
    let interval = IntervalOptions { draws: 200, ..IntervalOptions::default() };
    let inference = infer(&fitted, &data, &options, &interval).unwrap();
    assert!(inference.whole.is_none());
    let found = ladder(with_attention).estimate(&inference, 1e20).unwrap();
    for estimate in [&found.parameters, &found.tokens, &found.loss_nats] {
        let Estimate::NotIdentified { reason } = estimate else { panic!("{estimate:?}") };
        assert!(reason.starts_with("alpha: "), "{reason}");
    }
    assert_eq!(found.rung_parameters, None);
}

#[test]
fn an_optimum_at_the_end_of_the_ladder_is_not_identified_and_others_have_intervals() {
    let mut stream = Stream::new(5, 0);
    let mut points = Vec::new();
    for size in 0..6_i32 {
        for count in 0..6_i32 {
            let (parameters, tokens) = (1e7 * 2_f64.powi(size), 2e8 * 3_f64.powi(count));
            let flops = with_attention(parameters) * tokens;
            let loss = Chinchilla.predict(&THETA, &LogPoint::new(parameters, tokens, flops));
            let loss_nats = loss * (0.003 * stream.normal()).exp();
            let run = RunKey(u32::try_from(points.len()).unwrap());
            points.push(Observation { run, parameters, tokens, flops, loss_nats, seed: 0 });
        }
    }
    let (data, options) = (Dataset::new(&points).unwrap(), FitOptions::default());
    let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
    let interval = IntervalOptions { draws: 200, ..IntervalOptions::default() };
    let inference = infer(&fitted, &data, &options, &interval).unwrap();
    let ladder = ladder(with_attention);
    let truth = ladder.optimum(&Chinchilla, &THETA, 1e20).unwrap();
    let found = ladder.estimate(&inference, 1e20).unwrap();
    for (estimate, planted) in [
        (&found.parameters, truth.parameters),
        (&found.tokens, truth.tokens),
        (&found.loss_nats, truth.loss_nats),
    ] {
        let (low, high) = estimate.interval().unwrap();
        assert!(low <= planted && planted <= high, "{low:e} {planted:e} {high:e}");
    }
    assert_eq!(found.share_at_end, 0.0);
    let far = ladder.estimate(&inference, 1e26).unwrap();
    let Estimate::NotIdentified { reason } = &far.parameters else { panic!("{far:?}") };
    assert!(reason.contains("an end of the ladder"), "{reason}");
    assert!(far.share_at_end > 0.99 && far.loss_nats.value().is_some(), "{far:?}");
    assert!((far.rung_parameters.unwrap() / 2.048e10 - 1.0).abs() < 1e-9, "{far:?}");
}
