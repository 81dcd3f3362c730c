//! Each reason, from a table of machines and work.

use std::collections::{BTreeMap, BTreeSet};

use domain::spec::DeviceKind;

use super::*;
use crate::scheduler::policy::Needs;
use crate::store::Capabilities;

fn seat(state: WorkerState, n_free_slots: u32) -> Seat {
    Seat {
        worker: "w_a".parse().unwrap(),
        state,
        n_held: 2 - n_free_slots,
        n_free_slots,
        n_silent_slots: 0,
        machine: Machine { n_slots: 2, capabilities: Capabilities::of_a_cpu(1) },
    }
}

fn of_threads(threads: u32, n_free_slots: u32) -> Seat {
    let machine = Machine { n_slots: 2, capabilities: Capabilities::of_a_cpu(threads) };
    Seat { machine, ..seat(WorkerState::Active, n_free_slots) }
}

fn work_that_needs(needs: Needs) -> QueuedWork {
    QueuedWork {
        work: "r_1".parse().unwrap(),
        priority: 0,
        cost_flops: 1e6,
        study: Some("s_1".parse().unwrap()),
        has_begun: false,
        needs: Needs { recipe: needs.recipe.or(Some("pretrain".into())), ..needs },
    }
}

fn work() -> QueuedWork {
    work_that_needs(Needs::default())
}

fn bound(threads: u32) -> QueuedWork {
    let numerics = Some(Numerics::of_a_cpu(threads));
    work_that_needs(Needs { numerics, ..Needs::default() })
}

fn for_another_recipe() -> QueuedWork {
    work_that_needs(Needs { recipe: Some("quantize".into()), ..Needs::default() })
}

fn too_large() -> QueuedWork {
    work_that_needs(Needs { memory_bytes: 3 << 30, ..Needs::default() })
}

fn excluded() -> QueuedWork {
    let excluded = BTreeMap::from([("w_a".to_owned(), Exclusion::Rule("Xid".to_owned()))]);
    work_that_needs(Needs { excluded, ..Needs::default() })
}

fn on_cuda() -> StudyTerms {
    let placement = PlacementSpec { device: Some(DeviceKind::Cuda), ..PlacementSpec::default() };
    StudyTerms { placement, ..StudyTerms::default() }
}

fn without_budget() -> StudyTerms {
    StudyTerms { budget_left_flops: Some(1e5), ..StudyTerms::default() }
}

#[track_caller]
fn check(work: &QueuedWork, terms: &StudyTerms, n_ahead: u64, seats: &[Seat], codes: &[&str]) {
    let reasons = why_not_placed(Case { work, terms, n_ahead, kept: None }, seats);
    let found: Vec<&str> = reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(found, codes, "{reasons:?}");
}

#[test]
fn every_reason_of_queued_work_is_named() {
    let usual = StudyTerms::default();
    check(&work(), &usual, 0, &[], &["no_worker"]);
    let seats = [seat(WorkerState::Joining, 0), seat(WorkerState::Draining, 1)];
    check(&work(), &usual, 0, &seats, &["no_active_worker"]);
    let free = [seat(WorkerState::Active, 2)];
    check(&for_another_recipe(), &usual, 0, &free, &["no_recipe"]);
    check(&work(), &on_cuda(), 0, &free, &["placement"]);
    check(&too_large(), &usual, 0, &free, &["memory"]);
    check(&excluded(), &usual, 0, &free, &["excluded"]);
    check(&work(), &without_budget(), 0, &free, &["over_budget"]);
    let busy = [seat(WorkerState::Active, 0)];
    check(&work(), &usual, 3, &busy, &["no_free_slot", "not_its_turn"]);
    check(&work(), &usual, 0, &free, &["about_to_run"]);
}

/// The policy waits for a machine that rounds alike also while its trainers do not start.
#[test]
fn a_run_that_waits_for_trainers_that_do_not_start_is_told_so() {
    let silent = Seat { n_silent_slots: 2, ..of_threads(4, 0) };
    let other = Seat { worker: "w_b".parse().unwrap(), ..of_threads(1, 2) };
    let usual = StudyTerms::default();
    check(&bound(4), &usual, 0, &[silent, other], &["numerics", "no_trainer"]);
}

fn in_gangs(slots: u32) -> StudyTerms {
    let placement = PlacementSpec { slots: Some(slots), ..PlacementSpec::default() };
    StudyTerms { placement, ..StudyTerms::default() }
}

fn kept_for(work: &str) -> Reservation {
    Reservation {
        work: work.parse().unwrap(),
        n_needed: 2,
        n_free: 1,
        workers: vec!["w_a".parse().unwrap()],
        lets_pass_flops: 0.0,
        n_lets_pass: 2,
    }
}

#[test]
fn a_gang_is_told_what_it_waits_for_and_others_that_they_wait_for_it() {
    let half_free = [seat(WorkerState::Active, 1)];
    check(&work(), &in_gangs(3), 0, &half_free, &["gang_too_large"]);
    check(&work(), &in_gangs(2), 0, &half_free, &["gang"]);
    check(&work(), &in_gangs(2), 0, &[seat(WorkerState::Active, 2)], &["about_to_run"]);
    let alike = [seat(WorkerState::Active, 1), of_threads(4, 1)];
    check(&work(), &in_gangs(3), 0, &alike, &["gang_too_large"]);
    let why = |work: &QueuedWork, terms: &StudyTerms, kept: &Reservation| {
        let case = Case { work, terms, n_ahead: 0, kept: Some(kept) };
        why_not_placed(case, &half_free).remove(0)
    };
    let own = why(&work(), &in_gangs(2), &kept_for("r_1"));
    assert_eq!((own.code, own.message.contains("kept for it")), ("gang", true), "{own:?}");
    let others = why(&work(), &StudyTerms::default(), &kept_for("r_2"));
    assert_eq!((others.code, others.message.contains("`r_2`")), ("reserved", true), "{others:?}");
    let queue = head(vec![work()], StudyTerms::default());
    let idle = why_idle(&half_free[0], &queue, &half_free, Some(&kept_for("r_2")));
    assert_eq!(idle[0].code, "reserved");
}

#[test]
fn what_a_study_says_of_memory_replaces_the_estimate() {
    let free = [seat(WorkerState::Active, 2)];
    let says = |memory_bytes| StudyTerms {
        placement: PlacementSpec { memory_bytes: Some(memory_bytes), ..PlacementSpec::default() },
        ..StudyTerms::default()
    };
    check(&too_large(), &says(0), 0, &free, &["about_to_run"]);
    check(&too_large(), &says(1 << 29), 0, &free, &["about_to_run"]);
    check(&too_large(), &says((1 << 29) + 1), 0, &free, &["memory"]);
}

#[test]
fn a_run_that_was_begun_is_in_the_budget_already() {
    let begun = QueuedWork { has_begun: true, ..work() };
    check(&begun, &without_budget(), 0, &[seat(WorkerState::Active, 2)], &["about_to_run"]);
}

#[test]
fn a_run_waits_for_the_machine_of_its_first_attempt_only_while_there_is_one() {
    let usual = StudyTerms::default();
    let other = seat(WorkerState::Active, 2);
    let seats = [other.clone(), of_threads(4, 0)];
    check(&bound(4), &usual, 0, &seats, &["numerics", "no_free_slot"]);
    check(&bound(4), &usual, 0, &[other], &["about_to_run"]);
}

fn failed_on_a() -> QueuedWork {
    let failed = Exclusion::Failed { failed: "worker_lost".to_owned() };
    let excluded = BTreeMap::from([("w_a".to_owned(), failed)]);
    work_that_needs(Needs { excluded, ..Needs::default() })
}

#[test]
fn work_waits_for_a_machine_where_it_has_not_failed_only_while_there_is_one() {
    let usual = StudyTerms::default();
    let sick = seat(WorkerState::Active, 2);
    let other = Seat { worker: "w_b".parse().unwrap(), ..seat(WorkerState::Active, 0) };
    let seats = [sick.clone(), other];
    check(&failed_on_a(), &usual, 0, &seats, &["avoided", "no_free_slot"]);
    check(&failed_on_a(), &usual, 0, std::slice::from_ref(&sick), &["about_to_run"]);
    let reasons = why_idle(&sick, &head(vec![failed_on_a()], usual.clone()), &seats, None);
    assert_eq!(reasons[0].code, "avoided", "{reasons:?}");
    check_worker(&sick, vec![failed_on_a()], usual, "about_to_run");
}

fn head(work: Vec<QueuedWork>, terms: StudyTerms) -> QueueHead {
    let studies = BTreeMap::from([("s_1".parse().unwrap(), terms)]);
    QueueHead { work, studies, is_cut: false }
}

#[track_caller]
fn check_worker(seat: &Seat, queue: Vec<QueuedWork>, terms: StudyTerms, code: &str) {
    let reasons = why_idle(seat, &head(queue, terms), std::slice::from_ref(seat), None);
    assert_eq!(reasons[0].code, code, "{reasons:?}");
}

#[test]
fn every_reason_of_a_worker_is_named() {
    let usual = StudyTerms::default;
    check_worker(&seat(WorkerState::Joining, 0), vec![], usual(), "joining");
    check_worker(&seat(WorkerState::Draining, 0), vec![], usual(), "draining");
    check_worker(&seat(WorkerState::Lost { is_drained: false }, 0), vec![], usual(), "absent");
    check_worker(&seat(WorkerState::Active, 0), vec![work()], usual(), "busy");
    let silent = Seat { n_held: 0, ..seat(WorkerState::Active, 0) };
    check_worker(&silent, vec![work()], usual(), "no_poll");
    let free = seat(WorkerState::Active, 1);
    check_worker(&free, vec![], usual(), "no_work");
    check_worker(&free, vec![for_another_recipe()], usual(), "no_recipe");
    check_worker(&free, vec![work()], on_cuda(), "placement");
    check_worker(&free, vec![too_large()], usual(), "memory");
    check_worker(&free, vec![excluded()], usual(), "excluded");
    let queue = head(vec![bound(4)], usual());
    let reasons = why_idle(&free, &queue, &[free.clone(), of_threads(4, 0)], None);
    assert_eq!(reasons[0].code, "numerics");
    check_worker(&free, vec![bound(4)], usual(), "about_to_run");
    check_worker(&free, vec![work()], usual(), "about_to_run");
    check_worker(&free, vec![work()], in_gangs(3), "gang_too_large");
    check_worker(&seat(WorkerState::Active, 2), vec![work()], in_gangs(2), "about_to_run");
}

/// The codes that stand in the code, where a reason is made or listed.
fn codes_of(source: &str) -> BTreeSet<&str> {
    let marks = ["Reason::new(", "Reason::waits(", "Match::Recipe,", "Match::Placement,"];
    let marks = marks.into_iter().chain(["Match::Memory,", "Match::Machine,"]);
    let after = marks.flat_map(|mark| source.split(mark).skip(1));
    let quoted = after.filter_map(|rest| rest.trim_start().strip_prefix('"'));
    quoted.filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
}

#[test]
fn the_page_lists_every_reason_and_no_other() {
    let mut codes = codes_of(include_str!("../explain.rs"));
    codes.extend(codes_of(include_str!("../../http/explain.rs")));
    let page = include_str!("../../../../docs/concepts/execution.md");
    let (_, section) = page.split_once("## Why is it not running?").unwrap();
    let cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let listed: BTreeSet<&str> = cells.flat_map(|cell| cell.split('`').step_by(2)).collect();
    assert_eq!(codes, listed);
}
