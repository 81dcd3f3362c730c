//! What lies ready for one worker, and whether it waits at the counter.
//!
//! An assignment stays here until the worker mentions its token, in a heartbeat, a report or the
//! end. One whose answer was lost on the way is handed over again by a later poll; one that the
//! worker never takes runs out. The token is the same each time, so it can never run twice: a
//! worker that has it already passes it over, and after the expiry it is worth nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::ids::LeaseToken;
use domain::worker::{WorkerEvent, WorkerState, WorkerTransition};
use tokio::sync::Notify;

use super::Wake;
use crate::scheduler::fit::Machine;

/// So many directives wait at most: beyond it the heartbeat's answer says the same.
const MAX_DIRECTIVES: usize = 1000;

/// Something that a worker is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directive {
    /// Stop the attempt of this token; its right is gone.
    Stop {
        /// The right that ended.
        token: LeaseToken,
    },
    /// Write a checkpoint, then end the attempt of this token as preempted.
    Preempt {
        /// The right that is wanted back.
        token: LeaseToken,
    },
    /// Take nothing more; leave when all attempts are over.
    Drain,
}

/// What an open poll is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mail {
    /// What to do.
    pub directives: Vec<Directive>,
    /// The assignments to hand over.
    pub tokens: Vec<LeaseToken>,
}

impl Mail {
    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.directives.is_empty() && self.tokens.is_empty()
    }
}

/// An open poll of one worker.
#[derive(Debug, Clone)]
pub struct Poll {
    number: u64,
    wake: Wake,
}

impl Poll {
    /// Waits until there may be mail. A call that came before the mail is woken too.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// What is known of an assignment on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// It was never handed over.
    Ready,
    /// It was handed over at this time and not mentioned since.
    HandedOver { at_ms: u64 },
}

#[derive(Debug)]
pub(super) struct Post {
    machine: Machine,
    state: WorkerState,
    last_seen_ms: u64,
    has_news: bool,
    n_polls: u64,
    /// The free slots that the open poll named, less what was granted since.
    open: Option<(Poll, u32)>,
    deliveries: BTreeMap<LeaseToken, Delivery>,
    directives: Vec<Directive>,
    /// The rights that are wanted back, and when their holder was last told.
    preempted: BTreeMap<LeaseToken, u64>,
    /// When it was last told to drain.
    drained_ms: Option<u64>,
    /// Since when the fewest slots that are neither leased nor free are counted, and how many.
    counted: (u64, u32),
    /// How many were so all the time of the last whole count.
    n_silent: u32,
}

impl Post {
    pub(super) fn new(machine: Machine, state: WorkerState, now_ms: u64) -> Self {
        Self {
            machine,
            state,
            last_seen_ms: now_ms,
            has_news: false,
            n_polls: 0,
            open: None,
            deliveries: BTreeMap::new(),
            directives: Vec::new(),
            preempted: BTreeMap::new(),
            drained_ms: None,
            counted: (now_ms, u32::MAX),
            n_silent: 0,
        }
    }

    pub(super) fn register_again(&mut self, machine: Machine, now_ms: u64) {
        self.machine = machine;
        self.move_on(WorkerEvent::Registered);
        self.seen(now_ms);
    }

    /// The worker's state after what the store has recorded.
    pub(super) fn move_on(&mut self, event: WorkerEvent) {
        if let WorkerTransition::To(state) = self.state.on(event) {
            self.state = state;
        }
    }

    /// Whether its poll is open, as it is all the time once it has confirmed; its end closes it at
    /// once. One that joins has none yet.
    pub(super) fn is_connected(&self, now_ms: u64, joins_within_ms: u64) -> bool {
        let is_joining = self.state == WorkerState::Joining;
        self.open.is_some() || is_joining && now_ms < self.last_seen_ms + joins_within_ms
    }

    pub(super) fn takes_work(&self) -> bool {
        self.state == WorkerState::Active
    }

    pub(super) fn state(&self) -> WorkerState {
        self.state
    }

    pub(super) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What may be granted now: what the open poll said, and never more than the worker has beside
    /// its live leases.
    pub(super) fn n_free_slots(&self, n_held: u32) -> u32 {
        match &self.open {
            Some((_, n_free)) => (*n_free).min(self.machine.n_slots.saturating_sub(n_held)),
            None => 0,
        }
    }

    /// How many slots were neither leased nor free for so long. To be asked often.
    pub(super) fn n_silent_slots(&mut self, n_held: u32, now_ms: u64, after_ms: u64) -> u32 {
        let n_idle = self.machine.n_slots.saturating_sub(n_held);
        let n_idle = n_idle.saturating_sub(self.n_free_slots(n_held));
        let (since_ms, fewest) = self.counted;
        let fewest = fewest.min(n_idle);
        self.n_silent = self.n_silent.min(n_idle);
        self.counted = (since_ms, fewest);
        if now_ms >= since_ms + after_ms {
            self.n_silent = fewest;
            self.counted = (now_ms, n_idle);
        }
        self.n_silent
    }

    /// As it was counted last.
    pub(super) fn silent_slots(&self) -> u32 {
        self.n_silent
    }

    pub(super) fn seen(&mut self, now_ms: u64) {
        self.last_seen_ms = self.last_seen_ms.max(now_ms);
        self.has_news = true;
    }

    /// Nobody was listening until now: no silence is held against it.
    pub(super) fn excuse(&mut self, now_ms: u64) {
        self.last_seen_ms = self.last_seen_ms.max(now_ms);
        self.counted = (now_ms, u32::MAX);
    }

    pub(super) fn last_seen_ms(&self) -> u64 {
        self.last_seen_ms
    }

    pub(super) fn take_seen(&mut self) -> Option<u64> {
        std::mem::take(&mut self.has_news).then_some(self.last_seen_ms)
    }

    pub(super) fn open_poll(&mut self, n_free_slots: u32, now_ms: u64) -> Poll {
        self.seen(now_ms);
        // The older poll finds that it is no longer the open one.
        self.wake();
        self.n_polls += 1;
        let poll = Poll { number: self.n_polls, wake: Arc::new(Notify::new()) };
        self.open = Some((poll.clone(), n_free_slots));
        poll
    }

    pub(super) fn close_poll(&mut self, poll: &Poll) {
        if self.is_open(poll) {
            self.open = None;
        }
    }

    fn is_open(&self, poll: &Poll) -> bool {
        self.open.as_ref().is_some_and(|(open, _)| open.number == poll.number)
    }

    pub(super) fn wake(&self) {
        if let Some((poll, _)) = &self.open {
            poll.wake.notify_one();
        }
    }

    /// Puts a new assignment down; it takes one of the poll's free slots.
    pub(super) fn deliver(&mut self, token: LeaseToken) {
        self.deliveries.insert(token, Delivery::Ready);
        if let Some((_, n_free)) = &mut self.open {
            *n_free = n_free.saturating_sub(1);
        }
        self.wake();
    }

    /// An assignment that an earlier leader granted: the worker probably has it.
    pub(super) fn expect_mention(&mut self, token: LeaseToken, now_ms: u64) {
        self.deliveries.insert(token, Delivery::HandedOver { at_ms: now_ms });
    }

    /// The worker has the assignment, or nobody needs to have it any more.
    pub(super) fn mentioned(&mut self, token: LeaseToken) {
        self.deliveries.remove(&token);
    }

    pub(super) fn direct(&mut self, directive: Directive) {
        if self.directives.len() < MAX_DIRECTIVES && !self.directives.contains(&directive) {
            self.directives.push(directive);
        }
        self.wake();
    }

    /// Wants a right back, unless its holder was told so a moment ago.
    pub(super) fn preempt(&mut self, token: LeaseToken, now_ms: u64, repeat_after_ms: u64) {
        let told_ms = self.preempted.get(&token);
        if told_ms.is_none_or(|told_ms| now_ms >= told_ms + repeat_after_ms) {
            self.preempted.insert(token, now_ms);
            self.direct(Directive::Preempt { token });
        }
    }

    /// The right is gone.
    pub(super) fn ended(&mut self, token: LeaseToken) {
        self.mentioned(token);
        self.preempted.remove(&token);
    }

    /// When the first of what was handed over falls due again.
    pub(super) fn mail_due_ms(&self, redeliver_after_ms: u64) -> Option<u64> {
        let handed_over = self.deliveries.values().map(|delivery| match *delivery {
            Delivery::Ready => 0,
            Delivery::HandedOver { at_ms } => at_ms + redeliver_after_ms,
        });
        let is_draining = self.state == WorkerState::Draining;
        let drained = self.drained_ms.filter(|_| is_draining).map(|ms| ms + redeliver_after_ms);
        handed_over.chain(drained).min()
    }

    /// What is handed over, and the tokens of it that are for the first time.
    pub(super) fn take_mail(
        &mut self,
        poll: &Poll,
        now_ms: u64,
        redeliver_after_ms: u64,
    ) -> Option<(Mail, Vec<LeaseToken>)> {
        if !self.is_open(poll) {
            return None;
        }
        let mut mail =
            Mail { directives: std::mem::take(&mut self.directives), tokens: Vec::new() };
        let is_due = |told_ms: u64| now_ms >= told_ms + redeliver_after_ms;
        if self.state == WorkerState::Draining && self.drained_ms.is_none_or(is_due) {
            // Told again until it has left: an answer may be lost, and a leader may change.
            self.drained_ms = Some(now_ms);
            mail.directives.push(Directive::Drain);
        }
        let mut first = Vec::new();
        for (token, delivery) in &mut self.deliveries {
            let is_due = match *delivery {
                Delivery::Ready => {
                    first.push(*token);
                    true
                }
                Delivery::HandedOver { at_ms } => now_ms >= at_ms + redeliver_after_ms,
            };
            if is_due {
                *delivery = Delivery::HandedOver { at_ms: now_ms };
                mail.tokens.push(*token);
            }
        }
        Some((mail, first))
    }
}
