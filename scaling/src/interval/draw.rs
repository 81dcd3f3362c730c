//! Owns how replicates are drawn: runs with replacement within their strata, or each left out once.
//! Does not refit; that is a function of weights per run.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use super::{IntervalOptions, MAX_FAILED_SHARE, MIN_DRAWS, MIN_RUNS_FOR_BOOTSTRAP};
use super::{MIN_RUNS_FOR_INTERVAL, Scheme};
use crate::random::Stream;

/// Runs of one size from which on the size is a stratum of its own. Fewer show too little of their
/// own scatter.
const MIN_STRATUM: usize = 4;

/// Runs that may take each other's place in a resample.
#[derive(Debug, Clone, PartialEq)]
struct Stratum {
    /// Their positions, in an order that does not depend on the order of rows.
    runs: Vec<usize>,
    /// How many are drawn, and how often each then counts.
    n_drawn: usize,
    weight: f64,
}

impl Stratum {
    /// As many drawn as there are.
    fn plain(runs: Vec<usize>) -> Self {
        Self { n_drawn: runs.len(), weight: 1.0, runs }
    }

    /// One fewer drawn, each counting for more: m drawn of m show only (m - 1) / m of the variance
    /// (Rao and Wu 1988).
    fn rescaled(runs: Vec<usize>) -> Self {
        let n = runs.len();
        Self { n_drawn: n - 1, weight: n as f64 / (n - 1) as f64, runs }
    }
}

/// What a plan of draws needs to know of each run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs<'a> {
    /// Numbers of strata that the caller gave.
    pub(super) labels: &'a [u32],
    /// N.
    pub(super) sizes: &'a [f64],
    /// Places in an order that does not depend on the order of rows; equal for runs that are the
    /// same.
    pub(super) ranks: &'a [usize],
    /// Whether the objective is smooth on the scale of the residuals, as squares are.
    pub(super) is_smooth: bool,
}

/// Which runs may take each other's place in a resample, and on how many threads replicates are
/// made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Plan {
    strata: Vec<Stratum>,
    /// The runs in an order that does not depend on the order of rows.
    order: Vec<usize>,
    n_threads: NonZeroUsize,
}

impl Plan {
    /// All runs in one stratum, on this thread.
    pub(crate) fn plain(n_runs: usize) -> Self {
        let order: Vec<usize> = (0..n_runs).collect();
        Self { strata: vec![Stratum::plain(order.clone())], order, n_threads: NonZeroUsize::MIN }
    }

    /// Runs in strata by label, and by size where at least half of a label's runs lie at sizes of
    /// [`MIN_STRATUM`] and more. The other runs of a label are one stratum; a stratum of one run
    /// would never vary, so labels of one run share one.
    ///
    /// Sizes are drawn with full variance only where the objective is smooth: one close to absolute
    /// values makes draws scatter too widely by about as much (`docs/reference/coverage.md`).
    pub(super) fn stratified(runs: &Runs<'_>, n_threads: NonZeroUsize) -> Self {
        let mut order: Vec<usize> = (0..runs.ranks.len()).collect();
        order.sort_by_key(|run| runs.ranks[*run]);
        let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for run in &order {
            members.entry(runs.labels[*run]).or_default().push(*run);
        }
        let (alone, shared): (Vec<Vec<usize>>, Vec<Vec<usize>>) =
            members.into_values().partition(|own| own.len() == 1);
        let mut strata: Vec<Stratum> =
            shared.into_iter().flat_map(|own| by_size(own, runs)).collect();
        if !alone.is_empty() {
            let mut alone = alone.concat();
            alone.sort_by_key(|run| runs.ranks[*run]);
            strata.push(Stratum::plain(alone));
        }
        // Labels are numbered as rows come; what is drawn first must not depend on that.
        let places =
            |one: &Stratum| -> Vec<usize> { one.runs.iter().map(|run| runs.ranks[*run]).collect() };
        strata.sort_by_cached_key(places);
        Self { strata, order, n_threads }
    }

    /// Strata that are drawn from apart.
    pub(super) fn n_strata(&self) -> usize {
        self.strata.len()
    }

    fn weights(&self, stream: &mut Stream) -> Vec<f64> {
        let mut weights = vec![0.0; self.order.len()];
        for Stratum { runs, n_drawn, weight } in &self.strata {
            (0..*n_drawn).for_each(|_| weights[runs[stream.index(runs.len())]] += weight);
        }
        weights
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

/// The runs of one label: sizes of enough runs by themselves, the others together.
fn by_size(own: Vec<usize>, runs: &Runs<'_>) -> Vec<Stratum> {
    // Positive numbers are in the order of their bits.
    let mut sizes: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for run in &own {
        sizes.entry(runs.sizes[*run].to_bits()).or_default().push(*run);
    }
    let (mut large, small): (Vec<Vec<usize>>, Vec<Vec<usize>>) =
        sizes.into_values().partition(|size| size.len() >= MIN_STRATUM);
    let mut rest = small.concat();
    // Sizes that coincide here and there are not what a design fixed.
    let n_large: usize = large.iter().map(Vec::len).sum();
    if large.is_empty() || n_large < rest.len() || large.len() == 1 && rest.is_empty() {
        return vec![Stratum::plain(own)];
    }
    rest.sort_by_key(|run| runs.ranks[*run]);
    if rest.len() >= MIN_STRATUM {
        large.push(rest);
    } else if let Some(smallest) = large.iter_mut().min_by_key(|size| size.len()) {
        // Too few to vary by themselves: with the size of fewest runs.
        smallest.append(&mut rest);
        smallest.sort_by_key(|run| runs.ranks[*run]);
    }
    let stratum = if runs.is_smooth { Stratum::rescaled } else { Stratum::plain };
    large.into_iter().map(stratum).collect()
}

/// Makes replicates by the rule of this module, from one stratum on this thread.
///
/// `refit` gets the weight of every run and a stream of random numbers of its own, and gives the
/// refitted parameters or the reason why these runs allow none.
pub(crate) fn resample(
    n_runs: usize,
    options: &IntervalOptions,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> (Vec<Vec<f64>>, Scheme) {
    resample_by(&Plan::plain(n_runs), options, refit)
}

/// As [`resample`], by a plan. Draws are named by seed and index, so that threads do not change
/// them.
pub(crate) fn resample_by(
    plan: &Plan,
    options: &IntervalOptions,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> (Vec<Vec<f64>>, Scheme) {
    let n_runs = plan.order.len();
    let unavailable = |reason: String| (Vec::new(), Scheme::Unavailable { n_runs, reason });
    if !(options.level > 0.0 && options.level < 1.0) {
        return unavailable(format!("level {} does not lie between 0 and 1", options.level));
    }
    if n_runs < MIN_RUNS_FOR_INTERVAL {
        let runs = if n_runs == 1 { "run" } else { "runs" };
        return unavailable(format!(
            "{n_runs} {runs}; an interval needs at least {MIN_RUNS_FOR_INTERVAL}"
        ));
    }
    if n_runs < MIN_RUNS_FOR_BOOTSTRAP {
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
            "{failed} of {draws} resamples of runs failed, the first: {reason}"
        )),
        _ => (
            replicates,
            Scheme::Bootstrap { n_runs, n_strata: plan.n_strata(), draws, failed, seed },
        ),
    }
}

/// Makes replicates by shifting every run's ln L by luck of standard deviation `sd_log`.
///
/// `refit` gets the shift of every run. Few runs suffice, since nothing about the luck is estimated
/// from them.
pub(crate) fn shift(
    n_runs: usize,
    options: &IntervalOptions,
    sd_log: f64,
    refit: impl Fn(&[f64]) -> Result<Vec<f64>, String>,
) -> (Vec<Vec<f64>>, Scheme) {
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
        let luck: Vec<f64> = (0..n_runs).map(|_| sd_log * stream.normal()).collect();
        match refit(&luck) {
            Ok(theta) => replicates.push(theta),
            Err(reason) => return unavailable(format!("with other luck: {reason}")),
        }
    }
    (replicates, Scheme::StatedNoise { n_runs, draws, seed, sd_log })
}

/// Refits without each run in turn; in the order of the runs' positions.
pub(super) fn leave_one_out(
    plan: &Plan,
    seed: u64,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> Result<Vec<Vec<f64>>, String> {
    let n_runs = plan.order.len();
    let drawn = plan.map(n_runs, |place| {
        let mut weights = vec![1.0; n_runs];
        weights[plan.order[place]] = 0.0;
        refit(&weights, Stream::new(seed, place as u64))
    });
    let all: Result<Vec<Vec<f64>>, String> = drawn.into_iter().collect();
    let all = all.map_err(|reason| format!("leaving out one of {n_runs} runs: {reason}"))?;
    let mut ordered = vec![Vec::new(); n_runs];
    plan.order.iter().zip(all).for_each(|(run, theta)| ordered[*run] = theta);
    Ok(ordered)
}

fn jackknife(
    plan: &Plan,
    options: &IntervalOptions,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> (Vec<Vec<f64>>, Scheme) {
    let n_runs = plan.order.len();
    match leave_one_out(plan, options.seed, refit) {
        // Those of two designs are paired by their places, whatever the order of rows.
        Ok(mut of_run) => {
            let replicates = plan.order.iter().map(|run| std::mem::take(&mut of_run[*run]));
            (replicates.collect(), Scheme::Jackknife { n_runs })
        }
        Err(reason) => (Vec::new(), Scheme::Unavailable { n_runs, reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(labels: &[u32], sizes: &[f64], is_smooth: bool) -> Plan {
        let ranks: Vec<usize> = (0..labels.len()).collect();
        Plan::stratified(&Runs { labels, sizes, ranks: &ranks, is_smooth }, NonZeroUsize::MIN)
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
        let runs = Runs { labels: &[4; 20], sizes: &own, ranks: &ranks, is_smooth: false };
        let (plain, one) = (Plan::plain(20), Plan::stratified(&runs, threads));
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
            let runs = Runs { labels, sizes, ranks, is_smooth: false };
            Plan::stratified(&runs, NonZeroUsize::MIN).weights(&mut Stream::new(2, 4))
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
