//! The life of a run, and of every other piece of work that is leased: evaluations and data
//! preparations go through the same states.
//!
//! It writes nothing: the new state and the effects are values that the store carries out.

use crate::attempt::{AttemptEnd, Charge};
use crate::ids::{AttemptNumber, LeaseToken, WorkerId};
use crate::planted::{Mistake, is_planted};
use crate::spec::RetryRule;

/// The state of a piece of work.
///
/// ```text
///               dependency ready            granted
///   waiting ───────────────────▶ queued ──────────────▶ leased ── ended ──▶ succeeded
///      │                          ▲    ▲                  │   │             diverged
///      │ dependency failed        │    └── preempted ─────┘   │             failed
///      ▼                   elapsed│                           │ lost, failed with budget left
///    failed                    backoff ◀──────────────────────┘
///
///   any state that is not terminal ── cancel ──▶ cancelled;  failed, cancelled ── retry ──▶ queued
///   data that was found damaged: succeeded ── made again ──▶ queued, and what is queued for it waits
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    /// Its data is not prepared yet.
    Waiting,
    /// It may be granted.
    Queued,
    /// A worker has it.
    Leased {
        /// The right to it.
        token: LeaseToken,
        /// Which attempt this is.
        attempt: AttemptNumber,
        /// Who has it.
        worker: WorkerId,
    },
    /// It is queued again at a time, in milliseconds since the Unix epoch.
    Backoff {
        /// The time.
        until_ms: u64,
    },
    /// It has its result.
    Succeeded,
    /// Its budget of failures is spent, or its data could not be prepared.
    Failed {
        /// How its last attempt ended.
        end: AttemptEnd,
    },
    /// Somebody cancelled it.
    Cancelled,
    /// Its loss was not finite.
    Diverged,
}

/// The labels of the states that nothing but a retry leaves.
pub const TERMINAL: [&str; 4] = ["succeeded", "failed", "cancelled", "diverged"];

/// Every label, in the order of life.
pub const LABELS: [&str; 8] =
    ["waiting", "queued", "leased", "backoff", "succeeded", "failed", "cancelled", "diverged"];

/// What happens to a piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunEvent {
    /// The data it needs is there.
    DependencySucceeded,
    /// The data it needs cannot be made.
    DependencyFailed,
    /// The data it needs was found damaged, and is made again.
    DependencyRemade,
    /// The scheduler gave it to a worker.
    Granted {
        /// The new right.
        token: LeaseToken,
        /// The new attempt.
        attempt: AttemptNumber,
        /// Who got it.
        worker: WorkerId,
    },
    /// The attempt with this token ended.
    AttemptEnded {
        /// The right it held.
        token: LeaseToken,
        /// How it ended.
        end: AttemptEnd,
    },
    /// The time of a back-off has come, by the leader's monotonic clock.
    BackoffElapsed,
    /// Somebody wants it stopped.
    CancelRequested,
    /// Somebody wants it tried again.
    RetryRequested,
    /// Its result was found damaged: it is to be made again.
    RemakeRequested,
}

/// How often it has gone wrong in the way at hand, what the study says to that, and what time it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tries {
    /// Attempts that ended like the one at hand so far, without it. Lost workers count in a row.
    pub n_alike: u32,
    /// The rule of this way to fail.
    pub rule: RetryRule,
    /// By how much of its half a pause is shortened, 0 to 1000.
    pub jitter_permille: u32,
    /// Now, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

impl Tries {
    /// For events that are no failure.
    pub fn none(now_ms: u64) -> Self {
        Self { n_alike: 0, rule: RetryRule::at_once(1), jitter_permille: 0, now_ms }
    }
}

/// What the caller must do beside storing the new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The holder of this token must be told to stop.
    RevokeLease {
        /// The right that ended.
        token: LeaseToken,
    },
    /// What waits for this may be queued.
    ReleaseDependents,
    /// What waits for this has failed.
    FailDependents,
    /// What is queued waits for this again.
    HoldBackDependents,
}

/// The outcome of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transition {
    /// The state changes.
    To {
        /// The new state.
        state: RunState,
        /// What else to do.
        effects: Vec<Effect>,
        /// What the event is charged to.
        charge: Charge,
    },
    /// The event is late or repeated and changes nothing: an answer, not an error.
    Stale,
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a run that is `{state}` cannot take the event {event:?}")]
pub struct TransitionError {
    /// The state's label.
    pub state: &'static str,
    /// The event.
    pub event: RunEvent,
}

impl RunState {
    /// The text in the store, on the wire and in dashboards.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Queued => "queued",
            Self::Leased { .. } => "leased",
            Self::Backoff { .. } => "backoff",
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Diverged => "diverged",
        }
    }

    /// Whether nothing but a retry leaves it.
    pub fn is_terminal(&self) -> bool {
        TERMINAL.contains(&self.label())
    }

    /// The state after an event, and what else to do.
    ///
    /// Sixty lines of one match: the whole rule on one screen.
    pub fn on(&self, event: RunEvent, tries: Tries) -> Result<Transition, TransitionError> {
        use RunEvent as E;
        use RunState as S;
        match (self, event) {
            (S::Waiting, E::DependencySucceeded)
            | (S::Backoff { .. }, E::BackoffElapsed)
            | (S::Failed { .. } | S::Cancelled | S::Backoff { .. }, E::RetryRequested) => {
                Ok(to(S::Queued))
            }
            (S::Queued, E::DependencyRemade) => Ok(to(S::Waiting)),
            (S::Succeeded, E::RemakeRequested) => {
                Ok(to(S::Queued).with(Effect::HoldBackDependents))
            }
            (S::Waiting, E::DependencyFailed) => {
                Ok(to(S::Failed { end: AttemptEnd::BadData }).with(Effect::FailDependents))
            }
            (S::Queued, E::Granted { token, attempt, worker }) => {
                Ok(to(S::Leased { token, attempt, worker }))
            }
            (S::Leased { token: held, .. }, E::AttemptEnded { token, end }) if *held == token => {
                Ok(after_attempt(end, tries))
            }
            (S::Waiting | S::Queued | S::Backoff { .. }, E::CancelRequested) => {
                Ok(to(S::Cancelled).with(Effect::FailDependents))
            }
            (S::Leased { token, .. }, E::CancelRequested) => Ok(to(S::Cancelled)
                .with(Effect::RevokeLease { token: *token })
                .with(Effect::FailDependents)),
            // The dependency was already seen to be there, or its news comes after a cancel; what is
            // made again is on its way, or was read before; a holder that lost its lease reports late, or reports twice; the run was retried by hand before
            // the timer rang.
            (
                _,
                E::DependencySucceeded
                | E::DependencyFailed
                | E::DependencyRemade
                | E::AttemptEnded { .. }
                | E::BackoffElapsed
                | E::RemakeRequested,
            )
            // It is over, or about to run anyway.
            | (S::Succeeded | S::Failed { .. } | S::Cancelled | S::Diverged, E::CancelRequested)
            | (
                S::Waiting | S::Queued | S::Leased { .. } | S::Succeeded | S::Diverged,
                E::RetryRequested,
            ) => Ok(Transition::Stale),
            (state, event) => Err(TransitionError { state: state.label(), event }),
        }
    }
}

fn to(state: RunState) -> Transition {
    Transition::To { state, effects: Vec::new(), charge: Charge::Nothing }
}

impl Transition {
    fn with(mut self, effect: Effect) -> Self {
        if let Self::To { effects, .. } = &mut self {
            effects.push(effect);
        }
        self
    }
}

fn after_attempt(end: AttemptEnd, tries: Tries) -> Transition {
    let n_alike = tries.n_alike.saturating_add(1);
    let transition = match end {
        AttemptEnd::Succeeded => to(RunState::Succeeded).with(Effect::ReleaseDependents),
        AttemptEnd::Diverged => to(RunState::Diverged).with(Effect::FailDependents),
        AttemptEnd::Cancelled => to(RunState::Cancelled).with(Effect::FailDependents),
        AttemptEnd::Preempted if is_planted(Mistake::PreemptionFailsRun) => {
            to(RunState::Failed { end: AttemptEnd::Bug })
        }
        AttemptEnd::Preempted => to(RunState::Queued),
        AttemptEnd::WorkerLost
        | AttemptEnd::OutOfMemory
        | AttemptEnd::BadData
        | AttemptEnd::BadCheckpoint
        | AttemptEnd::Bug
            if n_alike < tries.rule.attempts =>
        {
            match tries.rule.pause_ms(n_alike, tries.jitter_permille) {
                0 => to(RunState::Queued),
                pause_ms => to(RunState::Backoff { until_ms: tries.now_ms + pause_ms }),
            }
        }
        AttemptEnd::WorkerLost
        | AttemptEnd::OutOfMemory
        | AttemptEnd::BadData
        | AttemptEnd::BadCheckpoint
        | AttemptEnd::Bug => to(RunState::Failed { end }).with(Effect::FailDependents),
    };
    match transition {
        Transition::To { state, effects, .. } => {
            Transition::To { state, effects, charge: end.charge() }
        }
        Transition::Stale => Transition::Stale,
    }
}

#[cfg(test)]
mod tests;
