//! Owns how replicates are drawn: runs with replacement within their strata, or each left out once.
//! Does not refit; that is a function of weights per run.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use super::{IntervalOptions, MAX_FAILED_SHARE, MIN_DRAWS, MIN_RUNS_FOR_BOOTSTRAP};
use super::{MIN_RUNS_FOR_INTERVAL, Scheme};
use crate::random::Stream;

/// Which runs may take each other's place in a resample, and on how many threads replicates are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Positions of the runs of each stratum.
    strata: Vec<Vec<usize>>,
    n_runs: usize,
    n_threads: NonZeroUsize,
}

impl Plan {
    /// All runs in one stratum, on this thread.
    pub(crate) fn plain(n_runs: usize) -> Self {
        Self { strata: vec![(0..n_runs).collect()], n_runs, n_threads: NonZeroUsize::MIN }
    }

    /// Runs in the strata of `of_run`. A stratum of one run would never vary, so all such share one.
    pub(crate) fn stratified(of_run: &[u32], n_threads: NonZeroUsize) -> Self {
        let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (run, label) in of_run.iter().enumerate() {
            members.entry(*label).or_default().push(run);
        }
        let (alone, mut strata): (Vec<Vec<usize>>, Vec<Vec<usize>>) =
            members.into_values().partition(|runs| runs.len() == 1);
        if !alone.is_empty() {
            strata.push(alone.concat());
        }
        Self { strata, n_runs: of_run.len(), n_threads }
    }

    fn weights(&self, stream: &mut Stream) -> Vec<f64> {
        let mut weights = vec![0.0; self.n_runs];
        for runs in &self.strata {
            (0..runs.len()).for_each(|_| weights[runs[stream.index(runs.len())]] += 1.0);
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

/// Makes replicates by the rule of this module, from one stratum on this thread.
///
/// `refit` gets the weight of every run and a stream of random numbers of its own, and gives the refitted
/// parameters or the reason why these runs allow none.
pub(crate) fn resample(
    n_runs: usize,
    options: &IntervalOptions,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> (Vec<Vec<f64>>, Scheme) {
    resample_by(&Plan::plain(n_runs), options, refit)
}

/// As [`resample`], by a plan. Draws are named by seed and index, so that threads do not change them.
pub(crate) fn resample_by(
    plan: &Plan,
    options: &IntervalOptions,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> (Vec<Vec<f64>>, Scheme) {
    let n_runs = plan.n_runs;
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
        _ => (replicates, Scheme::Bootstrap { n_runs, draws, failed, seed }),
    }
}

/// Makes replicates by shifting every run's ln L by luck of standard deviation `sd_log`.
///
/// `refit` gets the shift of every run. Few runs suffice, since nothing about the luck is estimated from them.
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

/// Refits without each run in turn.
pub(super) fn leave_one_out(
    plan: &Plan,
    seed: u64,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> Result<Vec<Vec<f64>>, String> {
    let n_runs = plan.n_runs;
    let drawn = plan.map(n_runs, |left_out| {
        let mut weights = vec![1.0; n_runs];
        weights[left_out] = 0.0;
        refit(&weights, Stream::new(seed, left_out as u64))
    });
    let all: Result<Vec<Vec<f64>>, String> = drawn.into_iter().collect();
    all.map_err(|reason| format!("leaving out one of {n_runs} runs: {reason}"))
}

fn jackknife(
    plan: &Plan,
    options: &IntervalOptions,
    refit: impl Fn(&[f64], Stream) -> Result<Vec<f64>, String> + Sync,
) -> (Vec<Vec<f64>>, Scheme) {
    let n_runs = plan.n_runs;
    match leave_one_out(plan, options.seed, refit) {
        Ok(replicates) => (replicates, Scheme::Jackknife { n_runs }),
        Err(reason) => (Vec::new(), Scheme::Unavailable { n_runs, reason }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stratum_keeps_its_number_of_runs_in_every_draw() {
        let plan = Plan::stratified(&[7, 7, 7, 2, 2, 9], NonZeroUsize::MIN);
        for draw in 0..200 {
            let weights = plan.weights(&mut Stream::new(3, draw));
            assert_eq!(weights[..3].iter().sum::<f64>(), 3.0);
            assert_eq!(weights[3..5].iter().sum::<f64>(), 2.0);
            assert_eq!(weights[5], 1.0, "the only run of its stratum");
        }
    }

    #[test]
    fn one_stratum_draws_what_runs_without_strata_draw() {
        let threads = NonZeroUsize::new(3).unwrap();
        let (plain, one) = (Plan::plain(20), Plan::stratified(&[4; 20], threads));
        for draw in 0..20 {
            let of = |plan: &Plan| plan.weights(&mut Stream::new(1, draw));
            assert_eq!(of(&plain), of(&one));
        }
        assert_eq!(one.map(10, |index| index * index), plain.map(10, |index| index * index));
        assert_eq!(one.map(0, |index| index), Vec::<usize>::new());
    }
}
