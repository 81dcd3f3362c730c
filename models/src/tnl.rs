//! TNL: Qin et al., "TransNormerLLM: A Faster and Better Large Language Model with Improved
//! TransNormer", 2023, <https://arxiv.org/abs/2307.14995>, in the form of "Various Lengths, Constant
//! Speed", 2024, <https://arxiv.org/abs/2405.17381>, that "Scaling Laws for Linear Complexity
//! Language Models", 2024, <https://arxiv.org/abs/2406.16690>, trained.
//!
//! Built: linear attention with a fixed decay per head and layer, LRPE in the first layer, a
//! low-rank output gate. It differs from the paper's text where the authors' code does: the decay
//! ladder is geometric (ALiBi's), SiLU is applied to values too, the gate reads the normed input.
//! Left out: learned θ.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | x, the normed input | `x` | `[B, T, E]` |
//! | W_q, W_k, W_v, W_o | `q`, `k`, `v`, `o` | `[E, E]` |
//! | W_g1, W_g2 | `gate.down`, `gate.up` | `[r, E]`, `[E, r]` |
//! | λ | `rates` = −log λ | `[H]` |
//! | θ | in `lrpe` | `[H, K]` |
//!
//! q = SiLU(x W_qᵀ), k = SiLU(x W_kᵀ), v = SiLU(x W_vᵀ); in layer 0 q and k go through LRPE.
//! Per head:  S_t = λ S_{t−1} + k_tᵀ v_t,  o_t = q_t S_t.
//! y = [ sigmoid(x W_g1ᵀ W_g2ᵀ) ⊙ srmsnorm(o of all heads) ] W_oᵀ
//! λ of head i in layer ℓ is exp(−s_i (1 − ℓ/(L−1) + 1e-5)) with s the ALiBi ladder.

use domain::model::{MixerConfig, ModelConfig};
use tch::Tensor;

use crate::ModelsError;
use crate::language_model::{Mixer, Next};
use crate::ops::decay_attention::{self, CHUNK, DecayTable, decay_attention};
use crate::ops::lrpe::{self, Lrpe, lrpe_at};
use crate::ops::norm::srmsnorm;
use crate::ops::output_gate::OutputGate;
use crate::ops::recurrent::decay_after;
use crate::ops::table::{Key, TableCache};
use crate::ops::{Execution, Form, Linear, MatmulPrecision, forward_together, sizes};
use crate::parameters::Path;
use crate::past::Past;

/// Linear attention with a fixed decay per head.
#[derive(Debug)]
pub(crate) struct TnlMixer {
    eps: f64,
    rates: Vec<f64>,
    lrpe: Option<Lrpe>,
    tables: TableCache<DecayTable>,
    q: Linear,
    k: Linear,
    v: Linear,
    gate: OutputGate,
    o: Linear,
}

impl TnlMixer {
    pub(crate) fn new(
        mut path: Path<'_>,
        config: &ModelConfig,
        layer: u32,
    ) -> Result<Self, ModelsError> {
        let MixerConfig::Tnl { gate_rank } = config.mixer else {
            unreachable!("the skeleton chooses the mixer by the configuration");
        };
        let d = i64::from(config.shape.d_model);
        Ok(Self {
            eps: config.norm_eps,
            rates: rates(config.shape.n_heads, layer, config.shape.n_layers),
            lrpe: (layer == 0).then(Lrpe::new),
            tables: TableCache::new(),
            q: path.linear("q", d, d)?,
            k: path.linear("k", d, d)?,
            v: path.linear("v", d, d)?,
            gate: OutputGate::new(&mut path, d, i64::from(gate_rank))?,
            o: path.linear("o", d, d)?,
        })
    }

    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, form: Form) -> Tensor {
        if form == Form::Recurrent {
            let (q, k) = match self.lrpe {
                Some(_) => (lrpe::naive(q), lrpe::naive(k)),
                None => (q.shallow_clone(), k.shallow_clone()),
            };
            return decay_attention::naive(&q, &k, v, &self.rates, None).0;
        }
        let key = Key::of(v, form.chunk_or(CHUNK));
        let build = || DecayTable::new(&self.rates, key.time, key.chunk, key.kind, key.device);
        self.tables.with(key, build, |table| match &self.lrpe {
            Some(lrpe) => decay_attention(&lrpe.forward(q), &lrpe.forward(k), v, table),
            None => decay_attention(q, k, v, table),
        })
    }
}

impl Mixer for TnlMixer {
    fn forward(&self, x: &Tensor, execution: Execution) -> Tensor {
        self.mix(x, execution.precision, |q, k, v| self.attend(q, k, v, execution.form))
    }

    fn no_past(&self, x: &Tensor) -> Past {
        let ([b, _, e], h) = (sizes(x), self.heads());
        let key = if self.lrpe.is_some() { 2 * e / h } else { e / h };
        Past::State(Tensor::zeros([b, h, key, e / h], (x.kind(), x.device())))
    }

    fn advance(&self, x: &Tensor, past: &mut Past, next: Next) -> Tensor {
        self.mix(x, next.precision, |q, k, v| match self.lrpe {
            Some(_) => {
                let [q, k] = [q, k].map(|x| lrpe_at(x, next.position)); // [B, T, H, 2·K]
                decay_after([&q, &k, v], &self.rates, past.state())
            }
            None => decay_after([q, k, v], &self.rates, past.state()),
        })
    }
}

impl TnlMixer {
    fn heads(&self) -> i64 {
        i64::try_from(self.rates.len()).expect("the number of heads is small")
    }

    /// All but the attention, which is given queries, keys and values `[B, T, H, K]`.
    fn mix(
        &self,
        x: &Tensor,
        precision: MatmulPrecision,
        attend: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let [b, t, e] = sizes(x);
        let h = self.heads();
        let layers = [&self.q, &self.k, &self.v, self.gate.down()];
        let [q, k, v, inner] = forward_together(layers, x, precision);
        let heads = |y: Tensor| y.to_kind(x.kind()).silu().view([b, t, h, e / h]);
        let [q, k, v] = [q, k, v].map(heads); // [B, T, H, K]
        let o = attend(&q, &k, &v).reshape([b, t, e]); // [B, T, E]
        let gate = self.gate.open(&inner, precision, x.kind());
        let gated = gate * srmsnorm(&o, self.eps);
        self.o.forward(&gated, precision) // [B, T, E]
    }
}

/// −log λ of every head in a layer; L ≥ 2.
fn rates(heads: u32, layer: u32, layers: u32) -> Vec<f64> {
    let depth = f64::from(layer) / f64::from(layers - 1);
    ladder(heads).into_iter().map(|slope| slope * (1.0 - depth + 1e-5)).collect()
}

/// The ALiBi ladder: 2^(−8(i+1)/h) for a power of two; else the ladder of the largest power of two
/// p below h, then every other entry of the ladder of 2p. Not sorted.
fn ladder(heads: u32) -> Vec<f64> {
    let of_power = |count: u32| {
        (1..=count).map(move |step| (-8.0 * f64::from(step) / f64::from(count)).exp2())
    };
    if heads.is_power_of_two() {
        return of_power(heads).collect();
    }
    let below = 1 << heads.ilog2();
    of_power(below).chain(of_power(2 * below).step_by(2)).take(heads as usize).collect()
}

// Parameter groups: all six matrices decay.

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_is_that_of_the_contract() {
        let check = |heads: u32, powers: &[f64]| {
            let expected: Vec<f64> = powers.iter().map(|power: &f64| power.exp2()).collect();
            assert_eq!(ladder(heads), expected);
        };
        check(1, &[-8.0]);
        check(2, &[-4.0, -8.0]);
        check(3, &[-4.0, -8.0, -2.0]);
        check(4, &[-2.0, -4.0, -6.0, -8.0]);
        check(6, &[-2.0, -4.0, -6.0, -8.0, -1.0, -3.0]);
        assert_eq!(ladder(20).len(), 20);
        assert!((ladder(20)[16] - 0.840_896).abs() < 1e-6);
    }

    #[test]
    fn decay_fades_from_the_first_layer_to_the_last() {
        assert_eq!(rates(2, 0, 3)[0], 0.0625 * 1.00001);
        assert!((rates(2, 1, 3)[0] - 0.0625 * 0.50001).abs() < 1e-15);
        assert!((rates(2, 2, 3)[0] - 0.0625e-5).abs() < 1e-15);
    }
}
