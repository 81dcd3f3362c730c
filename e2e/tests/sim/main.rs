//! Deterministic simulation: whole clusters in one thread, on a clock that jumps from one event to the
//! next. The coordinators are real (store, leader, scheduler, reconcilers, services), the agents'
//! cores are real; what is simulated is what surrounds them: network, processes, disks, databases,
//! trainers and time. One seed decides everything, and a history of what was promised is held against
//! what came of it.
//!
//! `make sim SEEDS=1000` runs more; `SIM_SEED=7` replays one seed and prints what it came to, and
//! `SIM_BASE=20788000` those from one on.

mod chance;
mod coordinator;
mod disk;
mod history;
mod network;
mod planted;
mod scenario;
mod trainer;
mod user;
mod worker;
mod world;

use ::coordinator::clock::Clock;

use crate::scenario::Scenario;
use crate::world::{Ending, World};

/// So many seeds are the same each time, and as many are other ones each day.
const N_SEEDS: u64 = 100;

/// So far are the seeds of a day from those of the day before.
const SEEDS_A_DAY: u64 = 1_000;

const MS_A_DAY: u64 = 24 * 60 * 60 * 1_000;

fn simulate(seed: u64) -> Ending {
    World::new(Scenario::of(seed)).run()
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// The first of today's seeds.
fn base_of_today() -> u64 {
    let now_ms = u64::try_from(Clock::system().wall_ms()).expect("it is after 1970");
    now_ms / MS_A_DAY * SEEDS_A_DAY
}

/// What is simulated, and how that is asked for again.
fn seeds() -> (Vec<u64>, String) {
    let n_asked = number_from("SIM_SEEDS");
    if let Some(seed) = number_from("SIM_SEED") {
        (vec![seed], format!("SIM_SEED={seed}"))
    } else if let Some(base) = number_from("SIM_BASE") {
        ((base..base + n_asked.unwrap_or(N_SEEDS)).collect(), format!("SIM_BASE={base}"))
    } else if let Some(n_seeds) = n_asked {
        ((0..n_seeds).collect(), format!("SIM_SEEDS={n_seeds}"))
    } else {
        let base = base_of_today();
        let fresh = base..base + N_SEEDS;
        ((0..N_SEEDS).chain(fresh).collect(), format!("SIM_SEEDS={N_SEEDS} and SIM_BASE={base}"))
    }
}

/// Every promise holds for some seeds that are the same each time and some that are other ones each
/// day, or for those that were asked for.
#[test]
fn every_promise_is_kept_in_every_storm() {
    let (seeds, asked) = seeds();
    println!("the seeds of {asked}");
    let mut simulated_ms = 0;
    let mut broken = Vec::new();
    for seed in seeds {
        let ending = simulate(seed);
        simulated_ms += ending.simulated_ms;
        if std::env::var_os("SIM_SEED").is_some() {
            println!("{:#?}\n{ending:#?}", Scenario::of(seed));
        }
        if let Some(violation) = ending.violations.first() {
            println!("SIM_SEED={seed} ({asked}) at {} ms: {violation:?}", ending.simulated_ms);
            broken.push(seed);
        }
    }
    println!("{:.1} simulated hours", simulated_ms as f64 / 3_600_000.0);
    assert!(broken.is_empty(), "seeds {broken:?} of {asked} break a promise");
}

/// Two simulations of one seed do the same to the last message.
#[test]
fn a_seed_decides_everything() {
    for seed in [0, 5, 12] {
        let (once, again) = (simulate(seed), simulate(seed));
        assert_eq!(once.digest, again.digest, "seed {seed}");
        assert_eq!(once.n_happenings, again.n_happenings, "seed {seed}");
        assert_eq!((once.n_accepted, once.n_stale), (again.n_accepted, again.n_stale));
    }
}
