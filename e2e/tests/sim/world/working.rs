//! What happens to workers: what they send and hear, what their trainers do.

use domain::ids::WorkerId;
use tonic::Status;
use worker::agent::core::Input;

use super::{Happening, World};
use crate::coordinator::{Answered, Asked, ReplyTo};
use crate::network::Place;
use crate::trainer::Weakness;
use crate::worker::Doing;

impl World {
    pub(super) fn do_all(&mut self, worker: usize, doings: Vec<Doing>) {
        let life = self.workers[worker].life;
        for doing in doings {
            match doing {
                Doing::Send { message, coordinator, asked, limit_ms } => {
                    let to = ReplyTo { worker, life, message };
                    let (from, there) = (Place::Worker(worker), Place::Coordinator(coordinator));
                    if let Asked::Finish(finish) = &*asked {
                        self.cancel_meanwhile(finish.lease_token);
                    }
                    let may_double = !matches!(*asked, Asked::Next(_));
                    for ms in self.network.arrivals((from, there), may_double, self.now_ms) {
                        let asked = asked.clone();
                        self.after(ms, Happening::Arrives { coordinator, to, asked });
                    }
                    let answer = Box::new(Err(Status::deadline_exceeded("no answer came")));
                    self.after(limit_ms, Happening::Replies { to, answer });
                }
                Doing::Hang { message, coordinator } => {
                    let to = ReplyTo { worker, life, message };
                    let (from, there) = (Place::Worker(worker), Place::Coordinator(coordinator));
                    for ms in self.network.arrivals((from, there), false, self.now_ms) {
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

    /// Now and then somebody cancels a run while its end is on the way.
    fn cancel_meanwhile(&mut self, token: u64) {
        if self.is_calm || !self.chance.permille(50) {
            return;
        }
        if let Some(run) = self.history.run_of(token) {
            self.user.cancel(run, self.now_ms);
            self.after(1, Happening::UserActs);
        }
    }

    pub(super) fn check_tokens(&mut self, worker: usize) {
        let Some(core) = &self.workers[worker].core else { return };
        let mut tokens = core.tokens();
        let n_held = tokens.len();
        tokens.sort_unstable();
        tokens.dedup();
        if tokens.len() < n_held {
            self.history.violate("an attempt runs once", format!("worker {worker}: {tokens:?}"));
        }
    }

    pub(super) fn worker_due(&mut self, worker: usize, life: u64, at_ms: u64) {
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

    pub(super) fn frozen_for(&self, worker: usize) -> Option<u64> {
        self.workers[worker].frozen_until_ms.checked_sub(self.now_ms).filter(|ms| *ms > 0)
    }

    pub(super) fn replies(&mut self, to: ReplyTo, answer: Result<Answered, Status>) {
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

    pub(super) fn drive_after(&mut self, worker: usize, slot: usize, after_ms: u64) {
        let life = self.workers[worker].life;
        let trainer_life = self.workers[worker].trainer_lives[slot];
        let due_ms = self.now_ms + after_ms;
        self.trainer_due_ms.insert((worker, slot), due_ms);
        self.after(after_ms, Happening::Drives { worker, life, slot, trainer_life });
    }

    pub(super) fn drives(&mut self, worker: usize, life: u64, slot: usize, trainer_life: u64) {
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
            let weakness = if self.is_calm { Weakness::default() } else { self.scenario.weakness };
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
}
