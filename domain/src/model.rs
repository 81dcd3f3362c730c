//! Architecture configurations of the language models, and from them tensors, parameter counts and
//! FLOP counts.
//!
//! It holds no weights and reads no files; `models` builds the networks and is compared with this.

mod config;
mod error;
mod flops;
mod hugging_face;
mod learning_rate;
mod names;
mod read;
mod tensors;

pub use config::{MixerConfig, ModelConfig, Preset, Shape};
pub use error::ModelError;
pub use flops::{FlopCount, FlopTerm};
pub use hugging_face::{
    HuggingFaceError, HuggingFaceModel, TensorPair, hugging_face_tensors, to_hugging_face,
};
pub use names::{Architecture, FfnActivation, Norm, Rope};
pub use read::KEYS;
pub use tensors::TensorSpec;

#[cfg(test)]
mod tests;
