//! The norms of the contract, computed in float32 (float64 for float64 input).
//!
//! It does not decide which norm stands where.

use domain::model::{self, ModelConfig};
use tch::{Kind, Tensor};

use crate::ModelsError;
use crate::parameters::{Init, Path};

/// x / sqrt(mean(x²) + eps) over the last dimension, without parameters.
pub fn srmsnorm(x: &Tensor, eps: f64) -> Tensor {
    let wide = widen(x);
    let scale = (wide.square().mean_dim(-1, true, None::<Kind>) + eps).rsqrt();
    (wide * scale).to_kind(x.kind())
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
            (Some(weight), None) => srmsnorm(x, self.eps) * weight,
            (None, None) => srmsnorm(x, self.eps),
        }
    }
}
