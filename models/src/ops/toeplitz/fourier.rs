//! The filter as a product of Fourier transforms.
//!
//! It does not know when that is fast.
//!
//! With F the transform over n ≥ 2T − 1 positions, zeros after the text, nothing of the circle's end
//! reaches its beginning:  y = F⁻¹(F(x) ⊙ F(h)),  h = w Λ with Λ[j, p] = λ_j^p.
//! Backwards:  dx = F⁻¹(F(dy) ⊙ conj F(h)),  dh = F⁻¹(Σ_b F(dy) ⊙ conj F(x)),  dw = dh Λᵀ.
//!
//! A transform adds up all positions, so a later token changes an earlier output, by rounding only.

use tch::{Device, Kind, Tensor};
use torch_ext::{Backward, Forward};

use super::mode_power;
use crate::ops::graph::in_graph;
use crate::ops::sizes;
use crate::ops::table::{Constant, constant};

/// How libtorch scales a transform: not at all, and its inverse by 1/n.
const UNSCALED: &str = "backward";

/// Powers of the modes' decays for texts of one length.
#[derive(Debug, Clone)]
pub(super) struct PowerTable {
    /// λ_j^p, `[J, T]`.
    powers: Constant,
    time: i64,
    /// n, the positions of a transform.
    positions: i64,
}

impl PowerTable {
    pub(super) fn new(time: i64, modes: i64, kind: Kind, device: Device) -> Self {
        let power = |mode| (0..time).map(move |power| mode_power(mode, modes, power));
        let powers: Vec<f64> = (0..modes).flat_map(power).collect();
        let powers = constant(&powers, &[modes, time], kind, device).into();
        // A power of two, which is transformed fastest.
        let positions = (2 * time).cast_unsigned().next_power_of_two().cast_signed();
        Self { powers, time, positions }
    }

    /// `[B, T, E]` to `[B, E, F]`.
    fn transform(&self, x: &Tensor) -> Tensor {
        x.transpose(1, 2).contiguous().fft_rfft(self.positions, -1, UNSCALED)
    }

    /// The first T positions of the opposite of a transform, `[…, F]` to `[…, T]`.
    fn inverse(&self, transformed: &Tensor) -> Tensor {
        transformed.fft_irfft(self.positions, -1, UNSCALED).narrow(-1, 0, self.time)
    }

    /// The transformed filter of each channel, `[E, F]`.
    fn filter(&self, weight: &Tensor) -> Tensor {
        weight.matmul(&self.powers).fft_rfft(self.positions, -1, UNSCALED)
    }

    /// The gradients of x and the weight.
    fn backward(&self, given: &Backward<'_>) -> Vec<Option<Tensor>> {
        let [x, weight] = given.saved else { unreachable!("two tensors are saved") };
        let dy = given.gradients[0].as_ref().expect("the only output has the gradient");
        let dy = self.transform(dy);
        let dx = self.inverse(&(&dy * self.filter(weight).conj()));
        let products = dy * self.transform(x).conj(); // [B, E, F]
        let d_filter = self.inverse(&products.sum_dim_intlist(0, false, None::<Kind>)); // [E, T]
        let d_weight = d_filter.matmul(&self.powers.transpose(0, 1));
        vec![Some(dx.transpose(1, 2).contiguous()), Some(d_weight)]
    }
}

/// x `[B, T, E]`, weight `[E, J]` to `[B, T, E]`.
pub(super) fn apply(x: &Tensor, weight: &Tensor, table: &PowerTable) -> Tensor {
    let [_, time, _] = sizes(x);
    debug_assert_eq!(time, table.time, "the table is that of the text");
    let output = tch::no_grad(|| {
        let product = table.transform(x) * table.filter(weight);
        table.inverse(&product).transpose(1, 2).contiguous()
    });
    let inputs = [x, weight];
    let forward =
        Forward { name: "toeplitz_fourier", inputs: &inputs, outputs: &[&output], saved: &inputs };
    let table = table.clone();
    let [output] = in_graph(&forward, move |given| table.backward(given));
    output
}
