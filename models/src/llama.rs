//! LLaMA: Touvron et al., "LLaMA: Open and Efficient Foundation Language Models", 2023,
//! <https://arxiv.org/abs/2302.13971>; grouped queries as in LLaMA 2.
//!
//! Built: causal softmax attention with rotary positions. The defaults of the contract are the
//! common open weights; the preset `llama_study` is the baseline of "Scaling Laws for Linear
//! Complexity Language Models" (arXiv 2406.16690), whose rotation runs its frequencies over all
//! heads. Keys are kept rotated while text is generated, so that each is rotated once.
//!
//! | paper | here | shape |
//! |---|---|---|
//! | x, the normed input | `x` | `[B, T, E]` |
//! | W_q, W_o | `q`, `o` | `[E, E]` |
//! | W_k, W_v | `k`, `v` | `[n_kv_heads·K, E]` |
//! | d_h | `K` | |
//!
//! Per head:  q = R_t x W_qᵀ,  k = R_t x W_kᵀ,  v = x W_vᵀ,
//!            o_t = Σ_{s≤t} softmax_s(q_t · k_s / √d_h) v_s,  y = [o of all heads] W_oᵀ
//! with R_t the rotation of the channel pairs by the position. Query head i reads key/value head
//! ⌊i · n_kv_heads / h⌋.

use domain::model::{MixerConfig, ModelConfig};
use tch::{Kind, Tensor};
use torch_ext::{Forward, multiplies_bf16};

use crate::ModelsError;
use crate::language_model::{Mixer, Next};
use crate::ops::graph::in_graph;
use crate::ops::rotary::Rotary;
use crate::ops::{Execution, Form, Linear, forward_together, sizes};
use crate::parameters::Path;
use crate::past::{Cache, Past};

/// Causal softmax attention with rotary positions.
#[derive(Debug)]
pub(crate) struct LlamaMixer {
    heads: i64,
    kv_heads: i64,
    rotary: Rotary,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
}

impl LlamaMixer {
    pub(crate) fn new(
        mut path: Path<'_>,
        config: &ModelConfig,
        rotary: Rotary,
    ) -> Result<Self, ModelsError> {
        let MixerConfig::Llama { n_kv_heads, .. } = config.mixer else {
            unreachable!("the skeleton chooses the mixer by the configuration");
        };
        let d = i64::from(config.shape.d_model);
        let kv_width = i64::from(n_kv_heads) * i64::from(config.head_width());
        Ok(Self {
            heads: i64::from(config.shape.n_heads),
            kv_heads: i64::from(n_kv_heads),
            rotary,
            q: path.linear("q", d, d)?,
            k: path.linear("k", kv_width, d)?,
            v: path.linear("v", kv_width, d)?,
            o: path.linear("o", d, d)?,
        })
    }
}

impl Mixer for LlamaMixer {
    fn forward(&self, x: &Tensor, execution: Execution) -> Tensor {
        let [b, t, e] = sizes(x);
        let (precision, h) = (execution.precision, self.heads);
        let heads = |y: &Tensor, count: i64| y.view([b, t, count, e / h]);
        let turned = |y: &Tensor, count| self.rotary.forward(&heads(y, count).to_kind(x.kind()));
        let [q, k, v] = forward_together([&self.q, &self.k, &self.v], x, precision);
        let (q, k) = (turned(&q, h), turned(&k, self.kv_heads)); // [B, T, H, K]
        // A part of the joint product would keep all of it until the backward pass.
        let v = heads(&v, self.kv_heads).contiguous();
        let (k, v) = (for_each_query(&k, h), for_each_query(&v, h)); // [B, T, H, K]
        let o = match execution.form {
            Form::Recurrent => naive(&q, &k, &v.to_kind(x.kind())),
            Form::Fast | Form::Chunked(_) => {
                let [q, k, v] = [&q, &k, &v].map(|y| precision.rounded(y));
                precision.rounded(&softmax_attention(&q, &k, &v))
            }
        };
        self.o.forward(&o.reshape([b, t, e]), precision).to_kind(x.kind()) // [B, T, E]
    }

    fn no_past(&self, _x: &Tensor) -> Past {
        Past::Cache(Cache::default())
    }

    fn advance(&self, x: &Tensor, past: &mut Past, next: Next) -> Tensor {
        let [b, t, e] = sizes(x);
        let (Next { position, precision }, h) = (next, self.heads);
        let heads = |y: &Tensor, count: i64| y.view([b, t, count, e / h]);
        let turned = |y: &Tensor, count| self.rotary.forward_at(&heads(y, count), position);
        let q = turned(&self.q.forward(x, precision), h); // [B, T, H, K]
        let k = turned(&self.k.forward(x, precision), self.kv_heads);
        let v = heads(&self.v.forward(x, precision), self.kv_heads);
        let (k, v) = past.cache().append(&k, &v); // [B, S, kv_heads, K]
        let o = if t == 1 { attend_one(&q, &k, &v) } else { attend_after(&q, &k, &v) };
        self.o.forward(&o.reshape([b, t, e]), precision) // [B, T, E]
    }
}

/// The attention of the last token over all S: q `[B, 1, H, K]`, k and v `[B, S, kv_heads, K]`.
/// The queries that share a key stand where the fused kernel expects one query per token; the result
/// is `[B, 1, H, K]`.
fn attend_one(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let ([b, _, h, key], [_, _, kv_heads, _]) = (sizes(q), sizes(k));
    let q = q.view([b, kv_heads, h / kv_heads, key]).transpose(1, 2);
    fused_attention(&q, k, v, None, false).transpose(1, 2).reshape([b, 1, h, key])
}

/// The attention of the last T of S tokens, each over those up to itself: q `[B, T, H, K]`, k and v
/// `[B, S, kv_heads, K]`.
fn attend_after(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let ([_, t, h, _], [_, s, _, _]) = (sizes(q), sizes(k));
    let (k, v) = (for_each_query(k, h), for_each_query(v, h));
    if s == t {
        return softmax_attention(q, &k, &v);
    }
    let seen = Tensor::ones([t, s], (Kind::Bool, q.device())).tril(s - t);
    fused_attention(q, &k, &v, Some(&seen), false)
}

/// Repeats shared keys or values, so that each of H query heads has its own.
fn for_each_query(x: &Tensor, heads: i64) -> Tensor {
    let [_, _, kv_heads, _] = sizes(x);
    if kv_heads == heads {
        return x.shallow_clone();
    }
    x.repeat_interleave_self_int(heads / kv_heads, 2, None)
}

/// Causal attention, scaled by 1/√K: q, k, v and the result `[B, T, H, K]`, which is float32 where the
/// device does not multiply the bfloat16 numbers that it is given.
fn softmax_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    if q.kind() == Kind::BFloat16 && !multiplies_bf16(q.device()) {
        return widened_attention(q, k, v);
    }
    fused_attention(q, k, v, None, true)
}

/// The same on a CPU for bfloat16 numbers as float32. They are saved as they are: what the fused kernel's
/// own backward pass keeps would be twice as large.
fn widened_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let by_head = |x: &Tensor| x.transpose(1, 2).to_kind(Kind::Float); // [B, H, T, K]
    let (o, log_total) = tch::no_grad(|| {
        let [q, k, v] = [q, k, v].map(by_head);
        let seen = None::<&Tensor>;
        Tensor::internal_scaled_dot_product_flash_attention_for_cpu(
            &q, &k, &v, 0.0, true, seen, None,
        )
    });
    let forward = Forward {
        name: "widened_attention",
        inputs: &[q, k, v],
        outputs: &[&o],
        saved: &[q, k, v, &o, &log_total],
    };
    let [o] = in_graph(&forward, move |given| {
        let [q, k, v, o, log_total] = given.saved else { unreachable!("five tensors are saved") };
        let d_output = given.gradients[0].as_ref().expect("the only output has the gradient");
        let ([q, k, v], seen) = ([q, k, v].map(by_head), None::<&Tensor>);
        let (dq, dk, dv) = Tensor::internal_scaled_dot_product_flash_attention_for_cpu_backward(
            d_output, &q, &k, &v, o, log_total, 0.0, true, seen, None,
        );
        let back = |x: Tensor| Some(x.transpose(1, 2).to_kind(Kind::BFloat16));
        vec![back(dq), back(dk), back(dv)]
    });
    o.transpose(1, 2) // [B, T, H, K]
}

/// Attention, scaled by 1/√K, over all keys, or those up to the query, or those that `seen`
/// `[T, S]` marks: q and the result `[B, T, H, K]`, k and v `[B, S, H, K]`.
fn fused_attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    seen: Option<&Tensor>,
    is_causal: bool,
) -> Tensor {
    let by_head = |x: &Tensor| x.transpose(1, 2); // [B, H, T, K]
    Tensor::scaled_dot_product_attention(
        &by_head(q),
        &by_head(k),
        &by_head(v),
        seen,
        0.0,
        is_causal,
        None,
        false,
    )
    .transpose(1, 2) // [B, T, H, K]
}

/// The naive twin: token by token over the tokens seen so far, of which there are S − T before the
/// first: q `[B, T, H, K]`, k and v `[B, S, H, K]`.
fn naive(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let ([_, t, _, key], [_, s, _, _]) = (sizes(q), sizes(k));
    let mut outputs = Vec::new();
    for position in 0..t {
        let n_seen = s - t + position + 1;
        let seen = |x: &Tensor| x.narrow(1, 0, n_seen).transpose(1, 2); // [B, H, S, K]
        let query = q.select(1, position).unsqueeze(2); // [B, H, 1, K]
        let scores = query.matmul(&seen(k).transpose(-1, -2)) / (key as f64).sqrt();
        let weights = scores.softmax(-1, q.kind()); // [B, H, 1, S]
        outputs.push(weights.matmul(&seen(v)).squeeze_dim(2)); // [B, H, K]
    }
    Tensor::stack(&outputs, 1) // [B, T, H, K]
}

// Parameter groups: all four matrices decay.

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::MatmulPrecision;
    use crate::ops::testing::{assert_same_with_gradients, random, relative_error};

    #[test]
    fn the_fused_attention_and_the_loop_over_tokens_agree() {
        for (t, h, k) in [(1, 1, 2), (17, 3, 8), (70, 2, 16)] {
            let input = |seed| random(&[2, t, h, k], seed);
            assert_same_with_gradients(
                &[&input(1), &input(2), &input(3)],
                |x| vec![softmax_attention(&x[0], &x[1], &x[2])],
                |x| vec![naive(&x[0], &x[1], &x[2])],
            );
        }
    }

    /// Head j of the queries has head j / (H / kv_heads) of the keys: by hand, head by head.
    fn naive_shared(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
        let ([_, _, h, _], [_, _, kv_heads, _]) = (sizes(q), sizes(k));
        let heads = (0..h).map(|head| {
            let shared = |x: &Tensor| x.narrow(2, head / (h / kv_heads), 1);
            naive(&q.narrow(2, head, 1), &shared(k), &shared(v))
        });
        Tensor::cat(&heads.collect::<Vec<_>>(), 2)
    }

    #[test]
    fn queries_that_share_keys_after_a_cached_prefix_agree_with_the_loop() {
        // The last T of S tokens; S = T is training, T = 1 is generation.
        for (t, s, h, kv_heads, k) in [
            (1, 1, 4, 2, 2),
            (17, 17, 6, 3, 8),
            (5, 70, 4, 1, 16),
            (1, 33, 6, 2, 8),
            (9, 10, 3, 3, 4),
        ] {
            let q = random(&[2, t, h, k], 1);
            let shared = |seed| random(&[2, s, kv_heads, k], seed);
            assert_same_with_gradients(
                &[&q, &shared(2), &shared(3)],
                |x| {
                    let [q, k, v] = [0, 1, 2].map(|index| &x[index]);
                    let one = (t == 1).then(|| attend_one(q, k, v));
                    one.into_iter().chain([attend_after(q, k, v)]).collect()
                },
                |x| {
                    let found = naive_shared(&x[0], &x[1], &x[2]);
                    let one = (t == 1).then(|| found.shallow_clone());
                    one.into_iter().chain([found]).collect()
                },
            );
        }
    }

    #[test]
    fn training_goes_through_the_fused_kernel() {
        // Aim: no T × T scores in memory. Method: libtorch's own choice for inputs like ours, where
        // 1 is its flash kernel.
        for kind in [tch::Kind::Float, tch::Kind::BFloat16] {
            let input = |seed| {
                let x = random(&[2, 70, 3, 16], seed).to_kind(kind).set_requires_grad(true);
                x.transpose(1, 2)
            };
            let (q, k, v) = (input(1), input(2), input(3));
            let none = None::<&Tensor>;
            let choice =
                Tensor::internal_fused_sdp_choice(&q, &k, &v, none, 0.0, true, None, false);
            assert_eq!(choice, 1);
        }
    }

    #[test]
    fn attention_of_widened_numbers_is_the_fused_one_bit_for_bit_and_so_are_its_gradients() {
        let round = |seed| random(&[2, 70, 3, 16], seed).to_kind(Kind::BFloat16);
        let run = |attend: &dyn Fn(&[Tensor; 3]) -> Tensor| {
            let inputs = [1, 2, 3].map(|seed| round(seed).set_requires_grad(true));
            let output = attend(&inputs);
            assert_eq!((output.size(), output.kind()), (vec![2, 70, 3, 16], Kind::Float));
            let sum = (&output * random(&output.size(), 4).to_kind(Kind::Float)).sum(Kind::Float);
            let gradients = Tensor::run_backward(&[sum], &inputs, false, false);
            [output.detach()].into_iter().chain(gradients).collect::<Vec<_>>()
        };
        let found = run(&|[q, k, v]| widened_attention(q, k, v));
        let expected = run(&|x| {
            let [q, k, v] = x.each_ref().map(|x| x.to_kind(Kind::Float));
            fused_attention(&q, &k, &v, None, true)
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn attention_of_bfloat16_is_near_that_of_float64() {
        let input = |seed| random(&[2, 300, 3, 16], seed);
        let (q, k, v) = (input(1), input(2), input(3));
        let round = |x: &Tensor| MatmulPrecision::Bf16.rounded(x);
        let found = softmax_attention(&round(&q), &round(&k), &round(&v));
        // Scores of a few units are off by some 2^-9 of themselves; softmax and sums are float32.
        let error = relative_error(&found, &softmax_attention(&q, &k, &v));
        assert!(error > 1e-5 && error < 1e-2, "{error}");
    }
}
