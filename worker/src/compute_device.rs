//! The device that a trainer computes on: finding CUDA, and choosing.
//!
//! The operating system's side is `device`'s; what is computed is the recipes'.

use std::path::{Path, PathBuf};

use tch::Device;
use torch_ext::{Cuda, CudaDevice, NoCuda, TorchError};

use crate::cli::DeviceChoice;
use crate::device::Machine;

/// What computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComputeDevice {
    /// As tch names it.
    pub device: Device,
    /// For people.
    pub name: String,
    /// What decides which kernels run, and so the rounding: the CPU's vector instructions and
    /// model, or the CUDA device's model and compute capability.
    pub capability: String,
    /// All its memory.
    pub memory_bytes: u64,
}

/// Why there is nothing to compute on.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// CUDA was asked for and is not there.
    #[error("`--device cuda` was asked for: {reason}; {remedy}", remedy = reason.remedy())]
    NoCuda {
        /// Why not.
        reason: NoCuda,
    },
    /// libtorch would not say what it is.
    #[error("could not ask libtorch for its device")]
    Torch(#[from] TorchError),
}

impl ComputeDevice {
    /// The device of a slot among so many: slots take the CUDA devices in turn, and those that share
    /// one share its memory. Where CUDA is not wanted its library
    /// is not loaded; where any device will do, CUDA that is only half there is warned about.
    ///
    /// To be called before anything else of libtorch.
    pub fn choose(
        wanted: DeviceChoice,
        libtorch: Option<&Path>,
        (slot, n_slots): (u32, u32),
    ) -> Result<Self, DeviceError> {
        if wanted == DeviceChoice::Cpu {
            return Self::cpu();
        }
        match find_cuda(libtorch) {
            Ok(cuda) => {
                torch_ext::use_exact_cuda_products()?;
                let index = slot as usize % cuda.devices.len();
                let n_sharing = (n_slots as usize).div_ceil(cuda.devices.len()).max(1);
                Ok(Self::cuda(index, &cuda.devices[index], n_sharing))
            }
            Err(reason) if wanted == DeviceChoice::Cuda => Err(DeviceError::NoCuda { reason }),
            Err(reason) => {
                if reason.is_ordinary() {
                    tracing::debug!(%reason, "computing on the CPU");
                } else {
                    let remedy = reason.remedy();
                    tracing::warn!(%reason, remedy, "computing on the CPU");
                }
                Self::cpu()
            }
        }
    }

    fn cpu() -> Result<Self, DeviceError> {
        let machine = Machine::look();
        Ok(Self {
            device: Device::Cpu,
            name: machine.cpu_name,
            capability: torch_ext::cpu_capability()?,
            memory_bytes: machine.memory_bytes,
        })
    }

    fn cuda(index: usize, found: &CudaDevice, n_sharing: usize) -> Self {
        Self {
            device: Device::Cuda(index),
            name: found.name.clone(),
            // Devices of one compute capability differ in cores, and with them in how sums are split.
            capability: format!("{} {}", found.name, compute_capability(found)),
            memory_bytes: found.memory_bytes / n_sharing as u64,
        }
    }

    /// `cpu` or `cuda`.
    pub fn kind(&self) -> &'static str {
        if self.device == Device::Cpu { "cpu" } else { "cuda" }
    }
}

/// Such as `sm_90`.
pub(crate) fn compute_capability(device: &CudaDevice) -> String {
    format!("sm_{}{}", device.capability.0, device.capability.1)
}

/// CUDA from the folder that was named, `lib` below it included, or else from where this process's
/// libtorch lies.
pub(crate) fn find_cuda(libtorch: Option<&Path>) -> Result<Cuda, NoCuda> {
    let folders: Vec<PathBuf> = match libtorch {
        Some(folder) => vec![folder.to_owned(), folder.join("lib")],
        None => vec![torch_ext::libtorch_folder()?],
    };
    torch_ext::open_cuda(&folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_taken_unless_cuda_is_insisted_upon() {
        let folder = tempfile::tempdir().unwrap();
        let choose = |wanted| ComputeDevice::choose(wanted, Some(folder.path()), (0, 1));
        for wanted in [DeviceChoice::Auto, DeviceChoice::Cpu] {
            let chosen = choose(wanted).unwrap();
            assert_eq!((chosen.device, chosen.kind()), (Device::Cpu, "cpu"));
            assert_eq!(chosen.capability, torch_ext::cpu_capability().unwrap());
        }
        let refused = choose(DeviceChoice::Cuda).unwrap_err().to_string();
        let below = folder.path().join("lib");
        assert!(refused.contains(below.to_str().unwrap()), "{refused}");
    }

    #[test]
    fn a_cuda_device_rounds_like_its_own_model_only() {
        let found = CudaDevice {
            name: "NVIDIA H100 80GB HBM3".to_owned(),
            memory_bytes: 1 << 36,
            capability: (9, 0),
        };
        let chosen = ComputeDevice::cuda(1, &found, 2);
        assert_eq!((chosen.device, chosen.kind()), (Device::Cuda(1), "cuda"));
        assert_eq!(chosen.capability, "NVIDIA H100 80GB HBM3 sm_90");
        assert_eq!(chosen.memory_bytes, 1 << 35, "two slots share it");
    }
}
