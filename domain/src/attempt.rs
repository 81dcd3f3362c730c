//! One execution of a piece of work: its states, how it can end, and what an end is charged to.
//!
//! What the run does next is `run`'s.

use crate::ids::LeaseToken;

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttemptEnd {
    /// It reached its result.
    Succeeded,
    /// Somebody cancelled the run.
    Cancelled,
    /// It gave its slot back for other work.
    Preempted,
    /// Its worker vanished, or its lease expired.
    WorkerLost,
    /// A memory allocation failed, or the system killed it for memory.
    OutOfMemory,
    /// Its numbers went out of order in a way that the study does not pass over: a result, shown and
    /// excluded from fits by rule.
    Diverged,
    /// The data could not be read or was not what its hash says.
    BadData,
    /// No published checkpoint could be read.
    BadCheckpoint,
    /// Anything else: a broken assumption of ours.
    Bug,
}

/// Whose budget an end is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// Nobody's: the work is over or was stopped on purpose.
    Nothing,
    /// The machine's: losing one is never charged to the user.
    Loss,
    /// The run's own.
    Failure,
}

impl AttemptEnd {
    /// Every end, in the order of their declaration.
    pub const ALL: [Self; 9] = [
        Self::Succeeded,
        Self::Cancelled,
        Self::Preempted,
        Self::WorkerLost,
        Self::OutOfMemory,
        Self::Diverged,
        Self::BadData,
        Self::BadCheckpoint,
        Self::Bug,
    ];

    /// The text in the store, on the wire and in dashboards.
    pub fn label(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Cancelled => "cancelled",
            Self::Preempted => "preempted",
            Self::WorkerLost => "worker_lost",
            Self::OutOfMemory => "out_of_memory",
            Self::Diverged => "diverged",
            Self::BadData => "bad_data",
            Self::BadCheckpoint => "bad_checkpoint",
            Self::Bug => "bug",
        }
    }

    /// The end with this label.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|end| end.label() == label)
    }

    /// Whose budget it is charged to.
    pub fn charge(self) -> Charge {
        match self {
            Self::Succeeded | Self::Cancelled | Self::Preempted | Self::Diverged => Charge::Nothing,
            Self::WorkerLost => Charge::Loss,
            Self::OutOfMemory | Self::BadData | Self::BadCheckpoint | Self::Bug => Charge::Failure,
        }
    }
}

/// The state of an attempt.
///
/// ```text
/// granted ── started ──▶ running ── ended ──▶ ended(end)
///    └────────── ended ────────────────────────▲
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptState {
    /// A worker was given it.
    Granted {
        /// The right to it.
        token: LeaseToken,
    },
    /// The worker has reported from it.
    Running {
        /// The right to it.
        token: LeaseToken,
    },
    /// It is over.
    Ended {
        /// How.
        end: AttemptEnd,
    },
}

/// The labels of the states whose token is live.
pub const HOLDS_LEASE: [&str; 2] = ["granted", "running"];

impl AttemptState {
    /// The text in the store.
    pub fn label(self) -> &'static str {
        match self {
            Self::Granted { .. } => "granted",
            Self::Running { .. } => "running",
            Self::Ended { .. } => "ended",
        }
    }

    /// Whether a message with this token still counts.
    pub fn accepts(self, token: LeaseToken) -> bool {
        match self {
            Self::Granted { token: held } | Self::Running { token: held } => held == token,
            Self::Ended { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_read_back() {
        for end in AttemptEnd::ALL {
            assert_eq!(AttemptEnd::from_label(end.label()), Some(end));
        }
    }

    #[test]
    fn an_ended_attempt_accepts_no_token() {
        let ended = AttemptState::Ended { end: AttemptEnd::WorkerLost };
        assert!(!ended.accepts(LeaseToken(1)));
        assert!(AttemptState::Running { token: LeaseToken(1) }.accepts(LeaseToken(1)));
        assert!(!AttemptState::Running { token: LeaseToken(2) }.accepts(LeaseToken(1)));
    }
}
