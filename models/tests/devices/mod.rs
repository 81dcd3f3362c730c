//! Where a test runs.

use tch::Device;

/// The CPU, and the GPU where there is one.
pub(crate) fn devices() -> Vec<Device> {
    let mut devices = vec![Device::Cpu];
    if tch::Cuda::is_available() {
        devices.push(Device::Cuda(0));
    }
    devices
}
