//! Owns streams, which are queues of work on a CUDA device, and events, which are marks in them.
//!
//! Does not decide what runs beside what; [`crate::HostCopies`] does for copies.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::ptr;

use tch::Device;

use crate::TorchError;
use crate::device::cuda_index;
use crate::ffi::{self, call};

/// A queue of work on one CUDA device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    index: c_int,
    id: i64,
}

impl Stream {
    /// One of libtorch's further streams, whose work runs beside that of others.
    pub fn beside(device: Device) -> Result<Self, TorchError> {
        let operation = "give a stream";
        let index = cuda_index(operation, device)?;
        let mut id = 0;
        call(operation, |error| {
            // SAFETY: passes a number and two valid pointers, used during the call only.
            unsafe { ffi::gradus_stream(index, &raw mut id, error) }
        })?;
        Ok(Self { index, id })
    }

    /// The stream that this thread's operations on the device go to now.
    pub fn current(device: Device) -> Result<Self, TorchError> {
        let operation = "tell its stream";
        let index = cuda_index(operation, device)?;
        let mut id = 0;
        call(operation, |error| {
            // SAFETY: passes a number and two valid pointers, used during the call only.
            unsafe { ffi::gradus_current_stream(index, &raw mut id, error) }
        })?;
        Ok(Self { index, id })
    }

    /// Gives the stream what `body` asks of its device on this thread. A tensor from elsewhere must
    /// be ready before (see [`Self::wait_for`]) and live until the stream is done with it.
    pub fn within<T>(self, body: impl FnOnce() -> T) -> Result<T, TorchError> {
        let before = Within { before: self.exchange()?, stays_on_thread: PhantomData };
        let result = body();
        drop(before);
        Ok(result)
    }

    /// Lets what the stream is given from now on begin after the event; this thread does not wait.
    pub fn wait_for(self, event: &Event) -> Result<(), TorchError> {
        call("let a stream wait", |error| {
            // SAFETY: the event lives in `event`; numbers from libtorch, and a valid pointer.
            unsafe { ffi::gradus_event_block(event.handle, self.index, self.id, error) }
        })
    }

    fn exchange(self) -> Result<Self, TorchError> {
        let mut previous = 0;
        call("change its stream", |error| {
            // SAFETY: numbers that libtorch gave, and two valid pointers, used during the call only.
            unsafe { ffi::gradus_exchange_stream(self.index, self.id, &raw mut previous, error) }
        })?;
        Ok(Self { index: self.index, id: previous })
    }
}

/// Puts the thread's stream back, also after a panic.
struct Within {
    before: Stream,
    // The current stream is the thread's.
    stays_on_thread: PhantomData<*const ()>,
}

impl Drop for Within {
    fn drop(&mut self) {
        let back = self.before.exchange();
        debug_assert!(back.is_ok(), "a stream that was current can be so again: {back:?}");
    }
}

/// A mark after all that a stream had been given when it was made.
#[derive(Debug)]
pub struct Event {
    handle: *mut c_void,
}

// SAFETY: CUDA's events belong to no thread; an event of ours is never recorded again after it was
// made, and waiting for one and freeing it are allowed on every thread.
unsafe impl Send for Event {}
// SAFETY: as above; all that can be done with a shared event is to wait for it and to read its time.
unsafe impl Sync for Event {}

impl Event {
    /// A mark in the stream without a time, which costs the device least.
    pub fn after(stream: Stream) -> Result<Self, TorchError> {
        Self::record(stream, false)
    }

    /// A mark in the stream that keeps the device's time, for benchmarks of single operations; a step
    /// of the trainer is timed between two [`crate::synchronize`].
    pub fn with_time(stream: Stream) -> Result<Self, TorchError> {
        Self::record(stream, true)
    }

    fn record(stream: Stream, has_time: bool) -> Result<Self, TorchError> {
        let mut handle = ptr::null_mut();
        call("mark a stream", |error| {
            let Stream { index, id } = stream;
            // SAFETY: numbers from libtorch, and two valid pointers, used during the call only.
            unsafe { ffi::gradus_event_record(index, id, has_time, &raw mut handle, error) }
        })?;
        Ok(Self { handle })
    }

    /// Holds this thread up until the device has reached the mark.
    pub fn wait(&self) -> Result<(), TorchError> {
        call("wait for a mark", |error| {
            // SAFETY: the event lives in `self`, and the pointer is valid.
            unsafe { ffi::gradus_event_wait(self.handle, error) }
        })
    }

    /// Milliseconds on the device from this mark to a later one; both keep their times and are
    /// reached, else libtorch refuses.
    pub fn milliseconds_to(&self, later: &Self) -> Result<f64, TorchError> {
        let mut milliseconds = 0.0;
        call("measure between marks", |error| {
            let (from, to) = (self.handle, later.handle);
            // SAFETY: both events are borrowed, and both pointers are valid.
            unsafe { ffi::gradus_event_elapsed(from, to, &raw mut milliseconds, error) }
        })?;
        Ok(milliseconds)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: from `gradus_event_record`, freed once; a device that has not reached it keeps it.
        unsafe { ffi::gradus_event_free(self.handle) };
    }
}
