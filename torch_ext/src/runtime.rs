//! Owns what holds for the whole process: threads, deterministic algorithms, and what libtorch is.
//!
//! Does not choose the number of threads; the agent does.

use crate::TorchError;
use crate::ffi::{self, call, call_for_text};
use crate::processor;
use std::ffi::{CStr, c_int};
use tch::Device;

/// How many threads libtorch uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// Inside one operator.
    pub intra_op: usize,
    /// For operators beside each other.
    pub inter_op: usize,
}

/// The threads that this process uses now.
pub fn threads() -> Result<Threads, TorchError> {
    let (mut intra_op, mut inter_op): (c_int, c_int) = (0, 0);
    call("tell its threads", |error| {
        // SAFETY: three valid pointers, used during the call only.
        unsafe { ffi::gradus_threads(&raw mut intra_op, &raw mut inter_op, error) }
    })?;
    let count = |n: c_int| usize::try_from(n).unwrap_or(0);
    Ok(Threads { intra_op: count(intra_op), inter_op: count(inter_op) })
}

/// Sets the threads inside one operator; to be called before training, since sums are split by it.
pub fn set_intra_op_threads(n_threads: usize) -> Result<(), TorchError> {
    let n_threads = thread_count("intra_op", n_threads)?;
    call("set its intra-op threads", |error| {
        // SAFETY: passes numbers and a valid pointer.
        unsafe { ffi::gradus_set_threads(n_threads, error) }
    })
}

/// Sets the threads for operators beside each other; libtorch allows this once, and early.
pub fn set_inter_op_threads(n_threads: usize) -> Result<(), TorchError> {
    let n_threads = thread_count("inter_op", n_threads)?;
    call("set its inter-op threads", |error| {
        // SAFETY: passes numbers and a valid pointer.
        unsafe { ffi::gradus_set_inter_op_threads(n_threads, error) }
    })
}

fn thread_count(name: &'static str, n_threads: usize) -> Result<c_int, TorchError> {
    match c_int::try_from(n_threads) {
        Ok(count) if count >= 1 => Ok(count),
        _ => {
            let wanted = "a positive number of threads";
            Err(TorchError::Number { name, value: n_threads as f64, wanted })
        }
    }
}

/// Lets the process keep the memory of freed tensors of up to 32 MB for later ones, until
/// [`release_freed_memory`]. Each step frees all that it made, and getting it back from the kernel page
/// by page was a twentieth of a step of a 7M model on a CPU.
pub fn keep_freed_memory() -> Result<(), TorchError> {
    call("keep freed memory", |error| {
        // SAFETY: a valid pointer, used during the call only.
        unsafe { ffi::gradus_keep_freed_memory(error) }
    })
}

/// Gives the kernel back what [`keep_freed_memory`] kept.
pub fn release_freed_memory() {
    // SAFETY: takes nothing, and leaves all memory in use alone.
    unsafe { ffi::gradus_release_freed_memory() }
}

/// Allows only operators that give the same bits each time; others then fail instead of differing.
pub fn use_deterministic_algorithms(on: bool) -> Result<(), TorchError> {
    call("switch deterministic algorithms", |error| {
        // SAFETY: passes a flag and a valid pointer.
        unsafe { ffi::gradus_set_deterministic(on, error) }
    })
}

/// Whether only deterministic operators are allowed.
pub fn uses_deterministic_algorithms() -> Result<bool, TorchError> {
    let mut on = false;
    call("tell about deterministic algorithms", |error| {
        // SAFETY: two valid pointers, used during the call only.
        unsafe { ffi::gradus_is_deterministic(&raw mut on, error) }
    })?;
    Ok(on)
}

/// What decides which kernels multiply on this CPU, such as `AVX512+BF16 AuthenticAMD 25/17`: the
/// vector instructions that libtorch chose (`+BF16` and `+AMX` where there are instructions for
/// products of bf16 numbers and of tiles), and vendor, family and model, by which MKL and oneDNN choose
/// their kernels and how they cut their sums.
///
/// Results are bit for bit equal only between machines where this is the same.
pub fn cpu_capability() -> Result<String, TorchError> {
    let vectors = call_for_text("tell its CPU capability", |text, error| {
        // SAFETY: two valid pointers, used during the call only.
        unsafe { ffi::gradus_cpu_capability(text, error) }
    })?;
    let bf16 = if multiplies_bf16(Device::Cpu) { "+BF16" } else { "" };
    Ok(format!("{vectors}{bf16}{}", processor::label()))
}

/// Whether products of bf16 matrices are fast on a device. A CPU without instructions for them
/// (`AVX512_BF16`) takes several times as long as for float32 products of the same numbers.
pub fn multiplies_bf16(device: Device) -> bool {
    match device {
        Device::Cpu => has_bf16_instructions(),
        Device::Cuda(_) | Device::Mps | Device::Vulkan => true,
    }
}

#[cfg(target_arch = "x86_64")]
fn has_bf16_instructions() -> bool {
    std::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_bf16_instructions() -> bool {
    false
}

/// libtorch's own description of how it was built: compilers, MKL, oneDNN, flags.
pub fn libtorch_configuration() -> Result<String, TorchError> {
    call_for_text("tell its configuration", |text, error| {
        // SAFETY: two valid pointers, used during the call only.
        unsafe { ffi::gradus_configuration(text, error) }
    })
}

/// The version of the libtorch this program was built against, as `2.11.0`.
pub fn libtorch_version() -> &'static str {
    // SAFETY: takes nothing and returns a string literal of `ext.cpp`, which lives for ever.
    let text = unsafe { CStr::from_ptr(ffi::gradus_libtorch_version()) };
    text.to_str().unwrap_or("unknown")
}
