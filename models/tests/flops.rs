//! `flops_exact` is what libtorch is asked for: the multiply-adds of a forward pass, counted from the
//! operations that run and the sizes they are given.
//!
//! The formula names a form: softmax attention over the full T × T, linear mixers in chunks of d_h
//! tokens. Two things are counted: the contract written down plainly in that form, which must give
//! the model's logits; and the model itself, as far as it takes that way: all of `llama`, every
//! product with a weight, and `tnl` and `cosformer2` in chunks of d_h. `hgrn2` makes its scores by
//! halves of halves, and the position encoding of `cosformer2` is a convolution where it runs.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod enlarged;
mod operations;

use std::collections::HashMap;

use domain::model::{Architecture, FfnActivation, MixerConfig, ModelConfig, Norm, Rope, Shape};
use enlarged::enlarged;
use models::{Form, LanguageModel};
use operations::multiply_adds;
use tch::{Device, Kind, Tensor};
use torch_ext::{Operation, record_operations};

/// Largest difference of the model's float32 logits and the plain form's float64 ones, over the
/// largest logit.
const LOGITS_TOLERANCE: f64 = 1e-5;

const BATCH: i64 = 2;

/// Multiply-adds of the products with weights: `linear` stands before the product it is made of.
fn weight_multiply_adds(operations: &[Operation]) -> i64 {
    let linear = operations.iter().filter(|operation| operation.name == "aten::linear");
    linear.map(|linear| linear.sizes[0].iter().product::<i64>() * linear.sizes[1][0]).sum()
}

/// The operations of the formula for the whole batch, forward.
fn expected(config: &ModelConfig, time: i64, terms: impl Fn(&str) -> bool) -> i64 {
    let count = config.flops_exact(u64::try_from(time).unwrap());
    let per_token: f64 = count.terms.iter().filter(|t| terms(t.name)).map(|t| t.flops / 3.0).sum();
    #[expect(clippy::cast_possible_truncation, reason = "a whole number far below 2^53")]
    let operations = (per_token * (BATCH * time) as f64).round() as i64;
    operations
}

/// The contract (`docs`, checkpoint format) in plain operations in float64.
struct Plain {
    config: ModelConfig,
    tensors: HashMap<String, Tensor>,
}

impl Plain {
    fn of(model: &LanguageModel) -> Self {
        let tensors = model.named_parameters().into_iter();
        let wide = |(name, tensor): (String, Tensor)| (name, tensor.detach().to_kind(Kind::Double));
        Self { config: *model.config(), tensors: tensors.map(wide).collect() }
    }

    /// A tensor, by any name where the configuration says that it is there.
    fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no `{name}`"))
    }

    fn linear(&self, x: &Tensor, name: &str) -> Tensor {
        x.matmul(&self.tensor(&format!("{name}.weight")).transpose(0, 1))
    }

    fn srmsnorm(&self, x: &Tensor) -> Tensor {
        let square = x.square().mean_dim(-1, true, None::<Kind>);
        x / (square + self.config.norm_eps).sqrt()
    }

    fn norm(&self, x: &Tensor, name: &str) -> Tensor {
        let weight = |part: &str| self.tensor(&format!("{name}.{part}"));
        match self.config.norm {
            Norm::SrmsNorm => self.srmsnorm(x),
            Norm::RmsNorm => self.srmsnorm(x) * weight("weight"),
            Norm::LayerNorm => {
                let centred = x - x.mean_dim(-1, true, None::<Kind>);
                self.srmsnorm(&centred) * weight("weight") + weight("bias")
            }
        }
    }

    fn forward(&self, tokens: &Tensor) -> Tensor {
        let Shape { d_model, n_layers, .. } = self.config.shape;
        let embedding = self.tensor("embedding.weight");
        let mut x = Tensor::embedding(embedding, tokens, -1, false, false);
        if self.config.embedding_scale {
            x *= f64::from(d_model).sqrt();
        }
        if self.tensors.contains_key("tpe.weight") {
            x = toeplitz(&x, self.tensor("tpe.weight"));
        }
        for layer in 0..n_layers {
            let name = format!("layers.{layer}");
            let normed = self.norm(&x, &format!("{name}.mixer_norm"));
            x += self.mixer(&normed, layer, &format!("{name}.mixer"));
            let normed = self.norm(&x, &format!("{name}.channel_norm"));
            let gate = self.linear(&normed, &format!("{name}.channel.gate"));
            let gate = match self.config.ffn_activation {
                FfnActivation::Silu => gate.silu(),
                FfnActivation::Identity => gate,
            };
            let hidden = gate * self.linear(&normed, &format!("{name}.channel.up"));
            x += self.linear(&hidden, &format!("{name}.channel.down"));
        }
        let x = self.norm(&x, "final_norm");
        let head = if self.config.tie_embeddings { "embedding" } else { "head" };
        self.linear(&x, head)
    }

    fn mixer(&self, n: &Tensor, layer: u32, name: &str) -> Tensor {
        let of = |part: &str| self.linear(n, &format!("{name}.{part}"));
        let (heads, width) = (self.config.shape.n_heads, self.config.head_width());
        let split = |x: Tensor| by_head(&x, width);
        let joined = |o: Tensor| o.transpose(1, 2).reshape(n.size());
        let mixed = match self.config.mixer {
            MixerConfig::Llama { rope, rope_base, .. } => {
                let turn = |x: Tensor| rotate(&x, rope, rope_base);
                let (q, k, v) = (turn(split(of("q"))), turn(split(of("k"))), split(of("v")));
                joined(softmax_attention(&q, &k, &v))
            }
            MixerConfig::Tnl { .. } => {
                let [q, k, v] = ["q", "k", "v"].map(|part| split(of(part).silu()));
                let encode = |x: Tensor| if layer == 0 { lrpe(&x) } else { x };
                let depth = f64::from(layer) / f64::from(self.config.shape.n_layers - 1);
                // The ladder of 2 heads is 2⁻⁴, 2⁻⁸.
                assert_eq!(heads, 2);
                let slopes = Tensor::from_slice(&[0.0625, 0.003_906_25]).view([2, 1, 1]);
                let log_decay = slopes * -(1.0 - depth + 1e-5);
                let (q, k) = (encode(q), encode(k));
                let log_decay = log_decay.expand_as(&q);
                self.gated(n, &joined(in_chunks(&q, &k, &v, &log_decay, width)), name)
            }
            MixerConfig::Hgrn2 => {
                let share = self.tensor("lower_bounds").softmax(0, None::<Kind>);
                let bound = share.narrow(0, 0, i64::from(layer) + 1).sum_dim_intlist(
                    0,
                    false,
                    None::<Kind>,
                ) - share.select(0, 0);
                let rest: Tensor = 1.0 - &bound;
                let forget: Tensor = bound + rest * of("f").sigmoid();
                let (q, k) = (split(of("q").silu()), split(1.0 - &forget));
                self.srmsnorm(&joined(in_chunks(
                    &q,
                    &k,
                    &split(of("v")),
                    &split(forget.log()),
                    width,
                )))
            }
            MixerConfig::CosFormer2 { .. } => {
                let [q, k] = ["q", "k"].map(|part| lrpe(&split(of(part).silu())));
                let no_decay = q.zeros_like();
                let o = in_chunks(&q, &k, &split(of("v")), &no_decay, width);
                self.gated(n, &joined(o), name)
            }
        };
        self.linear(&mixed, &format!("{name}.o"))
    }

    /// The output gate of `tnl` and `cosformer2`.
    fn gated(&self, n: &Tensor, o: &Tensor, name: &str) -> Tensor {
        let low = self.linear(n, &format!("{name}.gate_down"));
        self.linear(&low, &format!("{name}.gate_up")).sigmoid() * self.srmsnorm(o)
    }
}

/// `[B, T, h·d_h]` to `[B, h, T, d_h]`.
fn by_head(x: &Tensor, width: u32) -> Tensor {
    let [b, t, _] = x.size()[..] else { panic!("x is [B, T, E]") };
    x.view([b, t, -1, i64::from(width)]).transpose(1, 2)
}

/// Positions `[T, 1]` times frequencies per flat index.
fn angles(time: i64, frequencies: &[f64]) -> Tensor {
    let positions = Tensor::arange(time, (Kind::Double, Device::Cpu)).unsqueeze(-1);
    positions * Tensor::from_slice(frequencies)
}

/// x `[B, h, T, d_h]`, turned pair by pair.
fn rotate(x: &Tensor, rope: Rope, base: f64) -> Tensor {
    let [_, heads, time, width] = x.size()[..] else { panic!("x is [B, h, T, d_h]") };
    let half = width / 2;
    let power = |index: i64, of: i64| base.powf(-2.0 * index as f64 / of as f64);
    match rope {
        Rope::Half => {
            let angle = angles(time, &(0..half).map(|j| power(j, width)).collect::<Vec<_>>());
            let (a, b) = (x.narrow(-1, 0, half), x.narrow(-1, half, half));
            let (cos, sin) = (angle.cos(), angle.sin());
            Tensor::cat(&[&a * &cos - &b * &sin, a * sin + b * cos], -1)
        }
        Rope::InterleavedFull => {
            let all: Vec<f64> = (0..heads * half).map(|m| power(m, heads * width)).collect();
            let angle = angles(time, &all).view([time, heads, half]).transpose(0, 1);
            let pairs = x.unflatten(-1, [half, 2]);
            let (a, b) = (pairs.select(-1, 0), pairs.select(-1, 1));
            let (cos, sin) = (angle.cos(), angle.sin());
            Tensor::stack(&[&a * &cos - &b * &sin, a * sin + b * cos], -1).flatten(-2, -1)
        }
    }
}

/// Softmax attention over the full T × T; shared keys and values are repeated.
fn softmax_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let [_, heads, time, width] = q.size()[..] else { panic!("q is [B, h, T, d_h]") };
    let each = |x: &Tensor| x.repeat_interleave_self_int(heads / x.size()[1], 1, None);
    let scores = q.matmul(&each(k).transpose(-1, -2)) / (width as f64).sqrt();
    let later = Tensor::ones([time, time], (Kind::Bool, Device::Cpu)).triu(1);
    scores.masked_fill(&later, f64::NEG_INFINITY).softmax(-1, None::<Kind>).matmul(&each(v))
}

/// x `[B, h, T, d_h]` to `[B, h, T, 2·d_h]`.
fn lrpe(x: &Tensor) -> Tensor {
    let [_, heads, time, width] = x.size()[..] else { panic!("x is [B, h, T, d_h]") };
    let all = heads * width;
    let theta: Vec<f64> = (0..all).map(|m| 10_000_f64.powf(-2.0 * m as f64 / all as f64)).collect();
    let angle = angles(time, &theta).view([time, heads, width]).transpose(0, 1);
    Tensor::cat(&[x * angle.cos(), x * angle.sin()], -1)
}

/// The linear mixers' S_t = Diag(f_t) S_{t−1} + k_tᵀ v_t, o_t = q_t S_t in chunks of d_h tokens
/// (linear-model study's notes, section 3.2, vector decay; a scalar one is the same number in every
/// channel). Every chunk reads a state and writes one. The gates here are mild enough for e^{−β}.
fn in_chunks(q: &Tensor, k: &Tensor, v: &Tensor, log_forget: &Tensor, chunk: u32) -> Tensor {
    let [b, heads, time, key] = q.size()[..] else { panic!("q is [B, h, T, d_k]") };
    let chunk = i64::from(chunk);
    assert_eq!(time % chunk, 0, "the formula counts whole chunks");
    let mut state = Tensor::zeros([b, heads, key, v.size()[3]], (Kind::Double, Device::Cpu));
    let mut outputs = Vec::new();
    for first in (0..time).step_by(usize::try_from(chunk).unwrap()) {
        let part = |x: &Tensor| x.narrow(2, first, chunk);
        let beta = part(log_forget).cumsum(2, None::<Kind>);
        let total = beta.narrow(2, chunk - 1, 1);
        let faded = part(q) * beta.exp();
        let scores = faded.matmul(&(part(k) * (-&beta).exp()).transpose(-1, -2)).tril(0);
        outputs.push(scores.matmul(&part(v)) + faded.matmul(&state));
        let written = (part(k) * (&total - &beta).exp()).transpose(-1, -2).matmul(&part(v));
        state = total.exp().transpose(-1, -2) * state + written;
    }
    Tensor::cat(&outputs, 2)
}

/// u_t = λ u_{t−1} + x_t, y_t = Σ_j w_j u_t[j] for each channel: a multiply-add for each mode twice.
fn toeplitz(x: &Tensor, weight: &Tensor) -> Tensor {
    let modes = weight.size()[1];
    let decay = |mode: i64| match mode {
        0 => 0.0,
        _ => (-(-10.0 * (mode - 1) as f64 / (modes - 2).max(1) as f64).exp2()).exp(),
    };
    let decays = Tensor::from_slice(&(0..modes).map(decay).collect::<Vec<_>>());
    let mut state = (x.select(1, 0).unsqueeze(-1) * &decays).zeros_like(); // [B, d, e]
    let mut outputs = Vec::new();
    for position in 0..x.size()[1] {
        state = x.select(1, position).unsqueeze(-1).addcmul(&decays, &state);
        outputs.push(state.unsqueeze(-2).matmul(&weight.unsqueeze(-1)).flatten(1, -1)); // [B, d]
    }
    Tensor::stack(&outputs, 1)
}

fn check(config: &ModelConfig, time: i64) {
    let mut model = enlarged(config, Device::Cpu);
    tch::manual_seed(time);
    let tokens = Tensor::randint(
        i64::from(config.shape.vocab_size),
        [BATCH, time],
        (Kind::Int64, Device::Cpu),
    );
    let plain = Plain::of(&model);
    let (found, operations) =
        tch::no_grad(|| record_operations(|| plain.forward(&tokens)).unwrap());
    let counted = multiply_adds(&operations);
    assert_eq!(2 * counted, expected(config, time, |_| true), "{config:?}");

    let (logits, operations) =
        tch::no_grad(|| record_operations(|| model.forward(&tokens)).unwrap());
    let largest = |x: &Tensor| x.abs().max().double_value(&[]);
    let error = largest(&(&logits - &found)) / largest(&found);
    assert!(error < LOGITS_TOLERANCE, "{config:?}: the plain form is off by {error:e}");

    let of_weights = |term: &str| term != "mixing" && term != "position_encoding";
    let counted = weight_multiply_adds(&operations);
    assert_eq!(2 * counted, expected(config, time, of_weights), "{config:?}");
    if config.architecture() == Architecture::Llama {
        let counted = multiply_adds(&operations);
        assert_eq!(2 * counted, expected(config, time, |_| true), "{config:?} as it runs");
        let text = Tensor::cat(&[&tokens, &tokens.narrow(1, 0, 1)], 1);
        let ((), operations) = record_operations(|| model.loss(&text).backward()).unwrap();
        let counted = multiply_adds(&operations);
        assert_eq!(2 * counted, 3 * expected(config, time, |_| true), "{config:?} in training");
    }
    if runs_in_chunks(config.mixer) {
        model.set_form(Form::Chunked(i64::from(config.head_width())));
        let (_, mut operations) =
            tch::no_grad(|| record_operations(|| model.forward(&tokens)).unwrap());
        // The fade of a state before the next chunk adds to it is element-wise.
        operations.retain(|operation| operation.name != "aten::addcmul");
        let counted = multiply_adds(&operations);
        assert_eq!(2 * counted, expected(config, time, |_| true), "{config:?} as it runs");
    }
}

/// Whether every product of the formula is one that the model's own kernel issues in chunks of d_h.
fn runs_in_chunks(mixer: MixerConfig) -> bool {
    matches!(mixer, MixerConfig::Tnl { .. } | MixerConfig::CosFormer2 { tpe_modes: 0, .. })
}

fn config(architecture: Architecture, n_layers: u32) -> ModelConfig {
    let shape = Shape { vocab_size: 31, d_model: 16, n_layers, n_heads: 2, ffn_hidden: 42 };
    ModelConfig::new(architecture, shape).unwrap()
}

#[test]
fn the_count_of_llama_is_what_runs() {
    let plain = config(Architecture::Llama, 2);
    check(&plain, 8);
    check(&plain, 21);
    let MixerConfig::Llama { rope_base, .. } = plain.mixer else { panic!("asked for llama") };
    let shared = MixerConfig::Llama { n_kv_heads: 1, rope: Rope::Half, rope_base };
    check(&ModelConfig { mixer: shared, tie_embeddings: false, ..plain }, 24);
    let study = MixerConfig::Llama { n_kv_heads: 2, rope: Rope::InterleavedFull, rope_base };
    let norm = Norm::LayerNorm;
    check(&ModelConfig { mixer: study, norm, embedding_scale: true, ..plain }, 24);
}

#[test]
fn the_count_of_tnl_is_what_runs() {
    for n_layers in [2, 3] {
        check(&config(Architecture::Tnl, n_layers), 24);
    }
    let mixer = MixerConfig::Tnl { gate_rank: 5 };
    check(&ModelConfig { mixer, ..config(Architecture::Tnl, 2) }, 8);
}

#[test]
fn the_count_of_hgrn2_is_what_runs() {
    for n_layers in [1, 3] {
        check(&config(Architecture::Hgrn2, n_layers), 24);
    }
    check(&ModelConfig { tie_embeddings: false, ..config(Architecture::Hgrn2, 2) }, 8);
}

#[test]
fn the_count_of_cosformer2_is_what_runs() {
    check(&config(Architecture::CosFormer2, 2), 24);
    for tpe_modes in [0, 1, 3] {
        let mixer = MixerConfig::CosFormer2 { gate_rank: 5, tpe_modes };
        check(&ModelConfig { mixer, ..config(Architecture::CosFormer2, 1) }, 16);
    }
}
