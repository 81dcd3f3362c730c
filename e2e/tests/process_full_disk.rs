//! Disks that are full: nothing is lost or half done, the log says what is wrong, and work goes on
//! once there is room.

mod support;

use std::path::Path;

use e2e::{Cluster, ClusterOptions, SmallDisk, TinyStudy, tiny_study, wait_for};

use support::{
    check_every_point, check_store, cluster_with, runs, table, the_run, undisturbed,
    wait_for_progress, wait_until_complete,
};

const N_STEPS: u64 = 1_000;

const CRAMPED: TinyStudy = TinyStudy {
    name: "cramped",
    architectures: &["llama"],
    widths: &[16],
    tokens: 128 * N_STEPS,
    learning_rate: 3e-3,
    slots: 1,
};

/// A second study, to see what is answered when there is no room for it.
const LATE: TinyStudy = TinyStudy { name: "late", widths: &[32], ..CRAMPED };

/// Room for the store or the artifacts of these studies, several times over.
const DISK_BYTES: u64 = 24 << 20;

fn fake() -> ClusterOptions {
    ClusterOptions { lease_term_ms: 2_000, fake_step_ms: Some(5), ..ClusterOptions::default() }
}

/// The study ends under its one attempt like an undisturbed one.
fn check_undisturbed(cluster: &Cluster) {
    wait_until_complete(cluster, &CRAMPED);
    let run = the_run(cluster, CRAMPED.name);
    assert_eq!(run.n_attempts, 1, "a full disk ends no attempt: {}", cluster.logs());
    check_every_point(cluster, &run, N_STEPS);
    assert_eq!(table(cluster, &CRAMPED), undisturbed(&CRAMPED, 1));
    check_store(cluster);
}

/// Aim: a full disk under the SQLite store loses nothing. Method: fill it while a run reports, wait
/// until a report was refused for it and the lease would be over several times without renewals, see
/// that a further study is refused in clear words and leaves nothing behind, make room.
#[test]
fn a_store_without_room_loses_nothing_and_goes_on_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let store = disk.path().join("store.db");
    let database = Some(format!("sqlite:{}", store.display()));
    let mut cluster = cluster_with(ClusterOptions { database, ..fake() }, &CRAMPED, 1);
    wait_for_progress(&cluster, &CRAMPED);
    disk.fill();
    wait_for("reports to be refused", 60, || {
        (cluster.coordinator().log().matches("the disk of the store is full").count() >= 5)
            .then_some(())
    });
    assert!(cluster.worker(1).log().contains("the disk of the store is full"));

    let file = tiny_study(cluster.path(), &LATE);
    let refused = cluster.gradus(&["apply", &file.display().to_string()]);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && words.contains("the disk of the store is full"),
        "{words}"
    );
    let studies = cluster.json(&["status"]);
    assert_eq!(studies["studies"].as_array().map(Vec::len), Some(1), "half a study: {studies}");
    check_store(&cluster);

    disk.make_room();
    cluster.apply(&file);
    check_undisturbed(&cluster);
    wait_until_complete(&cluster, &LATE);
    cluster.stop();
}

/// Aim: so does a coordinator that is killed while its disk is full, and started on it. Method: as
/// above, but kill it in between; a coordinator that cannot write its store yet says so.
#[test]
fn a_coordinator_killed_on_a_full_disk_is_as_it_was() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let database = Some(format!("sqlite:{}", disk.path().join("store.db").display()));
    let mut cluster = cluster_with(ClusterOptions { database, ..fake() }, &CRAMPED, 1);
    wait_for_progress(&cluster, &CRAMPED);
    disk.fill();
    wait_for("reports to be refused", 60, || {
        cluster.coordinator().log().contains("the disk of the store is full").then_some(())
    });
    cluster.kill_coordinator();
    disk.make_room();
    cluster.start_coordinator().expect("a coordinator");
    check_undisturbed(&cluster);
    cluster.stop();
}

/// Aim: a full disk under the artifact store costs time alone. Method: fill it while a run writes
/// checkpoints, wait until its log says why it waits, make room.
fn check_artifacts(database: Option<String>) {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let artifacts = Some(disk.path().join("artifacts"));
    let mut cluster = cluster_with(ClusterOptions { artifacts, database, ..fake() }, &CRAMPED, 1);
    let run = wait_for_progress(&cluster, &CRAMPED);
    disk.fill();
    wait_for("the run's log to say why it waits", 60, || {
        let logs = cluster.gradus(&["logs", &run.id]);
        String::from_utf8_lossy(&logs.stdout).contains("no space left on the disk").then_some(())
    });
    // Its lease lives on, however long it waits.
    let n_renewals = cluster.json(&["workers"])["workers"][0]["last_seen_at_ms"].clone();
    wait_for("heartbeats", 60, || {
        let seen = &cluster.json(&["workers"])["workers"][0]["last_seen_at_ms"];
        (*seen != n_renewals).then_some(())
    });
    assert_eq!(the_run(&cluster, CRAMPED.name).state, "leased");
    assert_eq!(half_written(&cluster.artifacts()), Vec::<String>::new());
    disk.make_room();
    check_undisturbed(&cluster);
    cluster.stop();
}

/// Files that are neither an object nor of an object's writer at work: a writer stages an object
/// under its name with `#` and a number, and takes the name away when it fails.
fn half_written(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder of the artifact store") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.metadata().is_ok_and(|file| file.len() == 0) {
                found.push(path.display().to_string());
            }
        }
    }
    found.retain(|path| Path::new(path).exists() && !path.contains('#'));
    found
}

#[test]
fn artifacts_without_room_cost_time_alone() {
    check_artifacts(None);
}

#[test]
fn artifacts_without_room_cost_time_alone_on_postgresql() {
    let Some(server) = test_postgres::Server::start(test_postgres::Disk::Unsynced) else {
        return;
    };
    check_artifacts(Some(server.url()));
}

/// Aim: a worker whose own disk is full takes its data when there is room, and fails no run. Method:
/// its scratch folder is on a full disk before the run's data is cached there.
#[test]
fn a_worker_without_room_for_its_data_waits() {
    let Some(disk) = SmallDisk::mount(DISK_BYTES) else { return };
    let mut cluster = Cluster::start(fake()).expect("a cluster");
    std::fs::create_dir_all(cluster.scratch(1).parent().expect("a folder")).expect("a folder");
    std::os::unix::fs::symlink(disk.path(), cluster.scratch(1)).expect("a link");
    cluster.start_worker();
    wait_for("the worker", 60, || cluster.worker(1).log().contains("registered").then_some(()));
    // A trainer makes its folder when it starts, and the first must have.
    wait_for("a trainer", 60, || disk.path().join("cache").exists().then_some(()));
    disk.fill();
    cluster.apply(&tiny_study(cluster.path(), &CRAMPED));
    let run = wait_for("the run to wait for room", 60, || {
        let run = runs(&cluster, CRAMPED.name).pop()?;
        let logs = cluster.gradus(&["logs", &run.id]);
        let has_said = String::from_utf8_lossy(&logs.stdout).contains("no space left on the disk");
        has_said.then_some(run)
    });
    assert_eq!(run.state, "leased");
    disk.make_room();
    check_undisturbed(&cluster);
    cluster.stop();
}
