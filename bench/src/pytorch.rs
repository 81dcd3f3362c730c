//! PyTorch's side: `pytorch/train_llama.py`, run by the Python that has it, on our weights and batches.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use domain::model::Architecture;
use domain::recipe::CellConfig;
use models::LanguageModel;
use serde::Deserialize;
use worker::checkpoint::tensors;

use crate::case::{Case, LEARNING_RATE};
use crate::device::Device;
use crate::site::Site;

/// Names the Python to use.
const VARIABLE: &str = "BENCH_PYTHON";
/// Where `make bench-train` puts one.
const USUAL: &str = "target/bench/venv/bin/python";

/// A Python with PyTorch, and what it is to compute on.
#[derive(Debug)]
pub(crate) struct PyTorch {
    python: PathBuf,
    device: Device,
}

/// How PyTorch computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Eager,
    Compiled,
}

/// The files of one case, which both of PyTorch's modes read.
#[derive(Debug)]
pub(crate) struct Inputs {
    config: PathBuf,
    weights: PathBuf,
    batches: PathBuf,
}

/// What PyTorch reported.
#[derive(Debug, Deserialize)]
pub(crate) struct Trained {
    /// Of the timed steps.
    pub(crate) step_seconds: Vec<f64>,
    /// Of all steps.
    pub(crate) losses: Vec<f64>,
    /// The most that its allocator took of a CUDA device; of the CPU it tells none.
    pub(crate) memory_peak_bytes: Option<f64>,
    pub(crate) torch_version: String,
    threads: u32,
}

impl PyTorch {
    /// The Python that the environment names, or the benchmarks' own; none where neither is there.
    pub(crate) fn find(device: Device) -> Option<Self> {
        let named = std::env::var_os(VARIABLE).map(PathBuf::from);
        let usual = || Some(PathBuf::from(USUAL)).filter(|path| path.exists());
        named.or_else(usual).map(|python| Self { python, device })
    }

    /// What to say when there is none.
    pub(crate) fn missing() -> String {
        format!(
            "PyTorch's side is left out: `{VARIABLE}` names no Python and `{USUAL}` is not there; \
             `make bench-train` makes it."
        )
    }

    /// Trains a case from our first weights on our batches.
    pub(crate) fn train(
        &self,
        case: &Case,
        mode: Mode,
        inputs: &Inputs,
        steps: Steps,
        threads: u32,
    ) -> Result<Trained> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("pytorch/train_llama.py");
        let precision = match mode {
            Mode::Eager => case.precision_label().to_owned(),
            Mode::Compiled => format!("{}-compile", case.precision_label()),
        };
        let output = Command::new(&self.python)
            .arg(script)
            .arg("--config")
            .arg(&inputs.config)
            .arg("--initial")
            .arg(&inputs.weights)
            .arg("--batches")
            .arg(&inputs.batches)
            .args(["--sequence-length", &case.sequence_length.to_string()])
            .args(["--batch-sequences", &case.batch_sequences.to_string()])
            .args(["--steps", &steps.timed.to_string()])
            .args(["--untimed-steps", &steps.untimed.to_string()])
            .args(["--precision", &precision])
            .args(["--learning-rate", &LEARNING_RATE.to_string()])
            .args(["--threads", &threads.to_string()])
            .args(["--device", self.device.label()])
            .env("OMP_NUM_THREADS", threads.to_string())
            .output()
            .with_context(|| format!("could not start `{}`", self.python.display()))?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "PyTorch ended with {}: {errors}", output.status);
        let trained: Trained = serde_json::from_slice(&output.stdout)
            .context("PyTorch's answer cannot be understood")?;
        ensure!(trained.threads == threads, "PyTorch used {} threads", trained.threads);
        ensure!(trained.step_seconds.len() == steps.timed as usize, "steps are missing");
        ensure!(trained.losses.len() == steps.all() as usize, "losses are missing");
        let has_memory = trained.memory_peak_bytes.is_some() == (self.device == Device::Cuda);
        ensure!(has_memory, "PyTorch's memory is missing");
        Ok(trained)
    }
}

/// How many steps a side makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    /// While buffers and caches fill.
    pub(crate) untimed: u32,
    pub(crate) timed: u32,
}

impl Steps {
    pub(crate) fn all(self) -> u32 {
        self.untimed + self.timed
    }
}

/// Writes what PyTorch reads; nothing for an architecture that it has no code for.
pub(crate) fn inputs(case: &Case, cell: &CellConfig, site: &Site) -> Result<Option<Inputs>> {
    if case.architecture != Architecture::Llama {
        return Ok(None);
    }
    let file = |name: &str| site.path().join(format!("{case}.{name}"));
    let inputs = Inputs {
        config: file("config.json"),
        weights: file("model.safetensors"),
        batches: file("batches.bin"),
    };
    let CellConfig::Pretrain(pretrain) = cell;
    let seed = u64::from(pretrain.training.seed);
    let model = LanguageModel::new(&pretrain.model, tch::Device::Cpu, seed)?;
    std::fs::write(&inputs.config, serde_json::to_vec(&pretrain.model)?)?;
    std::fs::write(&inputs.weights, tensors::to_bytes(&model.named_parameters())?)?;
    std::fs::write(&inputs.batches, site.batches(cell)?)?;
    Ok(Some(inputs))
}
