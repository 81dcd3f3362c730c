//! The trainer child: takes assignments from its agent over a pipe, one at a time, and carries them
//! out with libtorch.
//!
//! It holds no lease, speaks to no coordinator and is not async. The thread that starts here does all
//! the computing, because libtorch's number of threads belongs to the thread that set it; a second
//! one reads the pipe, so that demands and the agent's death are noticed in the middle of a step.

mod control;
mod panics;
mod report;

use std::collections::HashMap;
use std::io::Stdin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use domain::attempt::AttemptEnd;
use proto::v1::{self, to_trainer};
use tch::Device;
use torch_ext::TorchError;

use crate::artifacts::Artifacts;
use crate::cli::{DeviceChoice, TrainerArgs};
use crate::compute_device::{ComputeDevice, DeviceError};
use crate::pipe::MessageReader;
use crate::recipes::{self, Context, Host, Outcome};
use crate::signals;

pub use control::{Control, Demand};
pub use report::{PipeReport, Report};

/// What goes wrong around the assignments.
#[derive(Debug, thiserror::Error)]
enum TrainerError {
    #[error("could not set up libtorch")]
    Torch(#[from] TorchError),
    #[error("there is nothing to compute on")]
    Device(#[from] DeviceError),
    #[error("could not open the artifact store")]
    Artifacts(#[from] crate::artifacts::ArtifactError),
    #[error("no artifact store is given")]
    NoStore,
    #[error("could not write to the agent")]
    Pipe(#[from] std::io::Error),
    #[error("could not leave signals to the agent")]
    Signals(#[source] std::io::Error),
}

/// Serves the agent at the other end of standard input and output until it leaves.
///
/// Exit status: 0 when the agent has closed the pipe, not 0 when the child could not start or an
/// assignment ended in a panic, after which the process is not used again.
#[expect(clippy::needless_pass_by_value, reason = "a program's arguments are its own")]
pub fn main(args: TrainerArgs) -> ExitCode {
    panics::install();
    match serve(&args) {
        Ok(status) => status,
        Err(error) => {
            tracing::error!("{}", recipes::chain(&error));
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &TrainerArgs) -> Result<ExitCode, TrainerError> {
    signals::leave_to_agent().map_err(TrainerError::Signals)?;
    let compute =
        ComputeDevice::choose(args.device, args.libtorch.as_deref(), (args.slot, args.slots))?;
    let host = set_up(args.threads, compute)?;
    let mut report = PipeReport::new(std::io::stdout());
    if args.probe {
        report.ready(capabilities(&host))?;
        return Ok(ExitCode::SUCCESS);
    }
    let uri = args.artifact_store.as_deref().ok_or(TrainerError::NoStore)?;
    let artifacts = Artifacts::open(uri, &args.scratch)?.with_patience(args.patience());
    let control = Arc::new(Control::default());
    let assignments = listen(Arc::clone(&control))?;
    report.ready(capabilities(&host))?;
    for assignment in assignments {
        if !control.begin() {
            break;
        }
        let token = assignment.lease_token;
        let mut context = Context {
            artifacts: &artifacts,
            control: &control,
            report: &mut report,
            host: &host,
            assignment: &assignment,
        };
        match panics::caught(|| recipes::carry_out(&mut context)) {
            Ok(Outcome { end, message }) => {
                report.finished(token, end, &message)?;
                // A context that CUDA has given up fails every call from then on.
                if recipes::is_device_fault(&message) {
                    return Ok(ExitCode::FAILURE);
                }
            }
            Err(text) => {
                let is_memory = recipes::is_out_of_memory(&text);
                let end = if is_memory { AttemptEnd::OutOfMemory } else { AttemptEnd::Bug };
                report.finished(token, end, &text)?;
                return Ok(ExitCode::FAILURE);
            }
        }
        control.end();
        // The next assignment may be a while, and others need memory meanwhile.
        torch_ext::release_freed_memory();
        if host.compute.device != Device::Cpu {
            torch_ext::release_device_memory(host.compute.device)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Threads, memory and determinism, before libtorch computes anything.
fn set_up(threads: u32, compute: ComputeDevice) -> Result<Host, TorchError> {
    torch_ext::keep_freed_memory()?;
    torch_ext::set_inter_op_threads(1)?;
    torch_ext::set_intra_op_threads(threads as usize)?;
    torch_ext::use_deterministic_algorithms(true)?;
    Ok(Host { threads, compute, libtorch_version: torch_ext::libtorch_version().to_owned() })
}

/// Carries out one assignment in this process, reporting to `report`, with no agent and no pipe: the
/// bare loop that benchmarks compare with.
pub fn carry_out(
    threads: u32,
    artifacts: &Artifacts,
    assignment: &v1::Assignment,
    report: &mut dyn Report,
) -> Result<Outcome, DeviceError> {
    let compute = ComputeDevice::choose(DeviceChoice::Auto, None, (0, 1))?;
    let host = set_up(threads, compute)?;
    let control = Control::default();
    let mut context = Context { artifacts, control: &control, report, host: &host, assignment };
    Ok(recipes::carry_out(&mut context))
}

fn capabilities(host: &Host) -> v1::Capabilities {
    v1::Capabilities {
        device_kind: host.compute.kind().to_owned(),
        device_name: host.compute.name.clone(),
        threads_per_slot: host.threads,
        cpu_capability: host.compute.capability.clone(),
        libtorch_version: host.libtorch_version.clone(),
        memory_bytes: host.compute.memory_bytes,
        recipes: recipes::NAMES.iter().map(|name| (*name).to_owned()).collect(),
        labels: HashMap::new(),
    }
}

/// Starts the thread that reads the pipe.
fn listen(control: Arc<Control>) -> Result<Receiver<v1::Assignment>, TrainerError> {
    let (sender, receiver) = mpsc::channel();
    let reader = MessageReader::new(std::io::stdin());
    std::thread::Builder::new()
        .name("agent-pipe".to_owned())
        .spawn(move || read_pipe(reader, sender, &control))?;
    Ok(receiver)
}

fn read_pipe(
    mut reader: MessageReader<Stdin>,
    assignments: Sender<v1::Assignment>,
    control: &Control,
) {
    loop {
        let message = match reader.next_blocking::<v1::ToTrainer>() {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) => {
                tracing::error!("{}", recipes::chain(&error));
                break;
            }
        };
        match message.kind {
            // Fails when the other thread has ended, and then so does the process.
            Some(to_trainer::Kind::Assignment(work)) => drop(assignments.send(work)),
            Some(to_trainer::Kind::Stop(stop)) => control.stop(stop.lease_token),
            Some(to_trainer::Kind::Preempt(preempt)) => control.preempt(preempt.lease_token),
            None => {}
        }
    }
    drop(assignments);
    if control.leave_alone() {
        die();
    }
}

/// Ends the process at once, without the destructors that libtorch's threads would trip over. All
/// that must last is behind a manifest already.
pub(crate) fn die() -> ! {
    use nix::sys::signal::{Signal, kill};
    if let Err(error) = kill(nix::unistd::Pid::this(), Signal::SIGKILL) {
        tracing::error!(%error, "could not end by a signal");
    }
    std::process::abort()
}
