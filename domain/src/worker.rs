//! The life of a worker, as the store and the leader see it.
//!
//! It does not know what a worker has to do; what becomes of its attempts is `run`'s.

/// The states of a worker.
///
/// ```text
/// joining ── confirmed ──▶ active ── drain ──▶ draining
///    └──────────┬─────────────┴──────────────────┘
///               ├── deregistered ──▶ gone
///               └── not heard of ──▶ lost ── registered again ──▶ joining
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
    Lost,
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
    pub const ALL: [Self; 5] =
        [Self::Joining, Self::Active, Self::Draining, Self::Gone, Self::Lost];

    /// The text in the store and in dashboards.
    pub fn label(self) -> &'static str {
        match self {
            Self::Joining => "joining",
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Gone => "gone",
            Self::Lost => "lost",
        }
    }

    /// The state with this label.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.label() == label)
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
            (S::Lost, E::Registered) => To(S::Joining),
            (S::Joining, E::Confirmed) => To(S::Active),
            (S::Joining | S::Active, E::DrainRequested) => To(S::Draining),
            (S::Joining | S::Active | S::Draining, E::Deregistered) => To(S::Gone),
            (S::Joining | S::Active | S::Draining, E::Missed) => To(S::Lost),
            // It was drained between two confirmations, or registers twice; a drain outlives both.
            (S::Joining | S::Active | S::Draining, E::Registered)
            | (S::Active | S::Draining, E::Confirmed)
            | (S::Draining, E::DrainRequested) => Stays,
            // Who has said goodbye comes back under another identifier.
            (S::Gone, _)
            | (S::Lost, E::Confirmed | E::DrainRequested | E::Deregistered | E::Missed) => Absent,
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
                write!(table, " {}>{cell:<9}", &state.label()[..2]).unwrap();
            }
            table = table.trim_end().to_owned() + "\n";
        }
        insta::assert_snapshot!(table, @r"
        Registered       jo>·         ac>·         dr>·         go>absent    lo>joining
        Confirmed        jo>active    ac>·         dr>·         go>absent    lo>absent
        DrainRequested   jo>draining  ac>draining  dr>·         go>absent    lo>absent
        Deregistered     jo>gone      ac>gone      dr>gone      go>absent    lo>absent
        Missed           jo>lost      ac>lost      dr>lost      go>absent    lo>absent
        ");
    }

    #[test]
    fn labels_are_read_back() {
        for state in WorkerState::ALL {
            assert_eq!(WorkerState::from_label(state.label()), Some(state));
        }
        assert_eq!(WorkerState::from_label("idle"), None);
    }
}
