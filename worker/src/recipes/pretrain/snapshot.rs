//! A checkpoint in the making: what the device holds, on its way to the CPU's memory.
//!
//! It writes no files; `saver` does, once all is there.

use std::sync::Arc;

use torch_ext::{Event, HostCopies, TorchError};

use crate::checkpoint::{Checkpoint, NamedTensors, State};

/// Copies of everything that a checkpoint keeps. On a CUDA device they are made beside the next step,
/// which may read what is copied and must not write to it before [`Self::reads`].
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) weights: Copies,
    pub(super) average: Option<Copies>,
    pub(super) optimizer: Copies,
    pub(super) state: State,
}

impl Snapshot {
    /// The marks after which everything may be written to again.
    pub(super) fn reads(&self) -> Vec<Arc<Event>> {
        let parts = [&self.weights, &self.optimizer].into_iter().chain(&self.average);
        parts.filter_map(|part| part.copies.read()).collect()
    }

    /// The checkpoint, once all of it is there.
    pub(super) fn finish(self) -> Result<Checkpoint, TorchError> {
        Ok(Checkpoint {
            weights: self.weights.finish()?,
            average: self.average.map(Copies::finish).transpose()?,
            optimizer: self.optimizer.finish()?,
            state: self.state,
        })
    }
}

/// Copies of named tensors.
#[derive(Debug)]
pub(super) struct Copies {
    names: Vec<String>,
    copies: HostCopies,
}

impl Copies {
    /// Begins to copy, which is all that a checkpoint costs the training.
    pub(super) fn begin(tensors: NamedTensors) -> Result<Self, TorchError> {
        let (names, tensors) = tensors.into_iter().unzip();
        Ok(Self { names, copies: HostCopies::begin(tensors)? })
    }

    fn finish(self) -> Result<NamedTensors, TorchError> {
        Ok(self.names.into_iter().zip(self.copies.wait()?).collect())
    }
}
