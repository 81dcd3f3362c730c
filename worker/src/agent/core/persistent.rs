//! A call that is made again and again until it is answered, at a bounded pace.

use super::{CallId, millis};
use crate::client::{Backoff, ErrorClass};

/// When a call is to be made, or that it is on its way.
#[derive(Debug)]
pub(super) struct Persistent {
    state: State,
    backoff: Backoff,
    /// How often in a row the coordinator had an error of its own.
    n_broken: u32,
}

/// So many errors of the coordinator's own in a row are no accident: with the pauses between them
/// they take more than a minute.
const MAX_BROKEN: u32 = 80;

#[derive(Debug, Clone, Copy)]
enum State {
    Due { at_ms: u64 },
    Sent { call: CallId },
}

impl Persistent {
    /// A call that is to be made at this time.
    pub(super) fn due_at(at_ms: u64) -> Self {
        Self { state: State::Due { at_ms }, backoff: Backoff::default(), n_broken: 0 }
    }

    /// When it is to be made; none while it is on its way.
    pub(super) fn due_ms(&self) -> Option<u64> {
        match self.state {
            State::Due { at_ms } => Some(at_ms),
            State::Sent { .. } => None,
        }
    }

    pub(super) fn is_due(&self, now_ms: u64) -> bool {
        self.due_ms().is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// The call on its way.
    pub(super) fn call(&self) -> Option<CallId> {
        match self.state {
            State::Due { .. } => None,
            State::Sent { call } => Some(call),
        }
    }

    pub(super) fn is_call(&self, call: CallId) -> bool {
        self.call() == Some(call)
    }

    pub(super) fn sent(&mut self, call: CallId) {
        self.state = State::Sent { call };
    }

    /// It was not answered: again after a pause.
    pub(super) fn failed(&mut self, now_ms: u64) {
        self.state = State::Due { at_ms: now_ms + millis(self.backoff.next_pause()) };
    }

    /// The same after an error of this class; whether it is to be made again.
    pub(super) fn failed_as(&mut self, class: ErrorClass, now_ms: u64) -> bool {
        match class {
            ErrorClass::RetryLater => self.n_broken = 0,
            ErrorClass::RetryForAWhile => self.n_broken += 1,
            ErrorClass::RegisterAgain | ErrorClass::GiveUp => return false,
        }
        self.failed(now_ms);
        self.n_broken < MAX_BROKEN
    }
}
