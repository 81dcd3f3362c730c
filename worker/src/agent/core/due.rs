//! What is due: handshakes, heartbeats, polls, reports, trainers, leaving.

use proto::v1;

use super::{Beat, CallId, Core, Effect, Leaving, Poll, Request};
use crate::agent::Registration;
use crate::attempt;

/// How long a poll may stay open. Shorter than the idle limits of common proxies.
const MAX_WAIT_MS: u64 = 30_000;

/// No call is given up sooner.
const SHORTEST_TIMEOUT_MS: u64 = 100;

impl Core {
    /// Does whatever is due.
    pub(super) fn advance(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
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

    pub(super) fn call(&mut self, request: Request, effects: &mut Vec<Effect>) -> CallId {
        let call = CallId(self.n_calls);
        self.n_calls += 1;
        effects.push(Effect::Call { call, request });
        call
    }

    pub(super) fn beat_now(&mut self, now_ms: u64) {
        if let Beat::Due { .. } = self.beat {
            self.beat = Beat::Due { at_ms: now_ms };
        }
    }

    /// Sends what is due of reports, ends and what goes back, as long as the leases are known to live.
    pub(super) fn send(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
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
    pub(super) fn beat(
        &mut self,
        registration: &Registration,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
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
    pub(super) fn ask(
        &mut self,
        registration: &Registration,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) {
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
    pub(super) fn leave(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
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
