//! Properties of every law on data with all covariates: a fit does not depend on the order of rows,
//! or on the units that the law declares.

use super::*;
use crate::law::{Axis, Invariance, LawChoice, Quantity};
use crate::observation::{Covariates, Observation, RunKey};
use crate::random::Stream;

/// What coefficients and predictions may differ by, relative.
const SAME: f64 = 1e-9;

type Row = (Observation, Covariates);

/// Every law, with coefficients that its data show: no floor that vanishes, no two optima that are
/// equally good.
fn laws() -> Vec<(LawChoice, Vec<f64>)> {
    let of = LawChoice::of;
    let breaks = |n_breaks: usize| LawChoice { n_breaks, ..of(LawName::BrokenPower) };
    let bits = |bits: [bool; 3]| LawChoice { bits, ..of(LawName::Precision) };
    let mut laws = vec![
        (of(LawName::Kaplan), vec![21.0, 30.0, 0.076, 0.103_f64.ln()]),
        (of(LawName::Chinchilla), vec![4.1, 5.7, 0.4, 0.35, 0.4]),
        (of(LawName::Coupled), vec![6.0, 7.5, 0.6, 0.34, 0.37, 0.4]),
        (of(LawName::Overtraining), vec![5.0, 5.2, 0.4, 0.12]),
        (of(LawName::DataConstrained), vec![4.1, 5.7, 0.4, 0.35, 0.4, 0.05, -0.1]),
        (bits([true, false, false]), vec![4.1, 5.7, 0.4, 0.35, 0.4, 0.3]),
        (bits([true, true, true]), vec![4.1, 5.7, 0.4, 0.35, 0.4, 0.3, 0.2, 0.4]),
        (of(LawName::Sigmoid), vec![3.0, -1.1, 1.7, 0.9]),
        (of(LawName::Annealing), vec![0.6, 1.8, 0.3, 0.7]),
        (breaks(1), vec![0.4, 3.0, 0.02, 0.2, 29.0, 0.3]),
        (breaks(2), vec![0.4, 3.0, 0.02, 0.3, 27.0, 0.2, -0.3, 31.0, 0.2]),
    ];
    for axis in [Axis::Parameters, Axis::Tokens, Axis::Flops] {
        laws.push((LawChoice { axis, ..of(LawName::Power) }, vec![3.0, 0.07]));
        laws.push((LawChoice { axis, ..of(LawName::PowerFloor) }, vec![0.5, 4.0, 0.25]));
    }
    laws.push((
        LawChoice { axis: Axis::Tokens, ..breaks(1) },
        vec![0.4, 2.0, 0.02, 0.3, 14.0, 0.2],
    ));
    laws
}

/// Noisy losses of a law at scattered places with scattered covariates, each a run of its own.
fn rows(law: &dyn Law, theta: &[f64], seed: u64) -> Vec<Row> {
    const BITS: [f64; 5] = [3.0, 4.0, 5.0, 8.0, 16.0];
    let mut stream = Stream::new(seed, 17);
    let row = |run: u32| {
        let parameters = 4e4 * 100_f64.powf(stream.uniform());
        let tokens = 1e5 * 300_f64.powf(stream.uniform());
        let fall = if run.is_multiple_of(3) { 0.0 } else { 0.5 * stream.uniform() };
        let covariates = Covariates {
            unique_tokens: Some(tokens / (1.0 + 39.0 * stream.uniform().powi(2))),
            bits: std::array::from_fn(|_| Some(BITS[stream.index(5)])),
            task_loss: Some(0.3 + 1.8 * stream.uniform()),
            rates: Some((tokens * 1e-6, fall)),
            weight: 0.5 + stream.uniform(),
        };
        let flops = 6.0 * parameters * tokens;
        let at = LogPoint::new(parameters, tokens, flops).with(&covariates);
        let loss_nats = law.predict(theta, &at) * (0.002 * stream.normal()).exp();
        (
            Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 },
            covariates,
        )
    };
    (0..60).map(row).collect()
}

/// Factors between two systems of units; 1 for what a law does not declare.
#[derive(Debug, Clone, Copy)]
struct Units {
    parameters: f64,
    tokens: f64,
    flops: f64,
    task_loss: f64,
    rates: (f64, f64),
    loss: f64,
}

impl Units {
    fn draw(law: &dyn Law, stream: &mut Stream) -> Self {
        let mut unit = |invariance: Invariance, decades: f64| {
            let factor = 10_f64.powf(decades * stream.normal());
            if law.invariances().contains(&invariance) { factor } else { 1.0 }
        };
        let mut of = |variable: Variable| unit(Invariance::UnitOf(variable), 3.0);
        Self {
            parameters: of(Variable::Parameters),
            tokens: of(Variable::Tokens),
            flops: of(Variable::Flops),
            task_loss: of(Variable::TaskLoss),
            rates: (of(Variable::RateSum), of(Variable::RateFall)),
            loss: unit(Invariance::UnitOfLoss, 1.5),
        }
    }

    fn apply(&self, (point, covariates): &Row) -> Row {
        let point = Observation {
            parameters: self.parameters * point.parameters,
            tokens: self.tokens * point.tokens,
            flops: self.flops * point.flops,
            loss_nats: self.loss * point.loss_nats,
            ..*point
        };
        let covariates = Covariates {
            unique_tokens: covariates.unique_tokens.map(|unique| self.tokens * unique),
            task_loss: covariates.task_loss.map(|loss| self.task_loss * loss),
            rates: covariates.rates.map(|(sum, fall)| (self.rates.0 * sum, self.rates.1 * fall)),
            ..*covariates
        };
        (point, covariates)
    }
}

/// Whether no unit changes a coefficient: shapes, exponents, and what is counted in bits or in
/// repetitions.
fn is_pure(law: LawName, one: &Coefficient) -> bool {
    const PURE: [&str; 12] =
        ["R_D", "R_N", "gamma_w", "gamma_a", "gamma_kv", "c0", "c1", "c2", "c3", "f1", "f2", "f3"];
    let is_share = law == LawName::Sigmoid && ["a", "b"].contains(&one.name);
    one.quantity == Quantity::Exponent || PURE.contains(&one.name) || is_share
}

fn fit_rows(law: &dyn Law, rows: &[Row], options: &FitOptions) -> Fit {
    fit(law, &Dataset::select_rows(rows, |_, _| None).unwrap(), options).unwrap()
}

/// Runs `check` on every law and objective; where a search takes long, on the first `n_slow`
/// objectives: the default, then squares of L.
fn for_all(n_slow: usize, mut check: impl FnMut(&dyn Law, &FitOptions, &[Row], &Fit, &mut Stream)) {
    let objectives = [
        Objective::default(),
        Objective::LossSquares,
        Objective::AbsoluteDeviations,
        Objective::LogSquares,
    ];
    let laws = laws();
    for (seed, (choice, theta)) in (0..).zip(&laws) {
        let law = choice.law();
        let rows = rows(law, theta, seed);
        let is_slow = law.least_polished() > 0 && choice.name != LawName::Coupled;
        for objective in objectives.into_iter().take(if is_slow { n_slow } else { 4 }) {
            let options = FitOptions { objective, ..FitOptions::default() };
            let fitted = fit_rows(law, &rows, &options);
            check(law, &options, &rows, &fitted, &mut Stream::new(seed, 18));
        }
    }
    let names: Vec<LawName> = laws.iter().map(|(choice, _)| choice.name).collect();
    assert!(LawName::ALL.iter().all(|name| names.contains(name)), "a law is not tested");
}

#[test]
fn the_order_of_rows_with_covariates_changes_no_bit_of_a_fit_of_any_law() {
    for_all(1, |law, options, rows, first, stream| {
        let mut order: Vec<usize> = (0..rows.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, stream.index(last + 1));
        }
        let moved: Vec<Row> = order.iter().map(|at| rows[*at]).collect();
        let again = fit_rows(law, &moved, options);
        assert_eq!(again.theta, first.theta, "{law:?}");
        assert_eq!(again.objective, first.objective, "{law:?}");
        assert_eq!(again.convergence, first.convergence, "{law:?}");
        assert_eq!(again.identifiability, first.identifiability, "{law:?}");
        for (residual, at) in again.residuals_log.iter().zip(&order) {
            assert_eq!(*residual, first.residuals_log[*at], "{law:?}");
        }
    });
}

#[test]
fn the_declared_units_of_any_law_change_prefactors_only() {
    for_all(2, |law, options, rows, first, stream| {
        let units = Units::draw(law, stream);
        let moved: Vec<Row> = rows.iter().map(|row| units.apply(row)).collect();
        let again = fit_rows(law, &moved, options);
        let what = format!("{law:?} {} {units:?}", options.objective);
        let power = if options.objective == Objective::LossSquares { 2 } else { 0 };
        let objective = first.objective * units.loss.powi(power);
        assert!((again.objective / objective - 1.0).abs() < SAME, "{what}: {}", again.objective);
        for (a, b) in first.coefficients.iter().zip(&again.coefficients) {
            let error = (a.value - b.value).abs() / a.value.abs();
            assert!(error < SAME || !is_pure(law.name(), a), "{what}: {} off by {error:e}", a.name);
        }
        let refused = |one: &Fit| -> Vec<bool> {
            one.identifiability.coefficients.iter().map(Option::is_some).collect()
        };
        assert_eq!(refused(first), refused(&again), "{what}");
        for (point, covariates) in rows {
            let far = Observation {
                parameters: 10.0 * point.parameters,
                tokens: 10.0 * point.tokens,
                flops: 100.0 * point.flops,
                ..*point
            };
            let predict = |fit: &Fit, (point, covariates): &Row| {
                fit.predict_at(&LogPoint::from(point).with(covariates))
            };
            let old = units.loss * predict(first, &(far, *covariates));
            let new = predict(&again, &units.apply(&(far, *covariates)));
            assert!((new / old - 1.0).abs() < SAME, "{what}: {old} {new}");
        }
    });
}

/// Aim: numbers in a unit that is a million times another one are fitted as well, where a parameter
/// is counted in it and where it is that of the loss.
#[test]
fn units_far_from_those_of_a_study_change_no_coefficient_without_a_unit() {
    let of = LawChoice::of;
    let laws = [
        (of(LawName::Sigmoid), vec![3.0, -1.1, 1.7, 0.9], vec!["a", "b"]),
        (of(LawName::Annealing), vec![0.6, 1.8, 0.3, 0.7], vec!["alpha"]),
        (of(LawName::PowerFloor), vec![0.5, 4.0, 0.25], vec!["alpha"]),
    ];
    for (choice, theta, pure) in laws {
        let law = choice.law();
        let rows = rows(law, &theta, 5);
        let has = |invariance| law.invariances().contains(&invariance);
        for objective in [Objective::default(), Objective::LossSquares] {
            let options = FitOptions { objective, ..FitOptions::default() };
            let first = fit_rows(law, &rows, &options);
            for factor in [1e-12, 1e-6, 1e6, 1e12] {
                let of = |is_free| if is_free { factor } else { 1.0 };
                let rate_fall = of(has(Invariance::UnitOf(Variable::RateFall)));
                let units = Units {
                    parameters: 1.0,
                    tokens: 1.0,
                    flops: 1.0,
                    task_loss: of(has(Invariance::UnitOf(Variable::TaskLoss))),
                    rates: (1.0, rate_fall),
                    loss: of(has(Invariance::UnitOfLoss)).recip(),
                };
                let moved: Vec<Row> = rows.iter().map(|row| units.apply(row)).collect();
                let again = fit_rows(law, &moved, &options);
                for (a, b) in first.coefficients.iter().zip(&again.coefficients) {
                    let error = (a.value / b.value - 1.0).abs();
                    let is_same = error < SAME || !pure.contains(&a.name);
                    assert!(is_same, "{choice:?} {objective} {units:?}: {} {error:e}", a.name);
                }
                assert_eq!(first.identifiability, again.identifiability, "{choice:?} {units:?}");
            }
        }
    }
}
