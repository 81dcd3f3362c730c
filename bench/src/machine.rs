//! Where the numbers come from: processor, cores, load, libraries.

use anyhow::Result;
use serde::Serialize;
use worker::device;

/// This machine, as a table names it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    cpu: String,
    n_cores: u32,
    memory_gibibytes: f64,
    /// The vector instructions that libtorch uses.
    cpu_capability: String,
    libtorch_version: String,
    /// Processes that wanted to run in the last minute before the first measurement.
    load_before: Option<f64>,
}

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let found = device::Machine::look();
        Ok(Self {
            cpu: found.cpu_name,
            n_cores: found.n_cores,
            memory_gibibytes: (found.memory_bytes as f64 / f64::from(1 << 30)).round(),
            cpu_capability: torch_ext::cpu_capability()?,
            libtorch_version: torch_ext::libtorch_version().to_owned(),
            load_before: load(),
        })
    }

    pub(crate) fn to_text(&self) -> String {
        let load = self.load_before.map_or_else(|| "unknown".to_owned(), |load| load.to_string());
        format!(
            "{} ({}), {} cores, {} GiB, libtorch {}, load before {load}",
            self.cpu,
            self.cpu_capability,
            self.n_cores,
            self.memory_gibibytes,
            self.libtorch_version
        )
    }
}

fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}
