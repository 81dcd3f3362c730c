//! The state of a study, which follows from its runs and evaluations; and its exit status.
//!
//! It stores nothing: only the cancellation of a study is a fact of its own.

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

#[cfg(test)]
mod tests {
    use super::*;

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
