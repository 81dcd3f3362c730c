//! The golden cases of the contract: logits, loss and stored gradients of every case, in every form
//! that the models offer, on the CPU and on a GPU if there is one.
//!
//! It does not make the vectors; they were computed in float64 by two separately written programs
//! and copied.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod cases;
mod devices;

use cases::{Case, case, cases};
use devices::devices;
use models::{Form, LanguageModel, MatmulPrecision};
use tch::{Device, Kind, Tensor};

/// Bounds of the data's README, relative to the largest logit, absolute in nats, and relative to
/// the gradient's norm. Errors near them are a sign of weakness, so the test holds a tenth.
const LOGITS_TOLERANCE: f64 = 5e-6;
const LOSS_TOLERANCE: f64 = 5e-6;
const GRADIENT_TOLERANCE: f64 = 3e-5;

fn expected<'a>(case: &'a Case, name: &str) -> Option<&'a Tensor> {
    case.expected.iter().find(|(found, _)| found == name).map(|(_, tensor)| tensor)
}

fn norm(x: &Tensor) -> f64 {
    x.to_kind(Kind::Double).square().sum(Kind::Double).sqrt().double_value(&[])
}

/// Error over bound of the worst quantity of one case in one form.
fn worst_ratio(case: &Case, form: Form, device: Device) -> f64 {
    let mut model = LanguageModel::new(&case.config, device, 0).unwrap();
    model.load(&case.weights).unwrap();
    model.set_form(form);
    let tokens = case.tokens.to_device(device);
    let logits = tch::no_grad(|| model.forward(&tokens)).to_device(Device::Cpu);
    let wanted = expected(case, "logits").unwrap();
    assert_eq!(logits.size(), wanted.size());
    assert_eq!(logits.kind(), Kind::Float);
    let largest = |x: &Tensor| x.abs().max().double_value(&[]);
    let mut worst = largest(&(&logits - wanted)) / largest(wanted) / LOGITS_TOLERANCE;
    let Some(wanted) = expected(case, "loss") else {
        assert_eq!(tokens.size()[1], 1, "only texts of one token have no loss");
        return worst;
    };
    let loss = model.loss(&tokens);
    let error = (loss.double_value(&[]) - wanted.double_value(&[])).abs();
    worst = worst.max(error / LOSS_TOLERANCE);
    loss.backward();
    for (name, parameter) in model.named_parameters() {
        let Some(wanted) = expected(case, &format!("grad.{name}")) else {
            continue;
        };
        let error = norm(&(parameter.grad().to_device(Device::Cpu) - wanted)) / norm(wanted);
        assert!(error.is_finite(), "{name}");
        worst = worst.max(error / GRADIENT_TOLERANCE);
    }
    worst
}

fn check(architecture: &str, forms: &[Form]) {
    tch::set_num_threads(1);
    for case in cases(architecture) {
        for device in devices() {
            for &form in forms {
                let ratio = worst_ratio(&case, form, device);
                assert!(ratio <= 1.0, "{} {form:?} {device:?}: {ratio} of the bound", case.name);
            }
        }
    }
}

#[test]
fn llama_gives_the_golden_numbers_in_every_form() {
    check("llama", &[Form::Fast, Form::Recurrent]);
}

#[test]
fn tnl_gives_the_golden_numbers_in_every_form() {
    check(
        "tnl",
        &[Form::Fast, Form::Recurrent, Form::Chunked(1), Form::Chunked(13), Form::Chunked(1000)],
    );
}

#[test]
fn cosformer2_gives_the_golden_numbers_in_every_form() {
    check(
        "cosformer2",
        &[Form::Fast, Form::Recurrent, Form::Chunked(1), Form::Chunked(13), Form::Chunked(1000)],
    );
}

#[test]
fn hgrn2_gives_the_golden_numbers_in_every_form() {
    check(
        "hgrn2",
        &[Form::Fast, Form::Recurrent, Form::Chunked(1), Form::Chunked(5), Form::Chunked(64)],
    );
}

#[test]
fn bfloat16_products_stay_near_the_golden_loss() {
    tch::set_num_threads(1);
    // A weight of 8 bits is off by 2^-9 at most, and logits here are of the order of one.
    for name in ["llama-study", "tnl-ragged-untied", "hgrn2-ragged", "cosformer2-tpe8"] {
        let case = case(name);
        let mut model = LanguageModel::new(&case.config, Device::Cpu, 0).unwrap();
        model.load(&case.weights).unwrap();
        model.set_precision(MatmulPrecision::Bf16);
        let loss = model.loss(&case.tokens).double_value(&[]);
        let error = (loss - expected(&case, "loss").unwrap().double_value(&[])).abs();
        assert!(error > 0.0, "{name} was not rounded");
        assert!(error < 0.02, "{name}: {error}");
    }
}
