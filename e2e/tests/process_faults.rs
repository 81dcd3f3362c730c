//! Real processes that get killed: what a study reports must not depend on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use e2e::{Cluster, ClusterOptions, TinyStudy, libtorch_is_there, tiny_study, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Long enough that a kill lands in the middle of the training.
const LONG: TinyStudy = TinyStudy {
    name: "long",
    architectures: &["hgrn2"],
    widths: &[16],
    tokens: 128 * 1200,
    learning_rate: 3e-3,
    slots: 1,
};

/// Long enough for several of them.
const LONGER: TinyStudy = TinyStudy { name: "longer", tokens: 128 * 2400, ..LONG };

/// A cluster with one worker that has a study.
fn cluster_with(study: &TinyStudy) -> Result<Cluster> {
    let mut cluster = Cluster::start(ClusterOptions::default())?;
    cluster.start_worker();
    cluster.apply(&tiny_study(cluster.path(), study));
    Ok(cluster)
}

fn wait_until_complete(cluster: &Cluster, study: &TinyStudy) {
    let summary = cluster.wait_for_end(study.name, 120);
    assert_eq!(summary["state"], "complete", "{}", cluster.logs());
}

fn undisturbed(study: &TinyStudy) -> Result<BTreeMap<String, String>> {
    let cluster = cluster_with(study)?;
    wait_until_complete(&cluster, study);
    Ok(cluster.results(study.name))
}

fn the_run(cluster: &Cluster, study: &str) -> Value {
    let runs = cluster.json(&["runs", study]);
    let id = runs["runs"][0]["id"].as_str().expect("one run").to_owned();
    cluster.json(&["show", &id])
}

/// A cluster whose one run has passed a checkpoint and is still going.
fn in_the_middle(study: &TinyStudy) -> Result<Cluster> {
    let cluster = cluster_with(study)?;
    wait_until_in_the_middle(&cluster, study);
    Ok(cluster)
}

/// The same on a PostgreSQL server.
fn in_the_middle_on(server: &test_postgres::Server, has_standby: bool) -> Result<Cluster> {
    let database = Some(server.url());
    let mut cluster = Cluster::start(ClusterOptions { database, ..ClusterOptions::default() })?;
    if has_standby {
        cluster.start_standby();
    }
    cluster.start_worker();
    cluster.apply(&tiny_study(cluster.path(), &LONG));
    wait_until_in_the_middle(&cluster, &LONG);
    Ok(cluster)
}

/// The one attempt goes on under its lease to the end, and to the same results.
fn check_one_attempt(cluster: &Cluster, expected: &BTreeMap<String, String>) {
    wait_until_complete(cluster, &LONG);
    let run = the_run(cluster, LONG.name);
    let attempts = run["attempts"].as_array().expect("a list");
    assert_eq!(attempts.len(), 1, "the worker should have kept its lease: {attempts:?}");
    assert_eq!(cluster.results(LONG.name), *expected);
}

fn wait_until_in_the_middle(cluster: &Cluster, study: &TinyStudy) {
    wait_for("a checkpoint in mid-run", 60, || {
        let run = the_run(cluster, study.name);
        let n_checkpoints = run["checkpoints"].as_array().map_or(0, Vec::len);
        let is_over = run["summary"]["state"] == "succeeded";
        assert!(!is_over, "the run ended before it could be disturbed; make it longer");
        (n_checkpoints >= 2 && run["summary"]["step"].as_u64() > Some(100)).then_some(())
    });
}

#[test]
fn a_run_whose_worker_is_killed_ends_bit_for_bit_like_an_undisturbed_one() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let expected = undisturbed(&LONG)?;
    let mut cluster = in_the_middle(&LONG)?;
    cluster.kill_worker();
    cluster.start_worker();
    wait_until_complete(&cluster, &LONG);
    let run = the_run(&cluster, LONG.name);
    let attempts = run["attempts"].as_array().expect("a list");
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!(attempts[0]["ended_as"], "worker_lost");
    assert!(attempts[1]["resumed_from_step"].as_u64() > Some(0), "{attempts:?}");
    assert_eq!(cluster.results(LONG.name), expected);
    Ok(())
}

#[test]
fn a_killed_coordinator_loses_and_doubles_no_run() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let expected = undisturbed(&LONG)?;
    let mut cluster = in_the_middle(&LONG)?;
    cluster.kill_coordinator();
    cluster.start_coordinator()?;
    check_one_attempt(&cluster, &expected);
    Ok(())
}

/// Aim: a pause costs nothing but time. Method: pause in the middle, wait until the worker has left,
/// resume; the run goes on from its last step and ends like an undisturbed one.
#[test]
fn a_paused_run_leaves_and_ends_bit_for_bit_like_an_undisturbed_one() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let expected = undisturbed(&LONG)?;
    let cluster = in_the_middle(&LONG)?;
    cluster.json(&["pause", LONG.name, "--reason", "the machine is wanted"]);
    wait_for("the run to leave its worker", 30, || {
        let run = the_run(&cluster, LONG.name);
        assert_ne!(run["summary"]["state"], "succeeded", "it ended before it could be paused");
        (run["summary"]["state"] == "queued").then_some(())
    });
    let run = the_run(&cluster, LONG.name);
    assert_eq!(run["attempts"][0]["ended_as"], "preempted");
    let why = cluster.json(&["explain", run["summary"]["id"].as_str().expect("an id")]);
    assert_eq!(why["reasons"][0]["code"], "study_paused");
    assert_eq!(cluster.json(&["status", LONG.name])["summary"]["state"], "paused");
    cluster.json(&["resume", LONG.name]);
    wait_until_complete(&cluster, &LONG);
    let attempts = the_run(&cluster, LONG.name)["attempts"].clone();
    assert_eq!(attempts.as_array().map(Vec::len), Some(2), "{attempts}");
    let left_at = run["summary"]["step"].as_u64();
    assert_eq!(attempts[1]["resumed_from_step"].as_u64(), left_at, "no step is done twice");
    assert_eq!(cluster.results(LONG.name), expected);
    Ok(())
}

/// Aim: with two coordinators on one PostgreSQL database, the death of the one that leads disturbs
/// no run. Method: kill it in mid-run; the standby takes over, and the worker goes on under the same
/// lease, to the same numbers as on SQLite.
#[test]
fn a_standby_takes_over_from_a_killed_leader() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let Some(server) = test_postgres::Server::start(test_postgres::Disk::Unsynced) else {
        return Ok(());
    };
    let expected = undisturbed(&LONG)?;
    let mut cluster = in_the_middle_on(&server, true)?;
    cluster.kill_coordinator_before_standby();
    check_one_attempt(&cluster, &expected);
    cluster.stop();
    Ok(())
}

/// Aim: a restart of the database loses nothing and disturbs no run.
#[test]
fn a_restart_of_the_database_disturbs_no_run() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let Some(mut server) = test_postgres::Server::start(test_postgres::Disk::Unsynced) else {
        return Ok(());
    };
    let expected = undisturbed(&LONG)?;
    let mut cluster = in_the_middle_on(&server, false)?;
    server.crash();
    server.start_again();
    check_one_attempt(&cluster, &expected);
    cluster.stop();
    Ok(())
}

/// Aim: what stops a service, a cluster's job or a terminal signals every process of it, trainers
/// first; that is charged to nobody and loses no step. Method: each such signal to agent and
/// trainer, in turn, each time to another worker; the run ends like an undisturbed one.
#[test]
fn a_signal_to_every_process_of_a_worker_is_a_preemption() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let expected = undisturbed(&LONGER)?;
    let mut cluster = in_the_middle(&LONGER)?;
    let mut number = 1;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        let before = the_run(&cluster, LONGER.name)["attempts"].as_array().map_or(0, Vec::len);
        cluster.signal_worker(number, signal);
        let run = the_run(&cluster, LONGER.name);
        let attempt = &run["attempts"][before - 1];
        assert_eq!(attempt["ended_as"], "preempted", "{signal}: {}", cluster.logs());
        let left_at = run["summary"]["step"].as_u64();
        number = cluster.start_worker();
        wait_for("the next attempt to train", 60, || {
            let run = the_run(&cluster, LONGER.name);
            let resumed = run["attempts"][before]["resumed_from_step"].as_u64();
            let is_over = run["summary"]["state"] == "succeeded";
            let has_begun = is_over || run["summary"]["step"].as_u64() > left_at;
            has_begun.then(|| assert_eq!(resumed, left_at, "no step is done twice"))
        });
    }
    wait_until_complete(&cluster, &LONGER);
    assert_eq!(cluster.results(LONGER.name), expected);
    Ok(())
}

/// Aim: a damaged checkpoint is found by its hash and the one before it is used. Method: kill the
/// worker, damage the newest weights on disk, let another worker take over.
#[test]
fn a_damaged_checkpoint_is_passed_over() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let expected = undisturbed(&LONG)?;
    let mut cluster = in_the_middle(&LONG)?;
    cluster.kill_worker();
    let run = the_run(&cluster, LONG.name);
    let checkpoints = run["checkpoints"].as_array().expect("a list");
    let newest = checkpoints.iter().max_by_key(|c| c["step"].as_u64()).expect("a checkpoint");
    let manifest = newest["manifest_key"].as_str().expect("a key");
    let folder = cluster.path().join("artifacts").join(manifest);
    let weights = folder.with_file_name("model.safetensors");
    let mut bytes = std::fs::read(&weights)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&weights, bytes)?;

    cluster.start_worker();
    wait_until_complete(&cluster, &LONG);
    let run = the_run(&cluster, LONG.name);
    let refused: Vec<&Value> = run["checkpoints"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|checkpoint| !checkpoint["refused_reason"].is_null())
        .collect();
    assert_eq!(refused.len(), 1, "{:?}", run["checkpoints"]);
    assert_eq!(refused[0]["step"], newest["step"]);
    let attempts = run["attempts"].as_array().expect("a list");
    let ends: Vec<&Value> = attempts.iter().map(|attempt| &attempt["ended_as"]).collect();
    assert_eq!(ends, ["worker_lost", "worker_lost", "succeeded"], "the second one only doubts it");
    let resumed = attempts[2]["resumed_from_step"].as_u64();
    assert!(resumed < newest["step"].as_u64(), "{attempts:?}");
    // The damaged data point itself may have been written again by the second attempt.
    let found = cluster.results(LONG.name);
    for (key, value) in &expected {
        assert_eq!(found.get(key), Some(value), "{key}");
    }
    Ok(())
}

/// Aim: a run that is over has the files of its data points and no others, although it has left
/// rolling checkpoints on its way.
#[test]
fn rolling_checkpoints_do_not_fill_the_disk() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let cluster = cluster_with(&LONG)?;
    wait_until_complete(&cluster, &LONG);
    let run = the_run(&cluster, LONG.name);
    let id = run["summary"]["id"].as_str().expect("an identifier");
    let folder = cluster.path().join("artifacts/runs").join(id);
    wait_for("the rolling checkpoints to go", 60, || {
        let run = the_run(&cluster, LONG.name);
        let checkpoints = run["checkpoints"].as_array().expect("a list");
        let (kept, others): (Vec<&Value>, Vec<&Value>) =
            checkpoints.iter().partition(|checkpoint| checkpoint["is_data_point"] == true);
        assert!(!others.is_empty(), "none was left: {checkpoints:?}");
        let steps = |of: &[&Value]| -> BTreeSet<String> {
            of.iter().map(|checkpoint| checkpoint["step"].to_string()).collect()
        };
        let are_marked = others.iter().all(|checkpoint| checkpoint["is_superseded"] == true);
        let found = steps_on_disk(&folder);
        assert!(found.is_superset(&steps(&kept)), "{found:?} of {checkpoints:?}");
        (are_marked && found == steps(&kept)).then_some(())
    });
    Ok(())
}

/// The folders of checkpoints that have files, of all attempts of a run.
fn steps_on_disk(folder: &Path) -> BTreeSet<String> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    let checkpoints = entries(folder).into_iter().flat_map(|attempt| entries(&attempt));
    let name = |path: PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    checkpoints.map(name).collect()
}

#[test]
fn a_run_that_diverges_is_shown_and_excluded_and_the_study_completes() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let study = TinyStudy { name: "wild", learning_rate: 1e30, ..TinyStudy::default() };
    let cluster = cluster_with(&study)?;
    wait_until_complete(&cluster, &study);
    assert_eq!(the_run(&cluster, study.name)["summary"]["state"], "diverged");
    let fit = cluster.json(&["fit", study.name]);
    let excluded = fit["excluded"].as_array().expect("a list");
    assert_eq!(excluded.len(), 1, "{fit}");
    assert!(excluded[0]["reason"].as_str().is_some_and(|reason| reason.contains("diverged")));
    Ok(())
}
