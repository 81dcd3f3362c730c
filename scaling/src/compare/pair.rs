//! Owns what is said of two named architectures: at budgets, where they cross, and how far all of that
//! is from the data. The numbers are `laws`' and `crossing`'s.

use super::crossing::{Crossover, crossover};
use super::laws::{LawComparison, Side, compare_laws};
use crate::outside::Standing;

/// Two architectures beside each other.
#[derive(Debug, Clone, PartialEq)]
pub struct PairComparison {
    /// At each budget.
    pub budgets: Vec<LawComparison>,
    /// Where both have the same loss.
    pub crossover: Crossover,
    /// Which of these lie outside the fitted C of one or the other, and how far.
    pub warnings: Vec<String>,
}

/// Compares two named fits at `budgets`; without any at the largest C that both were fitted to.
///
/// `is_paired` as in [`compare_laws`].
pub fn compare_pair(
    names: [&str; 2],
    sides: [Side<'_>; 2],
    is_paired: bool,
    budgets: &[f64],
) -> PairComparison {
    let ranges = sides.map(|side| side.inference.ranges.flops);
    let largest = [ranges[0].1.min(ranges[1].1)];
    let budgets = if budgets.is_empty() { &largest } else { budgets };
    let budgets = compare_laws(sides[0], sides[1], is_paired, budgets);
    let crossover = crossover(sides[0], sides[1], is_paired);
    let outside = |flops: f64, what: &'static str| {
        let each = names.into_iter().zip(ranges);
        each.filter_map(move |(name, range)| {
            let warning = Standing::of(flops, range).warning(what)?;
            Some(format!("{warning}, of `{name}`"))
        })
    };
    let far = budgets.iter().filter(|one| !one.is_inside_both);
    let mut warnings: Vec<String> = far.flat_map(|one| outside(one.flops, "C")).collect();
    if let (Some(flops), false) = (crossover.flops.value(), crossover.is_inside_both) {
        warnings.extend(outside(flops, "equal loss at C"));
    }
    PairComparison { budgets, crossover, warnings }
}
