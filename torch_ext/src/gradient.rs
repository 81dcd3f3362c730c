//! Owns the norm of gradients over many parameters, and clipping by it.
//!
//! Does not decide what a non-finite norm means; the trainer does.

use std::ptr;

use crate::TorchError;
use crate::ffi::{self, call, handles};
use tch::Tensor;

/// The Euclidean norm over the gradients of all `parameters` together, summed in f32 (f64 for f64): a
/// tensor without dimensions on their device, which this does not wait for.
///
/// Parameters without a gradient count as zero; none with one is an error.
pub fn gradient_norm(parameters: &[&Tensor]) -> Result<Tensor, TorchError> {
    let operation = "measure the gradients";
    let handles = non_empty(operation, parameters)?;
    let mut norm = ptr::null_mut();
    call(operation, |error| {
        // SAFETY: pointer and length are those of a live list, whose tensors are borrowed.
        unsafe { ffi::gradus_gradient_norm(handles.as_ptr(), handles.len(), &raw mut norm, error) }
    })?;
    // SAFETY: the call succeeded, so this is a new `at::Tensor` that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(norm.cast()) })
}

/// Scales all gradients by the same factor so that their norm is at most `max_norm`, and returns the
/// norm before that, as [`gradient_norm`] does: the device decides, and nothing is read back.
///
/// The factor is `min(1, max_norm / (norm + 1e-6))`, as in PyTorch's `clip_grad_norm_`.
/// With a norm that is not finite the gradients are left alone, and the caller must look at it.
pub fn clip_gradient_norm(parameters: &[&Tensor], max_norm: f64) -> Result<Tensor, TorchError> {
    if max_norm.is_nan() || max_norm <= 0.0 {
        let wanted = "greater than zero";
        return Err(TorchError::Number { name: "max_norm", value: max_norm, wanted });
    }
    let operation = "clip the gradients";
    let handles = non_empty(operation, parameters)?;
    let mut norm = ptr::null_mut();
    call(operation, |error| {
        let (list, n) = (handles.as_ptr(), handles.len());
        // SAFETY: pointer and length are those of a live list, whose tensors are borrowed.
        unsafe { ffi::gradus_clip_gradients(list, n, max_norm, &raw mut norm, error) }
    })?;
    // SAFETY: the call succeeded, so this is a new `at::Tensor` that nobody else owns.
    Ok(unsafe { Tensor::from_ptr(norm.cast()) })
}

/// Multiplies all gradients by a finite `factor`, in place.
pub fn scale_gradients(parameters: &[&Tensor], factor: f64) -> Result<(), TorchError> {
    if !factor.is_finite() {
        return Err(TorchError::Number { name: "factor", value: factor, wanted: "finite" });
    }
    let operation = "scale the gradients";
    let handles = non_empty(operation, parameters)?;
    call(operation, |error| {
        // SAFETY: pointer and length are those of a live list, whose tensors are borrowed.
        unsafe { ffi::gradus_scale_gradients(handles.as_ptr(), handles.len(), factor, error) }
    })
}

/// Drops all gradients, so that the next backward pass need not add to zeros.
pub fn clear_gradients(parameters: &[&Tensor]) -> Result<(), TorchError> {
    let operation = "clear the gradients";
    let handles = non_empty(operation, parameters)?;
    call(operation, |error| {
        // SAFETY: pointer and length are those of a live list, whose tensors are borrowed.
        unsafe { ffi::gradus_clear_gradients(handles.as_ptr(), handles.len(), error) }
    })
}

fn non_empty(
    operation: &'static str,
    parameters: &[&Tensor],
) -> Result<Vec<ffi::Handle>, TorchError> {
    if parameters.is_empty() {
        return Err(TorchError::NoTensors { operation });
    }
    Ok(handles(parameters.iter().copied()))
}
