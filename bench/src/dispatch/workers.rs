//! Workers that speak the protocol and train nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use domain::ids::ContentHash;
use domain::recipe::CellConfig;
use proto::v1::assignment::Work;
use proto::v1::event::Kind;
use proto::v1::worker_service_client::WorkerServiceClient;
use proto::{PROTOCOL_VERSION, v1};
use tokio::sync::Notify;
use tonic::transport::Channel;

use super::server::Server;

/// How many runs are left; tells the others when none is.
pub(super) struct Counter {
    n_left: AtomicU32,
    over: Notify,
}

impl Counter {
    pub(super) fn new(n_left: u32) -> Self {
        Self { n_left: AtomicU32::new(n_left), over: Notify::new() }
    }

    fn done(&self, n: u32) {
        if self.n_left.fetch_sub(n, Ordering::SeqCst) == n {
            self.over.notify_waiters();
        }
    }

    fn is_over(&self) -> bool {
        self.n_left.load(Ordering::SeqCst) == 0
    }
}

/// A registered worker.
pub(super) struct Worker {
    client: WorkerServiceClient<Channel>,
    id: String,
    n_slots: u32,
}

impl Worker {
    /// Registers and shows that it sees the artifact store.
    pub(super) async fn join(server: &Server, name: &str, n_slots: u32) -> Result<Self> {
        let channel = Channel::from_shared(server.grpc_url.clone())?.connect().await?;
        Self::join_on(&channel, server, name, n_slots).await
    }

    /// The same on a connection that others may use too.
    pub(super) async fn join_on(
        channel: &Channel,
        server: &Server,
        name: &str,
        n_slots: u32,
    ) -> Result<Self> {
        let mut client = WorkerServiceClient::new(channel.clone());
        let registered = client.register(registration(name, n_slots)).await?.into_inner();
        let nonce = std::fs::read(server.artifacts().join(&registered.nonce_key))
            .context("could not read the nonce object")?;
        let id = registered.worker_id;
        let confirm = v1::ConfirmArtifactStoreRequest { worker_id: id.clone(), nonce };
        client.confirm_artifact_store(confirm).await?;
        Ok(Self { client, id, n_slots })
    }

    pub(super) async fn leave(self) -> Result<()> {
        let mut client = self.client;
        client.deregister(v1::DeregisterRequest { worker_id: self.id }).await?;
        Ok(())
    }

    /// Carries out so many assignments, one after the other.
    pub(super) async fn work_until(&self, n: u32) -> Result<()> {
        for _ in 0..n {
            let (_, assignment) = self.take_one().await?;
            self.carry_out(assignment).await?;
        }
        Ok(())
    }

    /// Carries out what comes until the counter is at zero, as many at a time as it has slots.
    pub(super) async fn work_with(&self, counter: &Counter) -> Result<()> {
        loop {
            let over = counter.over.notified();
            if counter.is_over() {
                return Ok(());
            }
            let assignments = tokio::select! {
                assignments = self.next(self.n_slots) => assignments?,
                () = over => return Ok(()),
            };
            let n = u32::try_from(assignments.len())?;
            let carried_out = assignments.into_iter().map(|assignment| self.carry_out(assignment));
            for done in futures::future::join_all(carried_out).await {
                done?;
            }
            if n > 0 {
                counter.done(n);
            }
        }
    }

    /// The next assignment, and when it came.
    pub(super) async fn take_one(&self) -> Result<(Instant, v1::Assignment)> {
        loop {
            let mut assignments = self.next(1).await?;
            if let Some(assignment) = assignments.pop() {
                return Ok((Instant::now(), assignment));
            }
        }
    }

    /// Holds a poll open for ever.
    pub(super) async fn wait_for_work(&self) -> Result<()> {
        loop {
            self.next(1).await?;
        }
    }

    /// Says that it lives, for ever.
    pub(super) async fn beat(&self, first_after: Duration, every: Duration) -> Result<()> {
        tokio::time::sleep(first_after).await;
        loop {
            let worker_id = self.id.clone();
            let request = v1::HeartbeatRequest { worker_id, lease_tokens: Vec::new() };
            self.client.clone().heartbeat(request).await?;
            tokio::time::sleep(every).await;
        }
    }

    /// Takes so many assignments and says of each that it has begun; their tokens.
    pub(super) async fn hold(&self, n: u32) -> Result<Vec<u64>> {
        let mut tokens = Vec::new();
        while tokens.len() < usize::try_from(n)? {
            let n_left = n - u32::try_from(tokens.len())?;
            for assignment in self.next(n_left).await? {
                let lease_token = assignment.lease_token;
                let report = v1::ReportRequest { lease_token, events: vec![started()] };
                self.client.clone().report(report).await?;
                tokens.push(lease_token);
            }
        }
        Ok(tokens)
    }

    /// Renews these leases; how many are gone. An error when nobody answers.
    pub(super) async fn renew(&self, lease_tokens: &[u64]) -> Result<usize> {
        let worker_id = self.id.clone();
        let request = v1::HeartbeatRequest { worker_id, lease_tokens: lease_tokens.to_vec() };
        let answer = self.client.clone().heartbeat(request).await?.into_inner();
        if answer.is_unknown_worker {
            bail!("the coordinator has forgotten its worker");
        }
        Ok(answer.stale_lease_tokens.len())
    }

    async fn next(&self, n_free_slots: u32) -> Result<Vec<v1::Assignment>> {
        let worker_id = self.id.clone();
        let request = v1::NextRequest { worker_id, n_free_slots, max_wait_ms: 30_000 };
        Ok(self.client.clone().next(request).await?.into_inner().assignments)
    }

    /// Reports the result that the assignment must have, and ends it.
    pub(super) async fn carry_out(&self, assignment: v1::Assignment) -> Result<()> {
        let token = assignment.lease_token;
        let events = match assignment.work.context("an assignment without work")? {
            Work::Train(train) => vec![started(), last_checkpoint(&train)?],
            Work::PrepareData(_) => vec![started(), prepared()],
            Work::Evaluate(_) => vec![started(), evaluated()],
        };
        let mut client = self.client.clone();
        let report = v1::ReportRequest { lease_token: token, events };
        let is_stale = client.report(report).await?.into_inner().stale;
        let end = v1::FinishRequest {
            lease_token: token,
            end: "succeeded".to_owned(),
            message: String::new(),
        };
        if is_stale || client.finish(end).await?.into_inner().stale {
            bail!("the lease of `{}` was gone", assignment.work_id);
        }
        Ok(())
    }
}

fn event(kind: Kind) -> v1::Event {
    v1::Event { kind: Some(kind) }
}

fn started() -> v1::Event {
    let numerics = v1::Numerics {
        device_kind: "cpu".into(),
        intra_op_threads: 1,
        micro_batch_sequences: 8,
        cpu_capability: "AVX2".into(),
        libtorch_version: "2.11.0".into(),
    };
    event(Kind::Started(v1::Started { numerics: Some(numerics), resumed_from_step: 0 }))
}

fn artifact(key: &str) -> v1::ArtifactRef {
    let hash = ContentHash::of(key.as_bytes()).to_string();
    v1::ArtifactRef { key: key.to_owned(), hash, n_bytes: 1 }
}

/// It is no data point, so that no evaluation follows: the runs alone are counted.
fn last_checkpoint(train: &v1::Train) -> Result<v1::Event> {
    let config = domain::cell::Identity::parse::<CellConfig>(&train.config_json)?;
    let CellConfig::Pretrain(cell) = config;
    Ok(event(Kind::Checkpoint(v1::Checkpoint {
        step: cell.steps,
        manifest: Some(artifact("manifest.json")),
        weights: Some(artifact("model.safetensors")),
        is_data_point: false,
        n_bytes: 1,
    })))
}

fn prepared() -> v1::Event {
    event(Kind::Preparation(v1::PreparationResult {
        manifest: Some(artifact("data/manifest.json")),
        n_training_tokens: 100_000,
        n_validation_tokens: 1000,
        vocab_size: 257,
    }))
}

fn evaluated() -> v1::Event {
    event(Kind::Evaluation(v1::EvaluationResult {
        name: "validation_loss_nats".into(),
        value: 3.0,
        standard_error: None,
        n_tokens: 1,
    }))
}

fn registration(name: &str, n_slots: u32) -> v1::RegisterRequest {
    v1::RegisterRequest {
        name: name.to_owned(),
        hostname: "bench".into(),
        pid: std::process::id(),
        n_slots,
        capabilities: Some(v1::Capabilities {
            device_kind: "cpu".into(),
            device_name: "a CPU".into(),
            threads_per_slot: 1,
            cpu_capability: "AVX2".into(),
            libtorch_version: "2.11.0".into(),
            // Not known, so that any run fits, however many slots there are.
            memory_bytes: 0,
            recipes: vec!["pretrain".into()],
            labels: HashMap::new(),
        }),
        protocol_version: PROTOCOL_VERSION,
        instance: format!("{}-{name}", std::process::id()),
    }
}
