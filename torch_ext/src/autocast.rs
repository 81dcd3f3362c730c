//! Owns switching CPU matrix products to bf16 for a scope.
//!
//! Does not decide which operators are affected; libtorch's CPU list does.

use crate::TorchError;
use crate::ffi::{self, call};
use std::marker::PhantomData;

/// While it lives, this thread's CPU matrix products compute in bf16; on drop, also by a panic, all
/// is as before and the cached casts of the weights are dropped.
///
/// Guards nest, and must be dropped in the reverse order of their making, as locals are.
#[derive(Debug)]
#[must_use = "autocast ends when the guard is dropped"]
pub struct Autocast {
    was_enabled: bool,
    was_dtype: i8,
    // The switch is the thread's, so the guard must not leave it.
    stays_on_thread: PhantomData<*const ()>,
}

impl Autocast {
    /// Switches autocast to bf16 on.
    pub fn bf16_on_cpu() -> Result<Self, TorchError> {
        let (mut was_enabled, mut was_dtype) = (false, 0);
        call("switch autocast on", |error| {
            // SAFETY: three valid pointers, used during the call only.
            unsafe { ffi::gradus_autocast_enter(&raw mut was_enabled, &raw mut was_dtype, error) }
        })?;
        Ok(Self { was_enabled, was_dtype, stays_on_thread: PhantomData })
    }

    /// Whether this thread's CPU products are cast now.
    pub fn is_on() -> Result<bool, TorchError> {
        let mut is_on = false;
        call("tell about autocast", |error| {
            // SAFETY: two valid pointers, used during the call only.
            unsafe { ffi::gradus_autocast_is_enabled(&raw mut is_on, error) }
        })?;
        Ok(is_on)
    }
}

impl Drop for Autocast {
    fn drop(&mut self) {
        let left = call("switch autocast back", |error| {
            // SAFETY: passes what `gradus_autocast_enter` gave, and a valid pointer.
            unsafe { ffi::gradus_autocast_leave(self.was_enabled, self.was_dtype, error) }
        });
        debug_assert!(left.is_ok(), "restoring two thread-local values does not fail: {left:?}");
    }
}
