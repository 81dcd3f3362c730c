//! The life of one attempt on a worker, as a state machine fed by messages: what the trainer says,
//! what the coordinator wants, what the clock shows.
//!
//! It does no I/O: what must be done comes back as effects, and the time is an argument.

use domain::attempt::AttemptEnd;
use domain::ids::LeaseToken;
use domain::planted::{Mistake, is_planted};
use proto::to_wire;
use proto::v1::{self, to_trainer};

use outbox::Outbox;

mod outbox;

pub use outbox::{FLUSH_MS, MAX_BUFFERED_EVENTS, MAX_EVENTS_PER_BATCH};

/// What becomes of the trainer when its attempt is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildFate {
    /// It is warm and takes the next assignment.
    Keep,
    /// It is gone or was killed: a new one must be started.
    Replace,
}

/// What happens to an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The trainer reported something.
    Event(v1::Event),
    /// The trainer says the attempt is over.
    Finished(v1::FinishRequest),
    /// The trainer is no more.
    ChildGone {
        /// What its end means.
        end: AttemptEnd,
        /// In words, with its last lines.
        message: String,
    },
    /// The lease is gone: cancelled, expired, or given to another.
    Stop {
        /// For the log.
        reason: String,
    },
    /// The slot is wanted: checkpoint and end.
    Preempt {
        /// How long that may take.
        deadline_ms: u64,
    },
    /// A report was stored.
    Reported,
    /// A report was refused for good.
    Refused {
        /// Why.
        message: String,
    },
    /// The end was stored, or could not be for good.
    FinishAnswered,
    /// Time has passed.
    Tick,
}

/// What must be done.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "one or two live at a time, and briefly")]
pub enum Effect {
    /// Tell the trainer.
    Tell(to_trainer::Kind),
    /// Kill the trainer; its end comes back as [`Input::ChildGone`].
    KillChild,
    /// Send these events, again and again until answered.
    Report(Vec<v1::Event>),
    /// Send this end, again and again until answered.
    Finish(v1::FinishRequest),
    /// The attempt is over: drop whatever is still being sent.
    Over(ChildFate),
}

/// The state of an attempt on its worker.
///
/// ```text
///                 ┌─ preempt ──▶ preempting ─ deadline ─┐
///   running ──────┤                  │                  ▼
///                 ├─ stop ───────────┼─────────────▶ stopping ── trainer over ─▶ (silently) over
///                 │                  │                  │ with an end
///                 └─ trainer over ───┴──▶ reporting ◀───┘
///                                             │ all events stored
///                                             ▼
///                                         finishing ── answered ──▶ over
/// ```
#[derive(Debug, Clone, PartialEq)]
enum State {
    /// The trainer works.
    Running,
    /// The trainer writes a checkpoint and ends.
    Preempting { kill_at_ms: u64 },
    /// The trainer must end. With `end`, the lease lives and the end is reported; without, the
    /// lease is gone and nothing is.
    Stopping { kill_at_ms: Option<u64>, end: Option<v1::FinishRequest> },
    /// The trainer is over; its last events are being sent.
    Reporting { end: v1::FinishRequest, child: ChildFate },
    /// Everything is stored but the end.
    Finishing { child: ChildFate },
    /// Nothing is left to do.
    Over,
}

/// One attempt.
#[derive(Debug)]
pub struct Attempt {
    token: LeaseToken,
    stop_grace_ms: u64,
    state: State,
    outbox: Outbox,
    is_killed: bool,
}

impl Attempt {
    /// An attempt whose assignment the trainer was just given. After `stop_grace_ms` a trainer that
    /// does not give up is killed.
    pub fn new(token: LeaseToken, stop_grace_ms: u64) -> Self {
        Self {
            token,
            stop_grace_ms,
            state: State::Running,
            outbox: Outbox::default(),
            is_killed: false,
        }
    }

    /// Whether its trainer is to work: it was neither stopped nor preempted, nor is it over.
    pub fn is_running(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Whether the trainer's messages are wanted now. When not, they wait in the pipe, and the
    /// trainer waits for the pipe.
    pub fn wants_messages(&self) -> bool {
        let discards = matches!(&self.state, State::Stopping { end: None, .. } | State::Over);
        discards || !self.outbox.is_full()
    }

    /// When [`Input::Tick`] is due, if nothing else happens before.
    pub fn deadline_ms(&self) -> Option<u64> {
        let kill_at_ms = match &self.state {
            State::Preempting { kill_at_ms } => Some(*kill_at_ms),
            State::Stopping { kill_at_ms, .. } => *kill_at_ms,
            _ => None,
        };
        [kill_at_ms, self.outbox.flush_at_ms()].into_iter().flatten().min()
    }

    /// Takes in what happened at `now_ms` and says what must be done.
    pub fn handle(&mut self, input: Input, now_ms: u64) -> Vec<Effect> {
        let mut effects = match input {
            Input::Event(event) => self.take_event(event, now_ms),
            Input::Finished(end) => self.child_over(end),
            Input::ChildGone { end, message } => self.child_gone(end, &message),
            Input::Stop { reason } => self.stop(reason, now_ms),
            Input::Preempt { deadline_ms } => self.preempt(deadline_ms, now_ms),
            Input::Reported => {
                self.outbox.sent();
                Vec::new()
            }
            Input::Refused { message } => self.refused(&message, now_ms),
            Input::FinishAnswered => self.finish_answered(),
            Input::Tick => self.tick(now_ms),
        };
        effects.extend(self.send(now_ms));
        effects
    }

    fn take_event(&mut self, event: v1::Event, now_ms: u64) -> Vec<Effect> {
        match &self.state {
            State::Running | State::Preempting { .. } | State::Stopping { end: Some(_), .. } => {
                self.outbox.push(event, now_ms);
            }
            // A trainer's last log lines may come after its end and tell nothing that counts; and
            // without a lease nothing of the attempt is reported any more.
            State::Reporting { .. }
            | State::Finishing { .. }
            | State::Stopping { end: None, .. }
            | State::Over => {}
        }
        Vec::new()
    }

    fn child_over(&mut self, said: v1::FinishRequest) -> Vec<Effect> {
        if AttemptEnd::from_label(&said.end).is_none() {
            let text = format!("the trainer ended with the unknown label `{}`", said.end);
            return self.end_with(to_wire::finish(self.token, AttemptEnd::Bug, &text));
        }
        // Such a trainer is about to exit: the next assignment gets a fresh one.
        if [AttemptEnd::Bug, AttemptEnd::OutOfMemory].iter().any(|end| end.label() == said.end) {
            self.is_killed = true;
        }
        // The trainer's token is that of its assignment; ours decides.
        self.end_with(v1::FinishRequest { lease_token: self.token.0, ..said })
    }

    fn child_gone(&mut self, end: AttemptEnd, message: &str) -> Vec<Effect> {
        self.is_killed = true;
        match &mut self.state {
            // It ended its attempt in order and died afterwards.
            State::Reporting { child, .. } | State::Finishing { child } => {
                *child = ChildFate::Replace;
                Vec::new()
            }
            // It is to leave, and may have been ended by who wants the machine: that is nobody's
            // fault. What it did since its last checkpoint is done again.
            State::Preempting { .. } if end != AttemptEnd::OutOfMemory => {
                self.end_with(to_wire::finish(self.token, AttemptEnd::Preempted, message))
            }
            State::Running | State::Preempting { .. } | State::Stopping { .. } | State::Over => {
                self.end_with(to_wire::finish(self.token, end, message))
            }
        }
    }

    /// The trainer is over, and says `said` about its attempt.
    fn end_with(&mut self, said: v1::FinishRequest) -> Vec<Effect> {
        let child = if self.is_killed { ChildFate::Replace } else { ChildFate::Keep };
        match std::mem::replace(&mut self.state, State::Over) {
            State::Running | State::Preempting { .. } => {
                self.state = State::Reporting { end: said, child };
            }
            State::Stopping { end: Some(end), .. } => {
                self.state = State::Reporting { end, child };
            }
            State::Stopping { end: None, .. } => return vec![Effect::Over(child)],
            // Said twice: the first counts.
            state @ (State::Reporting { .. } | State::Finishing { .. } | State::Over) => {
                self.state = state;
            }
        }
        Vec::new()
    }

    fn stop(&mut self, reason: String, now_ms: u64) -> Vec<Effect> {
        self.outbox.clear();
        match &mut self.state {
            State::Running | State::Preempting { .. } => {
                let kill_at_ms = Some(now_ms + self.stop_grace_ms);
                self.state = State::Stopping { kill_at_ms, end: None };
                vec![self.tell_stop(reason)]
            }
            State::Stopping { end, .. } => {
                *end = None;
                Vec::new()
            }
            State::Reporting { child, .. } | State::Finishing { child } => {
                let child = *child;
                self.state = State::Over;
                vec![Effect::Over(child)]
            }
            // Two messages crossed.
            State::Over => Vec::new(),
        }
    }

    fn preempt(&mut self, deadline_ms: u64, now_ms: u64) -> Vec<Effect> {
        match &mut self.state {
            State::Running => {
                self.state = State::Preempting { kill_at_ms: now_ms.saturating_add(deadline_ms) };
                let lease_token = self.token.0;
                let preempt = v1::PreemptAttempt { lease_token, deadline_ms };
                vec![Effect::Tell(to_trainer::Kind::Preempt(preempt))]
            }
            // Said twice: the earlier deadline counts.
            State::Preempting { kill_at_ms } => {
                *kill_at_ms = (*kill_at_ms).min(now_ms.saturating_add(deadline_ms));
                Vec::new()
            }
            // It is ending already.
            State::Stopping { .. }
            | State::Reporting { .. }
            | State::Finishing { .. }
            | State::Over => Vec::new(),
        }
    }

    fn refused(&mut self, message: &str, now_ms: u64) -> Vec<Effect> {
        self.outbox.clear();
        let text = format!("the coordinator refused a report: {message}");
        let bug = to_wire::finish(self.token, AttemptEnd::Bug, &text);
        match &mut self.state {
            State::Running | State::Preempting { .. } => {
                let kill_at_ms = Some(now_ms + self.stop_grace_ms);
                self.state = State::Stopping { kill_at_ms, end: Some(bug) };
                vec![self.tell_stop(text)]
            }
            State::Stopping { end: Some(end), .. } | State::Reporting { end, .. } => {
                *end = bug;
                Vec::new()
            }
            // Nothing more is reported anyway.
            State::Stopping { end: None, .. } | State::Finishing { .. } | State::Over => Vec::new(),
        }
    }

    fn finish_answered(&mut self) -> Vec<Effect> {
        match self.state {
            State::Finishing { child } => {
                self.state = State::Over;
                vec![Effect::Over(child)]
            }
            // An answer that a stop has overtaken.
            _ => Vec::new(),
        }
    }

    fn tick(&mut self, now_ms: u64) -> Vec<Effect> {
        match &mut self.state {
            State::Preempting { kill_at_ms } if *kill_at_ms <= now_ms => {
                let text = "the trainer wrote no checkpoint before the deadline";
                let end = to_wire::finish(self.token, AttemptEnd::Preempted, text);
                self.state = State::Stopping { kill_at_ms: None, end: Some(end) };
                self.kill()
            }
            State::Stopping { kill_at_ms: kill @ Some(_), .. }
                if kill.is_some_and(|at_ms| at_ms <= now_ms) =>
            {
                *kill = None;
                self.kill()
            }
            // Only the outbox was due.
            _ => Vec::new(),
        }
    }

    fn kill(&mut self) -> Vec<Effect> {
        self.is_killed = true;
        vec![Effect::KillChild]
    }

    fn tell_stop(&self, reason: String) -> Effect {
        let lease_token = self.token.0;
        Effect::Tell(to_trainer::Kind::Stop(v1::StopAttempt { lease_token, reason }))
    }

    /// What can be sent now: events, or behind the last of them the end.
    fn send(&mut self, now_ms: u64) -> Option<Effect> {
        let is_last = matches!(self.state, State::Reporting { .. });
        if let Some(events) = self.outbox.take(now_ms, is_last) {
            return Some(Effect::Report(events));
        }
        let is_early = is_planted(Mistake::AgentEndsTooEarly);
        if !is_last || !(self.outbox.is_settled() || is_early) {
            return None;
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Reporting { end, child } => {
                self.state = State::Finishing { child };
                Some(Effect::Finish(end))
            }
            state => {
                self.state = state;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
