//! Owns writing down which operations libtorch carries out, for counts that come from what runs.
//!
//! Does not count anything.

use crate::TorchError;
use crate::ffi::{self, call, call_for_text};
use std::marker::PhantomData;

/// One operation that libtorch's dispatcher was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Its name, such as `aten::mm`.
    pub name: String,
    /// The sizes of each tensor that it was given, in their order; lists of tensors are flat.
    pub sizes: Vec<Vec<i64>>,
}

/// What `body` gives, and the operations that it asked for on this thread, in the order of their
/// beginnings. An operation that is made of others stands before them.
pub fn record_operations<T>(body: impl FnOnce() -> T) -> Result<(T, Vec<Operation>), TorchError> {
    let recording = Recording::begin()?;
    let result = body();
    let lines = recording.end()?;
    Ok((result, lines.lines().map(operation).collect()))
}

/// While it lives this thread's operations are written down; a panic ends it too.
struct Recording {
    // The recorder is the thread's, so the guard must not leave it.
    stays_on_thread: PhantomData<*const ()>,
}

const OPERATION: &str = "record its operations";

impl Recording {
    fn begin() -> Result<Self, TorchError> {
        call(OPERATION, |error| {
            // SAFETY: a valid pointer, used during the call only.
            unsafe { ffi::gradus_record_operations(error) }
        })?;
        Ok(Self { stays_on_thread: PhantomData })
    }

    fn end(self) -> Result<String, TorchError> {
        std::mem::forget(self);
        lines()
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let ended = lines();
        debug_assert!(ended.is_ok(), "a recording that was begun can be ended: {ended:?}");
    }
}

fn lines() -> Result<String, TorchError> {
    call_for_text(OPERATION, |text, error| {
        // SAFETY: two valid pointers, used during the call only.
        unsafe { ffi::gradus_operations(text, error) }
    })
}

/// `aten::mm [2,3,] [3,4,]` as `ext.cpp` writes it; names of the backward pass have blanks in them.
fn operation(line: &str) -> Operation {
    let (name, lists) = line.split_at(line.find(" [").unwrap_or(line.len()));
    let size = |text: &str| text.parse().expect("the C++ side writes numbers");
    let sizes = lists.split_whitespace().map(|word| {
        let list = word.trim_matches(['[', ']']).split(',');
        list.filter(|text| !text.is_empty()).map(size).collect()
    });
    Operation { name: name.to_owned(), sizes: sizes.collect() }
}
