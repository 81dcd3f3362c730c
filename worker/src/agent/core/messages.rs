//! What goes into the core and what comes out of it.

use domain::attempt::AttemptEnd;
use proto::v1::{self, to_trainer};

use crate::agent::{AgentError, Registration};

/// How the agent behaves.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How many attempts at a time.
    pub n_slots: usize,
    /// How long checkpoints may take when the worker is told to stop.
    pub preempt_deadline_ms: u64,
    /// How long a trainer may take to give up an attempt before it is killed.
    pub stop_grace_ms: u64,
    /// How long leaving may take when the coordinator does not answer.
    pub leave_timeout_ms: u64,
}

/// One call, until it is answered or given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub(super) u64);

/// What is asked of the coordinator, once.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Announce the worker and show that it sees the artifact store.
    Register,
    /// Renew leases; an answer after `limit_ms` is none.
    Heartbeat {
        /// The leases held here.
        request: v1::HeartbeatRequest,
        /// How long it may take, so that the next comes before the lease expires.
        limit_ms: u64,
    },
    /// Ask for directives and, with free slots, assignments.
    Next(v1::NextRequest),
    /// Store what an attempt has to say.
    Report(v1::ReportRequest),
    /// End an attempt.
    Finish(v1::FinishRequest),
    /// Leave; an answer after `limit_ms` is none.
    Deregister {
        /// Who leaves.
        request: v1::DeregisterRequest,
        /// How long it may take.
        limit_ms: u64,
    },
}

/// What the coordinator answered.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The worker is taken.
    Registered(Registration),
    /// About the leases of a heartbeat.
    Heartbeat(v1::HeartbeatResponse),
    /// What there is to do.
    Next(v1::NextResponse),
    /// The events are stored, or the lease was gone.
    Reported {
        /// Whether the lease was gone.
        is_stale: bool,
    },
    /// The end is stored, or the lease was gone: there is nothing left to do either way.
    Finished,
    /// The worker has left.
    Deregistered,
}

/// What happens to the agent.
#[derive(Debug)]
pub enum Input {
    /// A call was answered, or failed.
    Answered {
        /// Which.
        call: CallId,
        /// With what.
        answer: Result<Answer, AgentError>,
    },
    /// A trainer is warm.
    TrainerReady {
        /// Whose.
        slot: usize,
    },
    /// A trainer could not be started.
    TrainerFailed {
        /// Whose.
        slot: usize,
        /// Why.
        message: String,
    },
    /// A trainer reports something.
    TrainerSaid {
        /// Whose.
        slot: usize,
        /// What.
        event: v1::Event,
    },
    /// A trainer says that its attempt is over.
    TrainerFinished {
        /// Whose.
        slot: usize,
        /// How it ended.
        end: v1::FinishRequest,
    },
    /// A trainer is no more.
    TrainerGone {
        /// Whose.
        slot: usize,
        /// The token of the last assignment that it was given.
        last_token: Option<u64>,
        /// What its end means.
        end: AttemptEnd,
        /// In words, with its last lines.
        message: String,
    },
    /// The worker is to leave. Said twice, it leaves at once.
    Stop,
    /// Time has passed.
    Tick,
}

/// What must be done.
#[derive(Debug)]
pub enum Effect {
    /// Ask the coordinator; the answer comes back as [`Input::Answered`].
    Call {
        /// What the answer is to be tagged with.
        call: CallId,
        /// What to ask.
        request: Request,
    },
    /// The answer of this call is of no use any more.
    GiveUp {
        /// Which.
        call: CallId,
    },
    /// Start a trainer in place of the slot's old one, if there is any.
    StartTrainer {
        /// Whose.
        slot: usize,
        /// Where it finds artifacts.
        artifact_store_uri: String,
    },
    /// Tell the slot's trainer something.
    Tell {
        /// Whose.
        slot: usize,
        /// What.
        kind: to_trainer::Kind,
    },
    /// Kill the slot's trainer; its end comes back as [`Input::TrainerGone`].
    KillTrainer {
        /// Whose.
        slot: usize,
    },
    /// The agent is over.
    Exit(Result<(), AgentError>),
}
