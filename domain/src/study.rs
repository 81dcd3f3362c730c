//! The state of a study: what somebody has decided about it, and what follows from its runs and
//! evaluations.
//!
//! It stores nothing: only the decision is a fact of its own.

/// How many pieces of a study's work are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkCounts {
    /// Waiting for data.
    pub waiting: u64,
    /// Ready to be granted.
    pub queued: u64,
    /// With a worker.
    pub leased: u64,
    /// Waiting for a retry.
    pub backoff: u64,
    /// Over, with a result.
    pub succeeded: u64,
    /// Over, without.
    pub failed: u64,
    /// Stopped by somebody.
    pub cancelled: u64,
    /// Over; the loss was not finite.
    pub diverged: u64,
}

impl WorkCounts {
    /// Counts one more piece of work in the state with this label; whether there is such a state.
    pub fn add(&mut self, label: &str, n: u64) -> bool {
        let count = match label {
            "waiting" => &mut self.waiting,
            "queued" => &mut self.queued,
            "leased" => &mut self.leased,
            "backoff" => &mut self.backoff,
            "succeeded" => &mut self.succeeded,
            "failed" => &mut self.failed,
            "cancelled" => &mut self.cancelled,
            "diverged" => &mut self.diverged,
            _ => return false,
        };
        *count += n;
        true
    }

    /// How much is not over.
    pub fn open(&self) -> u64 {
        self.waiting + self.queued + self.leased + self.backoff
    }

    /// How much there is.
    pub fn total(&self) -> u64 {
        self.open() + self.succeeded + self.failed + self.cancelled + self.diverged
    }
}

/// The state of a study.
///
/// ```text
/// active ◀─▶ paused          somebody holds it
/// active ──▶ complete        every run succeeded or diverged, every evaluation is over
///    ├─────▶ failed          everything is over and something failed
///    └─────▶ cancelled       somebody cancelled it
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StudyState {
    /// Some work is not over.
    Active,
    /// Some work is not over, and somebody holds it.
    Paused,
    /// All work is over and nothing failed; diverged runs are a warning.
    Complete,
    /// All work is over and something failed.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl StudyState {
    /// The state that follows from the counts of runs and evaluations together.
    pub fn of(is_cancelled: bool, is_paused: bool, work: WorkCounts) -> Self {
        if is_cancelled {
            Self::Cancelled
        } else if work.open() > 0 && is_paused {
            Self::Paused
        } else if work.open() > 0 {
            Self::Active
        } else if work.failed > 0 || work.cancelled > 0 {
            Self::Failed
        } else {
            Self::Complete
        }
    }

    /// The text on the wire and in dashboards.
    pub fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What somebody has decided about a study, whatever its work has come to.
///
/// ```text
///         pause                  cancel                      pause, resume
///   live ◀─────▶ paused      live ──────▶ cancelled(false) ◀──────────────▶ cancelled(true)
///         resume             paused ────▶ cancelled(true)
///
///   cancelled(false) ── applied, all of it retried ──▶ live;  cancelled(true) ──▶ paused
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is to run.
    Live,
    /// It is held.
    Paused,
    /// It is not wanted.
    Cancelled {
        /// Whether it is held once it is wanted again.
        is_paused: bool,
    },
}

/// What somebody asks of a study.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StudyEvent {
    /// Its file is handed in, the first time or again.
    Applied,
    /// Hold it.
    PauseRequested,
    /// Let it go on.
    ResumeRequested,
    /// Stop it.
    CancelRequested,
    /// Try again what failed or was cancelled: all of it, or only what failed in some way.
    RetryRequested {
        /// Whether all of it is meant.
        of_all: bool,
    },
}

impl Decision {
    /// The decision that two flags spell.
    pub fn of(is_cancelled: bool, is_paused: bool) -> Self {
        match (is_cancelled, is_paused) {
            (true, is_paused) => Self::Cancelled { is_paused },
            (false, true) => Self::Paused,
            (false, false) => Self::Live,
        }
    }

    /// Whether it is cancelled.
    pub fn is_cancelled(self) -> bool {
        matches!(self, Self::Cancelled { .. })
    }

    /// Whether it is held, or would be if it were wanted.
    pub fn is_paused(self) -> bool {
        matches!(self, Self::Paused | Self::Cancelled { is_paused: true })
    }

    /// The decision after an event; the same one where it changes nothing.
    #[must_use]
    pub fn on(self, event: StudyEvent) -> Self {
        use Decision as D;
        use StudyEvent as E;
        match (self, event) {
            (D::Live, E::PauseRequested)
            | (D::Cancelled { is_paused: true }, E::Applied | E::RetryRequested { of_all: true }) => {
                D::Paused
            }
            (D::Paused, E::ResumeRequested)
            | (
                D::Cancelled { is_paused: false },
                E::Applied | E::RetryRequested { of_all: true },
            ) => D::Live,
            (D::Live | D::Paused, E::CancelRequested) => {
                D::Cancelled { is_paused: self.is_paused() }
            }
            (D::Cancelled { .. }, E::PauseRequested) => D::Cancelled { is_paused: true },
            (D::Cancelled { .. }, E::ResumeRequested) => D::Cancelled { is_paused: false },
            // It holds already; or some of its runs are tried again, which decides nothing of it.
            (D::Live, E::ResumeRequested)
            | (D::Paused, E::PauseRequested)
            | (D::Live | D::Paused, E::Applied | E::RetryRequested { .. })
            | (D::Cancelled { .. }, E::CancelRequested | E::RetryRequested { of_all: false }) => {
                self
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_table_of_decisions() {
        let decisions = [
            Decision::Live,
            Decision::Paused,
            Decision::Cancelled { is_paused: false },
            Decision::Cancelled { is_paused: true },
        ];
        let events = [
            StudyEvent::Applied,
            StudyEvent::PauseRequested,
            StudyEvent::ResumeRequested,
            StudyEvent::CancelRequested,
            StudyEvent::RetryRequested { of_all: true },
            StudyEvent::RetryRequested { of_all: false },
        ];
        let name = |decision| match decision {
            Decision::Live => "live",
            Decision::Paused => "paused",
            Decision::Cancelled { is_paused: false } => "cancelled",
            Decision::Cancelled { is_paused: true } => "cancelled+paused",
        };
        let mut table = String::new();
        for event in events {
            write!(table, "{:<32}", format!("{event:?}")).unwrap();
            for from in decisions {
                assert_eq!(Decision::of(from.is_cancelled(), from.is_paused()), from);
                let to = from.on(event);
                let cell = if to == from { "·" } else { name(to) };
                write!(table, " {}>{cell:<17}", name(from)).unwrap();
            }
            table = table.trim_end().to_owned() + "\n";
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn a_study_with_diverged_runs_is_complete() {
        let work = WorkCounts { succeeded: 3, diverged: 1, ..WorkCounts::default() };
        assert_eq!(StudyState::of(false, false, work), StudyState::Complete);
    }

    #[test]
    fn a_study_with_a_failed_run_has_failed_once_all_is_over() {
        let mut work = WorkCounts { succeeded: 3, failed: 1, queued: 1, ..WorkCounts::default() };
        assert_eq!(StudyState::of(false, false, work), StudyState::Active);
        assert_eq!(StudyState::of(false, true, work), StudyState::Paused);
        work.queued = 0;
        assert_eq!(StudyState::of(false, true, work), StudyState::Failed, "a study that is over");
        assert_eq!(StudyState::of(false, false, work), StudyState::Failed);
    }

    #[test]
    fn every_label_of_a_run_is_counted() {
        let mut work = WorkCounts::default();
        assert!(crate::run::LABELS.iter().all(|label| work.add(label, 1)));
        assert_eq!(work.total(), 8);
    }
}
