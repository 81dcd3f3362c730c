//! One trainer child: starting it, speaking with it over pipes, and learning how it ended.
//!
//! It does not know what the messages mean for an attempt.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use proto::v1::{self, from_trainer, to_trainer};
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::cli::DeviceChoice;
use crate::device;
use crate::pipe::{self, MessageReader, PipeError};

mod death;
mod lines;

pub use death::Death;
use lines::{LastLines, read_line};
pub use lines::{LogLevel, level_of};

/// Messages that wait between the pipe and the attempt; then the pipe fills, then the trainer
/// waits.
const MESSAGE_CAPACITY: usize = 64;

/// Messages to the trainer that may wait for it to read.
const TELL_CAPACITY: usize = 16;

/// Loading libtorch from a cold disk is slow; beyond this it hangs.
const READY_TIMEOUT: Duration = Duration::from_mins(2);

/// A trainer that closed its pipe exits within this time, or is killed.
const EXIT_GRACE: Duration = Duration::from_secs(5);

/// Grandchildren may hold standard error open; the last lines are not waited for longer.
const STDERR_GRACE: Duration = Duration::from_secs(1);

/// How to start a trainer.
#[derive(Debug, Clone)]
pub struct TrainerCommand {
    /// The program.
    pub program: PathBuf,
    /// The artifact store, once it is known.
    pub artifact_store: Option<String>,
    /// Folder for files that may be lost, shared by the worker's trainers.
    pub scratch: PathBuf,
    /// Intra-op threads.
    pub threads: NonZeroU32,
    /// What it may compute on.
    pub device: DeviceChoice,
    /// Folder with the CUDA half of libtorch, if it is not where the trainer's libtorch lies.
    pub libtorch: Option<PathBuf>,
    /// Which slot it serves.
    pub slot: usize,
    /// How many slots there are.
    pub n_slots: usize,
    /// Whether the machine has fewer cores than all slots' threads together.
    pub is_oversubscribed: bool,
}

/// What comes from a trainer.
#[derive(Debug)]
pub enum FromChild {
    /// A message from its pipe.
    Message(from_trainer::Kind),
    /// A line from its standard error.
    Line(String),
    /// Its end; nothing comes after it.
    Gone(Death),
}

/// Why there is no trainer.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The program cannot be started.
    #[error("could not start the trainer `{program}`", program = program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended instead of getting ready.
    #[error("the trainer did not get ready: {message}")]
    NotReady {
        /// How it ended, with its last line.
        message: String,
    },
    /// It neither ended nor got ready.
    #[error("the trainer did not get ready within {} s", READY_TIMEOUT.as_secs())]
    Silent,
}

/// A running trainer. Dropping it kills it.
#[derive(Debug)]
pub struct Trainer {
    messages: mpsc::Receiver<FromChild>,
    tell: mpsc::Sender<to_trainer::Kind>,
    kill: Option<oneshot::Sender<()>>,
    supervisor: JoinHandle<()>,
}

impl Drop for Trainer {
    fn drop(&mut self) {
        // The supervisor owns the process, which is killed when its handle is dropped.
        self.supervisor.abort();
    }
}

impl Trainer {
    /// Starts a trainer and waits until it is ready.
    pub async fn start(command: &TrainerCommand) -> Result<(Self, v1::Capabilities), ChildError> {
        let mut trainer = Self::spawn(command)?;
        let ready = tokio::time::timeout(READY_TIMEOUT, trainer.wait_ready()).await;
        let capabilities = ready.map_err(|_| ChildError::Silent)??;
        Ok((trainer, capabilities))
    }

    fn spawn(command: &TrainerCommand) -> Result<Self, ChildError> {
        let n_memory_kills = device::n_memory_kills();
        let mut child = command
            .process()
            .spawn()
            .map_err(|source| ChildError::Spawn { program: command.program.clone(), source })?;
        let (out, messages) = mpsc::channel(MESSAGE_CAPACITY);
        let (tell, told) = mpsc::channel(TELL_CAPACITY);
        let (kill, killed) = oneshot::channel();
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let supervisor = tokio::spawn(async move {
            if let (Some(stdin), Some(stdout), Some(stderr)) = pipes {
                let process = Process { child, killed, n_memory_kills };
                process.supervise(stdin, stdout, stderr, told, out).await;
            }
        });
        Ok(Self { messages, tell, kill: Some(kill), supervisor })
    }

    async fn wait_ready(&mut self) -> Result<v1::Capabilities, ChildError> {
        loop {
            match self.next().await {
                FromChild::Message(from_trainer::Kind::Ready(ready)) => return Ok(ready),
                FromChild::Message(_) => {
                    let message = "its first message was not `ready`".to_owned();
                    return Err(ChildError::NotReady { message });
                }
                // Why it computes on something else than its user would expect, for instance.
                FromChild::Line(line) => match level_of(&line) {
                    LogLevel::Info => tracing::debug!(line, "trainer"),
                    LogLevel::Warn | LogLevel::Error => tracing::warn!(line, "trainer"),
                },
                FromChild::Gone(death) => {
                    return Err(ChildError::NotReady { message: death.brief() });
                }
            }
        }
    }

    /// What comes next. After [`FromChild::Gone`] it waits for ever. May be dropped and called
    /// again without a loss.
    pub async fn next(&mut self) -> FromChild {
        match self.messages.recv().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    /// Tells the trainer something. A trainer that is gone or does not read does not hear it; its
    /// end, or the attempt's grace time, settles that.
    pub fn tell(&self, kind: to_trainer::Kind) {
        if self.tell.try_send(kind).is_err() {
            tracing::debug!("the trainer does not take messages");
        }
    }

    /// Kills the trainer; its end comes from [`Self::next`].
    pub fn kill(&mut self) {
        if let Some(kill) = self.kill.take()
            && kill.send(()).is_err()
        {
            tracing::debug!("the trainer is gone already");
        }
    }
}

impl TrainerCommand {
    fn process(&self) -> Command {
        let mut process = Command::new(&self.program);
        process.arg("trainer");
        match &self.artifact_store {
            Some(uri) => process.args(["--artifact-store", uri]),
            None => process.arg("--probe"),
        };
        if let Some(folder) = &self.libtorch {
            process.arg("--libtorch").arg(folder);
        }
        process
            .arg("--scratch")
            .arg(&self.scratch)
            .args(["--threads", &self.threads.to_string()])
            .args(["--device", self.device.label()])
            .args(["--slot", &self.slot.to_string()])
            .args(["--slots", &self.n_slots.to_string()])
            .envs(self.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on a terminal goes to the agent, which asks its trainers for checkpoints.
            .process_group(0)
            .kill_on_drop(true);
        process
    }

    /// The thread libraries read these before `main`: they cannot be set from inside the child.
    fn environment(&self) -> Vec<(&'static str, String)> {
        let threads = self.threads.to_string();
        let mut environment = vec![
            ("OMP_NUM_THREADS", threads.clone()),
            ("MKL_NUM_THREADS", threads),
            // The number of threads is part of a run's numerics.
            ("OMP_DYNAMIC", "FALSE".to_owned()),
            ("MKL_DYNAMIC", "FALSE".to_owned()),
            // cuBLAS gives the same bits each time with a workspace of its own for each stream only;
            // without one libtorch refuses products where determinism is asked for.
            ("CUBLAS_WORKSPACE_CONFIG", ":4096:8".to_owned()),
        ];
        if self.is_oversubscribed {
            // A team that spins while it waits for a core it does not get is many times slower.
            environment.push(("OMP_WAIT_POLICY", "PASSIVE".to_owned()));
            environment.push(("KMP_BLOCKTIME", "0".to_owned()));
        }
        environment
    }
}

/// The process behind a trainer.
struct Process {
    child: Child,
    killed: oneshot::Receiver<()>,
    n_memory_kills: u64,
}

impl Process {
    async fn supervise(
        mut self,
        stdin: ChildStdin,
        stdout: ChildStdout,
        stderr: ChildStderr,
        told: mpsc::Receiver<to_trainer::Kind>,
        out: mpsc::Sender<FromChild>,
    ) {
        let writer = tokio::spawn(write_messages(stdin, told));
        let lines = tokio::spawn(forward_lines(stderr, out.clone()));
        let mut is_killed = false;
        let pipe_error = tokio::select! {
            end = forward_messages(stdout, &out) => end.err(),
            Ok(()) = &mut self.killed => {
                is_killed = true;
                None
            }
        };
        if is_killed || pipe_error.is_some() {
            self.kill();
        }
        let exited = tokio::time::timeout(EXIT_GRACE, self.child.wait()).await;
        let status = if let Ok(status) = exited {
            status
        } else {
            is_killed = true;
            self.kill();
            self.child.wait().await
        };
        let stderr_task = lines.abort_handle();
        let last_lines = match tokio::time::timeout(STDERR_GRACE, lines).await {
            Ok(Ok(last_lines)) => last_lines,
            Ok(Err(_)) | Err(_) => LastLines::default(),
        };
        stderr_task.abort();
        writer.abort();
        let was_memory_kill = device::n_memory_kills() > self.n_memory_kills;
        let death = Death {
            status: status.ok(),
            is_killed,
            was_memory_kill,
            pipe_error: pipe_error.map(|error| describe(&error)),
            last_lines: last_lines.into_text(),
        };
        if out.send(FromChild::Gone(death)).await.is_err() {
            tracing::debug!("nobody waits for the trainer's end");
        }
    }

    fn kill(&mut self) {
        if let Err(error) = self.child.start_kill() {
            tracing::debug!(%error, "the trainer is gone already");
        }
    }
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Passes messages on until the pipe ends. Waits when nobody takes them, so that the trainer waits.
async fn forward_messages(
    stdout: ChildStdout,
    out: &mpsc::Sender<FromChild>,
) -> Result<(), PipeError> {
    let mut reader = MessageReader::new(stdout);
    while let Some(message) = reader.next::<v1::FromTrainer>().await? {
        let Some(kind) = message.kind else { continue };
        if out.send(FromChild::Message(kind)).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Passes lines on and keeps the last. Never waits: a trainer must not hang because it complains.
async fn forward_lines(stderr: ChildStderr, out: mpsc::Sender<FromChild>) -> LastLines {
    let mut last_lines = LastLines::default();
    let mut reader = BufReader::new(stderr);
    while let Some(line) = read_line(&mut reader).await {
        last_lines.push(&line);
        if out.try_send(FromChild::Line(line)).is_err() {
            tracing::debug!("a line of the trainer was dropped");
        }
    }
    last_lines
}

/// Writes messages until there are no more, or the trainer is gone.
async fn write_messages(mut stdin: ChildStdin, mut told: mpsc::Receiver<to_trainer::Kind>) {
    while let Some(kind) = told.recv().await {
        let message = v1::ToTrainer { kind: Some(kind) };
        if let Err(error) = stdin.write_all(&pipe::encode(&message)).await {
            tracing::debug!(%error, "the trainer does not read any more");
            return;
        }
    }
}
