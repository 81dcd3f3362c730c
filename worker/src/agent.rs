//! The agent: registers with the coordinator, renews leases, asks for work, gives it to its
//! slots' trainers, and leaves in order.
//!
//! What it does when is `core`'s, a state machine without I/O; `shell` carries that out. It makes no
//! libtorch call and knows nothing of training; an attempt's life is `attempt`'s.

use proto::v1;
use tokio::sync::mpsc;

use crate::artifacts::uri::UriError;
use crate::child::{ChildError, Trainer, TrainerCommand};
use crate::client::{Client, ClientError, ErrorClass};
use crate::config::Config;
use crate::device::Machine;

mod board;
pub mod core;
mod registration;
mod shell;
mod spill;
mod stop;
mod trainers;

pub use registration::Registration;
use shell::Shell;
pub use stop::StopReason;

/// Why an agent ended that should not have.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No trainer can be started.
    #[error("cannot start a trainer")]
    NoTrainer(#[source] ChildError),
    /// The coordinator refused.
    #[error("cannot work for this coordinator")]
    Coordinator(#[from] ClientError),
    /// The artifact store cannot be opened.
    #[error("cannot see the artifact store")]
    ArtifactStoreUri(#[source] UriError),
    /// The registration's object cannot be read from the artifact store.
    #[error("cannot see the artifact store `{uri}`")]
    ArtifactStore {
        /// Where it should be.
        uri: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// The object that was read is not the coordinator's: it is another store.
    #[error("cannot see the artifact store: `{uri}` is another one here")]
    OtherArtifactStore {
        /// Where it should be.
        uri: String,
        /// The coordinator's words.
        #[source]
        source: ClientError,
    },
    /// The coordinator came back with another artifact store than the trainers have.
    #[error("the artifact store has moved to `{uri}`; start the worker again")]
    ArtifactStoreMoved {
        /// Where it is now.
        uri: String,
    },
    /// The system gives no random numbers.
    #[error("could not choose a name of this process")]
    Instance(#[source] std::io::Error),
    /// The signals cannot be listened to.
    #[error("could not listen for signals")]
    Signals(#[source] std::io::Error),
}

impl AgentError {
    /// Whether the artifact store cannot be read, which may pass.
    pub fn is_about_artifacts(&self) -> bool {
        matches!(self, Self::ArtifactStore { .. } | Self::ArtifactStoreUri(_))
    }

    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Coordinator(error) => error.class(),
            Self::NoTrainer(_)
            | Self::ArtifactStoreUri(_)
            | Self::ArtifactStore { .. }
            | Self::OtherArtifactStore { .. }
            | Self::ArtifactStoreMoved { .. }
            | Self::Instance(_)
            | Self::Signals(_) => ErrorClass::GiveUp,
        }
    }
}

/// Serves the coordinator until a signal, the parent's end or a drain; a second signal ends it at
/// once.
pub async fn run(config: Config) -> Result<(), AgentError> {
    let stop = stop::listen(config.exit_with_parent).map_err(AgentError::Signals)?;
    run_until(config, stop).await
}

/// As [`run`], but told to stop by messages.
pub async fn run_until(
    config: Config,
    mut stop: mpsc::Receiver<StopReason>,
) -> Result<(), AgentError> {
    let client = Client::new(&config.coordinators, config.token.as_deref())?;
    let capabilities = tokio::select! {
        probed = probe(&config) => probed?,
        _ = next_stop(&mut stop) => return Ok(()),
    };
    let instance = crate::device::random_name().map_err(AgentError::Instance)?;
    Shell::new(config, client, capabilities, instance).run(stop).await
}

/// The next reason to stop; a closed channel is none.
async fn next_stop(stop: &mut mpsc::Receiver<StopReason>) -> StopReason {
    match stop.recv().await {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

/// What the machine and its trainers can do. Starts a trainer to ask it.
async fn probe(config: &Config) -> Result<v1::Capabilities, AgentError> {
    let command = trainer_command(config, None, 0);
    let (_trainer, said) = Trainer::start(&command).await.map_err(AgentError::NoTrainer)?;
    let machine = Machine::look();
    let is_named = !said.device_name.is_empty();
    // A CUDA device's memory is known to the trainer alone.
    let is_cpu = said.device_kind == "cpu";
    Ok(v1::Capabilities {
        device_name: if is_named { said.device_name } else { machine.cpu_name },
        threads_per_slot: config.threads_per_slot.get(),
        memory_bytes: if is_cpu { machine.memory_bytes } else { said.memory_bytes },
        ..said
    })
}

/// How this worker starts its trainers.
fn trainer_command(config: &Config, artifact_store: Option<String>, slot: usize) -> TrainerCommand {
    let n_threads = config.n_slots.get().saturating_mul(config.threads_per_slot.get());
    TrainerCommand {
        program: config.trainer.clone(),
        artifact_store,
        scratch: config.scratch.clone(),
        threads: config.threads_per_slot,
        device: config.device,
        libtorch: config.libtorch.clone(),
        slot,
        n_slots: config.n_slots.get() as usize,
        is_oversubscribed: n_threads > crate::device::n_cores(),
    }
}
