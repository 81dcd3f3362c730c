//! A coordinator's routes over a store in a temporary folder, filled through the store's verbs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use coordinator::App;
use coordinator::artifacts::Artifacts;
use coordinator::clock::Clock;
use coordinator::config::Config;
use coordinator::http::router;
use coordinator::random::Random;
use coordinator::scheduler::fit::Machine;
use coordinator::serve::{Surroundings, build_in};
use coordinator::store::{Artifact, Capabilities, Numerics, ReportEvent, Store, WorkerToRegister};
use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, LeaseToken, RunId, StudyId, WorkId, WorkerId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

/// Two sizes of one architecture, a hundred steps each, data points at steps 50 and 100.
pub(crate) const STUDY: &str = r"version: 1
name: tiny
description: Does size help?
data:
  corpora:
    - {name: plays, files: ['*.txt']}
stages:
  - name: pretrain
    recipe:
      pretrain:
        model: {preset: llama_study, n_layers: 1, n_heads: 2, ffn_hidden: 32}
        training:
          sequence_length: 8
          batch_sequences: 4
          optimizer: {learning_rate: 1e-3}
        axes:
          - name: size
            values:
              - {label: s1, model.d_model: 16}
              - {label: s2, model.d_model: 32}
        design: {fixed_tokens: {tokens: 3200}}
        checkpoints: {log_spaced: {count: 2, first_step: 50}}
";

/// The study with so many seeds of each size.
pub(crate) fn with_seeds(n_seeds: u32) -> String {
    let seeds: Vec<String> = (0..n_seeds).map(|seed| seed.to_string()).collect();
    let axis = format!("- {{name: seed, field: training.seed, values: [{}]}}", seeds.join(", "));
    STUDY.replace("        axes:\n", &format!("        axes:\n          {axis}\n"))
}

/// The one source of every study here.
pub(crate) const SOURCE: &[u8] = b"to be or not to be";

/// The routes and what is behind them.
pub(crate) struct Served {
    pub(crate) app: Arc<App>,
    directory: TempDir,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The JSON of a success.
    #[track_caller]
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Checks a refusal and gives its message.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) -> String {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{text}");
        assert_eq!(self.json()["code"], code, "{text}");
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

impl Served {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let app = open(&directory, configure).await;
        Self { app, directory }
    }

    /// On clocks that a test sets.
    pub(crate) async fn on_clock(clock: Clock) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = Config::for_directory(directory.path());
        let artifacts = Artifacts::open(&config.artifacts).unwrap();
        let surroundings = Surroundings { clock, random: Random::system(), artifacts };
        let app = Arc::new(build_in(config, surroundings).await.unwrap());
        Self { app, directory }
    }

    /// The same store behind a read-only coordinator.
    pub(crate) async fn reopened_read_only(self) -> Self {
        self.app.store.close().await;
        let app = open(&self.directory, |config| config.is_read_only = true).await;
        Self { app, directory: self.directory }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        answer(router(self.app.clone()), request).await
    }

    /// Asks the same again and again, from the request to the whole body; the times in
    /// milliseconds, sorted. The routes are made once, as in a coordinator.
    pub(crate) async fn times_ms(&self, path: &str, n: usize) -> Vec<f64> {
        let routes = router(self.app.clone());
        let mut times = Vec::with_capacity(n);
        for _ in 0..n {
            let request = Request::get(path).header("host", "localhost").body(Body::empty());
            let start = std::time::Instant::now();
            let got = answer(routes.clone(), request.unwrap()).await;
            times.push(start.elapsed().as_secs_f64() * 1e3);
            assert_eq!(got.status, StatusCode::OK);
        }
        times.sort_by(f64::total_cmp);
        times
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).header("host", "localhost").body(Body::empty()).unwrap();
        self.send(request).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = Request::post(path)
            .header("host", "localhost")
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        self.send(request).await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<Body>) -> Answer {
        let request = Request::put(path)
            .header("host", "localhost")
            .header("content-type", "application/octet-stream")
            .body(body.into())
            .unwrap();
        self.send(request).await
    }

    /// Uploads the source and applies the study.
    pub(crate) async fn apply(&self, text: &str) -> Value {
        let hash = ContentHash::of(SOURCE);
        let put = self.put(&format!("/api/v1/sources/{hash}"), SOURCE).await;
        assert!(put.status.is_success(), "{put:?}");
        self.post("/api/v1/studies", &apply_request(text)).await.ok()
    }

    /// A worker with one slot that takes assignments.
    pub(crate) async fn worker(&self, name: &str) -> WorkerId {
        let worker = WorkerToRegister {
            proposed_id: format!("w_{name}").parse().unwrap(),
            name: name.to_owned(),
            hostname: "here".to_owned(),
            pid: 7,
            instance: name.to_owned(),
            connected: Vec::new(),
            machine: machine(),
        };
        let registered = self.app.store.register_worker(worker).await.unwrap();
        assert!(self.app.store.confirm_worker(&registered.worker).await.unwrap());
        registered.worker
    }

    /// Gives a piece of queued work to a worker.
    pub(crate) async fn grant(&self, work: &WorkId, worker: &WorkerId) -> LeaseToken {
        use coordinator::scheduler::policy::Placement;
        let placement = Placement::of_one(work.clone(), worker.clone());
        let granted = self.app.store.grant(&[placement]).await.unwrap();
        assert_eq!(granted.len(), 1, "`{work}` was queued");
        granted[0].token
    }

    pub(crate) async fn report(&self, token: LeaseToken, events: Vec<ReportEvent>) {
        self.app.store.report(token, events).await.unwrap();
    }

    pub(crate) async fn finish(&self, token: LeaseToken, end: AttemptEnd, message: &str) {
        self.app.store.finish_attempt(token, end, message).await.unwrap();
    }

    /// Applies the study and prepares its data; gives the worker and the runs of s1 and s2.
    pub(crate) async fn prepared(&self) -> (WorkerId, RunId, RunId) {
        let (_, worker) = self.prepared_with(STUDY).await;
        let runs = self.get("/api/v1/studies/tiny/runs").await.ok();
        let id = |index: usize| runs["runs"][index]["id"].as_str().unwrap().parse().unwrap();
        (worker, id(0), id(1))
    }

    /// Applies a study and prepares its data; gives the study and the worker that did it.
    pub(crate) async fn prepared_with(&self, text: &str) -> (StudyId, WorkerId) {
        let study = self.apply(text).await["study_id"].as_str().unwrap().parse().unwrap();
        let worker = self.worker("one").await;
        let queued = self.app.store.queue_head(10, None).await.unwrap().work;
        let preparation = queued[0].work.clone();
        let token = self.grant(&preparation, &worker).await;
        let result = ReportEvent::Preparation {
            manifest: artifact("data"),
            n_training_tokens: 90,
            n_validation_tokens: 10,
            vocab_size: 257,
        };
        self.report(token, vec![started(0), result]).await;
        self.finish(token, AttemptEnd::Succeeded, "").await;
        (study, worker)
    }
}

async fn answer(routes: axum::Router, request: Request<Body>) -> Answer {
    let response = routes.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body }
}

/// A machine with one slot.
pub(crate) fn machine() -> Machine {
    Machine {
        n_slots: 1,
        capabilities: Capabilities {
            device_kind: "cpu".to_owned(),
            device_name: "a CPU".to_owned(),
            threads_per_slot: 1,
            cpu_capability: "AVX2".to_owned(),
            libtorch_version: "2.11.0".to_owned(),
            memory_bytes: 1 << 30,
            recipes: vec!["pretrain".to_owned()],
            labels: BTreeMap::new(),
        },
    }
}

async fn open(directory: &TempDir, configure: impl FnOnce(&mut Config)) -> Arc<App> {
    let mut config = Config::for_directory(directory.path());
    configure(&mut config);
    Arc::new(coordinator::serve::build(config).await.unwrap())
}

pub(crate) fn apply_request(text: &str) -> Value {
    let hash = ContentHash::of(SOURCE);
    let file = json!({ "name": "hamlet.txt", "hash": hash.as_str(), "n_bytes": SOURCE.len() });
    json!({
        "spec_text": text,
        "spec_file": "tiny.yaml",
        "sources": [{ "corpus": "plays", "files": [file] }],
    })
}

pub(crate) fn artifact(name: &str) -> Artifact {
    Artifact { key: format!("x/{name}"), hash: ContentHash::of(name.as_bytes()), n_bytes: 10 }
}

pub(crate) fn started(resumed_from_step: u64) -> ReportEvent {
    let numerics = Numerics {
        device_kind: "cpu".to_owned(),
        intra_op_threads: 1,
        micro_batch_sequences: 0,
        cpu_capability: "AVX2".to_owned(),
        libtorch_version: "2.11.0".to_owned(),
    };
    ReportEvent::Started { numerics, resumed_from_step }
}

/// A point with a training loss and a speed of 320 tokens per second: ten steps a second.
pub(crate) fn point(step: u64, loss: f64) -> ReportEvent {
    let values = BTreeMap::from([
        ("train_loss_nats".to_owned(), loss),
        ("tokens_per_second".to_owned(), 320.0),
    ]);
    ReportEvent::Point { step, values }
}

pub(crate) fn checkpoint(step: u64) -> ReportEvent {
    ReportEvent::Checkpoint {
        step,
        manifest: artifact(&format!("manifest-{step}")),
        weights: artifact(&format!("weights-{step}")),
        is_data_point: true,
        n_bytes: 1_000,
    }
}

/// The same JSON with every time at 0.
pub(crate) fn without_times(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                *field = if name.ends_with("_at_ms") && !field.is_null() {
                    json!(0)
                } else {
                    without_times(field.take())
                };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_times(item.take())),
        _ => {}
    }
    value
}
