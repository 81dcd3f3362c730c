//! Why a checkpoint could not be written or used.
//!
//! What is done without it is decided by the recipe.

use crate::artifacts::ArtifactError;

/// A checkpoint could not be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file could not be read or written, or is not what its hash says.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The reference names no manifest.
    #[error("the checkpoint's manifest is not named")]
    NoManifest,
    /// It belongs to another cell.
    #[error("it belongs to the configuration {found} instead of {expected}")]
    OtherConfig {
        /// The identity that is trained.
        expected: String,
        /// The identity in the checkpoint.
        found: String,
    },
    /// It is of another step than announced.
    #[error("it is of step {found} instead of {expected}")]
    OtherStep {
        /// The step that was announced.
        expected: u64,
        /// The step in the checkpoint.
        found: u64,
    },
    /// Its weights are not those that are asked for.
    #[error("its weights have the hash {found} instead of {expected}")]
    OtherWeights {
        /// The hash that was asked for.
        expected: String,
        /// The hash in the manifest.
        found: String,
    },
    /// `state.json` is not of this build's form.
    #[error("its `state.json` cannot be understood")]
    State(#[source] serde_json::Error),
    /// `state.json` is of another version.
    #[error("its `state.json` has version {found}, which this build does not read")]
    StateVersion {
        /// Its version.
        found: u32,
    },
    /// The generator's state is not hexadecimal.
    #[error("its generator state is not hexadecimal")]
    Generator,
    /// A file of tensors cannot be understood.
    #[error("its tensors cannot be understood")]
    Format(#[source] safetensors::SafeTensorError),
    /// A tensor has an element type that is not used here.
    #[error("its tensor `{name}` has the element type {dtype}")]
    ElementType {
        /// The tensor.
        name: String,
        /// Its element type.
        dtype: String,
    },
    /// The run keeps an average of its weights, and the checkpoint has none.
    #[error("it has no average of the weights")]
    NoAverage,
    /// The thread that writes could not be started.
    #[error("could not start a thread")]
    Thread(#[source] std::io::Error),
    /// A tensor could not be copied into or out of libtorch.
    #[error("could not copy the tensor `{name}`")]
    Copy {
        /// The tensor.
        name: String,
        /// What libtorch said.
        source: tch::TchError,
    },
    /// The weights do not fit the model.
    #[error("its weights do not fit the model")]
    Weights(#[source] models::ModelsError),
    /// The optimiser's or the generator's state does not fit.
    #[error("its training state does not fit")]
    Torch(#[source] torch_ext::TorchError),
    /// Something could not be written as JSON.
    #[error("could not write its JSON")]
    Encode(#[source] serde_json::Error),
}

impl CheckpointError {
    /// Whether the checkpoint itself is not what it should be. Otherwise this machine could not
    /// reach it, or has no room for it.
    ///
    /// An object that is missing counts, as the data of the same store were read before.
    pub fn is_damage(&self) -> bool {
        if crate::recipes::is_out_of_memory(&crate::recipes::chain(self))
            || crate::recipes::is_device_fault(&crate::recipes::chain(self))
        {
            return false;
        }
        match self {
            Self::Artifact(error) => error.is_damage() || error.is_missing(),
            Self::Thread(_) | Self::Copy { .. } | Self::Encode(_) => false,
            Self::NoManifest
            | Self::OtherConfig { .. }
            | Self::OtherStep { .. }
            | Self::OtherWeights { .. }
            | Self::State(_)
            | Self::StateVersion { .. }
            | Self::Generator
            | Self::Format(_)
            | Self::ElementType { .. }
            | Self::NoAverage
            | Self::Weights(_)
            | Self::Torch(_) => true,
        }
    }

    pub(super) fn encode(source: serde_json::Error) -> Self {
        Self::Encode(source)
    }
}
