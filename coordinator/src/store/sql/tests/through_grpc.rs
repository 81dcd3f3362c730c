//! The suite with everything that a worker does going over gRPC, as workers do it: registering and
//! confirming, taking an assignment, reporting, ending, leaving.
//!
//! What the wire does not carry, because no worker needs it, is read from the store afterwards.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use api::*;
use domain::ids::{ContentHash, FitId};
use domain::invariant::Snapshot;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::{PROTOCOL_VERSION, to_wire, v1};
use tokio::net::TcpListener;
use tonic::transport::Channel;
use tonic::transport::server::TcpIncoming;

use super::super::*;
use crate::App;
use crate::artifacts::Artifacts;
use crate::config::Config;
use crate::random::Random;
use crate::serve::{Surroundings, build_in, ensure_lead};
use crate::store::conformance::conformance;
use crate::store::memory::Memory;
use crate::store::read::{
    CurveQuery, DroppedCell, FitInputs, FitRecord, HistoryOf, Lookup, ReadError, ReadStore,
    RunStatus, SeriesPoint,
};
use crate::store::{AssignmentDetails, Numerics, OfferedCheckpoint, TrainDetails};

/// A store whose workers are on the other side of a socket.
struct ThroughGrpc {
    app: Arc<App>,
    client: WorkerServiceClient<Channel>,
    /// Assignments that came with others.
    handed_over: Mutex<BTreeMap<LeaseToken, Assignment>>,
    /// Events that some report was found to have caused.
    claimed: Mutex<BTreeSet<i64>>,
}

async fn made() -> Option<(ThroughGrpc, Box<dyn Any + Send + Sync>)> {
    let memory = Memory::new();
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::for_directory(folder.path());
    config.database = Location::Memory(memory.session());
    let surroundings = Surroundings {
        clock: Clock::system(),
        random: Random::system(),
        artifacts: Artifacts::in_memory(),
    };
    let app = Arc::new(build_in(config, surroundings).await.unwrap());
    assert!(ensure_lead(&app).await.unwrap());
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(crate::grpc::serve(app.clone(), TcpIncoming::from(listener)));
    let client = WorkerServiceClient::connect(format!("http://{address}")).await.unwrap();
    let stop = app.shutdown.clone().drop_guard();
    let (handed_over, claimed) = (Mutex::default(), Mutex::default());
    let store = ThroughGrpc { app, client, handed_over, claimed };
    Some((store, Box::new((memory, folder, serving, stop))))
}

conformance!(made);

impl ThroughGrpc {
    fn inner(&self) -> &SqlStore {
        &self.app.store
    }

    fn client(&self) -> WorkerServiceClient<Channel> {
        self.client.clone()
    }

    /// The leases that are gone since, of what there was.
    async fn revoked_since(&self, before: Vec<LiveLease>) -> Vec<(LeaseToken, WorkerId)> {
        let after = self.inner().live_leases().await.unwrap();
        let is_gone = |lease: &LiveLease| !after.contains(lease);
        before.into_iter().filter(is_gone).map(|lease| (lease.token, lease.worker)).collect()
    }

    /// Asks for work until this assignment has come.
    async fn take(&self, token: LeaseToken, worker: WorkerId) -> Option<Assignment> {
        if !self.handed_over.lock().unwrap().contains_key(&token) {
            let request =
                v1::NextRequest { worker_id: worker.to_string(), n_free_slots: 4, max_wait_ms: 0 };
            let answer = self.client().next(request).await.unwrap().into_inner();
            let mut handed_over = self.handed_over.lock().unwrap();
            for assignment in answer.assignments {
                handed_over.insert(LeaseToken(assignment.lease_token), from_wire(assignment));
            }
        }
        self.handed_over.lock().unwrap().remove(&token)
    }
}

#[async_trait]
impl Store for ThroughGrpc {
    async fn register_worker(&self, worker: WorkerToRegister) -> Result<Registered, StoreError> {
        let leases = self.inner().live_leases().await?;
        let there = self.inner().live_workers().await?;
        for id in &worker.connected {
            self.app.leader.open_poll(id, 0);
        }
        let found = worker.machine.capabilities;
        let request = v1::RegisterRequest {
            name: worker.name,
            hostname: worker.hostname,
            pid: worker.pid,
            n_slots: worker.machine.n_slots,
            capabilities: Some(v1::Capabilities {
                device_kind: found.device_kind,
                device_name: found.device_name,
                threads_per_slot: found.threads_per_slot,
                cpu_capability: found.cpu_capability,
                libtorch_version: found.libtorch_version,
                memory_bytes: found.memory_bytes,
                recipes: found.recipes,
                labels: found.labels.into_iter().collect(),
            }),
            protocol_version: PROTOCOL_VERSION,
            instance: worker.instance,
        };
        let answer = self.client().register(request).await.unwrap().into_inner();
        let left = self.inner().live_workers().await?;
        let is_gone = |id: &WorkerId| left.iter().all(|record| record.worker != *id);
        Ok(Registered {
            worker: answer.worker_id.parse().unwrap(),
            name: answer.name,
            replaced: there.into_iter().map(|record| record.worker).filter(is_gone).collect(),
            changed: Changed { revoked: self.revoked_since(leases).await, ..Changed::default() },
        })
    }

    async fn confirm_worker(&self, worker: &WorkerId) -> Result<bool, StoreError> {
        let nonce = self.app.artifacts.nonce(worker).await.unwrap().unwrap();
        let request = v1::ConfirmArtifactStoreRequest {
            worker_id: worker.to_string(),
            nonce: nonce.to_vec(),
        };
        Ok(self.client().confirm_artifact_store(request).await.is_ok())
    }

    async fn deregister_worker(&self, worker: &WorkerId) -> Result<Changed, StoreError> {
        let leases = self.inner().live_leases().await?;
        let request = v1::DeregisterRequest { worker_id: worker.to_string() };
        self.client().deregister(request).await.unwrap();
        Ok(Changed { revoked: self.revoked_since(leases).await, ..Changed::default() })
    }

    async fn grant(&self, placements: &[Placement]) -> Result<Vec<Granted>, StoreError> {
        let granted = self.inner().grant(placements).await?;
        self.app.leader.granted(&granted);
        Ok(granted)
    }

    async fn assignment(&self, token: LeaseToken) -> Result<Option<Assignment>, StoreError> {
        let leases = self.inner().live_leases().await?;
        let Some(lease) = leases.into_iter().find(|lease| lease.token == token) else {
            return self.inner().assignment(token).await;
        };
        match self.take(token, lease.worker).await {
            Some(assignment) => Ok(Some(assignment)),
            // Its worker has spoken of it, so that it is not handed over again.
            None => self.inner().assignment(token).await,
        }
    }

    async fn report(
        &self,
        token: LeaseToken,
        events: Vec<ReportEvent>,
    ) -> Result<Reported, StoreError> {
        let before = self.inner().last_event_id().await.unwrap();
        let leases = self.inner().live_leases().await?;
        let events = events.into_iter().map(into_wire).collect();
        let request = v1::ReportRequest { lease_token: token.0, events };
        let answer = self.client().report(request).await.unwrap().into_inner();
        let lease = leases.into_iter().find(|lease| lease.token == token);
        let (false, Some(lease)) = (answer.stale, lease) else { return Ok(Reported::Stale) };
        let since = self.inner().events_after(before, 10_000).await.unwrap();
        let made = since.iter().filter(|event| event.kind == "evaluation_queued");
        let mut claimed = self.claimed.lock().unwrap();
        let n_new = made.filter(|event| claimed.insert(event.id)).count();
        Ok(Reported::Stored { work: lease.work, has_new_work: n_new > 0 })
    }

    async fn finish_attempt(
        &self,
        token: LeaseToken,
        end: AttemptEnd,
        message: &str,
    ) -> Result<Finished, StoreError> {
        let request = to_wire::finish(token, end, message);
        if self.client().finish(request).await.unwrap().into_inner().stale {
            return Ok(Finished::Stale);
        }
        let snapshot = self.inner().snapshot().await.unwrap();
        // A gang's other member ends under its own token.
        let attempt = snapshot.attempts.into_iter().find(|a| a.token == token.0);
        let ended_as = attempt.and_then(|attempt| attempt.ended_as);
        let end = ended_as.and_then(|label| AttemptEnd::from_label(&label)).unwrap_or(end);
        Ok(Finished::Ended { end, changed: Changed::default() })
    }

    async fn expire_leases(&self, tokens: &[LeaseToken]) -> Result<Changed, StoreError> {
        let changed = self.inner().expire_leases(tokens).await?;
        self.app.leader.revoke(&changed.revoked);
        Ok(changed)
    }

    async fn close_lost_workers(&self, workers: &[WorkerId]) -> Result<Changed, StoreError> {
        let changed = self.inner().close_lost_workers(workers).await?;
        self.app.leader.revoke(&changed.revoked);
        for worker in workers {
            self.app.leader.leave(worker);
        }
        Ok(changed)
    }

    async fn drain_worker(&self, worker: &WorkerId) -> Result<bool, StoreError> {
        let is_known = self.inner().drain_worker(worker).await?;
        self.app.leader.drain(worker);
        Ok(is_known)
    }

    async fn apply_study(&self, study: StudyToApply) -> Result<ApplyOutcome, StoreError> {
        self.inner().apply_study(study).await
    }

    async fn cancel_study(&self, study: &StudyId, reason: &str) -> Result<Changed, StoreError> {
        self.inner().cancel_study(study, reason).await
    }

    async fn cancel_run(&self, run: &RunId, reason: &str) -> Result<Changed, StoreError> {
        self.inner().cancel_run(run, reason).await
    }

    async fn retry_study(&self, study: &StudyId, which: Retry) -> Result<Changed, StoreError> {
        self.inner().retry_study(study, which).await
    }

    async fn retry_run(&self, run: &RunId, which: Retry) -> Result<Changed, StoreError> {
        self.inner().retry_run(run, which).await
    }

    async fn pause_study(&self, study: &StudyId, reason: &str) -> Result<Changed, StoreError> {
        self.inner().pause_study(study, reason).await
    }

    async fn resume_study(&self, study: &StudyId) -> Result<Changed, StoreError> {
        self.inner().resume_study(study).await
    }

    async fn set_priority(&self, study: &StudyId, priority: i32) -> Result<Changed, StoreError> {
        self.inner().set_priority(study, priority).await
    }

    async fn record_source(&self, source: &Artifact) -> Result<(), StoreError> {
        self.inner().record_source(source).await
    }

    async fn record_seen(&self, seen: &[(WorkerId, i64)]) -> Result<(), StoreError> {
        self.inner().record_seen(seen).await
    }

    async fn live_workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        self.inner().live_workers().await
    }

    async fn live_leases(&self) -> Result<Vec<LiveLease>, StoreError> {
        self.inner().live_leases().await
    }

    async fn held_leases(&self) -> Result<Vec<(LeaseToken, WorkerId)>, StoreError> {
        self.inner().held_leases().await
    }

    async fn queue_head(
        &self,
        limit: u32,
        machines: Option<&[Machine]>,
    ) -> Result<QueueHead, StoreError> {
        self.inner().queue_head(limit, machines).await
    }

    async fn queue_page(&self, limit: u32, page: u32) -> Result<QueueHead, StoreError> {
        self.inner().queue_page(limit, page).await
    }

    async fn busy_slots(&self) -> Result<Vec<BusySlot>, StoreError> {
        self.inner().busy_slots().await
    }

    async fn backoffs(&self, limit: u32) -> Result<Vec<Backoff>, StoreError> {
        self.inner().backoffs(limit).await
    }

    async fn requeue(&self, works: &[WorkId]) -> Result<Changed, StoreError> {
        self.inner().requeue(works).await
    }

    async fn supersede_checkpoints(&self, limit: u32) -> Result<u64, StoreError> {
        self.inner().supersede_checkpoints(limit).await
    }

    async fn superseded_checkpoints(
        &self,
        limit: u32,
    ) -> Result<Vec<SupersededCheckpoint>, StoreError> {
        self.inner().superseded_checkpoints(limit).await
    }

    async fn note_removed(&self, removed: Vec<SupersededCheckpoint>) -> Result<(), StoreError> {
        self.inner().note_removed(removed).await
    }

    async fn save_fit(&self, fit: FitToSave) -> Result<(), StoreError> {
        self.inner().save_fit(fit).await
    }
}

#[async_trait]
impl ReadStore for ThroughGrpc {
    async fn schema_version(&self) -> Result<i64, ReadError> {
        self.inner().schema_version().await
    }

    async fn count_live_workers(&self, since_ms: i64) -> Result<u64, ReadError> {
        self.inner().count_live_workers(since_ms).await
    }

    async fn missing_sources(&self, hashes: &[ContentHash]) -> Result<Vec<ContentHash>, ReadError> {
        self.inner().missing_sources(hashes).await
    }

    async fn find_study(&self, name_or_id: &str) -> Result<Lookup<StudyId>, ReadError> {
        self.inner().find_study(name_or_id).await
    }

    async fn find_run(&self, name_or_id: &str) -> Result<Lookup<RunId>, ReadError> {
        self.inner().find_run(name_or_id).await
    }

    async fn study_list(&self) -> Result<StudyList, ReadError> {
        self.inner().study_list().await
    }

    async fn study_view(&self, study: &StudyId) -> Result<Option<StudyView>, ReadError> {
        self.inner().study_view(study).await
    }

    async fn run_list(&self, study: Option<&StudyId>) -> Result<RunList, ReadError> {
        self.inner().run_list(study).await
    }

    async fn run_view(&self, run: &RunId) -> Result<Option<RunView>, ReadError> {
        self.inner().run_view(run).await
    }

    async fn curves(&self, query: &CurveQuery) -> Result<CurveList, ReadError> {
        self.inner().curves(query).await
    }

    async fn points(&self, run: &RunId, series: &str) -> Result<Vec<SeriesPoint>, ReadError> {
        self.inner().points(run, series).await
    }

    async fn history(
        &self,
        of: &HistoryOf,
        after: i64,
        limit: u32,
    ) -> Result<Vec<HistoryEvent>, ReadError> {
        self.inner().history(of, after, limit).await
    }

    async fn logs(&self, run: &RunId, after: i64, limit: u32) -> Result<LogList, ReadError> {
        self.inner().logs(run, after, limit).await
    }

    async fn workers(&self, is_there_only: bool) -> Result<Vec<WorkerView>, ReadError> {
        self.inner().workers(is_there_only).await
    }

    async fn worker_named(&self, name_or_id: &str) -> Result<Option<WorkerView>, ReadError> {
        self.inner().worker_named(name_or_id).await
    }

    async fn events_after(&self, after: i64, limit: u32) -> Result<Vec<EventView>, ReadError> {
        self.inner().events_after(after, limit).await
    }

    async fn last_event_id(&self) -> Result<i64, ReadError> {
        self.inner().last_event_id().await
    }

    async fn run_status(&self, run: &RunId) -> Result<Option<RunStatus>, ReadError> {
        self.inner().run_status(run).await
    }

    async fn dropped_cells(&self, name: &str) -> Result<Vec<DroppedCell>, ReadError> {
        self.inner().dropped_cells(name).await
    }

    async fn snapshot(&self) -> Result<Snapshot, ReadError> {
        self.inner().snapshot().await
    }

    async fn fit_inputs(&self, study: &StudyId) -> Result<Option<FitInputs>, ReadError> {
        self.inner().fit_inputs(study).await
    }

    async fn fit_list(
        &self,
        study: Option<&StudyId>,
        limit: u32,
    ) -> Result<Vec<FitSummary>, ReadError> {
        self.inner().fit_list(study, limit).await
    }

    async fn fit_record(&self, fit: &FitId) -> Result<Option<FitRecord>, ReadError> {
        self.inner().fit_record(fit).await
    }

    async fn stored_fit(
        &self,
        study: &StudyId,
        inputs_hash: &ContentHash,
    ) -> Result<Option<String>, ReadError> {
        self.inner().stored_fit(study, inputs_hash).await
    }
}

fn reference(artifact: Artifact) -> v1::ArtifactRef {
    let hash = artifact.hash.to_string();
    v1::ArtifactRef { key: artifact.key, hash, n_bytes: artifact.n_bytes }
}

fn artifact(reference: Option<v1::ArtifactRef>) -> Artifact {
    let reference = reference.unwrap();
    Artifact {
        key: reference.key,
        hash: reference.hash.parse().unwrap(),
        n_bytes: reference.n_bytes,
    }
}

fn into_wire(event: ReportEvent) -> v1::Event {
    use v1::event::Kind;
    to_wire::event(match event {
        ReportEvent::Started { numerics, resumed_from_step } => Kind::Started(v1::Started {
            numerics: Some(v1::Numerics {
                device_kind: numerics.device_kind,
                intra_op_threads: numerics.intra_op_threads,
                micro_batch_sequences: numerics.micro_batch_sequences,
                cpu_capability: numerics.cpu_capability,
                libtorch_version: numerics.libtorch_version,
            }),
            resumed_from_step,
        }),
        ReportEvent::Point { step, values } => {
            Kind::Point(v1::MetricPoint { step, values: values.into_iter().collect() })
        }
        ReportEvent::Log { at_ms, level, text } => Kind::Log(v1::LogLine {
            at_ms: at_ms.try_into().unwrap(),
            level: level.label().to_owned(),
            text,
        }),
        ReportEvent::Checkpoint { step, manifest, weights, is_data_point, n_bytes } => {
            Kind::Checkpoint(v1::Checkpoint {
                step,
                manifest: Some(reference(manifest)),
                weights: Some(reference(weights)),
                is_data_point,
                n_bytes,
            })
        }
        ReportEvent::CheckpointRefused { manifest_key, reason } => {
            Kind::CheckpointRefused(v1::CheckpointRefused { step: 0, manifest_key, reason })
        }
        ReportEvent::Evaluation { name, value, standard_error, n_tokens } => {
            Kind::Evaluation(v1::EvaluationResult { name, value, standard_error, n_tokens })
        }
        ReportEvent::Preparation {
            manifest,
            n_training_tokens,
            n_validation_tokens,
            vocab_size,
        } => Kind::Preparation(v1::PreparationResult {
            manifest: Some(reference(manifest)),
            n_training_tokens,
            n_validation_tokens,
            vocab_size,
        }),
    })
}

fn from_wire(assignment: v1::Assignment) -> Assignment {
    use v1::assignment::Work;
    let details = match assignment.work.unwrap() {
        Work::Train(train) => AssignmentDetails::Train(Box::new(TrainDetails {
            config_json: train.config_json,
            data_manifest: artifact(train.data_manifest),
            micro_batch_sequences: train.micro_batch_sequences,
            data_point_steps: train.data_point_steps,
            rolling_checkpoint_seconds: train.rolling_checkpoint_seconds,
            checkpoints: train
                .checkpoints
                .into_iter()
                .map(|checkpoint| OfferedCheckpoint {
                    step: checkpoint.step,
                    manifest: artifact(checkpoint.manifest),
                    has_failed: checkpoint.has_failed,
                })
                .collect(),
            numerics: train.numerics.map(|numerics| Numerics {
                device_kind: numerics.device_kind,
                intra_op_threads: numerics.intra_op_threads,
                micro_batch_sequences: numerics.micro_batch_sequences,
                cpu_capability: numerics.cpu_capability,
                libtorch_version: numerics.libtorch_version,
            }),
            branch_step: (train.branch_step > 0).then_some(train.branch_step),
        })),
        Work::Evaluate(evaluate) => AssignmentDetails::Evaluate {
            config_json: evaluate.config_json,
            cell_config_json: evaluate.cell_config_json,
            checkpoint_manifest: artifact(evaluate.checkpoint_manifest),
            data_manifest: artifact(evaluate.data_manifest),
        },
        Work::PrepareData(prepare) => AssignmentDetails::Prepare {
            config_json: prepare.config_json,
            sources: prepare.sources.into_iter().map(|source| artifact(Some(source))).collect(),
        },
    };
    Assignment {
        token: LeaseToken(assignment.lease_token),
        work: assignment.work_id.parse().unwrap(),
        attempt: domain::ids::AttemptNumber(assignment.attempt),
        rank: assignment.rank,
        world_size: assignment.world_size,
        details,
    }
}
