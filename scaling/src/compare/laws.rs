//! Owns the comparison of two fitted laws where a budget is spent best: loss, and compute for equal
//! loss. Does not compare envelopes; `compare` does. Nor does it find crossings; `crossing` does.

use crate::interval::{Estimate, Inference, MIN_DRAWS, are_drawn_together, estimate_pair};
use crate::law::{Axis, Chinchilla, Coupled, LawForm, LawName, LogPoint, Quantity};

/// How far beyond a budget the compute for equal loss is looked for, as a factor of it.
const WIDEST_RATIO: f64 = 1e6;
/// Halvings of an interval of ln C; 60 leave a part in 10^16.
const HALVINGS: usize = 60;

/// Two laws at one budget.
#[derive(Debug, Clone, PartialEq)]
pub struct LawComparison {
    /// C.
    pub flops: f64,
    /// L of the first minus L of the second, nats per token, each at its own best N and D.
    pub loss_difference_nats: Estimate,
    /// L of the first over L of the second.
    pub loss_ratio: Estimate,
    /// FLOPs that the second needs for the loss which the first reaches at `flops`, over `flops`:
    /// above one, the first saves compute.
    pub flops_ratio: Estimate,
    /// Share of the draws in which the first has less loss; `None` without a bootstrap of both, or
    /// where the difference of the losses is not identified.
    pub first_is_better: Option<f64>,
    /// Whether the budget lies among the fitted ones of both; elsewhere all of this is
    /// extrapolation.
    pub is_inside_both: bool,
}

/// A fit of one architecture, and how it spends a budget.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// The fit.
    pub inference: &'a Inference,
    /// κ of C = κ N D; 6 in the usual convention. A law of C alone does not use it.
    pub flops_per_parameter_token: f64,
}

impl Side<'_> {
    /// L at `flops` where N and D are best; not a number for laws that do not say.
    pub(super) fn loss(self, theta: &[f64], flops: f64) -> f64 {
        let kappa = self.flops_per_parameter_token;
        match &self.inference.form {
            LawForm::Free(choice) if choice.name == LawName::Chinchilla => {
                Chinchilla::optimum(theta, flops, kappa).loss_nats
            }
            LawForm::Free(choice) if choice.name == LawName::Coupled => {
                Coupled::optimum(theta, flops, kappa).loss_nats
            }
            LawForm::Free(choice)
                if choice.axis == Axis::Flops
                    && choice.law().variables() == [crate::law::Variable::Flops] =>
            {
                choice.law().predict(theta, &LogPoint::new(1.0, 1.0, flops))
            }
            _ => f64::NAN,
        }
    }

    fn holds(self, flops: f64) -> bool {
        let (low, high) = self.inference.ranges.flops;
        (low..=high).contains(&flops)
    }
}

/// Compares `first` and `second` at each of `budgets`.
///
/// `is_paired` says that both were fitted to the same places of the same design and resampled with
/// one seed, so that what both owe to the choice of sizes cancels. Both must have the same FLOP
/// convention, tokenizer and evaluation; that is the caller's to know.
pub fn compare_laws(
    first: Side<'_>,
    second: Side<'_>,
    is_paired: bool,
    budgets: &[f64],
) -> Vec<LawComparison> {
    let pair = (&first.inference.resampled, &second.inference.resampled);
    let blocked = why_not_comparable(first, second);
    let of = |quantity: Quantity, function: &dyn Fn(&[f64], &[f64]) -> f64| match &blocked {
        Some(reason) => Estimate::not_identified(reason.clone()),
        None => estimate_pair(pair, is_paired, quantity, function),
    };
    let at = |flops: &f64| {
        let loss_difference_nats =
            of(Quantity::Difference, &|a, b| first.loss(a, *flops) - second.loss(b, *flops));
        // A probability beside a difference that is not identified would be believed.
        let is_known = loss_difference_nats.value().is_some();
        let share = || share_better(first, second, is_paired, *flops);
        LawComparison {
            flops: *flops,
            loss_difference_nats,
            loss_ratio: of(Quantity::Scale, &|a, b| first.loss(a, *flops) / second.loss(b, *flops)),
            flops_ratio: of(Quantity::Scale, &|a, b| {
                let loss = first.loss(a, *flops);
                flops_for(|flops| second.loss(b, flops), loss, *flops) / flops
            }),
            first_is_better: is_known.then(share).flatten(),
            is_inside_both: first.holds(*flops) && second.holds(*flops),
        }
    };
    budgets.iter().map(at).collect()
}

/// Why two laws say nothing about each other, each at its own best N and D, if so.
pub(super) fn why_not_comparable(first: Side<'_>, second: Side<'_>) -> Option<String> {
    let of = |side: Side<'_>, which: &str| {
        side.inference.why_no_optimum().map(|reason| format!("of the {which}: {reason}"))
    };
    of(first, "first").or_else(|| of(second, "second"))
}

fn share_better(first: Side<'_>, second: Side<'_>, is_paired: bool, flops: f64) -> Option<f64> {
    let pairs = draws(first, second, is_paired);
    if pairs.len() < MIN_DRAWS {
        return None;
    }
    let losses = pairs.map(|(a, b)| (first.loss(a, flops), second.loss(b, flops)));
    let known: Vec<(f64, f64)> = losses.filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let better = known.iter().filter(|(x, y)| x < y).count();
    let equal = known.iter().filter(|(x, y)| x == y).count();
    (!known.is_empty()).then(|| (better as f64 + 0.5 * equal as f64) / known.len() as f64)
}

/// A draw of the first beside one of the second.
///
/// Draws of one seed choose the same places; where these do not correspond, or where draws that
/// failed have moved the others up, a draw is put beside one from elsewhere.
pub(super) fn draws<'a>(
    first: Side<'a>,
    second: Side<'a>,
    is_paired: bool,
) -> impl ExactSizeIterator<Item = (&'a Vec<f64>, &'a Vec<f64>)> {
    let (one, other) = (&first.inference.resampled, &second.inference.resampled);
    let (a, b) = (&one.replicates, &other.replicates);
    let n = a.len().min(b.len());
    let shift = if is_paired && are_drawn_together(one, other) { 0 } else { n / 2 };
    (0..n).map(move |index| (&a[index], &b[(index + shift) % n]))
}

/// The FLOPs at which a falling `loss` reaches `target`; not a number where it does not near
/// `flops`.
fn flops_for(loss: impl Fn(f64) -> f64, target: f64, flops: f64) -> f64 {
    root(|at| loss(at) - target, (flops / WIDEST_RATIO, flops * WIDEST_RATIO))
}

/// Where `function` changes its sign, by halving in the logarithm.
fn root(function: impl Fn(f64) -> f64, (low, high): (f64, f64)) -> f64 {
    let (mut low, mut high) = (low.ln(), high.ln());
    let at_low = function(low.exp());
    let changes = at_low * function(high.exp()) <= 0.0;
    if !changes {
        return f64::NAN;
    }
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if at_low * function(middle.exp()) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    (0.5 * (low + high)).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::crossover;
    use crate::fit::{FitOptions, fit};
    use crate::interval::{IntervalOptions, Scheme, infer};
    use crate::planted::Study;

    fn inference(scale: f64, seed: u64) -> Inference {
        let study = Study { loss_scale: scale, run_sd: 0.002, seed, ..Study::ladder(14) };
        let (data, options) = (study.dataset(), FitOptions::default());
        let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
        let interval = IntervalOptions { draws: 200, ..IntervalOptions::default() };
        infer(&fitted, &data, &options, &interval).unwrap()
    }

    fn side(inference: &Inference) -> Side<'_> {
        Side { inference, flops_per_parameter_token: 6.0 }
    }

    #[test]
    fn a_planted_advantage_is_found_with_its_compute_and_its_probability() {
        let (worse, better) = (inference(1.02, 1), inference(1.0, 2));
        let found = &compare_laws(side(&worse), side(&better), true, &[1e15])[0];
        assert!(found.is_inside_both);
        let (low, high) = found.loss_ratio.interval().unwrap();
        assert!(low < 1.02 && 1.02 < high && low > 1.0, "{low} {high}");
        assert!(found.flops_ratio.interval().unwrap().1 < 1.0, "the second needs less: {found:?}");
        assert!(found.first_is_better.unwrap() < 0.025, "{found:?}");
        assert!(matches!(
            crossover(side(&worse), side(&better), true).flops,
            Estimate::NotIdentified { .. }
        ));
    }

    #[test]
    fn equal_laws_are_not_told_apart() {
        let (one, other) = (inference(1.0, 3), inference(1.0, 4));
        let found = &compare_laws(side(&one), side(&other), true, &[1e15])[0];
        let (low, high) = found.loss_difference_nats.interval().unwrap();
        assert!(low < 0.0 && 0.0 < high, "{low} {high}");
        let share = found.first_is_better.unwrap();
        assert!((0.02..0.98).contains(&share), "{share}");
    }

    /// Sizes that are all trained to the same D/N: alpha and beta cannot be told apart.
    fn fixed_ratio(scale: f64, seed: u64) -> Inference {
        let mut points = Vec::new();
        let mut stream = crate::random::Stream::new(seed, 0);
        for run in 0..24_u32 {
            let parameters = 4e4 * 1.5_f64.powf(f64::from(run));
            let tokens = 20.0 * parameters;
            let loss = Study::ladder(1).loss(parameters, tokens);
            points.push(crate::observation::Observation {
                run: crate::observation::RunKey(run),
                parameters,
                tokens,
                flops: 6.0 * parameters * tokens,
                loss_nats: scale * loss * (0.001 * stream.normal()).exp(),
                seed: 0,
            });
        }
        let data = crate::observation::Dataset::new(&points).unwrap();
        let options = FitOptions::default();
        let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
        let interval = IntervalOptions { draws: 200, ..IntervalOptions::default() };
        infer(&fitted, &data, &options, &interval).unwrap()
    }

    // Where one side does not know how N and D share a budget, it has no loss at its best N and D,
    // and nothing may be said of it beside another.
    #[test]
    fn a_side_whose_exponents_are_not_identified_leaves_nothing_to_compare() {
        let (blocked, good) = (fixed_ratio(1.05, 1), inference(1.0, 2));
        assert!(blocked.whole.is_none() && blocked.optimum(1e14, 6.0).is_some());
        for (one, other, which) in [(&blocked, &good, "first"), (&good, &blocked, "second")] {
            let found = &compare_laws(side(one), side(other), false, &[1e14])[0];
            let crossing = crossover(side(one), side(other), false).flops;
            let all =
                [&found.loss_difference_nats, &found.loss_ratio, &found.flops_ratio, &crossing];
            for estimate in all {
                let Estimate::NotIdentified { reason } = estimate else { panic!("{estimate:?}") };
                assert!(reason.starts_with(&format!("of the {which}: alpha: ")), "{reason}");
            }
            assert_eq!(found.first_is_better, None);
        }
    }

    // The luck of the places cancels in pairs of one draw and not in pairs of two, so that draws
    // which failed on one side must not be counted as pairs by their index.
    #[test]
    fn draws_that_failed_on_one_side_unpair_the_others() {
        let one = inference(1.0, 3);
        let mut other = one.clone();
        // Less by so little that only pairs of one draw show it.
        for theta in &mut other.resampled.replicates {
            theta.iter_mut().take(3).for_each(|ln| *ln -= 1e-6);
        }
        let share = |other: &Inference| {
            compare_laws(side(&one), side(other), true, &[1e15])[0].first_is_better.unwrap()
        };
        assert_eq!(share(&other), 0.0);
        let with_failed = |n: usize| {
            let mut other = other.clone();
            other.resampled.replicates.drain(160..160 + n);
            if let Scheme::Bootstrap { failed, .. } = &mut other.resampled.scheme {
                *failed = n;
            }
            other
        };
        let found = share(&with_failed(1));
        assert!((0.3..0.7).contains(&found), "{found}");
        let too_many = &compare_laws(side(&one), side(&with_failed(30)), true, &[1e15])[0];
        let text = format!("{:?}", too_many.loss_difference_nats);
        assert!(text.contains("30 of 200 resamples give no number"), "{text}");
        assert_eq!(too_many.first_is_better, None);
    }

    #[test]
    fn halving_finds_the_compute_for_a_loss_and_says_where_there_is_none() {
        let loss = |flops: f64| 1.5 + (1e15 / flops).powf(0.2);
        let found = flops_for(loss, 2.5, 1e14);
        assert!((found / 1e15 - 1.0).abs() < 1e-9, "{found}");
        assert!(flops_for(loss, 1.4, 1e14).is_nan());
    }
}
