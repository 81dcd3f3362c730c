//! Owns saving and restoring the state of libtorch's default CPU generator.
//!
//! Does not seed it (`tch::manual_seed` does), nor know other generators.

use crate::TorchError;
use crate::ffi::{self, call};
use std::ptr;
use tch::{Kind, Tensor};

/// The whole state of the default CPU generator, as opaque bytes of libtorch's own layout.
pub fn generator_state() -> Result<Vec<u8>, TorchError> {
    let operation = "tell its generator's state";
    let mut state = ptr::null_mut();
    call(operation, |error| {
        // SAFETY: two valid pointers, used during the call only.
        unsafe { ffi::gradus_generator_state(&raw mut state, error) }
    })?;
    // SAFETY: the call succeeded, so this is a new `at::Tensor` that nobody else owns.
    let state = unsafe { Tensor::from_ptr(state.cast()) };
    Vec::<u8>::try_from(&state).map_err(|source| TorchError::Tch { operation, source })
}

/// Sets the default CPU generator to a state from [`generator_state`].
pub fn set_generator_state(state: &[u8]) -> Result<(), TorchError> {
    let operation = "set its generator's state";
    if state.is_empty() {
        return Err(TorchError::NoTensors { operation });
    }
    let tensor = Tensor::f_from_data_size(state, &[tensor_length(state)], Kind::Uint8)
        .map_err(|source| TorchError::Tch { operation, source })?;
    call(operation, |error| {
        // SAFETY: `tensor` outlives the call, which only reads it.
        unsafe { ffi::gradus_set_generator_state(tensor.as_ptr().cast(), error) }
    })
}

fn tensor_length(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).expect("no slice is longer than isize::MAX")
}
