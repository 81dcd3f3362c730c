//! The policy over small tables, and its promises over random snapshots.

use std::collections::{BTreeMap, BTreeSet};

use domain::spec::DeviceKind;
use proptest::prelude::*;

use super::super::fit::{Match, can_carry_out};
use super::*;
use crate::store::{Capabilities, Numerics};

mod gangs;

fn place(snapshot: &Snapshot) -> Vec<Placement> {
    decide(snapshot).placements
}

fn seat(worker: &str, n_free_slots: u32, threads: u32) -> FreeWorker {
    let worker = worker.parse().unwrap();
    // No worker has more free slots than slots.
    let mut machine = machine(threads);
    machine.n_slots = machine.n_slots.max(n_free_slots);
    machine.capabilities.memory_bytes = u64::from(machine.n_slots) << 29;
    FreeWorker { worker, n_free_slots, machine }
}

/// With slots of half a gibibyte.
fn machine(threads: u32) -> Machine {
    Machine { n_slots: 2, capabilities: Capabilities::of_a_cpu(threads) }
}

fn queued(work: &str, priority: i32, cost_flops: f64) -> QueuedWork {
    let work = work.parse().unwrap();
    let needs = Needs { recipe: Some("pretrain".into()), ..Needs::default() };
    QueuedWork { work, priority, cost_flops, study: None, has_begun: false, needs }
}

fn snapshot(work: Vec<QueuedWork>, free: Vec<FreeWorker>) -> Snapshot {
    let live = free.iter().map(|seat| (seat.worker.clone(), seat.machine.clone())).collect();
    let queue = QueueHead { work, ..QueueHead::default() };
    Snapshot { queue, free, live, ..Snapshot::default() }
}

fn names(workers: &[WorkerId]) -> String {
    workers.iter().map(WorkerId::as_str).collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn check(snapshot: &Snapshot, expected: &[(&str, &str)]) {
    let placed: Vec<(String, String)> =
        place(snapshot).iter().map(|p| (p.work.to_string(), names(&p.workers))).collect();
    let expected: Vec<(String, String)> =
        expected.iter().map(|(work, worker)| ((*work).into(), (*worker).into())).collect();
    assert_eq!(placed, expected);
}

#[test]
fn priority_goes_before_kind_and_kind_before_length() {
    let queue = vec![
        queued("r_short", 0, 1.0),
        queued("r_long", 0, 9.0),
        queued("e_1", 0, 0.0),
        queued("r_first", 5, 0.5),
    ];
    let all = [("r_first", "w_a"), ("e_1", "w_a"), ("r_long", "w_a"), ("r_short", "w_a")];
    check(&snapshot(queue.clone(), vec![seat("w_a", 9, 1)]), &all);
    check(&snapshot(queue, vec![seat("w_a", 2, 1)]), &all[..2]);
}

#[test]
fn the_load_spreads_over_the_workers() {
    let queue = vec![queued("r_1", 0, 2.0), queued("r_2", 0, 1.0)];
    let free = vec![seat("w_a", 2, 1), seat("w_b", 2, 1)];
    check(&snapshot(queue, free), &[("r_1", "w_a"), ("r_2", "w_b")]);
}

#[test]
fn work_of_an_unknown_recipe_waits_and_holds_nothing_up() {
    let mut other = queued("r_1", 9, 1.0);
    other.needs.recipe = Some("summarize".into());
    let queue = vec![other, queued("r_2", 0, 1.0)];
    check(&snapshot(queue, vec![seat("w_a", 1, 1)]), &[("r_2", "w_a")]);
}

#[test]
fn a_run_waits_for_a_machine_that_rounds_as_its_first_attempt_did() {
    let mut run = queued("r_1", 0, 1.0);
    run.needs.numerics = Some(Numerics::of_a_cpu(4));
    let mut snapshot = snapshot(vec![run], vec![seat("w_a", 1, 1)]);
    snapshot.live.push(("w_z".parse().unwrap(), machine(4)));
    check(&snapshot, &[]);
    snapshot.free.push(seat("w_b", 1, 4));
    check(&snapshot, &[("r_1", "w_b")]);
}

#[test]
fn without_any_such_machine_any_that_knows_the_recipe_will_do() {
    let mut run = queued("r_1", 0, 1.0);
    run.needs.numerics = Some(Numerics::of_a_cpu(4));
    check(&snapshot(vec![run], vec![seat("w_a", 1, 1)]), &[("r_1", "w_a")]);
}

#[test]
fn a_study_that_asks_for_labels_has_the_workers_that_have_them_all() {
    let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let labelled = |worker: &str, n_free_slots, pairs: &[(&str, &str)]| {
        let mut seat = seat(worker, n_free_slots, 1);
        seat.machine.capabilities.labels = labels(pairs);
        seat
    };
    let free = vec![
        labelled("w_none", 9, &[]),
        labelled("w_other", 9, &[("pool", "day"), ("zone", "a")]),
        labelled("w_part", 9, &[("pool", "night")]),
        labelled("w_all", 1, &[("pool", "night"), ("zone", "a"), ("more", "yes")]),
    ];
    let queue = vec![of_study("r_1", "s_a", 2.0), of_study("r_2", "s_a", 1.0)];
    let mut snapshot = snapshot(queue, free);
    let (study, mut terms) = terms(("s_a", "ada", 1.0));
    terms.placement.labels = labels(&[("pool", "night"), ("zone", "a")]);
    snapshot.queue.studies.insert(study, terms);
    check(&snapshot, &[("r_1", "w_all")]);
}

/// Aim: a machine that is always idle, because all fails on it at once, is not given the same
/// again.
#[test]
fn work_goes_where_it_has_not_failed_as_long_as_there_is_such_a_machine() {
    let failed = Exclusion::Failed { failed: "worker_lost".to_owned() };
    let mut run = queued("r_1", 0, 1.0);
    run.needs.excluded = BTreeMap::from([("w_a".to_owned(), failed)]);
    let both = snapshot(vec![run.clone()], vec![seat("w_a", 4, 1), seat("w_b", 1, 1)]);
    check(&both, &[("r_1", "w_b")]);
    // The other is busy: it is waited for.
    let mut busy = snapshot(vec![run.clone()], vec![seat("w_a", 4, 1)]);
    busy.live.push(both.live[1].clone());
    check(&busy, &[]);
    check(&snapshot(vec![run], vec![seat("w_a", 4, 1)]), &[("r_1", "w_a")]);
}

fn any_work() -> impl Strategy<Value = QueuedWork> {
    let prefix = prop_oneof![Just("r"), Just("e"), Just("p")];
    let threads = proptest::option::of(1_u32..4);
    let memory = prop_oneof![3 => Just(0_u64), 1 => Just(1_u64 << 29), 1 => Just(1_u64 << 30)];
    let excluded = proptest::option::weighted(0.2, 0_u32..6);
    let needs = (threads, memory, excluded).prop_map(|(threads, memory_bytes, excluded)| Needs {
        recipe: Some("pretrain".into()),
        numerics: threads.map(Numerics::of_a_cpu),
        memory_bytes,
        excluded: excluded
            .map(|id| (format!("w_{id}"), Exclusion::Rule("Xid".to_owned())))
            .into_iter()
            .collect(),
    });
    let study = proptest::option::weighted(0.9, 1_u32..4);
    let cost = 0_u32..10;
    (prefix, 0_u32..30, -2_i32..3, cost, study, any::<bool>(), needs).prop_map(
        |(prefix, id, priority, cost, study, has_begun, needs)| QueuedWork {
            study: study
                .filter(|_| prefix != "p")
                .map(|study| format!("s_{study}").parse().unwrap()),
            has_begun,
            needs,
            ..queued(&format!("{prefix}_{id}"), priority, f64::from(cost))
        },
    )
}

fn any_terms() -> impl Strategy<Value = StudyTerms> {
    let user = prop_oneof![Just("ada"), Just("bob")];
    let device = proptest::option::weighted(0.1, Just(DeviceKind::Cuda));
    let budget = proptest::option::of(0_u32..30);
    let slots = proptest::option::weighted(0.3, 1_u32..4);
    let all = (user, 1_u32..4, budget, device, slots);
    all.prop_map(|(user, weight, budget, device, slots)| StudyTerms {
        user: user.into(),
        weight: f64::from(weight),
        budget_left_flops: budget.map(f64::from),
        placement: PlacementSpec { device, slots, ..PlacementSpec::default() },
    })
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let seats = proptest::collection::btree_map(0_u32..6, (0_u32..4, 1_u32..4), 0..6);
    let busy = proptest::collection::vec((1_u32..4).prop_map(machine), 0..3);
    let studies = proptest::collection::btree_map(1_u32..4, any_terms(), 0..4);
    let work = proptest::collection::vec(any_work(), 0..40);
    (work, studies, seats, busy).prop_map(|(work, studies, seats, busy)| {
        let mut seen = BTreeSet::new();
        let work = work.into_iter().filter(|work| seen.insert(work.work.clone())).collect();
        let free = seats
            .into_iter()
            .map(|(id, (slots, threads))| seat(&format!("w_{id}"), slots, threads))
            .collect();
        let mut snapshot = snapshot(work, free);
        let studies = studies.into_iter().map(|(id, terms)| (format!("s_{id}"), terms));
        snapshot.queue.studies =
            studies.map(|(study, terms)| (study.parse().unwrap(), terms)).collect();
        let busy = (10..).zip(busy).map(|(id, busy)| (format!("w_{id}").parse().unwrap(), busy));
        snapshot.live.extend(busy);
        snapshot
    })
}

/// The work of a placement, and what its study says.
fn looked_up<'a>(snapshot: &'a Snapshot, work: &WorkId) -> (&'a QueuedWork, StudyTerms) {
    let work = snapshot.queue.work.iter().find(|queued| queued.work == *work).unwrap();
    (work, snapshot.terms(work, &StudyTerms::default()).clone())
}

fn suits(seat: &FreeWorker, work: &QueuedWork, terms: &StudyTerms, wanted: Match) -> bool {
    can_carry_out((&seat.worker, &seat.machine), &work.needs, &terms.placement, wanted)
}

/// What is left of each study's budget after these placements.
fn budgets_after(snapshot: &Snapshot, placements: &[Placement]) -> BTreeMap<StudyId, f64> {
    let studies = snapshot.queue.studies.iter();
    let mut left: BTreeMap<StudyId, f64> = studies
        .filter_map(|(study, terms)| Some((study.clone(), terms.budget_left_flops?)))
        .collect();
    for placement in placements {
        let (work, _) = looked_up(snapshot, &placement.work);
        if let (WorkId::Run(_), Some(study), false) = (&work.work, &work.study, work.has_begun)
            && let Some(left) = left.get_mut(study)
        {
            *left -= work.cost_flops;
        }
    }
    left
}

proptest! {
    #[test]
    fn no_slot_is_given_twice_and_no_work_is_placed_twice(snapshot in any_snapshot()) {
        let placements = place(&snapshot);
        let mut taken: BTreeMap<&WorkerId, u32> = BTreeMap::new();
        for worker in placements.iter().flat_map(|placement| &placement.workers) {
            *taken.entry(worker).or_default() += 1;
        }
        for seat in &snapshot.free {
            prop_assert!(taken.get(&seat.worker).copied().unwrap_or(0) <= seat.n_free_slots);
        }
        let distinct: BTreeSet<&WorkId> = placements.iter().map(|p| &p.work).collect();
        prop_assert_eq!(distinct.len(), placements.len());
    }

    #[test]
    fn work_goes_to_machines_that_are_fit_for_it(snapshot in any_snapshot()) {
        for placement in place(&snapshot) {
            let (work, terms) = looked_up(&snapshot, &placement.work);
            for worker in &placement.workers {
                let seat = snapshot.free.iter().find(|seat| seat.worker == *worker).unwrap();
                prop_assert!(suits(seat, work, &terms, Match::Machine), "{work:?} on {seat:?}");
            }
        }
    }

    #[test]
    fn a_gang_has_all_its_slots_on_machines_that_round_alike(snapshot in any_snapshot()) {
        for placement in place(&snapshot) {
            let (work, terms) = looked_up(&snapshot, &placement.work);
            let n_slots = match work.work {
                WorkId::Run(_) => terms.placement.slots.unwrap_or(1),
                _ => 1,
            };
            prop_assert_eq!(placement.workers.len(), n_slots as usize);
            let threads = placement.workers.iter().map(|worker| {
                let seat = snapshot.free.iter().find(|seat| seat.worker == *worker).unwrap();
                seat.machine.capabilities.threads_per_slot
            });
            let distinct: BTreeSet<u32> = threads.collect();
            prop_assert_eq!(distinct.len(), 1);
        }
    }

    #[test]
    fn no_study_begins_more_than_its_budget(snapshot in any_snapshot()) {
        for (study, left) in budgets_after(&snapshot, &place(&snapshot)) {
            prop_assert!(left >= -1e-6, "{study}: {left}");
        }
    }

    #[test]
    fn nothing_placeable_is_left_while_a_matching_slot_is_free(snapshot in any_snapshot()) {
        let Decision { placements, reservation } = decide(&snapshot);
        let budgets = budgets_after(&snapshot, &placements);
        let mut free = snapshot.free.clone();
        for seat in &mut free {
            let taken = placements.iter().flat_map(|p| &p.workers);
            let n_taken = taken.filter(|worker| **worker == seat.worker).count();
            seat.n_free_slots -= u32::try_from(n_taken).unwrap();
        }
        let kept = reservation.map(|kept| kept.workers).unwrap_or_default();
        free.retain(|seat| seat.n_free_slots > 0 && !kept.contains(&seat.worker));
        for work in &snapshot.queue.work {
            let (_, terms) = looked_up(&snapshot, &work.work);
            let left = work.study.as_ref().and_then(|study| budgets.get(study));
            let is_short = !matches!(work.work, WorkId::Run(_)) || work.has_begun;
            let is_afforded = is_short || left.is_none_or(|left| work.cost_flops <= *left);
            let seats = free.iter().filter(|seat| suits(seat, work, &terms, Match::Numerics));
            let mut n_alike: BTreeMap<u32, u32> = BTreeMap::new();
            for seat in seats {
                let threads = seat.machine.capabilities.threads_per_slot;
                *n_alike.entry(threads).or_default() += seat.n_free_slots;
            }
            let n_slots = n_slots(work, &terms);
            let has_seat = n_alike.values().any(|n_free| *n_free >= n_slots);
            let is_placed = placements.iter().any(|p| p.work == work.work);
            prop_assert!(is_placed || !is_afforded || !has_seat, "{work:?}");
        }
    }

    #[test]
    fn numerics_change_only_when_no_live_machine_matches(snapshot in any_snapshot()) {
        for placement in place(&snapshot) {
            let (work, terms) = looked_up(&snapshot, &placement.work);
            let matches = |(worker, machine): &(WorkerId, Machine)| {
                let (needs, wanted) = (&work.needs, Match::Numerics);
                can_carry_out((worker, machine), needs, &terms.placement, wanted)
            };
            let first = &placement.workers[0];
            let seat = snapshot.free.iter().find(|seat| seat.worker == *first).unwrap();
            let is_alike = matches(&(seat.worker.clone(), seat.machine.clone()));
            // A gang waits only for as many slots as there are.
            let alike = snapshot.live.iter().filter(|live| matches(live));
            let n_slots_alike: u32 = alike.clone().map(|(_, machine)| machine.n_slots).sum();
            let is_enough = match n_slots(work, &terms) {
                1 => alike.count() > 0,
                n_slots => n_slots_alike >= n_slots,
            };
            prop_assert!(is_alike || !is_enough);
        }
    }

    #[test]
    fn the_order_of_the_snapshot_changes_nothing(snapshot in any_snapshot(), by in 0_usize..40) {
        let mut turned = snapshot.clone();
        let n = turned.queue.work.len().max(1);
        turned.queue.work.rotate_left(by % n);
        turned.free.reverse();
        prop_assert_eq!(decide(&turned), decide(&snapshot));
    }

    #[test]
    fn what_a_page_of_the_queue_is_left_without_changes_nothing(
        snapshot in any_snapshot(),
        n_before in 0_usize..40,
    ) {
        let mut read = snapshot.clone();
        let work = read.queue.work.split_off(n_before.min(read.queue.work.len()));
        let studies = read.queue.studies.clone();
        read.read_on(QueueHead { work, studies, is_cut: false });
        prop_assert_eq!(decide(&read), decide(&snapshot));
    }

    #[test]
    fn what_has_a_lower_priority_is_placed_only_when_a_higher_one_fits_nowhere(
        snapshot in any_snapshot(),
    ) {
        let placements = place(&snapshot);
        let priority = |placement: &Placement| looked_up(&snapshot, &placement.work).0.priority;
        let placed: Vec<i32> = placements.iter().map(priority).collect();
        prop_assert!(placed.is_sorted_by(|a, b| a >= b), "{placed:?}");
    }
}

fn of_study(work: &str, study: &str, cost_flops: f64) -> QueuedWork {
    QueuedWork { study: Some(study.parse().unwrap()), ..queued(work, 0, cost_flops) }
}

/// A study of a user with a weight.
fn terms((study, user, weight): (&str, &str, f64)) -> (StudyId, StudyTerms) {
    let user = user.into();
    (study.parse().unwrap(), StudyTerms { user, weight, ..StudyTerms::default() })
}

#[test]
fn studies_take_turns_by_weight_and_the_longest_of_each_goes_first() {
    let mut queue = Vec::new();
    for n in 0..8_u32 {
        queue.push(of_study(&format!("r_a{n}"), "s_a", 100.0 - f64::from(n)));
        queue.push(of_study(&format!("r_b{n}"), "s_b", 9.0 - f64::from(n)));
    }
    let mut snapshot = snapshot(queue, vec![seat("w_a", 8, 1)]);
    snapshot.queue.studies = [("s_a", "", 3.0), ("s_b", "", 1.0)].map(terms).into();
    let placed = place(&snapshot);
    let works: Vec<&str> = placed.iter().map(|p| p.work.as_str()).collect();
    assert_eq!(works, ["r_a0", "r_b0", "r_a1", "r_a2", "r_a3", "r_b1", "r_a4", "r_a5"]);
}

#[test]
fn many_evaluations_of_one_study_keep_no_other_one_waiting() {
    let mut queue: Vec<QueuedWork> =
        (1..=9).map(|at| of_study(&format!("e_{at}"), "s_a", 0.0)).collect();
    queue.extend([of_study("r_a", "s_a", 9.0), of_study("r_b", "s_b", 1.0)]);
    queue.push(of_study("r_c", "s_b", 2.0));
    queue.push(queued("p_1", 0, 0.0));
    let mut snapshot = snapshot(queue, vec![seat("w_a", 5, 1)]);
    snapshot.queue.studies = [("s_a", "ada", 1.0), ("s_b", "bob", 1.0)].map(terms).into();
    let placed = ["p_1", "e_1", "r_c", "e_2", "r_b"].map(|work| (work, "w_a"));
    check(&snapshot, &placed);
}

#[test]
fn users_take_turns_however_many_studies_each_has() {
    let mut queue = Vec::new();
    for n in 0..4_u32 {
        for study in ["a", "b", "c"] {
            queue.push(of_study(&format!("r_{study}{n}"), &format!("s_{study}"), f64::from(9 - n)));
        }
    }
    let mut snapshot = snapshot(queue, vec![seat("w_a", 8, 1)]);
    let studies = [("s_a", "ada", 1.0), ("s_b", "ada", 1.0), ("s_c", "bob", 1.0)];
    snapshot.queue.studies = studies.map(terms).into();
    let order = |snapshot: &Snapshot| {
        let works: Vec<String> = place(snapshot).iter().map(|p| p.work.to_string()).collect();
        works.join(" ")
    };
    assert_eq!(order(&snapshot), "r_a0 r_c0 r_b0 r_c1 r_a1 r_c2 r_b1 r_c3");
    snapshot.user_weights = BTreeMap::from([("ada".to_owned(), 3.0)]);
    assert_eq!(order(&snapshot), "r_a0 r_c0 r_b0 r_a1 r_b1 r_c1 r_a2 r_b2");
}

#[test]
fn a_budget_lets_shorter_runs_and_begun_ones_pass() {
    let mut queue: Vec<QueuedWork> =
        (1..6_u32).map(|n| of_study(&format!("r_{n}"), "s_a", f64::from(n))).collect();
    queue[4].has_begun = true;
    let mut snapshot = snapshot(queue, vec![seat("w_a", 8, 1)]);
    let (study, of_ada) = terms(("s_a", "ada", 1.0));
    let of_ada = StudyTerms { budget_left_flops: Some(6.0), ..of_ada };
    snapshot.queue.studies = BTreeMap::from([(study, of_ada)]);
    // 5 was begun; 4 and 2 make 6.
    check(&snapshot, &[("r_5", "w_a"), ("r_4", "w_a"), ("r_2", "w_a")]);
}

/// Aim: what a tick grants moves the turns on as if it had been granted one after the other.
#[test]
fn a_tick_of_many_grants_leaves_the_turns_that_it_decided_by() {
    let mut queue = Vec::new();
    for n in 0..20_u32 {
        queue.push(of_study(&format!("r_a{n}"), "s_a", 100.0 - f64::from(n)));
        queue.push(of_study(&format!("r_b{n}"), "s_b", 50.0 - f64::from(n)));
    }
    let mut snapshot = snapshot(queue, vec![seat("w_a", 4, 1)]);
    snapshot.queue.studies = [("s_a", "ada", 1.0), ("s_b", "bob", 1.0)].map(terms).into();
    let mut served = String::new();
    for _ in 0..5 {
        let placements = place(&snapshot);
        let mut turns = snapshot.turns.clone();
        snapshot.serve(&mut turns, placements.iter().map(|placement| &placement.work));
        snapshot.turns = turns;
        for placement in placements {
            served.push(char::from(placement.work.as_str().as_bytes()[2]));
            snapshot.queue.work.retain(|work| work.work != placement.work);
        }
    }
    assert_eq!(served, "ab".repeat(10));
}

/// Grants one run after the other as ticks do, each study with always the same runs queued; which
/// study each grant was for.
fn sequence(weights: &[u32], n_grants: usize) -> Vec<usize> {
    let name = |index: usize| format!("s_{index}");
    let queue = (0..weights.len()).map(|n| of_study(&format!("r_{n}"), &name(n), 1.0));
    let mut snapshot = snapshot(queue.collect(), vec![seat("w_a", 1, 1)]);
    let studies = weights.iter().enumerate();
    snapshot.queue.studies =
        studies.map(|(n, weight)| terms((&name(n), "", f64::from(*weight)))).collect();
    let mut served = Vec::new();
    for _ in 0..n_grants {
        let placement = place(&snapshot).remove(0);
        let mut turns = snapshot.turns.clone();
        snapshot.serve(&mut turns, std::iter::once(&placement.work));
        snapshot.turns = turns;
        served.push(
            (0..weights.len()).find(|n| placement.work.as_str() == format!("r_{n}")).unwrap(),
        );
    }
    served
}

proptest! {
    #[test]
    fn grants_converge_to_the_weights(weights in proptest::collection::vec(1_u32..9, 1..7)) {
        let n_grants = 300;
        let served = sequence(&weights, n_grants);
        let total: u32 = weights.iter().sum();
        for (index, weight) in weights.iter().enumerate() {
            let n = served.iter().filter(|study| **study == index).count() as f64;
            let fair = n_grants as f64 * f64::from(*weight) / f64::from(total);
            // Nobody is more than a turn of every study away from its share.
            prop_assert!((n - fair).abs() <= weights.len() as f64 + 1.0, "{n} of {fair}");
        }
    }

    #[test]
    fn nobody_waits_longer_than_the_bound(weights in proptest::collection::vec(1_u32..9, 1..7)) {
        let served = sequence(&weights, 300);
        for (index, own) in weights.iter().enumerate() {
            for (other, weight) in weights.iter().enumerate().filter(|(other, _)| *other != index) {
                let mut n_since = 0;
                for study in &served {
                    if *study == index { n_since = 0 }
                    n_since += u32::from(*study == other);
                    prop_assert!(n_since <= weight / own + 1, "{served:?}");
                }
            }
        }
    }
}
