//! The one handle to randomness: identifiers and nonces that nobody can guess, and in a simulation
//! the same ones each time.
//!
//! It decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Where random bytes come from. Cheap to clone; all clones share one source.
#[derive(Debug, Clone)]
pub struct Random {
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    System,
    Seeded { seed: u64, n_drawn: Arc<AtomicU64> },
}

impl Random {
    /// The operating system's.
    pub fn system() -> Self {
        Self { source: Source::System }
    }

    /// A sequence that its seed determines. For simulations: whoever knows the seed knows it all.
    pub fn seeded(seed: u64) -> Self {
        Self { source: Source::Seeded { seed, n_drawn: Arc::default() } }
    }

    /// 32 random bytes.
    pub fn bytes(&self) -> Result<[u8; 32], getrandom::Error> {
        match &self.source {
            Source::System => {
                let mut bytes = [0; 32];
                getrandom::fill(&mut bytes)?;
                Ok(bytes)
            }
            Source::Seeded { seed, n_drawn } => {
                let index = n_drawn.fetch_add(1, Ordering::Relaxed);
                let mut hasher = blake3::Hasher::new();
                hasher.update(&seed.to_le_bytes()).update(&index.to_le_bytes());
                Ok(*hasher.finalize().as_bytes())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_sequence_and_no_draw_twice() {
        let (a, b) = (Random::seeded(7), Random::seeded(7));
        let drawn: Vec<_> = (0..3).map(|_| a.bytes().unwrap()).collect();
        assert_eq!(drawn, (0..3).map(|_| b.bytes().unwrap()).collect::<Vec<_>>());
        assert!(drawn[0] != drawn[1] && drawn[1] != drawn[2]);
        assert_ne!(drawn[0], Random::seeded(8).bytes().unwrap());
        assert_ne!(Random::system().bytes().unwrap(), Random::system().bytes().unwrap());
    }
}
