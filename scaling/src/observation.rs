//! Owns one measured point of a training curve, and a checked set of them with what was excluded
//! and why. Does not decide which points belong into a fit; the caller says so and the reason is
//! kept.

use std::collections::BTreeMap;

use crate::law::LogPoint;
use crate::noise::SeedNoise;

mod unit;

/// Budgets are spent in whole steps: C above this share of another is of its budget, for plans let it
/// differ by 2.5 %.
pub const SAME_COMPUTE: f64 = 0.97;

/// Which run a point belongs to: the unit that is resampled, because points of one run share its
/// luck; but for runs that share a trunk ([`Dataset::clustered`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunKey(pub u32);

/// One point of a training curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Observation {
    /// The run that was measured.
    pub run: RunKey,
    /// N, parameters; which kind (with or without embeddings) is the caller's, and the same for all
    /// points.
    pub parameters: f64,
    /// D, training tokens seen at this point.
    pub tokens: f64,
    /// C, FLOPs spent at this point.
    pub flops: f64,
    /// L, loss in nats per token.
    pub loss_nats: f64,
    /// Seed of the run, kept so that a fit can be traced to its inputs.
    pub seed: u32,
}

/// What some laws need beside N, D and C; what is not given is not known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Covariates {
    /// Distinct tokens among D; without it nothing is repeated.
    pub unique_tokens: Option<f64>,
    /// Bits of weights, activations and key-value cache during training.
    pub bits: [Option<f64>; 3],
    /// Loss on a task, in nats or bits.
    pub task_loss: Option<f64>,
    /// Sum of the learning rates until here, and decayed sum of their falls
    /// (`law::annealing_areas`).
    pub rates: Option<(f64, f64)>,
    /// How much the point counts in the objective: 1, or the inverse square of its relative noise.
    pub weight: f64,
}

impl Default for Covariates {
    fn default() -> Self {
        Self { unique_tokens: None, bits: [None; 3], task_loss: None, rates: None, weight: 1.0 }
    }
}

/// Where the weights of points come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weighting {
    /// All are 1.
    #[default]
    Equal,
    /// The caller gave them.
    Given,
    /// The inverse variance of ln L between seeds (`noise::SeedNoise`), times what the caller gave.
    SeedNoise,
}

/// A point that is not in the fit, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Excluded {
    /// Position in the list the data set was made from.
    pub index: usize,
    /// The point's run.
    pub run: RunKey,
    /// Why it was left out, in words.
    pub reason: String,
}

/// What makes a list of observations unusable.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ObservationError {
    /// A value that must be finite and positive is not.
    #[error("observation {index}: `{field}` must be finite and positive, found {value}")]
    NotPositive {
        /// Position in the list.
        index: usize,
        /// Name of the field.
        field: &'static str,
        /// What it holds.
        value: f64,
    },
    /// A value that must be finite is not.
    #[error("observation {index}: `{field}` must be finite, found {value}")]
    NotFinite {
        /// Position in the list.
        index: usize,
        /// Name of the field.
        field: &'static str,
        /// What it holds.
        value: f64,
    },
    /// Two points of one run disagree about its size.
    #[error("observation {index}: run {run} has {found} parameters here and {expected} before")]
    SizeChanged {
        /// Position in the list.
        index: usize,
        /// The run.
        run: u32,
        /// Parameters of the run's first point.
        expected: f64,
        /// Parameters of this point.
        found: f64,
    },
    /// Two points of one run are said to be in two clusters.
    #[error("observation {index}: run {run} is in cluster {found} here and in {expected} before")]
    ClusterChanged {
        /// Position among the points.
        index: usize,
        /// The run.
        run: u32,
        /// Cluster of the run's first point.
        expected: u32,
        /// Cluster of this point.
        found: u32,
    },
    /// Runs of two sizes are said to share a trunk.
    #[error(
        "observation {index}: {found} parameters here and {expected} before; runs that share a \
         trunk have one size"
    )]
    ClusterOfSizes {
        /// Position among the points.
        index: usize,
        /// Parameters of the cluster's first point.
        expected: f64,
        /// Parameters of this point.
        found: f64,
    },
    /// Runs of two strata are said to share a trunk.
    #[error("observation {index}: runs that share a trunk lie in one stratum")]
    ClusterInStrata {
        /// Position among the points.
        index: usize,
    },
}

impl ObservationError {
    /// Position of the observation that is unusable: in the list, or for a cluster among the points
    /// that are in.
    pub fn index(&self) -> usize {
        match self {
            Self::NotPositive { index, .. }
            | Self::NotFinite { index, .. }
            | Self::SizeChanged { index, .. }
            | Self::ClusterChanged { index, .. }
            | Self::ClusterOfSizes { index, .. }
            | Self::ClusterInStrata { index } => *index,
        }
    }
}

/// Checked observations, in the order given, with the excluded ones beside them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dataset {
    points: Vec<Observation>,
    covariates: Vec<Covariates>,
    /// Per point, a number for its stratum; empty when there is one stratum.
    strata: Vec<u32>,
    /// Per point, a number for the trunk that its run shares; empty where none is shared.
    clusters: Vec<u32>,
    excluded: Vec<Excluded>,
    weighting: Weighting,
}

impl Dataset {
    /// Takes all observations.
    ///
    /// ```
    /// use scaling::observation::{Dataset, Observation, RunKey};
    /// let point = Observation {
    ///     run: RunKey(0), parameters: 1e6, tokens: 2e7, flops: 1.2e14, loss_nats: 3.2, seed: 1,
    /// };
    /// assert_eq!(Dataset::new(&[point])?.points().len(), 1);
    /// let bad = Observation { loss_nats: f64::NAN, ..point };
    /// let message = Dataset::new(&[point, bad]).unwrap_err().to_string();
    /// assert!(message.contains("observation 1: `loss_nats`"));
    /// # Ok::<(), scaling::observation::ObservationError>(())
    /// ```
    ///
    /// # Errors
    /// The first value that is not finite and positive, or a run whose size changes.
    pub fn new(observations: &[Observation]) -> Result<Self, ObservationError> {
        Self::select(observations, |_| None)
    }

    /// Takes the observations for which `exclude` gives no reason; the others are kept as
    /// [`Excluded`].
    ///
    /// Only points that stay are checked, so a diverged run with a non-finite loss is excluded by
    /// its reason.
    ///
    /// # Errors
    /// As [`Dataset::new`], for the points that stay.
    pub fn select(
        observations: &[Observation],
        mut exclude: impl FnMut(&Observation) -> Option<String>,
    ) -> Result<Self, ObservationError> {
        let rows: Vec<(Observation, Covariates)> =
            observations.iter().map(|point| (*point, Covariates::default())).collect();
        Self::select_rows(&rows, |point, _| exclude(point))
    }

    /// As [`Dataset::select`], with what is known of each point beside N, D and C.
    ///
    /// # Errors
    /// As [`Dataset::new`], also for covariates that are given and are not finite and positive.
    pub fn select_rows(
        rows: &[(Observation, Covariates)],
        mut exclude: impl FnMut(&Observation, &Covariates) -> Option<String>,
    ) -> Result<Self, ObservationError> {
        let mut dataset = Self::default();
        let mut sizes: BTreeMap<RunKey, f64> = BTreeMap::new();
        for (index, (point, covariates)) in rows.iter().enumerate() {
            if let Some(reason) = exclude(point, covariates) {
                dataset.excluded.push(Excluded { index, run: point.run, reason });
                continue;
            }
            check_positive(index, point)?;
            check_covariates(index, covariates)?;
            let expected = *sizes.entry(point.run).or_insert(point.parameters);
            if expected != point.parameters {
                let (run, found) = (point.run.0, point.parameters);
                return Err(ObservationError::SizeChanged { index, run, expected, found });
            }
            if covariates.weight != 1.0 {
                dataset.weighting = Weighting::Given;
            }
            dataset.points.push(*point);
            dataset.covariates.push(*covariates);
        }
        Ok(dataset)
    }

    /// The same points in strata: `stratum` gives each point a number, the same for all points of a
    /// run.
    ///
    /// Runs are then drawn within their stratum, so that every resample has as many of each. Strata
    /// are what the design fixed, such as architecture and size, and never what was measured.
    #[must_use]
    pub fn stratified(mut self, stratum: impl Fn(&Observation) -> u32) -> Self {
        self.strata = self.points.iter().map(stratum).collect();
        self
    }

    /// The same points, each weighted by the inverse of the variance that seeds have at its loss.
    ///
    /// That loss is the measured one less its residual of ln L in `residuals_log`, of a fit without
    /// these weights: by the measured one a lucky run would count more than an unlucky one, and
    /// pull the law down.
    #[must_use]
    pub fn weighted_by(mut self, noise: &SeedNoise, residuals_log: &[f64]) -> Self {
        let losses = self.points.iter().zip(residuals_log);
        let expected = losses.map(|(point, residual)| point.loss_nats * (-residual).exp());
        for (loss, covariates) in expected.zip(&mut self.covariates) {
            covariates.weight *= noise.weight_at(loss);
        }
        self.weighting = Weighting::SeedNoise;
        self
    }

    /// Where the weights come from.
    pub fn weighting(&self) -> Weighting {
        self.weighting
    }

    /// Per point, what is known of it beside N, D and C.
    pub fn covariates(&self) -> &[Covariates] {
        &self.covariates
    }

    /// The points as a law sees them.
    pub fn log_points(&self) -> Vec<LogPoint> {
        let pairs = self.points.iter().zip(&self.covariates);
        pairs.map(|(point, covariates)| LogPoint::from(point).with(covariates)).collect()
    }

    /// The points that are in.
    pub fn points(&self) -> &[Observation] {
        &self.points
    }

    /// The points that are out, with reasons.
    pub fn excluded(&self) -> &[Excluded] {
        &self.excluded
    }

    /// The runs that have at least one point, in order of their keys.
    pub fn runs(&self) -> Vec<RunKey> {
        let mut runs: Vec<RunKey> = self.points.iter().map(|point| point.run).collect();
        runs.sort_unstable();
        runs.dedup();
        runs
    }

    /// Number of distinct values of `field`, where values within one part in a million count as
    /// one.
    pub fn n_distinct(&self, field: impl Fn(&Observation) -> f64) -> usize {
        self.n_apart(field, 1e-6)
    }

    /// Number of distinct C, where those of one budget count as one ([`SAME_COMPUTE`]).
    pub fn n_budgets(&self) -> usize {
        self.n_apart(|point| point.flops, -SAME_COMPUTE.ln())
    }

    /// Number of values that are so far apart, in logs.
    fn n_apart(&self, field: impl Fn(&Observation) -> f64, apart: f64) -> usize {
        let mut logs: Vec<f64> = self.points.iter().map(|point| field(point).ln()).collect();
        logs.sort_unstable_by(f64::total_cmp);
        logs.dedup_by(|later, earlier| *later - *earlier < apart);
        logs.len()
    }

    /// Smallest and largest value of `field`; `None` without points.
    pub fn range(&self, field: impl Fn(&Observation) -> f64) -> Option<(f64, f64)> {
        let mut values = self.points.iter().map(field);
        let first = values.next()?;
        Some(values.fold((first, first), |(low, high), value| (low.min(value), high.max(value))))
    }
}

fn check_positive(index: usize, point: &Observation) -> Result<(), ObservationError> {
    let fields = [
        ("parameters", point.parameters),
        ("tokens", point.tokens),
        ("flops", point.flops),
        ("loss_nats", point.loss_nats),
    ];
    for (field, value) in fields {
        if !(value.is_finite() && value > 0.0) {
            return Err(ObservationError::NotPositive { index, field, value });
        }
    }
    Ok(())
}

fn check_covariates(index: usize, covariates: &Covariates) -> Result<(), ObservationError> {
    let [weights, activations, cache] = covariates.bits;
    let fields = [
        ("unique_tokens", covariates.unique_tokens),
        ("weight_bits", weights),
        ("activation_bits", activations),
        ("cache_bits", cache),
        ("rate_sum", covariates.rates.map(|rates| rates.0)),
        ("weight", Some(covariates.weight)),
    ];
    for (field, value) in fields {
        if let Some(value) = value
            && !(value.is_finite() && value > 0.0)
        {
            return Err(ObservationError::NotPositive { index, field, value });
        }
    }
    // A task loss may be zero or on any scale, and the learning rate may rise.
    let fall = covariates.rates.map(|rates| rates.1);
    for (field, value) in [("task_loss", covariates.task_loss), ("rate_fall", fall)] {
        if let Some(value) = value
            && !value.is_finite()
        {
            return Err(ObservationError::NotFinite { index, field, value });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(run: u32, parameters: f64, loss_nats: f64) -> Observation {
        let tokens = 1e6;
        let flops = 6.0 * parameters * tokens;
        Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 }
    }

    #[test]
    fn a_diverged_point_is_excluded_with_its_reason_instead_of_refused() {
        let list = [point(0, 1e5, 3.0), point(1, 2e5, f64::NAN)];
        let out = |p: &Observation| (!p.loss_nats.is_finite()).then(|| "diverged".to_owned());
        let dataset = Dataset::select(&list, out).unwrap();
        assert_eq!(dataset.points().len(), 1);
        let expected = Excluded { index: 1, run: RunKey(1), reason: "diverged".to_owned() };
        assert_eq!(dataset.excluded(), [expected]);
    }

    #[test]
    fn a_zero_an_infinity_and_a_changed_size_are_refused_by_name() {
        let zero = Dataset::new(&[point(0, 1e5, 0.0)]).unwrap_err();
        assert_eq!(
            zero,
            ObservationError::NotPositive { index: 0, field: "loss_nats", value: 0.0 }
        );
        let infinite = Dataset::new(&[point(0, f64::INFINITY, 3.0)]).unwrap_err();
        assert!(infinite.to_string().contains("`parameters`"));
        let changed = Dataset::new(&[point(4, 1e5, 3.0), point(4, 2e5, 3.0)]).unwrap_err();
        assert!(changed.to_string().contains("run 4 has 200000 parameters here"));
    }

    #[test]
    fn a_data_set_says_where_its_weights_come_from() {
        let plain = Dataset::new(&[point(0, 1e5, 3.0), point(1, 2e5, 2.5)]).unwrap();
        assert_eq!(plain.weighting(), Weighting::Equal);
        let given = Covariates { weight: 2.0, ..Covariates::default() };
        let rows = [(point(0, 1e5, 3.0), given), (point(1, 2e5, 2.0), Covariates::default())];
        let given = Dataset::select_rows(&rows, |_, _| None).unwrap();
        assert_eq!(given.weighting(), Weighting::Given);
        let noise = SeedNoise {
            sd_log: 0.01,
            measured_sd_log: 0.01,
            power: 2.0,
            at_loss_nats: 2.0,
            loss_range_nats: (1.0, 4.0),
            n_places: 9,
            n_freedom: 9,
        };
        // Both runs were lucky or not; what counts is the loss that was to be expected.
        let luck = [0.0, 0.1];
        let weighted = given.weighted_by(&noise, &luck);
        assert_eq!(weighted.weighting(), Weighting::SeedNoise);
        let weights: Vec<f64> = weighted.covariates().iter().map(|one| one.weight).collect();
        // The variance at 3 nats is (3 / 2)^4 of that at 2.
        assert!((weights[0] - 2.0 * (2.0_f64 / 3.0).powi(4)).abs() < 1e-12, "{weights:?}");
        assert!((weights[1] - 0.4_f64.exp()).abs() < 1e-12, "{weights:?}");
    }

    #[test]
    fn nearly_equal_budgets_count_as_one() {
        let list = [point(0, 1e5, 3.0), point(1, 1e5 * (1.0 + 1e-8), 3.0), point(2, 2e5, 3.0)];
        let dataset = Dataset::new(&list).unwrap();
        assert_eq!(dataset.n_distinct(|p| p.flops), 2);
        assert_eq!(dataset.runs().len(), 3);
    }
}
