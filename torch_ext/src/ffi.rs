//! Owns the declarations of `cpp/` and the one way its errors become ours.
//!
//! Checks nothing; the modules beside it do before they call.

use crate::TorchError;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use tch::Tensor;

/// An `at::Tensor *`, as tch holds it.
pub(crate) type Handle = *const c_void;

/// How the C++ side calls a closure: closure, saved tensors, gradients, which results are wanted,
/// results, error.
pub(crate) type BackwardFunction = unsafe extern "C" fn(
    *mut c_void,
    *const *mut c_void,
    usize,
    *const *mut c_void,
    usize,
    *const bool,
    *mut *mut c_void,
    usize,
    *mut *mut c_char,
) -> c_int;

unsafe extern "C" {
    pub(crate) fn gradus_free(text: *mut c_char);
    pub(crate) fn gradus_copy_text(text: *const c_char, length: usize) -> *mut c_char;
    pub(crate) fn gradus_libtorch_version() -> *const c_char;
    pub(crate) fn gradus_cpu_capability(out: *mut *mut c_char, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_configuration(out: *mut *mut c_char, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_adamw_step(
        parameters: *const Handle,
        gradients: *const Handle,
        exp_avgs: *const Handle,
        exp_avg_sqs: *const Handle,
        n: usize,
        step: Handle,
        lr: f64,
        beta1: f64,
        beta2: f64,
        weight_decay: f64,
        eps: f64,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_clear_gradients(
        parameters: *const Handle,
        n: usize,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_gradient_norm(
        parameters: *const Handle,
        n: usize,
        norm: *mut *mut c_void,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_clip_gradients(
        parameters: *const Handle,
        n: usize,
        max_norm: f64,
        norm: *mut *mut c_void,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_scale_gradients(
        parameters: *const Handle,
        n: usize,
        factor: f64,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_set_threads(intra_op: c_int, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_set_inter_op_threads(inter_op: c_int, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_threads(
        intra_op: *mut c_int,
        inter_op: *mut c_int,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_keep_freed_memory(error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_release_freed_memory();
    pub(crate) fn gradus_set_deterministic(on: bool, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_is_deterministic(on: *mut bool, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_record_operations(error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_operations(out: *mut *mut c_char, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_generator_state(state: *mut *mut c_void, error: *mut *mut c_char)
    -> c_int;
    pub(crate) fn gradus_set_generator_state(state: Handle, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_autocast_enter(
        is_cuda: bool,
        was_enabled: *mut bool,
        was_dtype: *mut i8,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_autocast_leave(
        is_cuda: bool,
        was_enabled: bool,
        was_dtype: i8,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_autocast_is_enabled(
        is_cuda: bool,
        is_enabled: *mut bool,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_libtorch_file(out: *mut *mut c_char, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_open_library(path: *const c_char, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_cuda_driver(
        is_there: *mut bool,
        version: *mut c_int,
        n_devices: *mut c_int,
        problem: *mut *mut c_char,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_cuda_device(
        index: c_int,
        name: *mut *mut c_char,
        memory_bytes: *mut u64,
        major: *mut c_int,
        minor: *mut c_int,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_cuda_half(
        is_taken: *mut bool,
        runtime_version: *mut c_int,
        n_devices: *mut c_int,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_initialize_cuda(error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_exact_cuda_products(error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_device_memory(
        index: c_int,
        allocated_bytes: *mut i64,
        allocated_peak_bytes: *mut i64,
        reserved_bytes: *mut i64,
        reserved_peak_bytes: *mut i64,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_release_device_memory(error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_reset_peak_memory(index: c_int, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_synchronize(index: c_int, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_stream(index: c_int, id: *mut i64, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_current_stream(
        index: c_int,
        id: *mut i64,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_exchange_stream(
        index: c_int,
        id: i64,
        previous: *mut i64,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_event_record(
        index: c_int,
        stream: i64,
        has_time: bool,
        event: *mut *mut c_void,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_event_block(
        event: *const c_void,
        index: c_int,
        stream: i64,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_event_wait(event: *const c_void, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_event_elapsed(
        from: *const c_void,
        to: *const c_void,
        milliseconds: *mut f64,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_event_free(event: *mut c_void);
    pub(crate) fn gradus_graph_begin(
        index: c_int,
        graph: *mut *mut c_void,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_graph_end(
        graph: *mut c_void,
        index: c_int,
        error: *mut *mut c_char,
    ) -> c_int;
    pub(crate) fn gradus_graph_replay(graph: *mut c_void, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_graph_free(graph: *mut c_void);
    pub(crate) fn gradus_is_recording(is_recording: *mut bool, error: *mut *mut c_char) -> c_int;
    pub(crate) fn gradus_custom_function(
        name: *const c_char,
        inputs: *const Handle,
        n_inputs: usize,
        outputs: *const Handle,
        n_outputs: usize,
        saved: *const Handle,
        n_saved: usize,
        closure: *mut c_void,
        backward: BackwardFunction,
        drop: unsafe extern "C" fn(*mut c_void),
        results: *mut *mut c_void,
        error: *mut *mut c_char,
    ) -> c_int;
}

/// Makes one call, given where the error's text goes, and turns its failure into an error.
pub(crate) fn call(
    operation: &'static str,
    body: impl FnOnce(*mut *mut c_char) -> c_int,
) -> Result<(), TorchError> {
    let mut error = ptr::null_mut();
    if body(&raw mut error) == 0 {
        return Ok(());
    }
    Err(TorchError::Libtorch { operation, message: take_text(error) })
}

/// Makes one call that hands out a text.
pub(crate) fn call_for_text(
    operation: &'static str,
    body: impl FnOnce(*mut *mut c_char, *mut *mut c_char) -> c_int,
) -> Result<String, TorchError> {
    let mut text = ptr::null_mut();
    call(operation, |error| body(&raw mut text, error))?;
    Ok(take_text(text))
}

/// A text that the C++ side gave away.
pub(crate) fn take_text(text: *mut c_char) -> String {
    if text.is_null() {
        return "out of memory for the message".to_owned();
    }
    // SAFETY: not null, and `cpp/` hands out texts only from `strdup`, which we now own.
    let copy = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: from `strdup`, not freed before, and not used after.
    unsafe { gradus_free(text) };
    copy
}

/// The handles of a list of tensors, good as long as the tensors are borrowed.
pub(crate) fn handles<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<Handle> {
    tensors.into_iter().map(|tensor| tensor.as_ptr().cast()).collect()
}
