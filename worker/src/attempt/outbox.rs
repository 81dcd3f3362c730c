//! The events of an attempt that the coordinator has not stored yet: bounded, in order, one report
//! at a time.
//!
//! It sends nothing itself.

use std::collections::VecDeque;

use prost::Message as _;
use proto::v1::{self, event};

/// An event waits at most this long for others to share its report. Each report wakes agent and
/// coordinator on cores that may be training: five a second were half a percent of two cores.
pub const FLUSH_MS: u64 = 1_000;

/// So many events make a report at once.
pub const MAX_EVENTS_PER_BATCH: usize = 1_000;

/// So many events wait in memory for a coordinator that is away; what comes after them waits on disk
/// (`agent::spill`). At one point a step and ten steps a second, this is a quarter of an hour.
pub const MAX_BUFFERED_EVENTS: usize = 10_000;

/// A report is closed at this size, well below what the coordinator takes.
const MAX_BATCH_BYTES: usize = proto::MAX_MESSAGE_BYTES / 8;

/// Events on their way.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<v1::Event>,
    /// When the oldest waiting event came.
    oldest_at_ms: u64,
    /// Whether an event waits that others depend on.
    is_urgent: bool,
    /// How many events are being sent.
    n_sending: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, event: v1::Event, now_ms: u64) {
        if self.waiting.is_empty() {
            self.oldest_at_ms = now_ms;
        }
        self.is_urgent |= is_urgent(&event);
        self.waiting.push_back(event);
    }

    /// Whether nothing more fits.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() + self.n_sending >= MAX_BUFFERED_EVENTS
    }

    /// Whether everything is stored.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.n_sending == 0
    }

    /// When the waiting events are due; none while a report is on its way.
    pub(super) fn flush_at_ms(&self) -> Option<u64> {
        let is_due = self.n_sending == 0 && !self.waiting.is_empty();
        is_due.then_some(self.oldest_at_ms + FLUSH_MS)
    }

    /// The next report, if one is due and none is on its way.
    pub(super) fn take(&mut self, now_ms: u64, is_last: bool) -> Option<Vec<v1::Event>> {
        let flush_at_ms = self.flush_at_ms()?;
        let is_due = is_last
            || self.is_urgent
            || self.waiting.len() >= MAX_EVENTS_PER_BATCH
            || flush_at_ms <= now_ms;
        if !is_due {
            return None;
        }
        let n_events = self.batch_len();
        let events: Vec<_> = self.waiting.drain(..n_events).collect();
        self.n_sending = n_events;
        // What is left is older than the limit or comes with the next batch: due at once.
        self.is_urgent = !self.waiting.is_empty();
        Some(events)
    }

    fn batch_len(&self) -> usize {
        let mut n_bytes = 0;
        let fitting = self.waiting.iter().take(MAX_EVENTS_PER_BATCH).take_while(|event| {
            n_bytes += event.encoded_len();
            n_bytes <= MAX_BATCH_BYTES
        });
        // A single event of any size is sent alone: its refusal names it.
        fitting.count().max(1)
    }

    /// The report on its way was stored.
    pub(super) fn sent(&mut self) {
        self.n_sending = 0;
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Checkpoints and results let other work begin; they do not wait for company.
fn is_urgent(event: &v1::Event) -> bool {
    match &event.kind {
        Some(
            event::Kind::Checkpoint(_)
            | event::Kind::Evaluation(_)
            | event::Kind::Preparation(_)
            | event::Kind::Started(_),
        ) => true,
        Some(event::Kind::Point(_) | event::Kind::Log(_) | event::Kind::CheckpointRefused(_))
        | None => false,
    }
}
