//! Owns functions of the autograd graph whose backward pass is written by hand, in Rust.
//!
//! Does not know any such function; `models::ops` has them.
//!
//! libtorch may call the closure on another thread, as it does for tensors on a GPU. Neither a panic
//! nor a C++ exception crosses the border: both end as the error of the backward pass.

use std::any::Any;
use std::ffi::{CString, c_char, c_int, c_void};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;

use tch::Tensor;

use crate::TorchError;
use crate::ffi::{self, Handle, call, handles};

/// The forward half of a function, already computed without recording gradients.
#[derive(Debug)]
pub struct Forward<'a> {
    /// What errors and graph dumps call it.
    pub name: &'static str,
    /// What it was computed from; a gradient is asked for those that require one.
    pub inputs: &'a [&'a Tensor],
    /// What it gave, none with a gradient function.
    pub outputs: &'a [&'a Tensor],
    /// What the backward pass reads: inputs, outputs or intermediate values. They are freed with the
    /// graph, and changing one in place before is an error of the backward pass.
    pub saved: &'a [&'a Tensor],
}

/// What a backward pass has to work with.
#[derive(Debug)]
pub struct Backward<'a> {
    /// The tensors of [`Forward::saved`].
    pub saved: &'a [Tensor],
    /// The gradient of each output; none where nothing depends on it.
    pub gradients: &'a [Option<Tensor>],
    /// For each input, whether its gradient will be used.
    pub wanted: &'a [bool],
}

/// A backward pass: for each input its gradient, in the input's shape and kind, or none for zero.
pub type Gradients = Result<Vec<Option<Tensor>>, TorchError>;

/// The outputs of a function as part of the graph, with `backward` as its backward pass.
///
/// If gradients are not recorded now, or no input requires one, the outputs come back outside of the
/// graph and `backward` is dropped; else it is dropped with the graph, or with its saved tensors by
/// the first backward pass that does not keep them. It has no second derivative, and says so.
pub fn custom_function<B>(forward: &Forward<'_>, backward: B) -> Result<Vec<Tensor>, TorchError>
where
    B: Fn(&Backward<'_>) -> Gradients + Send + 'static,
{
    let operation = "add a function to the graph";
    let name = CString::new(forward.name).map_err(|_| TorchError::Libtorch {
        operation,
        message: "the function's name holds a zero byte".to_owned(),
    })?;
    let inputs = handles(forward.inputs.iter().copied());
    let outputs = handles(forward.outputs.iter().copied());
    let saved = handles(forward.saved.iter().copied());
    let mut results: Vec<*mut c_void> = vec![ptr::null_mut(); outputs.len()];
    let closure = Box::into_raw(Box::new(Closure(Box::new(backward))));
    call(operation, |error| {
        // SAFETY: pointers and lengths are those of live lists, whose tensors are borrowed; `results`
        // has room for every output. The closure is from `Box::into_raw` and is given away: the C++
        // side drops it exactly once by `drop_closure`, also when it fails.
        unsafe {
            ffi::gradus_custom_function(
                name.as_ptr(),
                inputs.as_ptr(),
                inputs.len(),
                outputs.as_ptr(),
                outputs.len(),
                saved.as_ptr(),
                saved.len(),
                closure.cast(),
                call_closure,
                drop_closure,
                results.as_mut_ptr(),
                error,
            )
        }
    })?;
    // SAFETY: the call succeeded, so each is a new `at::Tensor` that nobody else owns.
    Ok(results.into_iter().map(|handle| unsafe { Tensor::from_ptr(handle.cast()) }).collect())
}

/// Whether operations are recorded for a backward pass on this thread now.
pub fn is_recording() -> bool {
    let mut is_recording = false;
    let asked = call("tell whether it records", |error| {
        // SAFETY: two valid pointers, used during the call only.
        unsafe { ffi::gradus_is_recording(&raw mut is_recording, error) }
    });
    debug_assert!(asked.is_ok(), "reading a thread-local value does not fail: {asked:?}");
    is_recording
}

type BoxedBackward = Box<dyn Fn(&Backward<'_>) -> Gradients + Send>;

/// A thin pointer to this crosses the border.
struct Closure(BoxedBackward);

impl fmt::Debug for Closure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closure").finish_non_exhaustive()
    }
}

/// The closure's call from C++, which holds a lock on it meanwhile.
///
/// # Safety
///
/// `closure` is from [`custom_function`] and not dropped; each list is as long as is said; handles are
/// null or owned, and ownership passes to this function; `results` may be written.
unsafe extern "C" fn call_closure(
    closure: *mut c_void,
    saved: *const *mut c_void,
    n_saved: usize,
    gradients: *const *mut c_void,
    n_gradients: usize,
    wanted: *const bool,
    results: *mut *mut c_void,
    n_results: usize,
    error: *mut *mut c_char,
) -> c_int {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: promised by the caller.
        let (saved, gradients) =
            unsafe { (take_all(saved, n_saved), take_all(gradients, n_gradients)) };
        // SAFETY: promised by the caller; a slice of no inputs does not occur.
        let wanted = unsafe { slice::from_raw_parts(wanted, n_results) };
        // A saved tensor is always defined.
        let saved: Vec<Tensor> = saved.into_iter().flatten().collect();
        // SAFETY: promised by the caller, and nobody else has it now.
        let closure = unsafe { &*closure.cast::<Closure>() };
        (closure.0)(&Backward { saved: &saved, gradients: &gradients, wanted })
    }));
    let text = match outcome {
        Ok(Ok(found)) if found.len() == n_results => {
            for (index, gradient) in found.into_iter().enumerate() {
                let handle = gradient.map_or(ptr::null_mut(), into_handle);
                // SAFETY: the caller has room for `n_results`, and `index` is below it.
                unsafe { *results.add(index) = handle };
            }
            return 0;
        }
        Ok(Ok(found)) => format!("backward gave {} gradients for {n_results} inputs", found.len()),
        Ok(Err(error)) => chain(&error),
        Err(panic) => format!("backward panicked: {}", panic_text(panic.as_ref())),
    };
    // SAFETY: pointer and length are those of a live text; the C++ side frees the copy.
    unsafe { *error = ffi::gradus_copy_text(text.as_ptr().cast(), text.len()) };
    1
}

/// Frees the closure.
///
/// # Safety
///
/// `closure` is from [`custom_function`] and is not used again.
unsafe extern "C" fn drop_closure(closure: *mut c_void) {
    // A destructor that panics is a bug that the panic hook reports; it must not reach C++.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: from `Box::into_raw`, given away once and given back once.
        drop(unsafe { Box::from_raw(closure.cast::<Closure>()) });
    }));
    drop(outcome);
}

/// # Safety
///
/// `handles` points to `n` handles that are null or owned by the caller, who gives them up.
unsafe fn take_all(handles: *const *mut c_void, n: usize) -> Vec<Option<Tensor>> {
    (0..n)
        .map(|index| {
            // SAFETY: `index` is below `n`.
            let handle = unsafe { *handles.add(index) };
            // SAFETY: not null, and given up by the caller.
            (!handle.is_null()).then(|| unsafe { Tensor::from_ptr(handle.cast()) })
        })
        .collect()
}

/// Gives a tensor's handle away.
fn into_handle(mut tensor: Tensor) -> *mut c_void {
    let handle: Handle = tensor.as_mut_ptr().cast();
    std::mem::forget(tensor);
    handle.cast_mut()
}

fn chain(error: &TorchError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("with no text")
}
