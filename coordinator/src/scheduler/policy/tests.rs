//! The policy over small tables, and its promises over random snapshots.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn seat(worker: &str, n_free_slots: u32, threads: u32) -> FreeWorker {
    let worker = worker.parse().unwrap();
    FreeWorker { worker, n_free_slots, capabilities: Capabilities::of_a_cpu(threads) }
}

fn queued(work: &str, priority: i32, cost_flops: f64) -> QueuedWork {
    let work = work.parse().unwrap();
    QueuedWork { work, priority, cost_flops, recipe: Some("pretrain".into()), numerics: None }
}

fn snapshot(queue: Vec<QueuedWork>, free: Vec<FreeWorker>) -> Snapshot {
    let live = free.iter().map(|seat| seat.capabilities.clone()).collect();
    Snapshot { queue, free, live }
}

#[track_caller]
fn check(snapshot: &Snapshot, expected: &[(&str, &str)]) {
    let placed: Vec<(String, String)> =
        place(snapshot).iter().map(|p| (p.work.to_string(), p.worker.to_string())).collect();
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
    other.recipe = Some("summarize".into());
    let queue = vec![other, queued("r_2", 0, 1.0)];
    check(&snapshot(queue, vec![seat("w_a", 1, 1)]), &[("r_2", "w_a")]);
}

#[test]
fn a_run_waits_for_a_machine_that_rounds_as_its_first_attempt_did() {
    let mut run = queued("r_1", 0, 1.0);
    run.numerics = Some(Numerics::of_a_cpu(4));
    let mut snapshot = snapshot(vec![run], vec![seat("w_a", 1, 1)]);
    snapshot.live.push(Capabilities::of_a_cpu(4));
    check(&snapshot, &[]);
    snapshot.free.push(seat("w_b", 1, 4));
    check(&snapshot, &[("r_1", "w_b")]);
}

#[test]
fn without_any_such_machine_any_that_knows_the_recipe_will_do() {
    let mut run = queued("r_1", 0, 1.0);
    run.numerics = Some(Numerics::of_a_cpu(4));
    check(&snapshot(vec![run], vec![seat("w_a", 1, 1)]), &[("r_1", "w_a")]);
}

fn any_work() -> impl Strategy<Value = QueuedWork> {
    let prefix = prop_oneof![Just("r"), Just("e"), Just("p")];
    let threads = proptest::option::of(1_u32..4);
    (prefix, 0_u32..30, -2_i32..3, 0.0_f64..10.0, threads).prop_map(
        |(prefix, id, priority, cost_flops, threads)| QueuedWork {
            numerics: threads.map(Numerics::of_a_cpu),
            ..queued(&format!("{prefix}_{id}"), priority, cost_flops)
        },
    )
}

fn any_snapshot() -> impl Strategy<Value = Snapshot> {
    let seats = proptest::collection::btree_map(0_u32..6, (0_u32..4, 1_u32..4), 0..6);
    let busy = proptest::collection::vec((1_u32..4).prop_map(Capabilities::of_a_cpu), 0..3);
    (proptest::collection::vec(any_work(), 0..40), seats, busy).prop_map(|(queue, seats, busy)| {
        let mut seen = BTreeSet::new();
        let queue = queue.into_iter().filter(|work| seen.insert(work.work.clone())).collect();
        let free = seats
            .into_iter()
            .map(|(id, (slots, threads))| seat(&format!("w_{id}"), slots, threads))
            .collect();
        let mut snapshot = snapshot(queue, free);
        snapshot.live.extend(busy);
        snapshot
    })
}

proptest! {
    #[test]
    fn no_slot_is_given_twice_and_no_work_is_placed_twice(snapshot in any_snapshot()) {
        let placements = place(&snapshot);
        let mut taken: BTreeMap<&WorkerId, u32> = BTreeMap::new();
        for placement in &placements {
            *taken.entry(&placement.worker).or_default() += 1;
        }
        for seat in &snapshot.free {
            prop_assert!(taken.get(&seat.worker).copied().unwrap_or(0) <= seat.n_free_slots);
        }
        let distinct: BTreeSet<&WorkId> = placements.iter().map(|p| &p.work).collect();
        prop_assert_eq!(distinct.len(), placements.len());
    }

    #[test]
    fn nothing_placeable_is_left_while_a_matching_slot_is_free(snapshot in any_snapshot()) {
        let placements = place(&snapshot);
        let mut free = snapshot.free.clone();
        for seat in &mut free {
            let n_taken = placements.iter().filter(|p| p.worker == seat.worker).count();
            seat.n_free_slots -= u32::try_from(n_taken).unwrap();
        }
        free.retain(|seat| seat.n_free_slots > 0);
        for work in &snapshot.queue {
            let is_placed = placements.iter().any(|p| p.work == work.work);
            prop_assert!(is_placed || best_seat(&free, work, Match::Numerics).is_none());
        }
    }

    #[test]
    fn numerics_change_only_when_no_live_machine_matches(snapshot in any_snapshot()) {
        for placement in place(&snapshot) {
            let work = snapshot.queue.iter().find(|w| w.work == placement.work).unwrap();
            let matches = |machine: &Capabilities| can_carry_out(machine, work, Match::Numerics);
            let seat = snapshot.free.iter().find(|seat| seat.worker == placement.worker).unwrap();
            prop_assert!(matches(&seat.capabilities) || !snapshot.live.iter().any(matches));
        }
    }
}
