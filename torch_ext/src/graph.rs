//! Owns CUDA graphs: work of a device that was recorded once and is given to it again as a whole, which
//! costs one launch however many kernels it has.
//!
//! Does not decide what is worth recording.

use std::any::Any;
use std::ffi::{c_int, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ptr;

use tch::Device;

use crate::TorchError;
use crate::device::cuda_index;
use crate::ffi::{self, call};
use crate::stream::Stream;

/// Recorded work of one CUDA device.
///
/// It reads and writes the memory that it was recorded with: new inputs are copied into the tensors
/// that the recording read, and results stand in the tensors that it made.
pub struct Graph {
    handle: *mut c_void,
    index: c_int,
    // Owns the tensors that the recording reads and writes, so that their memory stays theirs.
    _body: Box<dyn Any>,
    // A recording belongs to the thread that made it, and its tensors do too.
    stays_on_thread: PhantomData<*const ()>,
}

impl Graph {
    /// Records what `body` asks of the device on this thread, without doing it: what `body` makes has
    /// its values after [`Self::replay`], and lives in memory of the graph's own. `body` owns handles
    /// of what it reads and writes, and is kept with the graph.
    ///
    /// All that `body` asks for must have run once before on the device, so that libraries are
    /// loaded and workspaces made; it must not wait for the device, nor read a value back. After an
    /// error libtorch's allocator may still record, and the process should not go on with the device.
    pub fn record<T, B>(device: Device, body: B) -> Result<(Self, T), TorchError>
    where
        B: Fn() -> T + 'static,
    {
        let index = cuda_index("record work", device)?;
        let stream = Stream::beside(device)?;
        // The recording's stream begins after what the tensors it reads still wait for.
        crate::synchronize(device)?;
        let body = Box::new(body);
        let (handle, made) = stream.within(|| {
            let recording = Recording::begin(index)?;
            let made = body();
            Ok((recording.end()?, made))
        })??;
        Ok((Self { handle, index, _body: body, stays_on_thread: PhantomData }, made))
    }

    /// Does all that was recorded, after what the device has been given so far; returns before the
    /// device is done.
    pub fn replay(&self) -> Result<(), TorchError> {
        call("do recorded work", |error| {
            // SAFETY: the graph lives in `self`, was and was recorded to its end; the pointer is valid.
            unsafe { ffi::gradus_graph_replay(self.handle, error) }
        })
    }
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph").field("index", &self.index).finish_non_exhaustive()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: from `gradus_graph_begin`, recorded to its end, and freed once; what it reads and
        // writes is freed after it, with the body.
        unsafe { ffi::gradus_graph_free(self.handle) };
    }
}

/// A graph that is being recorded on a device; a panic of the body ends it too.
struct Recording {
    handle: *mut c_void,
    index: c_int,
}

impl Recording {
    fn begin(index: c_int) -> Result<Self, TorchError> {
        let mut handle = ptr::null_mut();
        call("record work", |error| {
            // SAFETY: a device's number and two valid pointers, used during the call only.
            unsafe { ffi::gradus_graph_begin(index, &raw mut handle, error) }
        })?;
        Ok(Self { handle, index })
    }

    /// The recorded graph, which the caller frees.
    fn end(self) -> Result<*mut c_void, TorchError> {
        self.finish()?;
        let handle = self.handle;
        std::mem::forget(self);
        Ok(handle)
    }

    fn finish(&self) -> Result<(), TorchError> {
        call("end the recording of work", |error| {
            // SAFETY: the graph lives in `self` and is being recorded; the pointer is valid.
            unsafe { ffi::gradus_graph_end(self.handle, self.index, error) }
        })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // The body panicked, or the end failed: its words matter more than what the device says now.
        drop(self.finish());
        // SAFETY: from `gradus_graph_begin`, and freed once.
        unsafe { ffi::gradus_graph_free(self.handle) };
    }
}
