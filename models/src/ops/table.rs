//! Constant tensors that depend on length and device only, made once and kept.
//!
//! It does not know what they mean.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

/// A constant made in float64 and rounded once.
pub(crate) fn constant(values: &[f64], shape: &[i64], kind: Kind, device: Device) -> Tensor {
    Tensor::from_slice(values).view(shape).to_kind(kind).to_device(device)
}

/// A tensor that nobody changes, so that its clones share memory.
#[derive(Debug)]
pub(crate) struct Constant(Tensor);

impl From<Tensor> for Constant {
    fn from(tensor: Tensor) -> Self {
        Self(tensor)
    }
}

impl Clone for Constant {
    fn clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}

impl Deref for Constant {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}

/// What a table depends on beside the layer that keeps it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Key {
    /// Length of the text.
    pub(crate) time: i64,
    /// Chunk length.
    pub(crate) chunk: i64,
    /// Element type of the inputs.
    pub(crate) kind: Kind,
    /// Device of the inputs.
    pub(crate) device: Device,
}

impl Key {
    /// The key for an input `[B, T, …]`.
    pub(crate) fn of(x: &Tensor, chunk: i64) -> Self {
        Self { time: x.size()[1], chunk, kind: x.kind(), device: x.device() }
    }
}

/// The table that was asked for last. A training run has one length, so one is enough.
///
/// Clones share it: layers that need the same table are given clones of one cache.
#[derive(Debug)]
pub(crate) struct TableCache<T> {
    last: Arc<Mutex<Option<(Key, T)>>>,
}

impl<T> Clone for TableCache<T> {
    fn clone(&self) -> Self {
        Self { last: Arc::clone(&self.last) }
    }
}

impl<T> TableCache<T> {
    pub(crate) fn new() -> Self {
        Self { last: Arc::new(Mutex::new(None)) }
    }

    /// Reads the table for a key, building it if it is not the last one.
    pub(crate) fn with<R>(
        &self,
        key: Key,
        build: impl FnOnce() -> T,
        read: impl FnOnce(&T) -> R,
    ) -> R {
        // A panic in here leaves no table or a whole one.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match last.take() {
            Some((known, table)) if known == key => read(&last.insert((key, table)).1),
            _ => read(&last.insert((key, tch::no_grad(build))).1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_one_table_and_build_it_once() {
        let cache = TableCache::new();
        let clone = cache.clone();
        let x = Tensor::zeros([1, 5, 2, 4], (Kind::Float, Device::Cpu));
        let mut n_built = 0;
        let mut build = || {
            n_built += 1;
            Tensor::arange(5, (Kind::Float, Device::Cpu))
        };
        let address = |table: &Tensor| table.data_ptr();
        let first = cache.with(Key::of(&x, 0), &mut build, address);
        let second = clone.with(Key::of(&x, 0), &mut build, address);
        let other = clone.with(Key::of(&x, 1), &mut build, address);
        assert_eq!(first, second);
        assert_eq!(cache.with(Key::of(&x, 1), &mut build, address), other);
        assert_eq!(n_built, 2);
    }
}
