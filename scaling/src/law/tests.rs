use super::*;
use crate::observation::Covariates;

/// A point at which no law is at a kink: repeated data, excess parameters, four bits.
fn points() -> Vec<LogPoint> {
    let more = |unique: f64, bits: f64, task_loss: f64| Covariates {
        unique_tokens: Some(unique),
        bits: [Some(bits), Some(bits + 1.0), Some(bits + 2.0)],
        task_loss: Some(task_loss),
        rates: Some((300.0 * bits, 0.1 * bits)),
        ..Covariates::default()
    };
    vec![
        LogPoint::new(1e6, 3e7, 2e14).with(&more(1e7, 4.0, 0.8)),
        LogPoint::new(4e8, 1e9, 2.4e18).with(&more(1e8, 3.0, 1.3)),
        LogPoint::new(2e7, 4e9, 5e17).with(&more(4e9, 8.0, 0.5)),
    ]
}

/// Every law with parameters of a plausible size.
fn cases() -> Vec<(LawChoice, Vec<f64>)> {
    let of = LawChoice::of;
    let with_breaks = |n_breaks: usize| LawChoice { n_breaks, ..of(LawName::BrokenPower) };
    let with_bits = |bits: [bool; 3]| LawChoice { bits, ..of(LawName::Precision) };
    let mut cases = vec![
        (of(LawName::Kaplan), vec![21.0, 30.0, 0.076, 0.103_f64.ln()]),
        (of(LawName::Chinchilla), vec![6.0, 7.5, 0.6, 0.34, 0.37]),
        (of(LawName::Coupled), vec![6.0, 7.5, 0.6, 0.34, 0.37, 0.4]),
        (of(LawName::Overtraining), vec![5.0, 5.2, 0.4, 0.12]),
        (of(LawName::DataConstrained), vec![6.0, 7.5, 0.6, 0.34, 0.37, 0.1, 0.5]),
        (with_breaks(1), vec![0.5, 4.0, 0.1, 0.05, 38.0, -1.0]),
        (with_breaks(2), vec![0.5, 4.0, 0.1, 0.05, 35.0, -1.0, -0.04, 40.0, 0.3]),
        (with_breaks(3), vec![0.5, 4.0, 0.1, 0.05, 34.0, -1.0, -0.04, 38.0, 0.3, 0.02, 41.0, 0.1]),
        (of(LawName::Sigmoid), vec![2.5, -1.0, 1.5, 0.8]),
        (of(LawName::Annealing), vec![0.6, 1.2, 0.4, 0.3]),
    ];
    for mask in 1..8_u8 {
        let bits = [mask & 1 == 1, mask & 2 == 2, mask & 4 == 4];
        let n = bits.iter().filter(|known| **known).count();
        let mut theta = vec![6.0, 7.5, 0.6, 0.34, 0.37];
        theta.extend(&[0.3, -0.2, 0.6][..n]);
        cases.push((with_bits(bits), theta));
    }
    for axis in [Axis::Parameters, Axis::Tokens, Axis::Flops] {
        cases.push((LawChoice { axis, ..of(LawName::Power) }, vec![3.0, 0.07]));
        cases.push((LawChoice { axis, ..of(LawName::PowerFloor) }, vec![0.5, 4.0, 0.12]));
    }
    cases
}

fn check_gradient(law: &dyn Law, theta: &[f64], point: &LogPoint) {
    assert_eq!(law.parameter_names().len(), theta.len());
    let mut gradient = vec![0.0; theta.len()];
    law.log_prediction(theta, point, &mut gradient);
    for (j, analytic) in gradient.iter().enumerate() {
        let at = |step: f64| {
            let mut moved = theta.to_vec();
            moved[j] += step;
            law.log_prediction(&moved, point, &mut [0.0; MAX_PARAMETERS])
        };
        // Fourth order, so that the error is that of rounding.
        let step = 3e-5;
        let (near, far) = (at(step) - at(-step), at(2.0 * step) - at(-2.0 * step));
        let numeric = (8.0 * near - far) / (12.0 * step);
        let allowed = 1e-7 * (1.0 + analytic.abs());
        let name = (law.choice(), law.parameter_names()[j]);
        assert!((numeric - analytic).abs() < allowed, "{name:?}: {numeric} for {analytic}");
    }
}

#[test]
fn every_gradient_agrees_with_central_differences() {
    for (choice, theta) in cases() {
        for point in points() {
            check_gradient(choice.law(), &theta, &point);
        }
    }
    let names: Vec<LawName> = cases().iter().map(|(choice, _)| choice.name).collect();
    assert!(LawName::ALL.iter().all(|name| names.contains(name)), "a law is not tested");
}

#[test]
fn a_pinned_law_has_the_gradient_of_its_free_parameters() {
    let choice = LawChoice::of(LawName::DataConstrained);
    let held = [("ln_a", 6.0), ("ln_b", 7.5), ("ln_e", 0.6), ("alpha", 0.34), ("beta", 0.37)];
    let law = Pinned::new(choice, &held).unwrap();
    assert_eq!(law.parameter_names(), ["u_d", "u_n"]);
    for point in points() {
        check_gradient(&law, &[0.1, 0.5], &point);
        let whole = choice.law().predict(&[6.0, 7.5, 0.6, 0.34, 0.37, 0.1, 0.5], &point);
        assert_eq!(law.predict(&[0.1, 0.5], &point), whole);
    }
    assert_eq!(law.form().law().parameter_names(), law.parameter_names());
}

#[test]
fn labels_are_read_back() {
    for name in LawName::ALL {
        assert_eq!(name.label().parse::<LawName>().unwrap(), name);
        assert_eq!(name.law().name(), name);
    }
    for (choice, _) in cases() {
        assert_eq!(choice.law().choice(), choice);
    }
}

#[test]
fn every_law_declares_itself() {
    for (choice, theta) in cases() {
        let law = choice.law();
        let names: Vec<&str> = law.coefficients(&theta).iter().map(|one| one.name).collect();
        assert!(!law.variables().is_empty() && !law.identified_by().is_empty());
        assert!(names.iter().all(|name| law.formula().contains(&name[..1])), "{names:?}");
        for bound in law.bounds() {
            let coefficients = law.coefficients(&theta);
            let found = coefficients.iter().find(|one| one.name == bound.name);
            let value = found.unwrap_or_else(|| panic!("{bound:?}")).value;
            assert!(bound.low <= value && value <= bound.high, "{bound:?}: {value}");
        }
    }
}

#[test]
fn declared_units_leave_the_shape_of_the_law_alone() {
    // With N in another unit the same predictions are reached by another prefactor: the derivative
    // with respect to ln N is the same, which is what a unit can not change.
    for name in [LawName::Chinchilla, LawName::Coupled, LawName::Overtraining, LawName::Kaplan] {
        let law = name.law();
        assert!(law.invariances().contains(&Invariance::UnitOf(Variable::Parameters)), "{name}");
    }
    let (theta, step) = ([6.0, 7.5, 0.6, 0.34, 0.37], 1e6_f64.ln());
    let moved = [6.0 - 0.34 * step, 7.5, 0.6, 0.34, 0.37];
    let at = |ln_n: f64| LogPoint::of_logs(ln_n, 20.0, 40.0);
    let (one, other) =
        (Chinchilla.predict(&theta, &at(18.0)), Chinchilla.predict(&moved, &at(18.0 - step)));
    assert!((one / other - 1.0).abs() < 1e-12);
}

#[test]
fn nested_laws_agree_where_one_is_the_other() {
    let point = LogPoint::new(1e8, 2e9, 1.2e18);
    let theta = [6.0, 7.5, 0.6, 0.34, 0.37];
    // k = 1: u of ln 1 between ln 0.05 and ln 3.
    let share = (1.0_f64.ln() - 0.05_f64.ln()) / (3.0_f64.ln() - 0.05_f64.ln());
    let u = (share / (1.0 - share)).ln();
    let coupled = Coupled.predict(&[theta.as_slice(), &[u]].concat(), &point);
    assert!((coupled / Chinchilla.predict(&theta, &point) - 1.0).abs() < 1e-12);
    // The over-training form is the additive law with one exponent: a = A 6^eta, eta = alpha / 2, C
    // = 6 N D.
    let tied = [6.0, 7.5, 0.6, 0.3, 0.3];
    let eta = 0.15;
    let over = [6.0 + eta * 6.0_f64.ln(), 7.5 + eta * 6.0_f64.ln(), 0.6, eta];
    let value = Overtraining.predict(&over, &point);
    assert!((value / Chinchilla.predict(&tied, &point) - 1.0).abs() < 1e-12, "{value}");
    // Kaplan's published constants: L(1.5e9, 22e9) with N and D far from either limit.
    let kaplan =
        |n: f64, d: f64| -> f64 { ((6.4e13 / n).powf(0.076 / 0.103) + 1.8e13 / d).powf(0.103) };
    let theta = [0.076 / 0.103 * 6.4e13_f64.ln(), 1.8e13_f64.ln(), 0.076, 0.103_f64.ln()];
    let found = Kaplan.predict(&theta, &LogPoint::new(1.5e9, 2.2e10, 1e20));
    assert!((found / kaplan(1.5e9, 2.2e10) - 1.0).abs() < 1e-12);
}
