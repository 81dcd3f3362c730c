//! The store in a database of SQL: one writer, several readers, on SQLite and on PostgreSQL.
//!
//! The rules are the domain's; this carries out transitions as rows. Statements are written once
//! for both databases (`database`); what only one of them has stands in `sqlite` and `postgres`.

mod apply;
mod assignment;
mod change;
mod closing;
mod convert;
pub mod copy;
pub(crate) mod database;
mod decision;
pub(crate) mod error;
mod evaluations;
mod events;
mod finish;
mod fits;
mod grant;
mod groups;
mod log_rules;
mod many;
mod members;
mod memory;
mod micro_batch;
mod pause;
mod points;
mod postgres;
mod queue;
pub(crate) mod read;
mod report;
mod retention;
mod retries;
mod reuse;
mod sqlite;
mod statistics;
mod trunks;
mod wanted;
mod work;
mod workers;
mod writer;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::sync::Mutex;
use std::time::Duration;

use api::EventView;
use async_trait::async_trait;
use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, RunId, StudyId, WorkId, WorkerId};
use domain::worker::WorkerEvent;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgListener;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::database::{Connection, Pool, query_scalar};
use self::writer::{Command, Writer};
use super::{
    ApplyOutcome, Artifact, Assignment, Backoff, Changed, Finished, FitToSave, Granted, LiveLease,
    Location, Registered, ReportEvent, Reported, Retry, Store, StoreError, StudyToApply,
    SupersededCheckpoint, WorkerRecord, WorkerToRegister,
};
use crate::clock::Clock;
use crate::scheduler::fit::Machine;
use crate::scheduler::policy::{BusySlot, Placement, QueueHead};

/// How many views are read at a time.
const VIEW_CONNECTIONS: u32 = 4;

/// How many reads at a time lead: the scheduler's, the reconciler's and some assignments.
const CONTROL_CONNECTIONS: u32 = 4;

/// So long readers are waited for when the store closes: one may wait for a database that is no more.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// So long a writer is waited for whose server does not answer.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// A store in one database.
pub struct SqlStore {
    location: Location,
    clock: Clock,
    changes: broadcast::Sender<EventView>,
    /// For views, of which any number may be slow.
    readers: Pool,
    /// For what leads: scheduler, reconciler and the answers to workers. No view makes them wait.
    control: Pool,
    is_read_only: bool,
    lead: Mutex<Option<Lead>>,
    /// Where a standby hears that the leader leaves. It stays open from one wait to the next, so that
    /// nothing is missed in between.
    listener: tokio::sync::Mutex<Option<PgListener>>,
}

/// What only the leader has.
struct Lead {
    writer: Writer,
    task: JoinHandle<()>,
    /// Cancelled when the writer has ended, whatever the reason.
    is_over: CancellationToken,
    /// Held for as long as this process may write.
    right: Right,
}

/// What lets one coordinator write and no other.
enum Right {
    /// The lock of SQLite's file.
    File(#[expect(dead_code, reason = "it is held, not read")] File),
    /// PostgreSQL's belongs to the connection, whose session has this number.
    OfTheSession(i32),
    /// That of a database in memory.
    Memory(#[expect(dead_code, reason = "it is held, not read")] super::memory::Lead),
}

impl Right {
    /// The number of the session that it belongs to.
    fn session(&self) -> Option<i32> {
        match self {
            Self::OfTheSession(session) => Some(*session),
            Self::File(_) | Self::Memory(_) => None,
        }
    }
}

impl std::fmt::Debug for SqlStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlStore").field("location", &self.location).finish_non_exhaustive()
    }
}

impl SqlStore {
    /// Opens or makes the store. It leads unless another coordinator does: with PostgreSQL it then
    /// is a standby, with SQLite it is turned away. Events are sent to `changes` after their commit.
    pub async fn open(
        location: &Location,
        clock: Clock,
        changes: broadcast::Sender<EventView>,
    ) -> Result<Self, StoreError> {
        let connection = connect_to_lead(location).await?;
        let store = Self {
            location: location.clone(),
            readers: connect_to_read(location, VIEW_CONNECTIONS).await?,
            control: connect_to_read(location, CONTROL_CONNECTIONS).await?,
            is_read_only: false,
            lead: Mutex::new(None),
            listener: tokio::sync::Mutex::new(None),
            clock,
            changes,
        };
        match connection {
            Some((connection, right)) => store.begin_or_lose(connection, right).await?,
            // What another build's leader has made cannot be shown by this one.
            None => check_schema(location, &store.readers).await?,
        }
        Ok(store)
    }

    /// Opens the store for views only, while another coordinator writes it or none does.
    pub async fn open_read_only(location: &Location) -> Result<Self, StoreError> {
        let readers = connect_to_read(location, VIEW_CONNECTIONS).await?;
        check_schema(location, &readers).await?;
        Ok(Self {
            location: location.clone(),
            clock: Clock::system(),
            changes: crate::changes_channel(),
            control: readers.clone(),
            readers,
            is_read_only: true,
            lead: Mutex::new(None),
            listener: tokio::sync::Mutex::new(None),
        })
    }

    /// Leads if no other coordinator does; whether it leads now.
    pub async fn try_to_lead(&self) -> Result<bool, StoreError> {
        if self.is_leading() {
            return Ok(true);
        }
        let Some((connection, right)) = connect_to_lead(&self.location).await? else {
            return Ok(false);
        };
        self.begin_or_lose(connection, right).await?;
        // A leader has nothing to hear there.
        self.listener.lock().await.take();
        Ok(true)
    }

    /// Waits until it may be worth while to try again: a leader said that it leaves, or so much time
    /// has passed.
    pub async fn wait_to_lead(&self, at_most: Duration) {
        let pause = tokio::time::sleep(at_most);
        tokio::select! {
            () = pause => {}
            () = self.leader_leaves() => tracing::debug!("the leader said that it leaves"),
        }
    }

    /// Waits until a leader says that it leaves. Without a channel that is never: the pause alone has
    /// to do, and the next attempt to lead says what is wrong.
    async fn leader_leaves(&self) {
        if let Location::Postgres(url) = &self.location {
            let mut listener = self.listener.lock().await;
            if listener.is_none() {
                *listener = postgres::listen(url).await.ok();
            }
            let heard = match listener.as_mut() {
                Some(listener) => listener.recv().await.is_ok(),
                None => false,
            };
            if heard {
                return;
            }
            // It broke, and the next wait begins with another.
            *listener = None;
        }
        std::future::pending::<()>().await;
    }

    /// Whether this coordinator may write.
    pub fn is_leading(&self) -> bool {
        self.lead.lock().is_ok_and(|lead| lead.as_ref().is_some_and(|l| !l.is_over.is_cancelled()))
    }

    /// Whether a lost lead may come back. That of a file is lost only when it can be written no
    /// longer, and this process still holds its lock.
    pub fn may_lead_again(&self) -> bool {
        matches!(self.location, Location::Postgres(_) | Location::Memory(_))
    }

    /// Waits until this coordinator no longer leads: its connection broke, or it was closed.
    pub async fn lead_is_over(&self) {
        let is_over =
            self.lead.lock().ok().and_then(|lead| lead.as_ref().map(|lead| lead.is_over.clone()));
        if let Some(is_over) = is_over {
            is_over.cancelled().await;
        }
    }

    /// Waits until this coordinator has lost the right to lead without its connection saying so: the
    /// database gave it away, or does not answer. With a file that does not happen.
    pub async fn right_is_lost(&self) {
        let session = self.lead.lock().ok().and_then(|lead| lead.as_ref()?.right.session());
        self.session_is_lost(session).await;
    }

    /// Waits until the session of this number has lost the lock, or the server no longer answers; for
    /// ever where there is no session.
    async fn session_is_lost(&self, session: Option<i32>) {
        match (&self.control, session) {
            (Pool::Postgres(pool), Some(session)) => postgres::lock_is_lost(pool, session).await,
            _ => std::future::pending().await,
        }
    }

    /// Leads no longer: whatever was not committed is lost, and its callers are told.
    pub fn give_up_lead(&self) {
        if let Some(lead) = self.lead.lock().ok().as_ref().and_then(|lead| lead.as_ref()) {
            lead.task.abort();
            lead.is_over.cancel();
        }
    }

    /// Begins to lead as long as the right to it lasts: a migration takes as long as it likes, but a
    /// server that is gone without a word is not waited for.
    async fn begin_or_lose(&self, connection: Connection, right: Right) -> Result<(), StoreError> {
        let session = right.session();
        tokio::select! {
            begun = self.begin_to_lead(connection, right) => begun,
            () = self.session_is_lost(session) => Err(postgres::silent()),
        }
    }

    async fn begin_to_lead(
        &self,
        mut connection: Connection,
        right: Right,
    ) -> Result<(), StoreError> {
        if let (Location::Postgres(url), Connection::Postgres(connection)) =
            (&self.location, &mut connection)
        {
            postgres::migrate(url, connection).await?;
        }
        points::pack_old_rows(&mut connection).await?;
        let is_over = CancellationToken::new();
        let (clock, changes) = (self.clock.clone(), self.changes.clone());
        let (writer, task) = Writer::start(connection, clock, changes, is_over.clone()).await?;
        if let Ok(mut lead) = self.lead.lock() {
            *lead = Some(Lead { writer, task, is_over, right });
        }
        Ok(())
    }

    /// The connections that views read on.
    pub(crate) fn read_pool(&self) -> &Pool {
        &self.readers
    }

    /// Carries out what is queued, then closes the database. Every verb that changes something
    /// answers an error afterwards.
    pub async fn close(&self) {
        let lead = self.lead.lock().ok().and_then(|mut lead| lead.take());
        // The writer is the last to close, so that SQLite folds its log into the file.
        for pool in [&self.readers, &self.control] {
            if tokio::time::timeout(CLOSE_DEADLINE, pool.close()).await.is_err() {
                tracing::warn!("a view or a database that does not answer is not waited for");
            }
        }
        let Some(Lead { writer, mut task, right, .. }) = lead else { return };
        drop(writer);
        let ended = match self.location {
            // What a server has not answered by then is undone there when the session ends.
            Location::Postgres(_) => tokio::time::timeout(WRITE_DEADLINE, &mut task).await,
            Location::Sqlite(_) | Location::Memory(_) => Ok((&mut task).await),
        };
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(error = %error, "the store's writer ended badly"),
            Err(_) => {
                tracing::error!(
                    "the database does not answer; what it was asked last may be undone"
                );
                task.abort();
            }
        }
        drop(right);
    }

    async fn write<C: Command>(&self, command: C) -> Result<C::Answer, StoreError> {
        let live = |lead: &Lead| (!lead.is_over.is_cancelled()).then(|| lead.writer.clone());
        self.pause().await;
        let writer = self.lead.lock().ok().and_then(|lead| lead.as_ref().and_then(live));
        let answer = match writer {
            Some(writer) => writer.run(command).await,
            None if self.is_read_only => Err(StoreError::ReadOnly),
            None => Err(StoreError::NotLeading),
        };
        self.pause().await;
        answer
    }

    /// Where a simulation may let others go on.
    async fn pause(&self) {
        if let Location::Memory(session) = &self.location {
            session.pause().await;
        }
    }
}

/// The connection that writes, and the right to; none when another coordinator leads.
async fn connect_to_lead(location: &Location) -> Result<Option<(Connection, Right)>, StoreError> {
    match location {
        Location::Sqlite(path) => {
            let (connection, lock) = sqlite::open_to_write(path).await?;
            Ok(Some((Connection::Sqlite(Box::new(connection)), Right::File(lock))))
        }
        Location::Postgres(url) => {
            let lead = postgres::lead(url).await?;
            let of_it = |(connection, session)| {
                (Connection::Postgres(Box::new(connection)), Right::OfTheSession(session))
            };
            Ok(lead.map(of_it))
        }
        Location::Memory(session) => {
            let lead = memory::lead(session).await?;
            Ok(lead.map(|(connection, lead)| (connection, Right::Memory(lead))))
        }
    }
}

async fn connect_to_read(location: &Location, n_connections: u32) -> Result<Pool, StoreError> {
    match location {
        Location::Sqlite(path) => sqlite::open_to_read(path, n_connections).await,
        Location::Postgres(url) => postgres::open_to_read(url, n_connections).await,
        Location::Memory(session) => memory::open_to_read(session).await,
    }
}

/// A coordinator that only reads migrates nothing, so the schema must be that of its build.
async fn check_schema(location: &Location, readers: &Pool) -> Result<(), StoreError> {
    let found: i64 = query_scalar("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations")
        .fetch_one(readers)
        .await
        .map_err(|error| match location {
            Location::Sqlite(path) => sqlite::not_a_database(path, error),
            Location::Postgres(_) | Location::Memory(_) => error::from_driver(error),
        })?;
    let known = newest_migration(match location {
        Location::Sqlite(_) | Location::Memory(_) => &sqlite::MIGRATIONS,
        Location::Postgres(_) => &postgres::MIGRATIONS,
    });
    let store = location.to_string();
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => Err(StoreError::NewerSchema { store, found, known }),
        std::cmp::Ordering::Less => Err(StoreError::OlderSchema { store, found, known }),
        std::cmp::Ordering::Equal if points::old_rows_remain(readers).await? => {
            Err(StoreError::OldPoints { store })
        }
        std::cmp::Ordering::Equal => Ok(()),
    }
}

fn newest_migration(migrations: &Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// What it means that the schema was not brought up to date.
fn migrate_error(store: String, error: MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(found) => {
            let known = newest_migration(&sqlite::MIGRATIONS);
            StoreError::NewerSchema { store, found, known }
        }
        error => StoreError::Migrate { store, source: error.into() },
    }
}

#[async_trait]
impl Store for SqlStore {
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

    async fn retry_study(&self, study: &StudyId, which: Retry) -> Result<Changed, StoreError> {
        self.write(change::RetryStudy { study: study.clone(), which }).await
    }

    async fn retry_run(&self, run: &RunId, which: Retry) -> Result<Changed, StoreError> {
        self.write(change::RetryRun { run: run.clone(), which }).await
    }

    async fn pause_study(&self, study: &StudyId, reason: &str) -> Result<Changed, StoreError> {
        let (study, reason) = (study.clone(), reason.to_owned());
        self.write(pause::PauseStudy { study, reason }).await
    }

    async fn resume_study(&self, study: &StudyId) -> Result<Changed, StoreError> {
        self.write(pause::ResumeStudy(study.clone())).await
    }

    async fn set_priority(&self, study: &StudyId, priority: i32) -> Result<Changed, StoreError> {
        self.write(pause::SetPriority { study: study.clone(), priority }).await
    }

    async fn record_source(&self, source: &Artifact) -> Result<(), StoreError> {
        self.write(workers::RecordSource(source.clone())).await
    }

    async fn register_worker(&self, worker: WorkerToRegister) -> Result<Registered, StoreError> {
        self.write(workers::RegisterWorker(Box::new(worker))).await
    }

    async fn confirm_worker(&self, worker: &WorkerId) -> Result<bool, StoreError> {
        let (worker, event) = (worker.clone(), WorkerEvent::Confirmed);
        self.write(workers::MoveWorker { worker, event }).await
    }

    async fn drain_worker(&self, worker: &WorkerId) -> Result<bool, StoreError> {
        let (worker, event) = (worker.clone(), WorkerEvent::DrainRequested);
        self.write(workers::MoveWorker { worker, event }).await
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
        workers::live(&self.control).await
    }

    async fn live_leases(&self) -> Result<Vec<LiveLease>, StoreError> {
        grant::live_leases(&self.control).await
    }

    async fn held_leases(&self) -> Result<Vec<(LeaseToken, WorkerId)>, StoreError> {
        pause::held_leases(&self.control).await
    }

    async fn queue_head(
        &self,
        limit: u32,
        machines: Option<&[Machine]>,
    ) -> Result<QueueHead, StoreError> {
        queue::head(&self.control, limit, machines).await
    }

    async fn queue_page(&self, limit: u32, page: u32) -> Result<QueueHead, StoreError> {
        queue::page(&self.control, limit, page).await
    }

    async fn busy_slots(&self) -> Result<Vec<BusySlot>, StoreError> {
        queue::busy(&self.control).await
    }

    async fn grant(&self, placements: &[Placement]) -> Result<Vec<Granted>, StoreError> {
        self.write(grant::Grant(placements.to_vec())).await
    }

    async fn assignment(&self, token: LeaseToken) -> Result<Option<Assignment>, StoreError> {
        assignment::assignment(&self.control, token).await
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

    async fn backoffs(&self, limit: u32) -> Result<Vec<Backoff>, StoreError> {
        finish::backoffs(&self.control, limit).await
    }

    async fn requeue(&self, works: &[WorkId]) -> Result<Changed, StoreError> {
        self.write(finish::Requeue(works.to_vec())).await
    }

    async fn supersede_checkpoints(&self, limit: u32) -> Result<u64, StoreError> {
        // Looked for beside the writer, which has better to do when there are none.
        let runs = retention::runs_to_clear(&self.control, limit).await?;
        if runs.is_empty() { Ok(0) } else { self.write(retention::Supersede(runs)).await }
    }

    async fn superseded_checkpoints(
        &self,
        limit: u32,
    ) -> Result<Vec<SupersededCheckpoint>, StoreError> {
        retention::superseded(&self.control, limit).await
    }

    async fn note_removed(&self, removed: Vec<SupersededCheckpoint>) -> Result<(), StoreError> {
        self.write(retention::NoteRemoved(removed)).await
    }

    async fn save_fit(&self, fit: FitToSave) -> Result<(), StoreError> {
        self.write(fits::SaveFit(fit)).await
    }
}
