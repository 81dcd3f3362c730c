//! LRPE: linearised relative position encoding, x ↦ [x ⊙ cos θt ‖ x ⊙ sin θt] per head.
//!
//! It does not know about attention. The product of two such vectors weighs each channel with
//! cos(θ(t − s)) (TransNormerLLM, arXiv 2405.17381, LRPE-d).

use std::ops::Range;

use tch::{Kind, Tensor};

use super::sizes;
use super::table::{Key, TableCache, constant};

/// θ of channel j of a head: 10000^(−2(head·d_h + j)/d), the frequencies running over all heads.
fn theta(head: i64, channel: i64, heads: i64, head_width: i64) -> f64 {
    let width = heads * head_width;
    10_000_f64.powf(-2.0 * (head * head_width + channel) as f64 / width as f64)
}

/// Doubles the channels of queries or keys by their position. Clones share their tables, which are the
/// same in every layer of a model.
#[derive(Debug, Clone)]
pub struct Lrpe {
    /// Cosines and sines, `[T, H, K]`.
    tables: TableCache<(Tensor, Tensor)>,
}

impl Lrpe {
    /// The fixed θ table needs no configuration.
    #[expect(clippy::new_without_default, reason = "a layer is built, never defaulted")]
    pub fn new() -> Self {
        Self { tables: TableCache::new() }
    }

    /// x `[B, T, H, K]` to `[B, T, H, 2·K]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let [_, t, _, _] = sizes(x);
        let build = || build(x, 0..t);
        self.tables.with(Key::of(x, 0), build, |(cos, sin)| Tensor::cat(&[x * cos, x * sin], -1))
    }
}

/// [`Lrpe::forward`] where the first token is not the text's first but stands at `position`.
pub fn lrpe_at(x: &Tensor, position: i64) -> Tensor {
    let [_, t, _, _] = sizes(x);
    let (cos, sin) = build(x, position..position + t);
    Tensor::cat(&[x * cos, x * sin], -1)
}

fn build(x: &Tensor, positions: Range<i64>) -> (Tensor, Tensor) {
    let [_, t, heads, head_width] = sizes(x);
    let mut angles = Vec::new();
    for position in positions {
        for head in 0..heads {
            for channel in 0..head_width {
                angles.push(position as f64 * theta(head, channel, heads, head_width));
            }
        }
    }
    let angles = constant(&angles, &[t, heads, head_width], Kind::Double, x.device());
    (angles.cos().to_kind(x.kind()), angles.sin().to_kind(x.kind()))
}

/// The naive twin: position by position.
pub fn naive(x: &Tensor) -> Tensor {
    let [_, t, h, k] = sizes(x);
    let mut positions = Vec::new();
    for position in 0..t {
        let angles: Vec<f64> =
            (0..h * k).map(|flat| position as f64 * theta(flat / k, flat % k, h, k)).collect();
        let angles = constant(&angles, &[h, k], Kind::Double, x.device());
        let row = x.select(1, position); // [B, H, K]
        let cos = angles.cos().to_kind(x.kind());
        let sin = angles.sin().to_kind(x.kind());
        positions.push(Tensor::cat(&[&row * cos, row * sin], -1)); // [B, H, 2·K]
    }
    Tensor::stack(&positions, 1) // [B, T, H, 2·K]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_with_gradients, random};

    #[test]
    fn the_table_and_the_loop_over_positions_agree() {
        for (t, h, k) in [(1, 1, 1), (7, 3, 5), (13, 2, 12)] {
            let x = random(&[2, t, h, k], 3);
            assert_same_with_gradients(
                &[&x],
                |inputs| vec![Lrpe::new().forward(&inputs[0])],
                |inputs| vec![naive(&inputs[0])],
            );
        }
    }

    #[test]
    fn a_text_that_is_cut_is_encoded_like_the_whole() {
        let x = random(&[2, 13, 3, 5], 3);
        let later = lrpe_at(&x.narrow(1, 4, 9), 4);
        assert_eq!(later, Lrpe::new().forward(&x).narrow(1, 4, 9));
    }

    #[test]
    fn the_product_of_two_positions_depends_on_their_distance_only() {
        // Aim: Σ_j q_j k_j cos(θ_j (t − s)). Method: the same vector at every position.
        let x = random(&[1, 1, 2, 4], 5).repeat([1, 9, 1, 1]);
        let wide = Lrpe::new().forward(&x).view([9, 16]);
        let scores = wide.matmul(&wide.transpose(0, 1)); // [T, T]
        let gap = |t: i64, s: i64| scores.double_value(&[t, s]);
        assert!((gap(7, 4) - gap(3, 0)).abs() < 1e-12);
        assert!((gap(7, 4) - gap(4, 7)).abs() < 1e-12);
        assert!((gap(7, 4) - gap(7, 5)).abs() > 1e-6);
    }
}
