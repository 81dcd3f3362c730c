//! What only the leader remembers: renewals of leases, who waits for work, and what was not yet
//! delivered. All of it can be lost: a starting leader builds it from the store.
//!
//! It writes nothing durable. Time is an argument of the inner state; only the outside reads it.

mod backoffs;
mod post;
mod scheduling;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::ids::{LeaseToken, RunId, WorkId, WorkerId};
use domain::lease::{LeaseTable, Renewal};
use domain::planted::{Mistake, is_planted};
use domain::worker::{WorkerEvent, WorkerState};
use tokio::sync::Notify;

use self::backoffs::Backoffs;
use self::post::Post;
pub use self::post::{Directive, Mail, Poll};
pub use self::scheduling::NextPage;
use crate::clock::Clock;
use crate::scheduler::explain::Seat;
use crate::scheduler::fit::Machine;
use crate::scheduler::policy::{FreeWorker, LetPass};
use crate::scheduler::seats::Reservation;
use crate::scheduler::turns::Turns;
use crate::store::{Backoff, Granted, LiveLease, WorkerRecord};

/// A worker that was silent for so many lease terms is lost: its leases are gone by then.
const TERMS_UNTIL_LOST: u64 = 2;

/// How long an attempt that is to leave may take for its step and its checkpoint; then its agent
/// ends it, and what it did since the last checkpoint is done again.
pub const PREEMPT_DEADLINE_MS: u64 = 60_000;

/// Live pages are told of new points of one run at most this often.
const POINTS_INTERVAL_MS: u64 = 500;

/// Runs whose last announcement is remembered; beyond that the oldest memory is dropped.
const MAX_ANNOUNCED: usize = 10_000;

/// The leader's memory. Every method is short and none waits.
#[derive(Debug)]
pub struct Leader {
    clock: Clock,
    term_ms: u64,
    redeliver_after_ms: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Whether it knows what an earlier leader left; before that it must answer no worker.
    has_taken_over: bool,
    leases: LeaseTable,
    posts: BTreeMap<WorkerId, Post>,
    announced: HashMap<RunId, u64>,
    /// Since when what backs off was seen here.
    backoffs: Backoffs,
    /// When somebody last looked at the clock, and how soon he meant to look again.
    looked: Option<(u64, u64)>,
    /// When the holders of held work are told again.
    repeat_at_ms: u64,
    /// When the workers' last signs of life are written down again.
    record_seen_at_ms: u64,
    /// Whether something may be queued.
    may_have_queued: bool,
    /// Whose turn it is.
    turns: Turns,
    /// The page from which the next look behind the head of the queue reads, and when it may.
    next_page: (u32, u64),
    /// What is kept for the gang that waits first.
    kept: Option<Reservation>,
    /// What went before the gang that was kept something last.
    let_pass: Option<LetPass>,
}

/// Where work may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seats {
    /// The workers that wait with free slots.
    pub free: Vec<FreeWorker>,
    /// Every live worker.
    pub live: Vec<(WorkerId, Machine)>,
    /// Slots that are neither leased nor free since a lease term: their trainers do not start.
    pub silent: BTreeMap<WorkerId, u32>,
}

/// What the agent is told about its leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewals {
    /// Those that are not live.
    pub stale: Vec<LeaseToken>,
    /// Those of which nobody knows: the store is being told that they ran out.
    pub ending: Vec<LeaseToken>,
}

impl Inner {
    fn empty(term_ms: u64) -> Self {
        Self {
            has_taken_over: false,
            leases: LeaseTable::new(term_ms),
            posts: BTreeMap::new(),
            announced: HashMap::new(),
            backoffs: Backoffs::default(),
            looked: None,
            repeat_at_ms: 0,
            record_seen_at_ms: 0,
            may_have_queued: true,
            turns: Turns::default(),
            next_page: (0, 0),
            kept: None,
            let_pass: None,
        }
    }

    /// Whether the process stood still, by SIGSTOP or with its machine: much longer than the pause
    /// between two looks nobody looked. It heard no heartbeat meanwhile, so that all have one full term
    /// from now, as under a new leader.
    fn allow_for_standstill(&mut self, now_ms: u64, term_ms: u64) {
        let Some((looked_ms, pause_ms)) = self.looked else { return };
        let stood_ms = now_ms.saturating_sub(looked_ms.saturating_add(pause_ms));
        if stood_ms > term_ms / 2 {
            tracing::warn!(stood_ms, "this coordinator stood still; every lease gets a full term");
            self.leases.extend_all(now_ms);
            self.posts.values_mut().for_each(|post| post.excuse(now_ms));
        }
        self.looked = Some((now_ms, pause_ms));
    }
}

impl Leader {
    /// An empty memory. An assignment that its worker never mentions is sent again after
    /// `redeliver_after_ms`.
    pub fn new(clock: Clock, term_ms: u64, redeliver_after_ms: u64) -> Self {
        let inner = Mutex::new(Inner::empty(term_ms));
        Self { clock, term_ms, redeliver_after_ms, inner }
    }

    /// Takes over what an earlier leader left: each lease gets one full term, and counts as
    /// delivered unless its worker does not mention it for a while.
    pub fn take_over(&self, workers: Vec<WorkerRecord>, leases: Vec<LiveLease>) {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        *inner = Inner::empty(self.term_ms);
        for record in workers {
            let post = Post::new(record.machine, record.state, now_ms);
            inner.posts.insert(record.worker, post);
        }
        for lease in leases {
            if is_planted(Mistake::LeasesForgottenByTakeOver) {
                continue;
            }
            if let Some(post) = inner.posts.get_mut(&lease.worker) {
                post.expect_mention(lease.token, now_ms);
            }
            inner.leases.insert(lease.token, lease.work, lease.worker, now_ms);
        }
        inner.has_taken_over = true;
    }

    /// Whether this coordinator leads and knows what there is. A standby that answered a heartbeat
    /// from its empty memory would end every attempt of the worker.
    pub fn has_taken_over(&self) -> bool {
        self.lock().has_taken_over
    }

    /// Forgets everything: another coordinator leads. Open polls end.
    pub fn step_down(&self) {
        let mut inner = self.lock();
        inner.posts.values().for_each(Post::wake);
        *inner = Inner::empty(self.term_ms);
    }

    /// Enters a worker that registered, or refreshes what is known of it.
    pub fn enter(&self, worker: &WorkerId, machine: Machine) {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        if let Some(post) = inner.posts.get_mut(worker) {
            post.register_again(machine, now_ms);
        } else {
            let post = Post::new(machine, WorkerState::Joining, now_ms);
            inner.posts.insert(worker.clone(), post);
        }
    }

    /// The worker may be given work. False when it is not known.
    pub fn activate(&self, worker: &WorkerId) -> bool {
        self.with_post(worker, |post, now_ms| {
            post.seen(now_ms);
            post.move_on(WorkerEvent::Confirmed);
        })
    }

    /// The worker is given nothing more and is told so. False when it is not known.
    pub fn drain(&self, worker: &WorkerId) -> bool {
        self.with_post(worker, |post, _| {
            post.move_on(WorkerEvent::DrainRequested);
            post.wake();
        })
    }

    /// The same where the store has it so, unless that is known.
    pub fn drain_as_stored(&self, worker: &WorkerId) {
        self.with_post(worker, |post, _| {
            if post.state() == WorkerState::Active {
                post.move_on(WorkerEvent::DrainRequested);
                post.wake();
            }
        });
    }

    /// The worker is not there any more.
    pub fn leave(&self, worker: &WorkerId) {
        if let Some(post) = self.lock().posts.remove(worker) {
            post.wake();
        }
    }

    /// The workers that are at the other end of a connection now, or are about to be.
    pub fn connected(&self) -> Vec<WorkerId> {
        let now_ms = self.clock.monotonic_ms();
        let inner = self.lock();
        let connected =
            inner.posts.iter().filter(|(_, post)| post.is_connected(now_ms, self.term_ms));
        connected.map(|(worker, _)| worker.clone()).collect()
    }

    /// Whether the worker is known.
    pub fn knows(&self, worker: &WorkerId) -> bool {
        self.lock().posts.contains_key(worker)
    }

    /// A worker opens its poll, which ends an older one of its own. None when it is not known.
    pub fn open_poll(&self, worker: &WorkerId, n_free_slots: u32) -> Option<Poll> {
        let now_ms = self.clock.monotonic_ms();
        self.lock().posts.get_mut(worker).map(|post| post.open_poll(n_free_slots, now_ms))
    }

    /// The poll is over; a newer one of the same worker stays open.
    pub fn close_poll(&self, worker: &WorkerId, poll: &Poll) {
        if let Some(post) = self.lock().posts.get_mut(worker) {
            post.close_poll(poll);
        }
    }

    /// What lies ready for an open poll. None when the poll is over: a newer one took its place,
    /// or the worker is no longer known.
    pub fn take_mail(&self, worker: &WorkerId, poll: &Poll) -> Option<Mail> {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        let (mail, first) =
            inner.posts.get_mut(worker)?.take_mail(poll, now_ms, self.redeliver_after_ms)?;
        // What is handed over lives for a full term from here; what is handed over again does not, so
        // that one which never arrives runs out.
        for token in first {
            inner.leases.renew(token, worker, now_ms);
        }
        Some(mail)
    }

    /// How soon something that was handed over falls due again, if nothing is heard of it until then.
    pub fn mail_due_in(&self, worker: &WorkerId) -> Option<Duration> {
        let now_ms = self.clock.monotonic_ms();
        let due_ms = self.lock().posts.get(worker)?.mail_due_ms(self.redeliver_after_ms)?;
        Some(Duration::from_millis(due_ms.saturating_sub(now_ms)))
    }

    /// The workers that wait with free slots, what every live machine can do, and how many slots of
    /// each have not asked for work for a lease term although nothing is leased to them.
    pub fn seats(&self) -> Seats {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        let Inner { posts, leases, .. } = &mut *inner;
        let mut free = Vec::new();
        let mut live = Vec::new();
        let mut silent = BTreeMap::new();
        for (worker, post) in posts {
            if !post.takes_work() {
                continue;
            }
            live.push((worker.clone(), post.machine().clone()));
            let n_held = u32::try_from(leases.n_held_by(worker)).unwrap_or(u32::MAX);
            let n_free_slots = post.n_free_slots(n_held);
            let n_silent = post.n_silent_slots(n_held, now_ms, self.term_ms);
            if n_silent > 0 {
                silent.insert(worker.clone(), n_silent);
            }
            if n_free_slots > 0 {
                let machine = post.machine().clone();
                free.push(FreeWorker { worker: worker.clone(), n_free_slots, machine });
            }
        }
        Seats { free, live, silent }
    }

    /// Every worker that is there, for explanations.
    pub fn all_seats(&self) -> Vec<Seat> {
        let inner = self.lock();
        let seat = |(worker, post): (&WorkerId, &Post)| {
            let n_held = u32::try_from(inner.leases.n_held_by(worker)).unwrap_or(u32::MAX);
            Seat {
                worker: worker.clone(),
                state: post.state(),
                n_held,
                n_free_slots: if post.takes_work() { post.n_free_slots(n_held) } else { 0 },
                n_silent_slots: post.silent_slots(),
                machine: post.machine().clone(),
            }
        };
        inner.posts.iter().map(seat).collect()
    }

    /// Enters leases that the store granted and wakes their workers.
    pub fn granted(&self, granted: &[Granted]) {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        for lease in granted {
            inner.leases.insert(lease.token, lease.work.clone(), lease.worker.clone(), now_ms);
            if let Some(post) = inner.posts.get_mut(&lease.worker) {
                post.deliver(lease.token);
            }
            for LiveLease { token, work, worker } in &lease.members {
                inner.leases.insert(*token, work.clone(), worker.clone(), now_ms);
                if let Some(post) = inner.posts.get_mut(worker) {
                    post.deliver(*token);
                }
            }
        }
    }

    /// A heartbeat: renews the leases it names. None when the worker is not known.
    pub fn renew(&self, worker: &WorkerId, tokens: &[LeaseToken]) -> Option<Renewals> {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        inner.posts.get_mut(worker)?.seen(now_ms);
        let (mut stale, mut ending) = (Vec::new(), Vec::new());
        for token in tokens {
            match inner.leases.renew(*token, worker, now_ms) {
                Renewal::Renewed => {}
                Renewal::Ending => ending.push(*token),
                Renewal::Stale if is_planted(Mistake::DeadLeaseRenewed) => {}
                Renewal::Stale => stale.push(*token),
            }
            if let Some(post) = inner.posts.get_mut(worker) {
                post.mentioned(*token);
            }
        }
        Some(Renewals { stale, ending })
    }

    /// A report came under this token: its worker has the assignment, and lives.
    pub fn mentioned(&self, token: LeaseToken) {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        let Some(worker) = inner.leases.get(token).map(|lease| lease.worker.clone()) else {
            return;
        };
        inner.leases.renew(token, &worker, now_ms);
        if let Some(post) = inner.posts.get_mut(&worker) {
            post.mentioned(token);
            post.seen(now_ms);
        }
    }

    /// An attempt is over: its lease is gone.
    pub fn ended(&self, token: LeaseToken) {
        if is_planted(Mistake::SlotForgotten) {
            return;
        }
        let mut inner = self.lock();
        let Some(lease) = inner.leases.remove(token) else {
            return;
        };
        if let WorkId::Run(run) = &lease.work {
            inner.announced.remove(run);
        }
        if let Some(post) = inner.posts.get_mut(&lease.worker) {
            post.ended(token);
        }
    }

    /// Rights that the store ended: their holders are told to stop.
    pub fn revoke(&self, revoked: &[(LeaseToken, WorkerId)]) {
        let mut inner = self.lock();
        for (token, worker) in revoked {
            inner.leases.remove(*token);
            if let Some(post) = inner.posts.get_mut(worker) {
                post.ended(*token);
                post.direct(Directive::Stop { token: *token });
            }
        }
    }

    /// Rights that are wanted back: their holders are told to write a checkpoint and leave. One that
    /// does not within the deadline is ended by its agent.
    /// Telling one again is harmless, and does nothing for a while.
    pub fn preempt(&self, preempted: &[(LeaseToken, WorkerId)]) {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        for (token, worker) in preempted {
            if let Some(post) = inner.posts.get_mut(worker) {
                post.preempt(*token, now_ms, self.redeliver_after_ms);
            }
        }
    }

    /// Looks at the clock, as the caller does again after this pause: that it does not tells that the
    /// process stood still.
    pub fn look_at_clock(&self, pause_ms: u64) {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        inner.allow_for_standstill(now_ms, self.term_ms);
        inner.looked = Some((now_ms, pause_ms));
    }

    /// The leases that ran out, and which the store is about to be told of: from here on no heartbeat
    /// renews them. They stay until it has recorded it.
    pub fn begin_to_end(&self) -> Vec<LeaseToken> {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        inner.allow_for_standstill(now_ms, self.term_ms);
        inner.leases.begin_to_end(now_ms)
    }

    /// The store has answered: of these those live on that are still here.
    pub fn refuse_end(&self, tokens: &[LeaseToken]) {
        self.lock().leases.refuse_end(tokens);
    }

    /// Of what is backing off, that whose pause is over. A pause runs from when this leader first saw
    /// it: the wall clock may jump, and what an earlier leader saw is not known.
    pub fn due_backoffs(&self, found: Vec<Backoff>, is_all: bool) -> Vec<WorkId> {
        let now_ms = self.clock.monotonic_ms();
        self.lock().backoffs.due(found, is_all, now_ms)
    }

    /// How long work still backs off whose pause ends at this time by the wall clock; none where this
    /// leader has not seen it.
    pub fn backoff_left_ms(&self, work: &WorkId, until_ms: i64) -> Option<u64> {
        let now_ms = self.clock.monotonic_ms();
        self.lock().backoffs.left_ms(work, until_ms, now_ms)
    }

    /// The workers that were silent for too long.
    pub fn lost_workers(&self) -> Vec<WorkerId> {
        let now_ms = self.clock.monotonic_ms();
        let silent_since_ms = now_ms.saturating_sub(TERMS_UNTIL_LOST * self.term_ms);
        let mut inner = self.lock();
        inner.allow_for_standstill(now_ms, self.term_ms);
        inner
            .posts
            .iter()
            // The origin of the clock is the start of this leader, which is no silence.
            .filter(|(_, post)| post.last_seen_ms() < silent_since_ms)
            .map(|(worker, _)| worker.clone())
            .collect()
    }

    /// Whether it is time to look for holders of held work: one whose answer was lost is told again
    /// when an assignment would be, and a look costs a statement.
    pub fn is_time_to_repeat(&self) -> bool {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        let is_time = now_ms >= inner.repeat_at_ms;
        if is_time {
            inner.repeat_at_ms = now_ms + self.redeliver_after_ms / 2;
        }
        is_time
    }

    /// Who was heard of since this was last asked, with the wall clock's time; at most once in a
    /// quarter of a lease term, because it is for display and costs a commit.
    pub fn take_seen(&self) -> Vec<(WorkerId, i64)> {
        let (now_ms, wall_ms) = (self.clock.monotonic_ms(), self.clock.wall_ms());
        let mut inner = self.lock();
        if now_ms < inner.record_seen_at_ms {
            return Vec::new();
        }
        inner.record_seen_at_ms = now_ms + self.term_ms / 4;
        let mut seen = Vec::new();
        for (worker, post) in &mut inner.posts {
            if let Some(at_ms) = post.take_seen() {
                let ago_ms = i64::try_from(now_ms.saturating_sub(at_ms)).unwrap_or_default();
                seen.push((worker.clone(), wall_ms - ago_ms));
            }
        }
        seen
    }

    /// Whether live pages should be told that a run has new points: a few times a second at most.
    pub fn may_announce_points(&self, run: &RunId) -> bool {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        if inner.announced.len() >= MAX_ANNOUNCED {
            inner.announced.clear();
        }
        match inner.announced.get(run) {
            Some(last_ms) if now_ms < last_ms + POINTS_INTERVAL_MS => false,
            _ => {
                inner.announced.insert(run.clone(), now_ms);
                true
            }
        }
    }

    /// Every right that is known here, and who holds it.
    pub fn rights(&self) -> Vec<(LeaseToken, WorkerId)> {
        self.lock().leases.rights()
    }

    /// How many leases are live.
    pub fn n_leases(&self) -> usize {
        self.lock().leases.len()
    }

    fn with_post(&self, worker: &WorkerId, change: impl FnOnce(&mut Post, u64)) -> bool {
        let now_ms = self.clock.monotonic_ms();
        let mut inner = self.lock();
        inner.posts.get_mut(worker).map(|post| change(post, now_ms)).is_some()
    }

    /// A panic of another thread leaves no half-made change here: every method changes one entry
    /// after the other, and each entry is whole.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What wakes an open poll.
type Wake = Arc<Notify>;

#[cfg(test)]
mod tests;
