//! What the agent's loops share: the registration, the board of slots, and the way to each slot.
//!
//! It decides nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::v1;
use tokio::sync::{mpsc, watch};

use super::board::{Board, Placement};
use super::registration::{Registration, register};
use super::{AgentError, n_slots};
use crate::client::Client;
use crate::clock::Monotonic;
use crate::config::Config;

/// Commands that wait for a slot; a busy slot takes them at once.
const COMMAND_CAPACITY: usize = 16;

/// No call is given up sooner.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);

/// What a slot is told.
#[derive(Debug)]
pub(super) enum SlotCommand {
    /// Carry this out.
    Start(Box<v1::Assignment>),
    /// The lease is gone.
    Stop { token: u64, reason: String },
    /// Checkpoint and end.
    Preempt { token: u64, deadline_ms: u64 },
}

/// What the agent's loops share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) client: Client,
    pub(super) clock: Monotonic,
    capabilities: v1::Capabilities,
    registration: Mutex<Registration>,
    /// Grows with each registration; the coordinator may give the same identifier again.
    n_registrations: AtomicU64,
    /// One registration at a time.
    registering: tokio::sync::Mutex<()>,
    pub(super) board: watch::Sender<Board>,
    slots: Vec<mpsc::Sender<SlotCommand>>,
}

impl Shared {
    /// Also the slots' ends of their command channels.
    pub(super) fn new(
        config: Config,
        client: Client,
        capabilities: v1::Capabilities,
        registration: Registration,
    ) -> (Arc<Self>, Vec<mpsc::Receiver<SlotCommand>>) {
        let n_slots = n_slots(config.n_slots);
        let (slots, commands) = (0..n_slots).map(|_| mpsc::channel(COMMAND_CAPACITY)).unzip();
        let shared = Self {
            config,
            client,
            clock: Monotonic::start(),
            capabilities,
            registration: Mutex::new(registration),
            n_registrations: AtomicU64::new(1),
            registering: tokio::sync::Mutex::new(()),
            board: watch::Sender::new(Board::new(n_slots)),
            slots,
        };
        (Arc::new(shared), commands)
    }

    fn registration(&self) -> MutexGuard<'_, Registration> {
        self.registration.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn worker_id(&self) -> String {
        self.registration().worker_id.clone()
    }

    pub(super) fn artifact_store_uri(&self) -> String {
        self.registration().artifact_store_uri.clone()
    }

    pub(super) fn heartbeat_interval(&self) -> Duration {
        self.registration().heartbeat_interval
    }

    /// How long a heartbeat may take, so that the next comes before the lease expires.
    pub(super) fn heartbeat_timeout(&self) -> Duration {
        (self.registration().lease_term / 2).max(SHORTEST_TIMEOUT)
    }

    /// How often this worker has registered; taken before a call, it says later whether another
    /// loop has registered again meanwhile.
    pub(super) fn n_registrations(&self) -> u64 {
        self.n_registrations.load(Ordering::Acquire)
    }

    /// Registers again, unless that has happened since `n_registrations` was asked for. The leases
    /// stay: whether they still live is the next heartbeat's answer.
    pub(super) async fn register_again(&self, n_known: u64) -> Result<(), AgentError> {
        let _one_at_a_time = self.registering.lock().await;
        if self.n_registrations() != n_known {
            return Ok(());
        }
        tracing::info!("the coordinator forgot this worker; registering again");
        let new = register(&self.client, &self.config, &self.capabilities).await?;
        if new.artifact_store_uri != self.artifact_store_uri() {
            return Err(AgentError::ArtifactStoreMoved { uri: new.artifact_store_uri });
        }
        *self.registration() = new;
        self.n_registrations.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Gives an assignment to a free slot.
    pub(super) async fn place(&self, assignment: v1::Assignment) -> Placement {
        let mut placement = Placement::NoSlot;
        self.board.send_modify(|board| placement = board.place(assignment.lease_token));
        if let Placement::Slot(index) = placement {
            self.tell(index, SlotCommand::Start(Box::new(assignment))).await;
        }
        placement
    }

    /// Stops the attempt with this token, if it is here.
    pub(super) async fn stop(&self, token: u64, reason: &str) {
        let slot = self.board.borrow().slot_of(token);
        if let Some(index) = slot {
            self.tell(index, SlotCommand::Stop { token, reason: reason.to_owned() }).await;
        }
    }

    /// Preempts the attempt with this token, if it is here.
    pub(super) async fn preempt(&self, token: u64, deadline_ms: u64) {
        let slot = self.board.borrow().slot_of(token);
        if let Some(index) = slot {
            self.tell(index, SlotCommand::Preempt { token, deadline_ms }).await;
        }
    }

    /// Takes nothing more, and preempts what is here.
    pub(super) async fn preempt_all(&self) {
        self.drain();
        let deadline_ms =
            u64::try_from(self.config.preempt_deadline.as_millis()).unwrap_or(u64::MAX);
        let tokens = self.board.borrow().tokens();
        for token in tokens {
            self.preempt(token, deadline_ms).await;
        }
    }

    /// Takes nothing more.
    pub(super) fn drain(&self) {
        self.board.send_modify(Board::drain);
    }

    /// Waits until no attempt is left.
    pub(super) async fn idle(&self) {
        self.until(Board::is_idle).await;
    }

    /// Waits until the worker was told to leave and can.
    pub(super) async fn drained(&self) {
        self.until(Board::is_drained).await;
    }

    /// Waits until the board looks so.
    pub(super) async fn until(&self, mut looks_so: impl FnMut(&Board) -> bool) {
        let mut board = self.board.subscribe();
        let seen = board.wait_for(|board| looks_so(board)).await;
        debug_assert!(seen.is_ok(), "the board lives as long as `self`");
    }

    async fn tell(&self, index: usize, command: SlotCommand) {
        if self.slots[index].send(command).await.is_err() {
            tracing::error!(slot = index, "a slot is gone");
        }
    }
}
