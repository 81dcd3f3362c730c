//! The state of a fake run: one number that every step changes, so that a resumed run equals an
//! undisturbed one only if it really continued; and its files.
//!
//! It does not say where the files go.

use serde::{Deserialize, Serialize};

/// What a fake run carries from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FakeState {
    pub(super) step: u64,
    value: u64,
}

impl FakeState {
    pub(super) fn new(seed: u32) -> Self {
        Self { step: 0, value: mix(u64::from(seed)) }
    }

    pub(super) fn advance(&mut self) {
        self.step += 1;
        self.value = mix(self.value ^ self.step);
    }

    /// A number in [-1, 1) that depends on every step so far.
    pub(super) fn noise(&self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        (self.value >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }

    /// The state as a safetensors file with the two numbers as tensors.
    pub(super) fn to_weights(self) -> Vec<u8> {
        let header = r#"{"step":{"dtype":"U64","shape":[1],"data_offsets":[0,8]},"value":{"dtype":"U64","shape":[1],"data_offsets":[8,16]}}"#;
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&self.step.to_le_bytes());
        bytes.extend_from_slice(&self.value.to_le_bytes());
        bytes
    }

    /// The state in such a file.
    pub(super) fn from_weights(bytes: &[u8]) -> Option<Self> {
        let (rest, value) = bytes.split_last_chunk::<8>()?;
        let (_, step) = rest.split_last_chunk::<8>()?;
        Some(Self { step: u64::from_le_bytes(*step), value: u64::from_le_bytes(*value) })
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014), figure 17.
fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_hold_the_state() {
        let mut state = FakeState::new(7);
        state.advance();
        assert_eq!(FakeState::from_weights(&state.to_weights()), Some(state));
        assert_eq!(FakeState::from_weights(b"short"), None);
    }

    #[test]
    fn noise_stays_in_its_bounds_and_moves() {
        let mut state = FakeState::new(0);
        let mut values = Vec::new();
        for _ in 0..1_000 {
            state.advance();
            values.push(state.noise());
        }
        assert!(values.iter().all(|noise| (-1.0..1.0).contains(noise)));
        assert!(values.iter().any(|n| *n < -0.9) && values.iter().any(|n| *n > 0.9));
    }
}
