//! The simulated world: one queue of what happens when, and everything that happens.
//!
//! One seed decides all of it. Whatever two simulations of a seed do, they do alike.

use std::collections::BTreeMap;
use std::sync::Arc;

use coordinator::artifacts::Artifacts;
use coordinator::config::Config;
use coordinator::store::memory::Memory;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use tokio::runtime::Runtime;
use tonic::Status;
use worker::agent::core::Input;

use crate::chance::Chance;
use crate::coordinator::{Answered, Asked, Coordinator, ReplyTo};
use crate::disk::Disk;
use crate::history::History;
use crate::network::{Network, Place, Quality};
use crate::scenario::{Fault, Scenario};
use crate::user::User;
use crate::worker::Worker;

mod coordinating;
mod faults;
mod judging;
mod working;

/// How long the dispatcher and the standby wait without being woken, as the real ones do.
const IDLE_MS: u64 = 1_000;

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
    /// Of handlers of reports and ends: when they came, and how the store had ended their right.
    arrived: BTreeMap<(usize, u64, u64), (u64, Option<String>)>,
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
        let names: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
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
            artifacts: Artifacts::over(names.clone()),
            disk: Disk::new(names),
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
                self.coordinators[coordinator].open_session();
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
}
