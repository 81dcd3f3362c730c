//! What a machine must have for a piece of work.
//!
//! It ranks no machine: which of those that are fit is taken is the policy's.

use domain::ids::WorkerId;
use domain::spec::PlacementSpec;
use serde::{Deserialize, Serialize};

use super::policy::Needs;
use crate::store::{Capabilities, Numerics};

/// A worker's machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// How many attempts it carries out at a time.
    pub n_slots: u32,
    /// What it can do.
    pub capabilities: Capabilities,
}

impl Machine {
    /// Memory of one slot in bytes: slots share a CPU's memory, while a worker with CUDA says itself
    /// what each has of a device. None where it is not known.
    pub fn slot_memory_bytes(&self) -> Option<u64> {
        let n_sharing =
            if self.capabilities.device_kind == "cpu" { self.n_slots.max(1) } else { 1 };
        Some(self.capabilities.memory_bytes / u64::from(n_sharing)).filter(|bytes| *bytes > 0)
    }
}

/// Why work is kept from a worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Exclusion {
    /// The pattern of the log rule that says so: it never goes there.
    Rule(String),
    /// An attempt failed there: it goes there again only when no other fit machine lives.
    Failed {
        /// How the attempt ended.
        failed: String,
    },
}

/// How well a machine must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// It knows the recipe.
    Recipe,
    /// And it is what the study asks for.
    Placement,
    /// And its slots have the memory.
    Memory,
    /// And the work is not kept from it: the machine is fit.
    Machine,
    /// And it rounds as the first attempt did.
    Numerics,
}

/// Whether a worker's machine fits so well.
pub fn can_carry_out(
    (worker, machine): (&WorkerId, &Machine),
    needs: &Needs,
    placement: &PlacementSpec,
    wanted: Match,
) -> bool {
    let found = &machine.capabilities;
    let knows_recipe = needs.recipe.as_ref().is_none_or(|recipe| found.recipes.contains(recipe));
    knows_recipe
        && (wanted < Match::Placement || is_asked_for(found, placement))
        && (wanted < Match::Memory || has_memory(machine, memory_needed(needs, placement)))
        && (wanted < Match::Machine || !is_forbidden(worker, needs))
        && (wanted < Match::Numerics
            || needs.numerics.as_ref().is_none_or(|numerics| rounds_alike(found, numerics)))
}

/// Whether a log rule keeps the work from the worker.
fn is_forbidden(worker: &WorkerId, needs: &Needs) -> bool {
    matches!(needs.excluded.get(worker.as_str()), Some(Exclusion::Rule(_)))
}

/// Whether an attempt of the work failed on the worker, so that it goes to another while one lives.
pub fn is_avoided(worker: &WorkerId, needs: &Needs) -> bool {
    matches!(needs.excluded.get(worker.as_str()), Some(Exclusion::Failed { .. }))
}

/// Memory that one slot must have, in bytes: what the study says, else the estimate.
pub fn memory_needed(needs: &Needs, placement: &PlacementSpec) -> u64 {
    match placement.memory_bytes {
        // Evaluations and preparations have no estimate, and are not what the study spoke of.
        Some(bytes) if needs.memory_bytes > 0 => bytes,
        _ => needs.memory_bytes,
    }
}

/// Memory in bytes of the largest slot of those machines that a study asks for; one whose memory is
/// not known has enough. With no such machine, none is too small: what waits for one is not hidden.
pub fn largest_slot(machines: &[Machine], placement: &PlacementSpec) -> u64 {
    let asked = machines.iter().filter(|machine| is_asked_for(&machine.capabilities, placement));
    asked.map(|machine| machine.slot_memory_bytes().unwrap_or(u64::MAX)).max().unwrap_or(u64::MAX)
}

fn is_asked_for(found: &Capabilities, placement: &PlacementSpec) -> bool {
    placement.device.is_none_or(|device| found.device_kind == device.label())
        && placement.labels.iter().all(|(key, value)| found.labels.get(key) == Some(value))
}

fn has_memory(machine: &Machine, needed: u64) -> bool {
    machine.slot_memory_bytes().is_none_or(|bytes| needed <= bytes)
}

fn rounds_alike(found: &Capabilities, numerics: &Numerics) -> bool {
    found.device_kind == numerics.device_kind
        && found.threads_per_slot == numerics.intra_op_threads
        && found.cpu_capability == numerics.cpu_capability
        && found.libtorch_version == numerics.libtorch_version
}
