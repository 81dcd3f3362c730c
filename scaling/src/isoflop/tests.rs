use super::*;
use crate::law::Chinchilla;
use crate::observation::{Covariates, RunKey};
use crate::planted::Study;
use crate::random::Stream;

const BUDGETS: [f64; 5] = [1e11, 3e11, 1e12, 3e12, 1e13];

/// Seven sizes around the planted optimum of each budget, shifted by `shift` in ln N.
fn profiles(shift: f64, sd: f64, seed: u64) -> Dataset {
    let study =
        Study { theta: [60_f64.ln(), 300_f64.ln(), 1.5_f64.ln(), 0.37, 0.37], ..Study::ladder(3) };
    let mut stream = Stream::new(seed, 0);
    let mut points = Vec::new();
    for budget in BUDGETS {
        let best = crate::law::Chinchilla::optimum(&study.theta, budget, 6.0).parameters.ln();
        for step in -3..=3 {
            let parameters = (best + shift + 0.5 * f64::from(step)).exp();
            let tokens = budget / 6.0 / parameters;
            let loss_nats = study.loss(parameters, tokens) * (sd * stream.normal()).exp();
            let run = RunKey(u32::try_from(points.len()).unwrap());
            points.push(Observation { run, parameters, tokens, flops: budget, loss_nats, seed: 0 });
        }
    }
    Dataset::new(&points).unwrap()
}

#[test]
fn symmetric_profiles_give_the_planted_exponents() {
    let fitted = fit(&profiles(0.0, 0.0, 0), &BUDGETS, &IsoflopOptions::default());
    assert_eq!((fitted.minima.len(), fitted.dropped.len()), (5, 0));
    // alpha = beta: N_opt and D_opt both grow as C^0.5, and parabolas are unbiased.
    for line in [&fitted.parameters, &fitted.tokens] {
        let value = line.exponent.value().unwrap();
        assert!((value - 0.5).abs() < 1e-3, "{value}");
    }
    for minimum in &fitted.minima {
        assert!((6.0 * minimum.parameters * minimum.tokens / minimum.flops - 1.0).abs() < 1e-6);
    }
}

#[test]
fn intervals_cover_the_planted_exponent() {
    let covers = |seed: u64| {
        let fitted = fit(&profiles(0.0, 0.003, seed), &BUDGETS, &IsoflopOptions::default());
        let interval = fitted.parameters.exponent.interval();
        interval.is_some_and(|(low, high)| low <= 0.5 && 0.5 <= high)
    };
    let hits = (0..200).filter(|seed| covers(*seed)).count();
    assert!(hits >= 170, "{hits} of 200");
}

#[test]
fn a_minimum_outside_the_sampled_sizes_drops_the_budget_with_that_reason() {
    let fitted = fit(&profiles(1.8, 0.0, 0), &BUDGETS, &IsoflopOptions::default());
    assert!(fitted.minima.is_empty());
    assert_eq!(fitted.dropped.len(), 5);
    for one in &fitted.dropped {
        assert!(one.reason.contains("not inside the sampled sizes"), "{}", one.reason);
    }
    let Estimate::NotIdentified { reason } = fitted.parameters.exponent else { panic!() };
    assert_eq!(reason, "0 budgets have a minimum; an exponent needs 3");
}

#[test]
fn few_sizes_flat_profiles_and_stray_points_are_named() {
    let data = profiles(0.0, 0.0, 0);
    let flat: Vec<Observation> = data
        .points()
        .iter()
        .enumerate()
        .filter(|(i, _)| *i >= 7 || *i < 3)
        .map(|(i, point)| {
            let loss_nats = if point.flops == 3e11 {
                3.0 + 0.01 * (i as f64 * 2.4).sin()
            } else {
                point.loss_nats
            };
            Observation { loss_nats, ..*point }
        })
        .chain([Observation { run: RunKey(99), flops: 5e11, ..data.points()[0] }])
        .collect();
    let fitted = fit(&Dataset::new(&flat).unwrap(), &BUDGETS, &IsoflopOptions::default());
    assert!(fitted.dropped[0].reason.starts_with("3 sizes"));
    let why = &fitted.dropped[1].reason;
    assert!(why.contains("flat") || why.contains("does not curve upward"), "{why}");
    assert_eq!(fitted.excluded.len(), 1);
    assert!(fitted.excluded[0].reason.contains("no budget"));
}

/// D_opt at 1e24 from five budgets of fifteen sizes, each within a factor of the true optimum,
/// against the truth.
fn tokens_error(
    [alpha, beta, a, b]: [f64; 4],
    factor: f64,
    window: f64,
    is_corrected: bool,
) -> f64 {
    let theta = [f64::ln(a), f64::ln(b), 1.69_f64.ln(), alpha, beta];
    let budgets = [1e17, 1e18, 1e19, 1e20, 1e21];
    let mut points = Vec::new();
    for flops in budgets {
        let best = Chinchilla::optimum(&theta, flops, 6.0).tokens;
        for step in 0..15_i32 {
            let tokens = best * factor.powf(f64::from(step - 7) / 7.0);
            let parameters = flops / 6.0 / tokens;
            let loss_nats = Chinchilla.predict(&theta, &LogPoint::new(parameters, tokens, flops));
            let run = crate::observation::RunKey(u32::try_from(points.len()).unwrap());
            points.push(Observation { run, parameters, tokens, flops, loss_nats, seed: 0 });
        }
    }
    let data = Dataset::new(&points).unwrap();
    let options = IsoflopOptions { unit_flops: 1e24, window, ..IsoflopOptions::default() };
    let fitted = if is_corrected {
        fit_corrected(&data, &budgets, &options, (&Chinchilla, &theta)).unwrap()
    } else {
        fit(&data, &budgets, &options)
    };
    let exponent = fitted.tokens.exponent.value().unwrap();
    // The shift is the same at every budget for L; for ln L it moves a little with the loss.
    // The surface's best size is found by halving, where the loss is flat to rounding.
    let allowed = if is_corrected { 1e-7 } else { 1e-3 };
    assert!((exponent - alpha / (alpha + beta)).abs() < allowed, "{exponent}");
    let truth = Chinchilla::optimum(&theta, 1e24, 6.0).tokens;
    100.0 * (fitted.tokens.prefactor.value().unwrap() / truth - 1.0)
}

#[test]
fn the_bias_of_parabolas_is_the_published_one_and_is_taken_off_by_the_surface() {
    // Per cent of D_opt at 1e24; the parabola is one of ln L here and one of L in the reference,
    // which moves the last digits.
    for (alpha, beta, a, b, factor, published, allowed) in [
        (0.34, 0.28, 406.4, 410.7, 8.0, -2.9, 0.4),
        (0.34, 0.28, 406.4, 410.7, 2.0, -0.33, 0.1),
        (0.465, 0.155, 406.4, 410.7, 8.0, -13.91, 1.5),
        (0.31, 0.31, 400.0, 400.0, 16.0, 0.0, 1e-6),
    ] {
        // All sizes, as in the reference.
        let error = |is| tokens_error([alpha, beta, a, b], factor, f64::INFINITY, is);
        let (plain, corrected) = (error(false), error(true));
        eprintln!(
            "{alpha} {beta} x{factor}: {plain:.3} % for {published} %, corrected {corrected:.1e} %"
        );
        assert!((plain - published).abs() < allowed, "{plain} for {published}");
        assert!(corrected.abs() < 1e-4, "{corrected}");
    }
}

#[test]
fn a_window_around_the_minimum_takes_most_of_the_bias_of_wide_profiles_away() {
    let surface = [0.34, 0.28, 406.4, 410.7];
    let wide = tokens_error(surface, 16.0, f64::INFINITY, false);
    let windowed = tokens_error(surface, 16.0, WINDOW, false);
    eprintln!("all sizes {wide:.2} %, within the window {windowed:.2} %");
    assert!(windowed.abs() < 0.4 * wide.abs(), "{windowed} {wide}");
    assert!(tokens_error(surface, 16.0, WINDOW, true).abs() < 1e-6);
}

/// Sizes far on one side of the minimum, as when a ladder is used at its small end.
fn lopsided(sd: f64, seed: u64, bump: f64) -> Dataset {
    let theta = [60_f64.ln(), 300_f64.ln(), 1.5_f64.ln(), 0.37, 0.37];
    let mut stream = Stream::new(seed, 0);
    let mut points = Vec::new();
    for budget in BUDGETS {
        let best = Chinchilla::optimum(&theta, budget, 6.0).parameters.ln();
        for step in -4..=9_i32 {
            let parameters = (best + 0.4 * f64::from(step)).exp();
            let tokens = budget / 6.0 / parameters;
            let exact = Chinchilla.predict(&theta, &LogPoint::new(parameters, tokens, budget));
            // A dent beside the minimum, which no parabola has.
            let dent = 1.0 - bump * (-(f64::from(step) - 2.0).powi(2)).exp();
            let loss_nats = exact * dent * (sd * stream.normal()).exp();
            let run = RunKey(u32::try_from(points.len()).unwrap());
            points.push(Observation { run, parameters, tokens, flops: budget, loss_nats, seed: 0 });
        }
    }
    Dataset::new(&points).unwrap()
}

#[test]
fn the_window_is_centred_on_the_minimum_and_keeps_enough_sizes() {
    let fitted = fit(&lopsided(0.0, 0, 0.0), &BUDGETS, &IsoflopOptions::default());
    let all = IsoflopOptions { window: f64::INFINITY, ..IsoflopOptions::default() };
    let unwindowed = fit(&lopsided(0.0, 0, 0.0), &BUDGETS, &all);
    for (one, other) in fitted.minima.iter().zip(&unwindowed.minima) {
        let theta = [60_f64.ln(), 300_f64.ln(), 1.5_f64.ln(), 0.37, 0.37];
        let best = Chinchilla::optimum(&theta, one.flops, 6.0).parameters;
        let error = |found: f64| (found / best).ln().abs();
        // ln 4 on either side at steps of 0.4: three steps each way.
        assert_eq!((one.n_in_window, one.n_points), (7, 14), "{one:?}");
        assert_eq!(other.n_in_window, 14);
        assert!(error(one.parameters) < 0.2 * error(other.parameters), "{one:?} {other:?}");
    }
    let narrow = IsoflopOptions { window: 1.01, ..IsoflopOptions::default() };
    for one in fit(&lopsided(0.0, 0, 0.0), &BUDGETS, &narrow).minima {
        assert!(one.n_in_window >= MIN_SIZES_IN_WINDOW, "{one:?}");
    }
}

/// Aim: noise alone rarely raises the warning, and a profile that is no parabola raises it often.
/// Method: at 95 % one check in twenty may fail; 200 checks with noise, 200 with a dent beside the
/// minimum, which also raises the scatter that the check is judged by.
#[test]
fn the_interpolant_disagrees_with_a_parabola_that_is_wrong_and_rarely_otherwise() {
    let named = |bump: f64| -> usize {
        let warnings = |seed: u64| {
            let data = lopsided(0.002, seed, bump);
            fit(&data, &BUDGETS, &IsoflopOptions::default()).warnings
        };
        let all = (0..40).flat_map(warnings);
        all.filter(|text| text.starts_with("akima-disagrees: at ")).count()
    };
    let (quiet, loud) = (named(0.0), named(0.06));
    eprintln!("{quiet} and {loud} of 200");
    assert!(quiet <= 20, "{quiet} of 200");
    assert!(loud >= 50, "{loud} of 200");
}

#[test]
fn minima_of_one_trunk_are_named_as_such() {
    // Sizes half a nat apart, of which each budget has the seven around its own best.
    let theta = [60_f64.ln(), 300_f64.ln(), 1.5_f64.ln(), 0.37, 0.37];
    let study = Study { theta, ..Study::ladder(3) };
    let mut points = Vec::new();
    for budget in BUDGETS {
        let best = crate::law::Chinchilla::optimum(&study.theta, budget, 6.0).parameters.ln();
        let middle = (best / 0.5).round();
        for step in -3..=3 {
            let parameters = (0.5 * (middle + f64::from(step))).exp();
            let tokens = budget / 6.0 / parameters;
            let loss_nats = study.loss(parameters, tokens);
            let run = RunKey(u32::try_from(points.len()).unwrap());
            points.push(Observation { run, parameters, tokens, flops: budget, loss_nats, seed: 0 });
        }
    }
    let mut sizes: Vec<f64> = points.iter().map(|point| point.parameters).collect();
    sizes.sort_by(f64::total_cmp);
    sizes.dedup();
    let size = |point: &Observation| {
        u32::try_from(sizes.iter().position(|size| *size == point.parameters).unwrap()).unwrap()
    };
    let alone = Dataset::new(&points).unwrap();
    let shared = alone.clone().clustered(size).unwrap();
    let options = IsoflopOptions::default();
    assert!(fit(&alone, &BUDGETS, &options).warnings.is_empty());
    let fitted = fit(&shared, &BUDGETS, &options);
    let [warning] = &fitted.warnings[..] else { panic!("{:?}", fitted.warnings) };
    let counts: Vec<usize> = sizes
        .iter()
        .map(|size| points.iter().filter(|one| one.parameters == *size).count())
        .collect();
    let several: Vec<&usize> = counts.iter().filter(|count| **count > 1).collect();
    let n_runs: usize = several.iter().copied().sum();
    let expected = format!("shared-trunks: {n_runs} of 35 runs have {} trunks", several.len());
    assert!(warning.starts_with(&expected), "{warning}");
    // Of one budget a trunk is nothing that minima share.
    let one = fit(&shared, &BUDGETS[..1], &options);
    assert!(
        one.warnings.iter().all(|text| !text.starts_with("shared-trunks")),
        "{:?}",
        one.warnings
    );
}

/// Five budgets of nine sizes up to four times from 1.5 times the best, on a planted surface whose
/// models cost so many FLOPs for a token.
fn skewed(theta: &[f64], price: impl Fn(f64) -> f64) -> (Dataset, Vec<f64>) {
    let budgets: Vec<f64> = (0..5).map(|i| 1e17 * 10_f64.powi(i)).collect();
    let mut points = Vec::new();
    for flops in &budgets {
        let best = Chinchilla::optimum(theta, *flops, 6.0).parameters;
        for step in -4..=4_i32 {
            let parameters = 1.5 * best * 2_f64.powf(f64::from(step) / 2.0);
            let tokens = flops / price(parameters);
            let loss_nats = Chinchilla.predict(theta, &LogPoint::new(parameters, tokens, *flops));
            let run = crate::observation::RunKey(u32::try_from(points.len()).unwrap());
            points.push(Observation { run, parameters, tokens, flops: *flops, loss_nats, seed: 0 });
        }
    }
    (Dataset::new(&points).unwrap(), budgets)
}

const STEEP: [f64; 5] = [6.007, 6.018, 0.525, 0.465, 0.155];

// Attention moves the minimum of a profile itself. A correction by the closed form, with one price
// for all sizes, would take that off, too.
#[test]
fn the_correction_leaves_the_minimum_where_sizes_have_prices_of_their_own() {
    let price = |parameters: f64| 6.0 * parameters * (1.0 + 3e3 / parameters.sqrt());
    let (data, budgets) = skewed(&STEEP, price);
    let options = IsoflopOptions::default();
    let corrected = fit_corrected(&data, &budgets, &options, (&Chinchilla, &STEEP)).unwrap();
    assert_eq!(corrected.minima.len(), budgets.len());
    let least = |flops: f64| {
        let loss = |parameters: f64| {
            let tokens = flops / price(parameters);
            Chinchilla.predict(&STEEP, &LogPoint::new(parameters, tokens, flops))
        };
        let best = Chinchilla::optimum(&STEEP, flops, 6.0).parameters;
        let sizes = (0..40_000).map(|i| best * 6_f64.powf(f64::from(i) / 20_000.0 - 1.0));
        sizes.min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap()
    };
    for one in &corrected.minima {
        let truth = least(one.flops);
        assert!((one.parameters / truth - 1.0).abs() < 2e-3, "{one:?} {truth:e}");
    }
}

#[test]
fn the_bias_is_told_with_both_minima_and_not_where_there_is_none() {
    let (data, budgets) = skewed(&STEEP, |parameters| 6.0 * parameters);
    let options = IsoflopOptions::default();
    let plain = fit(&data, &budgets, &options);
    let corrected = fit_corrected(&data, &budgets, &options, (&Chinchilla, &STEEP)).unwrap();
    let found = bias(&plain, &corrected).unwrap();
    assert_eq!(found.name, "parabola-bias");
    let (was, is) = (plain.minima[4].parameters, corrected.minima[4].parameters);
    for value in [was, is] {
        assert!(found.text.contains(&format!("{value:.3e}")), "{found}");
    }
    assert!((is / Chinchilla::optimum(&STEEP, 1e21, 6.0).parameters - 1.0).abs() < 1e-5, "{found}");
    assert!((was / is - 1.0).abs() > MIN_BIAS, "{found}");
    assert_eq!(bias(&plain, &plain), None);
}

#[test]
fn a_surface_whose_best_size_was_not_sampled_corrects_nothing() {
    let (data, budgets) = skewed(&STEEP, |parameters| 6.0 * parameters);
    // A ten thousandth of B: the best sizes are far larger.
    let other = [STEEP[0], STEEP[1] - 9.2, STEEP[2], STEEP[3], STEEP[4]];
    let options = IsoflopOptions::default();
    let error = fit_corrected(&data, &budgets, &options, (&Chinchilla, &other)).unwrap_err();
    assert!(error.contains("at 1.000e17 FLOPs"), "{error}");
}

/// Profiles of unequal worth: small budgets have five sizes close together, large ones nine far apart.
fn unequal(seed: u64, sd: f64) -> Dataset {
    let study =
        Study { theta: [60_f64.ln(), 300_f64.ln(), 1.5_f64.ln(), 0.37, 0.37], ..Study::ladder(3) };
    let mut stream = Stream::new(seed, 1);
    let mut points = Vec::new();
    for (place, flops) in [1e11, 3e11, 1e12, 3e12, 1e13, 3e13, 1e14].into_iter().enumerate() {
        let best = Chinchilla::optimum(&study.theta, flops, 6.0).parameters.ln();
        let (reach, step) = if place < 3 { (2, 0.2) } else { (4, 0.34) };
        for at in -reach..=reach {
            let parameters = (best + step * f64::from(at)).exp();
            let tokens = flops / 6.0 / parameters;
            let loss_nats = study.loss(parameters, tokens) * (sd * stream.normal()).exp();
            let run = RunKey(u32::try_from(points.len()).unwrap());
            points.push(Observation { run, parameters, tokens, flops, loss_nats, seed: 0 });
        }
    }
    Dataset::new(&points).unwrap()
}

#[test]
fn a_line_through_minima_of_unequal_worth_errs_less_by_their_weights_and_covers_the_truth() {
    let budgets = [1e11, 3e11, 1e12, 3e12, 1e13, 3e13, 1e14];
    let (mut hits, mut n, mut squares) = (0_u32, 0_u32, [0.0; 2]);
    for seed in 0..200 {
        let fitted = fit(&unequal(seed, 0.0004), &budgets, &IsoflopOptions::default());
        let Some((low, high)) = fitted.parameters.exponent.interval() else { continue };
        let equal: Vec<ProfileMinimum> =
            fitted.minima.iter().map(|one| ProfileMinimum { error_log: 0.0, ..*one }).collect();
        let equal = power_line(&equal, &IsoflopOptions::default(), |one| one.parameters);
        let error = |line: &PowerLine| line.exponent.value().map_or(0.0, |value| value - 0.5);
        squares[0] += error(&fitted.parameters).powi(2);
        squares[1] += error(&equal).powi(2);
        hits += u32::from(low <= 0.5 && 0.5 <= high);
        n += 1;
    }
    let [weighted, equal] = squares.map(|sum| (sum / f64::from(n)).sqrt());
    eprintln!("{hits} of {n}; errors {weighted:.4} by weights, {equal:.4} without");
    assert!(n >= 190 && 100 * hits >= 90 * n, "{hits} of {n}");
    assert!(weighted < 0.9 * equal, "{weighted} {equal}");
}

#[test]
fn the_error_of_a_minimum_is_how_much_minima_scatter() {
    let budgets = [1e11, 3e11, 1e12, 3e12, 1e13, 3e13, 1e14];
    let fits: Vec<IsoflopFit> = (0..100)
        .map(|seed| fit(&unequal(seed, 0.0002), &budgets, &IsoflopOptions::default()))
        .filter(|fitted| fitted.minima.len() == budgets.len())
        .collect();
    assert!(fits.len() > 80, "{}", fits.len());
    for at in [0, 6] {
        let n = fits.len() as f64;
        let logs: Vec<f64> = fits.iter().map(|one| one.minima[at].parameters.ln()).collect();
        let mean = logs.iter().sum::<f64>() / n;
        let sd = (logs.iter().map(|ln| (ln - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
        let told = fits.iter().map(|one| one.minima[at].error_log).sum::<f64>() / n;
        assert!((0.75..1.33).contains(&(told / sd)), "budget {at}: {told} told, {sd} seen");
    }
}

#[test]
fn runs_count_by_their_weights_in_a_profile() {
    let data = profiles(0.0, 0.0, 0);
    let with = |weight: f64| {
        let rows: Vec<(Observation, Covariates)> = data
            .points()
            .iter()
            .enumerate()
            .map(|(index, point)| {
                // One run of the first budget was unlucky.
                let is_off = index == 2;
                let loss_nats = point.loss_nats * if is_off { 1.01 } else { 1.0 };
                let weight = if is_off { weight } else { 1.0 };
                let covariates = Covariates { weight, ..Covariates::default() };
                (Observation { loss_nats, ..*point }, covariates)
            })
            .collect();
        let rows = Dataset::select_rows(&rows, |_, _| None).unwrap();
        fit(&rows, &BUDGETS, &IsoflopOptions::default()).minima[0].parameters
    };
    let truth = fit(&data, &BUDGETS, &IsoflopOptions::default()).minima[0].parameters;
    let error = |weight: f64| (with(weight) / truth).ln().abs();
    assert!(error(1.0) > 0.01 && error(1e-6) < 1e-3, "{} {}", error(1.0), error(1e-6));
}

#[test]
fn a_minimum_in_the_last_step_of_its_sizes_is_named() {
    let named = |shift: f64| {
        let fitted = fit(&profiles(shift, 0.0, 0), &BUDGETS, &IsoflopOptions::default());
        fitted.warnings.iter().any(|text| text.starts_with("edge-minima: 5 of 5 minima"))
    };
    // Sizes are half a unit of ln N apart, three on each side.
    assert!(named(1.25) && !named(0.75));
}
