//! The networks: one file per architecture, each operator with a naive twin.
//!
//! It reads and writes no files, logs nothing, looks for no devices and knows no clock. Weights come
//! in and go out as named tensors; the trainer owns optimiser, data and schedule.
//!
//! Letters of the shape comments: `B` batch, `T` time, `E` model width, `H` heads, `K` key width per
//! head, `V` value width per head, `F` feed-forward width, `C` chunk length, `N` number of chunks.

pub mod cosformer2;
pub mod error;
pub mod hgrn2;
pub mod language_model;
pub mod llama;
pub mod ops;
pub mod parameters;
mod past;
pub mod sampling;
pub mod tnl;

pub use error::ModelsError;
pub use language_model::{Continuation, DecayGroups, GenerationState, LanguageModel};
pub use ops::{Execution, Form, MatmulPrecision};
pub use sampling::{Sampler, Sampling, SamplingError};
