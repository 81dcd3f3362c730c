//! Owns the warnings about which runs there are: too few, too alike, unequally often.
//! Does not look at a law.

use std::collections::BTreeMap;

use super::{Finding, correlation};
use crate::algebra::line;
use crate::fit::Fit;
use crate::interval::MIN_RUNS_FOR_BOOTSTRAP;
use crate::law::{Overtraining, Variable};
use crate::noise::runs_by_place;
use crate::observation::{Dataset, Observation, SAME_COMPUTE};

/// Sizes, and decades of C, below which an extrapolation has nothing to stand on.
const FEW_SIZES: usize = 5;
const NARROW_DECADES: f64 = 2.0;
/// Span of N or D below which its exponent rests on little.
const NARROW_SPAN: f64 = 8.0;
/// Ratios D/N of which one is left over when two have settled the law of over-training.
const CONTRADICTING_RATIOS: usize = 3;
/// Correlation of ln N and ln D above which the two terms are hard to tell apart.
const HIGH_CORRELATION: f64 = 0.9;
/// Runs at one place over those at another; two seeds beside single ones are how a noise is
/// measured.
const UNBALANCED: usize = 3;
/// Root mean square of the factors by which what a law does not look at misses a power of what it
/// does: winners at budgets of a ladder whose sizes are ten times apart stay below it, and a loss
/// moves with a factor of two in N or D by more than seeds do. And the degrees of freedom from which
/// on it means something.
const OFF_POWER: f64 = 2.0;
const LEAST_FREEDOM: usize = 3;
/// Values that the warning `mixed` names.
const MOST_NAMED: usize = 4;

pub(super) fn narrow_compute(fit: &Fit) -> Option<String> {
    let (low, high) = fit.ranges.flops;
    let decades = (high / low).log10();
    (decades < NARROW_DECADES).then(|| format!("C spans {decades:.1} decades"))
}

pub(super) fn few_sizes(fit: &Fit) -> Option<String> {
    (fit.n_sizes < FEW_SIZES).then(|| {
        format!(
            "{} sizes; with four a replicate without one of them goes through the others, and 95 % \
             intervals held in 84 to 89 % of planted studies",
            fit.n_sizes
        )
    })
}

/// The law of over-training on as few ratios D/N as it can be solved from.
pub(super) fn few_ratios(dataset: &Dataset) -> Option<String> {
    let n = Overtraining::n_ratios(&dataset.log_points());
    (n < CONTRADICTING_RATIOS).then(|| {
        format!(
            "{n} ratios D/N; {CONTRADICTING_RATIOS} are needed before data could contradict how the \
             loss depends on D/N, so a prediction at another ratio rests on the law's form"
        )
    })
}

pub(super) fn narrow_span(fit: &Fit) -> Option<String> {
    let spans = [("N", fit.ranges.parameters), ("D", fit.ranges.tokens)];
    let (name, (low, high)) =
        spans.into_iter().find(|(_, (low, high))| high / low < NARROW_SPAN)?;
    Some(format!("{name} spans a factor of {:.1}", high / low))
}

pub(super) fn fixed_ratio(dataset: &Dataset) -> Option<String> {
    let logs = dataset.points().iter().map(|point| (point.parameters.ln(), point.tokens.ln()));
    let r = correlation(&logs.collect::<Vec<_>>())?;
    (r.abs() > HIGH_CORRELATION).then(|| format!("ln N and ln D have a correlation of {r:.3}"))
}

/// A law of one of N, D and C over runs that differ in another at the same place is the loss of a
/// middling run there, and not of the best. So is a law of N or D where no place has two runs, but
/// the other variable goes its own way.
pub(super) fn not_a_frontier(variables: &[Variable], dataset: &Dataset) -> Option<String> {
    let by_size = |of: fn(&Observation) -> f64| spans(dataset, |point| point.parameters, of);
    let (size, tokens) =
        (|point: &Observation| point.parameters, |point: &Observation| point.tokens);
    match variables {
        [Variable::Flops] => overlapping(&by_size(|point| point.flops)).then(|| {
            format!(
                "a law of C is fitted to {} sizes whose budgets overlap, so it is the loss of a \
                 middling run at C, and not of the best that C can buy; `envelope` fits that",
                dataset.n_distinct(size)
            )
        }),
        [Variable::Tokens] if overlapping(&by_size(tokens)) => Some(format!(
            "a law of D is fitted to {} sizes whose D overlap, so it is the loss of a middling \
             size at D; a law of N and D tells them apart",
            dataset.n_distinct(size)
        )),
        [Variable::Tokens] => off_power(dataset, tokens, size).map(|factor| {
            format!(
                "a law of D is fitted to rows whose N is a factor of {factor:.1} off a power of D \
                 (root mean square), so it is the loss of a middling size; a law of N and D tells \
                 them apart"
            )
        }),
        [Variable::Parameters] => one_of_several(&by_size(tokens)).or_else(|| {
            let factor = off_power(dataset, size, tokens)?;
            Some(format!(
                "a law of N is fitted to rows whose D is a factor of {factor:.1} off a power of N \
                 (root mean square), so it is the loss after a middling D; a law of N and D tells \
                 them apart"
            ))
        }),
        _ => None,
    }
}

/// A size with several D.
fn one_of_several(spans: &[(f64, f64)]) -> Option<String> {
    let (low, high) = spans.iter().copied().max_by(|a, b| (a.1 / a.0).total_cmp(&(b.1 / b.0)))?;
    (low < SAME_COMPUTE * high).then(|| {
        format!(
            "a law of N is fitted to rows of one N with D from {low:.3e} to {high:.3e}, so it is \
             the loss after a middling D; a law of N and D tells them apart"
        )
    })
}

/// By what factor, in the root mean square, the other variable misses the best power of one, where
/// that is more than [`OFF_POWER`].
fn off_power(
    dataset: &Dataset,
    one: fn(&Observation) -> f64,
    other: fn(&Observation) -> f64,
) -> Option<f64> {
    let logs = dataset.points().iter().map(|point| (one(point).ln(), other(point).ln()));
    let logs: Vec<(f64, f64)> = logs.collect();
    let freedom = logs.len().checked_sub(2).filter(|freedom| *freedom >= LEAST_FREEDOM)?;
    let squares = line(&logs, 0.0)?.residual_squares;
    let factor = (squares / freedom as f64).sqrt().exp();
    (factor > OFF_POWER).then_some(factor)
}

/// Smallest and largest value of the points of each group, groups in the order of their key.
fn spans(
    dataset: &Dataset,
    key: fn(&Observation) -> f64,
    value: fn(&Observation) -> f64,
) -> Vec<(f64, f64)> {
    let mut spans: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for point in dataset.points() {
        // Bits of positive numbers are in their order.
        let span = spans.entry(key(point).to_bits()).or_insert((f64::INFINITY, 0.0));
        *span = (span.0.min(value(point)), span.1.max(value(point)));
    }
    spans.into_values().collect()
}

/// Whether two spans have a place in common, up to what whole steps make of one budget.
fn overlapping(spans: &[(f64, f64)]) -> bool {
    let mut ordered = spans.to_vec();
    ordered.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut reached = 0.0_f64;
    ordered.iter().any(|(low, high)| {
        let meets = SAME_COMPUTE * low < reached;
        reached = reached.max(*high);
        meets
    })
}

/// Runs that share their first steps, where so few trunks are left that each is left out in turn.
pub(crate) fn shared_trunks(n_clusters: usize, n_runs: usize) -> Option<String> {
    (n_clusters < n_runs && n_clusters < MIN_RUNS_FOR_BOOTSTRAP).then(|| {
        format!(
            "{n_runs} runs have {n_clusters} trunks; runs of one trunk share its luck, so an interval \
             counts trunks, of which a bootstrap takes {MIN_RUNS_FOR_BOOTSTRAP}"
        )
    })
}

/// Places with several seeds count as often, and pull the law to where they are.
pub(super) fn unbalanced_seeds(dataset: &Dataset) -> Option<String> {
    let counts: Vec<usize> = runs_by_place(dataset).iter().map(Vec::len).collect();
    let (least, most) = (*counts.iter().min()?, *counts.iter().max()?);
    (most >= UNBALANCED * least).then(|| {
        let n_least = counts.iter().filter(|count| **count == least).count();
        format!(
            "one place of N and D has {most} runs, and {n_least} of {} have {least}; each run \
             counts once, so the first weighs {} times as much",
            counts.len(),
            most / least
        )
    })
}

/// The warning `mixed`: runs of one fit that differ in what a law takes as fixed, such as the
/// schedule, the tokenizer or the data. `counts` has how many rows or runs have each value; `None`
/// where all have the same.
pub fn mixed(what: &str, unit: &str, counts: &BTreeMap<String, usize>) -> Option<Finding> {
    if counts.len() < 2 {
        return None;
    }
    let mut ordered: Vec<(&String, &usize)> = counts.iter().collect();
    ordered.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut named: Vec<String> = ordered
        .iter()
        .take(MOST_NAMED)
        .map(|(value, count)| format!("`{value}` ({count} {unit})"))
        .collect();
    if ordered.len() > MOST_NAMED {
        named.push(format!("{} more", ordered.len() - MOST_NAMED));
    }
    let text = format!(
        "{what} has {} values in one fit: {}; a law is of runs that are alike in it",
        counts.len(),
        named.join(", ")
    );
    Some(Finding { name: "mixed", text })
}
