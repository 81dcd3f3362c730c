//! Hostile data for the laws with covariates: a clear error or a reason, never a panic, and never a
//! number that is none.

use super::planted_tests::{design, truths};
use super::*;
use crate::diagnose::diagnose;
use crate::interval::{Estimate, IntervalOptions, infer};
use crate::law::LawChoice;
use crate::observation::{Covariates, Observation, ObservationError, RunKey};
use crate::random::Stream;

type Row = (Observation, Covariates);

const LAWS: [LawName; 5] = [
    LawName::DataConstrained,
    LawName::Precision,
    LawName::Sigmoid,
    LawName::Annealing,
    LawName::Chinchilla,
];

/// The laws with their rows: exact losses of a plausible truth, with noise.
fn cases() -> Vec<(&'static dyn Law, Vec<Row>)> {
    // Of `precision` the one with the bits of all tensors.
    let one_tensor = LawChoice::of(LawName::Precision);
    let all = truths().into_iter().filter(|(choice, _)| LAWS.contains(&choice.name));
    all.filter(|(choice, _)| *choice != one_tensor)
        .map(|(choice, theta)| {
            let mut stream = Stream::new(9, 0);
            let row = |(point, covariates): Row| {
                let at = LogPoint::from(&point).with(&covariates);
                let loss_nats = choice.law().predict(&theta, &at) * (0.003 * stream.normal()).exp();
                (Observation { loss_nats, ..point }, covariates)
            };
            (choice.law(), design().into_iter().map(row).collect())
        })
        .collect()
}

/// Laws of many parameters: odd data take their replicates long.
fn is_slow(law: &dyn Law) -> bool {
    law.parameter_names().len() > 5
}

/// A fit has no number that is none, but for coefficients that it refuses.
fn check_fit(fitted: &Fit, what: &str) {
    let known = &fitted.identifiability;
    for (one, reason) in fitted.coefficients.iter().zip(&known.coefficients) {
        let is_refused = known.whole.is_some() || reason.is_some();
        assert!(!one.value.is_nan(), "{what}: {one:?}");
        assert!(one.value.is_finite() || is_refused, "{what}: {one:?}");
    }
    let numbers = [fitted.objective, fitted.residual_rms_log, fitted.convergence.gradient_norm];
    let all = numbers.iter().chain(&fitted.theta).chain(&fitted.residuals_log);
    let all = all.chain(&fitted.convergence.spreads_at_best);
    let all = all.chain(fitted.convergence.rivals.iter().map(|rival| &rival.objective));
    for number in all {
        assert!(number.is_finite(), "{what}: {fitted:?}");
    }
    check_words(&format!("{known:?}"), what);
}

/// No reason and no warning shows a number that is none.
fn check_words(words: &str, what: &str) {
    assert!(!words.contains("NaN"), "{what}: {words}");
}

fn check_estimate(estimate: &Estimate, what: &str) {
    match estimate {
        Estimate::Identified { value, low, high } => {
            let is_sound = value.is_finite() && low.is_finite() && high.is_finite() && low <= high;
            assert!(is_sound, "{what}: {estimate:?}");
        }
        Estimate::NotIdentified { reason } => {
            assert!(!reason.is_empty(), "{what}");
            check_words(reason, what);
        }
    }
}

/// Intervals and warnings of a fit, by the fewest draws.
fn check_inference(fitted: &Fit, data: &Dataset, what: &str) {
    let (options, draws) = (FitOptions::default(), crate::interval::MIN_DRAWS);
    let interval = IntervalOptions { draws, ..IntervalOptions::default() };
    let inference = infer(fitted, data, &options, &interval).unwrap();
    for one in &inference.coefficients {
        check_estimate(&one.estimate, &format!("{what} {}", one.name));
    }
    for point in data.log_points().iter().step_by(13) {
        let far = LogPoint { ln_parameters: point.ln_parameters + 2.0, ..*point };
        let predicted = inference.predict_at(&far);
        check_estimate(&predicted.curve, what);
        check_estimate(&predicted.measured, what);
    }
    let profile = crate::profile::floor(fitted, data, &options, 0.95).unwrap();
    for one in diagnose(fitted, &inference, data, profile.as_ref(), &|run| run.0.to_string()) {
        check_words(&one.text, what);
    }
}

/// Whatever rows come: an error with words, or a fit without a number that is none.
fn check(law: &dyn Law, rows: &[Row], what: &str, has_intervals: bool) -> Option<Fit> {
    let data = match Dataset::select_rows(rows, |_, _| None) {
        Ok(data) => data,
        Err(error) => {
            assert!(error.to_string().contains(&format!("observation {}", error.index())));
            return None;
        }
    };
    match fit(law, &data, &FitOptions::default()) {
        Ok(fitted) => {
            check_fit(&fitted, what);
            if has_intervals {
                check_inference(&fitted, &data, what);
            }
            Some(fitted)
        }
        Err(error) => {
            check_words(&error.to_string(), what);
            None
        }
    }
}

type Column = (&'static str, Option<Variable>, fn(&mut Row) -> Option<&mut f64>);

/// Every number of a row, by the name that errors call it, and the variable of laws that it is.
const COLUMNS: [Column; 12] = {
    use Variable as V;
    [
        ("parameters", Some(V::Parameters), |row| Some(&mut row.0.parameters)),
        ("tokens", Some(V::Tokens), |row| Some(&mut row.0.tokens)),
        ("flops", Some(V::Flops), |row| Some(&mut row.0.flops)),
        ("loss_nats", None, |row| Some(&mut row.0.loss_nats)),
        ("unique_tokens", Some(V::UniqueTokens), |row| row.1.unique_tokens.as_mut()),
        ("weight_bits", Some(V::WeightBits), |row| row.1.bits[0].as_mut()),
        ("activation_bits", Some(V::ActivationBits), |row| row.1.bits[1].as_mut()),
        ("cache_bits", Some(V::CacheBits), |row| row.1.bits[2].as_mut()),
        ("task_loss", Some(V::TaskLoss), |row| row.1.task_loss.as_mut()),
        ("rate_sum", Some(V::RateSum), |row| row.1.rates.as_mut().map(|rates| &mut rates.0)),
        ("rate_fall", Some(V::RateFall), |row| row.1.rates.as_mut().map(|rates| &mut rates.1)),
        ("weight", None, |row| Some(&mut row.1.weight)),
    ]
};

#[test]
fn a_number_that_is_none_is_refused_in_every_column_by_name_and_row() {
    let (_, rows) = cases().swap_remove(0);
    for (name, _, cell) in COLUMNS {
        let may_be_negative = ["task_loss", "rate_fall"].contains(&name);
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -0.0, 0.0] {
            let mut rows = rows.clone();
            *cell(&mut rows[5]).unwrap() = value;
            let made = Dataset::select_rows(&rows, |_, _| None);
            if may_be_negative && value.is_finite() {
                assert!(made.is_ok(), "{name} {value}");
                continue;
            }
            let error = made.unwrap_err();
            let (ObservationError::NotPositive { index, field, .. }
            | ObservationError::NotFinite { index, field, .. }) = error
            else {
                panic!("{name} {value}: {error}")
            };
            assert_eq!((index, field), (5, name), "{value}: {error}");
        }
    }
}

#[test]
fn numbers_of_any_size_in_any_column_end_in_an_error_or_a_sound_fit() {
    for (law, rows) in cases() {
        for (at, (name, variable, cell)) in COLUMNS.into_iter().enumerate() {
            if variable.is_some_and(|variable| !law.variables().contains(&variable)) {
                continue;
            }
            let values: &[f64] = if is_slow(law) { &[1e300] } else { &[1e-300, 1e300, -2.5] };
            for value in values {
                let mut rows = rows.clone();
                *cell(&mut rows[2 + 3 * at]).unwrap() = *value;
                check(law, &rows, &format!("{law:?} {name} {value:e}"), false);
            }
        }
    }
}

#[test]
fn what_a_law_needs_and_one_row_lacks_is_an_error_that_names_both() {
    for (law, rows) in cases() {
        let mut bare = rows.clone();
        bare[7].1 = Covariates::default();
        let data = Dataset::select_rows(&bare, |_, _| None).unwrap();
        match fit(law, &data, &FitOptions::default()) {
            Err(FitError::MissingVariable { law: named, variable, index }) => {
                assert_eq!((named, index), (law.name(), 7));
                assert!(law.variables().contains(&variable));
            }
            // Without a count of distinct tokens nothing is repeated.
            found => {
                let is_free = [LawName::DataConstrained, LawName::Chinchilla].contains(&law.name());
                assert!(found.is_ok() && is_free, "{law:?}: {found:?}");
            }
        }
    }
}

/// Data of which a law sees little.
struct Poor {
    what: &'static str,
    /// The variable that is missing; `None` where it is more than one of them.
    variable: Option<Variable>,
    /// Whether a law that looks at it cannot have all its coefficients.
    is_lacking: bool,
    rows: Vec<Row>,
}

/// Changes of whole columns that leave a law little or nothing to be seen by.
fn changed(rows: &[Row]) -> Vec<Poor> {
    use Variable as V;
    let (lacking, odd) = (true, false);
    let first = rows[0];
    let of = |what, variable, is_lacking, change: &dyn Fn(usize, &mut Row)| {
        let mut rows = rows.to_vec();
        rows.iter_mut().enumerate().for_each(|(at, row)| change(at, row));
        Poor { what, variable, is_lacking, rows }
    };
    vec![
        of("constant loss", None, lacking, &|_, row| row.0.loss_nats = 0.5),
        of("one size", Some(V::Parameters), lacking, &|_, row| row.0.parameters = 1e7),
        of("one token count", Some(V::Tokens), lacking, &|_, row| {
            (row.0.tokens, row.1.unique_tokens) = (1e9, Some(1e8));
        }),
        of("nothing repeated", Some(V::UniqueTokens), lacking, &|_, row| {
            row.1.unique_tokens = Some(row.0.tokens);
        }),
        of("more distinct tokens than seen", Some(V::UniqueTokens), lacking, &|_, row| {
            row.1.unique_tokens = Some(7.0 * row.0.tokens);
        }),
        of("one precision", Some(V::WeightBits), lacking, &|_, row| row.1.bits = [Some(4.0); 3]),
        of("one task loss", Some(V::TaskLoss), lacking, &|_, row| row.1.task_loss = Some(1.0)),
        of("no falling rate", Some(V::RateFall), lacking, &|_, row| {
            row.1.rates = row.1.rates.map(|(sum, _)| (sum, 0.0));
        }),
        of("one sum of rates", Some(V::RateSum), lacking, &|_, row| {
            row.1.rates = row.1.rates.map(|(_, fall)| (2.0, fall));
        }),
        of("losses above one", None, odd, &|_, row| row.0.loss_nats += 3.0),
        of("losses turned round", None, odd, &|_, row| row.0.loss_nats = 1.0 / row.0.loss_nats),
        of("tiny losses", None, odd, &|_, row| row.0.loss_nats *= 1e-200),
        of("one point", None, lacking, &|at, row| {
            *row = (Observation { run: RunKey(u32::try_from(at).unwrap()), ..first.0 }, first.1);
        }),
        of("one run", Some(V::Parameters), lacking, &|_, row| {
            (row.0.run, row.0.parameters) = (RunKey(3), 1e7);
        }),
    ]
}

/// The changed rows, rows that are there twice, and few of them.
fn poor(rows: &[Row]) -> Vec<Poor> {
    let odd = |what, rows: Vec<Row>| Poor { what, variable: None, is_lacking: false, rows };
    let mut all = changed(rows);
    all.push(odd("each row twice in its run", [rows, rows].concat()));
    let other =
        |(point, more): &Row| (Observation { run: RunKey(1000 + point.run.0), ..*point }, *more);
    let again: Vec<Row> = rows.iter().map(other).collect();
    all.push(odd("each row again as another run", [rows, &again].concat()));
    all.extend((0..10).map(|n| odd("few rows", rows[..n].to_vec())));
    all
}

#[test]
fn poor_data_end_in_an_error_or_in_sound_intervals() {
    for (law, rows) in cases() {
        for Poor { what, variable, is_lacking, rows } in poor(&rows) {
            if variable.is_some_and(|variable| !law.variables().contains(&variable)) {
                continue;
            }
            let what = format!("{law:?} {what} {}", rows.len());
            let Some(fitted) = check(law, &rows, &what, true) else { continue };
            let known = fitted.identifiability;
            let is_refused =
                known.whole.is_some() || known.coefficients.iter().any(Option::is_some);
            assert!(is_refused || !is_lacking, "{what}: {known:?} {:?}", fitted.coefficients);
        }
    }
}

#[test]
fn weights_of_any_size_end_in_a_sound_fit() {
    type Weight = fn(usize) -> f64;
    let weights: [(&str, Weight); 6] = [
        ("tiny", |_| 1e-290),
        ("huge", |_| 1e290),
        ("one rules", |at| if at == 20 { 1e12 } else { 1.0 }),
        ("few count", |at| if at < 8 { 1.0 } else { 1e-12 }),
        ("all scales", |at| 10_f64.powf(at as f64 - 20.0)),
        ("mixed", |at| 1.0 + at as f64),
    ];
    for (law, rows) in cases() {
        for (name, weight) in weights {
            if is_slow(law) && !["tiny", "huge", "mixed"].contains(&name) {
                continue;
            }
            let mut rows = rows.clone();
            rows.iter_mut().enumerate().for_each(|(at, row)| row.1.weight = weight(at));
            let what = format!("{law:?} {name} weights");
            check(law, &rows, &what, true);
        }
    }
}

#[test]
fn trunks_of_any_shape_end_in_an_error_or_in_sound_intervals() {
    for (law, rows) in cases() {
        let data = Dataset::select_rows(&rows, |_, _| None).unwrap();
        let fitted = fit(law, &data, &FitOptions::default()).unwrap();
        // Runs of the design are numbered by size.
        let of_size = |point: &Observation| point.run.0 / 7;
        let error = data.clone().clustered(|_| 4).unwrap_err();
        assert!(error.to_string().contains("share a trunk have one size"), "{error}");
        // A trunk a size, one trunk of two runs, and pairs with the largest number there is.
        let shapes: [&dyn Fn(&Observation) -> u32; 3] =
            [&of_size, &|point| if point.run.0 < 2 { 0 } else { point.run.0 }, &|point| {
                u32::MAX - of_size(point) * 8 - point.run.0 % 7 / 2
            }];
        for shape in shapes {
            let clustered = data.clone().clustered(shape).unwrap();
            let n = clustered.n_clusters().unwrap();
            check_inference(&fitted, &clustered, &format!("{law:?} {n} trunks"));
        }
    }
}
