//! The low-rank output gate that `tnl` and `cosformer2` share.
//!
//! It does not norm what it gates.

use tch::{Kind, Tensor};

use super::{Linear, MatmulPrecision};
use crate::ModelsError;
use crate::parameters::Path;

/// sigmoid(x · W_downᵀ · W_upᵀ), no activation in between.
#[derive(Debug)]
pub struct OutputGate {
    down: Linear,
    up: Linear,
}

impl OutputGate {
    /// A gate of width `width` and inner width `rank`, as `gate_down` and `gate_up` below `path`.
    pub fn new(path: &mut Path<'_>, width: i64, rank: i64) -> Result<Self, ModelsError> {
        let down = path.linear("gate_down", rank, width)?;
        let up = path.linear("gate_up", width, rank)?;
        Ok(Self { down, up })
    }

    /// The layer that reads x, for products of x with other layers beside it.
    pub fn down(&self) -> &Linear {
        &self.down
    }

    /// What the first layer made of x, `[B, T, r]`, to the gate `[B, T, E]` in (0, 1), of a kind.
    pub fn open(&self, inner: &Tensor, precision: MatmulPrecision, kind: Kind) -> Tensor {
        self.up.forward(inner, precision).to_kind(kind).sigmoid()
    }
}
