//! Coordinators and databases that are away while runs train: workers go on, keep what they have to
//! report, and tell it afterwards under the same lease.

mod support;

use e2e::{Cluster, ClusterOptions, TinyStudy, wait_for};

use support::{
    check_every_point, check_store, cluster_with, table, the_run, undisturbed, wait_for_progress,
    wait_until_complete,
};

/// Many times what fits into an agent's memory, and an hour at ten steps a second.
const N_STEPS: u64 = 36_000;

const CHATTY: TinyStudy = TinyStudy {
    name: "chatty",
    architectures: &["llama"],
    widths: &[16],
    tokens: 128 * N_STEPS,
    learning_rate: 3e-3,
    slots: 1,
};

/// As fast as a fake trainer walks, after its first steps were seen.
fn options(database: Option<String>, worker_arguments: &[&str]) -> ClusterOptions {
    ClusterOptions {
        database,
        fake_step_ms: Some(0),
        lease_term_ms: 2_000,
        worker_arguments: worker_arguments.iter().map(ToString::to_string).collect(),
        ..ClusterOptions::default()
    }
}

/// The newest step with a checkpoint on disk: what the run has done, whoever knows of it.
fn newest_checkpoint(cluster: &Cluster, run: &str) -> u64 {
    let attempts = std::fs::read_dir(cluster.artifacts().join("runs").join(run));
    let folders = attempts.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let steps = folders.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let steps = steps.filter_map(|entry| {
        let path = entry.ok()?.path();
        let step = path.file_name()?.to_str()?.parse().ok()?;
        path.join("manifest.json").exists().then_some(step)
    });
    steps.max().unwrap_or(0)
}

/// The run is over under its one attempt, with every point once, as if nobody had been away.
fn check_nothing_missing(cluster: &Cluster) {
    wait_until_complete(cluster, &CHATTY);
    let run = the_run(cluster, CHATTY.name);
    assert_eq!(run.n_attempts, 1, "the worker should have kept its lease: {}", cluster.logs());
    check_every_point(cluster, &run, N_STEPS);
    assert_eq!(table(cluster, &CHATTY), undisturbed(&CHATTY, 1));
    check_store(cluster);
}

/// Aim: a coordinator may be away for as long as a whole run takes. Method: kill it in the run's first
/// steps, wait until the last checkpoint lies in the store, which is more than fits into the agent's
/// memory, then start it again.
fn check_spill(database: Option<String>) {
    let mut cluster = cluster_with(options(database, &[]), &CHATTY, 1);
    let run = wait_for("the run to begin", 60, || {
        let run = the_run(&cluster, CHATTY.name);
        (run.step > 0).then_some(run)
    });
    cluster.kill_coordinator();
    assert!(run.step < N_STEPS / 2, "the run is too far; make it longer");
    wait_for("the run's last step", 60, || {
        (newest_checkpoint(&cluster, &run.id) == N_STEPS).then_some(())
    });
    assert!(cluster.worker(1).log().contains("is kept on disk"), "{}", cluster.logs());
    cluster.start_coordinator().expect("a coordinator");
    check_nothing_missing(&cluster);
    assert!(cluster.worker(1).log().contains("the buffer on disk is empty"));
    cluster.stop();
}

#[test]
fn what_a_whole_run_has_to_say_waits_for_the_coordinator() {
    check_spill(None);
}

#[test]
fn what_a_whole_run_has_to_say_waits_for_the_coordinator_on_postgresql() {
    let Some(server) = test_postgres::Server::start(test_postgres::Disk::Unsynced) else {
        return;
    };
    check_spill(Some(server.url()));
}

/// Aim: a buffer on disk that is full loses nothing: the trainer waits, and its worker says so.
#[test]
fn a_worker_whose_buffer_is_full_waits_for_the_coordinator() {
    let mut cluster = cluster_with(options(None, &["--spill-mib", "1"]), &CHATTY, 1);
    wait_for("the run to begin", 60, || (the_run(&cluster, CHATTY.name).step > 0).then_some(()));
    cluster.kill_coordinator();
    wait_for("the buffer to be full", 60, || {
        cluster.worker(1).log().contains("the buffer on disk is full").then_some(())
    });
    cluster.start_coordinator().expect("a coordinator");
    check_nothing_missing(&cluster);
    assert!(cluster.worker(1).log().contains("the trainer goes on"));
    cluster.stop();
}

/// Aim: what a worker kept for an attempt that another one has finished meanwhile is told to nobody.
/// Method: freeze a worker's network until its lease is over and its words are on disk.
#[test]
fn what_was_kept_on_disk_dies_with_the_lease() {
    let options = ClusterOptions { has_proxies: true, ..options(None, &[]) };
    let mut cluster = cluster_with(options, &CHATTY, 1);
    wait_for("the run to begin", 60, || (the_run(&cluster, CHATTY.name).step > 0).then_some(()));
    cluster.proxy(1).set(e2e::Weather::PARTITION);
    wait_for("the buffer to be used", 60, || {
        cluster.worker(1).log().contains("is kept on disk").then_some(())
    });
    cluster.start_worker();
    let run = wait_for("the other worker to have it", 60, || {
        let run = the_run(&cluster, CHATTY.name);
        (run.n_attempts == 2).then_some(run)
    });
    let of_first = |cluster: &Cluster| -> Vec<u64> {
        let points = support::points(cluster, &run.id);
        let steps =
            points.into_iter().filter(|(_, of)| of.iter().any(|(attempt, _)| *attempt == 1));
        steps.map(|(step, _)| step).collect()
    };
    let before = of_first(&cluster);
    cluster.proxy(1).set(e2e::Weather::CLEAR);
    wait_for("the first worker to give up", 60, || {
        cluster.worker(1).log().contains("stopping an attempt").then_some(())
    });
    wait_until_complete(&cluster, &CHATTY);
    assert_eq!(of_first(&cluster), before, "a dead lease has written");
    check_every_point(&cluster, &the_run(&cluster, CHATTY.name), N_STEPS);
    assert_eq!(table(&cluster, &CHATTY), undisturbed(&CHATTY, 1));
    check_store(&cluster);
    cluster.stop();
}

const WEATHERED: TinyStudy = TinyStudy { name: "weathered", tokens: 128 * N_SLOW_STEPS, ..CHATTY };

const N_SLOW_STEPS: u64 = 1_500;

/// Aim: a database that stops, at once as in a crash or as an operator stops it, and starts while
/// runs report loses nothing of what was acknowledged and ends no attempt. Method: three times each,
/// with work done in between; the coordinator meets each in another moment.
#[test]
fn a_database_that_restarts_again_and_again_disturbs_no_run() {
    let Some(mut server) = test_postgres::Server::start(test_postgres::Disk::Unsynced) else {
        return;
    };
    let options = ClusterOptions { fake_step_ms: Some(10), ..options(Some(server.url()), &[]) };
    let mut cluster = cluster_with(options, &WEATHERED, 1);
    wait_for_progress(&cluster, &WEATHERED);
    for round in 0..6 {
        if round % 2 == 0 {
            server.crash();
        } else {
            server.stop();
        }
        let n_away = 1 + round / 2;
        wait_for("the coordinator to miss the database", 60, || {
            let log = cluster.coordinator().log();
            (log.matches("this coordinator leads no longer").count() >= n_away).then_some(())
        });
        server.start_again();
        wait_for_progress(&cluster, &WEATHERED);
    }
    wait_until_complete(&cluster, &WEATHERED);
    let run = the_run(&cluster, WEATHERED.name);
    assert_eq!(run.n_attempts, 1, "the worker should have kept its lease: {}", cluster.logs());
    check_every_point(&cluster, &run, N_SLOW_STEPS);
    assert_eq!(table(&cluster, &WEATHERED), undisturbed(&WEATHERED, 1));
    check_store(&cluster);
    cluster.stop();
}
