//! Why a network could not be built or loaded.
//!
//! A wrong shape inside a network is a bug and panics; what is here has a cause outside.

use domain::model::ModelError;
use thiserror::Error;

/// A network could not be built or filled with weights.
#[derive(Debug, Error)]
pub enum ModelsError {
    /// The configuration does not make sense.
    #[error(transparent)]
    Config(#[from] ModelError),
    /// A tensor of the model is not among the weights.
    #[error("the weights lack `{name}`")]
    MissingTensor {
        /// The tensor of the model.
        name: String,
    },
    /// The weights hold a tensor that the model does not have, or the same one twice.
    #[error("the weights hold `{name}`, which the model does not have or has already been given")]
    UnexpectedTensor {
        /// The tensor among the weights.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("`{name}` has shape {found:?} among the weights, {expected:?} in the model")]
    WrongShape {
        /// The tensor.
        name: String,
        /// The shape among the weights.
        found: Vec<i64>,
        /// The shape that the configuration gives.
        expected: Vec<i64>,
    },
    /// libtorch refused: no memory, or the device is lost.
    #[error("could not place `{name}` on the device")]
    Place {
        /// The tensor.
        name: String,
        /// What libtorch said.
        source: tch::TchError,
    },
}
