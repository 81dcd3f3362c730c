//! What the coordinator's answers mean: registrations, heartbeats, polls, reports, ends.

use domain::attempt::AttemptEnd;
use domain::ids::LeaseToken;
use proto::to_wire;
use proto::v1::{self, directive};

use super::persistent::Persistent;
use super::{Answer, Beat, CallId, Core, Effect, Leaving, Poll, millis, stale};
use crate::agent::AgentError;
use crate::agent::board::Placement;
use crate::attempt;
use crate::client::{Backoff, ErrorClass};

impl Core {
    /// The error means that going on is of no use.
    pub(super) fn answered(
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

    pub(super) fn registered(
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
            // A coordinator that restarts in the middle of the handshake has forgotten its start;
            // and an artifact store that was seen before may be away.
            Err(error)
                if error.class() != ErrorClass::GiveUp
                    || self.goes_on_after(&error)
                    || (self.registration.is_some() && error.is_about_artifacts()) =>
            {
                tracing::debug!(%error, "registering again in a moment");
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
    pub(super) fn register_again(&mut self, call: CallId, now_ms: u64) {
        // Asked under an earlier registration, or known already.
        if call.0 < self.first_call || self.registering.is_some() {
            return;
        }
        tracing::info!("the coordinator forgot this worker; registering again");
        self.registering = Some(Persistent::due_at(now_ms));
    }

    pub(super) fn beat_answered(
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
                ErrorClass::RetryLater | ErrorClass::RetryForAWhile => {}
                ErrorClass::RegisterAgain => self.register_again(call, now_ms),
                ErrorClass::GiveUp if self.goes_on_after(&error) => {}
                ErrorClass::GiveUp => return Err(error),
            },
        }
        Ok(())
    }

    /// Whether it goes on although nothing helps: attempts that are here are not thrown away for
    /// one answer. Without leases they end by themselves.
    fn goes_on_after(&self, error: &AgentError) -> bool {
        let is_busy = !self.board.is_idle();
        if is_busy {
            tracing::warn!(%error, "the worker goes on as long as it has attempts");
        }
        is_busy
    }

    pub(super) fn poll_answered(
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
                ErrorClass::GiveUp if !self.goes_on_after(&error) => return Err(error),
                ErrorClass::RetryLater | ErrorClass::RetryForAWhile | ErrorClass::GiveUp => {
                    let at_ms = now_ms + millis(self.poll_backoff.next_pause());
                    self.poll = Poll::Due { at_ms };
                }
                ErrorClass::RegisterAgain => self.register_again(call, now_ms),
            },
        }
        Ok(())
    }

    /// Takes directives and assignments.
    pub(super) fn take(
        &mut self,
        response: v1::NextResponse,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
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
    pub(super) fn give_back(&mut self, token: u64, now_ms: u64) {
        if self.returns.iter().any(|(finish, _)| finish.lease_token == token) {
            return;
        }
        tracing::warn!(lease.token = token, "no slot is free for an assignment; giving it back");
        let why = "no slot of the worker is free";
        let finish = to_wire::finish(LeaseToken(token), AttemptEnd::Preempted, why);
        self.returns.push((finish, Persistent::due_at(now_ms)));
    }

    pub(super) fn returned(
        &mut self,
        call: CallId,
        answer: Result<Answer, AgentError>,
        now_ms: u64,
    ) {
        let Some(index) = self.returns.iter().position(|(_, sending)| sending.is_call(call)) else {
            return;
        };
        match answer {
            Err(error) if self.returns[index].1.failed_as(error.class(), now_ms) => {}
            answer => {
                if let Err(error) = answer {
                    tracing::warn!(%error, "could not give an assignment back");
                }
                self.returns.remove(index);
            }
        }
    }
}
