//! What goes wrong, and the end of it.

use domain::attempt::AttemptEnd;

use super::{Happening, World};
use crate::network::Place;
use crate::scenario::Fault;

/// A coordinator that is to die at a statement dies without one after this time.
const KILL_ANYHOW_MS: u64 = 3_000;

impl World {
    pub(super) fn strike(&mut self, fault: Fault) {
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
            Fault::KillCoordinator { coordinator, at, keeps_last, away_ms } => {
                let process = &self.coordinators[coordinator];
                if process.is_up() && self.dying[coordinator].is_none() {
                    process.session.cut_at(at, keeps_last);
                    self.dying[coordinator] = Some(away_ms);
                    let life = process.life;
                    let dies = Happening::CoordinatorDies { coordinator, life, away_ms };
                    self.after(KILL_ANYHOW_MS, dies);
                }
            }
            Fault::BreakSession { coordinator, at, keeps_last, away_ms } => {
                if self.coordinators[coordinator].is_up() {
                    let process = &self.coordinators[coordinator];
                    process.session.cut_at(at, keeps_last);
                    process.is_to_break.set(true);
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
            Fault::Stall { worker, coordinator, for_ms } => {
                let (from, to) = (Place::Worker(worker), Place::Coordinator(coordinator));
                self.network.stall(from, to, self.now_ms + for_ms);
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

    pub(super) fn kill_worker(&mut self, worker: usize, away_ms: u64) {
        if self.workers[worker].core.is_some() {
            self.workers[worker].kill();
            self.after(away_ms, Happening::WorkerStarts { worker });
        }
    }

    /// From here on everything works.
    pub(super) fn calm(&mut self) {
        self.is_calm = true;
        self.network.heal();
        for coordinator in 0..self.coordinators.len() {
            self.coordinators[coordinator].open_session();
            let life = self.coordinators[coordinator].life;
            if self.dying[coordinator].is_some() && self.is_life(coordinator, life) {
                self.kill_coordinator(coordinator, 100);
            }
        }
        self.user.calm();
        self.after(1, Happening::UserActs);
    }
}
