//! The one source of chance of a simulation: its seed decides everything.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};

/// A stream of decisions.
#[derive(Debug, Clone)]
pub(crate) struct Chance(ChaCha8Rng);

impl Chance {
    /// The stream of this seed; each `part` of a simulation has its own, so that what one draws does
    /// not move the others.
    pub(crate) fn new(seed: u64, part: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(part);
        Self(generator)
    }

    /// A number below `n`, which is at least 1.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        let product = u128::from(self.0.next_u64()) * u128::from(n);
        u64::try_from(product >> 64).expect("the product is below n")
    }

    /// A number from `least` to `most`, both included.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most - least + 1)
    }

    /// Whether something happens that does so in so many of a thousand cases.
    pub(crate) fn permille(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    /// A time until the next of something that comes once in `mean` on average, at least 1.
    pub(crate) fn waiting(&mut self, mean: u64) -> u64 {
        let uniform = (self.below(1 << 53) as f64 + 0.5) / (1_u64 << 53) as f64;
        let waiting = -uniform.ln() * mean as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is small")]
        let whole = waiting as u64;
        whole.max(1)
    }

    /// One of several.
    pub(crate) fn one_of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let n = u64::try_from(choices.len()).expect("few");
        &choices[usize::try_from(self.below(n)).expect("few")]
    }

    /// An index below `n`.
    pub(crate) fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(u64::try_from(n).expect("few"))).expect("few")
    }
}
