//! Owns what holds for one device: its memory, waiting for it, and how exactly it multiplies.
//!
//! Does not find devices, and chooses none.

use std::ffi::c_int;

use tch::Device;

use crate::TorchError;
use crate::ffi::{self, call};

/// What libtorch has taken of a device's memory.
///
/// *Allocated* is what tensors use; *reserved* adds what was freed and is kept for later tensors, so
/// it is what other processes cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMemory {
    /// In tensors now.
    pub allocated_bytes: u64,
    /// The most in tensors since [`reset_peak_memory`].
    pub allocated_peak_bytes: u64,
    /// Taken from the device now.
    pub reserved_bytes: u64,
    /// The most taken since [`reset_peak_memory`].
    pub reserved_peak_bytes: u64,
}

/// The statistics of libtorch's allocator on a CUDA device.
pub fn device_memory(device: Device) -> Result<DeviceMemory, TorchError> {
    let operation = "tell a device's memory";
    let index = cuda_index(operation, device)?;
    let mut counts = [0; 4];
    call(operation, |error| {
        let [a, b, c, d] = counts.each_mut().map(|count| &raw mut *count);
        // SAFETY: passes a number and five valid pointers, used during the call only.
        unsafe { ffi::gradus_device_memory(index, a, b, c, d, error) }
    })?;
    // The allocator's counts are sums of sizes and never negative.
    let [allocated_bytes, allocated_peak_bytes, reserved_bytes, reserved_peak_bytes] =
        counts.map(|count: i64| u64::try_from(count).unwrap_or(0));
    Ok(DeviceMemory { allocated_bytes, allocated_peak_bytes, reserved_bytes, reserved_peak_bytes })
}

/// Gives CUDA back what libtorch keeps of freed tensors, on its devices and page-locked for copies to
/// them: others may need it.
pub fn release_device_memory(device: Device) -> Result<(), TorchError> {
    let operation = "release a device's memory";
    cuda_index(operation, device)?;
    call(operation, |error| {
        // SAFETY: a valid pointer, used during the call only.
        unsafe { ffi::gradus_release_device_memory(error) }
    })
}

/// Lets the peaks of a CUDA device's memory begin at what is in use now.
pub fn reset_peak_memory(device: Device) -> Result<(), TorchError> {
    let operation = "forget a device's peak";
    let index = cuda_index(operation, device)?;
    call(operation, |error| {
        // SAFETY: passes a number and a valid pointer.
        unsafe { ffi::gradus_reset_peak_memory(index, error) }
    })
}

/// Waits until a device has done all it was given; the CPU always has. Times of work on a device are
/// taken between two of these.
pub fn synchronize(device: Device) -> Result<(), TorchError> {
    if device == Device::Cpu {
        return Ok(());
    }
    let operation = "wait for a device";
    let index = cuda_index(operation, device)?;
    call(operation, |error| {
        // SAFETY: passes a number and a valid pointer.
        unsafe { ffi::gradus_synchronize(index, error) }
    })
}

/// Makes CUDA's products keep what the trainer promises: float32 products in float32 and not TF32,
/// bf16 products summed in float32. The CPU's do so without being told.
pub fn use_exact_cuda_products() -> Result<(), TorchError> {
    call("multiply exactly", |error| {
        // SAFETY: a valid pointer, used during the call only.
        unsafe { ffi::gradus_exact_cuda_products(error) }
    })
}

/// The index of a CUDA device for the C++ side; any other device is refused.
pub(crate) fn cuda_index(operation: &'static str, device: Device) -> Result<c_int, TorchError> {
    let refused = TorchError::Device { operation, device, wanted: "CUDA devices that are there" };
    let Device::Cuda(index) = device else { return Err(refused) };
    // Asked first, since libtorch ends the process for some calls without a CUDA half.
    let n_devices = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if index >= n_devices {
        return Err(refused);
    }
    c_int::try_from(index).map_err(|_| refused)
}
