//! Owns where two fitted laws have the same loss. Does not compare them at a budget; `laws` does.

use super::laws::{Side, draws, why_not_comparable};
use crate::interval::{Estimate, estimate_pair};
use crate::law::Quantity;

/// How far beyond the fitted budgets a crossing is looked for.
const REACH: f64 = 1e3;
/// Places of ln C at which the difference of the losses is looked at: two crossings nearer to each
/// other than a factor of about 1.1 are a touch.
const N_PLACES: usize = 256;
/// Halvings of an interval of ln C; 60 leave a part in 10^16.
const HALVINGS: usize = 60;

/// The budgets at which two laws have the same loss.
#[derive(Debug, Clone, PartialEq)]
pub struct Crossover {
    /// C: of several the one among the budgets that both were fitted to, or nearest to them.
    pub flops: Estimate,
    /// Whether it lies among them; elsewhere it is extrapolation.
    pub is_inside_both: bool,
    /// C of the others, ascending.
    pub others: Vec<f64>,
}

/// The budgets at which both have the same loss, within a thousand times the fitted ones.
///
/// A draw's crossing is its nearest one in the same direction: the first, which was better, is worse
/// from there on, or the other way round. Draws without one leave it not identified once they are
/// more than a tenth.
pub fn crossover(first: Side<'_>, second: Side<'_>, is_paired: bool) -> Crossover {
    let none = |reason: String| Crossover {
        flops: Estimate::not_identified(reason),
        is_inside_both: false,
        others: Vec::new(),
    };
    if let Some(reason) = why_not_comparable(first, second) {
        return none(reason);
    }
    let fitted = [first.inference.ranges.flops, second.inference.ranges.flops];
    let low = fitted[0].0.min(fitted[1].0) / REACH;
    let high = fitted[0].1.max(fitted[1].1) * REACH;
    let all = |a: &[f64], b: &[f64]| {
        let difference = |ln_flops: f64| {
            let flops = ln_flops.exp();
            first.loss(a, flops) - second.loss(b, flops)
        };
        crossings(difference, (low.ln(), high.ln()))
    };
    let pair = (&first.inference.resampled, &second.inference.resampled);
    let found = all(&pair.0.theta, &pair.1.theta);
    let common = (fitted[0].0.max(fitted[1].0).ln(), fitted[0].1.min(fitted[1].1).ln());
    let Some(chosen) = nearest(&found, |one| distance(one.ln_flops, common)) else {
        return none(format!("the two do not cross between {low:.1e} and {high:.1e} FLOPs"));
    };
    let of_draw = |a: &[f64], b: &[f64]| {
        let alike: Vec<Crossing> =
            all(a, b).into_iter().filter(|one| one.rises == chosen.rises).collect();
        nearest(&alike, |one| (one.ln_flops - chosen.ln_flops).abs())
            .map_or(f64::NAN, |one| one.ln_flops.exp())
    };
    let n = pair.0.replicates.len().min(pair.1.replicates.len());
    let missing = draws(first, second, is_paired).filter(|(a, b)| of_draw(a, b).is_nan()).count();
    let flops = if 10 * missing > n {
        Estimate::not_identified(format!(
            "the two cross at C = {:.3e}, but between {low:.1e} and {high:.1e} FLOPs not in \
             {missing} of {n} {}",
            chosen.ln_flops.exp(),
            pair.0.scheme.replicates()
        ))
    } else {
        estimate_pair(pair, is_paired, Quantity::Scale, of_draw)
    };
    let is_other = |one: &&Crossing| one.ln_flops != chosen.ln_flops;
    Crossover {
        flops,
        is_inside_both: (common.0..=common.1).contains(&chosen.ln_flops),
        others: found.iter().filter(is_other).map(|one| one.ln_flops.exp()).collect(),
    }
}

/// A change of sign.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Crossing {
    ln_flops: f64,
    /// From below zero to above.
    rises: bool,
}

fn nearest(all: &[Crossing], distance: impl Fn(&Crossing) -> f64) -> Option<Crossing> {
    all.iter().copied().min_by(|one, other| distance(one).total_cmp(&distance(other)))
}

/// How far a place is from the range that both were fitted to; from the gap, if there is none.
fn distance(place: f64, (low, high): (f64, f64)) -> f64 {
    let (low, high) = (low.min(high), low.max(high));
    (low - place).max(place - high).max(0.0)
}

/// Where `function` changes its sign, ascending, by halving between equidistant places.
fn crossings(function: impl Fn(f64) -> f64, (low, high): (f64, f64)) -> Vec<Crossing> {
    let place = |index: usize| low + (high - low) * index as f64 / (N_PLACES - 1) as f64;
    let values: Vec<f64> = (0..N_PLACES).map(|index| function(place(index))).collect();
    let changes = (1..N_PLACES).filter(|index| {
        let (before, after) = (values[index - 1], values[*index]);
        before.is_finite() && after.is_finite() && (before < 0.0) != (after < 0.0)
    });
    let halved = |index: usize| {
        let rises = values[index - 1] < 0.0;
        let ln_flops = change(|at| (function(at) < 0.0) == rises, (place(index - 1), place(index)));
        Crossing { ln_flops, rises }
    };
    changes.map(halved).collect()
}

/// Where `is_before` ceases to hold.
fn change(is_before: impl Fn(f64) -> bool, (mut low, mut high): (f64, f64)) -> f64 {
    for _ in 0..HALVINGS {
        let middle = 0.5 * (low + high);
        if is_before(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{FitOptions, fit};
    use crate::interval::{Inference, IntervalOptions, infer};
    use crate::law::LawName;
    use crate::observation::{Dataset, Observation, RunKey};
    use crate::random::Stream;

    /// A law of C alone, L = floor + scale (C / 1e18)^-exponent.
    fn of_compute((floor, scale, exponent): (f64, f64, f64), seed: u64) -> Inference {
        let mut stream = Stream::new(seed, 0);
        let point = |run: u32| {
            let flops = 1e16 * 10_f64.powf(f64::from(run) / 5.0);
            let loss = floor + scale * (flops / 1e18).powf(-exponent);
            Observation {
                run: RunKey(run),
                parameters: flops.sqrt(),
                tokens: flops.sqrt() / 6.0,
                flops,
                loss_nats: loss * (1e-4 * stream.normal()).exp(),
                seed: 0,
            }
        };
        let points: Vec<Observation> = (0..=20).map(point).collect();
        let data = Dataset::new(&points).unwrap();
        let options = FitOptions::default();
        let law = LawName::PowerFloor.law();
        let fitted = fit(law, &data, &options).unwrap();
        let interval = IntervalOptions { draws: 200, ..IntervalOptions::default() };
        infer(&fitted, &data, &options, &interval).unwrap()
    }

    fn side(inference: &Inference) -> Side<'_> {
        Side { inference, flops_per_parameter_token: 6.0 }
    }

    // The ends of the search have one sign, and yet they cross twice: among the data, and beyond.
    #[test]
    fn of_two_crossings_the_one_among_the_data_is_told_and_the_other_named() {
        let (a, b) = ((2.06, 0.45, 0.35), (2.0, 0.55, 0.2));
        let loss = |(floor, scale, exponent): (f64, f64, f64), flops: f64| {
            floor + scale * (flops / 1e18).powf(-exponent)
        };
        let planted = crossings(|at| loss(a, at.exp()) - loss(b, at.exp()), (30.0, 53.0));
        assert_eq!(planted.len(), 2);
        let inside = planted[0].ln_flops.exp();
        assert!((1e16..1e20).contains(&inside), "{inside:e}");
        let (one, other) = (of_compute(a, 1), of_compute(b, 2));
        let found = crossover(side(&one), side(&other), false);
        let (low, high) = found.flops.interval().unwrap();
        assert!(low < inside && inside < high && high < 2.0 * low, "{low:e} {inside:e} {high:e}");
        assert!(found.is_inside_both);
        assert!(found.others.iter().all(|flops| *flops > 1e20), "{found:?}");
        assert_eq!(found.others.len(), 1);
    }

    #[test]
    fn a_crossing_beyond_the_data_is_marked() {
        // They cross at 1e21, ten times the largest budget.
        let (a, b) = ((2.0, 0.5, 0.2), (2.0, 0.5 * 1000_f64.powf(0.1), 0.3));
        let (one, other) = (of_compute(a, 1), of_compute(b, 2));
        let found = crossover(side(&one), side(&other), false);
        assert!(!found.is_inside_both, "{found:?}");
        let value = found.flops.value().unwrap();
        assert!((3e20..3e21).contains(&value), "{value:e}");
    }

    #[test]
    fn every_change_of_sign_is_found_with_its_direction() {
        let found = crossings(f64::sin, (1.0, 10.0));
        let pi = std::f64::consts::PI;
        assert_eq!(found.len(), 3);
        for (one, (at, rises)) in
            found.iter().zip([(pi, false), (2.0 * pi, true), (3.0 * pi, false)])
        {
            assert!((one.ln_flops - at).abs() < 1e-12 && one.rises == rises, "{one:?}");
        }
        assert!(crossings(|_| f64::NAN, (0.0, 1.0)).is_empty());
        assert!(crossings(|_| 1.0, (0.0, 1.0)).is_empty());
    }
}
