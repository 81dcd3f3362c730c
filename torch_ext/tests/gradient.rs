//! The norm of gradients and clipping against the plain formula.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use tch::{Device, Kind, Tensor};
use torch_ext::{
    TorchError, clear_gradients, clip_gradient_norm, gradient_norm, scale_gradients,
    set_intra_op_threads,
};

/// Parameters of ones whose gradients are `3, 0` and `4`: a norm of five.
fn three_four_five() -> (Tensor, Tensor) {
    set_intra_op_threads(1).unwrap();
    let ones = |n: i64| Tensor::ones([n], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let (a, b) = (ones(2), ones(1));
    let loss =
        (&a * Tensor::from_slice(&[3.0_f32, 0.0])).sum(Kind::Float) + b.sum(Kind::Float) * 4.0;
    loss.backward();
    (a, b)
}

fn norm(parameters: &[&Tensor]) -> f64 {
    gradient_norm(parameters).unwrap().double_value(&[])
}

/// The norm before clipping.
fn clip(parameters: &[&Tensor], max_norm: f64) -> f64 {
    clip_gradient_norm(parameters, max_norm).unwrap().double_value(&[])
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(tensor).unwrap()
}

#[test]
fn the_norm_is_over_all_gradients_together() {
    let (a, b) = three_four_five();
    let without_gradient = Tensor::ones([9], (Kind::Float, Device::Cpu));
    assert_eq!(norm(&[&a, &b, &without_gradient]), 5.0);
}

#[test]
fn a_norm_above_the_limit_is_scaled_down_to_it() {
    let (a, b) = three_four_five();
    assert_eq!(clip(&[&a, &b], 1.0), 5.0);
    let factor = 1.0 / (5.0 + 1e-6);
    for (found, naive) in [(values(&a.grad())[0], 3.0), (values(&b.grad())[0], 4.0)] {
        assert!((f64::from(found) - naive * factor).abs() < 1e-7, "{found}");
    }
    assert!((norm(&[&a, &b]) - 1.0).abs() < 1e-6);
}

#[test]
fn a_norm_below_the_limit_leaves_the_gradients_alone() {
    let (a, b) = three_four_five();
    assert_eq!(clip(&[&a, &b], 5.1), 5.0);
    assert_eq!(values(&a.grad()), [3.0, 0.0]);
    assert_eq!(values(&b.grad()), [4.0]);
}

#[test]
fn a_norm_that_is_not_finite_is_returned_and_scales_nothing() {
    let (a, b) = three_four_five();
    drop(b.grad().fill_(f64::INFINITY));
    assert_eq!(clip(&[&a, &b], 1.0), f64::INFINITY);
    assert_eq!(values(&a.grad()), [3.0, 0.0]);
}

/// Aim: the norm of a tensor of any size is right to rounding. Method: against squares that are
/// summed in f64, for large numbers first and many small ones behind them.
#[test]
fn small_numbers_of_a_large_gradient_count() {
    set_intra_op_threads(1).unwrap();
    let values = Tensor::full([20_000_007], 1e-3, (Kind::Float, Device::Cpu));
    drop(values.narrow(0, 0, 1000).fill_(1.0));
    let parameter = Tensor::zeros_like(&values).set_requires_grad(true);
    parameter.sum(Kind::Float).backward();
    parameter.grad().copy_(&values);
    let exact = values.to_kind(Kind::Double).square().sum(Kind::Double).sqrt().double_value(&[]);
    let found = norm(&[&parameter]);
    assert!((found / exact - 1.0).abs() < 1e-6, "{found} is not {exact}");
}

#[test]
fn half_precision_gradients_are_summed_in_f32() {
    // The root of 300 is 17.32; bf16 knows 17.25 and 17.375 there.
    set_intra_op_threads(1).unwrap();
    let parameters: Vec<Tensor> = (0..300)
        .map(|_| Tensor::ones([1], (Kind::BFloat16, Device::Cpu)).set_requires_grad(true))
        .collect();
    let list: Vec<&Tensor> = parameters.iter().collect();
    Tensor::cat(&parameters, 0).sum(Kind::Float).backward();
    assert!((norm(&list) - 300.0_f64.sqrt()).abs() < 1e-5);
}

#[test]
fn what_cannot_be_clipped_is_an_error() {
    let (a, b) = three_four_five();
    assert!(matches!(gradient_norm(&[]), Err(TorchError::NoTensors { .. })));
    assert!(matches!(clip_gradient_norm(&[&a], 0.0), Err(TorchError::Number { .. })));
    clear_gradients(&[&a, &b]).unwrap();
    assert!(!a.grad().defined());
    let error = gradient_norm(&[&a, &b]).unwrap_err();
    assert!(error.to_string().contains("no parameter has a gradient"), "{error}");
}

#[test]
fn gradients_are_scaled_by_finite_factors_only() {
    let (a, b) = three_four_five();
    scale_gradients(&[&a, &b], 0.5).unwrap();
    assert_eq!((values(&a.grad()), values(&b.grad())), (vec![1.5, 0.0], vec![2.0]));
    for factor in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = scale_gradients(&[&a, &b], factor).unwrap_err();
        assert!(matches!(error, TorchError::Number { name: "factor", .. }), "{error}");
    }
    assert_eq!(norm(&[&a, &b]), 2.5);
}
