//! The linear layer without bias, in float32 or with bfloat16 products.
//!
//! It does not initialise its weight.

use tch::{Kind, Tensor};

/// Precision of the products with weight matrices. Weights are float32 in both; norms, states,
/// decays, scores and the loss stay in float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatmulPrecision {
    /// Float32 throughout.
    #[default]
    Fp32,
    /// Input and weight rounded to bfloat16 for the product, the result returned to float32.
    Bf16,
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

    /// x `[…, in]` to `[…, out]`.
    pub fn forward(&self, x: &Tensor, precision: MatmulPrecision) -> Tensor {
        match precision {
            MatmulPrecision::Fp32 => x.linear(&self.weight, None::<&Tensor>),
            MatmulPrecision::Bf16 => x
                .to_kind(Kind::BFloat16)
                .linear(&self.weight.to_kind(Kind::BFloat16), None::<&Tensor>)
                .to_kind(x.kind()),
        }
    }
}
