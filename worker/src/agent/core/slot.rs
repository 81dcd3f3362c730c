//! One slot: its trainer, the attempt that it carries out, and what that attempt sends.
//!
//! What an attempt needs next is `attempt`'s to say; which slot is free is the board's.

use std::time::Duration;

use domain::attempt::AttemptEnd;
use domain::ids::LeaseToken;
use domain::planted::{Mistake, is_planted};
use proto::to_wire;
use proto::v1::{self, to_trainer};

use super::persistent::Persistent;
use super::{Answer, CallId, Effect, Request, millis, stale};
use crate::agent::AgentError;
use crate::attempt::{self, Attempt, ChildFate};
use crate::client::ErrorClass;

/// A trainer that does not start is tried again after this pause, doubled each time up to
/// [`LONGEST_RESTART_PAUSE`]: what it lacks may come back.
const FIRST_RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two starts.
const LONGEST_RESTART_PAUSE: Duration = Duration::from_mins(1);

/// The slot's trainer.
///
/// ```text
/// absent ── time ──▶ starting ── ready ──▶ warm
///   ▲                   └── failed ──┐       │
///   └────────────────────────────────┴─ gone ┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TrainerState {
    Absent { start_at_ms: u64 },
    Starting,
    Warm,
}

/// An attempt that a slot has.
#[derive(Debug)]
struct Held {
    attempt: Attempt,
    assignment: v1::Assignment,
    /// Whether a trainer was given it. One that died before it could take it was not.
    is_told: bool,
    sending: Option<(Request, Persistent)>,
}

/// One slot.
#[derive(Debug)]
pub(super) struct Slot {
    trainer: TrainerState,
    restart_pause: Duration,
    held: Option<Held>,
}

impl Default for Slot {
    fn default() -> Self {
        let trainer = TrainerState::Absent { start_at_ms: 0 };
        Self { trainer, restart_pause: FIRST_RESTART_PAUSE, held: None }
    }
}

impl Slot {
    pub(super) fn is_warm(&self) -> bool {
        self.trainer == TrainerState::Warm
    }

    pub(super) fn wants_messages(&self) -> bool {
        self.held.as_ref().is_none_or(|held| held.attempt.wants_messages())
    }

    pub(super) fn deadline_ms(&self) -> Option<u64> {
        let attempt_ms = self.held.as_ref().and_then(|held| held.attempt.deadline_ms());
        [self.restart_ms(), attempt_ms].into_iter().flatten().min()
    }

    /// When what the attempt sends is due.
    pub(super) fn send_ms(&self) -> Option<u64> {
        self.sending().and_then(Persistent::due_ms)
    }

    pub(super) fn is_attempt_due(&self, now_ms: u64) -> bool {
        let due_ms = self.held.as_ref().and_then(|held| held.attempt.deadline_ms());
        due_ms.is_some_and(|due_ms| due_ms <= now_ms)
    }

    fn sending(&self) -> Option<&Persistent> {
        self.held.as_ref().and_then(|held| held.sending.as_ref()).map(|(_, sending)| sending)
    }

    pub(super) fn is_call(&self, call: CallId) -> bool {
        self.sending().is_some_and(|sending| sending.is_call(call))
    }

    /// Takes an assignment; its trainer is warm.
    pub(super) fn begin(
        &mut self,
        slot: usize,
        assignment: v1::Assignment,
        stop_grace_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        let attempt = Attempt::new(LeaseToken(assignment.lease_token), stop_grace_ms);
        self.held = Some(Held { attempt, assignment, is_told: false, sending: None });
        self.tell_assignment(slot, effects);
    }

    /// Gives the assignment to the trainer, if none had it. An attempt that ends already, without
    /// any, is not begun: its trainer would carry it out beside the slot's next.
    fn tell_assignment(&mut self, slot: usize, effects: &mut Vec<Effect>) {
        let is_wanted = |held: &&mut Held| !held.is_told && held.attempt.is_running();
        if let Some(held) = self.held.as_mut().filter(is_wanted) {
            held.is_told = true;
            let kind = to_trainer::Kind::Assignment(held.assignment.clone());
            effects.push(Effect::Tell { slot, kind });
        }
    }

    pub(super) fn trainer_ready(&mut self, slot: usize, effects: &mut Vec<Effect>) {
        self.trainer = TrainerState::Warm;
        self.restart_pause = FIRST_RESTART_PAUSE;
        self.tell_assignment(slot, effects);
    }

    pub(super) fn trainer_failed(&mut self, now_ms: u64) {
        let start_at_ms = now_ms + millis(self.restart_pause);
        self.trainer = TrainerState::Absent { start_at_ms };
        self.restart_pause = (self.restart_pause * 2).min(LONGEST_RESTART_PAUSE);
    }

    /// The trainer is no more; whether that ends the attempt at hand. One that it never saw is given to
    /// the next trainer, unless it is to end: nobody is left who could end it.
    pub(super) fn trainer_gone(&mut self, last_token: Option<u64>, now_ms: u64) -> bool {
        self.trainer = TrainerState::Absent { start_at_ms: now_ms };
        match &mut self.held {
            Some(held)
                if last_token == Some(held.assignment.lease_token)
                    || (held.is_told && !held.attempt.is_running()) =>
            {
                true
            }
            Some(held) => {
                held.is_told = false;
                false
            }
            None => false,
        }
    }

    /// Whether a trainer speaks of another attempt than the one at hand.
    pub(super) fn is_of_another(&self, said: &v1::FinishRequest) -> bool {
        self.held.as_ref().is_some_and(|held| held.assignment.lease_token != said.lease_token)
    }

    /// When a trainer is to be started. One that had an attempt is replaced when that is over, so
    /// that the new one meets a slot in order.
    fn restart_ms(&self) -> Option<u64> {
        let is_in_order = self.held.as_ref().is_none_or(|held| !held.is_told);
        match self.trainer {
            TrainerState::Absent { start_at_ms } if is_in_order => Some(start_at_ms),
            TrainerState::Absent { .. } | TrainerState::Starting | TrainerState::Warm => None,
        }
    }

    /// Starts a trainer if one is due.
    pub(super) fn restart(
        &mut self,
        slot: usize,
        artifact_store_uri: &str,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
        if self.restart_ms().is_some_and(|at_ms| at_ms <= now_ms) {
            self.trainer = TrainerState::Starting;
            let artifact_store_uri = artifact_store_uri.to_owned();
            effects.push(Effect::StartTrainer { slot, artifact_store_uri });
        }
    }

    /// Feeds the attempt, if there is one, and does what it says; whether it is over.
    pub(super) fn tell_attempt(
        &mut self,
        slot: usize,
        input: impl FnOnce(LeaseToken) -> attempt::Input,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(held) = &mut self.held else {
            return false;
        };
        let token = LeaseToken(held.assignment.lease_token);
        let input = input(token);
        if let attempt::Input::Stop { reason } = &input {
            tracing::info!(lease.token = token.0, reason, "stopping an attempt");
            // Nothing is reported without a lease, not even again.
            give_up(&mut held.sending, effects);
        }
        let mut fate = None;
        let inputs = if held.is_told { vec![input] } else { without_trainer(input, token) };
        for effect in inputs.into_iter().flat_map(|input| held.attempt.handle(input, now_ms)) {
            match effect {
                attempt::Effect::Tell(kind) => effects.push(Effect::Tell { slot, kind }),
                attempt::Effect::KillChild => effects.push(Effect::KillTrainer { slot }),
                attempt::Effect::Report(events) => {
                    let request =
                        Request::Report(v1::ReportRequest { lease_token: token.0, events });
                    held.sending = Some((request, Persistent::due_at(now_ms)));
                }
                attempt::Effect::Finish(end) => {
                    tracing::info!(lease.token = end.lease_token, end = end.end, "attempt ended");
                    held.sending = Some((Request::Finish(end), Persistent::due_at(now_ms)));
                }
                attempt::Effect::Over(said) => fate = Some(said),
            }
        }
        let Some(fate) = fate else { return false };
        give_up(&mut held.sending, effects);
        self.held = None;
        if fate == ChildFate::Replace && self.trainer == TrainerState::Warm {
            self.trainer = TrainerState::Absent { start_at_ms: now_ms };
        }
        true
    }

    /// The call that is due.
    pub(super) fn due_request(&self, now_ms: u64) -> Option<Request> {
        let (request, sending) = self.held.as_ref()?.sending.as_ref()?;
        sending.is_due(now_ms).then(|| request.clone())
    }

    /// The due call is on its way.
    pub(super) fn is_sent(&mut self, call: CallId) {
        if let Some((_, sending)) = self.held.as_mut().and_then(|held| held.sending.as_mut()) {
            sending.sent(call);
        }
    }

    /// What the answer of the call on its way means for the attempt; none when it is made again.
    pub(super) fn sent(
        &mut self,
        answer: Result<Answer, AgentError>,
        now_ms: u64,
    ) -> Option<attempt::Input> {
        let held = self.held.as_mut()?;
        let (request, mut sending) = held.sending.take()?;
        let token = held.assignment.lease_token;
        match (&request, answer) {
            (Request::Report(_), Err(error))
                if error.class() == ErrorClass::RetryLater
                    && is_planted(Mistake::AgentForgetsReports) =>
            {
                Some(attempt::Input::Reported)
            }
            (_, Err(error)) if sending.failed_as(error.class(), now_ms) => {
                held.sending = Some((request, sending));
                None
            }
            (Request::Report(_), Ok(Answer::Reported { is_stale: false })) => {
                Some(attempt::Input::Reported)
            }
            (Request::Report(_), Err(error))
                if matches!(error.class(), ErrorClass::GiveUp | ErrorClass::RetryForAWhile) =>
            {
                tracing::error!(lease.token = token, %error, "a report was refused");
                Some(attempt::Input::Refused { message: error.to_string() })
            }
            (Request::Report(_), _) => Some(stale()),
            (_, answer) => {
                if let Err(error) = answer {
                    // The lease expires, and the work goes to another.
                    tracing::error!(lease.token = token, %error, "an end was refused");
                }
                Some(attempt::Input::FinishAnswered)
            }
        }
    }
}

/// What an input means for an attempt that no trainer has been given yet: there is nobody whose
/// answer could be waited for.
fn without_trainer(input: attempt::Input, token: LeaseToken) -> Vec<attempt::Input> {
    let (end, why) = (AttemptEnd::Preempted, "no trainer had begun with it");
    match input {
        attempt::Input::Preempt { .. } => {
            vec![attempt::Input::Finished(to_wire::finish(token, end, why))]
        }
        attempt::Input::Stop { .. } | attempt::Input::Refused { .. } => {
            vec![input, attempt::Input::ChildGone { end, message: why.to_owned() }]
        }
        input => vec![input],
    }
}

fn give_up(sending: &mut Option<(Request, Persistent)>, effects: &mut Vec<Effect>) {
    if let Some(call) = sending.take().and_then(|(_, sending)| sending.call()) {
        effects.push(Effect::GiveUp { call });
    }
}
