//! HGRN2: Qin et al., "HGRN2: Gated Linear RNNs with State Expansion", 2024,
//! <https://arxiv.org/abs/2404.07904>, as trained in "Scaling Laws for Linear Complexity Language
//! Models", 2024, <https://arxiv.org/abs/2406.16690>.
//!
//! Built: linear attention with a forget gate per key channel and token, bounded from below by a
//! learned amount that grows with depth. It differs from the second paper's text where the authors'
//! code does: the lower bounds leave out the first layer's share (else the last layer would never
//! write), and there is no output gate.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | x, the normed input | `x` | `[B, T, E]` |
//! | W_q, W_f, W_v, W_o | `q`, `f`, `v`, `o` | `[E, E]` |
//! | Γ | `lower_bounds` | `[L, E]` |
//! | lb_ℓ | `log_bound` (its log), 1 − lb_ℓ as `rest` | `[E]` |
//! | log f_t | `log_forget` | `[B, T, H, K]` |
//!
//! P = softmax of Γ over layers,  lb_ℓ = Σ_{1≤r≤ℓ} P_r.
//! q = SiLU(x W_qᵀ), v = x W_vᵀ, z = x W_fᵀ,
//! f = lb + (1 − lb) sigmoid(z),  k = 1 − f = (1 − lb) sigmoid(−z).
//! Per head:  S_t = Diag(f_t) S_{t−1} + k_tᵀ v_t,  o_t = q_t S_t.  y = srmsnorm(o of all heads) W_oᵀ
//!
//! f is only needed as its log; how that keeps its digits stands in `gates`.

mod gates;

use domain::model::ModelConfig;
use tch::{Kind, Tensor};

use self::gates::{LogBound, gates};
use crate::ModelsError;
use crate::language_model::{Mixer, Next};
use crate::ops::gated_attention::{self, CHUNK, GateTable, gated_attention};
use crate::ops::norm::srmsnorm;
use crate::ops::recurrent::gated_after;
use crate::ops::table::{Key, TableCache};
use crate::ops::{Execution, Form, Linear, MatmulPrecision, forward_together, sizes};
use crate::parameters::{Init, Path};
use crate::past::Past;

/// The tensor `lower_bounds`, one for the model.
#[derive(Debug)]
pub(crate) struct LowerBounds {
    gamma: Tensor,
}

/// What one layer sees of it.
#[derive(Debug)]
pub(crate) struct LayerBound {
    gamma: Tensor,
    layer: i64,
}

impl LowerBounds {
    /// The tensor, all ones.
    pub(crate) fn new(path: &mut Path<'_>, config: &ModelConfig) -> Result<Self, ModelsError> {
        let shape = [i64::from(config.shape.n_layers), i64::from(config.shape.d_model)];
        let gamma = path.tensor("lower_bounds", &shape, Init::Constant(1.0))?;
        Ok(Self { gamma })
    }

    pub(crate) fn layer(&self, layer: u32) -> LayerBound {
        LayerBound { gamma: self.gamma.shallow_clone(), layer: i64::from(layer) }
    }
}

impl LayerBound {
    /// Zeros `[E]` that depend on Γ, in a model of one layer: nothing else there is made of Γ, and a
    /// parameter of the contract has a gradient, though it be zero.
    fn nothing(&self) -> Option<Tensor> {
        let [layers, _] = sizes(&self.gamma);
        (layers == 1).then(|| self.gamma.select(0, 0) * 0.0)
    }

    /// The logs of lb_ℓ and 1 − lb_ℓ, `[E]` each; none for the layer without bound. Both are
    /// log-sums of exponentials of disjoint rows, so neither loses digits to the other. In float64,
    /// because the gradients of the two cancel in the softmax where a bound is near 0 or 1.
    fn logs(&self) -> Option<LogBound> {
        if self.layer == 0 {
            return None;
        }
        let [layers, _] = sizes(&self.gamma);
        let gamma = self.gamma.to_kind(Kind::Double);
        let rows = |from: i64, count: i64| gamma.narrow(0, from, count);
        let above = rows(self.layer + 1, layers - self.layer - 1);
        let others = Tensor::cat(&[rows(0, 1), above], 0);
        let all = gamma.logsumexp([0], false);
        let share = |rows: &Tensor| (rows.logsumexp([0], false) - &all).to_kind(self.gamma.kind());
        Some(LogBound { bound: share(&rows(1, self.layer)), rest: share(&others) })
    }
}

/// Linear attention with a data-dependent decay per key channel.
#[derive(Debug)]
pub(crate) struct Hgrn2Mixer {
    heads: i64,
    eps: f64,
    bound: LayerBound,
    tables: TableCache<GateTable>,
    q: Linear,
    f: Linear,
    v: Linear,
    o: Linear,
}

impl Hgrn2Mixer {
    pub(crate) fn new(
        mut path: Path<'_>,
        config: &ModelConfig,
        bound: LayerBound,
    ) -> Result<Self, ModelsError> {
        let d = i64::from(config.shape.d_model);
        Ok(Self {
            heads: i64::from(config.shape.n_heads),
            eps: config.norm_eps,
            bound,
            tables: TableCache::new(),
            q: path.linear("q", d, d)?,
            f: path.linear("f", d, d)?,
            v: path.linear("v", d, d)?,
            o: path.linear("o", d, d)?,
        })
    }
}

impl Mixer for Hgrn2Mixer {
    fn forward(&self, x: &Tensor, execution: Execution) -> Tensor {
        self.mix(x, execution.precision, |inputs| {
            if execution.form == Form::Recurrent {
                return gated_attention::naive(inputs, None).0;
            }
            let key = Key::of(inputs[0], execution.form.chunk_or(CHUNK));
            let build = || GateTable::new(key.time, key.chunk, key.kind, key.device);
            self.tables.with(key, build, |table| gated_attention(inputs, table, None).0)
        })
    }

    fn no_past(&self, x: &Tensor) -> Past {
        let ([b, _, e], h) = (sizes(x), self.heads);
        Past::State(Tensor::zeros([b, h, e / h, e / h], (x.kind(), x.device())))
    }

    fn advance(&self, x: &Tensor, past: &mut Past, next: Next) -> Tensor {
        self.mix(x, next.precision, |inputs| gated_after(inputs, past.state()))
    }
}

impl Hgrn2Mixer {
    /// All but the attention, which is given q, k, v and log f, each `[B, T, H, K]`.
    fn mix(
        &self,
        x: &Tensor,
        precision: MatmulPrecision,
        attend: impl FnOnce([&Tensor; 4]) -> Tensor,
    ) -> Tensor {
        let ([b, t, e], h) = (sizes(x), self.heads);
        let heads = |y: Tensor| y.view([b, t, h, e / h]);
        let layers = [&self.q, &self.v, &self.f];
        let [q, v, z] = forward_together(layers, x, precision).map(|y| y.to_kind(x.kind()));
        let z = self.bound.nothing().map_or_else(|| z.shallow_clone(), |nothing| &z + nothing);
        let (q, v) = (heads(q.silu()), heads(v)); // [B, T, H, K], [B, T, H, V]
        let (log_forget, k) = gates(&z, self.bound.logs().as_ref());
        let (log_forget, k) = (heads(log_forget), heads(k)); // [B, T, H, K]
        let o = attend([&q, &k, &v, &log_forget]).reshape([b, t, e]); // [B, T, E]
        self.o.forward(&srmsnorm(&o, self.eps), precision) // [B, T, E]
    }
}

// Parameter groups: the four matrices decay, `lower_bounds` does not.

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn bounds_start_at_zero_grow_with_depth_and_stay_below_one() {
        let gamma = Tensor::ones([4, 3], (Kind::Double, Device::Cpu));
        for layer in 1..4 {
            let bound = LayerBound { gamma: gamma.shallow_clone(), layer };
            let logs = bound.logs().unwrap();
            let expected = layer as f64 / 4.0;
            assert!((logs.bound.exp().double_value(&[0]) - expected).abs() < 1e-14);
            assert!((logs.rest.exp().double_value(&[0]) - (1.0 - expected)).abs() < 1e-14);
        }
        assert!(LayerBound { gamma, layer: 0 }.logs().is_none());
    }
}
