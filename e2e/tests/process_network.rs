//! Networks that fail between a worker and its coordinator: what a study comes to must not depend on
//! it.

mod support;

use e2e::{Cluster, ClusterOptions, TinyStudy, Weather, wait_for};

use support::{
    check_every_point, check_store, cluster_with, table, the_run, undisturbed, wait_for_progress,
    wait_until_complete,
};

/// Long enough for every kind of weather.
const WINDY: TinyStudy = TinyStudy {
    name: "windy",
    architectures: &["llama"],
    widths: &[16],
    tokens: 128 * N_STEPS,
    learning_rate: 3e-3,
    slots: 1,
};

const N_STEPS: u64 = 3_000;

/// What a network may do, with a name for messages.
const ALL_WEATHER: [(&str, Weather); 4] = [
    ("a partition", Weather::PARTITION),
    ("a deaf coordinator", Weather::DEAF_COORDINATOR),
    ("a deaf worker", Weather::DEAF_WORKER),
    ("a stall", Weather::STALL),
];

fn options(database: Option<String>, lease_term_ms: u64) -> ClusterOptions {
    ClusterOptions {
        lease_term_ms,
        database,
        fake_step_ms: Some(10),
        has_proxies: true,
        ..ClusterOptions::default()
    }
}

/// Waits until the weather has held or lost something that either side said.
fn wait_until_felt(cluster: &Cluster, worker: usize, weather: &str) {
    let proxy = cluster.proxy(worker);
    let before = proxy.n_stopped();
    wait_for(weather, 60, || (proxy.n_stopped() > before).then_some(()));
}

/// Aim: a network that fails for less than a lease term costs nothing: the one attempt goes on under
/// its lease. Method: every kind of weather in turn, each until a few messages were held or lost, in
/// a term that no test waits for; and connections that are cut.
fn check_short(database: Option<String>) {
    let expected = undisturbed(&WINDY, 1);
    let mut cluster = cluster_with(options(database, 60_000), &WINDY, 1);
    wait_for_progress(&cluster, &WINDY);
    for (name, weather) in ALL_WEATHER {
        cluster.proxy(1).set(weather);
        wait_until_felt(&cluster, 1, name);
        cluster.proxy(1).set(Weather::CLEAR);
        wait_for_progress(&cluster, &WINDY);
    }
    for _ in 0..3 {
        cluster.proxy(1).cut();
        wait_for_progress(&cluster, &WINDY);
    }
    wait_until_complete(&cluster, &WINDY);
    let run = the_run(&cluster, WINDY.name);
    assert_eq!(run.n_attempts, 1, "the worker should have kept its lease");
    check_every_point(&cluster, &run, N_STEPS);
    assert_eq!(table(&cluster, &WINDY), expected);
    check_store(&cluster);
    cluster.stop();
}

/// Aim: a worker that is cut off for longer than its lease loses its run to another, and nothing that
/// it says afterwards counts. Method: under every kind of weather in turn wait until another worker
/// has the run, then let the weather clear and the old holder find out.
fn check_long(database: Option<String>) {
    let expected = undisturbed(&WINDY, 1);
    let mut cluster = cluster_with(options(database, 1_000), &WINDY, 2);
    for (name, weather) in ALL_WEATHER {
        let old = wait_for_progress(&cluster, &WINDY);
        let holder = old.worker.expect("somebody has it");
        let n_given_up = n_given_up(&cluster, holder);
        cluster.proxy(holder).set(weather);
        let new = wait_for(name, 60, || {
            let run = the_run(&cluster, WINDY.name);
            (run.n_attempts > old.n_attempts && run.worker.is_some()).then_some(run)
        });
        assert_ne!(new.worker, Some(holder), "{name}: who cannot be reached is given nothing");
        cluster.proxy(holder).set(Weather::CLEAR);
        wait_for("the old holder to give up", 60, || {
            (self::n_given_up(&cluster, holder) > n_given_up).then_some(())
        });
    }
    wait_until_complete(&cluster, &WINDY);
    let run = the_run(&cluster, WINDY.name);
    assert_eq!(run.n_attempts, 1 + ALL_WEATHER.len() as u64, "each weather costs one attempt");
    check_every_point(&cluster, &run, N_STEPS);
    assert_eq!(table(&cluster, &WINDY), expected);
    check_store(&cluster);
    cluster.stop();
}

/// How often a worker has said that it gives an attempt up because its lease is gone.
fn n_given_up(cluster: &Cluster, worker: usize) -> usize {
    cluster.worker(worker).log().matches("stopping an attempt").count()
}

#[test]
fn a_network_that_fails_for_less_than_a_lease_costs_nothing() {
    check_short(None);
}

#[test]
fn a_network_that_fails_for_less_than_a_lease_costs_nothing_on_postgresql() {
    let Some(server) = test_postgres::Server::start(test_postgres::Disk::Unsynced) else {
        return;
    };
    check_short(Some(server.url()));
}

#[test]
fn a_worker_that_is_cut_off_for_longer_loses_its_run_and_changes_nothing() {
    check_long(None);
}

#[test]
fn a_worker_that_is_cut_off_for_longer_loses_its_run_and_changes_nothing_on_postgresql() {
    let Some(server) = test_postgres::Server::start(test_postgres::Disk::Unsynced) else {
        return;
    };
    check_long(Some(server.url()));
}
