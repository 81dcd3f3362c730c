//! Owns bias-corrected and accelerated intervals, and the Monte-Carlo error of an interval's ends.
//! Does not draw; both are read off replicates that are there.

use statrs::distribution::{ContinuousCDF, Normal};

use super::{Estimate, Resampled, Scheme, is_log, judged, percentile, widened_tail};
use crate::law::Quantity;

impl Resampled {
    /// As [`Resampled::estimate`], by Efron's BCa (Efron and Tibshirani 1993, chapter 14.3) where
    /// the replicates are a bootstrap with leave-one-out influence; `None` otherwise.
    ///
    /// It corrects the percentiles for bias and skewness, which matters for floors and prefactors;
    /// it is not widened for few runs, which [`Resampled::estimate`] is.
    pub fn estimate_bca(
        &self,
        quantity: Quantity,
        function: impl Fn(&[f64]) -> f64,
    ) -> Option<Estimate> {
        let Scheme::Bootstrap { .. } = self.scheme else { return None };
        if self.influence.is_empty() {
            return None;
        }
        let forward = |value: f64| if is_log(quantity) { value.ln() } else { value };
        let back = |value: f64| if is_log(quantity) { value.exp() } else { value };
        let centre = forward(function(&self.theta));
        let values = self.sorted(quantity, &function)?;
        let without: Vec<f64> =
            self.influence.iter().map(|theta| forward(function(theta))).collect();
        let (low, high) = bca_ends(centre, &values, &without, self.level)?;
        Some(judged(quantity, back(centre), back(low), back(high)))
    }

    /// Monte-Carlo standard errors of the two ends of the interval of [`Resampled::estimate`],
    /// relative to its width: how much another seed would move them. `None` without draws.
    ///
    /// They are those of the ends as they are given, moved outward for few units, where draws are
    /// rarer than at the nominal percentiles.
    /// From the order statistics one binomial standard deviation on either side (Serfling 1980,
    /// section 2.6).
    pub fn end_errors(
        &self,
        quantity: Quantity,
        function: impl Fn(&[f64]) -> f64,
    ) -> Option<(f64, f64)> {
        let tail = match self.scheme {
            Scheme::Bootstrap { n_clusters, .. } => widened_tail(self.level, n_clusters),
            Scheme::StatedNoise { .. } => 0.5 - 0.5 * self.level,
            Scheme::Jackknife { .. } | Scheme::Unavailable { .. } => return None,
        };
        let values = self.sorted(quantity, &function)?;
        let width = percentile(&values, 1.0 - tail) - percentile(&values, tail);
        let spread = (tail * (1.0 - tail) / values.len() as f64).sqrt();
        let error = |share: f64| {
            0.5 * (percentile(&values, share + spread) - percentile(&values, share - spread))
                / width
        };
        (width > 0.0).then(|| (error(tail), error(1.0 - tail)))
    }

    /// Standard deviation of a function of the parameters over the draws; `None` without draws.
    pub fn standard_error(&self, function: impl Fn(&[f64]) -> f64) -> Option<f64> {
        let (Scheme::Bootstrap { .. } | Scheme::StatedNoise { .. }) = self.scheme else {
            return None;
        };
        let values: Vec<f64> = self.replicates.iter().map(|theta| function(theta)).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Some((squares / (n - 1.0)).sqrt())
    }

    fn sorted(&self, quantity: Quantity, function: impl Fn(&[f64]) -> f64) -> Option<Vec<f64>> {
        let forward = |value: f64| if is_log(quantity) { value.ln() } else { value };
        let mut values: Vec<f64> =
            self.replicates.iter().map(|theta| forward(function(theta))).collect();
        values.retain(|value| value.is_finite());
        values.sort_unstable_by(f64::total_cmp);
        (values.len() > 1).then_some(values)
    }
}

/// The ends from sorted draws and leave-one-out values.
fn bca_ends(centre: f64, values: &[f64], without: &[f64], level: f64) -> Option<(f64, f64)> {
    let normal = Normal::standard();
    let below = values.iter().filter(|value| **value < centre).count() as f64;
    let equal = values.iter().filter(|value| **value == centre).count() as f64;
    let share = (below + 0.5 * equal) / values.len() as f64;
    if !(share > 0.0 && share < 1.0) || without.iter().any(|value| !value.is_finite()) {
        return None;
    }
    let bias = normal.inverse_cdf(share);
    let mean = without.iter().sum::<f64>() / without.len() as f64;
    let power =
        |exponent: i32| -> f64 { without.iter().map(|value| (mean - value).powi(exponent)).sum() };
    let squares = power(2);
    let acceleration = if squares > 0.0 { power(3) / (6.0 * squares.powf(1.5)) } else { 0.0 };
    let end = |tail: f64| {
        let moved = bias + normal.inverse_cdf(tail);
        let corrected = bias + moved / (1.0 - acceleration * moved);
        percentile(values, normal.cdf(corrected))
    };
    let tail = 0.5 - 0.5 * level;
    Some((end(tail), end(1.0 - tail)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_bias_and_skewness_bca_is_the_percentile_interval() {
        let values: Vec<f64> = (0..1001).map(|i| f64::from(i) / 1000.0).collect();
        let (low, high) = bca_ends(0.5, &values, &[0.4, 0.5, 0.6], 0.9).unwrap();
        assert!((low - 0.05).abs() < 1e-9 && (high - 0.95).abs() < 1e-9, "{low} {high}");
    }

    #[test]
    fn a_draw_that_is_mostly_below_moves_the_interval_up() {
        let values: Vec<f64> = (0..1001).map(|i| f64::from(i) / 1000.0).collect();
        let (low, high) = bca_ends(0.6, &values, &[0.4, 0.5, 0.6], 0.9).unwrap();
        // z0 = 0.2533; Φ(2 z0 - 1.645) and Φ(2 z0 + 1.645).
        assert!((low - 0.1275).abs() < 2e-3 && (high - 0.9843).abs() < 2e-3, "{low} {high}");
    }

    #[test]
    fn the_error_of_an_end_falls_with_the_root_of_the_draws() {
        let of = |draws: u32| {
            let value = |i: u32| vec![(f64::from(i) + 0.5) / f64::from(draws)];
            Resampled {
                theta: vec![0.5],
                replicates: (0..draws).map(value).collect(),
                scheme: Scheme::Bootstrap {
                    n_runs: 20,
                    n_clusters: 20,
                    draws: 100,
                    n_strata: 1,
                    failed: 0,
                    seed: 0,
                },
                level: 0.9,
                residuals_log: Vec::new(),
                influence: Vec::new(),
            }
            .end_errors(Quantity::Difference, |theta| theta[0])
            .unwrap()
        };
        let (few, many) = (of(400), of(40_000));
        assert!((few.0 / many.0 - 10.0).abs() < 0.2, "{few:?} {many:?}");
        // Uniform draws: for 20 runs the tails are Φ(-√(20 / 19) t) with Student's t of 19, 1.729,
        // not 0.05: sqrt(0.038 · 0.962 / 400) over a width of 0.924.
        assert!((few.0 - 0.009_56 / 0.924).abs() < 2e-4, "{few:?}");
    }

    // Of 2,000 sets of normal draws the ends scatter as one set says they do.
    #[test]
    fn the_error_of_an_end_is_how_far_other_seeds_move_the_end_that_is_given() {
        let of = |seed: u64| {
            let mut stream = crate::random::Stream::new(seed, 0);
            Resampled {
                theta: vec![0.0],
                replicates: (0..1000).map(|_| vec![stream.normal()]).collect(),
                scheme: Scheme::Bootstrap {
                    n_runs: 12,
                    n_clusters: 12,
                    draws: 1000,
                    n_strata: 1,
                    failed: 0,
                    seed,
                },
                level: 0.95,
                residuals_log: Vec::new(),
                influence: Vec::new(),
            }
        };
        let ends = |one: &Resampled| {
            one.estimate(Quantity::Difference, |theta| theta[0]).interval().unwrap()
        };
        let all: Vec<(f64, f64)> = (0..2000).map(|seed| ends(&of(seed))).collect();
        let n = all.len() as f64;
        let mean = all.iter().map(|one| one.0).sum::<f64>() / n;
        let sd = (all.iter().map(|one| (one.0 - mean).powi(2)).sum::<f64>() / n).sqrt();
        let width = all.iter().map(|one| one.1 - one.0).sum::<f64>() / n;
        let errors =
            (0..200).filter_map(|seed| of(seed).end_errors(Quantity::Difference, |theta| theta[0]));
        let said = errors.map(|one| one.0).sum::<f64>() / 200.0;
        assert!((said / (sd / width) - 1.0).abs() < 0.1, "{said} {}", sd / width);
    }
}
