//! Owns what is resampled as one: a run, or a cluster of the runs that share a trunk.
//! Does not draw.

use std::collections::BTreeMap;

use super::{Dataset, Observation, ObservationError, RunKey};

impl Dataset {
    /// The same points in clusters: `cluster` gives each point a number, the same for all points of
    /// a run.
    ///
    /// Runs of one configuration that differ in their length and decay only have the same first
    /// steps, their trunk, and with it the same luck. A resample takes all runs of a cluster or
    /// none, and whatever counts runs for an interval counts clusters. Where every cluster is one
    /// run nothing changes. To be called after [`Dataset::stratified`].
    ///
    /// ```
    /// use scaling::observation::{Dataset, Observation, RunKey};
    /// let run = |key: u32, tokens: f64| Observation {
    ///     run: RunKey(key), parameters: 1e6, tokens, flops: 6e6 * tokens, loss_nats: 3.0, seed: 0,
    /// };
    /// let runs = Dataset::new(&[run(0, 1e8), run(1, 2e8), run(2, 1e8)])?;
    /// let clustered = runs.clustered(|point| point.run.0 / 2)?;
    /// assert_eq!(clustered.n_clusters(), Some(2));
    /// # Ok::<(), scaling::observation::ObservationError>(())
    /// ```
    ///
    /// # Errors
    /// A run in two clusters, or a cluster of two sizes or in two strata.
    pub fn clustered(
        mut self,
        cluster: impl Fn(&Observation) -> u32,
    ) -> Result<Self, ObservationError> {
        let clusters: Vec<u32> = self.points.iter().map(cluster).collect();
        let mut of_run: BTreeMap<RunKey, u32> = BTreeMap::new();
        let mut known: BTreeMap<u32, (f64, u32)> = BTreeMap::new();
        for (index, (point, cluster)) in self.points.iter().zip(&clusters).enumerate() {
            let expected = *of_run.entry(point.run).or_insert(*cluster);
            if expected != *cluster {
                let (run, found) = (point.run.0, *cluster);
                return Err(ObservationError::ClusterChanged { index, run, expected, found });
            }
            let stratum = self.strata.get(index).copied().unwrap_or(0);
            let first = *known.entry(*cluster).or_insert((point.parameters, stratum));
            if first.0 != point.parameters {
                let (expected, found) = (first.0, point.parameters);
                return Err(ObservationError::ClusterOfSizes { index, expected, found });
            }
            if first.1 != stratum {
                return Err(ObservationError::ClusterInStrata { index });
            }
        }
        self.clusters = if known.len() == of_run.len() { Vec::new() } else { clusters };
        Ok(self)
    }

    /// The same points in the clusters that their runs have in `other`.
    ///
    /// # Errors
    /// As [`Dataset::clustered`].
    pub fn clustered_as(self, other: &Self) -> Result<Self, ObservationError> {
        if other.clusters.is_empty() {
            return Ok(self);
        }
        let pairs = other.points.iter().zip(&other.clusters);
        let of_run: BTreeMap<RunKey, u32> =
            pairs.map(|(point, cluster)| (point.run, *cluster)).collect();
        // Runs that are not there are clusters of their own, numbered above the others.
        let above = other.clusters.iter().max().map_or(0, |most| most.saturating_add(1));
        self.clustered(|point| {
            of_run.get(&point.run).copied().unwrap_or(above.saturating_add(point.run.0))
        })
    }

    /// The point of the most tokens of each run, with what is known of it, in the order of the points.
    #[must_use]
    pub fn ends(&self) -> Self {
        let mut of_run: BTreeMap<RunKey, usize> = BTreeMap::new();
        for (index, point) in self.points.iter().enumerate() {
            let end = of_run.entry(point.run).or_insert(index);
            if point.tokens > self.points[*end].tokens {
                *end = index;
            }
        }
        let mut kept: Vec<usize> = of_run.into_values().collect();
        kept.sort_unstable();
        let numbers = |all: &[u32]| kept.iter().filter_map(|at| all.get(*at).copied()).collect();
        Self {
            points: kept.iter().map(|at| self.points[*at]).collect(),
            covariates: kept.iter().map(|at| self.covariates[*at]).collect(),
            strata: numbers(&self.strata),
            clusters: numbers(&self.clusters),
            excluded: Vec::new(),
            weighting: self.weighting,
        }
    }

    /// Clusters of runs; `None` where each run is drawn by itself.
    pub fn n_clusters(&self) -> Option<usize> {
        (!self.clusters.is_empty()).then(|| dense(&self.clusters).1)
    }

    /// Per point, the position of its run among [`Dataset::runs`].
    pub(crate) fn run_of_points(&self) -> Vec<usize> {
        dense(&self.run_numbers()).0
    }

    /// Per point, the position of what it is drawn with, its run or its cluster; and how many of
    /// these there are.
    pub(crate) fn unit_of_points(&self) -> (Vec<usize>, usize) {
        if self.clusters.is_empty() { dense(&self.run_numbers()) } else { dense(&self.clusters) }
    }

    /// Per unit, the stratum of its first point.
    pub(crate) fn strata_of_units(&self) -> Vec<u32> {
        let (units, n_units) = self.unit_of_points();
        let mut of_unit = vec![None; n_units];
        for (unit, stratum) in units.into_iter().zip(&self.strata) {
            of_unit[unit].get_or_insert(*stratum);
        }
        of_unit.into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Per unit, its N.
    pub(crate) fn sizes_of_units(&self) -> Vec<f64> {
        let (units, n_units) = self.unit_of_points();
        let mut sizes = vec![f64::NAN; n_units];
        for (unit, point) in units.into_iter().zip(&self.points) {
            sizes[unit] = point.parameters;
        }
        sizes
    }

    fn run_numbers(&self) -> Vec<u32> {
        self.points.iter().map(|point| point.run.0).collect()
    }
}

/// The position of each number among the distinct ones in ascending order, and how many these are.
fn dense(numbers: &[u32]) -> (Vec<usize>, usize) {
    let mut distinct = numbers.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let position = |number: &u32| distinct.partition_point(|one| one < number);
    (numbers.iter().map(position).collect(), distinct.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(run: u32, parameters: f64) -> Observation {
        let (tokens, flops) = (1e8, 6e8 * parameters);
        Observation { run: RunKey(run), parameters, tokens, flops, loss_nats: 3.0, seed: 0 }
    }

    fn data() -> Dataset {
        let points = [(7, 2e6), (3, 1e6), (7, 2e6), (5, 1e6)].map(|(run, n)| point(run, n));
        Dataset::new(&points).unwrap()
    }

    #[test]
    fn runs_of_one_trunk_are_one_unit() {
        let clustered = data().clustered(|point| if point.run.0 == 7 { 1 } else { 9 }).unwrap();
        assert_eq!(clustered.n_clusters(), Some(2));
        assert_eq!(clustered.unit_of_points(), (vec![0, 1, 0, 1], 2));
        assert_eq!(clustered.run_of_points(), [2, 0, 2, 1]);
        assert_eq!(clustered.sizes_of_units(), [2e6, 1e6]);
        let ends = Dataset::new(&[point(5, 1e6), point(3, 1e6), point(6, 1e6)]).unwrap();
        let ends = ends.clustered_as(&clustered).unwrap();
        assert_eq!(ends.unit_of_points(), (vec![0, 0, 1], 2));
    }

    #[test]
    fn clusters_of_one_run_each_are_none() {
        assert_eq!(data().clustered(|point| 40 - point.run.0).unwrap(), data());
        assert_eq!(data().n_clusters(), None);
        assert_eq!(data().clustered_as(&data()).unwrap(), data());
    }

    #[test]
    fn a_cluster_that_cannot_be_is_refused_with_its_point() {
        let said = |error: ObservationError| (error.index(), error.to_string());
        let (index, text) = said(data().clustered(|_| 0).unwrap_err());
        assert_eq!(index, 1);
        assert!(text.contains("1000000 parameters here and 2000000 before"), "{text}");
        let counted = std::cell::Cell::new(0);
        let changing = |_: &Observation| counted.replace(counted.get() + 1);
        let (index, text) = said(data().clustered(changing).unwrap_err());
        assert_eq!(index, 2);
        assert!(text.contains("run 7 is in cluster 2 here and in 0 before"), "{text}");
        let strata = data().stratified(|point| point.run.0);
        let (index, text) = said(strata.clustered(|one| u32::from(one.run.0 < 7)).unwrap_err());
        assert_eq!(index, 3);
        assert!(text.contains("one stratum"), "{text}");
    }
}
