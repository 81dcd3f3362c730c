//! A whole coordinator on loopback ports, spoken to as a worker speaks: over gRPC.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::HashMap;
use std::time::Duration;

use coordinator::config::Config;
use coordinator::serve::{self, Running};
use coordinator::store::{Artifact, Store as _, StudyToApply};
use domain::ids::ContentHash;
use domain::tokens::Tokens;
use planner::CorpusHashes;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::{PROTOCOL_VERSION, v1};
use tempfile::TempDir;
use tonic::Code;
use tonic::transport::Channel;

const STUDY: &str = r"
version: 1
name: tiny
data:
  corpora:
    - {name: plays, files: ['texts/*.txt']}
stages:
  - name: pretrain
    recipe:
      pretrain:
        model: {preset: llama_study, d_model: 32, n_layers: 2, n_heads: 2, ffn_hidden: 96}
        training:
          sequence_length: 128
          batch_sequences: 8
          optimizer: {learning_rate: 1e-3}
        design: {fixed_tokens: {tokens: 1e5}}
        checkpoints: final
";

struct Cluster {
    running: Running,
    directory: TempDir,
}

/// Long enough that nothing expires by chance on a busy machine.
const LONG_TERM_MS: u64 = 60_000;

async fn cluster(lease_term_ms: u64) -> Cluster {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::for_directory(directory.path());
    config.lease_term_ms = lease_term_ms;
    config.endpoint_file = Some(directory.path().join("endpoint"));
    let running = serve::start(config).await.unwrap();
    Cluster { running, directory }
}

impl Cluster {
    async fn client(&self) -> WorkerServiceClient<Channel> {
        WorkerServiceClient::connect(self.running.grpc_url()).await.unwrap()
    }

    async fn apply(&self) {
        let store = &self.running.app.store;
        let hash = ContentHash::of(b"text");
        let source = Artifact { key: format!("sources/{hash}"), hash: hash.clone(), n_bytes: 4 };
        store.record_source(&source).await.unwrap();
        let parsed = domain::spec::parse(STUDY, "tiny.yaml").unwrap();
        let sources = [CorpusHashes { corpus: "plays".into(), file_hashes: vec![hash] }];
        let plan = planner::plan(&parsed, &sources).unwrap();
        let study = StudyToApply {
            spec: parsed.spec,
            spec_text: STUDY.into(),
            spec_file: "tiny.yaml".into(),
            plan: plan.into(),
        };
        store.apply_study(study).await.unwrap();
        self.running.app.nudge.notify_one();
    }

    async fn join(&self, client: &mut WorkerServiceClient<Channel>) -> String {
        let registered = client.register(registration()).await.unwrap().into_inner();
        let path = self.directory.path().join("artifacts").join(&registered.nonce_key);
        let nonce = std::fs::read(path).unwrap();
        let worker_id = registered.worker_id;
        let confirm = v1::ConfirmArtifactStoreRequest { worker_id: worker_id.clone(), nonce };
        client.confirm_artifact_store(confirm).await.unwrap();
        worker_id
    }
}

fn registration() -> v1::RegisterRequest {
    v1::RegisterRequest {
        name: "worker".into(),
        hostname: "machine".into(),
        pid: 1,
        n_slots: 1,
        capabilities: Some(v1::Capabilities {
            device_kind: "cpu".into(),
            device_name: "a CPU".into(),
            threads_per_slot: 1,
            cpu_capability: "AVX2".into(),
            libtorch_version: "2.11.0".into(),
            memory_bytes: 1 << 34,
            recipes: vec!["pretrain".into()],
            labels: HashMap::new(),
        }),
        protocol_version: PROTOCOL_VERSION,
        instance: "first".into(),
    }
}

fn poll(worker_id: &str, n_free_slots: u32) -> v1::NextRequest {
    v1::NextRequest { worker_id: worker_id.into(), n_free_slots, max_wait_ms: 30_000 }
}

fn reference(name: &str) -> v1::ArtifactRef {
    let hash = ContentHash::of(name.as_bytes()).to_string();
    v1::ArtifactRef { key: name.into(), hash, n_bytes: 1 }
}

fn report(lease_token: u64, kind: v1::event::Kind) -> v1::ReportRequest {
    v1::ReportRequest { lease_token, events: vec![v1::Event { kind: Some(kind) }] }
}

fn succeeded(lease_token: u64) -> v1::FinishRequest {
    v1::FinishRequest { lease_token, end: "succeeded".into(), message: String::new() }
}

/// Aim: one study goes from its data to its last evaluation. Method: one worker that answers each
/// assignment at once, and polls before there is anything to do.
#[tokio::test]
async fn a_worker_carries_a_study_through() {
    let cluster = cluster(LONG_TERM_MS).await;
    let mut client = cluster.client().await;
    let worker = cluster.join(&mut client).await;
    let mut waiting = client.clone();
    let first = poll(&worker, 1);
    let first = tokio::spawn(async move { waiting.next(first).await.unwrap().into_inner() });
    cluster.apply().await;
    let mut next = first.await.unwrap();
    let mut kinds = Vec::new();
    for _ in 0..3 {
        let assignment = next.assignments.remove(0);
        let token = assignment.lease_token;
        kinds.push(assignment.work_id[..2].to_owned());
        let result = match assignment.work.unwrap() {
            v1::assignment::Work::PrepareData(_) => {
                v1::event::Kind::Preparation(v1::PreparationResult {
                    manifest: Some(reference("data/manifest.json")),
                    n_training_tokens: 10,
                    n_validation_tokens: 2,
                    vocab_size: 257,
                })
            }
            v1::assignment::Work::Train(train) => v1::event::Kind::Checkpoint(v1::Checkpoint {
                step: *train.data_point_steps.last().unwrap(),
                manifest: Some(reference("run/manifest.json")),
                weights: Some(reference("run/model.safetensors")),
                is_data_point: true,
                n_bytes: 2,
            }),
            v1::assignment::Work::Evaluate(_) => {
                v1::event::Kind::Evaluation(v1::EvaluationResult {
                    name: "validation_loss_nats".into(),
                    value: 2.5,
                    standard_error: None,
                    n_tokens: 9,
                })
            }
        };
        assert!(!client.report(report(token, result)).await.unwrap().into_inner().stale);
        assert!(!client.finish(succeeded(token)).await.unwrap().into_inner().stale);
        assert!(!client.finish(succeeded(token)).await.unwrap().into_inner().stale);
        if kinds.len() < 3 {
            next = client.next(poll(&worker, 1)).await.unwrap().into_inner();
        }
    }
    assert_eq!(kinds, ["p_", "r_", "e_"]);
    assert_eq!(cluster.running.app.leader.n_leases(), 0);
    cluster.running.stop().await;
}

/// Aim: a cancelled run stops at once and its token is worth nothing. Method: the open poll hears
/// of it, then the heartbeat and the report are answered as stale.
#[tokio::test]
async fn a_cancel_reaches_the_worker_through_its_open_poll() {
    let cluster = cluster(LONG_TERM_MS).await;
    let mut client = cluster.client().await;
    let worker = cluster.join(&mut client).await;
    cluster.apply().await;
    let next = client.next(poll(&worker, 1)).await.unwrap().into_inner();
    let token = next.assignments[0].lease_token;
    let mut waiting = client.clone();
    let open = poll(&worker, 0);
    let open = tokio::spawn(async move { waiting.next(open).await.unwrap().into_inner() });
    let app = &cluster.running.app;
    let study = domain::ids::StudyId::from_hash(&ContentHash::of(b"tiny"));
    let changed = app.store.cancel_study(&study, "enough").await.unwrap();
    app.leader.revoke(&changed.revoked);
    let directives = open.await.unwrap().directives;
    let Some(v1::directive::Kind::Stop(stop)) = &directives[0].kind else {
        panic!("{directives:?}");
    };
    assert_eq!(stop.lease_token, token);
    let beat = v1::HeartbeatRequest { worker_id: worker, lease_tokens: vec![token] };
    let beat = client.heartbeat(beat).await.unwrap().into_inner();
    assert_eq!(beat.stale_lease_tokens, [token]);
    let log = v1::LogLine { at_ms: 1, level: "info".into(), text: "late".into() };
    let late = client.report(report(token, v1::event::Kind::Log(log))).await.unwrap();
    assert!(late.into_inner().stale);
    cluster.running.stop().await;
}

/// Aim: a silent worker's run goes to another, with a larger token. Method: a short lease term and
/// a first worker that never sends a heartbeat.
#[tokio::test]
async fn a_silent_workers_run_goes_to_another() {
    let cluster = cluster(100).await;
    let mut client = cluster.client().await;
    let silent = cluster.join(&mut client).await;
    cluster.apply().await;
    let lost = client.next(poll(&silent, 1)).await.unwrap().into_inner().assignments.remove(0);
    let mut other = registration();
    other.hostname = "other".into();
    let registered = client.register(other).await.unwrap().into_inner();
    let path = cluster.directory.path().join("artifacts").join(&registered.nonce_key);
    let worker_id = registered.worker_id;
    let nonce = std::fs::read(path).unwrap();
    let confirm = v1::ConfirmArtifactStoreRequest { worker_id: worker_id.clone(), nonce };
    client.confirm_artifact_store(confirm).await.unwrap();
    let heartbeats = tokio::spawn(beat_until_stopped(client.clone(), worker_id.clone()));
    let found = client.next(poll(&worker_id, 1)).await.unwrap().into_inner().assignments.remove(0);
    assert_eq!(found.work_id, lost.work_id);
    assert_eq!((lost.attempt, found.attempt), (1, 2));
    assert!(found.lease_token > lost.lease_token);
    assert!(client.finish(succeeded(lost.lease_token)).await.unwrap().into_inner().stale);
    heartbeats.abort();
    cluster.running.stop().await;
}

async fn beat_until_stopped(mut client: WorkerServiceClient<Channel>, worker_id: String) {
    loop {
        let beat = v1::HeartbeatRequest { worker_id: worker_id.clone(), lease_tokens: vec![] };
        client.heartbeat(beat).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Aim: two agents of one name on one host both work, and one that is started again takes its
/// place. Method: the first one's poll is open when the second comes, and gone when the third does.
#[tokio::test]
async fn a_name_is_taken_as_long_as_its_worker_is_connected() {
    let cluster = cluster(LONG_TERM_MS).await;
    let mut client = cluster.client().await;
    let first = cluster.join(&mut client).await;
    let leader = &cluster.running.app.leader;
    let is_connected = || leader.connected().iter().any(|worker| worker.as_str() == first);
    let mut polling = client.clone();
    let request = poll(&first, 0);
    let open = tokio::spawn(async move { polling.next(request).await });
    while !is_connected() {
        tokio::task::yield_now().await;
    }
    let of_instance = |instance: &str| {
        let mut request = registration();
        request.instance = instance.into();
        request
    };
    let second = client.register(of_instance("second")).await.unwrap().into_inner();
    assert_eq!(second.name, "worker-2");
    open.abort();
    while is_connected() {
        tokio::task::yield_now().await;
    }
    let third = client.register(of_instance("third")).await.unwrap().into_inner();
    assert_eq!(third.name, "worker");
    let live = cluster.running.app.store.live_workers().await.unwrap();
    assert!(live.iter().all(|record| record.worker.as_str() != first), "{live:?}");
    assert!(live.iter().any(|record| record.worker.as_str() == second.worker_id), "{live:?}");
    cluster.running.stop().await;
}

#[tokio::test]
async fn a_worker_that_cannot_read_its_nonce_gets_nothing() {
    let cluster = cluster(LONG_TERM_MS).await;
    let mut client = cluster.client().await;
    let worker_id = client.register(registration()).await.unwrap().into_inner().worker_id;
    let confirm = v1::ConfirmArtifactStoreRequest { worker_id, nonce: vec![0; 32] };
    let status = client.confirm_artifact_store(confirm).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().starts_with("cannot see the artifact store"), "{status}");
    cluster.running.stop().await;
}

#[tokio::test]
async fn unknown_workers_versions_and_damaged_messages_are_refused() {
    let cluster = cluster(LONG_TERM_MS).await;
    let mut client = cluster.client().await;
    let unknown = client.next(poll("w_unknown", 1)).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let beat = v1::HeartbeatRequest { worker_id: "w_unknown".into(), lease_tokens: vec![] };
    assert!(client.heartbeat(beat).await.unwrap().into_inner().is_unknown_worker);
    let damaged = client.next(poll("nobody", 1)).await.unwrap_err();
    assert_eq!(damaged.code(), Code::InvalidArgument);
    let mut future = registration();
    future.protocol_version = PROTOCOL_VERSION + 1;
    assert_eq!(client.register(future).await.unwrap_err().code(), Code::FailedPrecondition);
    cluster.running.stop().await;
}

#[tokio::test]
async fn the_endpoint_file_is_there_while_the_coordinator_serves() {
    let cluster = cluster(LONG_TERM_MS).await;
    let path = cluster.directory.path().join("endpoint");
    let text = std::fs::read_to_string(&path).unwrap();
    let endpoint: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(endpoint["http"], cluster.running.http_url());
    assert_eq!(endpoint["grpc"], cluster.running.grpc_url());
    cluster.running.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn open_polls_end_with_the_coordinator() {
    let cluster = cluster(LONG_TERM_MS).await;
    let mut client = cluster.client().await;
    let worker = cluster.join(&mut client).await;
    let open = poll(&worker, 1);
    let mut waiting = client.clone();
    let open = tokio::spawn(async move { waiting.next(open).await });
    while cluster.running.app.leader.seats().free.is_empty() {
        tokio::task::yield_now().await;
    }
    cluster.running.stop().await;
    let answer = open.await.unwrap().unwrap().into_inner();
    assert!(answer.assignments.is_empty());
}

#[tokio::test]
async fn a_poll_is_told_nothing_of_a_lead_that_ends_with_the_coordinator() {
    // What a poll hears first is left to chance: often enough that the wrong order is met.
    for _ in 0..8 {
        let cluster = cluster(LONG_TERM_MS).await;
        let mut client = cluster.client().await;
        let worker = cluster.join(&mut client).await;
        let open = poll(&worker, 1);
        let open = tokio::spawn(async move { client.next(open).await });
        while cluster.running.app.leader.seats().free.is_empty() {
            tokio::task::yield_now().await;
        }
        cluster.running.app.shutdown.cancel();
        cluster.running.app.leader.step_down();
        let answer = open.await.unwrap().unwrap().into_inner();
        assert!(answer.assignments.is_empty());
        cluster.running.stop().await;
    }
}

#[tokio::test]
async fn a_token_is_asked_for_when_there_is_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::for_directory(directory.path());
    config.tokens = Some(Tokens::shared("secret"));
    let running = serve::start(config).await.unwrap();
    let channel = Channel::from_shared(running.grpc_url()).unwrap().connect().await.unwrap();
    let mut without = WorkerServiceClient::new(channel.clone());
    let refused = without.register(registration()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut with =
        WorkerServiceClient::with_interceptor(channel, |mut request: tonic::Request<()>| {
            request.metadata_mut().insert("authorization", "Bearer secret".parse().unwrap());
            Ok(request)
        });
    with.register(registration()).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_said_in_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::for_directory(directory.path());
    config.listen = taken.local_addr().unwrap();
    let error = serve::start(config).await.unwrap_err();
    assert!(error.to_string().starts_with("could not listen on `127.0.0.1:"), "{error}");
    assert!(!directory.path().join("store.db").exists(), "nothing is made before that");
}
