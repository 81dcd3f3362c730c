//! The bare loop: the trainer's own steps in a process that does nothing else, without an agent, a
//! pipe or a coordinator.
//!
//! The process is this program again, because libtorch is set up once in a process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use domain::attempt::AttemptEnd;
use domain::recipe::CellConfig;
use proto::v1::{self, assignment::Work, event::Kind};
use serde::{Deserialize, Serialize};
use worker::artifacts::{Artifacts, reference_to};
use worker::compute_device::ComputeDevice;
use worker::recipes::{self, Host, Outcome};
use worker::trainer::{self, Control, Report};

use crate::device::{Device, Place};
use crate::site::uri;

/// What to train.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    /// The artifact store's folder.
    pub(crate) store: PathBuf,
    /// Where in it the prepared data are.
    pub(crate) manifest_key: String,
    pub(crate) scratch: PathBuf,
    pub(crate) cell: CellConfig,
    pub(crate) threads: u32,
    /// Checkpoints after so many steps each, besides the last.
    pub(crate) checkpoint_steps: Vec<u64>,
    /// What to compute on; where it is not said, what the trainer takes by itself.
    pub(crate) place: Option<Place>,
}

/// What the trainer reported, step by step.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Trained {
    /// The values of each step, the first first.
    points: Vec<BTreeMap<String, f64>>,
}

impl Trained {
    /// A metric of every step.
    pub(crate) fn series(&self, name: &str) -> Result<Vec<f64>> {
        let value = |point: &BTreeMap<String, f64>| point.get(name).copied();
        let values: Option<Vec<f64>> = self.points.iter().map(value).collect();
        values.with_context(|| format!("a step without `{name}`"))
    }

    /// The time of every step: loading, forward, loss, backward, clip, update.
    pub(crate) fn step_seconds(&self, batch_tokens: u32) -> Result<Vec<f64>> {
        let rates = self.series("tokens_per_second")?;
        Ok(rates.into_iter().map(|rate| f64::from(batch_tokens) / rate).collect())
    }

    /// Mean loss of every step's batch in nats per token.
    pub(crate) fn losses(&self) -> Result<Vec<f64>> {
        self.series("train_loss_nats")
    }
}

impl Report for Trained {
    fn event(&mut self, kind: Kind) {
        if let Kind::Point(point) = kind {
            self.points.push(point.values.into_iter().collect());
        }
    }
}

/// Trains in a new process and waits for it.
pub(crate) fn train(request: &Request) -> Result<Trained> {
    let mut command = Command::new(std::env::current_exe()?);
    if request.place.as_ref().is_some_and(|place| place.device == Device::Cpu) {
        // By itself the trainer takes CUDA where it lies beside its libtorch.
        command.env("CUDA_VISIBLE_DEVICES", "");
    }
    let mut child = command
        .arg("loop")
        .env("OMP_NUM_THREADS", request.threads.to_string())
        // Without it CUDA refuses products that are the same each time.
        .env("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("could not start the bare loop")?;
    let stdin = child.stdin.take().context("a child without standard input")?;
    serde_json::to_writer(stdin, request)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the bare loop ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("the bare loop's answer is no JSON")
}

/// The other end of [`train`]: standard input says what, standard output gets the result.
pub(crate) fn serve() -> Result<()> {
    let request = serde_json::from_reader(std::io::stdin()).context("no request")?;
    let trained = carry_out(&request)?;
    serde_json::to_writer(std::io::stdout(), &trained)?;
    Ok(())
}

fn carry_out(request: &Request) -> Result<Trained> {
    let artifacts = Artifacts::open(&uri(&request.store), &request.scratch)?;
    let assignment = assignment(request)?;
    let mut trained = Trained::default();
    let outcome = match request.place.as_ref().filter(|place| place.device == Device::Cuda) {
        None => trainer::carry_out(request.threads, &artifacts, &assignment, &mut trained)?,
        Some(place) => {
            let host = set_up(request.threads, place.choose()?)?;
            carry_out_on(&host, &artifacts, &assignment, &mut trained)
        }
    };
    ensure!(outcome.end == AttemptEnd::Succeeded, "the training ended: {}", outcome.message);
    Ok(trained)
}

/// A process that computes on a device of our choice, set up as the trainer sets itself up.
fn set_up(threads: u32, compute: ComputeDevice) -> Result<Host> {
    torch_ext::keep_freed_memory()?;
    torch_ext::set_inter_op_threads(1)?;
    torch_ext::set_intra_op_threads(threads as usize)?;
    torch_ext::use_deterministic_algorithms(true)?;
    Ok(Host { threads, compute, libtorch_version: torch_ext::libtorch_version().to_owned() })
}

/// What [`trainer::carry_out`] does, on the host's device and not on the one that it finds.
fn carry_out_on(
    host: &Host,
    artifacts: &Artifacts,
    assignment: &v1::Assignment,
    report: &mut dyn Report,
) -> Outcome {
    let control = Control::default();
    let mut context = recipes::Context { artifacts, control: &control, report, host, assignment };
    recipes::carry_out(&mut context)
}

fn assignment(request: &Request) -> Result<v1::Assignment> {
    let key = &request.manifest_key;
    let manifest = std::fs::read(request.store.join(key))
        .with_context(|| format!("no manifest `{key}` in `{}`", request.store.display()))?;
    let train = v1::Train {
        config_json: request.cell.identity()?.canonical_json,
        data_manifest: Some(reference_to(key, &manifest)),
        data_point_steps: request.checkpoint_steps.clone(),
        ..v1::Train::default()
    };
    Ok(v1::Assignment {
        lease_token: 1,
        // Each loop is a process, whose objects are its own.
        work_id: format!("r_bench{}", std::process::id()),
        attempt: 1,
        world_size: 1,
        work: Some(Work::Train(train)),
        ..v1::Assignment::default()
    })
}
