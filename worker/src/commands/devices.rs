//! `gradus-worker devices`: what this machine can compute on, and why there is no CUDA.
//!
//! It computes nothing.

use anyhow::Result;
use serde::Serialize;
use torch_ext::{Cuda, NoCuda};

use super::{print, warn};
use crate::cli::DevicesArgs;
use crate::compute_device::{compute_capability, find_cuda};
use crate::device::Machine;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Overview {
    machine: Machine,
    libtorch: Libtorch,
    devices: Vec<DeviceRow>,
    cuda: CudaRow,
}

#[derive(Debug, Serialize)]
struct Libtorch {
    version: String,
    /// Where it was loaded from.
    folder: String,
    /// Intra-op threads that it would take by itself.
    threads: usize,
}

#[derive(Debug, Serialize)]
struct DeviceRow {
    /// `cpu` or `cuda`.
    kind: &'static str,
    /// Counts the devices of one kind.
    index: usize,
    name: String,
    memory_bytes: u64,
    /// The CPU's vector instructions, or the compute capability.
    capability: String,
}

/// Whether there is CUDA; if not, why, and what would mend it.
#[derive(Debug, Default, Serialize)]
struct CudaRow {
    is_available: bool,
    library: Option<String>,
    runtime: Option<String>,
    driver: Option<String>,
    /// A name of the reason, for programs.
    reason: Option<&'static str>,
    message: Option<String>,
    remedy: Option<String>,
}

pub(super) fn devices(args: &DevicesArgs) -> Result<()> {
    let found = find_cuda(args.libtorch.as_deref());
    let devices = describe(&found)?;
    if args.json {
        print(&serde_json::to_string_pretty(&devices)?);
        return Ok(());
    }
    print(&table(&devices));
    if let Some(remedy) = &devices.cuda.remedy {
        warn(&format!("hint: {remedy}"));
    }
    Ok(())
}

fn describe(found: &Result<Cuda, NoCuda>) -> Result<Overview> {
    let machine = Machine::look();
    let mut devices = vec![DeviceRow {
        kind: "cpu",
        index: 0,
        name: machine.cpu_name.clone(),
        memory_bytes: machine.memory_bytes,
        capability: torch_ext::cpu_capability()?,
    }];
    for (index, device) in found.iter().flat_map(|cuda| &cuda.devices).enumerate() {
        devices.push(DeviceRow {
            kind: "cuda",
            index,
            name: device.name.clone(),
            memory_bytes: device.memory_bytes,
            capability: compute_capability(device),
        });
    }
    let libtorch = Libtorch {
        version: torch_ext::libtorch_version().to_owned(),
        folder: torch_ext::libtorch_folder()?.display().to_string(),
        threads: torch_ext::threads()?.intra_op,
    };
    Ok(Overview { machine, libtorch, devices, cuda: cuda_row(found) })
}

fn cuda_row(found: &Result<Cuda, NoCuda>) -> CudaRow {
    match found {
        Ok(cuda) => CudaRow {
            is_available: true,
            library: Some(cuda.library.display().to_string()),
            runtime: Some(cuda.runtime.to_string()),
            driver: Some(cuda.driver.to_string()),
            ..CudaRow::default()
        },
        Err(reason) => CudaRow {
            reason: Some(reason.label()),
            message: Some(reason.to_string()),
            remedy: Some(reason.remedy()),
            ..CudaRow::default()
        },
    }
}

fn table(found: &Overview) -> String {
    let Overview { machine, libtorch, devices, cuda } = found;
    let width = devices.iter().map(|device| device.name.len()).max().unwrap_or(0);
    let width = width.max("name".len());
    let mut lines =
        vec![format!("{:<7} {:<width$} {:>10}  capability", "device", "name", "memory")];
    for DeviceRow { kind, index, name, memory_bytes, capability } in devices {
        let label = format!("{kind}:{index}");
        let memory = format!("{:.1} GiB", *memory_bytes as f64 / 1024f64.powi(3));
        lines.push(format!("{label:<7} {name:<width$} {memory:>10}  {capability}"));
    }
    let Libtorch { version, folder, threads } = libtorch;
    lines.push(format!(
        "libtorch {version} in `{folder}`, {threads} threads on {} cores",
        machine.n_cores
    ));
    lines.push(match (&cuda.message, &cuda.runtime, &cuda.driver) {
        (None, Some(runtime), Some(driver)) => {
            format!("CUDA {runtime}, the driver serves up to {driver}")
        }
        (message, ..) => format!("no CUDA: {}", message.as_deref().unwrap_or_default()),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use torch_ext::{CudaDevice, CudaVersion};

    use super::*;

    #[test]
    fn cuda_devices_stand_below_the_cpu() {
        let device = |name: &str| CudaDevice {
            name: name.to_owned(),
            memory_bytes: 80 << 30,
            capability: (9, 0),
        };
        let found = Ok(Cuda {
            library: "lib/libtorch_cuda.so".into(),
            runtime: CudaVersion(13000),
            driver: CudaVersion(13020),
            devices: vec![device("one"), device("two")],
        });
        let devices = describe(&found).unwrap();
        let table = table(&devices);
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[1].starts_with("cpu:0 "), "{table}");
        assert!(lines[3].starts_with("cuda:1  two "), "{table}");
        assert!(lines[3].ends_with("  80.0 GiB  sm_90"), "{table}");
        assert_eq!(lines[5], "CUDA 13.0, the driver serves up to 13.2");
        let json = serde_json::to_value(&devices).unwrap();
        assert_eq!(json["devices"][2]["index"], 1);
        assert_eq!(json["cuda"]["reason"], serde_json::Value::Null);
    }
}
