//! The process that plans and leases: the store, the scheduler, the reconcilers, gRPC for workers
//! and HTTP for everyone.
//!
//! It is never in the path of weights and never links libtorch. The modules stand in reading order.

use std::sync::Arc;

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

pub mod actor;
pub mod artifacts;
pub mod auth;
pub mod clock;
pub mod config;
pub mod copying;
mod detached;
pub mod fits;
pub mod grpc;
pub mod http;
pub mod leader;
pub mod random;
pub mod reconcile;
pub mod retention;
pub mod scheduler;
pub mod serve;
pub mod store;

/// How many events a slow reader of the live stream may be behind before it must read the table.
const LIVE_EVENTS: usize = 4096;

/// The kind of what is announced in place of more events than [`LIVE_EVENTS`] in one transaction.
const RESYNC: &str = "resync";

/// What listeners are told in place of what they missed: to read everything again.
pub(crate) fn resync() -> api::EventView {
    api::EventView {
        id: 0,
        at_ms: 0,
        subject: String::new(),
        kind: RESYNC.to_owned(),
        actor: String::new(),
    }
}

/// What every part of a running coordinator shares.
#[derive(Debug)]
pub struct App {
    /// What is durable.
    pub store: Arc<store::SqlStore>,
    /// What only the leader remembers: renewals of leases, open polls, undelivered assignments.
    pub leader: leader::Leader,
    /// Wakes the dispatcher.
    pub nudge: Arc<Notify>,
    /// Every stored event after its commit, or that they are many, and unsaved `points` (id 0).
    pub changes: broadcast::Sender<api::EventView>,
    /// The machine's clocks, or a simulation's.
    pub clock: clock::Clock,
    /// Where identifiers and nonces come from.
    pub random: random::Random,
    /// The one artifact store.
    pub artifacts: artifacts::Artifacts,
    /// How it was started.
    pub config: config::Config,
    /// Whether it refuses every change.
    pub is_read_only: bool,
    /// Cancelled when the coordinator is to stop: open polls and streams end then.
    pub shutdown: CancellationToken,
}

/// A channel for [`App::changes`].
pub fn changes_channel() -> broadcast::Sender<api::EventView> {
    broadcast::channel(LIVE_EVENTS).0
}
