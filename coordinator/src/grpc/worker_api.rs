//! The service that workers call: ten lines a handler.
//!
//! No logic: decode, call, tell the leader, encode. What changes something is done to its end even if
//! the worker hangs up meanwhile.

use std::sync::Arc;
use std::time::Duration;

use api::EventView;
use async_trait::async_trait;
use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, LeaseToken, WorkId, WorkerId};
use proto::v1::worker_service_server::WorkerService;
use proto::{MAX_EVENTS_PER_REPORT, PROTOCOL_VERSION, from_wire, v1};
use tonic::{Request, Response, Status};

use super::decode;
use super::next::{self, OpenPoll};
use super::status::ApiError;
use crate::App;
use crate::artifacts::ArtifactError;
use crate::detached::to_the_end;
use crate::store::{Changed, Finished, ReportEvent, Reported, Store as _};

/// The service over the running coordinator.
#[derive(Debug, Clone)]
pub struct WorkerApi {
    app: Arc<App>,
}

impl WorkerApi {
    /// The service over this coordinator.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }

    async fn enter(&self, request: v1::RegisterRequest) -> Result<v1::RegisterResponse, ApiError> {
        if request.protocol_version != PROTOCOL_VERSION {
            let theirs = request.protocol_version;
            return Err(ApiError::ProtocolVersion { theirs, ours: PROTOCOL_VERSION });
        }
        if request.n_slots == 0 {
            return Err(ApiError::NoSlots);
        }
        let connected = self.app.leader.connected();
        let worker = decode::registration(request, self.new_worker_id()?, connected)?;
        let machine = worker.machine.clone();
        let registered = self.app.store.register_worker(worker).await?;
        self.carry_out(&registered.changed);
        registered.replaced.iter().for_each(|older| self.app.leader.leave(older));
        // First, so that a worker that gives up for the nonce is missed in time.
        self.app.leader.enter(&registered.worker, machine);
        let nonce_key =
            self.app.artifacts.ensure_nonce(&registered.worker, &self.app.random).await?;
        tracing::info!(worker.id = %registered.worker, "a worker registered");
        let config = &self.app.config;
        Ok(v1::RegisterResponse {
            worker_id: registered.worker.to_string(),
            lease_term_ms: config.lease_term_ms,
            heartbeat_interval_ms: millis(config.heartbeat_interval()),
            artifact_store_uri: self.app.artifacts.uri().to_owned(),
            nonce_key,
            name: registered.name,
        })
    }

    async fn confirm(&self, worker: WorkerId, nonce: &[u8]) -> Result<(), ApiError> {
        match self.app.artifacts.nonce(&worker).await? {
            Some(kept) if kept == nonce => {}
            Some(_) => return Err(ApiError::WrongNonce { worker }),
            // It was lost or has left meanwhile.
            None => return Err(ApiError::UnknownWorker { worker }),
        }
        let is_known = self.app.store.confirm_worker(&worker).await?;
        if is_known && self.app.leader.activate(&worker) {
            Ok(())
        } else {
            Err(ApiError::UnknownWorker { worker })
        }
    }

    async fn store_report(
        &self,
        token: LeaseToken,
        events: Vec<v1::Event>,
    ) -> Result<bool, ApiError> {
        if events.len() > MAX_EVENTS_PER_REPORT {
            let found = events.len();
            return Err(ApiError::TooManyEvents { found, max: MAX_EVENTS_PER_REPORT });
        }
        let events = decode::events(events)?;
        let is_read_live = |event: &ReportEvent| {
            matches!(event, ReportEvent::Point { .. } | ReportEvent::Log { .. })
        };
        let has_live = events.iter().any(is_read_live);
        match self.app.store.report(token, events).await? {
            Reported::Stored { work, has_new_work } => {
                self.app.leader.mentioned(token);
                if has_new_work {
                    self.app.nudge.notify_one();
                }
                if has_live {
                    self.announce_points(&work);
                }
                Ok(false)
            }
            Reported::Stale => Ok(true),
        }
    }

    async fn end(
        &self,
        token: LeaseToken,
        end: AttemptEnd,
        message: &str,
    ) -> Result<bool, ApiError> {
        match self.app.store.finish_attempt(token, end, message).await? {
            Finished::Ended { changed, .. } => {
                self.app.leader.ended(token);
                self.carry_out(&changed);
                Ok(false)
            }
            Finished::Stale => Ok(true),
        }
    }

    async fn leave(&self, worker: WorkerId) -> Result<(), ApiError> {
        let changed = self.app.store.deregister_worker(&worker).await?;
        self.carry_out(&changed);
        self.app.leader.leave(&worker);
        self.app.artifacts.forget(&worker).await;
        tracing::info!(worker.id = %worker, "a worker left");
        Ok(())
    }

    /// An identifier that no other worker has: 64 random bits.
    fn new_worker_id(&self) -> Result<WorkerId, ApiError> {
        let random = self.app.random.bytes().map_err(ArtifactError::Random)?;
        Ok(WorkerId::from_hash(&ContentHash::of(&random)))
    }

    /// Only a leader answers workers; elsewhere they must ask again.
    fn check_lead(&self) -> Result<(), ApiError> {
        if self.app.leader.has_taken_over() { Ok(()) } else { Err(ApiError::NotLeading) }
    }

    fn carry_out(&self, changed: &Changed) {
        self.app.leader.revoke(&changed.revoked);
        self.app.leader.preempt(&changed.preempted);
        self.app.nudge.notify_one();
    }

    /// Live pages read points and log lines again when they hear this; it is not stored.
    fn announce_points(&self, work: &WorkId) {
        if let WorkId::Run(run) = work
            && self.app.leader.may_announce_points(run)
        {
            // Without a listener there is nobody to tell.
            drop(self.app.changes.send(EventView {
                id: 0,
                at_ms: self.app.clock.wall_ms(),
                subject: run.to_string(),
                kind: "points".to_owned(),
                actor: String::new(),
            }));
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[async_trait]
impl WorkerService for WorkerApi {
    async fn register(
        &self,
        request: Request<v1::RegisterRequest>,
    ) -> Result<Response<v1::RegisterResponse>, Status> {
        self.check_lead()?;
        let api = self.clone();
        let entered = to_the_end(async move { api.enter(request.into_inner()).await }).await?;
        Ok(Response::new(entered))
    }

    async fn confirm_artifact_store(
        &self,
        request: Request<v1::ConfirmArtifactStoreRequest>,
    ) -> Result<Response<v1::ConfirmArtifactStoreResponse>, Status> {
        self.check_lead()?;
        let request = request.into_inner();
        let worker = from_wire::worker_id(&request.worker_id).map_err(ApiError::from)?;
        let api = self.clone();
        to_the_end(async move { api.confirm(worker, &request.nonce).await }).await?;
        Ok(Response::new(v1::ConfirmArtifactStoreResponse {}))
    }

    async fn next(
        &self,
        request: Request<v1::NextRequest>,
    ) -> Result<Response<v1::NextResponse>, Status> {
        self.check_lead()?;
        let request = request.into_inner();
        let worker = from_wire::worker_id(&request.worker_id).map_err(ApiError::from)?;
        if self.app.shutdown.is_cancelled() {
            return Err(ApiError::Stopping.into());
        }
        let max_wait = Duration::from_millis(request.max_wait_ms);
        let poll = OpenPoll::begin(self.app.clone(), worker, request.n_free_slots)?;
        Ok(Response::new(next::wait(&poll, max_wait).await?))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        self.check_lead()?;
        let request = request.into_inner();
        let worker = from_wire::worker_id(&request.worker_id).map_err(ApiError::from)?;
        let tokens = decode::lease_tokens(&request.lease_tokens).map_err(ApiError::from)?;
        let response = match self.app.leader.renew(&worker, &tokens) {
            // An answer is a promise that what it does not call stale lives; without one the worker
            // goes by the deadline that it knows, and its next heartbeat hears what became of it.
            Some(renewals) if !renewals.ending.is_empty() => {
                return Err(ApiError::LeaseEnding { worker }.into());
            }
            Some(renewals) => v1::HeartbeatResponse {
                stale_lease_tokens: renewals.stale.into_iter().map(|token| token.0).collect(),
                is_unknown_worker: false,
            },
            None => v1::HeartbeatResponse {
                stale_lease_tokens: request.lease_tokens,
                is_unknown_worker: true,
            },
        };
        Ok(Response::new(response))
    }

    async fn report(
        &self,
        request: Request<v1::ReportRequest>,
    ) -> Result<Response<v1::ReportResponse>, Status> {
        self.check_lead()?;
        let request = request.into_inner();
        let token = from_wire::lease_token(request.lease_token).map_err(ApiError::from)?;
        let api = self.clone();
        let stale =
            to_the_end(async move { api.store_report(token, request.events).await }).await?;
        Ok(Response::new(v1::ReportResponse { stale }))
    }

    async fn finish(
        &self,
        request: Request<v1::FinishRequest>,
    ) -> Result<Response<v1::FinishResponse>, Status> {
        self.check_lead()?;
        let request = request.into_inner();
        let (token, end) = from_wire::finish(&request).map_err(ApiError::from)?;
        let api = self.clone();
        let stale = to_the_end(async move { api.end(token, end, &request.message).await }).await?;
        Ok(Response::new(v1::FinishResponse { stale }))
    }

    async fn deregister(
        &self,
        request: Request<v1::DeregisterRequest>,
    ) -> Result<Response<v1::DeregisterResponse>, Status> {
        self.check_lead()?;
        let request = request.into_inner();
        let worker = from_wire::worker_id(&request.worker_id).map_err(ApiError::from)?;
        let api = self.clone();
        to_the_end(async move { api.leave(worker).await }).await?;
        Ok(Response::new(v1::DeregisterResponse {}))
    }
}
