//! Mistakes that can be planted on purpose, so that the simulator's tests show that it finds them.
//!
//! Without the feature `planted` none can be: [`is_planted`] is then a constant and costs nothing.
//! Programs are built without it; only the simulator's tests have it.

/// A mistake that somebody could make in the code where it is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mistake {
    /// A report is stored although its token is not live.
    ReportsAreNotFenced,
    /// An end is stored although its attempt has ended otherwise.
    EndsAreNotFenced,
    /// Callers are answered before the commit.
    AnsweredBeforeCommit,
    /// A batch runs without a transaction.
    BatchWithoutTransaction,
    /// A grant takes the token that was given out last.
    TokenReused,
    /// The leader keeps the lease of an attempt that has ended.
    SlotForgotten,
    /// A failed attempt is counted twice.
    FailureCountedTwice,
    /// A preempted run has failed.
    PreemptionFailsRun,
    /// A renewal does not prolong a lease.
    RenewalIgnored,
    /// A new leader ends the leases that it finds.
    NoTermAfterTakeOver,
    /// A new leader does not see the leases that it finds.
    LeasesForgottenByTakeOver,
    /// A heartbeat renews what is not there.
    DeadLeaseRenewed,
    /// A pause holds nothing.
    PauseHoldsNothing,
    /// A run is offered its oldest checkpoints first.
    OldestCheckpointFirst,
    /// A refused checkpoint is not marked.
    RefusalLost,
    /// Of a report with many events the last is dropped.
    LastEventDropped,
    /// A back-off never ends.
    BackoffForever,
    /// A lost worker keeps its leases.
    LostWorkerKeepsLeases,
    /// A cancelled run keeps its attempt open.
    CancelKeepsAttempt,
    /// What waits for data is not queued when the data comes.
    DependentsForgotten,
    /// Evaluations are queued for first attempts only.
    LaterCheckpointsUnmeasured,
    /// A new leader skips the number of an event.
    EventNumberSkipped,
    /// A gang's other members keep their slots when their attempt is over.
    MembersKeepSlots,
    /// A study is not charged with the runs that begin.
    ChargeForgotten,
    /// The files of the newest rolling checkpoints are removed with those of the others.
    NewestCheckpointsRemoved,
    /// The agent takes an assignment that it has already.
    AgentRunsTwice,
    /// The agent takes a report that was not answered for stored.
    AgentForgetsReports,
    /// The agent sends the end of an attempt before its last events.
    AgentEndsTooEarly,
    /// The agent does not free the slot of an attempt that was stopped.
    AgentForgetsSlot,
}

impl Mistake {
    /// Every mistake.
    pub const ALL: [Self; 29] = [
        Self::ReportsAreNotFenced,
        Self::EndsAreNotFenced,
        Self::AnsweredBeforeCommit,
        Self::BatchWithoutTransaction,
        Self::TokenReused,
        Self::SlotForgotten,
        Self::FailureCountedTwice,
        Self::PreemptionFailsRun,
        Self::RenewalIgnored,
        Self::NoTermAfterTakeOver,
        Self::LeasesForgottenByTakeOver,
        Self::DeadLeaseRenewed,
        Self::PauseHoldsNothing,
        Self::OldestCheckpointFirst,
        Self::RefusalLost,
        Self::LastEventDropped,
        Self::BackoffForever,
        Self::LostWorkerKeepsLeases,
        Self::CancelKeepsAttempt,
        Self::DependentsForgotten,
        Self::LaterCheckpointsUnmeasured,
        Self::EventNumberSkipped,
        Self::MembersKeepSlots,
        Self::ChargeForgotten,
        Self::NewestCheckpointsRemoved,
        Self::AgentRunsTwice,
        Self::AgentForgetsReports,
        Self::AgentEndsTooEarly,
        Self::AgentForgetsSlot,
    ];
}

#[cfg(feature = "planted")]
mod planting {
    use std::cell::Cell;

    use super::Mistake;

    thread_local! {
        static PLANTED: Cell<Option<Mistake>> = const { Cell::new(None) };
    }

    /// Plants a mistake in this thread, in place of the one before.
    pub fn plant(mistake: Option<Mistake>) {
        PLANTED.set(mistake);
    }

    /// Whether this mistake is to be made.
    pub fn is_planted(mistake: Mistake) -> bool {
        PLANTED.get() == Some(mistake)
    }
}

#[cfg(feature = "planted")]
pub use planting::{is_planted, plant};

/// Whether this mistake is to be made: never, in this build.
#[cfg(not(feature = "planted"))]
#[inline]
pub const fn is_planted(_: Mistake) -> bool {
    false
}
