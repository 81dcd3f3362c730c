//! Owns interpolated training curves and the best size at each budget.
//! Does not fit anything.

use super::EnvelopeError;
use crate::interval::Plan;
use crate::observation::{Dataset, Observation, RunKey};

/// Sizes within this difference of ln N are one size.
const SAME_SIZE: f64 = 1e-6;

/// Where the best size stands among the sizes measured at the same budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bracket {
    /// A smaller and a larger size were measured at this budget.
    Inside,
    /// It is the smallest there: the best size may be smaller still.
    SmallestMeasured,
    /// It is the largest there: the best size may be larger still.
    LargestMeasured,
}

/// The best size at one budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrontierPoint {
    /// C.
    pub flops: f64,
    /// L, nats per token.
    pub loss_nats: f64,
    /// N of the best size.
    pub parameters: f64,
    /// D that the best size had seen.
    pub tokens: f64,
    /// Where the best size stands.
    pub bracket: Bracket,
}

impl FrontierPoint {
    /// 6ND/C: one where the usual approximation of training FLOPs holds.
    pub fn six_nd_over_c(&self) -> f64 {
        6.0 * self.parameters * self.tokens / self.flops
    }
}

/// A frontier point in logs.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawPoint {
    pub(super) ln_flops: f64,
    pub(super) ln_loss: f64,
    pub(super) ln_parameters: f64,
    pub(super) ln_tokens: f64,
    /// Position of the size, from the smallest.
    pub(super) size: usize,
    pub(super) bracket: Bracket,
}

impl RawPoint {
    pub(super) fn describe(&self) -> FrontierPoint {
        FrontierPoint {
            flops: self.ln_flops.exp(),
            loss_nats: self.ln_loss.exp(),
            parameters: self.ln_parameters.exp(),
            tokens: self.ln_tokens.exp(),
            bracket: self.bracket,
        }
    }
}

/// How often each run counts in a replicate, and by how much its ln L is shifted.
#[derive(Debug, Clone)]
pub(super) struct Draw {
    weights: Vec<f64>,
    luck: Vec<f64>,
}

impl Draw {
    /// The runs as they are.
    pub(super) fn plain(n_runs: usize) -> Self {
        Self { weights: vec![1.0; n_runs], luck: vec![0.0; n_runs] }
    }

    pub(super) fn weighted(weights: Vec<f64>) -> Self {
        Self { luck: vec![0.0; weights.len()], weights }
    }

    pub(super) fn shifted(luck: Vec<f64>) -> Self {
        Self { weights: vec![1.0; luck.len()], luck }
    }
}

/// (ln C, ln L, ln D).
type LogTriple = (f64, f64, f64);

/// One run, growing in C.
#[derive(Debug)]
struct Curve {
    size: usize,
    /// What it is drawn with, numbered by first appearance among the curves.
    unit: usize,
    points: Vec<LogTriple>,
}

impl Curve {
    /// (ln L, ln D) at ln C, or `None` outside the run's own range.
    fn at(&self, ln_flops: f64) -> Option<(f64, f64)> {
        let after = self.points.partition_point(|point| point.0 < ln_flops);
        let right = self.points.get(after)?;
        if right.0 == ln_flops {
            return Some((right.1, right.2));
        }
        let left = self.points[after.checked_sub(1)?];
        let share = (ln_flops - left.0) / (right.0 - left.0);
        Some((left.1 + share * (right.1 - left.1), left.2 + share * (right.2 - left.2)))
    }

    fn range(&self) -> (f64, f64) {
        (self.points[0].0, self.points[self.points.len() - 1].0)
    }
}

/// All curves of a data set, by size and within a size by key of the run.
#[derive(Debug)]
pub(super) struct Curves {
    runs: Vec<Curve>,
    n_units: usize,
    /// ln N of each size, growing.
    sizes: Vec<f64>,
    pub(super) without_curve: Vec<RunKey>,
}

impl Curves {
    pub(super) fn new(dataset: &Dataset) -> Result<Self, EnvelopeError> {
        let mut without_curve = Vec::new();
        let mut kept: Vec<(f64, usize, Vec<LogTriple>)> = Vec::new();
        let (units, _) = dataset.unit_of_points();
        for run in dataset.runs() {
            let rows = || dataset.points().iter().zip(&units).filter(|(point, _)| point.run == run);
            let mut points: Vec<&Observation> = rows().map(|(point, _)| point).collect();
            if points.len() < 2 {
                without_curve.push(run);
                continue;
            }
            points.sort_by(|a, b| a.flops.total_cmp(&b.flops));
            if let Some(pair) = points.windows(2).find(|pair| pair[0].flops == pair[1].flops) {
                return Err(EnvelopeError::RepeatedFlops { run: run.0, flops: pair[0].flops });
            }
            let logs =
                |point: &&Observation| (point.flops.ln(), point.loss_nats.ln(), point.tokens.ln());
            let unit = rows().next().map_or(0, |(_, unit)| *unit);
            kept.push((points[0].parameters.ln(), unit, points.iter().map(logs).collect()));
        }
        let mut sizes: Vec<f64> = kept.iter().map(|(size, ..)| *size).collect();
        sizes.sort_by(f64::total_cmp);
        sizes.dedup_by(|later, earlier| *later - *earlier < SAME_SIZE);
        let position = |size: f64| sizes.partition_point(|one| *one <= size + SAME_SIZE) - 1;
        let curve = |(size, unit, points)| Curve { size: position(size), unit, points };
        let mut runs: Vec<Curve> = kept.into_iter().map(curve).collect();
        // A stable sort: runs of one size stay in order of their keys.
        runs.sort_by_key(|curve| curve.size);
        // By first appearance, so that how clusters are numbered changes no draw.
        let mut known: Vec<usize> = Vec::new();
        for curve in &mut runs {
            let unit = known.iter().position(|unit| *unit == curve.unit);
            let number = unit.unwrap_or(known.len());
            if number == known.len() {
                known.push(curve.unit);
            }
            curve.unit = number;
        }
        Ok(Self { runs, n_units: known.len(), sizes, without_curve })
    }

    /// How runs are drawn: alone, or with those that share their trunk.
    pub(super) fn plan(&self) -> Plan {
        Plan::plain(self.n_units, self.runs.len())
    }

    /// Per run the value of its unit.
    pub(super) fn of_runs(&self, values_of_units: &[f64]) -> Vec<f64> {
        self.runs.iter().map(|curve| values_of_units[curve.unit]).collect()
    }

    pub(super) fn n_units(&self) -> usize {
        self.n_units
    }

    pub(super) fn unit_of_run(&self) -> Vec<usize> {
        self.runs.iter().map(|curve| curve.unit).collect()
    }

    pub(super) fn n_runs(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn size_of_run(&self) -> Vec<usize> {
        self.runs.iter().map(|curve| curve.size).collect()
    }

    pub(super) fn n_sizes(&self) -> usize {
        self.sizes.len()
    }

    /// ln C of a log-spaced grid from the first to the last budget at which two sizes were
    /// measured.
    pub(super) fn budgets(&self, count: usize) -> Result<Vec<f64>, EnvelopeError> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for (i, a) in self.runs.iter().enumerate() {
            for b in self.runs[..i].iter().filter(|b| b.size != a.size) {
                let (start, end) = (a.range().0.max(b.range().0), a.range().1.min(b.range().1));
                if start < end {
                    low = low.min(start);
                    high = high.max(end);
                }
            }
        }
        if low >= high {
            return Err(EnvelopeError::NoOverlap { n_sizes: self.sizes.len() });
        }
        let step = (high - low) / (count - 1) as f64;
        // The last one is written exactly, so that rounding cannot put it past the end of a curve.
        Ok((0..count).map(|i| if i + 1 == count { high } else { low + step * i as f64 }).collect())
    }

    /// The best size at each budget with the runs of `draw`, `None` where fewer than `least` sizes
    /// were measured.
    pub(super) fn frontier(
        &self,
        draw: &Draw,
        budgets: &[f64],
        least: usize,
    ) -> Vec<Option<RawPoint>> {
        budgets.iter().map(|budget| self.best(draw, *budget, least)).collect()
    }

    fn best(&self, draw: &Draw, ln_flops: f64, least: usize) -> Option<RawPoint> {
        // Per size: total weight, weighted ln L, weighted ln D.
        let mut sums = vec![(0.0, 0.0, 0.0); self.sizes.len()];
        let runs = self.runs.iter().zip(&draw.weights).zip(&draw.luck);
        for ((curve, weight), luck) in runs.filter(|((_, weight), _)| **weight > 0.0) {
            if let Some((ln_loss, ln_tokens)) = curve.at(ln_flops) {
                let ln_loss = ln_loss + luck;
                let sum = &mut sums[curve.size];
                *sum = (sum.0 + weight, sum.1 + weight * ln_loss, sum.2 + weight * ln_tokens);
            }
        }
        let measured: Vec<usize> = (0..sums.len()).filter(|size| sums[*size].0 > 0.0).collect();
        if measured.len() < least {
            return None;
        }
        let loss = |size: usize| sums[size].1 / sums[size].0;
        let size = measured.iter().copied().min_by(|a, b| loss(*a).total_cmp(&loss(*b)))?;
        let bracket = if Some(&size) == measured.first() {
            Bracket::SmallestMeasured
        } else if Some(&size) == measured.last() {
            Bracket::LargestMeasured
        } else {
            Bracket::Inside
        };
        Some(RawPoint {
            ln_flops,
            ln_loss: loss(size),
            ln_parameters: self.sizes[size],
            ln_tokens: sums[size].2 / sums[size].0,
            size,
            bracket,
        })
    }
}
