//! The devices that tests run on: the CPU always, a GPU where there is one.
//!
//! `GRADUS_LIBTORCH` names the folder with libtorch's CUDA half, if that is not where libtorch lies.

use std::path::PathBuf;
use std::sync::OnceLock;

use tch::Device;

/// The devices. To be asked before anything is seeded: libtorch looks for CUDA then, once.
pub(crate) fn devices() -> Vec<Device> {
    static HAS_CUDA: OnceLock<bool> = OnceLock::new();
    tch::set_num_threads(1);
    let has_cuda = *HAS_CUDA.get_or_init(|| {
        let named = std::env::var_os("GRADUS_LIBTORCH").map(PathBuf::from);
        let folder = named.or_else(|| torch_ext::libtorch_folder().ok());
        let found = torch_ext::open_cuda(&Vec::from_iter(folder));
        found.is_ok() && torch_ext::use_exact_cuda_products().is_ok()
    });
    let cuda = has_cuda.then_some(Device::Cuda(0));
    [Device::Cpu].into_iter().chain(cuda).collect()
}
