//! Owns switching a device's matrix products to bf16 for a scope.
//!
//! Does not decide which operators are affected; libtorch's list for the device does.

use crate::TorchError;
use crate::ffi::{self, call};
use std::marker::PhantomData;
use tch::Device;

/// While it lives, this thread's matrix products on a device compute in bf16; on drop, also by a panic, all
/// is as before and the cached casts of the weights are dropped.
///
/// Guards nest, and must be dropped in the reverse order of their making, as locals are.
#[derive(Debug)]
#[must_use = "autocast ends when the guard is dropped"]
pub struct Autocast {
    is_cuda: bool,
    was_enabled: bool,
    was_dtype: i8,
    // The switch is the thread's, so the guard must not leave it.
    stays_on_thread: PhantomData<*const ()>,
}

impl Autocast {
    /// Switches autocast to bf16 on for the CPU, or for all CUDA devices.
    pub fn bf16(device: Device) -> Result<Self, TorchError> {
        let is_cuda = is_cuda(device)?;
        let (mut was_enabled, mut was_dtype) = (false, 0);
        call("switch autocast on", |error| {
            let (was_enabled, was_dtype) = (&raw mut was_enabled, &raw mut was_dtype);
            // SAFETY: passes a flag and three valid pointers, used during the call only.
            unsafe { ffi::gradus_autocast_enter(is_cuda, was_enabled, was_dtype, error) }
        })?;
        Ok(Self { is_cuda, was_enabled, was_dtype, stays_on_thread: PhantomData })
    }

    /// Whether this thread's products on the device are cast now.
    pub fn is_on(device: Device) -> Result<bool, TorchError> {
        let is_cuda = is_cuda(device)?;
        let mut is_on = false;
        call("tell about autocast", |error| {
            // SAFETY: passes a flag and two valid pointers, used during the call only.
            unsafe { ffi::gradus_autocast_is_enabled(is_cuda, &raw mut is_on, error) }
        })?;
        Ok(is_on)
    }
}

fn is_cuda(device: Device) -> Result<bool, TorchError> {
    match device {
        Device::Cpu => Ok(false),
        Device::Cuda(_) => Ok(true),
        Device::Mps | Device::Vulkan => {
            let (operation, wanted) = ("cast products to bf16", "the CPU and CUDA devices");
            Err(TorchError::Device { operation, device, wanted })
        }
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        let Self { is_cuda, was_enabled, was_dtype, .. } = *self;
        let left = call("switch autocast back", |error| {
            // SAFETY: passes what `gradus_autocast_enter` took and gave, and a valid pointer.
            unsafe { ffi::gradus_autocast_leave(is_cuda, was_enabled, was_dtype, error) }
        });
        debug_assert!(left.is_ok(), "restoring two thread-local values does not fail: {left:?}");
    }
}
