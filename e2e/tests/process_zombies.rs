//! Workers that stand still past their leases and then go on: nothing of what they say then is stored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use api::AttemptView;
use coordinator::store::read::ReadStore as _;
use coordinator::store::{Location, SqlStore};
use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, LeaseToken, RunId};
use e2e::{Cluster, ClusterOptions, TinyStudy, tiny_study, wait_for};
use proto::v1::event::Kind;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::{to_wire, v1};

/// So many runs at a time, with twice as many workers: each run's holder is frozen, and another worker
/// takes over.
const N_RUNS: usize = 5;

/// What must be stale: in CI so many holders are frozen on each database, or as many as the issue of
/// a release asks for.
fn n_trials() -> usize {
    if std::env::var_os("SLOW_TESTS").is_some() { 1_000 } else { 50 }
}

/// Longer than any test.
const ENDLESS: TinyStudy = TinyStudy {
    name: "endless",
    architectures: &["llama"],
    widths: &[16, 32, 48, 64, 80],
    tokens: 128 * 1_000_000,
    learning_rate: 3e-3,
    slots: 1,
};

/// The study, whose runs lose their workers more often in a row than a run may by itself.
fn endless(folder: &Path) -> PathBuf {
    let path = tiny_study(folder, &ENDLESS);
    let text = std::fs::read_to_string(&path).expect("the study");
    let rule =
        format!("retries: {{worker_lost: {{attempts: {}, pause_seconds: 0}}}}", 2 * n_trials());
    let patient = text.replace("runtime: {", &format!("runtime: {{{rule}, "));
    assert_ne!(patient, text, "the study has a line `runtime`");
    std::fs::write(&path, patient).expect("a writable folder");
    path
}

/// Who has a run.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    worker: usize,
    attempt: u32,
}

/// The runs that somebody works on, with their newest attempt.
fn holders(cluster: &Cluster) -> BTreeMap<String, Holder> {
    let runs = cluster.json(&["runs", ENDLESS.name]);
    let runs = runs["runs"].as_array().cloned().unwrap_or_default();
    let holder = |run: &serde_json::Value| {
        let worker = run["worker"].as_str()?.trim_start_matches("worker-").parse().ok()?;
        let attempt = u32::try_from(run["n_attempts"].as_u64()?).ok()?;
        let has_begun = run["step"].as_u64()? > 0;
        let holder = Holder { worker, attempt };
        (run["state"] == "leased" && has_begun)
            .then(|| (run["id"].as_str().unwrap_or_default().to_owned(), holder))
    };
    runs.iter().filter_map(holder).collect()
}

/// Everything that the store has of an attempt.
#[derive(Debug, Clone, PartialEq)]
struct Stored {
    steps: Vec<u64>,
    checkpoint_steps: Vec<u64>,
    log_lines: Vec<String>,
    attempt: AttemptView,
}

async fn stored(store: &SqlStore, run: &str, attempt: u32) -> Stored {
    let run: RunId = run.parse().expect("an identifier");
    let points = store.points(&run, "train_loss_nats").await.expect("points");
    let logs = store.logs(&run, 0, u32::MAX).await.expect("log lines");
    let view = store.run_view(&run).await.expect("a view").expect("the run");
    Stored {
        steps: points.iter().filter(|p| p.attempt == attempt).map(|p| p.step).collect(),
        checkpoint_steps: (view.checkpoints.iter().filter(|c| c.attempt == attempt))
            .map(|c| c.step)
            .collect(),
        log_lines: (logs.lines.into_iter().filter(|line| line.attempt == attempt))
            .map(|line| line.text)
            .collect(),
        attempt: (view.attempts.into_iter().find(|a| a.attempt == attempt)).expect("the attempt"),
    }
}

/// The rights that these attempts had.
async fn tokens_of(store: &SqlStore, attempts: &[(&String, u32)]) -> Vec<LeaseToken> {
    let all = store.snapshot().await.expect("a snapshot").attempts;
    let token_of = |(run, attempt): &(&String, u32)| {
        let found = all.iter().find(|found| found.work == **run && found.attempt == *attempt);
        LeaseToken(found.expect("the attempt").token)
    };
    attempts.iter().map(token_of).collect()
}

/// What an attempt might have to say, beyond what any has said.
fn news() -> Vec<v1::Event> {
    let step = 900_000;
    let artifact = |key: &str| {
        let hash = ContentHash::of(key.as_bytes()).to_string();
        Some(v1::ArtifactRef { key: key.to_owned(), hash, n_bytes: 1 })
    };
    let values = [("train_loss_nats".to_owned(), 0.5)].into();
    let text = "a zombie speaks".to_owned();
    let kinds = [
        Kind::Point(v1::MetricPoint { step, values }),
        Kind::Log(v1::LogLine { at_ms: 1, level: "info".to_owned(), text }),
        Kind::Checkpoint(v1::Checkpoint {
            step,
            manifest: artifact("zombie/manifest.json"),
            weights: artifact("zombie/model.safetensors"),
            is_data_point: false,
            n_bytes: 1,
        }),
    ];
    kinds.map(to_wire::event).into()
}

/// Says all that a worker may say under a token. The answer is stale each time: an agent of ours would
/// not even ask, since it stops writing before its lease has ended.
async fn speak_under(token: LeaseToken, grpc: &str) {
    let mut client = WorkerServiceClient::connect(grpc.to_owned()).await.expect("a coordinator");
    let report = v1::ReportRequest { lease_token: token.0, events: news() };
    let answer = client.report(report).await.expect("an answer").into_inner();
    assert!(answer.stale, "a report under {token}");
    // As it has ended by its expiry, that end would only be answered again.
    for end in AttemptEnd::ALL.into_iter().filter(|end| *end != AttemptEnd::WorkerLost) {
        let finish = to_wire::finish(token, end, "a zombie ends");
        let answer = client.finish(finish).await.expect("an answer").into_inner();
        assert!(answer.stale, "the end {end:?} under {token}");
    }
}

/// How often a worker has said that it gives an attempt up because its lease is gone.
fn n_given_up(cluster: &Cluster, worker: usize) -> usize {
    cluster.worker(worker).log().matches("stopping an attempt").count()
}

/// Aim: a worker that comes back after its lease ran out writes nothing under it. Method: the agents
/// of all holders are stopped by a signal, until others have their runs; their trainers go on filling
/// the pipes meanwhile. At first somebody speaks under their tokens, whom the store alone can refuse.
/// Then they go on, and what the store had of their attempts stays as it was.
fn check_zombies(database: Option<String>) -> Result<()> {
    let options = ClusterOptions {
        lease_term_ms: 600,
        database,
        fake_step_ms: Some(40),
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(options)?;
    for _ in 0..2 * N_RUNS {
        cluster.start_worker();
    }
    cluster.apply(&endless(cluster.path()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let location: Location = cluster.database().parse()?;
    let store = runtime.block_on(SqlStore::open_read_only(&location))?;
    for round in 0..n_trials().div_ceil(N_RUNS) {
        let old = wait_for("every run to be worked on", 60, || {
            let holders = holders(&cluster);
            (holders.len() == N_RUNS).then_some(holders)
        });
        for holder in old.values() {
            cluster.worker(holder.worker).freeze();
        }
        let given_up: Vec<usize> =
            old.values().map(|holder| n_given_up(&cluster, holder.worker)).collect();
        wait_for("other workers to take over", 60, || {
            let new = holders(&cluster);
            let is_newer = |(run, old): (&String, &Holder)| {
                new.get(run).is_some_and(|new| new.attempt > old.attempt)
            };
            old.iter().all(is_newer).then_some(())
        });
        let attempts: Vec<(&String, u32)> = old.iter().map(|(run, h)| (run, h.attempt)).collect();
        let read = || {
            let all = attempts.iter().map(|(run, attempt)| stored(&store, run, *attempt));
            runtime.block_on(futures::future::join_all(all))
        };
        let before = read();
        assert!(before.iter().all(|stored| stored.attempt.ended_as.is_some()), "{before:?}");
        if round == 0 {
            for token in runtime.block_on(tokens_of(&store, &attempts)) {
                runtime.block_on(speak_under(token, &cluster.endpoint().grpc));
            }
            assert_eq!(read(), before, "an old token has written");
        }
        for holder in old.values() {
            cluster.worker(holder.worker).thaw();
        }
        for (holder, n_before) in old.values().zip(given_up) {
            wait_for("a zombie to give up", 60, || {
                (n_given_up(&cluster, holder.worker) > n_before).then_some(())
            });
        }
        assert_eq!(read(), before, "a zombie has written");
    }
    let checked = cluster.gradus(&["doctor", "--deep"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    cluster.stop();
    Ok(())
}

#[test]
fn a_worker_that_wakes_after_its_lease_writes_nothing() -> Result<()> {
    check_zombies(None)
}

#[test]
fn a_worker_that_wakes_after_its_lease_writes_nothing_on_postgresql() -> Result<()> {
    let Some(server) = test_postgres::Server::start(test_postgres::Disk::Unsynced) else {
        return Ok(());
    };
    check_zombies(Some(server.url()))
}
