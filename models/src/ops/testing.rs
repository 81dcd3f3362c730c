//! What the operator tests share: random inputs, and the comparison of two forms with gradients.
//!
//! It is compiled for tests only.

use tch::{Device, Kind, Tensor};

/// Largest allowed difference relative to the largest value, in float64: rounding of a few hundred
/// operations leaves this room a hundred times.
pub(crate) const TOLERANCE: f64 = 1e-11;

/// The same in float32.
pub(crate) const TOLERANCE_FLOAT32: f64 = 1e-5;

/// Normal numbers in float64, the same for the same seed.
pub(crate) fn random(shape: &[i64], seed: i64) -> Tensor {
    tch::set_num_threads(1);
    tch::manual_seed(seed);
    Tensor::randn(shape, (Kind::Double, Device::Cpu))
}

/// Largest absolute difference over the largest absolute value of `expected`.
pub(crate) fn relative_error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    assert_eq!(found.isfinite().all().int64_value(&[]), 1, "not finite");
    if found.numel() == 0 {
        return 0.0;
    }
    let difference = (found.to_kind(Kind::Double) - expected).abs().max().double_value(&[]);
    difference / expected.abs().max().double_value(&[]).max(1e-30)
}

/// Compares outputs and gradients of two functions of the same inputs, in float64 and, against
/// the second in float64, in float32.
#[track_caller]
pub(crate) fn assert_same_with_gradients(
    inputs: &[&Tensor],
    fast: impl Fn(&[Tensor]) -> Vec<Tensor>,
    naive: impl Fn(&[Tensor]) -> Vec<Tensor>,
) {
    let expected = outputs_and_gradients(inputs, Kind::Double, &naive);
    for (kind, tolerance) in [(Kind::Double, TOLERANCE), (Kind::Float, TOLERANCE_FLOAT32)] {
        let found = outputs_and_gradients(inputs, kind, &fast);
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let error = relative_error(found, expected);
            assert!(error <= tolerance, "{kind:?}, tensor {index}: relative error {error:e}");
        }
    }
}

/// The outputs, then the gradient of Σ w ⊙ output for fixed random w with respect to each input.
fn outputs_and_gradients(
    inputs: &[&Tensor],
    kind: Kind,
    function: impl Fn(&[Tensor]) -> Vec<Tensor>,
) -> Vec<Tensor> {
    let inputs: Vec<Tensor> = inputs
        .iter()
        .map(|input| input.to_kind(kind).detach().copy().set_requires_grad(true))
        .collect();
    let outputs = function(&inputs);
    let mut sum = Tensor::zeros([], (kind, Device::Cpu));
    for (index, output) in (0..).zip(&outputs) {
        let weights = random(&output.size(), 1000 + index).to_kind(kind);
        sum += (output * weights).sum(kind);
    }
    let gradients = Tensor::run_backward(&[sum], &inputs, false, false);
    outputs.iter().map(Tensor::detach).chain(gradients).collect()
}
