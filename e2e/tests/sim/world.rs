//! The simulated world: one queue of what happens when, and everything that happens.
//!
//! One seed decides all of it. Whatever two simulations of a seed do, they do alike.

use std::collections::BTreeMap;

use coordinator::artifacts::Artifacts;
use coordinator::config::Config;
use coordinator::store::memory::Memory;
use coordinator::store::{Store as _, StoreError};
use domain::attempt::AttemptEnd;
use domain::ids::WorkerId;
use tokio::runtime::Runtime;
use tonic::Status;
use worker::agent::core::Input;

use crate::chance::Chance;
use crate::coordinator::{Answered, Asked, Coordinator, Outcome, ReplyTo, Waiting};
use crate::disk::Disk;
use crate::history::History;
use crate::network::{Network, Place, Quality};
use crate::scenario::{Fault, Scenario};
use crate::user::User;
use crate::worker::{Doing, Worker};

/// How long the dispatcher and the standby wait without being woken, as the real ones do.
const IDLE_MS: u64 = 1_000;

/// How long an open poll waits before it looks again for an assignment that was lost.
const REDELIVERY_MS: u64 = 1_000;

/// The store's invariants are checked after so many handlers.
const CHECK_EVERY: u64 = 40;

/// A coordinator that is to die at a statement dies without one after this time.
const KILL_ANYHOW_MS: u64 = 3_000;

/// How long after the storm everything must be over.
const PATIENCE_MS: u64 = 1_800_000;

/// Something that happens.
enum Happening {
    Arrives { coordinator: usize, to: ReplyTo, asked: Box<Asked> },
    HangsUp { coordinator: usize, to: ReplyTo },
    Replies { to: ReplyTo, answer: Box<Result<Answered, Status>> },
    Resumes { coordinator: usize, life: u64, task: u64 },
    Ticks { coordinator: usize, life: u64 },
    Reconciles { coordinator: usize, life: u64 },
    Leads { coordinator: usize, life: u64 },
    Redelivers { coordinator: usize, life: u64 },
    CoordinatorStarts { coordinator: usize },
    CoordinatorDies { coordinator: usize, life: u64, away_ms: u64 },
    SessionOpens { coordinator: usize },
    WorkerDue { worker: usize, life: u64, at_ms: u64 },
    WorkerStarts { worker: usize },
    WorkerStops { worker: usize, life: u64 },
    Drives { worker: usize, life: u64, slot: usize, trainer_life: u64 },
    Strikes(Fault),
    WayOpens { worker: usize, coordinator: usize },
    NetworkHeals,
    Calms,
    UserActs,
    Looks,
}

/// What a simulation came to.
#[derive(Debug)]
pub(crate) struct Ending {
    pub(crate) violations: Vec<crate::history::Violation>,
    pub(crate) simulated_ms: u64,
    pub(crate) n_happenings: u64,
    pub(crate) n_accepted: u64,
    pub(crate) n_stale: u64,
    /// Equal for two simulations that did the same.
    pub(crate) digest: u64,
}

pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) now_ms: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    n_queued: u64,
    chance: Chance,
    pub(crate) runtime: Runtime,
    config: Config,
    artifacts: Artifacts,
    disk: Disk,
    network: Network,
    pub(crate) coordinators: Vec<Coordinator>,
    /// When a coordinator's process dies with its session, for how long.
    dying: Vec<Option<u64>>,
    pub(crate) workers: Vec<Worker>,
    worker_due_ms: Vec<Option<u64>>,
    trainer_due_ms: BTreeMap<(usize, usize), u64>,
    /// Of handlers of reports and ends: when they came, and whether under a right that was over.
    arrived: BTreeMap<(usize, u64, u64), (u64, bool)>,
    reconciling: Vec<bool>,
    pub(crate) history: History,
    pub(crate) user: User,
    is_calm: bool,
    n_happenings: u64,
    n_handlers: u64,
    digest: u64,
    is_over: bool,
    /// Since when nothing has been left to do.
    quiet_since_ms: Option<u64>,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let (seed, n_coordinators) = (scenario.seed, scenario.n_coordinators);
        let mut config = Config::for_directory(std::path::Path::new(""));
        config.lease_term_ms = scenario.lease_term_ms;
        let memory = Memory::new();
        let coordinators = (0..n_coordinators).map(|i| Coordinator::new(i, &memory)).collect();
        let workers: Vec<Worker> = (scenario.slots.iter().enumerate())
            .map(|(index, n_slots)| Worker::new(index, *n_slots, n_coordinators))
            .collect();
        let mut world = Self {
            now_ms: 0,
            queue: BTreeMap::new(),
            n_queued: 0,
            chance: Chance::new(seed, 1),
            runtime: runtime.expect("a runtime"),
            config,
            artifacts: Artifacts::in_memory(),
            disk: Disk::default(),
            network: Network::new(Chance::new(seed, 2)),
            coordinators,
            dying: vec![None; n_coordinators],
            worker_due_ms: vec![None; workers.len()],
            workers,
            trainer_due_ms: BTreeMap::new(),
            arrived: BTreeMap::new(),
            reconciling: vec![false; n_coordinators],
            history: History::default(),
            user: User::new(&scenario),
            is_calm: false,
            n_happenings: 0,
            n_handlers: 0,
            digest: 0,
            is_over: false,
            quiet_since_ms: None,
            scenario,
        };
        world.prepare();
        world
    }

    fn prepare(&mut self) {
        for coordinator in 0..self.coordinators.len() {
            self.after(coordinator as u64, Happening::CoordinatorStarts { coordinator });
        }
        for worker in 0..self.workers.len() {
            let after_ms = self.chance.between(1, 2_000);
            self.after(after_ms, Happening::WorkerStarts { worker });
        }
        for (at_ms, fault) in self.scenario.faults.clone() {
            self.after(at_ms, Happening::Strikes(fault));
        }
        self.after(self.scenario.calm_ms, Happening::Calms);
        self.after(10, Happening::UserActs);
        self.after(5_000, Happening::Looks);
    }

    fn after(&mut self, ms: u64, happening: Happening) {
        self.n_queued += 1;
        self.queue.insert((self.now_ms + ms, self.n_queued), happening);
    }

    /// Lets everything happen, to the end.
    pub(crate) fn run(mut self) -> Ending {
        let deadline_ms = self.scenario.calm_ms + PATIENCE_MS;
        while let Some(((at_ms, _), happening)) = self.queue.pop_first() {
            self.now_ms = at_ms;
            self.n_happenings += 1;
            self.happen(happening);
            if self.is_over || !self.history.violations.is_empty() {
                break;
            }
            if at_ms > deadline_ms {
                let found = self.describe_unfinished();
                self.history.violate("everything ends", found);
                break;
            }
        }
        let history = std::mem::take(&mut self.history);
        let ending = Ending {
            violations: history.violations,
            simulated_ms: self.now_ms,
            n_happenings: self.n_happenings,
            n_accepted: history.n_accepted,
            n_stale: history.n_stale,
            digest: self.digest,
        };
        for coordinator in &mut self.coordinators {
            coordinator.kill(&self.runtime);
        }
        ending
    }

    /// Mixes what happened into the digest.
    fn note(&mut self, what: u64) {
        let mixed = (self.digest ^ what ^ (self.now_ms << 20)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.digest = mixed ^ (mixed >> 32);
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Arrives { coordinator, to, asked } => self.arrives(coordinator, to, *asked),
            Happening::HangsUp { coordinator, to } => {
                let _guard = self.runtime.enter();
                self.coordinators[coordinator].waiting.retain(|waiting| waiting.to != to);
            }
            Happening::Replies { to, answer } => self.replies(to, *answer),
            Happening::Resumes { coordinator, life, task } => {
                if self.is_life(coordinator, life) {
                    self.resume(coordinator, task);
                }
            }
            Happening::Ticks { coordinator, life } => {
                if self.is_life(coordinator, life) {
                    self.tick(coordinator);
                    self.after(IDLE_MS, Happening::Ticks { coordinator, life });
                }
            }
            Happening::Reconciles { coordinator, life } => self.reconcile(coordinator, life),
            Happening::Leads { coordinator, life } => self.lead(coordinator, life),
            Happening::Redelivers { coordinator, life } => self.redeliver(coordinator, life),
            Happening::CoordinatorStarts { coordinator } => self.start_coordinator(coordinator),
            Happening::CoordinatorDies { coordinator, life, away_ms } => {
                if self.is_life(coordinator, life) && self.dying[coordinator].is_some() {
                    self.kill_coordinator(coordinator, away_ms);
                }
            }
            Happening::SessionOpens { coordinator } => {
                self.coordinators[coordinator].session.restore();
            }
            Happening::WorkerDue { worker, life, at_ms } => self.worker_due(worker, life, at_ms),
            Happening::WorkerStarts { worker } => {
                if self.workers[worker].core.is_none() {
                    let doings = self.workers[worker].start(self.now_ms);
                    self.do_all(worker, doings);
                }
            }
            Happening::WorkerStops { worker, life } => {
                if self.workers[worker].life == life {
                    let doings = self.workers[worker].feed(Input::Stop, self.now_ms);
                    self.do_all(worker, doings);
                }
            }
            Happening::Drives { worker, life, slot, trainer_life } => {
                self.drives(worker, life, slot, trainer_life);
            }
            Happening::Strikes(fault) => self.strike(fault),
            Happening::WayOpens { worker, coordinator } => {
                self.network.join(Place::Worker(worker), Place::Coordinator(coordinator));
            }
            Happening::NetworkHeals => self.network.quality = Quality::GOOD,
            Happening::Calms => self.calm(),
            Happening::UserActs => self.user_acts(),
            Happening::Looks => self.look(),
        }
    }

    fn is_life(&self, coordinator: usize, life: u64) -> bool {
        self.coordinators[coordinator].life == life && self.coordinators[coordinator].is_up()
    }

    // Coordinators.

    fn start_coordinator(&mut self, coordinator: usize) {
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

    fn kill_coordinator(&mut self, coordinator: usize, away_ms: u64) {
        self.note(1);
        self.coordinators[coordinator].kill(&self.runtime);
        self.dying[coordinator] = None;
        self.user.coordinator_died(coordinator);
        self.after(away_ms, Happening::CoordinatorStarts { coordinator });
    }

    fn arrives(&mut self, coordinator: usize, to: ReplyTo, asked: Asked) {
        self.coordinators[coordinator].set_clock(self.now_ms);
        let token = match &asked {
            Asked::Report(report) => Some(report.lease_token),
            Asked::Finish(finish) => Some(finish.lease_token),
            _ => None,
        };
        let was_over = token.is_some_and(|token| self.is_over_in_store(coordinator, token));
        match self.coordinators[coordinator].take(to, asked, self.now_ms) {
            Some(task) => {
                let life = self.coordinators[coordinator].life;
                if token.is_some() {
                    self.arrived.insert((coordinator, life, task), (self.now_ms, was_over));
                }
                self.resume(coordinator, task);
            }
            // The connection is refused.
            None => self.reply(coordinator, to, Err(Status::unavailable("nobody is there"))),
        }
    }

    /// Whether the store has recorded that a right is over.
    fn is_over_in_store(&self, coordinator: usize, token: u64) -> bool {
        let Some(app) = &self.coordinators[coordinator].app else { return false };
        let live = self.runtime.block_on(app.store.live_leases());
        live.is_ok_and(|live| live.iter().all(|lease| lease.token.0 != token))
    }

    fn reply(&mut self, coordinator: usize, to: ReplyTo, answer: Result<Answered, Status>) {
        let (from, back) = (Place::Coordinator(coordinator), Place::Worker(to.worker));
        for ms in self.network.arrivals(from, back, false) {
            self.after(ms, Happening::Replies { to, answer: Box::new(answer.clone()) });
        }
    }

    /// Runs a handler up to its next wait.
    fn resume(&mut self, coordinator: usize, task: u64) {
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

    fn come_to(&mut self, coordinator: usize, task: u64, outcome: Outcome) {
        let life = self.coordinators[coordinator].life;
        match outcome {
            Outcome::Answered { to, asked, answer } => {
                let key = (coordinator, life, task);
                let arrived = self.arrived.remove(&key).unwrap_or((self.now_ms, false));
                self.remember(&asked, &answer, arrived);
                self.reply(coordinator, to, answer);
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
    fn failed(&mut self, what: &'static str, error: &StoreError) {
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

    fn remember(
        &mut self,
        asked: &Asked,
        answer: &Result<Answered, Status>,
        (arrived_ms, was_over): (u64, bool),
    ) {
        match (asked, answer) {
            (Asked::Heartbeat(asked), Ok(Answered::Heartbeat(answer))) => {
                if !answer.is_unknown_worker {
                    let term_ms = self.scenario.lease_term_ms;
                    self.history.renewed(asked, answer, term_ms, self.now_ms);
                }
            }
            (Asked::Report(asked), Ok(Answered::Reported(answer))) => {
                self.note(asked.lease_token << 1 | u64::from(answer.stale));
                self.history.reported(asked, answer.stale, was_over, arrived_ms);
            }
            (Asked::Finish(asked), Ok(Answered::Finished(answer))) => {
                self.note(asked.lease_token << 2 | u64::from(answer.stale));
                self.history.finished(asked, answer.stale);
            }
            (_, Err(status)) if status.code() == tonic::Code::Internal => {
                let found = format!("{asked:?}: {status}");
                self.history.violate("nothing is a bug", found);
            }
            _ => {}
        }
    }

    fn looked(
        &mut self,
        coordinator: usize,
        poll: Waiting,
        answer: Result<Option<proto::v1::NextResponse>, Status>,
    ) {
        let to = poll.to;
        let _guard = self.runtime.enter();
        match answer {
            Ok(Some(response)) => {
                drop(poll);
                drop(_guard);
                for given in &response.assignments {
                    self.note(given.lease_token << 3);
                    self.history.assigned(given, to.worker, self.now_ms);
                }
                self.reply(coordinator, to, Ok(Answered::Next(response)));
            }
            Ok(None) if poll.until_ms <= self.now_ms => {
                drop(poll);
                drop(_guard);
                self.reply(coordinator, to, Ok(Answered::Next(Default::default())));
            }
            Ok(None) => self.coordinators[coordinator].waiting.push(poll),
            Err(status) => {
                drop(poll);
                drop(_guard);
                self.remember(&Asked::Next(Default::default()), &Err(status.clone()), (0, false));
                self.reply(coordinator, to, Err(status));
            }
        }
    }

    /// What a handler set off: polls that were woken, a nudged dispatcher, a session that broke.
    fn settle(&mut self, coordinator: usize) {
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

    fn tick(&mut self, coordinator: usize) {
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

    fn reconcile(&mut self, coordinator: usize, life: u64) {
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
    fn lead(&mut self, coordinator: usize, life: u64) {
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
    fn redeliver(&mut self, coordinator: usize, life: u64) {
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

    // Workers.

    fn do_all(&mut self, worker: usize, doings: Vec<Doing>) {
        let life = self.workers[worker].life;
        for doing in doings {
            match doing {
                Doing::Send { message, coordinator, asked, limit_ms } => {
                    let to = ReplyTo { worker, life, message };
                    let (from, there) = (Place::Worker(worker), Place::Coordinator(coordinator));
                    for ms in self.network.arrivals(from, there, !matches!(asked, Asked::Next(_))) {
                        let asked = Box::new(asked.clone());
                        self.after(ms, Happening::Arrives { coordinator, to, asked });
                    }
                    let answer = Box::new(Err(Status::deadline_exceeded("no answer came")));
                    self.after(limit_ms, Happening::Replies { to, answer });
                }
                Doing::Hang { message, coordinator } => {
                    let to = ReplyTo { worker, life, message };
                    let (from, there) = (Place::Worker(worker), Place::Coordinator(coordinator));
                    for ms in self.network.arrivals(from, there, false) {
                        self.after(ms, Happening::HangsUp { coordinator, to });
                    }
                }
                Doing::Drive { slot, after_ms } => self.drive_after(worker, slot, after_ms),
                Doing::Exit => {
                    self.workers[worker].kill();
                    let away_ms = self.chance.between(100, 5_000);
                    self.after(away_ms, Happening::WorkerStarts { worker });
                }
            }
        }
        self.check_tokens(worker);
        if let Some(due_ms) = self.workers[worker].due_ms()
            && self.worker_due_ms[worker].is_none_or(|known_ms| due_ms < known_ms)
        {
            self.worker_due_ms[worker] = Some(due_ms);
            let after_ms = due_ms.saturating_sub(self.now_ms);
            self.after(after_ms, Happening::WorkerDue { worker, life, at_ms: due_ms });
        }
    }

    fn check_tokens(&mut self, worker: usize) {
        let Some(core) = &self.workers[worker].core else { return };
        let mut tokens = core.tokens();
        let n_held = tokens.len();
        tokens.sort_unstable();
        tokens.dedup();
        if tokens.len() < n_held {
            self.history.violate("an attempt runs once", format!("worker {worker}: {tokens:?}"));
        }
    }

    fn worker_due(&mut self, worker: usize, life: u64, at_ms: u64) {
        if self.worker_due_ms[worker] == Some(at_ms) {
            self.worker_due_ms[worker] = None;
        }
        if self.workers[worker].life != life {
            return;
        }
        if let Some(ms) = self.frozen_for(worker) {
            return self.after(ms, Happening::WorkerDue { worker, life, at_ms });
        }
        let doings = self.workers[worker].feed(Input::Tick, self.now_ms);
        self.do_all(worker, doings);
    }

    fn frozen_for(&self, worker: usize) -> Option<u64> {
        self.workers[worker].frozen_until_ms.checked_sub(self.now_ms).filter(|ms| *ms > 0)
    }

    fn replies(&mut self, to: ReplyTo, answer: Result<Answered, Status>) {
        if self.workers[to.worker].life != to.life {
            return;
        }
        if let Some(ms) = self.frozen_for(to.worker) {
            return self.after(ms, Happening::Replies { to, answer: Box::new(answer) });
        }
        let (artifacts, runtime) = (&self.artifacts, &self.runtime);
        let nonce = |key: &str| {
            let worker: WorkerId = key.trim_start_matches("nonces/").parse().expect("an id");
            let nonce = runtime.block_on(artifacts.nonce(&worker)).unwrap_or_default();
            nonce.unwrap_or_default().to_vec()
        };
        let doings = self.workers[to.worker].answered(to.message, answer, nonce, self.now_ms);
        self.do_all(to.worker, doings);
    }

    fn drive_after(&mut self, worker: usize, slot: usize, after_ms: u64) {
        let life = self.workers[worker].life;
        let trainer_life = self.workers[worker].trainer_lives[slot];
        let due_ms = self.now_ms + after_ms;
        self.trainer_due_ms.insert((worker, slot), due_ms);
        self.after(after_ms, Happening::Drives { worker, life, slot, trainer_life });
    }

    fn drives(&mut self, worker: usize, life: u64, slot: usize, trainer_life: u64) {
        let is_it = self.workers[worker].life == life
            && self.workers[worker].trainer_lives[slot] == trainer_life;
        if !is_it {
            return;
        }
        if let Some(ms) = self.frozen_for(worker) {
            return self.after(ms, Happening::Drives { worker, life, slot, trainer_life });
        }
        let is_due =
            self.trainer_due_ms.get(&(worker, slot)).is_some_and(|due_ms| *due_ms <= self.now_ms);
        // A trainer whose words nobody takes waits.
        if is_due && !self.workers[worker].has_unheard(slot) {
            self.trainer_due_ms.remove(&(worker, slot));
            let weakness = if self.is_calm { Default::default() } else { self.scenario.weakness };
            let (disk, chance) = (&mut self.disk, &mut self.chance);
            let trainer = self.workers[worker].trainers[slot].as_mut();
            if let Some(ms) = trainer.and_then(|trainer| trainer.step(disk, weakness, chance)) {
                self.drive_after(worker, slot, ms);
            }
        }
        while self.workers[worker].trainer_lives[slot] == trainer_life
            && let Some(doings) = self.workers[worker].hear(slot, self.now_ms)
        {
            self.do_all(worker, doings);
        }
        if self.workers[worker].trainer_lives[slot] == trainer_life
            && self.workers[worker].has_unheard(slot)
        {
            self.after(200, Happening::Drives { worker, life, slot, trainer_life });
        }
    }

    // What goes wrong.

    fn strike(&mut self, fault: Fault) {
        if self.is_calm {
            return;
        }
        match fault {
            Fault::KillWorker { worker, away_ms } => self.kill_worker(worker, away_ms),
            Fault::LosePower { worker, away_ms } => {
                self.kill_worker(worker, away_ms);
                self.disk.lose_power(worker, &mut self.chance);
            }
            Fault::Freeze { worker, for_ms } => {
                self.workers[worker].frozen_until_ms = self.now_ms + for_ms;
            }
            Fault::Terminate { worker } => {
                let life = self.workers[worker].life;
                self.after(0, Happening::WorkerStops { worker, life });
            }
            Fault::KillCoordinator { coordinator, at_statement, keeps_last, away_ms } => {
                let process = &self.coordinators[coordinator];
                if process.is_up() && self.dying[coordinator].is_none() {
                    process.session.cut_in(at_statement, keeps_last);
                    self.dying[coordinator] = Some(away_ms);
                    let life = process.life;
                    let dies = Happening::CoordinatorDies { coordinator, life, away_ms };
                    self.after(KILL_ANYHOW_MS, dies);
                }
            }
            Fault::BreakSession { coordinator, at_statement, keeps_last, away_ms } => {
                if self.coordinators[coordinator].is_up() {
                    self.coordinators[coordinator].session.cut_in(at_statement, keeps_last);
                    let opens = Happening::SessionOpens { coordinator };
                    self.after(KILL_ANYHOW_MS + away_ms, opens);
                }
            }
            Fault::Cut { worker, coordinator, is_to, is_from, for_ms } => {
                let ends = (Place::Worker(worker), Place::Coordinator(coordinator));
                if is_to {
                    self.network.cut(ends.0, ends.1);
                }
                if is_from {
                    self.network.cut(ends.1, ends.0);
                }
                self.after(for_ms, Happening::WayOpens { worker, coordinator });
            }
            Fault::Degrade { quality, for_ms } => {
                self.network.quality = quality;
                self.after(for_ms, Happening::NetworkHeals);
            }
            Fault::Damage => self.disk.damage(&mut self.chance),
            Fault::JumpClock { coordinator, by_ms } => {
                self.coordinators[coordinator].wall_skew_ms += by_ms;
            }
            Fault::KillTrainer { worker } => {
                let slot = self.chance.index(self.workers[worker].n_slots());
                if let Some(trainer) = &mut self.workers[worker].trainers[slot] {
                    trainer.die(AttemptEnd::Bug);
                    self.drive_after(worker, slot, 1);
                }
            }
        }
    }

    fn kill_worker(&mut self, worker: usize, away_ms: u64) {
        if self.workers[worker].core.is_some() {
            self.workers[worker].kill();
            self.after(away_ms, Happening::WorkerStarts { worker });
        }
    }

    /// From here on everything works.
    fn calm(&mut self) {
        self.is_calm = true;
        self.network.heal();
        for coordinator in 0..self.coordinators.len() {
            self.coordinators[coordinator].session.restore();
            let life = self.coordinators[coordinator].life;
            if self.dying[coordinator].is_some() && self.is_life(coordinator, life) {
                self.kill_coordinator(coordinator, 100);
            }
        }
        self.user.calm();
        self.after(1, Happening::UserActs);
    }
}

mod judging;
