//! What the tests of processes and faults share: whole result tables with every point.

#![allow(dead_code, reason = "most of the test programs that have it do not use all of it")]

use std::collections::BTreeMap;

use coordinator::store::read::ReadStore as _;
use coordinator::store::{Location, SqlStore};
use domain::ids::RunId;
use e2e::{Cluster, ClusterOptions, TinyStudy, tiny_study, wait_for};

/// Everything that a study came to: evaluations, weights, and every step of every curve with the
/// bits of its value.
pub(crate) fn table(cluster: &Cluster, study: &TinyStudy) -> BTreeMap<String, String> {
    let mut table = cluster.results(study.name);
    for run in runs(cluster, study.name) {
        for (step, values) in points(cluster, &run.id) {
            let (_, value) = values.last().expect("a step has a point");
            table.insert(
                format!("{} step {step:06}", run.name),
                format!("{:016x}", value.to_bits()),
            );
        }
    }
    table
}

/// One run of a study, as the command line shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) state: String,
    /// The number of the worker that has it.
    pub(crate) worker: Option<usize>,
    pub(crate) n_attempts: u64,
    pub(crate) step: u64,
}

/// The runs of a study.
pub(crate) fn runs(cluster: &Cluster, study: &str) -> Vec<Run> {
    let list = cluster.json(&["runs", study]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let number = |name: &str| name.trim_start_matches("worker-").parse().ok();
    let run = |run: &serde_json::Value| Run {
        id: text(&run["id"]),
        name: text(&run["name"]),
        state: text(&run["state"]),
        worker: run["worker"].as_str().and_then(number),
        n_attempts: run["n_attempts"].as_u64().unwrap_or_default(),
        step: run["step"].as_u64().unwrap_or_default(),
    };
    list["runs"].as_array().expect("a list of runs").iter().map(run).collect()
}

/// The one run of a study.
pub(crate) fn the_run(cluster: &Cluster, study: &str) -> Run {
    let mut runs = runs(cluster, study);
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.remove(0)
}

/// Every point of a run's training loss: by step, the attempts that have it with their values.
pub(crate) fn points(cluster: &Cluster, run: &str) -> BTreeMap<u64, Vec<(u32, f64)>> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let location: Location = cluster.database().parse().expect("a location");
    let run: RunId = run.parse().expect("an identifier");
    let found = runtime.block_on(async {
        let store = SqlStore::open_read_only(&location).await.expect("the store");
        let found = store.points(&run, "train_loss_nats").await.expect("points");
        store.close().await;
        found
    });
    let mut points: BTreeMap<u64, Vec<(u32, f64)>> = BTreeMap::new();
    for point in found {
        points
            .entry(point.step)
            .or_default()
            .push((point.attempt, point.value.unwrap_or(f64::NAN)));
    }
    points
}

/// Whether every step from the first to the last is there, each once for each attempt.
#[track_caller]
pub(crate) fn check_every_point(cluster: &Cluster, run: &Run, n_steps: u64) {
    let points = points(cluster, &run.id);
    let steps: Vec<u64> = points.keys().copied().collect();
    assert_eq!(steps, (1..=n_steps).collect::<Vec<_>>(), "a step is missing or too many");
    for (step, of_attempts) in points {
        let mut attempts: Vec<u32> = of_attempts.iter().map(|(attempt, _)| *attempt).collect();
        attempts.dedup();
        assert_eq!(attempts.len(), of_attempts.len(), "step {step} is there twice");
    }
}

/// A cluster with a study and so many workers.
pub(crate) fn cluster_with(
    options: ClusterOptions,
    study: &TinyStudy,
    n_workers: usize,
) -> Cluster {
    let mut cluster = Cluster::start(options).expect("a cluster");
    for _ in 0..n_workers {
        cluster.start_worker();
    }
    cluster.apply(&tiny_study(cluster.path(), study));
    cluster
}

/// What the study comes to where nothing goes wrong.
pub(crate) fn undisturbed(study: &TinyStudy, n_workers: usize) -> BTreeMap<String, String> {
    let options = ClusterOptions { fake_step_ms: Some(0), ..ClusterOptions::default() };
    let mut cluster = cluster_with(options, study, n_workers);
    wait_until_complete(&cluster, study);
    let table = table(&cluster, study);
    cluster.stop();
    table
}

/// Waits for the study's end, which must be a good one.
#[track_caller]
pub(crate) fn wait_until_complete(cluster: &Cluster, study: &TinyStudy) {
    let summary = cluster.wait_for_end(study.name, 120);
    assert_eq!(summary["state"], "complete", "{}", cluster.logs());
}

/// Waits until the study's one run, which must not be over, has done more steps than it has now.
#[track_caller]
pub(crate) fn wait_for_progress(cluster: &Cluster, study: &TinyStudy) -> Run {
    let before = the_run(cluster, study.name);
    wait_for("more steps", 60, || {
        let now = the_run(cluster, study.name);
        assert_ne!(now.state, "succeeded", "the run ended too early; make it longer");
        (now.state == "leased" && now.step > before.step).then_some(now)
    })
}

/// Whether the store keeps all its promises.
#[track_caller]
pub(crate) fn check_store(cluster: &Cluster) {
    let checked = cluster.gradus(&["doctor", "--deep"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
