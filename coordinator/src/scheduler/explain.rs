//! Why queued work is not placed, and why a worker has none: the policy's own rules, in words.
//!
//! It asks nobody: what it needs to know is given to it.

use domain::ids::WorkerId;

use super::policy::{Match, QueuedWork, can_carry_out};
use crate::store::{Capabilities, Numerics, WorkerState};

/// A worker as the leader sees it, with or without free slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    /// Who.
    pub worker: WorkerId,
    /// Its state.
    pub state: WorkerState,
    /// How many attempts it can carry out at a time.
    pub n_slots: u32,
    /// How many leases it has.
    pub n_held: u32,
    /// What may be granted to it now: its open poll's free slots.
    pub n_free_slots: u32,
    /// What it can do.
    pub capabilities: Capabilities,
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

/// Every reason why queued work is not with a worker, the most important first. `n_ahead` pieces of
/// work go before it.
pub fn why_not_placed(work: &QueuedWork, n_ahead: u64, seats: &[Seat]) -> Vec<Reason> {
    let active: Vec<&Seat> = seats.iter().filter(|s| s.state == WorkerState::Active).collect();
    if active.is_empty() {
        return vec![nobody(seats)];
    }
    let able: Vec<&Seat> = active.iter().copied().filter(|s| can(s, work, Match::Recipe)).collect();
    if able.is_empty() {
        let recipe = work.recipe.as_deref().unwrap_or_default();
        return vec![Reason::new(
            "no_recipe",
            format!("none of the {} workers knows the recipe `{recipe}`", active.len()),
            "start a worker of a build that knows it",
        )];
    }
    let alike: Vec<&Seat> =
        able.iter().copied().filter(|s| can(s, work, Match::Numerics)).collect();
    let mut reasons = Vec::new();
    let fit = match &work.numerics {
        Some(numerics) if !alike.is_empty() && alike.len() < able.len() => {
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
    if fit.iter().all(|seat| seat.n_free_slots == 0) {
        let n_slots: u32 = fit.iter().map(|seat| seat.n_slots).sum();
        let n_held: u32 = fit.iter().map(|seat| seat.n_held).sum();
        reasons.push(Reason::new(
            "no_free_slot",
            format!(
                "no slot is free: {n_held} of {n_slots} are taken on the {} workers that can \
                 carry it out",
                fit.len()
            ),
            "wait, start another worker, or give its study a higher priority",
        ));
    }
    if n_ahead > 0 {
        reasons.push(Reason::new(
            "not_its_turn",
            format!("{n_ahead} pieces of work go first: a higher priority, or longer"),
            "wait, or give its study a higher priority",
        ));
    }
    if reasons.is_empty() {
        reasons.push(Reason::waits("about_to_run", "it is about to be granted"));
    }
    reasons
}

fn can(seat: &Seat, work: &QueuedWork, wanted: Match) -> bool {
    can_carry_out(&seat.capabilities, work, wanted)
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
pub fn why_idle(seat: &Seat, queue: &[QueuedWork], seats: &[Seat]) -> Vec<Reason> {
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
        WorkerState::Gone | WorkerState::Lost => {
            return vec![Reason::new("absent", "it is not there any more", "start it again")];
        }
        WorkerState::Active => {}
    }
    if seat.n_held >= seat.n_slots {
        let message = format!("all of its {} slots are taken", seat.n_slots);
        return vec![Reason::waits("busy", message)];
    }
    if seat.n_free_slots == 0 {
        return vec![Reason::new(
            "no_poll",
            "it does not ask for work at the moment: its trainers start, or it is cut off",
            "look into its log when this lasts",
        )];
    }
    if queue.is_empty() {
        return vec![Reason::waits("no_work", "nothing is queued")];
    }
    let n_able = queue.iter().filter(|work| can(seat, work, Match::Recipe)).count();
    if n_able == 0 {
        let message = format!("it knows the recipe of none of the {} queued", queue.len());
        return vec![Reason::new("no_recipe", message, "start a worker of a newer build")];
    }
    // As the policy has it: only while some machine rounds alike does a run wait for one.
    let is_bound_elsewhere = |work: &QueuedWork| {
        let active = |other: &&Seat| other.state == WorkerState::Active;
        !can(seat, work, Match::Numerics)
            && seats.iter().filter(active).any(|other| can(other, work, Match::Numerics))
    };
    if queue.iter().all(is_bound_elsewhere) {
        return vec![Reason::waits(
            "numerics",
            "all that is queued waits for machines that round as its first attempts did",
        )];
    }
    vec![Reason::waits("about_to_run", "it is about to be given work")]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(state: WorkerState, n_free_slots: u32) -> Seat {
        Seat {
            worker: "w_a".parse().unwrap(),
            state,
            n_slots: 2,
            n_held: 2 - n_free_slots,
            n_free_slots,
            capabilities: Capabilities::of_a_cpu(1),
        }
    }

    fn work() -> QueuedWork {
        QueuedWork {
            work: "r_1".parse().unwrap(),
            priority: 0,
            cost_flops: 1.0,
            recipe: Some("pretrain".into()),
            numerics: None,
        }
    }

    #[track_caller]
    fn check(work: &QueuedWork, n_ahead: u64, seats: &[Seat], codes: &[&str]) {
        let reasons = why_not_placed(work, n_ahead, seats);
        let found: Vec<&str> = reasons.iter().map(|reason| reason.code).collect();
        assert_eq!(found, codes, "{reasons:?}");
    }

    #[test]
    fn every_reason_of_queued_work_is_named() {
        check(&work(), 0, &[], &["no_worker"]);
        let seats = [seat(WorkerState::Joining, 0), seat(WorkerState::Draining, 1)];
        check(&work(), 0, &seats, &["no_active_worker"]);
        let other = QueuedWork { recipe: Some("quantize".into()), ..work() };
        check(&other, 0, &[seat(WorkerState::Active, 2)], &["no_recipe"]);
        check(&work(), 3, &[seat(WorkerState::Active, 0)], &["no_free_slot", "not_its_turn"]);
        check(&work(), 0, &[seat(WorkerState::Active, 1)], &["about_to_run"]);
    }

    #[test]
    fn a_run_waits_for_the_machine_of_its_first_attempt_only_while_there_is_one() {
        let bound = QueuedWork { numerics: Some(Numerics::of_a_cpu(4)), ..work() };
        let other = seat(WorkerState::Active, 2);
        let alike =
            Seat { capabilities: Capabilities::of_a_cpu(4), ..seat(WorkerState::Active, 0) };
        check(&bound, 0, &[other.clone(), alike], &["numerics", "no_free_slot"]);
        check(&bound, 0, &[other], &["about_to_run"]);
    }

    #[track_caller]
    fn check_worker(seat: &Seat, queue: &[QueuedWork], code: &str) {
        assert_eq!(why_idle(seat, queue, std::slice::from_ref(seat))[0].code, code);
    }

    #[test]
    fn every_reason_of_a_worker_is_named() {
        check_worker(&seat(WorkerState::Joining, 0), &[], "joining");
        check_worker(&seat(WorkerState::Draining, 0), &[], "draining");
        check_worker(&seat(WorkerState::Lost, 0), &[], "absent");
        check_worker(&seat(WorkerState::Active, 0), &[work()], "busy");
        let silent = Seat { n_held: 0, ..seat(WorkerState::Active, 0) };
        check_worker(&silent, &[work()], "no_poll");
        check_worker(&seat(WorkerState::Active, 1), &[], "no_work");
        let other = QueuedWork { recipe: Some("quantize".into()), ..work() };
        check_worker(&seat(WorkerState::Active, 1), &[other], "no_recipe");
        let bound = QueuedWork { numerics: Some(Numerics::of_a_cpu(4)), ..work() };
        let free = seat(WorkerState::Active, 1);
        let alike =
            Seat { capabilities: Capabilities::of_a_cpu(4), ..seat(WorkerState::Active, 0) };
        let reasons = why_idle(&free, std::slice::from_ref(&bound), &[free.clone(), alike]);
        assert_eq!(reasons[0].code, "numerics");
        check_worker(&free, &[bound], "about_to_run");
        check_worker(&seat(WorkerState::Active, 1), &[work()], "about_to_run");
    }
}
