//! The store on SQLite: one file, one writer, several readers.
//!
//! The rules are the domain's; this carries out transitions as rows.

mod apply;
mod assignment;
mod change;
mod convert;
pub(crate) mod error;
mod evaluations;
mod finish;
mod fits;
mod grant;
mod open;
mod points;
pub(crate) mod read;
mod report;
mod work;
mod workers;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use api::EventView;
use async_trait::async_trait;
use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, RunId, StudyId, WorkId, WorkerId};
use sqlx::SqlitePool;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;

use self::writer::{Command, Writer};
use super::{
    ApplyOutcome, Artifact, Assignment, Changed, Finished, FitToSave, Granted, LiveLease,
    Registered, ReportEvent, Reported, Store, StoreError, StudyToApply, WorkerRecord, WorkerState,
    WorkerToRegister,
};
use crate::clock::Clock;
use crate::scheduler::policy::{Placement, QueuedWork};

/// A store in one SQLite file.
pub struct SqliteStore {
    path: PathBuf,
    clock: Clock,
    readers: SqlitePool,
    writer: Mutex<Option<Writer>>,
    task: Mutex<Option<JoinHandle<()>>>,
    // Held for as long as this process may write.
    _lock: Option<File>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens or makes the store, alone, and brings its schema up to date. Events are sent to
    /// `changes` after their commit.
    pub async fn open(
        path: &Path,
        clock: Clock,
        changes: broadcast::Sender<EventView>,
    ) -> Result<Self, StoreError> {
        let opened = open::for_writing(path).await?;
        let (writer, task) = Writer::start(opened.writer, clock.clone(), changes);
        Ok(Self {
            path: path.to_owned(),
            clock,
            readers: opened.readers,
            writer: Mutex::new(Some(writer)),
            task: Mutex::new(Some(task)),
            _lock: Some(opened.lock),
        })
    }

    /// Opens the store for views only, while another coordinator writes it or none does.
    pub async fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        Ok(Self {
            path: path.to_owned(),
            clock: Clock::system(),
            readers: open::for_reading(path).await?,
            writer: Mutex::new(None),
            task: Mutex::new(None),
            _lock: None,
        })
    }

    /// The connections that views read on.
    pub(crate) fn read_pool(&self) -> &SqlitePool {
        &self.readers
    }

    /// Carries out what is queued, then closes the file. Every verb that changes something answers
    /// [`StoreError::ReadOnly`] afterwards.
    pub async fn close(&self) {
        drop(take(&self.writer));
        // The writer is the last to close, so that it folds the write-ahead log into the file.
        self.readers.close().await;
        if let Some(task) = take(&self.task)
            && let Err(error) = task.await
        {
            tracing::error!(error = %error, "the store's writer ended badly");
        }
    }

    async fn write<C: Command>(&self, command: C) -> Result<C::Answer, StoreError> {
        let writer = self.writer.lock().ok().and_then(|writer| writer.clone());
        writer.ok_or(StoreError::ReadOnly)?.run(command).await
    }
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().ok().and_then(|mut slot| slot.take())
}

#[async_trait]
impl Store for SqliteStore {
    async fn apply_study(&self, study: StudyToApply) -> Result<ApplyOutcome, StoreError> {
        self.write(apply::ApplyStudy(Box::new(study))).await
    }

    async fn cancel_study(&self, study: &StudyId, reason: &str) -> Result<Changed, StoreError> {
        let study = study.clone();
        self.write(change::CancelStudy { study, reason: reason.to_owned() }).await
    }

    async fn cancel_run(&self, run: &RunId, reason: &str) -> Result<Changed, StoreError> {
        self.write(change::CancelRun { run: run.clone(), reason: reason.to_owned() }).await
    }

    async fn retry_study(&self, study: &StudyId) -> Result<Changed, StoreError> {
        self.write(change::RetryStudy(study.clone())).await
    }

    async fn retry_run(&self, run: &RunId) -> Result<Changed, StoreError> {
        self.write(change::RetryRun(run.clone())).await
    }

    async fn record_source(&self, source: &Artifact) -> Result<(), StoreError> {
        self.write(workers::RecordSource(source.clone())).await
    }

    async fn register_worker(&self, worker: WorkerToRegister) -> Result<Registered, StoreError> {
        self.write(workers::RegisterWorker(Box::new(worker))).await
    }

    async fn confirm_worker(&self, worker: &WorkerId) -> Result<bool, StoreError> {
        let (worker, to) = (worker.clone(), WorkerState::Active);
        self.write(workers::MoveWorker { worker, to }).await
    }

    async fn drain_worker(&self, worker: &WorkerId) -> Result<bool, StoreError> {
        let (worker, to) = (worker.clone(), WorkerState::Draining);
        self.write(workers::MoveWorker { worker, to }).await
    }

    async fn deregister_worker(&self, worker: &WorkerId) -> Result<Changed, StoreError> {
        self.write(workers::DeregisterWorker(worker.clone())).await
    }

    async fn close_lost_workers(&self, workers: &[WorkerId]) -> Result<Changed, StoreError> {
        self.write(workers::CloseLostWorkers(workers.to_vec())).await
    }

    async fn record_seen(&self, seen: &[(WorkerId, i64)]) -> Result<(), StoreError> {
        self.write(workers::RecordSeen(seen.to_vec())).await
    }

    async fn live_workers(&self) -> Result<Vec<WorkerRecord>, StoreError> {
        workers::live(&self.readers).await
    }

    async fn live_leases(&self) -> Result<Vec<LiveLease>, StoreError> {
        grant::live_leases(&self.readers).await
    }

    async fn queue_head(&self, limit: u32) -> Result<Vec<QueuedWork>, StoreError> {
        grant::queue_head(&self.readers, limit).await
    }

    async fn grant(&self, placements: &[Placement]) -> Result<Vec<Granted>, StoreError> {
        self.write(grant::Grant(placements.to_vec())).await
    }

    async fn assignment(&self, token: LeaseToken) -> Result<Option<Assignment>, StoreError> {
        assignment::assignment(&self.readers, token).await
    }

    async fn report(
        &self,
        token: LeaseToken,
        events: Vec<ReportEvent>,
    ) -> Result<Reported, StoreError> {
        self.write(report::Report { token, events }).await
    }

    async fn finish_attempt(
        &self,
        token: LeaseToken,
        end: AttemptEnd,
        message: &str,
    ) -> Result<Finished, StoreError> {
        self.write(finish::FinishAttempt { token, end, message: message.to_owned() }).await
    }

    async fn expire_leases(&self, tokens: &[LeaseToken]) -> Result<Changed, StoreError> {
        self.write(finish::ExpireLeases(tokens.to_vec())).await
    }

    async fn has_due_backoffs(&self) -> Result<bool, StoreError> {
        finish::has_due_backoffs(&self.readers, self.clock.wall_ms()).await
    }

    async fn requeue_due_backoffs(&self) -> Result<Vec<WorkId>, StoreError> {
        self.write(finish::RequeueDueBackoffs).await
    }

    async fn save_fit(&self, fit: FitToSave) -> Result<(), StoreError> {
        self.write(fits::SaveFit(fit)).await
    }
}
