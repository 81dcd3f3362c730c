//! The linear layer without bias, in float32 or with bfloat16 products.
//!
//! It does not initialise its weight.

use tch::{Kind, Tensor};

/// Precision of the products with weight matrices and of those inside softmax attention. Weights are
/// float32 in both; norms, states, decays, softmax and the loss stay in float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MatmulPrecision {
    /// Float32 throughout.
    #[default]
    Fp32,
    /// Input and weight rounded to bfloat16 for the product, the result returned to float32.
    Bf16,
}

impl MatmulPrecision {
    /// A factor of a product, rounded as the precision says.
    pub(crate) fn operand(self, x: &Tensor) -> Tensor {
        match self {
            Self::Fp32 => x.shallow_clone(),
            Self::Bf16 => x.to_kind(Kind::BFloat16),
        }
    }
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
        let weight = precision.operand(&self.weight);
        precision.operand(x).linear(&weight, None::<&Tensor>).to_kind(x.kind())
    }
}
