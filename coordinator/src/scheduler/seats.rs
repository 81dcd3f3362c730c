//! The slots that are left while a decision is made: who takes them, and which are kept for a gang.
//!
//! Whose turn it is, is `turns`'; what a machine must have is `fit`'s.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use domain::ids::{WorkId, WorkerId};
use domain::spec::PlacementSpec;

use super::fit::{Machine, Match, can_carry_out, is_avoided};
use super::policy::{BusySlot, FreeWorker, LetPass, Needs, Placement, QueuedWork, Snapshot};

/// Machines that round alike: the members of a gang are of one such class.
pub(super) type Class<'a> = (&'a str, u32, &'a str, &'a str);

pub(super) fn class(machine: &Machine) -> Class<'_> {
    let found = &machine.capabilities;
    (&found.device_kind, found.threads_per_slot, &found.cpu_capability, &found.libtorch_version)
}

/// Slots that are kept for a gang until there are enough of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Reservation {
    /// The gang.
    pub work: WorkId,
    /// How many slots it needs.
    pub n_needed: u32,
    /// How many of the machines that it waits for are free.
    pub n_free: u32,
    /// The workers whose slots it waits for; each that becomes free is kept.
    pub workers: Vec<WorkerId>,
    /// Work of at most so many FLOPs is over before the last of the slots that it needs is free.
    pub lets_pass_flops: f64,
    /// So many more pieces of such work may go before it on these slots.
    pub n_lets_pass: u32,
}

/// How good a machine must be.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    fit: Match,
    /// One on which no attempt of the work failed.
    is_elsewhere: bool,
}

impl Wanted {
    fn suits(
        self,
        worker: &WorkerId,
        machine: &Machine,
        needs: &Needs,
        placement: &PlacementSpec,
    ) -> bool {
        can_carry_out((worker, machine), needs, placement, self.fit)
            && !(self.is_elsewhere && is_avoided(worker, needs))
    }
}

/// The slots that are left.
pub(super) struct Seats<'a> {
    free: Vec<FreeWorker>,
    live: &'a [(WorkerId, Machine)],
    silent: &'a BTreeMap<WorkerId, u32>,
    busy: &'a [BusySlot],
    let_pass: Option<&'a LetPass>,
    reservation: Option<Reservation>,
}

impl<'a> Seats<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        Self {
            free: snapshot.free.iter().filter(|seat| seat.n_free_slots > 0).cloned().collect(),
            live: &snapshot.live,
            silent: &snapshot.silent,
            busy: &snapshot.busy,
            let_pass: snapshot.let_pass.as_ref(),
            reservation: None,
        }
    }

    pub(super) fn are_all_taken(&self) -> bool {
        self.free.is_empty()
    }

    pub(super) fn into_reservation(self) -> Option<Reservation> {
        self.reservation
    }

    /// Takes a slot for this work, if one suits it.
    pub(super) fn take_one(
        &mut self,
        work: &QueuedWork,
        placement: &PlacementSpec,
    ) -> Option<Placement> {
        let wanted = self.wanted(work, placement, 1);
        let suits =
            |seat: &FreeWorker| wanted.suits(&seat.worker, &seat.machine, &work.needs, placement);
        if let Some(index) = best_seat(&self.free, |seat| !self.is_kept(seat) && suits(seat)) {
            let worker = self.take_slot(index);
            return Some(Placement::of_one(work.work.clone(), worker));
        }
        // What is over in time goes before a gang that cannot begin yet.
        let passed = self
            .reservation
            .as_ref()
            .filter(|kept| kept.n_lets_pass > 0 && work.cost_flops <= kept.lets_pass_flops)?;
        let passed = passed.work.clone();
        let index = best_seat(&self.free, suits)?;
        let worker = self.take_slot(index);
        if let Some(kept) = &mut self.reservation {
            kept.n_lets_pass -= 1;
            kept.n_free = kept.n_free.saturating_sub(1);
        }
        Some(Placement { passes: Some(passed), ..Placement::of_one(work.work.clone(), worker) })
    }

    /// Takes so many slots at a time for this work, on machines that round alike; on as few workers
    /// as it can be. With too few that are free, those are kept for it, if it is the first to wait.
    pub(super) fn take_gang(
        &mut self,
        work: &QueuedWork,
        placement: &PlacementSpec,
        n_slots: u32,
    ) -> Option<Placement> {
        let wanted = self.wanted(work, placement, n_slots);
        let fits = |worker: &WorkerId, machine: &Machine| {
            wanted.suits(worker, machine, &work.needs, placement)
        };
        let mut free: BTreeMap<Class<'_>, u32> = BTreeMap::new();
        for seat in self.free.iter().filter(|seat| !self.is_kept(seat)) {
            if fits(&seat.worker, &seat.machine) {
                *free.entry(class(&seat.machine)).or_default() += seat.n_free_slots;
            }
        }
        let mut all: BTreeMap<Class<'_>, u32> = BTreeMap::new();
        for (worker, machine) in self.live {
            if fits(worker, machine) {
                *all.entry(class(machine)).or_default() += self.n_asking(worker, machine);
            }
        }
        let n_free = |class: &Class<'_>| free.get(class).copied().unwrap_or(0);
        // The most free slots, so that what was kept before is kept on; ties go to the first.
        let large: Vec<Class<'_>> =
            all.iter().filter(|(_, n)| **n >= n_slots).map(|(class, _)| *class).collect();
        let chosen = large.iter().copied().max_by_key(|class| (n_free(class), Reverse(*class)))?;
        let n_free = n_free(&chosen);
        if n_free < n_slots {
            if self.reservation.is_none() {
                let workers = self
                    .live
                    .iter()
                    .filter(|(worker, machine)| class(machine) == chosen && fits(worker, machine));
                let workers: Vec<WorkerId> = workers.map(|(worker, _)| worker.clone()).collect();
                self.reservation = Some(self.reserve(work, workers, n_slots, n_free));
            }
            return None;
        }
        let mut members: Vec<(WorkerId, u32)> = self
            .free
            .iter()
            .filter(|seat| !self.is_kept(seat) && class(&seat.machine) == chosen)
            .filter(|seat| fits(&seat.worker, &seat.machine))
            .map(|seat| (seat.worker.clone(), seat.n_free_slots))
            .collect();
        members.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        let slots = members.into_iter().flat_map(|(worker, n)| vec![worker; n as usize]);
        let workers: Vec<WorkerId> = slots.take(n_slots as usize).collect();
        for worker in &workers {
            if let Some(index) = self.free.iter().position(|seat| seat.worker == *worker) {
                self.take_slot(index);
            }
        }
        Some(Placement { work: work.work.clone(), workers, passes: None })
    }

    /// Whether a free slot suits this work, or of a gang live machines that are enough of them.
    pub(super) fn may_take(
        &self,
        work: &QueuedWork,
        placement: &PlacementSpec,
        n_slots: u32,
    ) -> bool {
        let wanted = self.wanted(work, placement, n_slots);
        let suits =
            |seat: &FreeWorker| wanted.suits(&seat.worker, &seat.machine, &work.needs, placement);
        match n_slots {
            1 => self.free.iter().any(suits),
            _ => self.n_suiting(wanted, work, placement, n_slots) >= n_slots,
        }
    }

    /// How good a machine must be: only while enough of them round as the first attempt did does a
    /// run wait for those, and of them for those where it has not failed.
    fn wanted(&self, work: &QueuedWork, placement: &PlacementSpec, n_slots: u32) -> Wanted {
        let fits: &[Match] = match work.needs.numerics {
            Some(_) => &[Match::Numerics, Match::Machine],
            None => &[Match::Machine],
        };
        let ways: &[bool] = if work.needs.excluded.is_empty() { &[false] } else { &[true, false] };
        let all = fits.iter().flat_map(|fit| {
            ways.iter().map(|is_elsewhere| Wanted { fit: *fit, is_elsewhere: *is_elsewhere })
        });
        let least = Wanted { fit: Match::Machine, is_elsewhere: false };
        let is_enough = |wanted: &Wanted| {
            let is_least = wanted.fit == least.fit && !wanted.is_elsewhere;
            is_least || self.n_suiting(*wanted, work, placement, n_slots) >= n_slots
        };
        all.into_iter().find(is_enough).unwrap_or(least)
    }

    /// How many machines suit; for a gang, how many slots there are of those that round alike, where
    /// they have the most.
    fn n_suiting(
        &self,
        wanted: Wanted,
        work: &QueuedWork,
        placement: &PlacementSpec,
        n_slots: u32,
    ) -> u32 {
        let suiting = self
            .live
            .iter()
            .filter(|(worker, machine)| wanted.suits(worker, machine, &work.needs, placement))
            // One whose trainers do not start is none to wait for.
            .filter(|(worker, machine)| !wanted.is_elsewhere || self.n_asking(worker, machine) > 0);
        if n_slots == 1 {
            return u32::try_from(suiting.count()).unwrap_or(u32::MAX);
        }
        let mut of_class: BTreeMap<Class<'_>, u32> = BTreeMap::new();
        for (worker, machine) in suiting {
            *of_class.entry(class(machine)).or_default() += self.n_asking(worker, machine);
        }
        of_class.into_values().max().unwrap_or(0)
    }

    /// How many slots a worker may give, now or later.
    fn n_asking(&self, worker: &WorkerId, machine: &Machine) -> u32 {
        machine.n_slots.saturating_sub(self.silent.get(worker).copied().unwrap_or(0))
    }

    fn is_kept(&self, seat: &FreeWorker) -> bool {
        self.reservation.as_ref().is_some_and(|kept| kept.workers.contains(&seat.worker))
    }

    /// Keeps what is free of these workers' slots, and what becomes free.
    fn reserve(
        &self,
        work: &QueuedWork,
        workers: Vec<WorkerId>,
        n_needed: u32,
        n_free: u32,
    ) -> Reservation {
        let mut left: Vec<f64> = self
            .busy
            .iter()
            .filter(|slot| workers.contains(&slot.worker))
            .map(|slot| slot.flops_left)
            .collect();
        left.sort_by(f64::total_cmp);
        let n_slots: u32 = self
            .live
            .iter()
            .filter(|(worker, _)| workers.contains(worker))
            .map(|(worker, machine)| self.n_asking(worker, machine))
            .sum();
        // A slot that is neither free nor leased is about to ask: there is no time for anything
        // else.
        let n_leased = u32::try_from(left.len()).unwrap_or(u32::MAX);
        let n_about_to_ask = n_slots.saturating_sub(n_free).saturating_sub(n_leased);
        let n_missing = (n_needed - n_free).saturating_sub(n_about_to_ask) as usize;
        let last = n_missing.checked_sub(1).and_then(|index| left.get(index));
        let n_passed = self.let_pass.filter(|passed| passed.work == work.work);
        let n_passed = n_passed.map_or(0, |passed| passed.n_passed);
        Reservation {
            work: work.work.clone(),
            n_needed,
            n_free,
            workers,
            lets_pass_flops: last.copied().unwrap_or(0.0),
            n_lets_pass: n_needed.saturating_sub(n_passed),
        }
    }

    fn take_slot(&mut self, index: usize) -> WorkerId {
        let seat = &mut self.free[index];
        let worker = seat.worker.clone();
        seat.n_free_slots -= 1;
        if seat.n_free_slots == 0 {
            self.free.remove(index);
        }
        worker
    }
}

/// Of those that suit, the worker with the most free slots, so that the load spreads; ties go to
/// the first identifier.
fn best_seat(free: &[FreeWorker], suits: impl Fn(&FreeWorker) -> bool) -> Option<usize> {
    free.iter()
        .enumerate()
        .filter(|(_, seat)| suits(seat))
        .max_by_key(|(_, seat)| (seat.n_free_slots, Reverse(seat.worker.clone())))
        .map(|(index, _)| index)
}
