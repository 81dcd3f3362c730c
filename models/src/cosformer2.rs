//! cosFormer2: Shen et al., "Scaling Laws for Linear Complexity Language Models", 2024,
//! <https://arxiv.org/abs/2406.16690>, section 2.2 and appendix A.1.4, after Qin et al., "cosFormer:
//! Rethinking Softmax in Attention", 2022, <https://arxiv.org/abs/2202.08791>.
//!
//! Built: linear attention without decay, LRPE in every layer, a Toeplitz position encoding before
//! the first layer, TNL's output gate. The authors published no code of it: the θ table is TNL's and
//! the exact form of TPE is the contract's reading of the published cost. Texts of up to 256 tokens go
//! through TPE by Fourier transforms, where a later token changes earlier outputs by rounding. Left
//! out: learned θ.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | x, the normed input | `x` | `[B, T, E]` |
//! | W_q, W_k, W_v, W_o | `q`, `k`, `v`, `o` | `[E, E]` |
//! | W_g1, W_g2 | `gate.down`, `gate.up` | `[r, E]`, `[E, r]` |
//! | θ | in `lrpe` | `[H, K]` |
//! | TPE | `CosFormer2Positions` | `[E, e]` |
//!
//! q = LRPE(SiLU(x W_qᵀ)), k = LRPE(SiLU(x W_kᵀ)), v = x W_vᵀ.
//! Per head:  S_t = S_{t−1} + k_tᵀ v_t,  o_t = q_t S_t.
//! y = [ sigmoid(x W_g1ᵀ W_g2ᵀ) ⊙ srmsnorm(o of all heads) ] W_oᵀ
//! Before layer 0 the scaled embedding goes through TPE (equations in `ops::toeplitz`).

use domain::model::{MixerConfig, ModelConfig};
use tch::Tensor;

use crate::ModelsError;
use crate::language_model::{Mixer, Next};
use crate::ops::decay_attention::{self, CHUNK, DecayTable, decay_attention};
use crate::ops::lrpe::{self, Lrpe, lrpe_at};
use crate::ops::norm::srmsnorm;
use crate::ops::output_gate::OutputGate;
use crate::ops::recurrent::{decay_after, toeplitz_after};
use crate::ops::table::{Key, TableCache};
use crate::ops::toeplitz::{FilterForm, Toeplitz};
use crate::ops::{Execution, Form, Linear, MatmulPrecision, forward_together, sizes};
use crate::parameters::{Init, Path};
use crate::past::Past;

/// Linear attention without decay.
#[derive(Debug)]
pub(crate) struct CosFormer2Mixer {
    heads: i64,
    eps: f64,
    lrpe: Lrpe,
    tables: TableCache<DecayTable>,
    q: Linear,
    k: Linear,
    v: Linear,
    gate: OutputGate,
    o: Linear,
}

impl CosFormer2Mixer {
    pub(crate) fn new(
        mut path: Path<'_>,
        config: &ModelConfig,
        lrpe: Lrpe,
    ) -> Result<Self, ModelsError> {
        let MixerConfig::CosFormer2 { gate_rank, .. } = config.mixer else {
            unreachable!("the skeleton chooses the mixer by the configuration");
        };
        let d = i64::from(config.shape.d_model);
        Ok(Self {
            heads: i64::from(config.shape.n_heads),
            eps: config.norm_eps,
            lrpe,
            tables: TableCache::new(),
            q: path.linear("q", d, d)?,
            k: path.linear("k", d, d)?,
            v: path.linear("v", d, d)?,
            gate: OutputGate::new(&mut path, d, i64::from(gate_rank))?,
            o: path.linear("o", d, d)?,
        })
    }

    /// −log λ of every head: nothing fades.
    fn rates(&self) -> Vec<f64> {
        vec![0.0; usize::try_from(self.heads).expect("the number of heads is small")]
    }

    fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, form: Form) -> Tensor {
        let rates = self.rates();
        if form == Form::Recurrent {
            let (q, k) = (lrpe::naive(q), lrpe::naive(k));
            return decay_attention::naive(&q, &k, v, &rates, None).0;
        }
        let key = Key::of(v, form.chunk_or(CHUNK));
        let build = || DecayTable::new(&rates, key.time, key.chunk, key.kind, key.device);
        let (q, k) = (self.lrpe.forward(q), self.lrpe.forward(k)); // [B, T, H, 2·K]
        self.tables.with(key, build, |table| decay_attention(&q, &k, v, table))
    }
}

impl Mixer for CosFormer2Mixer {
    fn forward(&self, x: &Tensor, execution: Execution) -> Tensor {
        self.mix(x, execution.precision, |q, k, v| self.attend(q, k, v, execution.form))
    }

    fn no_past(&self, x: &Tensor) -> Past {
        let ([b, _, e], h) = (sizes(x), self.heads);
        Past::State(Tensor::zeros([b, h, 2 * e / h, e / h], (x.kind(), x.device())))
    }

    fn advance(&self, x: &Tensor, past: &mut Past, next: Next) -> Tensor {
        self.mix(x, next.precision, |q, k, v| {
            let [q, k] = [q, k].map(|x| lrpe_at(x, next.position)); // [B, T, H, 2·K]
            decay_after([&q, &k, v], &self.rates(), past.state())
        })
    }
}

impl CosFormer2Mixer {
    /// All but the attention, which is given queries, keys and values `[B, T, H, K]`.
    fn mix(
        &self,
        x: &Tensor,
        precision: MatmulPrecision,
        attend: impl FnOnce(&Tensor, &Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let ([b, t, e], h) = (sizes(x), self.heads);
        let layers = [&self.q, &self.k, &self.v, self.gate.down()];
        let [q, k, v, inner] = forward_together(layers, x, precision);
        let heads = |y: Tensor| y.to_kind(x.kind()).view([b, t, h, e / h]);
        let [q, k, v] = [q, k, v].map(heads); // [B, T, H, K]
        let o = attend(&q.silu(), &k.silu(), &v).reshape([b, t, e]); // [B, T, E]
        let gate = self.gate.open(&inner, precision, x.kind());
        let gated = gate * srmsnorm(&o, self.eps);
        self.o.forward(&gated, precision) // [B, T, E]
    }
}

/// The position encoding before layer 0, the tensor `tpe.weight`.
#[derive(Debug)]
pub(crate) struct CosFormer2Positions {
    weight: Tensor,
    toeplitz: Toeplitz,
}

impl CosFormer2Positions {
    /// The encoding, at first the identity, if the configuration has it.
    pub(crate) fn new(
        path: &mut Path<'_>,
        config: &ModelConfig,
    ) -> Result<Option<Self>, ModelsError> {
        let MixerConfig::CosFormer2 { tpe_modes: tpe_modes @ 1.., .. } = config.mixer else {
            return Ok(None);
        };
        let shape = [i64::from(config.shape.d_model), i64::from(tpe_modes)];
        let weight = path.sub("tpe").tensor("weight", &shape, Init::FirstColumn)?;
        Ok(Some(Self { toeplitz: Toeplitz::new(weight.shallow_clone()), weight }))
    }

    /// x `[B, T, E]`, the scaled embedding, to `[B, T, E]`.
    pub(crate) fn forward(&self, x: &Tensor, form: Form) -> Tensor {
        match form {
            Form::Fast => self.toeplitz.forward(x, FilterForm::Fastest),
            Form::Chunked(chunk) => self.toeplitz.forward(x, FilterForm::Chunked(chunk.max(1))),
            Form::Recurrent => self.toeplitz.forward_naive(x),
        }
    }

    /// The modes before the first token, for x `[B, 0, E]`: `[B, E, e]`.
    pub(crate) fn no_past(&self, x: &Tensor) -> Tensor {
        let ([b, _, _], [e, modes]) = (sizes(x), sizes(&self.weight));
        Tensor::zeros([b, e, modes], (x.kind(), x.device()))
    }

    /// As `forward`, for the tokens that follow those in `modes`, which move on over them.
    pub(crate) fn advance(&self, x: &Tensor, modes: &mut Tensor) -> Tensor {
        toeplitz_after(&self.toeplitz, &self.weight, x, modes)
    }
}

// Parameter groups: the mixer's six matrices decay, `tpe.weight` does not.
