//! The order in which an epoch visits its windows: a permutation that takes no memory.
//!
//! It does not read data.
//!
//! A Feistel network (Luby and Rackoff, 1988, *How to construct pseudorandom permutations from
//! pseudorandom functions*) over the smallest 2^(2k) that holds all windows, walked until the image
//! is a window (Black and Rogaway, 2002, *Ciphers with arbitrary finite domains*, cycle walking).

/// Four rounds are enough for a strong pseudorandom permutation (Luby and Rackoff); two more because
/// the round function here is a mixer, not a cipher.
const N_ROUNDS: usize = 6;

/// A permutation of 0 … n − 1, decided by a seed and a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permutation {
    n: u64,
    half_bits: u32,
    keys: [u64; N_ROUNDS],
}

impl Permutation {
    /// The permutation number `epoch` of `n` ≥ 1 things under a seed.
    pub fn new(n: u64, seed: u32, epoch: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        // A name of its own, so that the order shares nothing with other uses of the seed.
        hasher.update(b"gradus data order v1");
        hasher.update(&seed.to_le_bytes());
        hasher.update(&epoch.to_le_bytes());
        let mut reader = hasher.finalize_xof();
        let keys = std::array::from_fn(|_| {
            let mut key = [0; 8];
            reader.fill(&mut key);
            u64::from_le_bytes(key)
        });
        // n − 1 needs so many bits, rounded up to two halves of at least one.
        let bits = u64::BITS - n.saturating_sub(1).leading_zeros();
        Self { n, half_bits: bits.div_ceil(2).max(1), keys }
    }

    /// Where `index` below n goes.
    pub fn at(&self, index: u64) -> u64 {
        debug_assert!(index < self.n, "index {index} of {}", self.n);
        let mut image = self.encrypt(index);
        // At most four images in the domain for each window, so four steps on average.
        while image >= self.n {
            image = self.encrypt(image);
        }
        image
    }

    fn encrypt(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let (mut left, mut right) = (value >> self.half_bits, value & mask);
        for key in self.keys {
            (left, right) = (right, left ^ (mix(right ^ key) & mask));
        }
        (left << self.half_bits) | right
    }
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(n: u64, seed: u32, epoch: u64) -> Vec<u64> {
        let permutation = Permutation::new(n, seed, epoch);
        (0..n).map(|index| permutation.at(index)).collect()
    }

    #[test]
    fn everything_is_visited_once_whatever_the_number() {
        for n in (1..70).chain([255, 256, 257, 1000, 4097, 65_536]) {
            let mut images = images(n, 3, 0);
            images.sort_unstable();
            assert_eq!(images, (0..n).collect::<Vec<_>>(), "{n}");
        }
    }

    #[test]
    fn seeds_and_epochs_have_orders_of_their_own() {
        let first = images(1000, 0, 0);
        assert_ne!(first, images(1000, 1, 0));
        assert_ne!(first, images(1000, 0, 1));
        assert_eq!(first, images(1000, 0, 0));
    }

    #[test]
    fn the_order_looks_random() {
        // The rank correlation of position and image over many orders has mean 0 and standard
        // deviation 1/√(n − 1); neighbours are adjacent again about twice in n.
        let n = 1000;
        let mut adjacent = 0;
        for seed in 0..20 {
            let images = images(n, seed, 0);
            let middle = (n as f64 - 1.0) / 2.0;
            let covariance: f64 = (0_u32..)
                .zip(&images)
                .map(|(i, x)| (f64::from(i) - middle) * (*x as f64 - middle))
                .sum();
            let variance = n as f64 * ((n * n) as f64 - 1.0) / 12.0;
            assert!((covariance / variance).abs() < 4.0 / (n as f64 - 1.0).sqrt(), "seed {seed}");
            adjacent += images.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
        }
        assert!((10..=80).contains(&adjacent), "{adjacent}");
    }
}
