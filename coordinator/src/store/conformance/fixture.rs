//! A store with what the suite needs around it: studies, workers, and short words for the verbs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, LeaseToken, RunId, StudyId, WorkId, WorkerId};
use domain::invariant;
use domain::spec::parse;
use planner::CorpusHashes;

use crate::scheduler::fit::Machine;
use crate::scheduler::policy::{Placement, QueuedWork};
use crate::store::read::ReadStore;
use crate::store::{
    Applied, ApplyOutcome, Artifact, Capabilities, Finished, Granted, ReportEvent, Reported, Store,
    StudyToApply, WorkerToRegister,
};

/// Two runs: one for each learning rate, four data points each.
pub(in crate::store) const STUDY: &str = r"
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
        axes:
          - {name: lr, field: training.optimizer.learning_rate, values: [1e-3, 2e-3]}
        design: {fixed_tokens: {tokens: 1e5}}
        checkpoints: {log_spaced: {count: 4, first_step: 20}}
";

/// Everything that a test of the suite gets.
pub(in crate::store) struct Fixture<S> {
    pub(in crate::store) store: S,
    // Whatever must live as long as the store.
    _keeps: Box<dyn std::any::Any + Send + Sync>,
    n_workers: AtomicU32,
}

impl<S: Store + ReadStore> Fixture<S> {
    /// Every invariant holds, whatever has been done.
    pub(in crate::store) async fn check(&self) {
        let violations = invariant::check(&self.store.snapshot().await.unwrap());
        assert!(violations.is_empty(), "{violations:#?}");
    }

    pub(in crate::store) fn new((store, keeps): (S, Box<dyn std::any::Any + Send + Sync>)) -> Self {
        Self { store, _keeps: keeps, n_workers: AtomicU32::new(0) }
    }

    pub(in crate::store) async fn apply(&self, changes: &[(&str, &str)]) -> Applied {
        self.store.record_source(&source()).await.unwrap();
        let outcome = self.store.apply_study(study(changes)).await.unwrap();
        self.check().await;
        match outcome {
            ApplyOutcome::Applied(applied) => applied,
            ApplyOutcome::MissingSources(hashes) => panic!("{hashes:?} are missing"),
        }
    }

    pub(in crate::store) async fn worker(&self) -> WorkerId {
        let number = self.n_workers.fetch_add(1, Ordering::Relaxed);
        let worker = registration(&format!("w_{number}"), "machine", number);
        let registered = self.store.register_worker(worker).await.unwrap();
        assert!(self.store.confirm_worker(&registered.worker).await.unwrap());
        registered.worker
    }

    pub(in crate::store) async fn queue(&self) -> Vec<QueuedWork> {
        self.store.queue_head(1000, None).await.unwrap().work
    }

    pub(in crate::store) async fn queued_ids(&self) -> Vec<WorkId> {
        self.queue().await.into_iter().map(|queued| queued.work).collect()
    }

    /// Grants the first piece of work in the queue.
    pub(in crate::store) async fn grant_first(&self, worker: &WorkerId) -> Granted {
        let queue = self.queue().await;
        let placements = [placement(&queue[0].work, worker)];
        let granted = self.store.grant(&placements).await.unwrap().remove(0);
        self.check().await;
        granted
    }

    pub(in crate::store) async fn report(&self, token: LeaseToken, event: ReportEvent) -> Reported {
        let reported = self.store.report(token, vec![event]).await.unwrap();
        self.check().await;
        reported
    }

    pub(in crate::store) async fn finish(&self, token: LeaseToken, end: AttemptEnd) -> Finished {
        let finished = self.store.finish_attempt(token, end, "").await.unwrap();
        self.check().await;
        finished
    }

    /// Applies the study and carries out its data preparation, so that its runs are queued.
    pub(in crate::store) async fn prepared(&self) -> WorkerId {
        self.prepared_with(&[]).await
    }

    /// The same with a changed study file.
    pub(in crate::store) async fn prepared_with(&self, changes: &[(&str, &str)]) -> WorkerId {
        self.apply(changes).await;
        let worker = self.worker().await;
        let granted = self.grant_first(&worker).await;
        assert_eq!(granted.work.kind(), "preparation");
        self.report(granted.token, preparation_result()).await;
        assert!(is_ended(&self.finish(granted.token, AttemptEnd::Succeeded).await));
        worker
    }

    /// Reports the checkpoint that a successful run must have, and ends it.
    pub(in crate::store) async fn succeed(&self, token: LeaseToken, last_step: u64) -> Finished {
        self.report(token, checkpoint(last_step, true)).await;
        self.finish(token, AttemptEnd::Succeeded).await
    }
}

pub(in crate::store) fn is_ended(finished: &Finished) -> bool {
    matches!(finished, Finished::Ended { .. })
}

/// The identifier of the study with this name.
pub(in crate::store) fn study_named(name: &str) -> StudyId {
    StudyId::from_hash(&ContentHash::of(name.as_bytes()))
}

/// The run that this work is.
pub(in crate::store) fn run_of(work: &WorkId) -> RunId {
    let WorkId::Run(run) = work else { panic!("a run") };
    run.clone()
}

pub(in crate::store) fn placement(work: &WorkId, worker: &WorkerId) -> Placement {
    Placement::of_one(work.clone(), worker.clone())
}

pub(in crate::store) fn source() -> Artifact {
    let hash = ContentHash::of(b"to be or not to be");
    Artifact { key: format!("sources/{hash}"), hash, n_bytes: 18 }
}

pub(in crate::store) fn study(changes: &[(&str, &str)]) -> StudyToApply {
    let mut text = STUDY.to_owned();
    for (from, to) in changes {
        assert!(text.contains(from), "`{from}` is not in the study");
        text = text.replacen(from, to, 1);
    }
    let parsed = parse(&text, "tiny.yaml").unwrap();
    let sources = [CorpusHashes { corpus: "plays".to_owned(), file_hashes: vec![source().hash] }];
    let plan = planner::plan(&parsed, &sources).unwrap().into();
    StudyToApply { spec: parsed.spec, spec_text: text, spec_file: "tiny.yaml".into(), plan }
}

/// The steps of each run of the study.
pub(in crate::store) fn last_step() -> u64 {
    let plan = study(&[]).plan;
    *plan.cells[0].seedless.data_point_steps.last().unwrap()
}

pub(in crate::store) fn run_ids(changes: &[(&str, &str)]) -> Vec<RunId> {
    study(changes).plan.cells.iter().map(|cell| cell.run_id.clone()).collect()
}

pub(in crate::store) fn registration(id: &str, hostname: &str, pid: u32) -> WorkerToRegister {
    WorkerToRegister {
        proposed_id: id.parse().unwrap(),
        name: "worker".into(),
        hostname: format!("{hostname}-{id}"),
        pid,
        instance: format!("process-{pid}"),
        connected: Vec::new(),
        machine: Machine { n_slots: 4, capabilities: Capabilities::of_a_cpu(1) },
    }
}

fn artifact(name: &str) -> Artifact {
    Artifact { key: name.to_owned(), hash: ContentHash::of(name.as_bytes()), n_bytes: 10 }
}

pub(in crate::store) fn preparation_result() -> ReportEvent {
    ReportEvent::Preparation {
        manifest: artifact("data/manifest.json"),
        n_training_tokens: 100_000,
        n_validation_tokens: 1000,
        vocab_size: 257,
    }
}

pub(in crate::store) fn checkpoint(step: u64, is_data_point: bool) -> ReportEvent {
    ReportEvent::Checkpoint {
        step,
        manifest: artifact(&format!("{step}/manifest.json")),
        weights: artifact(&format!("{step}/model.safetensors")),
        is_data_point,
        n_bytes: 100,
    }
}

pub(in crate::store) fn point(step: u64, loss: f64) -> ReportEvent {
    ReportEvent::Point { step, values: BTreeMap::from([("train_loss_nats".to_owned(), loss)]) }
}
