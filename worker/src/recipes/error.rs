//! Why an assignment failed, and which end of an attempt that is.
//!
//! The class decides the retry; this is the one place that chooses it.

use domain::attempt::AttemptEnd;
use domain::cell::IdentityError;
use models::ModelsError;
use proto::from_wire::DecodeError;
use torch_ext::TorchError;

use crate::artifacts::ArtifactError;
use crate::checkpoint::CheckpointError;
use crate::data::DataError;

/// An assignment that did not reach its result.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The assignment's message lacks something.
    #[error("the assignment cannot be understood")]
    Decode(#[from] DecodeError),
    /// The assignment's configuration is not of this build's form.
    #[error("the assignment's configuration cannot be understood")]
    Config(#[from] IdentityError),
    /// The configuration asks for another version of something than this build has.
    #[error("the configuration asks for version {expected} of {what}; this worker has {found}")]
    Version {
        /// Of what.
        what: String,
        /// The version asked for.
        expected: u32,
        /// The version that is here.
        found: u32,
    },
    /// The task is none of this build's.
    #[error("this worker knows no evaluation task `{task}`")]
    UnknownTask {
        /// The task's name.
        task: String,
    },
    /// The data could not be prepared or are not what training needs.
    #[error("the data cannot be used")]
    Data(#[from] DataError),
    /// The data's objects could not be read or written.
    #[error("the data cannot be used")]
    DataArtifact(#[source] ArtifactError),
    /// The weights to evaluate could not be read.
    #[error("the checkpoint cannot be used")]
    Checkpoint(#[source] CheckpointError),
    /// A checkpoint could not be written.
    #[error("could not write the checkpoint of step {step}")]
    Save {
        /// The step.
        step: u64,
        /// Why not.
        source: CheckpointError,
    },
    /// The network could not be built.
    #[error("could not build the model")]
    Model(#[from] ModelsError),
    /// A call into libtorch failed.
    #[error("libtorch failed")]
    Torch(#[from] TorchError),
    /// A call through tch failed.
    #[error("libtorch failed")]
    Tch(#[from] tch::TchError),
}

impl RecipeError {
    /// The class of the failure.
    pub fn end(&self) -> AttemptEnd {
        match self {
            Self::Data(_) | Self::DataArtifact(_) => AttemptEnd::BadData,
            Self::Checkpoint(_) => AttemptEnd::BadCheckpoint,
            Self::Model(_) | Self::Torch(_) | Self::Tch(_) | Self::Save { .. }
                if super::is_out_of_memory(&super::chain(self)) =>
            {
                AttemptEnd::OutOfMemory
            }
            _ => AttemptEnd::Bug,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_allocation_is_told_from_a_bug() {
        let words = "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: \
                     you tried to allocate 4 bytes";
        let error = RecipeError::Tch(tch::TchError::Torch(words.to_owned()));
        assert_eq!(error.end(), AttemptEnd::OutOfMemory);
        let error = RecipeError::Tch(tch::TchError::Torch("sizes do not match".to_owned()));
        assert_eq!(error.end(), AttemptEnd::Bug);
    }
}
