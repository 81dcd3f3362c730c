//! Which ready work goes to which free slot: a pure function of a snapshot.
//!
//! It knows neither time nor gRPC nor the store.

use std::cmp::{Ordering, Reverse};

use domain::ids::{WorkId, WorkerId};

use crate::store::{Capabilities, Numerics};

/// Work that may be granted.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedWork {
    /// What it is.
    pub work: WorkId,
    /// Higher first.
    pub priority: i32,
    /// Longer first, so that the last worker is not alone with the longest run.
    pub cost_flops: f64,
    /// The recipe that the worker must know; none when any worker will do.
    pub recipe: Option<String>,
    /// What the first attempt fixed.
    pub numerics: Option<Numerics>,
}

/// A worker that waits for work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeWorker {
    /// Who.
    pub worker: WorkerId,
    /// How much it can take.
    pub n_free_slots: u32,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// Everything that a decision needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The head of the queue, in any order.
    pub queue: Vec<QueuedWork>,
    /// The workers that wait.
    pub free: Vec<FreeWorker>,
    /// What every live worker can do, busy ones too: a run waits for the machine that matches what
    /// its first attempt fixed as long as there is one.
    pub live: Vec<Capabilities>,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The work.
    pub work: WorkId,
    /// Who gets it.
    pub worker: WorkerId,
}

/// Places work on free slots: the highest priority first, then data preparations and evaluations
/// before runs (others wait for them and they are short), then the longest. No worker gets more
/// than its free slots, and no work is placed twice. A run goes to a machine that rounds as its
/// first attempt did; when no live one does, any will do, and the attempt reports what it used.
pub fn place(snapshot: &Snapshot) -> Vec<Placement> {
    let mut free: Vec<FreeWorker> =
        snapshot.free.iter().filter(|seat| seat.n_free_slots > 0).cloned().collect();
    let mut queue: Vec<&QueuedWork> = snapshot.queue.iter().collect();
    queue.sort_by(|a, b| order(a, b));
    queue.dedup_by(|a, b| a.work == b.work);
    let mut placements = Vec::new();
    for work in queue {
        if free.is_empty() {
            break;
        }
        let rounds_alike = |machine| can_carry_out(machine, work, Match::Numerics);
        let wanted =
            if snapshot.live.iter().any(rounds_alike) { Match::Numerics } else { Match::Recipe };
        let Some(index) = best_seat(&free, work, wanted) else {
            continue;
        };
        let seat = &mut free[index];
        placements.push(Placement { work: work.work.clone(), worker: seat.worker.clone() });
        seat.n_free_slots -= 1;
        if seat.n_free_slots == 0 {
            free.remove(index);
        }
    }
    placements
}

fn order(a: &QueuedWork, b: &QueuedWork) -> Ordering {
    let is_run = |work: &QueuedWork| matches!(work.work, WorkId::Run(_));
    Reverse(a.priority)
        .cmp(&Reverse(b.priority))
        .then(is_run(a).cmp(&is_run(b)))
        .then(b.cost_flops.total_cmp(&a.cost_flops))
        .then(a.work.cmp(&b.work))
}

/// How well a machine must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    /// It knows the recipe.
    Recipe,
    /// And it rounds as the first attempt did.
    Numerics,
}

/// The worker with the most free slots, so that the load spreads; ties go to the first identifier.
fn best_seat(free: &[FreeWorker], work: &QueuedWork, wanted: Match) -> Option<usize> {
    free.iter()
        .enumerate()
        .filter(|(_, seat)| can_carry_out(&seat.capabilities, work, wanted))
        .max_by_key(|(_, seat)| (seat.n_free_slots, Reverse(seat.worker.clone())))
        .map(|(index, _)| index)
}

pub(super) fn can_carry_out(machine: &Capabilities, work: &QueuedWork, wanted: Match) -> bool {
    let knows_recipe = work.recipe.as_ref().is_none_or(|recipe| machine.recipes.contains(recipe));
    let rounds_alike =
        work.numerics.as_ref().is_none_or(|numerics| rounds_alike(machine, numerics));
    knows_recipe && (wanted == Match::Recipe || rounds_alike)
}

fn rounds_alike(machine: &Capabilities, numerics: &Numerics) -> bool {
    machine.device_kind == numerics.device_kind
        && machine.threads_per_slot == numerics.intra_op_threads
        && machine.cpu_capability == numerics.cpu_capability
        && machine.libtorch_version == numerics.libtorch_version
}

#[cfg(test)]
mod tests;
