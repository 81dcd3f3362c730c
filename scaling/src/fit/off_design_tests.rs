//! Exact losses of every law that is identified: what was planted is predicted where nothing was
//! measured.

use super::planted_tests::{design, planted, truths};
use super::*;
use crate::observation::Covariates;

/// Relative error of a predicted loss.
const ALLOWED: f64 = 1e-7;

/// Points between those of the design, and up to a decade of N and D outside it, with repetition,
/// bits, task losses and rates that no row of it has.
fn off_design() -> Vec<(&'static str, LogPoint)> {
    let rows = design();
    let mut points = Vec::new();
    for (index, (point, _)) in rows.iter().enumerate() {
        let covariates = |tokens: f64, reuse: f64| Covariates {
            unique_tokens: Some(tokens / reuse),
            bits: [Some(3.5), Some(6.0), Some(12.0)],
            task_loss: Some(0.32 + 0.04 * index as f64),
            rates: Some((tokens * 1e-6, 0.05 + 0.1 * (index % 2) as f64)),
            ..Covariates::default()
        };
        let (parameters, tokens, flops) = (point.parameters, point.tokens, point.flops);
        let between = LogPoint::new(1.9 * parameters, 2.1 * tokens, 4.1 * flops);
        points.push(("between", between.with(&covariates(2.1 * tokens, 3.0))));
        // The ends of the design: two sizes, two token counts.
        let (size, count) = (index / 7, index % 7);
        if [0, 5].contains(&size) || [0, 6].contains(&count) {
            let n = if size < 3 { 0.3 } else { 10.0 };
            let d = if count < 4 { 0.3 } else { 10.0 };
            let outside = LogPoint::new(n * parameters, d * tokens, n * d * flops);
            let more = Covariates {
                bits: [Some(2.5), Some(24.0), Some(3.2)],
                task_loss: Some(if size < 3 { 0.1 } else { 2.3 }),
                ..covariates(d * tokens, 45.0)
            };
            points.push(("outside", outside.with(&more)));
        }
    }
    points
}

#[test]
fn every_law_that_is_identified_predicts_what_was_planted_between_and_outside_the_points() {
    let mut names = Vec::new();
    for (choice, theta) in truths() {
        let law = choice.law();
        let data = planted(law, &theta, 0.0);
        let fitted = fit(law, &data, &FitOptions::default()).unwrap();
        let known = &fitted.identifiability;
        if known.whole.is_some() || known.coefficients.iter().any(Option::is_some) {
            eprintln!("{choice:?} is not identified: {known:?}");
            continue;
        }
        names.push(choice.name);
        for (place, point) in off_design() {
            let (found, truth) = (fitted.predict_at(&point), law.predict(&theta, &point));
            let error = (found / truth - 1.0).abs();
            assert!(error < ALLOWED, "{choice:?} {place} {point:?}: {found} for {truth}");
        }
    }
    for name in LawName::ALL {
        assert!(names.contains(&name), "{name} is not identified by its own design");
    }
}
