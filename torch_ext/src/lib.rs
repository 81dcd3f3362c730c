//! What libtorch offers and tch lacks, behind a small checked C ABI; the only crate with `unsafe`.
//!
//! Does not know networks, runs or files. Every call checks its inputs, and what libtorch throws
//! comes back as a [`TorchError`].

mod autocast;
mod autograd;
mod build_id;
mod cuda;
mod device;
mod error;
mod ffi;
mod fused_adamw;
mod generator;
mod gradient;
mod graph;
mod host_copies;
mod operations;
mod processor;
mod runtime;
mod stream;

pub use autocast::Autocast;
pub use autograd::{Backward, Forward, Gradients, custom_function, is_recording};
pub use cuda::{CUDA_LIBRARY, Cuda, CudaDevice, CudaVersion, NoCuda, libtorch_folder, open_cuda};
pub use device::{
    DeviceMemory, device_memory, release_device_memory, reset_peak_memory, synchronize,
    use_exact_cuda_products,
};
pub use error::TorchError;
pub use fused_adamw::{AdamWConfig, FusedAdamW, ParameterGroup};
pub use generator::{generator_state, set_generator_state};
pub use gradient::{clear_gradients, clip_gradient_norm, gradient_norm, scale_gradients};
pub use graph::Graph;
pub use host_copies::HostCopies;
pub use operations::{Operation, record_operations};
pub use runtime::{
    Threads, cpu_capability, keep_freed_memory, libtorch_configuration, libtorch_version,
    multiplies_bf16, release_freed_memory, set_inter_op_threads, set_intra_op_threads, threads,
    use_deterministic_algorithms, uses_deterministic_algorithms,
};
pub use stream::{Event, Stream};
