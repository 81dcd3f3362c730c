//! The agent as a state machine: what the coordinator answers, what the trainers say and what the
//! clock shows come in; calls, words to the trainers and the end come out.
//!
//! It does no I/O and asks no clock, so that a simulator drives the same logic as the program. The
//! life of one attempt is `attempt`'s.

use domain::attempt::AttemptEnd;
use domain::ids::LeaseToken;
use domain::planted::{Mistake, is_planted};
use proto::{to_wire, v1};

use super::AgentError;
use super::board::Board;
use super::registration::Registration;
use crate::attempt;
use crate::client::Backoff;
pub use messages::{Answer, CallId, Effect, Input, Request, Settings};
use persistent::Persistent;
use slot::Slot;

mod answers;
mod due;
mod messages;
mod persistent;
mod slot;

#[cfg(test)]
mod tests;

/// A worker that was not told that its leases live stops writing so much of a term before they may
/// have ended: it trains on, and writes again once a renewal says that they still live. Slow clocks
/// and messages on their way are well within it.
const MARGIN_OF_TERM: u64 = 8;

/// What the poll does.
#[derive(Debug)]
enum Poll {
    /// None is open; the next is due at this time.
    Due { at_ms: u64 },
    /// One is open and asked for so much.
    Open { call: CallId, n_asked: u32 },
}

/// What the heartbeat does.
#[derive(Debug, Clone, Copy)]
enum Beat {
    Due { at_ms: u64 },
    Sent { call: CallId, at_ms: u64 },
}

/// How far the worker is with leaving.
///
/// ```text
/// staying ── stop, or drained ──▶ waiting ── idle, or deadline ──▶ saying goodbye ──▶ over
///                                    └───────────── stop again ─────────────────────────┘
/// ```
#[derive(Debug, Clone, Copy)]
enum Leaving {
    No,
    Waiting { until_ms: u64 },
    SayingGoodbye { call: CallId },
    Over,
}

/// The agent.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    registration: Option<Registration>,
    /// The handshake under way, if there is one.
    registering: Option<Persistent>,
    /// Calls below this were made under an earlier registration.
    first_call: u64,
    n_calls: u64,
    beat: Beat,
    /// When the last heartbeat that was answered was sent: the leases live for a term from there.
    renewed_ms: u64,
    /// When it was last told anything.
    seen_ms: u64,
    poll: Poll,
    poll_backoff: Backoff,
    board: Board,
    slots: Vec<Slot>,
    /// Assignments that no slot could take, on their way back.
    returns: Vec<(v1::FinishRequest, Persistent)>,
    leaving: Leaving,
}

impl Core {
    /// An agent that is about to register.
    pub fn new(settings: Settings, now_ms: u64) -> Self {
        Self {
            settings,
            registration: None,
            registering: Some(Persistent::due_at(now_ms)),
            first_call: 0,
            n_calls: 0,
            beat: Beat::Due { at_ms: now_ms },
            renewed_ms: now_ms,
            seen_ms: now_ms,
            poll: Poll::Due { at_ms: now_ms },
            poll_backoff: Backoff::default(),
            board: Board::new(settings.n_slots),
            slots: (0..settings.n_slots).map(|_| Slot::default()).collect(),
            returns: Vec::new(),
            leaving: Leaving::No,
        }
    }

    /// Whether the messages of this slot's trainer are wanted now. When not, they wait in the pipe,
    /// and the trainer waits for the pipe.
    pub fn wants_messages(&self, slot: usize) -> bool {
        self.slots[slot].wants_messages()
    }

    /// The tokens of the attempts that are here.
    pub fn tokens(&self) -> Vec<u64> {
        self.board.tokens()
    }

    /// When [`Input::Tick`] is due, if nothing else happens before.
    pub fn deadline_ms(&self) -> Option<u64> {
        let registering = self.registering.as_ref().and_then(Persistent::due_ms);
        let beat = match self.beat {
            Beat::Due { at_ms } if self.may_call() => Some(at_ms),
            Beat::Due { .. } | Beat::Sent { .. } => None,
        };
        let poll = match self.poll {
            Poll::Due { at_ms } if self.may_call() => Some(at_ms),
            Poll::Due { .. } | Poll::Open { .. } => None,
        };
        let leaving = match self.leaving {
            Leaving::Waiting { until_ms } => Some(until_ms),
            Leaving::No | Leaving::SayingGoodbye { .. } | Leaving::Over => None,
        };
        // Before it is registered no trainer is started, so that nothing of a slot is due.
        let slots = self.slots.iter().filter(|_| self.registration.is_some());
        let slots = slots.filter_map(Slot::deadline_ms);
        [registering, beat, poll, leaving]
            .into_iter()
            .flatten()
            .chain(slots)
            .chain(self.send_ms())
            .min()
    }

    /// When the next report, end or return is to be sent; none while nothing may be written: what was
    /// due before, and not sent because this worker stood still, waits for a heartbeat's answer.
    fn send_ms(&self) -> Option<u64> {
        let until_ms = self.write_until_ms().filter(|until_ms| self.seen_ms < *until_ms)?;
        let slots = self.slots.iter().filter_map(Slot::send_ms);
        let returns = self.returns.iter().filter_map(|(_, persistent)| persistent.due_ms());
        slots.chain(returns).min().filter(|due_ms| *due_ms < until_ms)
    }

    /// Until when this worker may write under its leases, as far as it knows.
    fn write_until_ms(&self) -> Option<u64> {
        let term_ms = self.registration.as_ref()?.lease_term_ms;
        Some(self.renewed_ms + term_ms - term_ms / MARGIN_OF_TERM)
    }

    /// Takes in what happened at `now_ms` and says what must be done.
    pub fn handle(&mut self, input: Input, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.seen_ms = now_ms;
        if matches!(self.leaving, Leaving::Over) {
            return effects;
        }
        let taken = match input {
            Input::Answered { call, answer } => self.answered(call, answer, now_ms, &mut effects),
            Input::Stop => {
                self.stop(now_ms, &mut effects);
                Ok(())
            }
            input => {
                self.trainer(input, now_ms, &mut effects);
                Ok(())
            }
        };
        match taken {
            Ok(()) => self.advance(now_ms, &mut effects),
            Err(error) => self.exit(Err(error), &mut effects),
        }
        effects
    }

    /// What a trainer has to say, or the clock.
    fn trainer(&mut self, input: Input, now_ms: u64, effects: &mut Vec<Effect>) {
        match input {
            Input::TrainerReady { slot } => {
                self.slots[slot].trainer_ready(slot, effects);
                self.board.ready(slot);
            }
            Input::TrainerFailed { slot, message } => {
                tracing::error!(slot, error = message, "cannot start a trainer");
                self.slots[slot].trainer_failed(now_ms);
                self.tell_attempt(slot, attempt_without_trainer, now_ms, effects);
            }
            Input::TrainerSaid { slot, event } => {
                self.tell_attempt(slot, |_| attempt::Input::Event(event), now_ms, effects);
            }
            // What it did is not the slot's attempt: neither its end nor the rest may be taken for that.
            Input::TrainerFinished { slot, end } if self.slots[slot].is_of_another(&end) => {
                tracing::error!(
                    slot,
                    lease.token = end.lease_token,
                    "a trainer ended another attempt"
                );
                effects.push(Effect::KillTrainer { slot });
            }
            Input::TrainerFinished { slot, end } => {
                self.tell_attempt(slot, |_| attempt::Input::Finished(end), now_ms, effects);
            }
            Input::TrainerGone { slot, last_token, end, message } => {
                let had_attempt = self.slots[slot].trainer_gone(last_token, now_ms);
                self.board.not_ready(slot);
                if had_attempt {
                    tracing::warn!(message, "a trainer died in its attempt");
                    let gone = |_| attempt::Input::ChildGone { end, message };
                    self.tell_attempt(slot, gone, now_ms, effects);
                } else {
                    tracing::warn!(slot, end = message, "an idle trainer ended");
                }
            }
            // Whatever is due is done below.
            Input::Tick | Input::Answered { .. } | Input::Stop => {}
        }
    }

    /// Feeds the attempt of a slot, if it has one, and does what it says.
    fn tell_attempt(
        &mut self,
        slot: usize,
        input: impl FnOnce(LeaseToken) -> attempt::Input,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let is_over = self.slots[slot].tell_attempt(slot, input, now_ms, effects);
        if is_over {
            if is_planted(Mistake::AgentForgetsSlot) && self.slots[slot].is_warm() {
                return;
            }
            self.board.over(slot);
            if self.slots[slot].is_warm() {
                self.board.ready(slot);
            }
        }
    }

    /// The same for the attempt with this token, if it is here.
    fn tell_token(
        &mut self,
        token: u64,
        input: attempt::Input,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(slot) = self.board.slot_of(token) {
            self.tell_attempt(slot, |_| input, now_ms, effects);
        }
    }

    /// Told to leave.
    fn stop(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        match self.leaving {
            // Nobody knows of it yet.
            Leaving::No if self.registration.is_none() => self.exit(Ok(()), effects),
            Leaving::No => self.begin_to_leave(now_ms, effects),
            Leaving::Waiting { .. } | Leaving::SayingGoodbye { .. } => {
                tracing::warn!("stopping at once");
                self.exit(Ok(()), effects);
            }
            Leaving::Over => {}
        }
    }

    /// Takes nothing more, and lets what is here write its checkpoints.
    fn begin_to_leave(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.board.drain();
        let Settings { preempt_deadline_ms, stop_grace_ms, .. } = self.settings;
        self.leaving = Leaving::Waiting { until_ms: now_ms + preempt_deadline_ms + stop_grace_ms };
        for token in self.board.tokens() {
            let input = attempt::Input::Preempt { deadline_ms: preempt_deadline_ms };
            self.tell_token(token, input, now_ms, effects);
        }
    }

    fn exit(&mut self, outcome: Result<(), AgentError>, effects: &mut Vec<Effect>) {
        self.leaving = Leaving::Over;
        effects.push(Effect::Exit(outcome));
    }

    /// Whether the coordinator knows this worker, as far as is known here.
    fn may_call(&self) -> bool {
        self.registration.is_some() && self.registering.is_none()
    }
}

fn stale() -> attempt::Input {
    attempt::Input::Stop { reason: "the lease is gone".to_owned() }
}

/// An attempt whose trainer does not start goes back: another worker may have one.
fn attempt_without_trainer(token: LeaseToken) -> attempt::Input {
    let why = "the worker cannot start a trainer";
    attempt::Input::Finished(to_wire::finish(token, AttemptEnd::Preempted, why))
}

/// A pause in the core's unit.
fn millis(pause: std::time::Duration) -> u64 {
    u64::try_from(pause.as_millis()).unwrap_or(u64::MAX)
}
