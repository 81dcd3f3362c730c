//! The norms of the contract, computed in float32 (float64 for float64 input).
//!
//! It does not decide which norm stands where.

use domain::model::{self, ModelConfig};
use tch::{Kind, Tensor};
use torch_ext::{Backward, Forward};

use super::graph::in_graph;
use super::{sizes, slabs};
use crate::ModelsError;
use crate::parameters::{Init, Path};

/// x / sqrt(mean(x²) + eps) over the last dimension, without parameters.
pub fn srmsnorm(x: &Tensor, eps: f64) -> Tensor {
    rms(x, None, eps)
}

/// x / sqrt(mean(x²) + eps) · w over the last dimension.
pub fn rmsnorm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    rms(x, Some(weight), eps)
}

/// Both, as one function of the graph that saves x and one number for each row.
fn rms(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Tensor {
    let width = *x.size().last().expect("a norm is over a dimension");
    let rows = widen(x).reshape([-1, width]);
    let (output, scale) = tch::no_grad(|| rms_forward(&rows, weight, eps));
    let inputs: Vec<&Tensor> = [&rows].into_iter().chain(weight).collect();
    let saved: Vec<&Tensor> = [&rows, &scale].into_iter().chain(weight).collect();
    let forward = Forward { name: "rms_norm", inputs: &inputs, outputs: &[&output], saved: &saved };
    let [output] = in_graph(&forward, rms_backward);
    output.view_as(x).to_kind(x.kind())
}

/// The normed rows `[R, E]` and r = 1 / sqrt(mean(x²) + eps), `[R, 1]`.
fn rms_forward(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> (Tensor, Tensor) {
    let [rows, width] = sizes(x);
    let output = x.empty_like();
    let scale = x.new_empty([rows, 1], (x.kind(), x.device()));
    for (from, count) in slabs(rows, width, x.device()) {
        let part = |x: &Tensor| x.narrow(0, from, count);
        let x = part(x);
        let length = x.norm_scalaropt_dim(2, [-1], true);
        part(&scale).copy_(&(length.square() / width as f64 + eps).rsqrt());
        let mut normed = part(&output);
        drop(x.mul_out(&normed, &part(&scale)));
        if let Some(weight) = weight {
            normed *= weight;
        }
    }
    (output, scale)
}

/// With g = w ⊙ dy:  dx = r g − r³ mean(g ⊙ x) x,  dw = Σ r x ⊙ dy.
fn rms_backward(given: &Backward<'_>) -> Vec<Option<Tensor>> {
    let (x, scale, weight) = (&given.saved[0], &given.saved[1], given.saved.get(2));
    let [rows, width] = sizes(x);
    let dy = given.gradients[0].as_ref().expect("the only output has the gradient");
    let dx = x.empty_like();
    let mut d_weight = weight.map(Tensor::zeros_like);
    for (from, count) in slabs(rows, width, x.device()) {
        let part = |x: &Tensor| x.narrow(0, from, count);
        let (x, dy, scale) = (part(x), part(dy), part(scale));
        let product = &dy * &x;
        let (g, share) = match weight {
            Some(weight) => (&dy * weight, product.mv(weight).unsqueeze(1)),
            None => (dy, product.sum_dim_intlist(-1, true, None::<Kind>)),
        };
        if let Some(d_weight) = &mut d_weight {
            *d_weight += product.transpose(0, 1).mv(&scale.squeeze_dim(1));
        }
        let share = share * scale.pow_tensor_scalar(3) / -(width as f64);
        let mut slot = part(&dx);
        drop(g.mul_out(&slot, &scale));
        drop(slot.addcmul_(&x, &share));
    }
    if weight.is_some() { vec![Some(dx), d_weight] } else { vec![Some(dx)] }
}

/// The naive twin of the two: as the contract writes it.
pub fn naive(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Tensor {
    let wide = widen(x);
    let normed = &wide / (wide.square().mean_dim(-1, true, None::<Kind>) + eps).sqrt();
    let normed = normed.to_kind(x.kind());
    weight.map_or_else(|| normed.shallow_clone(), |weight| &normed * weight)
}

fn widen(x: &Tensor) -> Tensor {
    if x.kind() == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) }
}

/// The norm outside the mixers, with the parameters that its kind has.
#[derive(Debug)]
pub struct Norm {
    width: i64,
    eps: f64,
    weight: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Norm {
    /// A norm over the model width, weights 1 and biases 0.
    pub fn new(mut path: Path<'_>, config: &ModelConfig) -> Result<Self, ModelsError> {
        let width = i64::from(config.shape.d_model);
        let has_weight = config.norm != model::Norm::SrmsNorm;
        let has_bias = config.norm == model::Norm::LayerNorm;
        let mut tensor = |name: &str, value: f32, present: bool| {
            present.then(|| path.tensor(name, &[width], Init::Constant(value))).transpose()
        };
        let weight = tensor("weight", 1.0, has_weight)?;
        let bias = tensor("bias", 0.0, has_bias)?;
        Ok(Self { width, eps: config.norm_eps, weight, bias })
    }

    /// x `[…, E]`, the same shape back.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match (&self.weight, &self.bias) {
            (weight, Some(bias)) => widen(x)
                .layer_norm([self.width], weight.as_ref(), Some(bias), self.eps, false)
                .to_kind(x.kind()),
            (Some(weight), None) => rmsnorm(x, weight, self.eps),
            (None, None) => srmsnorm(x, self.eps),
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::ops::testing::{assert_same_with_gradients, random, relative_error};

    const EPS: f64 = 1e-6;

    #[test]
    fn the_fused_norm_and_the_formula_agree_with_and_without_weight() {
        for shape in [&[1, 2][..], &[7, 5], &[2, 3, 12], &[1, 700, 129]] {
            let (x, weight) = (random(shape, 1) * 5.0, random(&shape[shape.len() - 1..], 2));
            assert_same_with_gradients(
                &[&x],
                |x| vec![srmsnorm(&x[0], EPS)],
                |x| vec![naive(&x[0], None, EPS)],
            );
            assert_same_with_gradients(
                &[&x, &weight],
                |x| vec![rmsnorm(&x[0], &x[1], EPS)],
                |x| vec![naive(&x[0], Some(&x[1]), EPS)],
            );
        }
    }

    #[test]
    fn the_layer_norm_and_its_formula_agree() {
        // Of two numbers only the signs would be left, and no gradient.
        for shape in [&[1, 3][..], &[7, 5], &[2, 3, 12], &[1, 700, 129]] {
            let width = &shape[shape.len() - 1..];
            let x = random(shape, 1) * 5.0 + 3.0;
            let (weight, bias) = (random(width, 2), random(width, 3));
            let norm = |x: &[Tensor]| Norm {
                width: width[0],
                eps: EPS,
                weight: Some(x[1].shallow_clone()),
                bias: Some(x[2].shallow_clone()),
            };
            assert_same_with_gradients(
                &[&x, &weight, &bias],
                |x| vec![norm(x).forward(&x[0])],
                |x| {
                    let centred = &x[0] - x[0].mean_dim(-1, true, None::<Kind>);
                    vec![naive(&centred, Some(&x[1]), EPS) + &x[2]]
                },
            );
        }
    }

    #[test]
    fn a_row_of_zeros_and_a_gradient_without_memory_of_its_own_are_fine() {
        let x = Tensor::zeros([3, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        // The gradient of a sum is one number seen as many.
        let loss = srmsnorm(&x, EPS).sum(Kind::Float);
        loss.backward();
        let expected = x.detach().to_kind(Kind::Double) + 1e3;
        assert!(relative_error(&x.grad(), &expected) < 1e-6);
    }
}
