//! From logits to the next token: greedy, or drawn at random.
//!
//! It runs no model. Draws come from its own generator on the CPU, in float64, so a seed gives the
//! same tokens for the same logits with any build of libtorch and on any device.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use thiserror::Error;

/// How the next token is chosen. The order is temperature, then top-k, then top-p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the largest, whatever the other fields say.
    pub temperature: f64,
    /// Draw from this many most probable tokens; from all where none is given.
    pub top_k: Option<usize>,
    /// Draw from the fewest most probable tokens that together have at least this probability.
    pub top_p: f64,
}

impl Sampling {
    /// The largest logit, always.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: None, top_p: 1.0 };
}

/// A token cannot be chosen.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SamplingError {
    /// A field is out of range.
    #[error("`{field}` is {value}; valid: {valid}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it was.
        value: String,
        /// What it may be.
        valid: &'static str,
    },
    /// The model has diverged, or its weights are not numbers.
    #[error("the logit of token {token} is {value}, so no next token can be chosen")]
    NotFinite {
        /// The first such token.
        token: usize,
        /// Its logit.
        value: f32,
    },
}

/// Chooses tokens, one after the other.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
}

impl Sampler {
    /// A sampler whose draws are those of the seed.
    pub fn new(sampling: Sampling, seed: u64) -> Result<Self, SamplingError> {
        let invalid =
            |field, value: String, valid| Err(SamplingError::Invalid { field, value, valid });
        let Sampling { temperature, top_k, top_p } = sampling;
        if !(temperature.is_finite() && temperature >= 0.0) {
            return invalid(
                "temperature",
                temperature.to_string(),
                "0 (greedy) or a positive number",
            );
        }
        if top_k == Some(0) {
            return invalid("top_k", 0.to_string(), "at least 1, or none to draw from all tokens");
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return invalid("top_p", top_p.to_string(), "more than 0 and at most 1");
        }
        Ok(Self { sampling, random: ChaCha8Rng::seed_from_u64(seed) })
    }

    /// The next token, given the logit of each.
    pub fn choose(&mut self, logits: &[f32]) -> Result<i64, SamplingError> {
        if let Some((token, value)) = logits.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            return Err(SamplingError::NotFinite { token, value: *value });
        }
        let token = if self.sampling.temperature == 0.0 {
            largest(logits)
        } else {
            draw(&candidates(logits, self.sampling), self.uniform())
        };
        Ok(i64::try_from(token).expect("a vocabulary is far smaller"))
    }

    /// Uniform in [0, 1), from the upper 53 bits.
    fn uniform(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0
    }
}

/// The token with the largest logit; of equal ones that with the smallest id.
fn largest(logits: &[f32]) -> usize {
    let larger =
        |best: usize, token: usize| if logits[token] > logits[best] { token } else { best };
    (0..logits.len()).reduce(larger).expect("a vocabulary has at least one token")
}

/// The tokens that may be drawn with their weights, the heaviest first and of equal ones the one
/// with the smaller id.
fn candidates(logits: &[f32], sampling: Sampling) -> Vec<(usize, f64)> {
    let mut tokens: Vec<(usize, f64)> =
        logits.iter().map(|logit| f64::from(*logit)).enumerate().collect();
    // The sort is stable, so equal logits stay in the order of their ids.
    tokens.sort_by(|a, b| b.1.partial_cmp(&a.1).expect("logits are finite"));
    tokens.truncate(sampling.top_k.unwrap_or(usize::MAX));
    let largest = tokens[0].1;
    for (_, weight) in &mut tokens {
        // The exponent is at most 0; a temperature near 0 makes it −∞ and the weight 0.
        *weight = ((*weight - largest) / sampling.temperature).exp();
    }
    let wanted = sampling.top_p * sum(&tokens);
    let mut so_far = 0.0;
    let kept = tokens.iter().position(|(_, weight)| {
        so_far += weight;
        so_far >= wanted
    });
    tokens.truncate(kept.map_or(tokens.len(), |last| last + 1));
    tokens
}

/// The token in whose share of the weights `uniform` ∈ [0, 1) falls.
fn draw(candidates: &[(usize, f64)], uniform: f64) -> usize {
    let target = uniform * sum(candidates);
    let mut so_far = 0.0;
    let found = candidates.iter().find(|(_, weight)| {
        so_far += weight;
        so_far > target
    });
    // Rounding may leave the sum a little below the target.
    found.or(candidates.last()).expect("at least one token may be drawn").0
}

fn sum(candidates: &[(usize, f64)]) -> f64 {
    candidates.iter().map(|(_, weight)| weight).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The planted distribution, by token id; its order by probability is 2, 0, 3, 1.
    const PLANTED: [f64; 4] = [0.3, 0.05, 0.5, 0.15];
    const DRAWS: u32 = 40_000;

    #[expect(clippy::cast_possible_truncation, reason = "logits are float32")]
    fn planted_logits() -> Vec<f32> {
        // Logits are known up to a constant only.
        PLANTED.iter().map(|p| (p.ln() + 3.0) as f32).collect()
    }

    /// Aim: draws follow the distribution that the settings make of the planted one. Method: each
    /// frequency within four standard errors, which 40,000 draws exceed by chance once in 15,000
    /// times; the seed is fixed.
    #[track_caller]
    fn check(sampling: Sampling, expected: [f64; 4]) {
        let mut sampler = Sampler::new(sampling, 11).unwrap();
        let logits = planted_logits();
        let mut counts = [0_u32; 4];
        for _ in 0..DRAWS {
            counts[usize::try_from(sampler.choose(&logits).unwrap()).unwrap()] += 1;
        }
        for (count, p) in counts.iter().zip(expected) {
            let frequency = f64::from(*count) / f64::from(DRAWS);
            let error = 4.0 * (p * (1.0 - p) / f64::from(DRAWS)).sqrt();
            assert!((frequency - p).abs() <= error, "{counts:?} for {expected:?}");
        }
    }

    const PLAIN: Sampling = Sampling { temperature: 1.0, top_k: None, top_p: 1.0 };

    #[test]
    fn temperature_one_draws_from_the_models_distribution() {
        check(PLAIN, PLANTED);
    }

    #[test]
    fn a_low_temperature_sharpens_and_a_high_one_flattens() {
        for (temperature, power) in [(0.5, 2.0), (2.0, 0.5)] {
            let weights = PLANTED.map(|p| p.powf(power));
            let total: f64 = weights.iter().sum();
            check(Sampling { temperature, ..PLAIN }, weights.map(|weight| weight / total));
        }
    }

    #[test]
    fn a_temperature_near_zero_is_greedy_and_finite() {
        check(Sampling { temperature: 1e-300, ..PLAIN }, [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn top_k_draws_from_the_most_probable_tokens_only() {
        check(Sampling { top_k: Some(2), ..PLAIN }, [0.375, 0.0, 0.625, 0.0]);
        check(Sampling { top_k: Some(1), ..PLAIN }, [0.0, 0.0, 1.0, 0.0]);
        check(Sampling { top_k: Some(100), ..PLAIN }, PLANTED);
    }

    #[test]
    fn top_p_draws_from_the_fewest_tokens_that_reach_it() {
        check(Sampling { top_p: 0.45, ..PLAIN }, [0.0, 0.0, 1.0, 0.0]);
        check(Sampling { top_p: 0.79, ..PLAIN }, [0.375, 0.0, 0.625, 0.0]);
        check(Sampling { top_p: 0.81, ..PLAIN }, [0.3 / 0.95, 0.0, 0.5 / 0.95, 0.15 / 0.95]);
    }

    #[test]
    fn top_p_counts_what_temperature_and_top_k_have_left() {
        // Of the first two the heavier has 0.625, of all it has 0.5.
        let sampling = Sampling { top_k: Some(2), top_p: 0.6, ..PLAIN };
        check(sampling, [0.0, 0.0, 1.0, 0.0]);
        let sampling = Sampling { temperature: 0.5, top_p: 0.65, ..PLAIN };
        check(sampling, [0.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn greedy_takes_the_largest_and_of_equal_ones_the_first() {
        let mut greedy = Sampler::new(Sampling::GREEDY, 1).unwrap();
        assert_eq!(greedy.choose(&planted_logits()), Ok(2));
        assert_eq!(greedy.choose(&[-0.0, 1.0, 1.0, 0.0]), Ok(1));
        assert_eq!(greedy.choose(&[-0.0, 0.0]), Ok(0));
    }

    /// The numbers are pinned, so that another version of the generator is seen.
    #[test]
    fn a_seed_gives_the_same_tokens_everywhere() {
        let tokens = |seed| -> Vec<i64> {
            let mut sampler = Sampler::new(PLAIN, seed).unwrap();
            (0..12).map(|_| sampler.choose(&[0.0; 100]).unwrap()).collect()
        };
        assert_eq!(tokens(0), [70, 46, 69, 6, 87, 54, 82, 93, 80, 15, 88, 77]);
        assert_ne!(tokens(1), tokens(0));
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        let refused = |sampling| Sampler::new(sampling, 1).unwrap_err().to_string();
        let text = refused(Sampling { temperature: -0.5, ..PLAIN });
        assert_eq!(text, "`temperature` is -0.5; valid: 0 (greedy) or a positive number");
        assert!(refused(Sampling { temperature: f64::NAN, ..PLAIN }).contains("NaN"));
        assert!(refused(Sampling { top_k: Some(0), ..PLAIN }).contains("`top_k` is 0"));
        assert!(refused(Sampling { top_p: 0.0, ..PLAIN }).contains("`top_p` is 0"));
        assert!(refused(Sampling { top_p: 1.5, ..PLAIN }).contains("at most 1"));
        let error = Sampler::new(PLAIN, 1).unwrap().choose(&[0.0, f32::NAN]).unwrap_err();
        assert!(matches!(error, SamplingError::NotFinite { token: 1, .. }), "{error}");
    }
}
