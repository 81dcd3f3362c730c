//! Owns the comparison of two architectures on the same budgets: loss difference and compute ratio,
//! with intervals. Does not rank: an interval that holds zero is the answer "these data do not
//! tell".

mod crossing;
mod laws;
mod pair;

pub use crossing::{Crossover, crossover};
pub use laws::{LawComparison, Side, compare_laws};
pub use pair::{PairComparison, compare_pair};

use crate::envelope::EnvelopeFit;
use crate::interval::{Estimate, estimate_pair};
use crate::law::Quantity;

/// Two architectures at one budget.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    /// C.
    pub flops: f64,
    /// L of the first minus L of the second, nats per token, on their frontiers.
    pub loss_difference_nats: Estimate,
    /// FLOPs the second needs for the loss that the first reaches at `flops`, over `flops`.
    pub flops_ratio: Estimate,
    /// Whether the budget lies on both measured frontiers; elsewhere both numbers are
    /// extrapolations.
    pub is_inside_both: bool,
}

/// Compares the frontiers of `first` and `second` at each of `budgets`.
///
/// Where both ladders have the same number of runs at each place, the runs are paired by place, so
/// that what both frontiers owe to the choice of sizes cancels. The two must have been fitted with
/// the same FLOP convention, tokenizer and evaluation; that is the caller's to know.
pub fn compare(first: &EnvelopeFit, second: &EnvelopeFit, budgets: &[f64]) -> Vec<Comparison> {
    let pair = (&first.loss_resampled, &second.loss_resampled);
    let is_paired =
        first.size_of_run == second.size_of_run && first.unit_of_run == second.unit_of_run;
    let inside =
        |one: &EnvelopeFit, flops: f64| (one.flops_range.0..=one.flops_range.1).contains(&flops);
    let at = |flops: &f64| {
        let x = (flops / first.reference_flops).ln();
        let y = (flops / second.reference_flops).ln();
        let difference = |a: &[f64], b: &[f64]| (a[0] + a[1] * x).exp() - (b[0] + b[1] * y).exp();
        let ratio = |a: &[f64], b: &[f64]| {
            let ln_loss = a[0] + a[1] * x;
            // Where the second frontier does not fall, no compute reaches that loss.
            let ln_flops = if b[1] < 0.0 { (ln_loss - b[0]) / b[1] } else { f64::NAN };
            (ln_flops - y).exp()
        };
        Comparison {
            flops: *flops,
            loss_difference_nats: estimate_pair(pair, is_paired, Quantity::Difference, difference),
            flops_ratio: estimate_pair(pair, is_paired, Quantity::Scale, ratio),
            is_inside_both: inside(first, *flops) && inside(second, *flops),
        }
    };
    budgets.iter().map(at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::{EnvelopeOptions, fit};
    use crate::planted::Study;

    fn envelope(scale: f64, seed: u64) -> EnvelopeFit {
        let study = Study { loss_scale: scale, run_sd: 0.002, seed, ..Study::ladder(5) };
        fit(&study.dataset(), &EnvelopeOptions::default()).unwrap()
    }

    #[test]
    fn a_planted_advantage_is_found_and_equal_architectures_are_not_told_apart() {
        let (worse, better, twin) = (envelope(1.05, 1), envelope(1.0, 2), envelope(1.0, 3));
        let budget = [worse.reference_flops];
        let clear = &compare(&worse, &better, &budget)[0];
        assert!(clear.is_inside_both);
        let (low, high) = clear.loss_difference_nats.interval().unwrap();
        assert!(low > 0.0 && high > low, "{clear:?}");
        // The second needs less compute for the same loss.
        assert!(clear.flops_ratio.interval().unwrap().1 < 1.0, "{clear:?}");
        let (low, high) =
            compare(&better, &twin, &budget)[0].loss_difference_nats.interval().unwrap();
        assert!(low < 0.0 && high > 0.0, "{low} {high}");
    }

    #[test]
    fn differences_of_equal_architectures_cover_zero() {
        let covers = |seed: u64| {
            let (a, b) = (envelope(1.0, 2 * seed + 1), envelope(1.0, 2 * seed + 2));
            let one = &compare(&a, &b, &[a.reference_flops])[0];
            let (low, high) = one.loss_difference_nats.interval().unwrap();
            low <= 0.0 && 0.0 <= high
        };
        let hits = (0..100).filter(|seed| covers(*seed)).count();
        eprintln!("{hits} of 100");
        assert!(hits >= 88, "{hits} of 100");
    }

    #[test]
    fn ladders_of_different_length_are_compared_unpaired() {
        let of = |n: usize, seed: u64| {
            let study = Study { run_sd: 0.002, seed, ..Study::ladder(n) };
            fit(&study.dataset(), &EnvelopeOptions::default()).unwrap()
        };
        let (five, six) = (of(5, 1), of(6, 2));
        let one = &compare(&five, &six, &[five.reference_flops])[0];
        let (low, high) = one.loss_difference_nats.interval().unwrap();
        assert!(low <= 0.0 && 0.0 <= high);
    }

    #[test]
    fn a_budget_off_the_frontiers_is_marked() {
        let one = envelope(1.0, 1);
        assert!(!compare(&one, &one, &[100.0 * one.flops_range.1])[0].is_inside_both);
    }
}
