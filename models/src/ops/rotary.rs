//! Rotary positions in the two layouts of the contract.
//!
//! It does not know about attention.

use std::ops::Range;

use domain::model::Rope;
use tch::{Kind, Tensor};
use torch_ext::Forward;

use super::graph::in_graph;
use super::sizes;
use super::table::{Key, TableCache, constant};

/// Angle per position of pair `pair` of head `head`.
fn frequency(rope: Rope, base: f64, heads: i64, head_width: i64, head: i64, pair: i64) -> f64 {
    let exponent = match rope {
        Rope::Half => 2 * pair,
        Rope::InterleavedFull => 2 * (head * (head_width / 2) + pair),
    };
    let width = match rope {
        Rope::Half => head_width,
        Rope::InterleavedFull => heads * head_width,
    };
    base.powf(-(exponent as f64) / width as f64)
}

/// Turns queries and keys by their position. Clones share their tables, which are the same in every
/// layer of a model.
#[derive(Debug, Clone)]
pub struct Rotary {
    rope: Rope,
    base: f64,
    /// Cosines and sines, `[T, H or 1, K/2]`.
    tables: TableCache<(Tensor, Tensor)>,
}

impl Rotary {
    /// Rotations of a layout and base.
    pub fn new(rope: Rope, base: f64) -> Self {
        Self { rope, base, tables: TableCache::new() }
    }

    /// x `[B, T, H, K]`, the same shape back. For `half` the number of heads does not matter.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let [_, t, heads, _] = sizes(x);
        let build = || self.build(x, 0..t);
        // Queries and keys with other numbers of heads share a table that is the same for all.
        let rows = if self.rope == Rope::Half { 1 } else { heads };
        self.tables.with(Key::of(x, rows), build, |(cos, sin)| turn(x, self.rope, cos, sin))
    }

    /// The same where the first token is not the text's first but stands at `position`.
    pub fn forward_at(&self, x: &Tensor, position: i64) -> Tensor {
        let [_, t, _, _] = sizes(x);
        let (cos, sin) = self.build(x, position..position + t);
        turn(x, self.rope, &cos, &sin)
    }

    fn build(&self, x: &Tensor, positions: Range<i64>) -> (Tensor, Tensor) {
        let [_, t, heads, head_width] = sizes(x);
        let rows = if self.rope == Rope::Half { 1 } else { heads };
        let mut angles = Vec::new();
        for position in positions {
            for head in 0..rows {
                for pair in 0..head_width / 2 {
                    let angle = frequency(self.rope, self.base, heads, head_width, head, pair);
                    angles.push(position as f64 * angle);
                }
            }
        }
        // Cosine and sine in float64: float32 angles lose digits with the position.
        let angles = constant(&angles, &[t, rows, head_width / 2], Kind::Double, x.device());
        (angles.cos().to_kind(x.kind()), angles.sin().to_kind(x.kind()))
    }
}

/// x `[B, T, H, K]` with each pair (a, b) turned to (a cos α − b sin α, a sin α + b cos α). A rotation's
/// gradient turns back, so nothing of x is saved.
fn turn(x: &Tensor, rope: Rope, cos: &Tensor, sin: &Tensor) -> Tensor {
    let output = tch::no_grad(|| turned(x, rope, cos, sin));
    let forward = Forward { name: "rotary", inputs: &[x], outputs: &[&output], saved: &[cos, sin] };
    let [output] = in_graph(&forward, move |given| {
        let [cos, sin] = given.saved else { unreachable!("two tensors are saved") };
        let gradient = given.gradients[0].as_ref().expect("the only output has the gradient");
        vec![Some(turned(gradient, rope, cos, &-sin))]
    });
    output
}

fn turned(x: &Tensor, rope: Rope, cos: &Tensor, sin: &Tensor) -> Tensor {
    let output = Tensor::empty(x.size(), (x.kind(), x.device()));
    let (a, b) = pairs(&x.contiguous(), rope);
    let (mut turned_a, mut turned_b) = pairs(&output, rope);
    drop(a.mul_out(&turned_a, cos));
    drop(turned_a.addcmul_(&b, &-sin));
    drop(b.mul_out(&turned_b, cos));
    drop(turned_b.addcmul_(&a, sin));
    output
}

/// The first and second channels of the pairs, `[B, T, H, K/2]` each, in place.
fn pairs(x: &Tensor, rope: Rope) -> (Tensor, Tensor) {
    let [b, t, h, k] = sizes(x);
    match rope {
        Rope::Half => (x.narrow(-1, 0, k / 2), x.narrow(-1, k / 2, k / 2)),
        Rope::InterleavedFull => {
            let pairs = x.view([b, t, h, k / 2, 2]);
            (pairs.select(-1, 0), pairs.select(-1, 1))
        }
    }
}

/// The naive twin: one pair of one position at a time, as the contract writes it.
pub fn naive(x: &Tensor, rope: Rope, base: f64) -> Tensor {
    let [_, t, h, k] = sizes(x);
    let half = k / 2;
    let mut positions = Vec::new();
    for position in 0..t {
        let mut heads = Vec::new();
        for head in 0..h {
            let row = x.select(1, position).select(1, head); // [B, K]
            let mut channels: Vec<Tensor> = (0..k).map(|channel| row.select(-1, channel)).collect();
            for pair in 0..half {
                let (first, second) = match rope {
                    Rope::Half => (pair, pair + half),
                    Rope::InterleavedFull => (2 * pair, 2 * pair + 1),
                };
                let angle = position as f64 * frequency(rope, base, h, k, head, pair);
                let (a, b) = (row.select(-1, first), row.select(-1, second));
                let turned =
                    (&a * angle.cos() - &b * angle.sin(), a * angle.sin() + b * angle.cos());
                channels[index(first)] = turned.0;
                channels[index(second)] = turned.1;
            }
            heads.push(Tensor::stack(&channels, -1)); // [B, K]
        }
        positions.push(Tensor::stack(&heads, 1)); // [B, H, K]
    }
    Tensor::stack(&positions, 1) // [B, T, H, K]
}

fn index(channel: i64) -> usize {
    usize::try_from(channel).expect("channels are counted from zero")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_with_gradients, random};

    #[test]
    fn both_layouts_turn_as_the_contract_says() {
        for rope in [Rope::Half, Rope::InterleavedFull] {
            for (t, h, k) in [(1, 1, 2), (7, 3, 8), (13, 2, 12)] {
                let x = random(&[2, t, h, k], 11);
                assert_same_with_gradients(
                    &[&x],
                    |inputs| vec![Rotary::new(rope, 500.0).forward(&inputs[0])],
                    |inputs| vec![naive(&inputs[0], rope, 500.0)],
                );
            }
        }
    }

    #[test]
    fn a_text_that_is_cut_turns_like_the_whole() {
        for rope in [Rope::Half, Rope::InterleavedFull] {
            let rotary = Rotary::new(rope, 500.0);
            let x = random(&[2, 13, 3, 8], 11);
            let later = rotary.forward_at(&x.narrow(1, 5, 8), 5);
            assert_eq!(later, rotary.forward(&x).narrow(1, 5, 8));
        }
    }
}
