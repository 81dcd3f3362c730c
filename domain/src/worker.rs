//! The life of a worker, as the store and the leader see it.
//!
//! It does not know what a worker has to do; what becomes of its attempts is `run`'s.

/// The states of a worker.
///
/// ```text
/// joining ── confirmed ──▶ active ── drain ──▶ draining
///    └──────────┬─────────────┴──────────────────┘
///               ├── deregistered ──▶ gone
///               └── not heard of ──▶ lost ── registered again ──▶ joining, draining if it was drained
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerState {
    /// It has not shown yet that it sees the artifact store.
    Joining,
    /// It takes assignments.
    Active,
    /// It takes nothing more.
    Draining,
    /// It said goodbye.
    Gone,
    /// It was not heard of, or its agent was started again.
    Lost {
        /// Whether it takes nothing more when it comes back.
        is_drained: bool,
    },
}

/// What happens to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEvent {
    /// The same process registers again: its first request may have come twice.
    Registered,
    /// It has shown that it sees the artifact store.
    Confirmed,
    /// Somebody wants its machine.
    DrainRequested,
    /// It says goodbye.
    Deregistered,
    /// It was not heard of for too long, or another process has taken its name.
    Missed,
}

/// The outcome of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerTransition {
    /// The state changes.
    To(WorkerState),
    /// What was asked for holds already, or something that goes before it.
    Stays,
    /// It is not there: an answer, not an error.
    Absent,
}

impl WorkerState {
    /// Every state, in the order of life.
    pub const ALL: [Self; 6] = [
        Self::Joining,
        Self::Active,
        Self::Draining,
        Self::Gone,
        Self::Lost { is_drained: false },
        Self::Lost { is_drained: true },
    ];

    /// The text in the store and in dashboards.
    pub fn label(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Gone => "gone",
            Self::Lost { .. } => "lost",
        }
    }

    /// The state with this label; of who is lost, `is_drained` says the rest.
    pub fn from_label(label: &str, is_drained: bool) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|state| state.label() == label)?;
        Some(if matches!(found, Self::Lost { .. }) { Self::Lost { is_drained } } else { found })
    }

    /// Whether it is lost, and was drained before or since.
    pub fn is_lost_and_drained(self) -> bool {
        self == Self::Lost { is_drained: true }
    }

    /// Whether it is there.
    pub fn is_there(self) -> bool {
        matches!(self, Self::Joining | Self::Active | Self::Draining)
    }

    /// The state after an event.
    pub fn on(self, event: WorkerEvent) -> WorkerTransition {
        use WorkerEvent as E;
        use WorkerState as S;
        use WorkerTransition::{Absent, Stays, To};
        match (self, event) {
            (S::Lost { is_drained: false }, E::Registered) => To(S::Joining),
            (S::Lost { is_drained: false }, E::DrainRequested) | (S::Draining, E::Missed) => {
                To(S::Lost { is_drained: true })
            }
            (S::Joining, E::Confirmed) => To(S::Active),
            // Who asked for the machine of one that was lost still wants it.
            (S::Joining | S::Active, E::DrainRequested)
            | (S::Lost { is_drained: true }, E::Registered) => To(S::Draining),
            (S::Joining | S::Active | S::Draining, E::Deregistered) => To(S::Gone),
            (S::Joining | S::Active, E::Missed) => To(S::Lost { is_drained: false }),
            // It was drained between two confirmations, or registers twice; a drain outlives both.
            (S::Joining | S::Active | S::Draining, E::Registered)
            | (S::Active | S::Draining, E::Confirmed)
            | (S::Draining | S::Lost { is_drained: true }, E::DrainRequested) => Stays,
            // Who has said goodbye comes back under another identifier.
            (S::Gone, _) | (S::Lost { .. }, E::Confirmed | E::Deregistered | E::Missed) => Absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_table_of_transitions() {
        let events = [
            WorkerEvent::Registered,
            WorkerEvent::Confirmed,
            WorkerEvent::DrainRequested,
            WorkerEvent::Deregistered,
            WorkerEvent::Missed,
        ];
        let mut table = String::new();
        for event in events {
            write!(table, "{:<16}", format!("{event:?}")).unwrap();
            for state in WorkerState::ALL {
                let cell = match state.on(event) {
                    WorkerTransition::To(state) => state.label(),
                    WorkerTransition::Stays => "·",
                    WorkerTransition::Absent => "absent",
                };
                let name = if state.is_lost_and_drained() { "ld" } else { &state.label()[..2] };
                let cell = match state.on(event) {
                    WorkerTransition::To(state) if state.is_lost_and_drained() => "lost, drained",
                    _ => cell,
                };
                write!(table, " {name}>{cell:<13}").unwrap();
            }
            table = table.trim_end().to_owned() + "\n";
        }
        insta::assert_snapshot!(table, @r"
        Registered       jo>·             ac>·             dr>·             go>absent        lo>joining       ld>draining
        Confirmed        jo>active        ac>·             dr>·             go>absent        lo>absent        ld>absent
        DrainRequested   jo>draining      ac>draining      dr>·             go>absent        lo>lost, drained ld>·
        Deregistered     jo>gone          ac>gone          dr>gone          go>absent        lo>absent        ld>absent
        Missed           jo>lost          ac>lost          dr>lost, drained go>absent        lo>absent        ld>absent
        ");
    }

    #[test]
    fn labels_are_read_back() {
        for state in WorkerState::ALL {
            let is_drained = state.is_lost_and_drained();
            assert_eq!(WorkerState::from_label(state.label(), is_drained), Some(state));
        }
        assert_eq!(WorkerState::from_label("idle", false), None);
    }
}
