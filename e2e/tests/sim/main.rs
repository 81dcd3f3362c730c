//! Deterministic simulation: whole clusters in one thread, on a clock that jumps from one event to the
//! next. The coordinators are real (store, leader, scheduler, reconcilers, services), the agents'
//! cores are real; what is simulated is what surrounds them: network, processes, disks, databases,
//! trainers and time. One seed decides everything, and a history of what was promised is held against
//! what came of it.
//!
//! `make sim SEEDS=1000` runs more; `SIM_SEED=7` replays one seed and prints what it came to.

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

use crate::scenario::Scenario;
use crate::world::{Ending, World};

fn simulate(seed: u64) -> Ending {
    World::new(Scenario::of(seed)).run()
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// Fresh seeds hold every promise: a few in CI, as many as `SIM_SEEDS` says otherwise.
#[test]
fn every_promise_is_kept_in_every_storm() {
    let seeds = match number_from("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_from("SIM_SEEDS").unwrap_or(200),
    };
    let mut simulated_ms = 0;
    let mut broken = Vec::new();
    for seed in seeds {
        let ending = simulate(seed);
        simulated_ms += ending.simulated_ms;
        if std::env::var_os("SIM_SEED").is_some() {
            println!("{:#?}\n{ending:#?}", Scenario::of(seed));
        }
        if let Some(violation) = ending.violations.first() {
            println!("seed {seed} at {} ms: {violation:?}", ending.simulated_ms);
            broken.push(seed);
        }
    }
    println!("{:.1} simulated hours", simulated_ms as f64 / 3_600_000.0);
    assert!(broken.is_empty(), "seeds {broken:?} break a promise");
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
