//! Gangs: all their slots or none, what is kept for them, and how long they wait.

use proptest::prelude::*;

use super::*;

/// Runs of two studies: `s_g` takes so many slots at a time, `s_a` one.
fn with_gangs(work: Vec<QueuedWork>, free: Vec<FreeWorker>, slots: u32) -> Snapshot {
    let mut snapshot = snapshot(work, free);
    let (gang, mut of_gang) = terms(("s_g", "", 1.0));
    of_gang.placement.slots = Some(slots);
    snapshot.queue.studies = BTreeMap::from([(gang, of_gang), terms(("s_a", "", 1.0))]);
    snapshot
}

fn gang(cost_flops: f64) -> QueuedWork {
    QueuedWork { priority: 1, ..of_study("r_gang", "s_g", cost_flops) }
}

fn busy(worker: &str, flops_left: f64) -> BusySlot {
    BusySlot { worker: worker.parse().unwrap(), flops_left }
}

#[test]
fn a_gang_takes_all_its_slots_on_as_few_workers_as_it_can() {
    let free = vec![seat("w_a", 1, 1), seat("w_b", 2, 1), seat("w_c", 2, 1), seat("w_d", 2, 4)];
    check(&with_gangs(vec![gang(1.0)], free, 3), &[("r_gang", "w_b w_b w_c")]);
}

#[test]
fn machines_that_do_not_round_alike_make_no_gang() {
    let free = vec![seat("w_a", 2, 1), seat("w_b", 2, 4)];
    let decision = decide(&with_gangs(vec![gang(1.0)], free, 3));
    assert_eq!(decision, Decision::default(), "no class has three slots: nothing is kept for it");
}

/// Slots elsewhere are enough only where they are enough of one kind.
#[test]
fn a_gang_goes_back_to_where_it_failed_when_nowhere_else_has_it_whole() {
    let mut failed = gang(1.0);
    let why = Exclusion::Failed { failed: "bug".to_owned() };
    failed.needs.excluded = BTreeMap::from([("w_a".to_owned(), why)]);
    let machines = || vec![seat("w_a", 2, 1), seat("w_b", 2, 1), seat("w_c", 2, 4)];
    check(&with_gangs(vec![failed.clone()], machines(), 4), &[("r_gang", "w_a w_a w_b w_b")]);
    let mut more = machines();
    more.push(seat("w_d", 2, 1));
    check(&with_gangs(vec![failed], more, 4), &[("r_gang", "w_b w_b w_d w_d")]);
}

#[test]
fn what_is_free_is_kept_for_the_gang_that_waits_first() {
    let short = of_study("r_1", "s_a", 5.0);
    let mut snapshot = with_gangs(vec![gang(9.0), short], vec![seat("w_a", 1, 1)], 2);
    snapshot.busy = vec![busy("w_a", 4.0)];
    let decision = decide(&snapshot);
    assert_eq!(decision.placements, [], "5 FLOPs are not over when 4 are");
    let kept = decision.reservation.unwrap();
    assert_eq!((kept.n_free, kept.n_needed, names(&kept.workers).as_str()), (1, 2, "w_a"));
    // Another worker's slot is nothing to the gang as soon as it rounds differently.
    snapshot.free.push(seat("w_b", 1, 4));
    snapshot.live.push(("w_b".parse().unwrap(), machine(4)));
    check(&snapshot, &[("r_1", "w_b")]);
}

#[test]
fn what_is_over_in_time_goes_before_it_and_only_so_often() {
    let works = || vec![gang(9.0), of_study("r_1", "s_a", 3.0), of_study("r_2", "s_a", 2.0)];
    let mut snapshot = with_gangs(works(), vec![seat("w_a", 2, 1), seat("w_b", 1, 1)], 4);
    snapshot.busy = vec![busy("w_b", 4.0)];
    let passing = |snapshot: &Snapshot| {
        let placements = place(snapshot);
        assert!(placements.iter().all(|p| p.passes.as_ref().unwrap().as_str() == "r_gang"));
        placements.len()
    };
    assert_eq!(passing(&snapshot), 2);
    let work: WorkId = "r_gang".parse().unwrap();
    snapshot.let_pass = Some(LetPass { work: work.clone(), n_passed: 3 });
    assert_eq!(passing(&snapshot), 1);
    snapshot.let_pass = Some(LetPass { work, n_passed: 4 });
    assert_eq!(passing(&snapshot), 0);
    snapshot.let_pass = Some(LetPass { work: "r_other".parse().unwrap(), n_passed: 4 });
    assert_eq!(passing(&snapshot), 2, "that was another gang");
}

#[test]
fn a_slot_that_is_about_to_ask_leaves_no_time_for_anything_else() {
    let works = vec![gang(9.0), of_study("r_1", "s_a", 1.0)];
    let snapshot = with_gangs(works, vec![seat("w_a", 1, 1)], 2);
    assert_eq!(place(&snapshot), [], "the worker's other slot is neither free nor leased");
}

#[test]
fn evaluations_of_a_study_of_gangs_take_one_slot() {
    let evaluation = QueuedWork { study: Some("s_g".parse().unwrap()), ..queued("e_1", 0, 0.0) };
    check(&with_gangs(vec![evaluation], vec![seat("w_a", 1, 1)], 2), &[("e_1", "w_a")]);
}

#[test]
fn a_gang_takes_as_many_turns_as_slots() {
    let mut works = Vec::new();
    for n in 0..9_u32 {
        works.push(of_study(&format!("r_g{n}"), "s_g", f64::from(n)));
        works.push(of_study(&format!("r_a{n}"), "s_a", f64::from(n)));
    }
    let mut large = seat("w_a", 12, 1);
    large.machine.n_slots = 12;
    let placed = place(&with_gangs(works, vec![large], 3));
    let n_slots = |study: &str| -> usize {
        let of_study = placed.iter().filter(|p| p.work.as_str().starts_with(study));
        of_study.map(|p| p.workers.len()).sum()
    };
    assert_eq!((n_slots("r_g"), n_slots("r_a")), (6, 6));
}

/// A cluster whose attempts end in any order, with endless single runs beside one gang.
struct Cluster {
    snapshot: Snapshot,
    /// What runs, and where.
    running: Vec<(WorkId, WorkerId)>,
    n_made: u32,
}

impl Cluster {
    fn of(slots: &[u32], n_slots: u32) -> Self {
        let seats = (0..).zip(slots).map(|(n, slots)| {
            let mut seat = seat(&format!("w_{n}"), *slots, 1);
            seat.machine.n_slots = *slots;
            seat
        });
        let snapshot = with_gangs(Vec::new(), seats.collect(), n_slots);
        Self { snapshot, running: Vec::new(), n_made: 0 }
    }

    /// One tick; whether the gang begins, and whether something is kept for it.
    fn tick(&mut self, costs: &mut impl Iterator<Item = f64>) -> (bool, bool) {
        let n_runs = |snapshot: &Snapshot| {
            snapshot.queue.work.iter().filter(|work| work.work.kind() == "run").count()
        };
        while n_runs(&self.snapshot) < 6 {
            self.n_made += 1;
            let name = format!("r_{}", self.n_made);
            self.snapshot.queue.work.push(of_study(&name, "s_a", costs.next().unwrap()));
        }
        // Once its turn has come, evaluations come without end too, of its priority and of a lower
        // one. Before, they would keep its turn from coming, as they would any run's.
        let priorities = if self.snapshot.let_pass.is_some() { &[0, 1][..] } else { &[] };
        for &priority in priorities {
            self.n_made += 1;
            let evaluation = queued(&format!("e_{}", self.n_made), priority, 0.0);
            self.snapshot.queue.work.push(evaluation);
        }
        // The estimates are as wrong as they please.
        let busy = self.running.iter().map(|(_, worker)| worker.clone());
        self.snapshot.busy =
            busy.map(|worker| BusySlot { worker, flops_left: costs.next().unwrap() }).collect();
        let Decision { placements, reservation } = decide(&self.snapshot);
        let mut turns = self.snapshot.turns.clone();
        self.snapshot.serve(&mut turns, placements.iter().map(|placement| &placement.work));
        self.snapshot.turns = turns;
        if let Some(kept) = &reservation {
            let before = self.snapshot.let_pass.take().map_or(0, |passed| passed.n_passed);
            let now = placements.iter().filter(|placement| placement.passes.is_some()).count();
            let n_passed = before + u32::try_from(now).unwrap();
            self.snapshot.let_pass = Some(LetPass { work: kept.work.clone(), n_passed });
        }
        let mut has_begun = false;
        for placement in placements {
            has_begun |= placement.work.as_str() == "r_gang";
            self.snapshot.queue.work.retain(|work| work.work != placement.work);
            for worker in placement.workers {
                let free = &mut self.snapshot.free;
                let index = free.iter().position(|seat| seat.worker == worker).unwrap();
                free[index].n_free_slots -= 1;
                self.running.push((placement.work.clone(), worker));
            }
        }
        (has_begun, reservation.is_some())
    }

    /// One of the attempts that run is over.
    fn one_ends(&mut self, which: usize) {
        let (_, worker) = self.running.remove(which % self.running.len());
        let free = &mut self.snapshot.free;
        free.iter_mut().find(|seat| seat.worker == worker).unwrap().n_free_slots += 1;
    }
}

proptest! {
    /// Aim: the stated bound, whatever ends first and however wrong the estimates are.
    #[test]
    fn a_gang_begins_when_what_ran_and_as_much_as_it_has_slots_is_over(
        slots in proptest::collection::vec(1_u32..4, 1..5),
        share in 0_u32..100,
        costs in proptest::collection::vec(0.1_f64..10.0, 1..50),
        ends in proptest::collection::vec(0_usize..100, 1..50),
        priority in 0..2,
    ) {
        let n_all: u32 = slots.iter().sum();
        prop_assume!(n_all > 1);
        let n_slots = 2 + share % (n_all - 1);
        let mut cluster = Cluster::of(&slots, n_slots);
        let mut costs = costs.iter().copied().cycle();
        cluster.tick(&mut costs);
        // Endless work of a higher priority would go before it for ever.
        let gang = QueuedWork { priority: priority + 1, ..of_study("r_gang", "s_g", 5.0) };
        cluster.snapshot.queue.work.push(gang);
        let (mut n_since, mut is_kept) = (0, false);
        for which in ends.iter().cycle() {
            let (has_begun, keeps) = cluster.tick(&mut costs);
            if has_begun {
                break;
            }
            is_kept |= keeps;
            n_since += u32::from(is_kept);
            prop_assert!(n_since <= n_all + n_slots, "it waits since {n_since} ends");
            cluster.one_ends(*which);
        }
    }
}

#[test]
fn a_slot_that_never_asks_is_none_that_a_gang_waits_for() {
    let works = || vec![gang(9.0), of_study("r_1", "s_a", 1.0)];
    let mut snapshot = with_gangs(works(), vec![seat("w_a", 1, 1)], 2);
    assert_eq!(place(&snapshot), []);
    snapshot.silent = BTreeMap::from([("w_a".parse().unwrap(), 1)]);
    check(&snapshot, &[("r_1", "w_a")]);
}

#[test]
fn a_gang_goes_where_it_has_room_when_the_machines_of_its_first_attempt_are_too_few() {
    let mut begun = gang(9.0);
    begun.needs.numerics = Some(Numerics::of_a_cpu(4));
    let free = vec![seat("w_a", 2, 1), seat("w_b", 2, 1)];
    let mut snapshot = with_gangs(vec![begun], free, 4);
    snapshot.live.push(("w_z".parse().unwrap(), machine(4)));
    check(&snapshot, &[("r_gang", "w_a w_a w_b w_b")]);
    snapshot.live.push(("w_y".parse().unwrap(), machine(4)));
    let decision = decide(&snapshot);
    assert_eq!(decision.placements, [], "now there are enough of them, and it waits");
    assert!(decision.reservation.is_some());
}

#[test]
fn the_gang_that_waits_first_goes_before_evaluations_and_other_gangs() {
    let evaluation = QueuedWork { priority: 1, ..queued("e_1", 1, 1.0) };
    let other = QueuedWork { priority: 1, ..of_study("r_other", "s_h", 5.0) };
    let mut snapshot = with_gangs(vec![evaluation, other, gang(1.0)], vec![seat("w_a", 2, 1)], 2);
    let (study, mut of_other) = terms(("s_h", "", 9.0));
    of_other.placement.slots = Some(2);
    snapshot.queue.studies.insert(study, of_other);
    assert_eq!(place(&snapshot)[0].work.as_str(), "e_1");
    let work = "r_gang".parse().unwrap();
    snapshot.let_pass = Some(LetPass { work, n_passed: 0 });
    check(&snapshot, &[("r_gang", "w_a w_a")]);
}
