//! The agent as a state machine: what the coordinator answers, what the trainers say and what the
//! clock shows come in; calls, words to the trainers and the end come out.
//!
//! It does no I/O and asks no clock, so that a simulator drives the same logic as the program. The
//! life of one attempt is `attempt`'s.

use domain::attempt::AttemptEnd;
use domain::ids::LeaseToken;
use domain::planted::{Mistake, is_planted};
use proto::to_wire;
use proto::v1::{self, directive, to_trainer};

use super::AgentError;
use super::board::{Board, Placement};
use super::registration::Registration;
use crate::attempt;
use crate::client::{Backoff, ErrorClass};
use persistent::Persistent;
use slot::Slot;

mod persistent;
mod slot;

#[cfg(test)]
mod tests;

/// How long a poll may stay open. Shorter than the idle limits of common proxies.
const MAX_WAIT_MS: u64 = 30_000;

/// A worker that was not told that its leases live stops writing so much of a term before they may
/// have ended: it trains on, and writes again once a renewal says that they still live. Slow clocks
/// and messages on their way are well within it.
const MARGIN_OF_TERM: u64 = 8;

/// No call is given up sooner.
const SHORTEST_TIMEOUT_MS: u64 = 100;

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
pub struct CallId(u64);

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

    /// When the next report, end or return is to be sent; none while nothing may be written.
    fn send_ms(&self) -> Option<u64> {
        let until_ms = self.write_until_ms()?;
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

    /// The error means that going on is of no use.
    fn answered(
        &mut self,
        call: CallId,
        answer: Result<Answer, AgentError>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), AgentError> {
        if let Leaving::SayingGoodbye { call: goodbye } = self.leaving
            && goodbye == call
        {
            if let Err(error) = answer {
                tracing::debug!(%error, "left without a word");
            }
            self.exit(Ok(()), effects);
            return Ok(());
        }
        if self.registering.as_ref().is_some_and(|registering| registering.is_call(call)) {
            return self.registered(answer, now_ms);
        }
        if matches!(self.beat, Beat::Sent { call: sent, .. } if sent == call) {
            return self.beat_answered(call, answer, now_ms, effects);
        }
        if matches!(self.poll, Poll::Open { call: open, .. } if open == call) {
            return self.poll_answered(call, answer, now_ms, effects);
        }
        if let Some(slot) = self.slots.iter().position(|slot| slot.is_call(call)) {
            if let Some(input) = self.slots[slot].sent(answer, now_ms) {
                self.tell_attempt(slot, |_| input, now_ms, effects);
            }
            return Ok(());
        }
        self.returned(call, answer, now_ms);
        Ok(())
    }

    fn registered(
        &mut self,
        answer: Result<Answer, AgentError>,
        now_ms: u64,
    ) -> Result<(), AgentError> {
        match answer {
            Ok(Answer::Registered(new)) => {
                if let Some(old) = &self.registration
                    && old.artifact_store_uri != new.artifact_store_uri
                {
                    return Err(AgentError::ArtifactStoreMoved { uri: new.artifact_store_uri });
                }
                tracing::info!(worker.id = new.worker_id, "registered");
                self.registration = Some(new);
                // Leases of an earlier registration are known to live when a heartbeat says so.
                if self.board.is_idle() {
                    self.renewed_ms = now_ms;
                }
                self.registering = None;
                self.first_call = self.n_calls;
                // Whether the leases here still live is the next heartbeat's answer.
                self.beat = Beat::Due { at_ms: now_ms };
                Ok(())
            }
            // A coordinator that restarts in the middle of the handshake has forgotten its start.
            Err(error) if error.class() != ErrorClass::GiveUp => {
                if let Some(registering) = &mut self.registering {
                    registering.failed(now_ms);
                }
                Ok(())
            }
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }

    /// A call said that the coordinator does not know this worker.
    fn register_again(&mut self, call: CallId, now_ms: u64) {
        // Asked under an earlier registration, or known already.
        if call.0 < self.first_call || self.registering.is_some() {
            return;
        }
        tracing::info!("the coordinator forgot this worker; registering again");
        self.registering = Some(Persistent::due_at(now_ms));
    }

    fn beat_answered(
        &mut self,
        call: CallId,
        answer: Result<Answer, AgentError>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), AgentError> {
        if let Beat::Sent { at_ms, .. } = self.beat {
            let interval_ms = self.registration.as_ref().map_or(0, |r| r.heartbeat_interval_ms);
            self.beat = Beat::Due { at_ms: at_ms + interval_ms };
            if let Ok(Answer::Heartbeat(response)) = &answer
                && !response.is_unknown_worker
            {
                self.renewed_ms = at_ms;
            }
        }
        match answer {
            // What it says about leases it says about a stranger's: asked again under the new name.
            Ok(Answer::Heartbeat(response)) if response.is_unknown_worker => {
                self.register_again(call, now_ms);
            }
            Ok(Answer::Heartbeat(response)) => {
                for token in response.stale_lease_tokens {
                    self.tell_token(token, stale(), now_ms, effects);
                }
            }
            Ok(_) => {}
            Err(error) => match error.class() {
                // The next heartbeat is the retry.
                ErrorClass::RetryLater => {}
                ErrorClass::RegisterAgain => self.register_again(call, now_ms),
                ErrorClass::GiveUp => return Err(error),
            },
        }
        Ok(())
    }

    fn poll_answered(
        &mut self,
        call: CallId,
        answer: Result<Answer, AgentError>,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), AgentError> {
        self.poll = Poll::Due { at_ms: now_ms };
        match answer {
            Ok(Answer::Next(response)) => {
                self.poll_backoff = Backoff::default();
                if self.write_until_ms().is_some_and(|until_ms| until_ms <= now_ms) {
                    // The coordinator is back: what waits need not wait for the next heartbeat.
                    self.beat_now(now_ms);
                }
                self.take(response, now_ms, effects);
            }
            Ok(_) => {}
            Err(error) => match error.class() {
                ErrorClass::RetryLater => {
                    let at_ms = now_ms + millis(self.poll_backoff.next_pause());
                    self.poll = Poll::Due { at_ms };
                }
                ErrorClass::RegisterAgain => self.register_again(call, now_ms),
                ErrorClass::GiveUp => return Err(error),
            },
        }
        Ok(())
    }

    /// Takes directives and assignments.
    fn take(&mut self, response: v1::NextResponse, now_ms: u64, effects: &mut Vec<Effect>) {
        for directive in response.directives {
            match directive.kind {
                Some(directive::Kind::Stop(stop)) => {
                    let input = attempt::Input::Stop { reason: stop.reason };
                    self.tell_token(stop.lease_token, input, now_ms, effects);
                }
                Some(directive::Kind::Preempt(preempt)) => {
                    let input = attempt::Input::Preempt { deadline_ms: preempt.deadline_ms };
                    self.tell_token(preempt.lease_token, input, now_ms, effects);
                }
                Some(directive::Kind::Drain(v1::Drain {})) => self.board.drain(),
                None => tracing::warn!("the coordinator sent a directive of a newer version"),
            }
        }
        for assignment in response.assignments {
            tracing::info!(work.id = assignment.work_id, attempt = assignment.attempt, "assigned");
            let token = assignment.lease_token;
            match self.board.place(token) {
                Placement::Slot(slot) => {
                    let grace_ms = self.settings.stop_grace_ms;
                    self.slots[slot].begin(slot, assignment, grace_ms, effects);
                }
                Placement::Duplicate => {}
                Placement::NoSlot => self.give_back(token, now_ms),
            }
        }
    }

    /// An assignment that crossed with a drain, or with a trainer's death, goes back at once: nobody
    /// should wait for its lease to expire.
    fn give_back(&mut self, token: u64, now_ms: u64) {
        if self.returns.iter().any(|(finish, _)| finish.lease_token == token) {
            return;
        }
        tracing::warn!(lease.token = token, "no slot is free for an assignment; giving it back");
        let why = "no slot of the worker is free";
        let finish = to_wire::finish(LeaseToken(token), AttemptEnd::Preempted, why);
        self.returns.push((finish, Persistent::due_at(now_ms)));
    }

    fn returned(&mut self, call: CallId, answer: Result<Answer, AgentError>, now_ms: u64) {
        let Some(index) = self.returns.iter().position(|(_, sending)| sending.is_call(call)) else {
            return;
        };
        match answer {
            Err(error) if error.class() == ErrorClass::RetryLater => {
                self.returns[index].1.failed(now_ms);
            }
            answer => {
                if let Err(error) = answer {
                    tracing::warn!(%error, "could not give an assignment back");
                }
                self.returns.remove(index);
            }
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

    /// Does whatever is due.
    fn advance(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if matches!(self.leaving, Leaving::Over) {
            return;
        }
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_attempt_due(now_ms) {
                self.tell_attempt(slot, |_| attempt::Input::Tick, now_ms, effects);
            }
        }
        self.leave(now_ms, effects);
        if self.registering.as_ref().is_some_and(|registering| registering.is_due(now_ms)) {
            let call = self.call(Request::Register, effects);
            if let Some(registering) = &mut self.registering {
                registering.sent(call);
            }
        }
        if let Some(registration) = self.registration.clone() {
            for (index, slot) in self.slots.iter_mut().enumerate() {
                slot.restart(index, &registration.artifact_store_uri, now_ms, effects);
            }
            self.send(now_ms, effects);
            if self.registering.is_none() {
                self.beat(&registration, now_ms, effects);
                self.ask(&registration, now_ms, effects);
            }
        }
    }

    fn call(&mut self, request: Request, effects: &mut Vec<Effect>) -> CallId {
        let call = CallId(self.n_calls);
        self.n_calls += 1;
        effects.push(Effect::Call { call, request });
        call
    }

    fn beat_now(&mut self, now_ms: u64) {
        if let Beat::Due { .. } = self.beat {
            self.beat = Beat::Due { at_ms: now_ms };
        }
    }

    /// Sends what is due of reports, ends and what goes back, as long as the leases are known to live.
    fn send(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        if self.write_until_ms().is_none_or(|until_ms| until_ms <= now_ms) {
            return;
        }
        for slot in 0..self.slots.len() {
            if let Some(request) = self.slots[slot].due_request(now_ms) {
                let call = self.call(request, effects);
                self.slots[slot].is_sent(call);
            }
        }
        for index in 0..self.returns.len() {
            if self.returns[index].1.is_due(now_ms) {
                let request = Request::Finish(self.returns[index].0.clone());
                let call = self.call(request, effects);
                self.returns[index].1.sent(call);
            }
        }
    }

    /// Renews the leases held here.
    fn beat(&mut self, registration: &Registration, now_ms: u64, effects: &mut Vec<Effect>) {
        if !matches!(self.beat, Beat::Due { at_ms } if at_ms <= now_ms) {
            return;
        }
        let worker_id = registration.worker_id.clone();
        let request = v1::HeartbeatRequest { worker_id, lease_tokens: self.board.tokens() };
        let limit_ms = (registration.lease_term_ms / 2).max(SHORTEST_TIMEOUT_MS);
        let call = self.call(Request::Heartbeat { request, limit_ms }, effects);
        self.beat = Beat::Sent { call, at_ms: now_ms };
    }

    /// Keeps a poll open, also with no free slot, so that directives come at once. One is given up
    /// when it asks for the wrong thing: no work although a slot became free, or more than there is
    /// room for. One for work is not given up because a further slot became free, since an
    /// assignment could be on its way: were there more work, it would be answered.
    fn ask(&mut self, registration: &Registration, now_ms: u64, effects: &mut Vec<Effect>) {
        let n_free_slots = self.board.n_free_slots();
        match self.poll {
            Poll::Open { call, n_asked } => {
                let is_wrong = if n_asked == 0 { n_free_slots > 0 } else { n_free_slots < n_asked };
                if !is_wrong {
                    return;
                }
                effects.push(Effect::GiveUp { call });
            }
            Poll::Due { at_ms } if at_ms > now_ms => return,
            Poll::Due { .. } => {}
        }
        let worker_id = registration.worker_id.clone();
        let request = v1::NextRequest { worker_id, n_free_slots, max_wait_ms: MAX_WAIT_MS };
        let call = self.call(Request::Next(request), effects);
        self.poll = Poll::Open { call, n_asked: n_free_slots };
    }

    /// Goes on with leaving, and begins with it when the worker was drained and can go.
    fn leave(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        let is_settled = self.board.is_idle() && self.returns.is_empty();
        let is_time = match self.leaving {
            Leaving::No => self.board.is_drained() && is_settled,
            Leaving::Waiting { until_ms } => is_settled || until_ms <= now_ms,
            Leaving::SayingGoodbye { .. } | Leaving::Over => false,
        };
        let Some(registration) = self.registration.as_ref().filter(|_| is_time) else {
            return;
        };
        if !is_settled {
            tracing::warn!("some attempts did not end in time");
        }
        let request = v1::DeregisterRequest { worker_id: registration.worker_id.clone() };
        let limit_ms = self.settings.leave_timeout_ms;
        let call = self.call(Request::Deregister { request, limit_ms }, effects);
        self.leaving = Leaving::SayingGoodbye { call };
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
