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
    /// The run's newest checkpoint is damaged, as far as this machine sees, and for the first time.
    #[error(
        "the checkpoint of step {step} cannot be used; another attempt looks at it before it is \
         passed over"
    )]
    Doubtful {
        /// The step.
        step: u64,
    },
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
            Self::Model(_)
            | Self::Torch(_)
            | Self::Tch(_)
            | Self::Checkpoint(_)
            | Self::Save { .. }
                if super::is_out_of_memory(&super::chain(self)) =>
            {
                AttemptEnd::OutOfMemory
            }
            Self::Data(error) if error.is_damage() => AttemptEnd::BadData,
            Self::DataArtifact(error) if error.is_damage() => AttemptEnd::BadData,
            Self::Checkpoint(error) if error.is_damage() => AttemptEnd::BadCheckpoint,
            // What cannot be reached from here says nothing about the run: the machine is at fault.
            Self::Data(_)
            | Self::DataArtifact(_)
            | Self::Checkpoint(CheckpointError::Artifact(_) | CheckpointError::Thread(_))
            | Self::Save {
                source: CheckpointError::Artifact(_) | CheckpointError::Thread(_),
                ..
            }
            | Self::Doubtful { .. } => AttemptEnd::WorkerLost,
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

    /// Aim: a sick machine or a store that is away is never taken for bad data or a bad checkpoint.
    #[test]
    fn what_cannot_be_reached_is_the_machines_fault() {
        use std::io::ErrorKind::{PermissionDenied, StaleNetworkFileHandle};
        let get = |kind: std::io::ErrorKind| ArtifactError::Get {
            key: "x".to_owned(),
            source: object_store::Error::Generic {
                store: "test",
                source: std::io::Error::from(kind).into(),
            },
        };
        let missing = || ArtifactError::Get {
            key: "x".to_owned(),
            source: object_store::Error::NotFound { path: "x".to_owned(), source: "gone".into() },
        };
        let damaged = || ArtifactError::WrongSize { key: "x".to_owned(), expected: 2, found: 1 };
        let checkpoint = |error| RecipeError::Checkpoint(CheckpointError::Artifact(error));
        let read = DataError::Read { path: "x".into(), source: PermissionDenied.into() };
        let save = CheckpointError::Artifact(get(PermissionDenied));
        let no_memory = tch::TchError::Torch("CUDA out of memory".to_owned());
        let copy = CheckpointError::Copy { name: "x".to_owned(), source: no_memory };
        for (error, end) in [
            (RecipeError::DataArtifact(get(StaleNetworkFileHandle)), AttemptEnd::WorkerLost),
            (RecipeError::DataArtifact(missing()), AttemptEnd::WorkerLost),
            (RecipeError::DataArtifact(damaged()), AttemptEnd::BadData),
            (read.into(), AttemptEnd::WorkerLost),
            (DataError::Empty { n_files: 1 }.into(), AttemptEnd::BadData),
            (checkpoint(get(StaleNetworkFileHandle)), AttemptEnd::WorkerLost),
            (checkpoint(missing()), AttemptEnd::BadCheckpoint),
            (checkpoint(damaged()), AttemptEnd::BadCheckpoint),
            (RecipeError::Checkpoint(copy), AttemptEnd::OutOfMemory),
            (RecipeError::Doubtful { step: 9 }, AttemptEnd::WorkerLost),
            (RecipeError::Save { step: 9, source: save }, AttemptEnd::WorkerLost),
        ] {
            assert_eq!(error.end(), end, "{error:?}");
        }
    }
}
