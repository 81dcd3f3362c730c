//! Why queued work is not placed, and why a worker has none: the policy's own rules, in words.
//!
//! It asks nobody: what it needs to know is given to it.

use std::collections::BTreeMap;

use domain::ids::WorkerId;
use domain::spec::PlacementSpec;
use domain::worker::WorkerState;

use super::fit::{Exclusion, Machine, Match, can_carry_out, is_avoided, memory_needed};
use super::policy::{QueueHead, QueuedWork, StudyTerms, begins, n_slots};
use super::seats::{Reservation, class};
use crate::store::Numerics;

/// A worker as the leader sees it, with or without free slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Who.
    pub worker: WorkerId,
    /// Its state.
    pub state: WorkerState,
    /// How many leases it has.
    pub n_held: u32,
    /// What may be granted to it now: its open poll's free slots.
    pub n_free_slots: u32,
    /// Slots that have not asked for work for a lease term although nothing is leased to them.
    pub n_silent_slots: u32,
    /// What it can do.
    pub machine: Machine,
}

/// One reason, and what would change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// A stable word.
    pub code: &'static str,
    /// The reason in a sentence.
    pub message: String,
    /// What would change it; empty when there is only to wait.
    pub remedy: String,
}

impl Reason {
    /// A reason with something to do about it.
    pub fn new(code: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: remedy.into() }
    }

    /// A reason that passes by itself.
    pub fn waits(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(code, message, "")
    }
}

/// Queued work, and what the answer depends on beside the machines.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The work.
    pub work: &'a QueuedWork,
    /// What its study says.
    pub terms: &'a StudyTerms,
    /// So many pieces of work go before it, whoever's turn it is.
    pub n_ahead: u64,
    /// What is kept for the gang that waits first.
    pub kept: Option<&'a Reservation>,
}

/// Every reason why queued work is not with a worker, the most important first.
pub fn why_not_placed(case: Case<'_>, seats: &[Seat]) -> Vec<Reason> {
    let Case { work, terms, n_ahead, .. } = case;
    let active: Vec<&Seat> = seats.iter().filter(|s| s.state == WorkerState::Active).collect();
    if active.is_empty() {
        return vec![nobody(seats)];
    }
    let fit = |wanted| -> Vec<&Seat> {
        active.iter().copied().filter(|seat| can(seat, work, terms, wanted)).collect()
    };
    let machines = [Match::Recipe, Match::Placement, Match::Memory, Match::Machine];
    if let Some(missing) = machines.into_iter().find(|wanted| fit(*wanted).is_empty()) {
        return vec![no_machine(missing, case, &active)];
    }
    let mut reasons: Vec<Reason> = over_budget(work, terms).into_iter().collect();
    let able = fit(Match::Machine);
    let alike = fit(Match::Numerics);
    let n_slots = n_slots(work, terms).max(1);
    let fit = match &work.needs.numerics {
        Some(numerics)
            if !alike.is_empty()
                && alike.len() < able.len()
                // A single one is waited for also while its trainer does not start.
                && (n_slots == 1 || most_alike(alike.iter().copied(), n_asking) >= n_slots) =>
        {
            reasons.push(Reason::new(
                "numerics",
                format!(
                    "it continues only where it rounds as its first attempt did ({}): {} of {} \
                     workers",
                    describe(numerics),
                    alike.len(),
                    able.len()
                ),
                "start another worker on such a machine with `--threads` as the first",
            ));
            alike
        }
        _ => able,
    };
    let (fit, avoided) = where_it_has_not_failed(case, fit);
    reasons.extend(avoided);
    reasons.extend(no_slot(case, &fit));
    if n_ahead > 0 {
        reasons.push(Reason::new(
            "not_its_turn",
            format!(
                "{n_ahead} pieces of work go first: a higher priority, or longer in its study; \
                 users, and studies of one priority, take turns by weight"
            ),
            "wait, or give its study a higher priority or weight",
        ));
    }
    if reasons.is_empty() {
        reasons.push(Reason::waits("about_to_run", "it is about to be granted"));
    }
    reasons
}

/// Those machines where no attempt failed, and that it waits for them, as long as they are enough.
fn where_it_has_not_failed<'a>(
    case: Case<'_>,
    fit: Vec<&'a Seat>,
) -> (Vec<&'a Seat>, Option<Reason>) {
    let Case { work, terms, .. } = case;
    let (avoided, others): (Vec<&Seat>, Vec<&Seat>) =
        fit.iter().copied().partition(|seat| is_avoided(&seat.worker, &work.needs));
    if avoided.is_empty()
        || most_alike(others.iter().copied(), n_asking) < n_slots(work, terms).max(1)
    {
        return (fit, None);
    }
    let names: Vec<String> = avoided
        .iter()
        .filter_map(|seat| match work.needs.excluded.get(seat.worker.as_str())? {
            Exclusion::Failed { failed } => Some(format!("`{}` ({failed})", seat.worker)),
            Exclusion::Rule(_) => None,
        })
        .collect();
    let message = format!(
        "an attempt failed on {}: it goes to one of the {} other workers that can carry it out",
        names.join(", "),
        others.len()
    );
    (others, Some(Reason::new("avoided", message, "wait; `gradus retry` forgets it")))
}

fn over_budget(work: &QueuedWork, terms: &StudyTerms) -> Option<Reason> {
    let is_over = begins(work) && !terms.affords(work.cost_flops);
    let left = terms.budget_left_flops.unwrap_or_default().max(0.0);
    is_over.then(|| {
        Reason::new(
            "over_budget",
            format!(
                "it costs {:.3e} FLOPs, and its study may begin {left:.3e} more (`budget_flops`)",
                work.cost_flops
            ),
            "raise `runtime.budget_flops` in the study file and apply it again",
        )
    })
}

/// Why none of the workers that can carry it out has a slot for it, or not enough.
fn no_slot(case: Case<'_>, fit: &[&Seat]) -> Option<Reason> {
    let Case { work, terms, kept, .. } = case;
    let is_kept = |seat: &&Seat| {
        kept.is_some_and(|kept| kept.work != work.work && kept.workers.contains(&seat.worker))
    };
    let free = fit.iter().copied().filter(|seat| seat.n_free_slots > 0 && !is_kept(seat));
    let n_free = most_alike(free, |seat| seat.n_free_slots);
    let n_all = most_alike(fit.iter().copied(), n_asking);
    let n_wanted = n_slots(work, terms);
    if n_all == 0 && n_wanted <= 1 {
        let names: Vec<String> = fit.iter().map(|seat| format!("`{}`", seat.worker)).collect();
        let message = format!(
            "no trainer starts on the workers that can carry it out ({}): their slots do not ask for \
             work",
            names.join(", ")
        );
        let remedy = "look at their logs; start such a worker elsewhere, or stop these";
        return Some(Reason::new("no_trainer", message, remedy));
    }
    if n_all < n_wanted {
        let message = format!(
            "it takes {n_wanted} slots at a time, and the workers that can carry it out and round \
             alike have {n_all}"
        );
        let remedy =
            "start more such workers, or lower `runtime.placement.slots` and apply the study again";
        return Some(Reason::new("gang_too_large", message, remedy));
    }
    if n_free >= n_wanted {
        return None;
    }
    if n_wanted > 1 {
        let keeps = match kept {
            Some(kept) if kept.work == work.work => ", which are kept for it",
            _ => "",
        };
        let message = format!(
            "it takes {n_wanted} slots at a time, and {n_free} of the {n_all} that round alike are \
             free{keeps}"
        );
        return Some(Reason::new("gang", message, "wait, or start another worker"));
    }
    if fit.iter().any(|seat| seat.n_free_slots > 0) {
        return kept.map(|kept| reserved("the free slots are", kept));
    }
    let n_slots: u32 = fit.iter().map(|seat| seat.machine.n_slots).sum();
    let n_held: u32 = fit.iter().map(|seat| seat.n_held).sum();
    let message = format!(
        "no slot is free: {n_held} of {n_slots} are taken on the {} workers that can carry it out",
        fit.len()
    );
    let remedy = "wait, start another worker, or give its study a higher priority";
    Some(Reason::new("no_free_slot", message, remedy))
}

/// How many slots a worker may give, now or later.
fn n_asking(seat: &Seat) -> u32 {
    seat.machine.n_slots.saturating_sub(seat.n_silent_slots)
}

/// The largest sum over machines that round alike.
fn most_alike<'a>(seats: impl Iterator<Item = &'a Seat>, count: fn(&Seat) -> u32) -> u32 {
    let mut sums: BTreeMap<_, u32> = BTreeMap::new();
    for seat in seats {
        *sums.entry(class(&seat.machine)).or_default() += count(seat);
    }
    sums.into_values().max().unwrap_or(0)
}

/// What is free is not free for this.
fn reserved(whose: &str, kept: &Reservation) -> Reason {
    let Reservation { work, n_needed, n_free, .. } = kept;
    let message = format!(
        "{whose} kept for `{work}`, which takes {n_needed} at a time; {n_free} of them are free"
    );
    Reason::new("reserved", message, "wait, or start another worker")
}

/// Why none of the workers is fit, of which none fits so well.
fn no_machine(missing: Match, case: Case<'_>, active: &[&Seat]) -> Reason {
    let Case { work, terms, .. } = case;
    let n = active.len();
    match missing {
        Match::Recipe => {
            let recipe = work.needs.recipe.as_deref().unwrap_or_default();
            let message = format!("none of the {n} workers knows the recipe `{recipe}`");
            Reason::new("no_recipe", message, "start a worker of a build that knows it")
        }
        Match::Placement => {
            let asked = asked_for(&terms.placement);
            let message = format!("none of the {n} workers is what its study asks for: {asked}");
            let remedy = "start such a worker, or change `runtime.placement` in the study file";
            Reason::new("placement", message, remedy)
        }
        Match::Memory => {
            let needed = memory_needed(&work.needs, &terms.placement);
            let placed = |seat: &&&Seat| can(seat, work, terms, Match::Placement);
            let slots = active.iter().filter(placed);
            let largest =
                slots.filter_map(|seat| seat.machine.slot_memory_bytes()).max().unwrap_or(0);
            let message = format!(
                "it needs about {} for one slot, and the largest slot of the {n} workers has {}",
                gibibytes(needed),
                gibibytes(largest)
            );
            let remedy = "start a worker with fewer slots or more memory, take a smaller \
                          `runtime.micro_batch_sequences`, or set `runtime.placement.memory_bytes`";
            Reason::new("memory", message, remedy)
        }
        Match::Machine | Match::Numerics => {
            let named: Vec<String> = work
                .needs
                .excluded
                .iter()
                .filter_map(|(worker, why)| match why {
                    Exclusion::Rule(pattern) => Some(format!("`{worker}` (it said `{pattern}`)")),
                    Exclusion::Failed { .. } => None,
                })
                .collect();
            let message =
                format!("a log rule keeps it from every fit worker: {}", named.join(", "));
            let remedy = "start another worker, or its agent anew; `gradus retry` forgets it";
            Reason::new("excluded", message, remedy)
        }
    }
}

fn asked_for(placement: &PlacementSpec) -> String {
    let device = placement.device.map(|device| format!("device {}", device.label()));
    let labels = placement.labels.iter().map(|(key, value)| format!("label {key}={value}"));
    device.into_iter().chain(labels).collect::<Vec<_>>().join(", ")
}

fn gibibytes(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1_u32 << 30))
}

fn can(seat: &Seat, work: &QueuedWork, terms: &StudyTerms, wanted: Match) -> bool {
    can_carry_out((&seat.worker, &seat.machine), &work.needs, &terms.placement, wanted)
}

fn nobody(seats: &[Seat]) -> Reason {
    let remedy = "start one: `gradus-worker run --coordinator ADDRESS`, or `gradus up`";
    if seats.is_empty() {
        return Reason::new("no_worker", "no worker is connected", remedy);
    }
    let count = |state| seats.iter().filter(|seat| seat.state == state).count();
    let (joining, draining) = (count(WorkerState::Joining), count(WorkerState::Draining));
    let message =
        format!("no worker takes work: {joining} are joining and {draining} are draining");
    Reason::new("no_active_worker", message, remedy)
}

fn describe(numerics: &Numerics) -> String {
    format!(
        "{} {}, {} threads, libtorch {}",
        numerics.device_kind,
        numerics.cpu_capability,
        numerics.intra_op_threads,
        numerics.libtorch_version
    )
}

/// Why a worker has free slots, or none, among all that are there.
pub fn why_idle(
    seat: &Seat,
    queue: &QueueHead,
    seats: &[Seat],
    kept: Option<&Reservation>,
) -> Vec<Reason> {
    match seat.state {
        WorkerState::Joining => {
            return vec![Reason::new(
                "joining",
                "it has not shown yet that it sees the artifact store",
                "look into its log when this lasts",
            )];
        }
        WorkerState::Draining => {
            return vec![Reason::new(
                "draining",
                format!("it takes nothing more; {} attempts are left", seat.n_held),
                "start its program again to have it take work",
            )];
        }
        WorkerState::Gone | WorkerState::Lost { .. } => {
            return vec![Reason::new("absent", "it is not there any more", "start it again")];
        }
        WorkerState::Active => {}
    }
    if seat.n_held >= seat.machine.n_slots {
        let message = format!("all of its {} slots are taken", seat.machine.n_slots);
        return vec![Reason::waits("busy", message)];
    }
    if seat.n_free_slots == 0 {
        return vec![Reason::new(
            "no_poll",
            "it does not ask for work at the moment: its trainers start, or it is cut off",
            "look into its log when this lasts",
        )];
    }
    if let Some(kept) = kept.filter(|kept| kept.workers.contains(&seat.worker)) {
        return vec![reserved("its free slots are", kept)];
    }
    why_nothing_suits(seat, queue, seats)
}

/// Why nothing of the queue is given to a worker that waits for it.
fn why_nothing_suits(seat: &Seat, queue: &QueueHead, seats: &[Seat]) -> Vec<Reason> {
    if queue.work.is_empty() {
        let message =
            "nothing is queued that may begin: paused studies and spent budgets are left out";
        return vec![Reason::waits("no_work", message)];
    }
    let usual = StudyTerms::default();
    let terms = |work: &QueuedWork| {
        work.study.as_ref().and_then(|study| queue.studies.get(study)).unwrap_or(&usual)
    };
    let n_fit = |wanted| queue.work.iter().filter(|w| can(seat, w, terms(w), wanted)).count();
    let n = queue.work.len();
    for (wanted, code, message, remedy) in [
        (
            Match::Recipe,
            "no_recipe",
            format!("it knows the recipe of none of the {n} queued"),
            "start a worker of a newer build",
        ),
        (
            Match::Placement,
            "placement",
            format!("the studies of all the {n} queued ask for other machines"),
            "start it with the labels that they ask for (`--label`)",
        ),
        (
            Match::Memory,
            "memory",
            format!("a slot of it has too little memory for all the {n} queued"),
            "start it with fewer slots",
        ),
        (
            Match::Machine,
            "excluded",
            format!("log rules keep all the {n} queued from it"),
            "start its agent anew when it is mended",
        ),
    ] {
        if n_fit(wanted) == 0 {
            return vec![Reason::new(code, message, remedy)];
        }
    }
    // As the policy has it: only while some machine rounds alike does a run wait for one.
    let is_bound_elsewhere = |work: &QueuedWork| {
        let active = |other: &&Seat| other.state == WorkerState::Active;
        let rounds_alike = |other: &Seat| can(other, work, terms(work), Match::Numerics);
        !rounds_alike(seat) && seats.iter().filter(active).any(rounds_alike)
    };
    if queue.work.iter().all(is_bound_elsewhere) {
        return vec![Reason::waits(
            "numerics",
            "all that is queued waits for machines that round as its first attempts did",
        )];
    }
    let goes_elsewhere = |work: &QueuedWork| {
        let is_other = |other: &&Seat| other.state == WorkerState::Active;
        let suits = |other: &Seat| {
            can(other, work, terms(work), Match::Machine) && !is_avoided(&other.worker, &work.needs)
        };
        is_avoided(&seat.worker, &work.needs) && seats.iter().filter(is_other).any(suits)
    };
    if queue.work.iter().all(|work| is_bound_elsewhere(work) || goes_elsewhere(work)) {
        let message = "attempts of all that is queued failed here: it goes to other workers";
        return vec![Reason::new("avoided", message, "look into its log")];
    }
    let mut fit = queue.work.iter().filter(|work| can(seat, work, terms(work), Match::Machine));
    if fit.all(|work| is_too_large(work, terms(work), seats)) {
        let message = "all that is queued for it takes more slots at a time than there are";
        let remedy = "start more such workers, or lower `runtime.placement.slots`";
        return vec![Reason::new("gang_too_large", message, remedy)];
    }
    vec![Reason::waits("about_to_run", "it is about to be given work")]
}

/// Whether no machines are enough for a gang, which is then never placed and keeps nothing.
fn is_too_large(work: &QueuedWork, terms: &StudyTerms, seats: &[Seat]) -> bool {
    let active = seats.iter().filter(|seat| seat.state == WorkerState::Active);
    let fit = active.filter(|seat| can(seat, work, terms, Match::Machine));
    most_alike(fit, n_asking) < n_slots(work, terms)
}

#[cfg(test)]
mod tests;
