//! The coordinator's side of the protocol, as far as a worker can see it: it hands out what a test
//! queues and keeps what it is told.
//!
//! It plans nothing and stores nothing.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use proto::v1;
use proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

const NONCE: &[u8] = b"a nonce";
const NONCE_KEY: &str = "nonces/1";

/// What has happened, and what is to happen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) is_away: bool,
    pub(crate) forgets_workers: bool,
    pub(crate) directives: VecDeque<v1::directive::Kind>,
    pub(crate) assignments: VecDeque<v1::Assignment>,
    pub(crate) stale_tokens: BTreeSet<u64>,
    pub(crate) registrations: Vec<v1::RegisterRequest>,
    pub(crate) n_confirmed: usize,
    pub(crate) polls: Vec<u32>,
    pub(crate) heartbeats: Vec<Vec<u64>>,
    pub(crate) reports: Vec<v1::ReportRequest>,
    pub(crate) finishes: Vec<v1::FinishRequest>,
    pub(crate) n_deregistered: usize,
}

impl Seen {
    /// The events of one attempt, in order.
    pub(crate) fn events(&self, token: u64) -> Vec<v1::event::Kind> {
        let reports = self.reports.iter().filter(|report| report.lease_token == token);
        reports.flat_map(|r| r.events.iter().filter_map(|event| event.kind.clone())).collect()
    }

    /// The steps of one attempt's points, in order.
    pub(crate) fn steps(&self, token: u64) -> Vec<u64> {
        let step = |event| match event {
            v1::event::Kind::Point(point) => Some(point.step),
            _ => None,
        };
        self.events(token).into_iter().filter_map(step).collect()
    }

    /// The checkpoints of one attempt, newest first, as an assignment lists them.
    pub(crate) fn checkpoints(&self, token: u64) -> Vec<v1::CheckpointRef> {
        let checkpoint = |event| match event {
            v1::event::Kind::Checkpoint(v1::Checkpoint { step, manifest, .. }) => {
                Some(v1::CheckpointRef { step, manifest, has_failed: false })
            }
            _ => None,
        };
        self.events(token).into_iter().rev().filter_map(checkpoint).collect()
    }

    /// The end of one attempt.
    pub(crate) fn end(&self, token: u64) -> Option<v1::FinishRequest> {
        self.finishes.iter().find(|finish| finish.lease_token == token).cloned()
    }
}

#[derive(Debug, Default)]
struct Inner {
    seen: Mutex<Seen>,
    changed: Notify,
    uri: String,
}

/// A coordinator for one test.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeCoordinator {
    inner: Arc<Inner>,
}

impl FakeCoordinator {
    /// Serves on a free loopback port; the address, and the coordinator. The nonce lies in
    /// `artifacts`.
    pub(crate) async fn start(artifacts: &Path) -> (String, Self) {
        let nonce = artifacts.join(NONCE_KEY);
        std::fs::create_dir_all(nonce.parent().unwrap()).unwrap();
        std::fs::write(nonce, NONCE).unwrap();
        let uri = url::Url::from_file_path(artifacts).unwrap().to_string();
        Self::start_with_uri(uri).await
    }

    /// As [`Self::start`], with any URI as the artifact store's.
    pub(crate) async fn start_with_uri(uri: String) -> (String, Self) {
        let coordinator = Self { inner: Arc::new(Inner { uri, ..Inner::default() }) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = WorkerServiceServer::new(coordinator.clone());
        let server = Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (address, coordinator)
    }

    /// Looks at, or changes, what is seen.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        let outcome = act(&mut self.lock());
        self.inner.changed.notify_waiters();
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.inner.seen.lock().unwrap()
    }

    /// Waits until something is seen; panics with `what` after half a minute.
    pub(crate) async fn wait_for<T>(&self, what: &str, look: impl Fn(&Seen) -> Option<T>) -> T {
        let found = async {
            loop {
                let changed = self.inner.changed.notified();
                if let Some(found) = look(&self.lock()) {
                    return found;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), found).await {
            Ok(found) => found,
            Err(elapsed) => panic!("{elapsed}: not seen: {what}; {:#?}", self.lock()),
        }
    }

    /// Waits until an attempt ended.
    pub(crate) async fn wait_for_end(&self, token: u64) -> v1::FinishRequest {
        self.wait_for("the attempt's end", |seen| seen.end(token)).await
    }

    fn enter(&self) -> Result<MutexGuard<'_, Seen>, Status> {
        let seen = self.lock();
        if seen.is_away { Err(Status::unavailable("away")) } else { Ok(seen) }
    }

    /// Says that something happened, and answers.
    fn answer<T>(&self, seen: MutexGuard<'_, Seen>, response: T) -> Response<T> {
        drop(seen);
        self.inner.changed.notify_waiters();
        Response::new(response)
    }

    fn take_next(seen: &mut Seen, n_free_slots: u32) -> Option<v1::NextResponse> {
        let directives: Vec<_> =
            seen.directives.drain(..).map(|kind| v1::Directive { kind: Some(kind) }).collect();
        let n_assignments = seen.assignments.len().min(n_free_slots as usize);
        let assignments: Vec<_> = seen.assignments.drain(..n_assignments).collect();
        let is_any = !directives.is_empty() || !assignments.is_empty();
        is_any.then_some(v1::NextResponse { directives, assignments })
    }
}

#[tonic::async_trait]
impl WorkerService for FakeCoordinator {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        let mut seen = self.enter()?;
        seen.registrations.push(request.into_inner());
        seen.forgets_workers = false;
        let response = v1::RegisterResponse {
            worker_id: format!("w_{}", seen.registrations.len()),
            lease_term_ms: 2_000,
            heartbeat_interval_ms: 20,
            artifact_store_uri: self.inner.uri.clone(),
            nonce_key: NONCE_KEY.to_owned(),
            name: "one".to_owned(),
        };
        Ok(self.answer(seen, response))
    }

    async fn confirm_artifact_store(
        &self,
        request: Request<v1::ConfirmArtifactStoreRequest>,
    ) -> Result<Response<v1::ConfirmArtifactStoreResponse>, Status> {
        let mut seen = self.enter()?;
        if request.into_inner().nonce != NONCE {
            return Err(Status::failed_precondition("that is not the nonce"));
        }
        seen.n_confirmed += 1;
        Ok(self.answer(seen, v1::ConfirmArtifactStoreResponse {}))
    }

    async fn next(
        &self,
        request: Request<v1::NextRequest>,
    ) -> Result<Response<v1::NextResponse>, Status> {
        let request = request.into_inner();
        self.enter()?.polls.push(request.n_free_slots);
        self.inner.changed.notify_waiters();
        let limit = Duration::from_millis(request.max_wait_ms);
        let answer = async {
            loop {
                let changed = self.inner.changed.notified();
                if let Some(response) = Self::take_next(&mut *self.enter()?, request.n_free_slots) {
                    return Ok(Response::new(response));
                }
                changed.await;
            }
        };
        tokio::time::timeout(limit, answer)
            .await
            .unwrap_or_else(|_| Ok(Response::new(v1::NextResponse::default())))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let mut seen = self.enter()?;
        let tokens = request.into_inner().lease_tokens;
        let is_stale = |token: &u64| seen.stale_tokens.contains(token);
        let response = v1::HeartbeatResponse {
            stale_lease_tokens: tokens.iter().copied().filter(is_stale).collect(),
            is_unknown_worker: seen.forgets_workers,
        };
        seen.heartbeats.push(tokens);
        Ok(self.answer(seen, response))
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        let mut seen = self.enter()?;
        let report = request.into_inner();
        let stale = seen.stale_tokens.contains(&report.lease_token);
        if !stale {
            seen.reports.push(report);
        }
        Ok(self.answer(seen, v1::ReportResponse { stale }))
    }

    async fn finish(
        &self,
        request: Request<v1::FinishRequest>,
    ) -> Result<Response<v1::FinishResponse>, Status> {
        let mut seen = self.enter()?;
        seen.finishes.push(request.into_inner());
        Ok(self.answer(seen, v1::FinishResponse { stale: false }))
    }

    async fn deregister(
        &self,
        _request: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        let mut seen = self.enter()?;
        seen.n_deregistered += 1;
        Ok(self.answer(seen, v1::DeregisterResponse {}))
    }
}
