//! Owns the noise between seeds: its variance from runs at one place, and the weights that follow
//! from it. Does not assume a noise that was not measured; without enough seeds there is none.

use std::collections::BTreeMap;

use statrs::distribution::{ContinuousCDF, StudentsT};
use statrs::function::gamma::digamma;

use crate::fit::by_values;
use crate::law::LogPoint;
use crate::observation::{Dataset, RunKey};

/// Logs of N, D and what else a law may look at within this are one place.
pub(crate) const SAME_PLACE: f64 = 1e-6;
/// Degrees of freedom below which a variance is known to a factor of two at best (95 % from 0.4 to
/// 4 of it with eight).
pub const MIN_FREEDOM: usize = 4;
/// Places from which on the noise may depend on the loss, the level of Student's t that it must
/// show, and the largest power of it: noise that grows faster has not been published, and is one
/// that few places made up.
const MIN_PLACES_FOR_TREND: usize = 12;
const TREND_LEVEL: f64 = 0.99;
const MAX_POWER: f64 = 4.0;
/// The least standard deviation of ln L: fewer seeds than many agree by chance, and no published
/// noise is smaller (0.001 to 0.002, Porian et al. 2024).
pub const LEAST_SD_LOG: f64 = 1e-3;

/// How much ln L varies between seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeedNoise {
    /// Standard deviation of ln L at `at_loss_nats`, at least [`LEAST_SD_LOG`].
    pub sd_log: f64,
    /// The same as the seeds have it, however small.
    pub measured_sd_log: f64,
    /// Power of the loss that it grows with; 0 where the seeds do not show one.
    pub power: f64,
    /// The loss at which it is `sd_log`, nats: the geometric mean of the places'.
    pub at_loss_nats: f64,
    /// The smallest and the largest loss of the places, nats: beyond these the noise is taken to be
    /// as it is there.
    pub loss_range_nats: (f64, f64),
    /// Places of N and D with two seeds and more.
    pub n_places: usize,
    /// Runs there, less one for each place.
    pub n_freedom: usize,
}

/// Why no noise is known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the noise between seeds needs {MIN_FREEDOM} runs beyond the first at places of N and D with \
     several; there are {n_freedom}, at {n_places} places"
)]
pub struct TooFewSeeds {
    /// Places of N and D with two seeds and more.
    pub n_places: usize,
    /// Runs there, less one for each place.
    pub n_freedom: usize,
}

/// The variance of ln L at one place.
struct Place {
    ln_loss: f64,
    variance: f64,
    freedom: f64,
}

impl SeedNoise {
    /// Of the runs that share N and D at their ends, each by its loss there.
    ///
    /// The variance is pooled over places, each with its degrees of freedom. Where there are enough
    /// of them it may be a power of the loss, by a regression of the logs of the variances, each
    /// less the mean of the log of a χ² over its freedom (Bartlett and Kendall 1946); the power is
    /// kept where twelve places and more show one above zero at 99 % of Student's t, and is at
    /// most 4.
    ///
    /// # Errors
    /// [`TooFewSeeds`].
    pub fn of(dataset: &Dataset) -> Result<Self, TooFewSeeds> {
        let places = places(dataset);
        let n_freedom: usize = places.iter().map(Place::n_freedom).sum();
        if n_freedom < MIN_FREEDOM {
            return Err(TooFewSeeds { n_places: places.len(), n_freedom });
        }
        let sum = |of: &dyn Fn(&Place) -> f64| places.iter().map(of).sum::<f64>();
        let freedom = sum(&|place| place.freedom);
        let at = sum(&|place| place.freedom * place.ln_loss) / freedom;
        let pooled = (sum(&|place| place.freedom * place.variance) / freedom).sqrt();
        let lowest = places.iter().map(|place| place.ln_loss).fold(f64::INFINITY, f64::min);
        let highest = places.iter().map(|place| place.ln_loss).fold(f64::NEG_INFINITY, f64::max);
        let (ln_sd, power) = trend(&places, at).unwrap_or((pooled.ln(), 0.0));
        let measured_sd_log = ln_sd.exp();
        Ok(Self {
            sd_log: measured_sd_log.max(LEAST_SD_LOG),
            measured_sd_log,
            power,
            at_loss_nats: at.exp(),
            loss_range_nats: (lowest.exp(), highest.exp()),
            n_places: places.len(),
            n_freedom,
        })
    }

    /// The standard deviation of ln L at a loss; outside the measured losses that of the nearest.
    pub fn sd_log_at(&self, loss_nats: f64) -> f64 {
        let (low, high) = self.loss_range_nats;
        // No `clamp`: it refuses a range that is none.
        let loss = loss_nats.max(low).min(high);
        (self.measured_sd_log * (loss / self.at_loss_nats).powf(self.power)).max(LEAST_SD_LOG)
    }

    /// The weight of a point with this loss: the inverse of its variance over that of
    /// `at_loss_nats`, so that a noise that is the same everywhere leaves an objective as it is.
    pub fn weight_at(&self, loss_nats: f64) -> f64 {
        (self.sd_log / self.sd_log_at(loss_nats)).powi(2)
    }
}

impl Place {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it was made from a number of runs"
    )]
    fn n_freedom(&self) -> usize {
        self.freedom as usize
    }
}

/// Places with two runs and more.
fn places(dataset: &Dataset) -> Vec<Place> {
    let several = runs_by_place(dataset).into_iter().filter(|own| own.len() > 1);
    let place = |losses: Vec<f64>| {
        let n = losses.len() as f64;
        let mean = losses.iter().sum::<f64>() / n;
        let squares: f64 = losses.iter().map(|loss| (loss - mean).powi(2)).sum();
        Place { ln_loss: mean, variance: squares / (n - 1.0), freedom: n - 1.0 }
    };
    several.map(place).collect()
}

/// The runs of each place, each by ln L at its end. A place is all that a law may look at, so that
/// runs which repeat their data or differ in their bits are no seeds of each other. Runs that share
/// a trunk share its luck, and are one there, by their mean.
pub(crate) fn runs_by_place(dataset: &Dataset) -> Vec<Vec<f64>> {
    let points = dataset.log_points();
    let mut ends: BTreeMap<RunKey, usize> = BTreeMap::new();
    for (row, point) in dataset.points().iter().enumerate() {
        let end = ends.entry(point.run).or_insert(row);
        if point.tokens > dataset.points()[*end].tokens {
            *end = row;
        }
    }
    let ln_loss = |row: &usize| dataset.points()[*row].loss_nats.ln();
    let mut rows: Vec<usize> = ends.into_values().collect();
    rows.sort_by(|a, b| {
        by_values(&points[*a], &points[*b]).then_with(|| ln_loss(a).total_cmp(&ln_loss(b)))
    });
    let is_same = |a: &usize, b: &usize| is_same_place(&points[*a], &points[*b]);
    let (units, _) = dataset.unit_of_points();
    let seeds = |own: &[usize]| -> Vec<f64> {
        // In the order of their losses, which does not depend on that of rows or numbers.
        let mut of_units: Vec<(usize, Vec<f64>)> = Vec::new();
        for row in own {
            match of_units.iter_mut().find(|(unit, _)| *unit == units[*row]) {
                Some((_, losses)) => losses.push(ln_loss(row)),
                None => of_units.push((units[*row], vec![ln_loss(row)])),
            }
        }
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        of_units.iter().map(|(_, losses)| mean(losses)).collect()
    };
    rows.chunk_by(is_same).map(seeds).collect()
}

fn is_same_place(a: &LogPoint, b: &LogPoint) -> bool {
    // What is not known of either is the same.
    let is_near = |a: f64, b: f64| (a - b).abs() < SAME_PLACE || a.is_nan() && b.is_nan();
    is_near(a.ln_parameters, b.ln_parameters)
        && is_near(a.ln_tokens, b.ln_tokens)
        && is_near(a.ln_unique_tokens, b.ln_unique_tokens)
        && a.bits.iter().zip(b.bits).all(|(a, b)| is_near(*a, b))
        && is_near(a.rates.0, b.rates.0)
        && is_near(a.rates.1, b.rates.1)
}

/// ln of the standard deviation at ln L = `at`, and the power of the loss, where the places show
/// one.
fn trend(places: &[Place], at: f64) -> Option<(f64, f64)> {
    // Equal losses say nothing about how a variance grows.
    let known: Vec<&Place> = places.iter().filter(|place| place.variance > 0.0).collect();
    if known.len() < MIN_PLACES_FOR_TREND {
        return None;
    }
    // The variance of the log of a χ² over its freedom is about 2 / freedom.
    let row = |place: &&Place| {
        let half = 0.5 * place.freedom;
        let bias = digamma(half) - half.ln();
        (half, place.ln_loss - at, place.variance.ln() - bias)
    };
    let rows: Vec<(f64, f64, f64)> = known.iter().map(row).collect();
    let sum = |of: &dyn Fn(f64, f64, f64) -> f64| {
        rows.iter().map(|(w, x, y)| of(*w, *x, *y)).sum::<f64>()
    };
    let total = sum(&|w, _, _| w);
    let (x_mean, y_mean) = (sum(&|w, x, _| w * x) / total, sum(&|w, _, y| w * y) / total);
    let spread = sum(&|w, x, _| w * (x - x_mean).powi(2));
    let slope = sum(&|w, x, y| w * (x - x_mean) * (y - y_mean)) / spread;
    // A single degree of freedom has a wider log than 2 / freedom says; the rows' own scatter may
    // widen it further.
    let squares = sum(&|w, x, y| w * (y - y_mean - slope * (x - x_mean)).powi(2));
    let scatter = (squares / (rows.len() as f64 - 2.0)).max(1.0);
    let t = slope / (scatter / spread).sqrt();
    let student = StudentsT::new(0.0, 1.0, rows.len() as f64 - 2.0).ok()?;
    (spread > 0.0 && t > student.inverse_cdf(TREND_LEVEL)).then(|| {
        let power = (0.5 * slope).min(MAX_POWER);
        (0.5 * y_mean - power * x_mean, power)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Covariates, Observation};
    use crate::random::Stream;

    /// Three seeds at each of 40 places; the noise of ln L is `sd` times a power of the loss.
    fn study(sd: f64, power: f64, seed: u64) -> Dataset {
        study_of(40, sd, power, seed)
    }

    fn study_of(n_places: u32, sd: f64, power: f64, seed: u64) -> Dataset {
        let mut stream = Stream::new(seed, 0);
        let mut points = Vec::new();
        for place in 0..n_places {
            let loss = 2.0 + 2.0 * f64::from(place) / f64::from(n_places);
            for _ in 0..3 {
                let run = RunKey(u32::try_from(points.len()).unwrap());
                let (parameters, tokens) = (1e6 * f64::from(place + 1), 1e8);
                let noise = sd * (loss / 3.0).powf(power) * stream.normal();
                let (flops, loss_nats) = (6.0 * parameters * tokens, loss * noise.exp());
                points.push(Observation { run, parameters, tokens, flops, loss_nats, seed: 0 });
            }
        }
        Dataset::new(&points).unwrap()
    }

    #[test]
    fn a_noise_that_is_the_same_everywhere_gives_equal_weights() {
        let noise = SeedNoise::of(&study(0.004, 0.0, 7)).unwrap();
        assert_eq!((noise.n_places, noise.n_freedom, noise.power), (40, 80, 0.0));
        // The standard deviation of a standard deviation of 80 degrees of freedom is 8 % of it.
        assert!((noise.sd_log / 0.004 - 1.0).abs() < 0.25, "{noise:?}");
        assert_eq!(noise.weight_at(2.0), 1.0);
        assert_eq!(noise.weight_at(9.0), 1.0);
    }

    /// Two decays from one trunk are not two seeds, however alike they come out.
    #[test]
    fn runs_of_one_trunk_are_one_seed() {
        let alone = study(0.004, 0.0, 7);
        let n_runs = u32::try_from(alone.points().len()).unwrap();
        let decays = alone.points().iter().flat_map(|point| {
            [*point, Observation { run: RunKey(point.run.0 + n_runs), ..*point }]
        });
        let both = Dataset::new(&decays.collect::<Vec<_>>()).unwrap();
        let by_run = SeedNoise::of(&both).unwrap();
        assert_eq!(by_run.n_freedom, 200);
        let by_trunk = both.clustered(|point| point.run.0 % n_runs).unwrap();
        assert_eq!(SeedNoise::of(&by_trunk).unwrap(), SeedNoise::of(&alone).unwrap());
        assert!(by_run.sd_log < 0.95 * SeedNoise::of(&alone).unwrap().sd_log);
    }

    #[test]
    fn a_noise_that_grows_with_the_loss_weighs_large_losses_less() {
        let noise = SeedNoise::of(&study(0.01, 4.0, 3)).unwrap();
        assert!((noise.power - 4.0).abs() < 1.5, "{noise:?}");
        let exact = 0.01 * (noise.at_loss_nats / 3.0).powi(4);
        assert!((noise.sd_log / exact - 1.0).abs() < 0.25, "{noise:?} for {exact}");
        let weight = noise.weight_at(1.2 * noise.at_loss_nats);
        assert!((weight.ln() + 2.0 * noise.power * 1.2_f64.ln()).abs() < 1e-9, "{weight}");
        // Nothing was measured beyond.
        let (low, high) = noise.loss_range_nats;
        assert!(low > 1.9 && high < 4.1, "{noise:?}");
        assert_eq!(noise.weight_at(9.0), noise.weight_at(high));
        assert_eq!(noise.weight_at(1.0), noise.weight_at(low));
    }

    /// Aim: a noise that is the same everywhere is seldom taken for one that grows. Method: planted
    /// studies; of 400 with 1 % each, more than 12 come once in a thousand.
    #[test]
    fn a_power_is_seldom_made_up() {
        for n_places in [6, 12, 40] {
            let with_power = (0..400)
                .filter(|seed| {
                    SeedNoise::of(&study_of(n_places, 0.004, 0.0, *seed)).unwrap().power > 0.0
                })
                .count();
            println!("{n_places} places: {with_power} of 400");
            assert!(with_power <= if n_places < 12 { 0 } else { 12 }, "{n_places}: {with_power}");
        }
    }

    /// Aim: the least noise is a bound on the noise at a loss, and not on what a power starts from.
    #[test]
    fn the_least_noise_bounds_the_noise_at_a_loss() {
        let noise = SeedNoise::of(&study(0.0005, 4.0, 3)).unwrap();
        assert!(noise.power > 2.0 && noise.measured_sd_log < LEAST_SD_LOG, "{noise:?}");
        assert_eq!((noise.sd_log, noise.sd_log_at(2.0)), (LEAST_SD_LOG, LEAST_SD_LOG));
        let exact = noise.measured_sd_log * (3.9 / noise.at_loss_nats).powf(noise.power);
        assert!((noise.sd_log_at(3.9) / exact.max(LEAST_SD_LOG) - 1.0).abs() < 1e-12);
    }

    /// Aim: the pooled variance is that of the sums of squares. Method: two places by hand.
    #[test]
    fn variances_are_pooled_by_their_degrees_of_freedom() {
        let rows = [(1e6, 3.0, 0.0), (1e6, 3.0, 0.02), (2e6, 2.5, 0.0), (2e6, 2.5, 0.03)];
        let more = [(2e6, 2.5, 0.06), (4e6, 2.2, 0.5), (2e6, 2.5, 0.09)];
        let point = |(run, (parameters, loss, noise)): (u32, (f64, f64, f64))| {
            let (tokens, loss_nats) = (1e8, loss * noise.exp());
            let flops = 6.0 * parameters * tokens;
            Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 }
        };
        let points: Vec<Observation> = (0..).zip(rows.into_iter().chain(more)).map(point).collect();
        let noise = SeedNoise::of(&Dataset::new(&points).unwrap()).unwrap();
        assert_eq!((noise.n_places, noise.n_freedom), (2, 4));
        // 0.02² / 2 about its mean; 0.03² (1.5² + 0.5² + 0.5² + 1.5²) about its.
        let pooled = ((0.0002 + 0.0009 * 5.0) / 4.0_f64).sqrt();
        assert!((noise.sd_log - pooled).abs() < 1e-9, "{noise:?}");
        let error = SeedNoise::of(&Dataset::new(&points[..5]).unwrap()).unwrap_err();
        assert_eq!(error, TooFewSeeds { n_places: 2, n_freedom: 3 });
    }

    #[test]
    fn runs_that_repeat_their_data_otherwise_are_no_seeds_of_each_other() {
        let (parameters, tokens) = (1e8, 1e10);
        let row = |run: u32| {
            let (flops, loss_nats) = (6.0 * parameters * tokens, 3.0 + 0.1 * f64::from(run));
            let run = RunKey(run);
            let point = Observation { run, parameters, tokens, flops, loss_nats, seed: 0 };
            let unique_tokens = Some(tokens / f64::from(run.0 / 2 + 1));
            (point, Covariates { unique_tokens, ..Covariates::default() })
        };
        let rows: Vec<_> = (0..16).map(row).collect();
        let dataset = Dataset::select_rows(&rows, |_, _| None).unwrap();
        let noise = SeedNoise::of(&dataset).unwrap();
        assert_eq!((noise.n_places, noise.n_freedom), (8, 8));
        assert!(noise.sd_log < 0.03, "{noise:?}");
    }
}
