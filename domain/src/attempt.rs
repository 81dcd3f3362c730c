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
    /// Its worker vanished, its lease expired, or its machine could not reach what it needed.
    WorkerLost,
    /// A memory allocation failed, or the system killed it for memory.
    OutOfMemory,
    /// Its numbers went out of order in a way that the study does not pass over: a result, shown and
    /// excluded from fits by rule.
    Diverged,
    /// The data is not what its hash says, or not what the recipe can use.
    BadData,
    /// A checkpoint is damaged.
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
        /// The right that it had.
        token: LeaseToken,
        /// How it ended.
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

    /// The state that a stored label spells, of an attempt with this token.
    pub fn from_label(label: &str, token: LeaseToken, ended_as: Option<&str>) -> Option<Self> {
        match label {
            "granted" => Some(Self::Granted { token }),
            "running" => Some(Self::Running { token }),
            "ended" => {
                ended_as.and_then(AttemptEnd::from_label).map(|end| Self::Ended { token, end })
            }
            _ => None,
        }
    }

    /// The state after an event that carries this token.
    pub fn on(self, token: LeaseToken, event: AttemptEvent) -> AttemptTransition {
        use AttemptEvent as E;
        use AttemptTransition::{Stale, Stays, To};
        match (self, event) {
            (
                Self::Granted { token: held }
                | Self::Running { token: held }
                | Self::Ended { token: held, .. },
                _,
            ) if held != token => Stale,
            (Self::Granted { token }, E::Started) => To(Self::Running { token }),
            (Self::Granted { .. } | Self::Running { .. }, E::Ended { end }) => {
                To(Self::Ended { token, end })
            }
            // What is said before the start, or a start that is told twice.
            (Self::Granted { .. }, E::Reported)
            | (Self::Running { .. }, E::Started | E::Reported) => Stays,
            // The answer to the same end was lost on its way.
            (Self::Ended { end: ended, .. }, E::Ended { end }) if ended == end => Stays,
            (Self::Ended { .. }, _) => Stale,
        }
    }
}

/// What the holder of an attempt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEvent {
    /// It has begun to work.
    Started,
    /// Anything else that is to be stored.
    Reported,
    /// It is over.
    Ended {
        /// How.
        end: AttemptEnd,
    },
}

/// The outcome of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptTransition {
    /// The state changes.
    To(AttemptState),
    /// It is taken, and changes no state.
    Stays,
    /// The right is gone: an answer, not an error, and nothing is stored.
    Stale,
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn labels_are_unique_and_read_back() {
        for end in AttemptEnd::ALL {
            assert_eq!(AttemptEnd::from_label(end.label()), Some(end));
        }
    }

    #[test]
    fn the_table_of_transitions() {
        let token = LeaseToken(5);
        let states = [
            AttemptState::Granted { token },
            AttemptState::Running { token },
            AttemptState::Ended { token, end: AttemptEnd::Preempted },
        ];
        let events = [
            AttemptEvent::Started,
            AttemptEvent::Reported,
            AttemptEvent::Ended { end: AttemptEnd::Preempted },
            AttemptEvent::Ended { end: AttemptEnd::Succeeded },
        ];
        let mut table = String::new();
        for (whose, given) in [("its own token", token), ("another token", LeaseToken(4))] {
            for event in events {
                let name = match event {
                    AttemptEvent::Ended { end } => format!("ended {}, {whose}", end.label()),
                    other => format!("{other:?}, {whose}").to_lowercase(),
                };
                write!(table, "{name:<31}").unwrap();
                for state in states {
                    let cell = match state.on(given, event) {
                        AttemptTransition::To(state) => state.label(),
                        AttemptTransition::Stays => "·",
                        AttemptTransition::Stale => "stale",
                    };
                    write!(table, " {}>{cell:<8}", &state.label()[..2]).unwrap();
                }
                table = table.trim_end().to_owned() + "\n";
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn states_are_read_back() {
        let token = LeaseToken(5);
        for state in [AttemptState::Granted { token }, AttemptState::Running { token }] {
            assert_eq!(AttemptState::from_label(state.label(), token, None), Some(state));
        }
        let ended = AttemptState::Ended { token, end: AttemptEnd::Bug };
        assert_eq!(AttemptState::from_label("ended", token, Some("bug")), Some(ended));
        assert_eq!(AttemptState::from_label("ended", token, None), None);
    }
}
