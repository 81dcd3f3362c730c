//! Over a text of thousands of tokens, bfloat16 products leave states and sums in float32.
//!
//! A sum kept in bfloat16 would no longer grow once it is 256 times what is added: it has 8 bits.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod enlarged;

use domain::model::{Architecture, ModelConfig, Shape};
use enlarged::enlarged;
use models::{Form, LanguageModel, MatmulPrecision};
use tch::{Device, Kind, Tensor};

const TIME: i64 = 4096;

/// The largest difference of the last logits of the text, over the largest of them. In chunks 0.003 to
/// 0.01 was found; with states in bfloat16, token by token, 0.03 for cosFormer2 and 0.4 for TNL.
const LOGITS: f64 = 0.03;

/// The distance of a gradient as a share of its norm. In chunks 0.01 to 0.02 was found; with states in
/// bfloat16, token by token, 0.5 and 0.4.
const GRADIENTS: f64 = 0.05;

fn model(architecture: Architecture, precision: MatmulPrecision, form: Form) -> LanguageModel {
    let shape = Shape { vocab_size: 31, d_model: 16, n_layers: 2, n_heads: 2, ffn_hidden: 24 };
    let mut model = enlarged(&ModelConfig::new(architecture, shape).unwrap(), Device::Cpu);
    model.set_precision(precision);
    model.set_form(form);
    model
}

/// The same seven tokens again and again, so that what is summed up does not cancel.
fn text() -> Tensor {
    (Tensor::arange(TIME + 1, (Kind::Int64, Device::Cpu)).remainder(7) * 4).unsqueeze(0)
}

fn norm(x: &Tensor) -> f64 {
    x.to_kind(Kind::Double).norm().double_value(&[])
}

#[track_caller]
fn check(architecture: Architecture) {
    // Whole texts in chunks as they train, and token by token, where each token adds to the state.
    for form in [Form::Fast, Form::Chunked(1)] {
        let of = |precision| {
            let model = model(architecture, precision, form);
            let text = text();
            let logits = tch::no_grad(|| model.forward(&text.narrow(1, 0, TIME)));
            model.loss(&text).backward();
            let gradients = model.named_parameters().into_iter();
            let gradients: Vec<_> = gradients.map(|(name, x)| (name, x.grad())).collect();
            (logits.narrow(1, TIME - 64, 64), gradients)
        };
        let (exact, exact_gradients) = of(MatmulPrecision::Fp32);
        let (rounded, gradients) = of(MatmulPrecision::Bf16);
        let largest = |x: &Tensor| x.abs().max().double_value(&[]);
        let error = largest(&(&rounded - &exact)) / largest(&exact);
        let shares = exact_gradients.iter().zip(&gradients);
        let shares = shares.map(|((name, exact), (_, rounded))| {
            (norm(&(rounded - exact)) / norm(exact).max(1e-30), name)
        });
        let (share, name) = shares.max_by(|(a, _), (b, _)| a.total_cmp(b)).unwrap();
        let found = format!("{architecture:?}, {form:?}: {error}, {share} of {name}");
        assert!(error > 0.0, "nothing was rounded: {found}");
        assert!(error < LOGITS && share < GRADIENTS, "{found}");
    }
}

#[test]
fn the_state_of_tnl_grows_over_a_long_text() {
    check(Architecture::Tnl);
}

#[test]
fn the_state_of_hgrn2_is_exact_over_a_long_text() {
    check(Architecture::Hgrn2);
}

#[test]
fn the_state_of_cosformer2_grows_over_a_long_text() {
    check(Architecture::CosFormer2);
}
