//! Owns how replicates are drawn: units with replacement within their strata, or each left out once.
//! A unit is a run, or a cluster of runs that share a trunk. Does not refit; that is a function of
//! weights per unit.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use super::words::counted;
use super::{IntervalOptions, MAX_FAILED_SHARE, MIN_DRAWS, MIN_RUNS_FOR_BOOTSTRAP};
use super::{MIN_RUNS_FOR_INTERVAL, Scheme};
use crate::random::Stream;

/// Units of one size from which on the size is a stratum of its own. Fewer show too little of their
/// own scatter.
const MIN_STRATUM: usize = 4;

/// Units that may take each other's place in a resample.
#[derive(Debug, Clone, PartialEq)]
struct Stratum {
    /// Their positions, in an order that does not depend on the order of rows.
    units: Vec<usize>,
    /// How many are drawn, and how often each then counts.
    n_drawn: usize,
    weight: f64,
}

impl Stratum {
    /// As many drawn as there are.
    fn plain(units: Vec<usize>) -> Self {
        Self { n_drawn: units.len(), weight: 1.0, units }
    }

    /// One fewer drawn, each counting for more: m drawn of m show only (m - 1) / m of the variance
    /// (Rao and Wu 1988).
    fn rescaled(units: Vec<usize>) -> Self {
        let n = units.len();
        Self { n_drawn: n - 1, weight: n as f64 / (n - 1) as f64, units }
    }
}

/// What a plan of draws needs to know of each unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Units<'a> {
    /// Runs that they are made of.
    pub(super) n_runs: usize,
    /// Numbers of strata that the caller gave.
    pub(super) labels: &'a [u32],
    /// N.
    pub(super) sizes: &'a [f64],
    /// Places in an order that does not depend on the order of rows; equal for units that are the
    /// same.
    pub(super) ranks: &'a [usize],
    /// Whether the objective is smooth on the scale of the residuals, as squares are.
    pub(super) is_smooth: bool,
}

/// Which units may take each other's place in a resample, and on how many threads replicates are
/// made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    strata: Vec<Stratum>,
    /// The units in an order that does not depend on the order of rows.
    order: Vec<usize>,
    /// Runs that they are made of.
    n_runs: usize,
    n_threads: NonZeroUsize,
}

impl Plan {
    /// All units, made of `n_runs` runs, in one stratum, on this thread.
    pub(crate) fn plain(n_units: usize, n_runs: usize) -> Self {
        let order: Vec<usize> = (0..n_units).collect();
        let strata = vec![Stratum::plain(order.clone())];
        Self { strata, order, n_runs, n_threads: NonZeroUsize::MIN }
    }

    /// Units in strata by label, and by size where at least half of a label's units lie at sizes of
    /// [`MIN_STRATUM`] and more. The other units of a label are one stratum; a stratum of one unit
    /// would never vary, so labels of one unit share one.
    ///
    /// Sizes are drawn with full variance only where the objective is smooth: one close to absolute
    /// values makes draws scatter too widely by about as much (`docs/reference/coverage.md`).
    pub(super) fn stratified(units: &Units<'_>, n_threads: NonZeroUsize) -> Self {
        let mut order: Vec<usize> = (0..units.ranks.len()).collect();
        order.sort_by_key(|unit| units.ranks[*unit]);
        let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for unit in &order {
            members.entry(units.labels[*unit]).or_default().push(*unit);
        }
        let (alone, shared): (Vec<Vec<usize>>, Vec<Vec<usize>>) =
            members.into_values().partition(|own| own.len() == 1);
        let mut strata: Vec<Stratum> =
            shared.into_iter().flat_map(|own| by_size(own, units)).collect();
        if !alone.is_empty() {
            let mut alone = alone.concat();
            alone.sort_by_key(|unit| units.ranks[*unit]);
            strata.push(Stratum::plain(alone));
        }
        // Labels are numbered as rows come; what is drawn first must not depend on that.
        let places = |one: &Stratum| -> Vec<usize> {
            one.units.iter().map(|unit| units.ranks[*unit]).collect()
        };
        strata.sort_by_cached_key(places);
        Self { strata, order, n_runs: units.n_runs, n_threads }
    }

    /// Each run by itself in one stratum, in the order of their ranks, on so many threads.
    pub(super) fn of_runs(ranks: &[usize], n_threads: NonZeroUsize) -> Self {
        let mut order: Vec<usize> = (0..ranks.len()).collect();
        order.sort_by_key(|run| ranks[*run]);
        let strata = vec![Stratum::plain(order.clone())];
        Self { strata, n_runs: order.len(), order, n_threads }
    }

    /// Strata that are drawn from apart.
    pub(super) fn n_strata(&self) -> usize {
        self.strata.len()
    }

    fn weights(&self, stream: &mut Stream) -> Vec<f64> {
        let mut weights = vec![0.0; self.order.len()];
        for Stratum { units, n_drawn, weight } in &self.strata {
            (0..*n_drawn).for_each(|_| weights[units[stream.index(units.len())]] += weight);
        }
        weights
    }

    /// What is drawn, in words.
    fn counted(&self) -> String {
        counted(self.order.len(), self.n_runs)
    }

    /// Applies `of` to 0, 1, … below `count`, in that order whatever the threads.
    pub(super) fn map<T: Send>(&self, count: usize, of: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let n_threads = self.n_threads.get().min(count.max(1));
        if n_threads == 1 {
            return (0..count).map(of).collect();
        }
        let of = &of;
        let mut parts: Vec<std::vec::IntoIter<T>> = std::thread::scope(|scope| {
            let thread = |first: usize| {
                scope.spawn(move || {
                    (first..count).step_by(n_threads).map(of).collect::<Vec<T>>().into_iter()
                })
            };
            let threads: Vec<_> = (0..n_threads).map(thread).collect();
            let join = |one: std::thread::ScopedJoinHandle<'_, _>| match one.join() {
                Ok(part) => part,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            threads.into_iter().map(join).collect()
        });
        // The n-th part has n, n + threads, …; taking one of each in turn restores the order.
        (0..count).filter_map(|index| parts[index % n_threads].next()).collect()
    }
}

/// The units of one label: sizes of enough units by themselves, the others together.
fn by_size(own: Vec<usize>, units: &Units<'_>) -> Vec<Stratum> {
    // Positive numbers are in the order of their bits.
    let mut sizes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for unit in &own {
        sizes.entry(units.sizes[*unit].to_bits()).or_default().push(*unit);
    }
    let (mut large, small): (Vec<Vec<usize>>, Vec<Vec<usize>>) =
        sizes.into_values().partition(|size| size.len() >= MIN_STRATUM);
    let mut rest = small.concat();
    // Sizes that coincide here and there are not what a design fixed.
    let n_large: usize = large.iter().map(Vec::len).sum();
    if large.is_empty() || n_large < rest.len() || large.len() == 1 && rest.is_empty() {
        return vec![Stratum::plain(own)];
    }
    rest.sort_by_key(|unit| units.ranks[*unit]);
    if rest.len() >= MIN_STRATUM {
        large.push(rest);
    } else if let Some(smallest) = large.iter_mut().min_by_key(|size| size.len()) {
        // Too few to vary by themselves: with the size of fewest units.
        smallest.append(&mut rest);
        smallest.sort_by_key(|unit| units.ranks[*unit]);
    }
    let stratum = if units.is_smooth { Stratum::rescaled } else { Stratum::plain };
    large.into_iter().map(stratum).collect()
}

/// Makes replicates by the rule of this module. Draws are named by seed and index, so that threads
/// do not change them.
///
/// `refit` gets the weight of every unit and a stream of random numbers of its own, and gives the
/// refitted parameters or the reason why these units allow none.
pub(crate) fn resample_by(
    plan: &Plan,
    options: &IntervalOptions,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> (Vec<Vec<f64>>, Scheme) {
    let (n_runs, n_clusters) = (plan.n_runs, plan.order.len());
    let unavailable = |reason: String| (Vec::new(), Scheme::Unavailable { n_runs, reason });
    if !(options.level > 0.0 && options.level < 1.0) {
        return unavailable(format!("level {} does not lie between 0 and 1", options.level));
    }
    if n_clusters < MIN_RUNS_FOR_INTERVAL {
        let counted = plan.counted();
        return unavailable(format!(
            "{counted}; an interval needs at least {MIN_RUNS_FOR_INTERVAL}"
        ));
    }
    if n_clusters < MIN_RUNS_FOR_BOOTSTRAP {
        return jackknife(plan, options, refit);
    }
    let (draws, seed) = (options.draws, options.seed);
    if draws < MIN_DRAWS {
        return unavailable(format!("{draws} draws; a bootstrap needs at least {MIN_DRAWS}"));
    }
    let drawn = plan.map(draws, |draw| {
        let mut stream = Stream::new(seed, draw as u64);
        let weights = plan.weights(&mut stream);
        refit(&weights, stream)
    });
    let mut replicates = Vec::with_capacity(draws);
    let mut first_failure = None;
    for one in drawn {
        match one {
            Ok(theta) => replicates.push(theta),
            Err(reason) => {
                first_failure.get_or_insert(reason);
            }
        }
    }
    let failed = draws - replicates.len();
    match first_failure {
        Some(reason) if failed as f64 > MAX_FAILED_SHARE * draws as f64 => unavailable(format!(
            "{failed} of {draws} resamples of {} failed, the first: {reason}",
            plan.counted()
        )),
        _ => (
            replicates,
            Scheme::Bootstrap {
                n_runs,
                n_clusters,
                n_strata: plan.n_strata(),
                draws,
                failed,
                seed,
            },
        ),
    }
}

/// Makes replicates by shifting every unit's ln L by luck of standard deviation `sd_log`.
///
/// `refit` gets the shift of every unit. Few runs suffice, since nothing about the luck is estimated
/// from them.
pub(crate) fn shift(
    plan: &Plan,
    options: &IntervalOptions,
    sd_log: f64,
    refit: impl Fn(&[f64]) -> Result<Vec<f64>, String>,
) -> (Vec<Vec<f64>>, Scheme) {
    let n_runs = plan.n_runs;
    let unavailable = |reason: String| (Vec::new(), Scheme::Unavailable { n_runs, reason });
    let (draws, seed) = (options.draws, options.seed);
    if !(sd_log.is_finite() && sd_log > 0.0) {
        return unavailable(format!("the stated noise between seeds, {sd_log}, is not positive"));
    }
    if draws < MIN_DRAWS || !(options.level > 0.0 && options.level < 1.0) {
        return unavailable(format!("{draws} draws at level {} give no interval", options.level));
    }
    let mut replicates = Vec::with_capacity(draws);
    for draw in 0..draws {
        let mut stream = Stream::new(seed, draw as u64);
        let luck: Vec<f64> = (0..plan.order.len()).map(|_| sd_log * stream.normal()).collect();
        match refit(&luck) {
            Ok(theta) => replicates.push(theta),
            Err(reason) => return unavailable(format!("with other luck: {reason}")),
        }
    }
    (replicates, Scheme::StatedNoise { n_runs, draws, seed, sd_log })
}

/// Refits without each unit in turn; in the order of the units' positions.
pub(super) fn leave_one_out(
    plan: &Plan,
    seed: u64,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> Result<Vec<Vec<f64>>, String> {
    let n_units = plan.order.len();
    let drawn = plan.map(n_units, |place| {
        let mut weights = vec![1.0; n_units];
        weights[plan.order[place]] = 0.0;
        refit(&weights, Stream::new(seed, place as u64))
    });
    let all: Result<Vec<Vec<f64>>, String> = drawn.into_iter().collect();
    let all = all.map_err(|reason| format!("leaving out one of {}: {reason}", plan.counted()))?;
    let mut ordered = vec![Vec::new(); n_units];
    plan.order.iter().zip(all).for_each(|(unit, theta)| ordered[*unit] = theta);
    Ok(ordered)
}

fn jackknife(
    plan: &Plan,
    options: &IntervalOptions,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> (Vec<Vec<f64>>, Scheme) {
    let (n_runs, n_clusters) = (plan.n_runs, plan.order.len());
    match leave_one_out(plan, options.seed, refit) {
        // Those of two designs are paired by their places, whatever the order of rows.
        Ok(mut of_unit) => {
            let replicates = plan.order.iter().map(|unit| std::mem::take(&mut of_unit[*unit]));
            (replicates.collect(), Scheme::Jackknife { n_runs, n_clusters })
        }
        Err(reason) => (Vec::new(), Scheme::Unavailable { n_runs, reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(labels: &[u32], sizes: &[f64], is_smooth: bool) -> Plan {
        let ranks: Vec<usize> = (0..labels.len()).collect();
        let units = Units { n_runs: labels.len(), labels, sizes, ranks: &ranks, is_smooth };
        Plan::stratified(&units, NonZeroUsize::MIN)
    }

    #[test]
    fn every_stratum_keeps_its_number_of_runs_in_every_draw() {
        let plan = plan(&[7, 7, 7, 2, 2, 9], &[1.0, 2.0, 3.0, 1.0, 2.0, 3.0], false);
        for draw in 0..200 {
            let weights = plan.weights(&mut Stream::new(3, draw));
            assert_eq!(weights[..3].iter().sum::<f64>(), 3.0);
            assert_eq!(weights[3..5].iter().sum::<f64>(), 2.0);
            assert_eq!(weights[5], 1.0, "the only run of its stratum");
        }
    }

    #[test]
    fn sizes_of_enough_runs_are_strata_and_the_others_share_one() {
        let sizes = [1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0, 4.0];
        // Three runs of two sizes are too few by themselves, and go with the four of the first.
        let rough = plan(&[0; 12], &sizes, false);
        assert_eq!(rough.n_strata(), 2);
        let smooth = plan(&[0; 12], &sizes, true);
        for draw in 0..200 {
            let of = |plan: &Plan| plan.weights(&mut Stream::new(5, draw));
            assert_eq!(of(&rough)[4..9].iter().sum::<f64>(), 5.0);
            assert!((of(&smooth)[4..9].iter().sum::<f64>() - 5.0).abs() < 1e-12);
            assert!(of(&smooth).contains(&0.0), "one fewer is drawn than there are");
        }
        assert_eq!(plan(&[0; 12], &[1.0; 12], true).n_strata(), 1);
        let own: Vec<f64> = (0..12).map(f64::from).collect();
        assert_eq!(plan(&[0; 12], &own, true), plan(&[0; 12], &[1.0; 12], true));
    }

    /// Aim: drawn one fewer and counted for more, a mean varies as much as it does between samples.
    /// Method: five numbers of known variance in each of two strata, and the exact variance of the
    /// drawn sum.
    #[test]
    fn a_rescaled_stratum_shows_its_whole_variance() {
        let (labels, sizes) = ([0; 10], [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]);
        let values = [3.0, 1.0, 4.0, 1.0, 5.0];
        let mean = values.iter().sum::<f64>() / 5.0;
        let square = values.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 4.0;
        let variance = |is_smooth: bool| {
            let plan = plan(&labels, &sizes, is_smooth);
            let sum = |draw: u64| -> f64 {
                let weights = plan.weights(&mut Stream::new(11, draw));
                weights[..5].iter().zip(&values).map(|(w, x)| w * (x - mean)).sum()
            };
            (0..20_000).map(|draw| sum(draw).powi(2)).sum::<f64>() / 20_000.0
        };
        assert!((variance(true) / (5.0 * square) - 1.0).abs() < 0.05);
        assert!((variance(false) / (4.0 * square) - 1.0).abs() < 0.05);
    }

    #[test]
    fn one_stratum_draws_what_runs_without_strata_draw() {
        let threads = NonZeroUsize::new(3).unwrap();
        let own: Vec<f64> = (0..20).map(f64::from).collect();
        let ranks: Vec<usize> = (0..20).collect();
        let units =
            Units { n_runs: 20, labels: &[4; 20], sizes: &own, ranks: &ranks, is_smooth: false };
        let (plain, one) = (Plan::plain(20, 20), Plan::stratified(&units, threads));
        for draw in 0..20 {
            let of = |plan: &Plan| plan.weights(&mut Stream::new(1, draw));
            assert_eq!(of(&plain), of(&one));
        }
        assert_eq!(one.map(10, |index| index * index), plain.map(10, |index| index * index));
        assert_eq!(one.map(0, |index| index), Vec::<usize>::new());
    }

    #[test]
    fn draws_follow_the_ranks_of_runs_and_not_their_positions() {
        let (labels, sizes) = ([5, 5, 5, 5, 5, 8, 8, 8], [1.0, 1.0, 1.0, 1.0, 3.0, 1.0, 2.0, 3.0]);
        let ranks = [0, 1, 1, 3, 4, 5, 6, 7];
        let of = |labels: &[u32], sizes: &[f64], ranks: &[usize]| {
            let units = Units { n_runs: 8, labels, sizes, ranks, is_smooth: false };
            Plan::stratified(&units, NonZeroUsize::MIN).weights(&mut Stream::new(2, 4))
        };
        let first = of(&labels, &sizes, &ranks);
        // The same runs from last to first, and their strata numbered the other way round.
        let back = |at: usize| 7 - at;
        let second = of(
            &std::array::from_fn::<_, 8, _>(|i| 9 - labels[back(i)]),
            &std::array::from_fn::<_, 8, _>(|i| sizes[back(i)]),
            &std::array::from_fn::<_, 8, _>(|i| ranks[back(i)]),
        );
        let by_rank = |weights: &[f64], ranks: &dyn Fn(usize) -> usize| {
            let mut sums = [0.0; 8];
            weights.iter().enumerate().for_each(|(i, weight)| sums[ranks(i)] += weight);
            sums
        };
        assert_eq!(by_rank(&first, &|i| ranks[i]), by_rank(&second, &|i| ranks[back(i)]));
    }
}
