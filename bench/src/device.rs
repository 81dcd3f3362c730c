//! What the training benchmark computes on, on both sides. It measures nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use worker::cli::{DeviceChoice, LIBTORCH_VARIABLE};
use worker::compute_device::{ComputeDevice, DeviceError};

/// What to compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum, Serialize, Deserialize)]
pub(crate) enum Device {
    /// The CPU; nothing of CUDA is used
    #[default]
    Cpu,
    /// The first CUDA device
    Cuda,
}

impl Device {
    /// The text on the command lines, ours and PyTorch's.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

/// A device, and where libtorch's half for it lies.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
pub(crate) struct Place {
    /// What both sides compute on
    #[arg(long, value_enum, default_value_t)]
    pub(crate) device: Device,
    /// Folder with the CUDA half of libtorch; where this program's libtorch lies by default
    #[arg(long, value_name = "DIR", env = LIBTORCH_VARIABLE)]
    pub(crate) libtorch: Option<PathBuf>,
}

impl Place {
    /// The device, ready for use; where CUDA is not there, the reason and the remedy are those of
    /// `gradus-worker devices`. To be called before anything else of libtorch.
    pub(crate) fn choose(&self) -> Result<ComputeDevice, DeviceError> {
        let wanted = match self.device {
            Device::Cpu => DeviceChoice::Cpu,
            Device::Cuda => DeviceChoice::Cuda,
        };
        ComputeDevice::choose(wanted, self.libtorch.as_deref(), (0, 1))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn parsed(more: &[&str]) -> Result<Device, clap::Error> {
        let args = Args::try_parse_from(["gradus-bench", "train"].iter().chain(more))?;
        match args.command {
            Command::Train(train) => Ok(train.place.device),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_cpu_is_taken_unless_cuda_is_asked_for() {
        assert_eq!(parsed(&[]).unwrap(), Device::Cpu);
        for device in [Device::Cpu, Device::Cuda] {
            assert_eq!(parsed(&["--device", device.label()]).unwrap(), device);
        }
        assert!(parsed(&["--device", "auto"]).is_err());
    }

    #[test]
    fn the_cpu_is_ready_whatever_folder_is_named() {
        let place = Place { device: Device::Cpu, libtorch: Some("/nowhere".into()) };
        assert_eq!(place.choose().unwrap().kind(), "cpu");
    }
}
