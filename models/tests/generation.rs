//! Generation with a state gives what the parallel form gives: the same logits to rounding and the
//! same greedy tokens, for every golden case and after any cut.
//!
//! It does not check the parallel form; `golden.rs` does.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod cases;
mod devices;
mod enlarged;

use cases::{Case, cases};
use devices::devices;
use domain::model::{Architecture, ModelConfig, Shape};
use enlarged::enlarged;
use models::{LanguageModel, MatmulPrecision, Sampler, Sampling};
use tch::{Device, IndexOp, Kind, Tensor};

/// Largest difference of two logits over the largest logit, as for the golden numbers.
const LOGITS_TOLERANCE: f64 = 5e-6;

/// Tokens that are added to each prompt.
const NEW_TOKENS: usize = 24;

fn golden_model(case: &Case, device: Device) -> LanguageModel {
    tch::set_num_threads(1);
    let mut model = LanguageModel::new(&case.config, device, 0).unwrap();
    model.load(&case.weights).unwrap();
    model
}

fn small_model(architecture: Architecture, device: Device) -> LanguageModel {
    let shape = Shape { vocab_size: 53, d_model: 24, n_layers: 3, n_heads: 3, ffn_hidden: 40 };
    enlarged(&ModelConfig::new(architecture, shape).unwrap(), device)
}

fn random_tokens(batch: i64, time: i64) -> Tensor {
    tch::manual_seed(5);
    Tensor::randint(53, [batch, time], (Kind::Int64, Device::Cpu))
}

fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    assert_eq!(found.isfinite().all().int64_value(&[]), 1, "not finite");
    let largest = |x: &Tensor| x.abs().max().double_value(&[]);
    largest(&(found - expected)) / largest(expected)
}

/// The logits of a text that is read in pieces, the last one the rest.
fn in_pieces(model: &LanguageModel, tokens: &Tensor, pieces: &[i64]) -> Tensor {
    let [batch, time] = tokens.size()[..] else { panic!("tokens are [B, T]") };
    let mut state = model.start(batch);
    let mut logits = Vec::new();
    for length in pieces.iter().copied().chain([time]) {
        let length = length.min(time - state.position());
        if length > 0 {
            let piece = tokens.narrow(1, state.position(), length);
            logits.push(model.advance(&piece, &mut state));
        }
    }
    assert_eq!(state.position(), time);
    Tensor::cat(&logits, 1)
}

fn check_pieces(name: &str, model: &LanguageModel, tokens: &Tensor) {
    let whole = tch::no_grad(|| model.forward(tokens));
    let time = usize::try_from(tokens.size()[1]).unwrap();
    let half = tokens.size()[1] / 2;
    let singly = vec![1; time];
    for pieces in [&[][..], &singly, &[1], &[half], &[half, 1, 1], &[3, 1, 2, 5]] {
        let error = relative_error(&in_pieces(model, tokens, pieces), &whole);
        assert!(error <= LOGITS_TOLERANCE, "{name} in {pieces:?}: {error:e}");
    }
}

/// The tokens of greedy generation by the parallel form over the growing text, with their logits.
fn greedy_in_parallel(model: &LanguageModel, prompt: &[i64], device: Device) -> Vec<i64> {
    let mut text = prompt.to_vec();
    for _ in 0..NEW_TOKENS {
        let tokens = Tensor::from_slice(&text).unsqueeze(0).to_device(device);
        let logits = tch::no_grad(|| model.forward(&tokens));
        text.push(logits.i((0, -1)).argmax(0, false).int64_value(&[]));
    }
    text.split_off(prompt.len())
}

fn greedy_with_state(model: &LanguageModel, prompt: &[i64]) -> Vec<i64> {
    let sampler = Sampler::new(Sampling::GREEDY, 0).unwrap();
    model.continuation(prompt, sampler).take(NEW_TOKENS).map(Result::unwrap).collect()
}

fn check(architecture: &str) {
    for device in devices() {
        for case in cases(architecture) {
            let model = golden_model(&case, device);
            let tokens = case.tokens.to_device(device);
            check_pieces(&case.name, &model, &tokens);
            let (_, golden) = case.expected.iter().find(|(name, _)| name == "logits").unwrap();
            let found = in_pieces(&model, &tokens, &vec![1; tokens.numel()]);
            let error = relative_error(&found.to_device(Device::Cpu), golden);
            assert!(
                error <= LOGITS_TOLERANCE,
                "{} against the golden logits: {error:e}",
                case.name
            );
            let row = Vec::<i64>::try_from(case.tokens.select(0, 0)).unwrap();
            for prompt in [&row[..], &row[..1], &row[..row.len().div_ceil(2)]] {
                let expected = greedy_in_parallel(&model, prompt, device);
                assert_eq!(greedy_with_state(&model, prompt), expected, "{}", case.name);
            }
        }
    }
}

#[test]
fn llama_goes_on_as_the_parallel_form_does() {
    check("llama");
}

#[test]
fn tnl_goes_on_as_the_parallel_form_does() {
    check("tnl");
}

#[test]
fn hgrn2_goes_on_as_the_parallel_form_does() {
    check("hgrn2");
}

#[test]
fn cosformer2_goes_on_as_the_parallel_form_does() {
    check("cosformer2");
}

const ALL: [Architecture; 4] =
    [Architecture::Llama, Architecture::Tnl, Architecture::Hgrn2, Architecture::CosFormer2];

#[test]
fn a_long_prompt_is_read_in_bounded_pieces_to_the_same_end() {
    for device in devices() {
        for architecture in ALL {
            let model = small_model(architecture, device);
            let tokens = random_tokens(2, 1100).to_device(device);
            let whole = tch::no_grad(|| model.forward(&tokens));
            let mut state = model.start(2);
            let last = model.advance_to_last(&tokens.narrow(1, 0, 1099), &mut state);
            let error = relative_error(&last, &whole.select(1, 1098));
            assert!(error <= LOGITS_TOLERANCE, "{architecture:?}: {error:e}");
            let next = model.advance(&tokens.narrow(1, 1099, 1), &mut state);
            let error = relative_error(&next, &whole.narrow(1, 1099, 1));
            assert!(error <= LOGITS_TOLERANCE, "{architecture:?}: {error:e}");
        }
    }
}

#[test]
fn the_state_of_a_linear_model_has_one_size_and_that_of_llama_grows() {
    for architecture in ALL {
        let model = small_model(architecture, Device::Cpu);
        let mut state = model.start(1);
        let mut sizes = vec![];
        for length in [1, 1, 70, 1, 400] {
            let logits = model.advance(&random_tokens(1, length), &mut state);
            assert_eq!(logits.size(), [1, length, 53]);
            sizes.push(state.bytes());
        }
        assert_eq!(state.position(), 473);
        let (head, width, layers) = (8, 24, 3);
        // Linear-model study's notes, section 3.3: d·d_h numbers a layer, twice as many where LRPE
        // doubles the keys, and e = d_h modes per channel for TPE.
        let n_numbers = match architecture {
            Architecture::Llama => {
                // Two tensors of d numbers a token, and room for at most as many tokens again.
                let cached = 2 * width * layers * 4 * 473;
                assert!((cached..=2 * cached).contains(&sizes[4]), "{sizes:?}");
                assert!(sizes[0] < sizes[2] && sizes[2] < sizes[4], "{sizes:?}");
                continue;
            }
            Architecture::Tnl => width * head * (layers + 1),
            Architecture::Hgrn2 => width * head * layers,
            Architecture::CosFormer2 => width * head * (2 * layers + 1),
        };
        assert_eq!(sizes, [4 * n_numbers; 5], "{architecture:?}");
    }
}

#[test]
fn a_copied_state_goes_its_own_way() {
    for architecture in ALL {
        let model = small_model(architecture, Device::Cpu);
        let text = random_tokens(1, 9);
        let mut state = model.start(1);
        let before = model.advance(&text, &mut state);
        let mut other = state.copy();
        let elsewhere = model.advance(&text.narrow(1, 0, 1), &mut other);
        let next = model.advance(&text.narrow(1, 3, 1), &mut state);
        let whole = Tensor::cat(&[&text, &text.narrow(1, 3, 1)], 1);
        let expected = tch::no_grad(|| model.forward(&whole)).narrow(1, 9, 1);
        assert!(relative_error(&next, &expected) <= LOGITS_TOLERANCE, "{architecture:?}");
        assert!(relative_error(&elsewhere, &expected) > 1e-3, "{architecture:?}");
        assert_eq!(before.size(), [1, 9, 53]);
        assert_eq!((state.position(), other.position()), (10, 10));
    }
}

#[test]
fn the_same_seed_draws_the_same_text_and_another_seed_another() {
    let sampling = Sampling { temperature: 1.0, top_k: Some(40), top_p: 0.95 };
    for architecture in ALL {
        let model = small_model(architecture, Device::Cpu);
        let text = |seed| -> Vec<i64> {
            let sampler = Sampler::new(sampling, seed).unwrap();
            model.continuation(&[1, 2, 3], sampler).take(30).map(Result::unwrap).collect()
        };
        assert_eq!(text(1), text(1), "{architecture:?}");
        assert_ne!(text(1), text(2), "{architecture:?}");
    }
}

#[test]
fn bfloat16_products_keep_the_state_in_float32_and_near_the_parallel_form() {
    for architecture in ALL {
        let mut model = small_model(architecture, Device::Cpu);
        model.set_precision(MatmulPrecision::Bf16);
        let tokens = random_tokens(1, 40);
        let whole = tch::no_grad(|| model.forward(&tokens));
        let error = relative_error(&in_pieces(&model, &tokens, &[20, 1, 1]), &whole);
        // Rounding a little differently before a product of 8 bits moves it by 2^-8 at most.
        assert!(error < 0.05, "{architecture:?}: {error:e}");
        // A state or a cache in bfloat16 would be half as large.
        let read = |model: &LanguageModel| {
            let mut state = model.start(1);
            drop(model.advance(&tokens, &mut state));
            drop(model.advance(&tokens.narrow(1, 0, 1), &mut state));
            state.bytes()
        };
        assert_eq!(read(&model), read(&small_model(architecture, Device::Cpu)));
    }
}

#[test]
fn logits_that_are_no_numbers_end_the_text_with_an_error() {
    let mut model = small_model(Architecture::Tnl, Device::Cpu);
    let broken: Vec<(String, Tensor)> = model
        .named_parameters()
        .into_iter()
        .map(|(name, tensor)| (name, tch::no_grad(|| tensor * f64::NAN)))
        .collect();
    model.load(&broken).unwrap();
    let sampler = Sampler::new(Sampling::GREEDY, 0).unwrap();
    let error = model.continuation(&[1], sampler).next().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "the logit of token 0 is NaN, so no next token can be chosen");
}
