//! Properties: a fit does not depend on the order of rows or on the units of N, D and C.

use super::*;
use crate::law::{Axis, Invariance, LawChoice};
use crate::observation::{Observation, RunKey};
use crate::random::Stream;

/// What coefficients and predictions may differ by, relative.
const SAME: f64 = 1e-9;
const SEEDS: u64 = 3;

/// Laws with coefficients that their data show: no floor that vanishes, no two optima that are
/// equally good.
fn laws() -> Vec<(&'static dyn Law, Vec<f64>)> {
    let of = |choice: LawChoice, theta: &[f64]| (choice.law(), theta.to_vec());
    let mut laws = vec![
        of(LawChoice::of(LawName::Chinchilla), &[4.1, 5.7, 0.4, 0.35, 0.4]),
        of(LawChoice::of(LawName::Kaplan), &[21.0, 30.0, 0.076, 0.103_f64.ln()]),
        of(LawChoice::of(LawName::Coupled), &[6.0, 7.5, 0.6, 0.34, 0.37, 0.4]),
        of(LawChoice::of(LawName::Overtraining), &[5.0, 5.2, 0.4, 0.12]),
    ];
    for axis in [Axis::Parameters, Axis::Tokens, Axis::Flops] {
        laws.push(of(LawChoice { axis, ..LawChoice::of(LawName::Power) }, &[3.0, 0.07]));
        let with_floor = LawChoice { axis, ..LawChoice::of(LawName::PowerFloor) };
        laws.push(of(with_floor, &[0.5, 4.0, 0.25]));
    }
    laws
}

fn objectives() -> [Objective; 4] {
    let huber = Objective::default();
    [huber, Objective::AbsoluteDeviations, Objective::LogSquares, Objective::LossSquares]
}

/// Noisy losses of a law at scattered sizes and token counts, each a run of its own.
fn points(law: &dyn Law, theta: &[f64], seed: u64) -> Vec<Observation> {
    let mut stream = Stream::new(seed, 7);
    let point = |run: u32| {
        let parameters = 4e4 * 100_f64.powf(stream.uniform());
        let tokens = 1e5 * 300_f64.powf(stream.uniform());
        let flops = 6.0 * parameters * tokens;
        let loss = law.predict(theta, &LogPoint::new(parameters, tokens, flops));
        let loss_nats = loss * (0.004 * stream.normal()).exp();
        Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 }
    };
    (0..60).map(point).collect()
}

fn shuffled<T: Clone>(stream: &mut Stream, rows: &[T]) -> Vec<T> {
    let mut rows = rows.to_vec();
    for last in (1..rows.len()).rev() {
        rows.swap(last, stream.index(last + 1));
    }
    rows
}

/// Runs `check` on every law and objective for data of several seeds.
fn for_all(mut check: impl FnMut(&dyn Law, &FitOptions, &[Observation], &Fit, &mut Stream)) {
    for seed in 0..SEEDS {
        for (law, theta) in laws() {
            let points = points(law, &theta, seed);
            let data = Dataset::new(&points).unwrap();
            for objective in objectives() {
                let options = FitOptions { objective, ..FitOptions::default() };
                let fitted = fit(law, &data, &options).unwrap();
                check(law, &options, &points, &fitted, &mut Stream::new(seed, 8));
            }
        }
    }
}

#[test]
fn the_order_of_rows_changes_no_bit_of_a_fit() {
    for_all(|law, options, points, first, stream| {
        let order = shuffled(stream, &(0..points.len()).collect::<Vec<_>>());
        let rows: Vec<Observation> = order.iter().map(|at| points[*at]).collect();
        let again = fit(law, &Dataset::new(&rows).unwrap(), options).unwrap();
        assert_eq!(again.theta, first.theta, "{law:?}");
        assert_eq!(again.objective, first.objective);
        assert_eq!(again.convergence, first.convergence);
        for (residual, at) in again.residuals_log.iter().zip(&order) {
            assert_eq!(*residual, first.residuals_log[*at]);
        }
    });
}

#[test]
fn the_units_of_n_d_and_c_change_prefactors_only() {
    for_all(|law, options, points, first, stream| {
        let mut unit = |variable: Variable| {
            let is_free = law.invariances().contains(&Invariance::UnitOf(variable));
            if is_free { 10_f64.powf(3.0 * stream.normal()) } else { 1.0 }
        };
        let (n, d, c) = (unit(Variable::Parameters), unit(Variable::Tokens), unit(Variable::Flops));
        let in_units = |point: &Observation| Observation {
            parameters: n * point.parameters,
            tokens: d * point.tokens,
            flops: c * point.flops,
            ..*point
        };
        let rows: Vec<Observation> = points.iter().map(in_units).collect();
        let again = fit(law, &Dataset::new(&rows).unwrap(), options).unwrap();
        let what = format!("{law:?} {options:?} {n:e} {d:e} {c:e}");
        assert!((again.objective / first.objective - 1.0).abs() < SAME, "{what}");
        for (a, b) in first.coefficients.iter().zip(&again.coefficients) {
            if a.quantity != crate::law::Quantity::Scale {
                let error = (a.value - b.value).abs() / a.value.abs();
                assert!(error < SAME, "{what}: {} off by {error:e}", a.name);
            }
        }
        for at in points {
            let (far_n, far_d) = (10.0 * at.parameters, 10.0 * at.tokens);
            let old = first.predict(far_n, far_d, 100.0 * at.flops);
            let new = again.predict(n * far_n, d * far_d, c * 100.0 * at.flops);
            assert!((new / old - 1.0).abs() < SAME, "{what}: {old} {new}");
        }
    });
}
