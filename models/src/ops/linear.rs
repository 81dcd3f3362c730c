//! The linear layer without bias, in float32 or with products of bfloat16 numbers.
//!
//! It does not initialise its weight.

use tch::{Kind, Tensor};
use torch_ext::{Backward, Forward, multiplies_bf16};

use super::graph::in_graph;
use super::sizes;

/// Precision of the products with weight matrices and of those inside softmax attention. Weights are
/// float32 in both; norms, states, decays, softmax and the loss stay in float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatmulPrecision {
    /// Float32 throughout.
    #[default]
    Fp32,
    /// Factors rounded to bfloat16, sums in float32, results rounded to bfloat16; so is what lies
    /// between two products (a channel mixer's gate). As in PyTorch's autocast.
    ///
    /// A CPU without instructions for bfloat16 products multiplies the rounded numbers as float32, and
    /// rounds the results where others do: the same sums in another order, and several times as fast
    /// as libtorch's own products there.
    Bf16,
}

impl MatmulPrecision {
    /// A factor or a result of a product, rounded as the precision says.
    pub(crate) fn rounded(self, x: &Tensor) -> Tensor {
        match self {
            Self::Fp32 => x.shallow_clone(),
            Self::Bf16 => x.to_kind(Kind::BFloat16),
        }
    }

    /// A factor of a product, rounded, in the kind that the device multiplies fast.
    pub(crate) fn operand(self, x: &Tensor) -> Tensor {
        match self {
            Self::Fp32 => x.shallow_clone(),
            Self::Bf16 => multiplied(&self.rounded(x)),
        }
    }
}

/// Numbers of bfloat16 in the kind that their device multiplies fast.
fn multiplied(x: &Tensor) -> Tensor {
    if multiplies_bf16(x.device()) { x.shallow_clone() } else { x.to_kind(Kind::Float) }
}

/// a · b for matrices of bfloat16 numbers: sums in float32, rounded to bfloat16, then of a kind.
fn rounded_product(a: &Tensor, b: &Tensor, kind: Kind) -> Tensor {
    multiplied(a).mm(&multiplied(b)).to_kind(Kind::BFloat16).to_kind(kind)
}

/// y = x · Wᵀ with W `[out, in]`.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
}

impl Linear {
    /// A layer that shares the given weight.
    pub fn new(weight: Tensor) -> Self {
        Self { weight }
    }

    /// W `[out, in]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// x `[…, in]` to `[…, out]`, in the kind of x.
    pub fn forward(&self, x: &Tensor, precision: MatmulPrecision) -> Tensor {
        let [y] = forward_together([self], x, precision);
        y.to_kind(x.kind())
    }
}

/// What several layers make of the same x `[…, in]`, each `[…, out]`, in the kind of x or in bfloat16,
/// as the precision says.
///
/// In bfloat16 x is rounded once and the weights lie side by side, so that forward is one product, and
/// each of the two gradients is one.
pub fn forward_together<const LAYERS: usize>(
    layers: [&Linear; LAYERS],
    x: &Tensor,
    precision: MatmulPrecision,
) -> [Tensor; LAYERS] {
    match precision {
        MatmulPrecision::Fp32 => layers.map(|layer| x.linear(&layer.weight, None::<&Tensor>)),
        MatmulPrecision::Bf16 => rounded_products(layers.map(|layer| &layer.weight), x),
    }
}

fn rounded_products<const LAYERS: usize>(
    weights: [&Tensor; LAYERS],
    x: &Tensor,
) -> [Tensor; LAYERS] {
    let mut shape = x.size();
    let width = *shape.last().expect("a product is over a dimension");
    let rows = x.reshape([-1, width]); // [R, in]
    let outs = weights.map(|weight| sizes::<2>(weight)[0]);
    let (operands, outputs) = tch::no_grad(|| {
        let operands = Operands::new(&rows, &weights);
        let transposed = operands.weight.transpose(0, 1);
        let product = rounded_product(&operands.x, &transposed, Kind::BFloat16); // [R, Σ out]
        (operands, split(&product, 1, outs))
    });
    let inputs: Vec<&Tensor> = [&rows].into_iter().chain(weights).collect();
    let forward = Forward {
        name: "linear",
        inputs: &inputs,
        outputs: &outputs.each_ref(),
        saved: &[&operands.x, &operands.weight],
    };
    let kinds = [x.kind(), weights[0].kind()];
    let made: [Tensor; LAYERS] = in_graph(&forward, move |given| gradients(given, outs, kinds));
    made.map(|y| {
        *shape.last_mut().expect("it has the dimension of the product") = y.size()[1];
        y.view(shape.as_slice()) // […, out]
    })
}

/// The rounded factors of the products, weights one below the other: `[R, in]` and `[Σ out, in]`.
struct Operands {
    x: Tensor,
    weight: Tensor,
}

impl Operands {
    fn new(x: &Tensor, weights: &[&Tensor]) -> Self {
        let round = |x: &Tensor| x.to_kind(Kind::BFloat16);
        let weights: Vec<Tensor> = weights.iter().map(|weight| round(weight)).collect();
        // A part of a joint product would keep all of it until the backward pass.
        Self { x: round(x).contiguous(), weight: join(&weights, 0) }
    }
}

/// The tensors as one, along a dimension; a single one as it is.
fn join(parts: &[Tensor], dimension: i64) -> Tensor {
    if let [only] = parts { only.shallow_clone() } else { Tensor::cat(parts, dimension) }
}

/// The opposite of `join` for parts of these lengths, in place.
fn split<const PARTS: usize>(
    joined: &Tensor,
    dimension: i64,
    lengths: [i64; PARTS],
) -> [Tensor; PARTS] {
    let mut from = 0;
    lengths.map(|length| {
        from += length;
        joined.narrow(dimension, from - length, length)
    })
}

/// dx = dy · W and dW = dyᵀ · x, of the kinds of x and W, with dy in bfloat16 like y.
fn gradients<const LAYERS: usize>(
    given: &Backward<'_>,
    outs: [i64; LAYERS],
    kinds: [Kind; 2],
) -> Vec<Option<Tensor>> {
    let [x, weight] = given.saved else { unreachable!("two tensors are saved") };
    let [rows, _] = sizes(x);
    let of_output = |(index, out): (usize, &i64)| match &given.gradients[index] {
        Some(gradient) => gradient.shallow_clone(),
        None => Tensor::zeros([rows, *out], (x.kind(), x.device())),
    };
    let dy: Vec<Tensor> = outs.iter().enumerate().map(of_output).collect();
    let dy = multiplied(&join(&dy, 1)); // [R, Σ out]
    let dx = given.wanted[0].then(|| rounded_product(&dy, weight, kinds[0]));
    let d_weight = rounded_product(&dy.transpose(0, 1), x, kinds[1]); // [Σ out, in]
    [dx].into_iter().chain(split(&d_weight, 0, outs).map(Some)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_with_gradients, random, relative_error};

    /// Two roundings to the 8 bits of bfloat16.
    const TOLERANCE_BFLOAT16: f64 = 1.0 / 128.0;

    /// Small multiples of 1/256, which bfloat16 knows exactly: rounding the factors changes nothing.
    fn exact(shape: &[i64], seed: i64) -> Tensor {
        (random(shape, seed) * 4.0).round() / 256.0
    }

    #[test]
    fn layers_together_are_the_layers_one_by_one() {
        for (rows, widths) in [([1, 1], [3, 1, 2]), ([2, 7], [5, 12, 1])] {
            let x = random(&[rows[0], rows[1], 6], 1);
            let weights = widths.map(|out| random(&[out, 6], out));
            let inputs = [&x, &weights[0], &weights[1], &weights[2]];
            let layers = |x: &[Tensor]| [1, 2, 3].map(|at| Linear::new(x[at].shallow_clone()));
            assert_same_with_gradients(
                &inputs,
                |x| {
                    let [a, b, c] = layers(x);
                    forward_together([&a, &b, &c], &x[0], MatmulPrecision::Fp32).into()
                },
                |x| layers(x).map(|layer| x[0].matmul(&layer.weight.transpose(0, 1))).into(),
            );
        }
    }

    #[test]
    fn bfloat16_products_of_what_bfloat16_knows_are_those_of_float32_and_so_are_their_gradients() {
        // Aim: which factor belongs to which product, and that sums are not made in bfloat16.
        let (x, a, b) = (exact(&[3, 40, 64], 1), exact(&[5, 64], 2), exact(&[9, 64], 3));
        let run = |kind, precision| {
            let inputs: Vec<Tensor> =
                [&x, &a, &b].iter().map(|x| x.to_kind(kind).set_requires_grad(true)).collect();
            let [a, b] = [1, 2].map(|at| Linear::new(inputs[at].shallow_clone()));
            let [ya, yb] = forward_together([&a, &b], &inputs[0], precision);
            // The gradients of both are whole numbers, and zero for what is not used of the second.
            let objective = (&ya * 3.0).sum(Kind::Double) + yb.narrow(2, 0, 4).sum(Kind::Double);
            let gradients = Tensor::run_backward(&[objective], &inputs, false, false);
            [ya.detach(), yb.detach()].into_iter().chain(gradients).collect::<Vec<_>>()
        };
        let expected = run(Kind::Double, MatmulPrecision::Fp32);
        for (found, expected) in run(Kind::Float, MatmulPrecision::Bf16).iter().zip(&expected) {
            let error = relative_error(found, expected);
            assert!(error < TOLERANCE_BFLOAT16, "{error}");
        }
    }

    #[test]
    fn a_layer_whose_output_is_not_used_has_a_gradient_of_zero() {
        let x = random(&[4, 6], 1).to_kind(Kind::Float).set_requires_grad(true);
        let weights = [1, 2].map(|seed| random(&[3, 6], seed).to_kind(Kind::Float));
        let [used, unused] = weights.map(|weight| Linear::new(weight.set_requires_grad(true)));
        let [y, _] = forward_together([&used, &unused], &x, MatmulPrecision::Bf16);
        y.sum(Kind::Float).backward();
        assert_eq!(unused.weight.grad().abs().sum(Kind::Float).double_value(&[]), 0.0);
        let rounded = x.detach().to_kind(Kind::BFloat16).to_kind(Kind::Double);
        let expected = rounded.sum_dim_intlist(0, true, None::<Kind>).expand([3, 6], false);
        assert!(relative_error(&used.weight.grad(), &expected) < TOLERANCE_BFLOAT16);
    }
}
