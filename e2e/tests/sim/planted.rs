//! The simulator's own test: it finds mistakes that were planted on purpose.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use domain::planted::{Mistake, plant};

use crate::simulate;

/// How many seeds may be needed to find a mistake.
const MAX_SEEDS: u64 = 1_000;

/// How many are tried when the code has changed since the table was made.
const SEEDS_NEARBY: u64 = 300;

/// The first seed that finds each mistake, and the promise that it sees broken. The list stands in
/// `docs/reference/simulation.md` too.
const FOUND: [(Mistake, u64, &str); 29] = [
    (Mistake::ReportsAreNotFenced, 9, "a dead lease writes nothing"),
    (Mistake::EndsAreNotFenced, 2, "a dead lease writes nothing"),
    (Mistake::AnsweredBeforeCommit, 30, "what is acknowledged is kept"),
    (Mistake::BatchWithoutTransaction, 27, "an invariant holds"),
    (Mistake::TokenReused, 0, "nothing is a bug"),
    (Mistake::SlotForgotten, 0, "everything ends"),
    (Mistake::FailureCountedTwice, 2, "an invariant holds"),
    (Mistake::PreemptionFailsRun, 11, "a run succeeds"),
    (Mistake::RenewalIgnored, 0, "a lease lives for a term"),
    (Mistake::NoTermAfterTakeOver, 73, "a lease lives for a term"),
    (Mistake::LeasesForgottenByTakeOver, 30, "everything ends"),
    (Mistake::DeadLeaseRenewed, 5, "a dead lease is not renewed"),
    (Mistake::PauseHoldsNothing, 2, "an invariant holds"),
    (Mistake::OldestCheckpointFirst, 2, "a run goes on from its newest checkpoint"),
    (Mistake::RefusalLost, 5, "everything ends"),
    (Mistake::LastEventDropped, 0, "what is acknowledged is kept"),
    (Mistake::BackoffForever, 2, "everything ends"),
    (Mistake::LostWorkerKeepsLeases, 8, "an invariant holds"),
    (Mistake::CancelKeepsAttempt, 4, "an invariant holds"),
    (Mistake::DependentsForgotten, 0, "an invariant holds"),
    (Mistake::LaterCheckpointsUnmeasured, 3, "every data point is measured"),
    (Mistake::EventNumberSkipped, 3, "an invariant holds"),
    (Mistake::MembersKeepSlots, 17, "an invariant holds"),
    (Mistake::ChargeForgotten, 0, "an invariant holds"),
    (Mistake::NewestCheckpointsRemoved, 0, "a run goes on from its newest checkpoint"),
    (Mistake::AgentRunsTwice, 172, "an attempt runs once"),
    (Mistake::AgentForgetsReports, 5, "a curve is that of an undisturbed run"),
    (Mistake::AgentEndsTooEarly, 0, "what is acknowledged is kept"),
    (Mistake::AgentForgetsSlot, 0, "everything ends"),
];

/// What a seed sees of a mistake: the promise that is broken, if one is.
fn seen(mistake: Mistake, seed: u64) -> Option<&'static str> {
    plant(Some(mistake));
    let ending = catch_unwind(AssertUnwindSafe(|| simulate(seed)));
    plant(None);
    match ending {
        Ok(ending) => ending.violations.first().map(|violation| violation.rule),
        Err(_) => Some("a program does not panic"),
    }
}

/// A change of the code moves what the seeds do: then a mistake may be found by another one, and the
/// table is to be made anew.
#[test]
fn each_planted_mistake_is_found_by_its_seed_or_soon() {
    assert_eq!(FOUND.len(), Mistake::ALL.len(), "every mistake has its seed");
    for (mistake, seed, rule) in FOUND {
        if seen(mistake, seed) == Some(rule) {
            continue;
        }
        let other = (0..SEEDS_NEARBY).find_map(|seed| Some((seed, seen(mistake, seed)?)));
        assert!(other.is_some(), "{mistake:?} is not found by {seed} nor by {SEEDS_NEARBY} others");
        println!("{mistake:?} is found by {other:?}, no longer by {:?}", (seed, rule));
    }
}

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Aim: the page has the table above, in the words in which `domain::planted` describes each mistake,
/// and counts the invariants right.
#[test]
fn the_page_of_the_simulator_says_what_is_so() {
    let mistakes = read("domain/src/planted.rs");
    let page = read("docs/reference/simulation.md");
    let rows = FOUND.map(|(mistake, seed, rule)| {
        let (before, _) = mistakes.split_once(&format!("\n    {mistake:?},\n")).unwrap();
        let said = before.lines().last().unwrap().trim().trim_start_matches("/// ");
        format!("| {} | {seed} | {rule} |", said.trim_end_matches('.'))
    });
    let (_, table) = page.split_once("| mistake |").unwrap();
    let table: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    assert_eq!(table, rows);
    assert!(page.contains(&format!("{} mistakes can be planted", rows.len())));
    let concepts = read("docs/concepts/execution.md");
    let n_invariants = concepts.lines().filter(|line| line.starts_with("| INV-")).count();
    assert!(page.contains(&format!("the {n_invariants} invariants of the store")));
}

/// Searches anew; prints the table.
#[test]
fn each_planted_mistake_is_found_within_a_thousand_seeds() {
    if std::env::var_os("SLOW_TESTS").is_none() {
        println!("skipped: set SLOW_TESTS=1 to search for every planted mistake");
        return;
    }
    let mut missed = Vec::new();
    for mistake in Mistake::ALL {
        let n_seeds = crate::number_from("SIM_SEEDS").unwrap_or(MAX_SEEDS);
        let first = (0..n_seeds).find_map(|seed| Some((seed, seen(mistake, seed)?)));
        match first {
            Some((seed, rule)) => println!("    (Mistake::{mistake:?}, {seed}, {rule:?}),"),
            None => missed.push(mistake),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}
