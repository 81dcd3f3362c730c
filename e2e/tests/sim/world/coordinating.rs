//! What happens to coordinators: requests, handlers that go on, ticks, rounds, leads, deaths.

use coordinator::store::read::ReadStore as _;
use coordinator::store::{Store as _, StoreError};
use proto::v1::{NextRequest, NextResponse};
use tonic::Status;

use super::{Happening, IDLE_MS, World};
use crate::coordinator::{Answered, Asked, Outcome, ReplyTo, Waiting};
use crate::network::Place;

/// The store's invariants are checked after so many handlers.
const CHECK_EVERY: u64 = 40;

/// How long an open poll waits before it looks again for an assignment that was lost.
const REDELIVERY_MS: u64 = 1_000;

impl World {
    pub(super) fn start_coordinator(&mut self, coordinator: usize) {
        if self.coordinators[coordinator].is_up() {
            return;
        }
        let (seed, now_ms) = (self.scenario.seed, self.now_ms);
        let process = &mut self.coordinators[coordinator];
        process.start(&self.runtime, &self.config, &self.artifacts, (seed, now_ms));
        let life = process.life;
        self.dying[coordinator] = None;
        self.reconciling[coordinator] = false;
        self.after(0, Happening::Leads { coordinator, life });
        self.after(REDELIVERY_MS, Happening::Redelivers { coordinator, life });
    }

    pub(super) fn kill_coordinator(&mut self, coordinator: usize, away_ms: u64) {
        self.note(1);
        self.coordinators[coordinator].kill(&self.runtime);
        self.dying[coordinator] = None;
        self.user.coordinator_died(coordinator);
        self.after(away_ms, Happening::CoordinatorStarts { coordinator });
    }

    pub(super) fn arrives(&mut self, coordinator: usize, to: ReplyTo, asked: Asked) {
        self.coordinators[coordinator].set_clock(self.now_ms);
        let token = match &asked {
            Asked::Report(report) => Some(report.lease_token),
            Asked::Finish(finish) => Some(finish.lease_token),
            _ => None,
        };
        let over_as = token.and_then(|token| self.over_as(coordinator, token));
        match self.coordinators[coordinator].take(to, asked, self.now_ms) {
            Some(task) => {
                let life = self.coordinators[coordinator].life;
                if token.is_some() {
                    self.arrived.insert((coordinator, life, task), (self.now_ms, over_as));
                }
                self.resume(coordinator, task);
            }
            // The connection is refused.
            None => self.reply(coordinator, to, &Err(Status::unavailable("nobody is there"))),
        }
    }

    /// How the store has ended a right, if it has.
    fn over_as(&self, coordinator: usize, token: u64) -> Option<String> {
        let app = self.coordinators[coordinator].app.as_ref()?;
        let live = self.runtime.block_on(app.store.live_leases()).ok()?;
        if live.iter().any(|lease| lease.token.0 == token) {
            return None;
        }
        let snapshot = self.runtime.block_on(app.store.snapshot()).ok()?;
        let attempt = snapshot.attempts.into_iter().find(|attempt| attempt.token == token)?;
        attempt.ended_as
    }

    pub(super) fn reply(
        &mut self,
        coordinator: usize,
        to: ReplyTo,
        answer: &Result<Answered, Status>,
    ) {
        let (from, back) = (Place::Coordinator(coordinator), Place::Worker(to.worker));
        for ms in self.network.arrivals((from, back), false, self.now_ms) {
            self.after(ms, Happening::Replies { to, answer: Box::new(answer.clone()) });
        }
    }

    /// Runs a handler up to its next wait.
    pub(super) fn resume(&mut self, coordinator: usize, task: u64) {
        self.coordinators[coordinator].set_clock(self.now_ms);
        let life = self.coordinators[coordinator].life;
        match self.coordinators[coordinator].resume(&self.runtime, task) {
            None => {
                // What others do meanwhile is what the seed explores.
                let ms = if self.chance.permille(20) {
                    self.chance.below(400)
                } else {
                    self.chance.below(3)
                };
                self.after(ms, Happening::Resumes { coordinator, life, task });
            }
            Some(outcome) => {
                self.n_handlers += 1;
                self.come_to(coordinator, task, outcome);
            }
        }
        self.settle(coordinator);
    }

    pub(super) fn come_to(&mut self, coordinator: usize, task: u64, outcome: Outcome) {
        let life = self.coordinators[coordinator].life;
        match outcome {
            Outcome::Answered { to, asked, answer } => {
                let key = (coordinator, life, task);
                let arrived = self.arrived.remove(&key).unwrap_or((self.now_ms, None));
                self.remember(&asked, &answer, arrived);
                self.reply(coordinator, to, &answer);
            }
            Outcome::Looked { poll, answer } => self.looked(coordinator, poll, answer),
            Outcome::Ticked(granted) => {
                self.coordinators[coordinator].is_ticking = false;
                if let Err(error) = &granted {
                    self.failed("dispatch", error);
                }
                if granted.is_ok_and(|n| n > 0) {
                    self.tick(coordinator);
                }
            }
            Outcome::Reconciled(done) => {
                if let Err(error) = &done {
                    self.failed("reconcile", error);
                }
                self.reconciling[coordinator] = false;
                let pause_ms = (self.scenario.lease_term_ms / 10).clamp(20, 500);
                self.after(pause_ms, Happening::Reconciles { coordinator, life });
            }
            Outcome::Led(Ok(true)) => {
                self.coordinators[coordinator].is_leading_on = true;
                self.after(0, Happening::Ticks { coordinator, life });
                self.after(1, Happening::Reconciles { coordinator, life });
            }
            Outcome::Led(_) => self.after(IDLE_MS, Happening::Leads { coordinator, life }),
            Outcome::Told { deed, status, body } => {
                self.note(u64::from(status));
                self.user.answered(deed, status, &body, self.now_ms);
                self.after(1, Happening::UserActs);
            }
        }
    }

    /// Losing the database is no mistake, anything else is.
    pub(super) fn failed(&mut self, what: &'static str, error: &StoreError) {
        let is_lost = matches!(
            error,
            StoreError::ConnectionLost(_)
                | StoreError::NotLeading
                | StoreError::Closed
                | StoreError::Commit { .. }
        );
        if !is_lost {
            self.history.violate("nothing is a bug", format!("{what}: {error:?}"));
        }
    }

    pub(super) fn remember(
        &mut self,
        asked: &Asked,
        answer: &Result<Answered, Status>,
        (arrived_ms, over_as): (u64, Option<String>),
    ) {
        match (asked, answer) {
            (Asked::Heartbeat(asked), Ok(Answered::Heartbeat(answer)))
                if !answer.is_unknown_worker =>
            {
                let term_ms = self.scenario.lease_term_ms;
                self.history.renewed(asked, answer, term_ms, self.now_ms);
            }
            (Asked::Report(asked), Ok(Answered::Reported(answer))) => {
                self.note(asked.lease_token << 1 | u64::from(answer.stale));
                self.history.reported(asked, answer.stale, over_as.is_some(), arrived_ms);
            }
            (Asked::Finish(asked), Ok(Answered::Finished(answer))) => {
                self.note(asked.lease_token << 2 | u64::from(answer.stale));
                self.history.finished(asked, answer.stale, over_as.as_deref());
            }
            (_, Err(status)) if status.code() == tonic::Code::Internal => {
                let found = format!("{asked:?}: {status}");
                self.history.violate("nothing is a bug", found);
            }
            _ => {}
        }
    }

    pub(super) fn looked(
        &mut self,
        coordinator: usize,
        poll: Waiting,
        answer: Result<Option<NextResponse>, Status>,
    ) {
        let to = poll.to;
        match answer {
            Ok(Some(response)) => {
                drop(poll);
                for given in &response.assignments {
                    self.note(given.lease_token << 3);
                    self.history.assigned(given, to.worker, self.now_ms);
                }
                self.reply(coordinator, to, &Ok(Answered::Next(response)));
            }
            Ok(None) if poll.until_ms <= self.now_ms => {
                drop(poll);
                self.reply(coordinator, to, &Ok(Answered::Next(NextResponse::default())));
            }
            Ok(None) => self.coordinators[coordinator].waiting.push(poll),
            Err(status) => {
                drop(poll);
                self.remember(
                    &Asked::Next(NextRequest::default()),
                    &Err(status.clone()),
                    (0, None),
                );
                self.reply(coordinator, to, &Err(status));
            }
        }
    }

    /// What a handler set off: polls that were woken, a nudged dispatcher, a session that broke.
    pub(super) fn settle(&mut self, coordinator: usize) {
        let life = self.coordinators[coordinator].life;
        if !self.coordinators[coordinator].session.is_on()
            && let Some(away_ms) = self.dying[coordinator]
        {
            // What it has in hand may still leave it.
            let after_ms = self.chance.below(30);
            self.after(after_ms, Happening::CoordinatorDies { coordinator, life, away_ms });
        }
        for waiting in self.coordinators[coordinator].woken() {
            let task = self.coordinators[coordinator].look(waiting);
            self.after(0, Happening::Resumes { coordinator, life, task });
        }
        if self.coordinators[coordinator].is_nudged() {
            self.tick(coordinator);
        }
        let process = &self.coordinators[coordinator];
        let leads = process.app.as_ref().is_some_and(|app| app.store.is_leading());
        if process.is_leading_on && !leads {
            self.coordinators[coordinator].is_leading_on = false;
            self.after(1, Happening::Leads { coordinator, life });
        }
        if self.n_handlers.is_multiple_of(CHECK_EVERY) {
            self.n_handlers += 1;
            self.check_invariants(coordinator);
        }
    }

    pub(super) fn tick(&mut self, coordinator: usize) {
        let process = &mut self.coordinators[coordinator];
        if process.is_ticking || !process.is_leading_on {
            return;
        }
        if let Some(task) = process.tick() {
            process.is_ticking = true;
            let life = process.life;
            self.after(0, Happening::Resumes { coordinator, life, task });
        }
    }

    pub(super) fn reconcile(&mut self, coordinator: usize, life: u64) {
        if !self.is_life(coordinator, life) || self.reconciling[coordinator] {
            return;
        }
        let process = &mut self.coordinators[coordinator];
        if process.is_leading_on
            && let Some(task) = process.reconcile()
        {
            self.reconciling[coordinator] = true;
            self.resume(coordinator, task);
        }
    }

    /// As the real loop does, a lead begins when the loops of the one before have ended.
    pub(super) fn lead(&mut self, coordinator: usize, life: u64) {
        if !self.is_life(coordinator, life) || self.coordinators[coordinator].is_leading_on {
            return;
        }
        if self.coordinators[coordinator].is_ticking || self.reconciling[coordinator] {
            self.after(1, Happening::Leads { coordinator, life });
        } else if let Some(task) = self.coordinators[coordinator].lead() {
            self.resume(coordinator, task);
        }
    }

    /// Open polls look again now and then, and end when their time is up.
    pub(super) fn redeliver(&mut self, coordinator: usize, life: u64) {
        if !self.is_life(coordinator, life) {
            return;
        }
        self.coordinators[coordinator].set_clock(self.now_ms);
        for waiting in std::mem::take(&mut self.coordinators[coordinator].waiting) {
            let task = self.coordinators[coordinator].look(waiting);
            self.after(0, Happening::Resumes { coordinator, life, task });
        }
        self.after(REDELIVERY_MS, Happening::Redelivers { coordinator, life });
    }
}
