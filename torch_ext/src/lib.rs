//! What libtorch offers and tch lacks, behind a small checked C ABI; the only crate with `unsafe`.
//!
//! Does not know networks, runs or files. Every call checks its inputs, and what libtorch throws
//! comes back as a [`TorchError`].

mod autocast;
mod autograd;
mod cuda;
mod error;
mod ffi;
mod fused_adamw;
mod generator;
mod gradient;
mod operations;
mod runtime;

pub use autocast::Autocast;
pub use autograd::{Backward, Forward, Gradients, custom_function, is_recording};
pub use cuda::{CudaSupport, open_cuda};
pub use error::TorchError;
pub use fused_adamw::{AdamWConfig, FusedAdamW, ParameterGroup};
pub use generator::{generator_state, set_generator_state};
pub use gradient::{clear_gradients, clip_gradient_norm, gradient_norm, scale_gradients};
pub use operations::{Operation, record_operations};
pub use runtime::{
    Threads, cpu_capability, libtorch_configuration, libtorch_version, set_inter_op_threads,
    set_intra_op_threads, threads, use_deterministic_algorithms, uses_deterministic_algorithms,
};
