//! The one writer: it takes what is queued, runs it in one transaction, commits, answers all.
//!
//! What a command does is the command's.

use std::future::Future;
use std::time::Duration;

use api::EventView;
use domain::planted::{Mistake, is_planted};
use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::database::{Connection, Query, query, query_scalar};
use super::error::from_driver;
use super::events::Events;
use super::statistics::Growth;
use crate::actor::{self, Actor};
use crate::clock::Clock;
use crate::store::{StoreError, trial};

/// Commands in one transaction at most: bounds how long the first of them waits for the last.
const MAX_BATCH: usize = 256;

/// After a failure that undid a batch, so many batches are run with every command kept apart: what
/// fails is tried again, and then fails alone.
const CAREFUL_BATCHES: u32 = 1000;

/// A batch that takes longer waits for a server that is gone without a word; the callers in it are
/// told that the store is closed.
const BATCH_DEADLINE: Duration = Duration::from_mins(10);

/// Commands that may wait; senders beyond it are held back.
const MAX_QUEUED: usize = 4096;

/// The transaction at hand.
pub(super) struct Tx {
    /// The writer's connection.
    pub(super) conn: Connection,
    /// The time of the whole batch, milliseconds since the Unix epoch.
    pub(super) now_ms: i64,
    /// Who asked for the command at hand.
    pub(super) actor: Actor,
    events: Events,
    /// Whether any run may stand in a trunk. Nobody but this writer enters one, so that without one
    /// nothing needs to be asked of them.
    pub(super) has_trunks: bool,
    /// Whether the command at hand said that it writes many.
    writes_many: bool,
    /// So many batches more are run with every command kept apart.
    n_careful: u32,
    /// How much was entered since the tables were counted.
    pub(super) growth: Growth,
}

impl Tx {
    /// Notes an event. All of a batch are written at its end and announced after the commit.
    pub(super) fn record(&mut self, subject: &str, kind: &str, detail: &Value) {
        let view = EventView {
            id: 0,
            at_ms: self.now_ms,
            subject: subject.to_owned(),
            kind: kind.to_owned(),
            actor: self.actor.to_string(),
        };
        self.events.note(view, detail.to_string());
    }

    /// Writes the events so far, so that they need no memory, if the command at hand said that it
    /// writes many; those of another one wait for the end of the batch.
    pub(super) async fn spill_events(&mut self) -> Result<(), StoreError> {
        if self.writes_many { self.write_events().await } else { Ok(()) }
    }

    async fn write_events(&mut self) -> Result<(), StoreError> {
        self.events.write(&mut self.conn).await
    }

    /// Carries out many statements. The next one is made while the database is busy with one.
    pub(super) async fn execute_each(
        &mut self,
        mut statements: impl Iterator<Item = Result<Query, StoreError>>,
    ) -> Result<(), StoreError> {
        let mut next = statements.next();
        while let Some(statement) = next {
            // The first of the two is polled first, and sends its statement.
            let executed = statement?.execute(&mut self.conn);
            let (executed, following) = futures::join!(executed, async { statements.next() });
            executed.map_err(from_driver)?;
            next = following;
        }
        Ok(())
    }

    async fn execute(&mut self, sql: &'static str) -> Result<(), StoreError> {
        query(sql).execute(&mut self.conn).await.map_err(from_driver)?;
        Ok(())
    }
}

/// One verb with its arguments. It runs inside a transaction that others may share; when it fails
/// its own writes alone are undone.
pub(super) trait Command: Send + 'static {
    /// What it answers.
    type Answer: Send + 'static;

    /// Whether its failure is usual, such as a name that is not there, so that its writes are undone
    /// alone. The failure of another one undoes the batch: everybody in it is told to try again, and
    /// for a while every command is kept apart. Keeping apart costs two statements.
    const IS_KEPT_APART: bool = true;

    /// Whether it may write its events before its end. Those of earlier commands are then written
    /// before it begins, so that undoing it undoes none of theirs.
    const WRITES_MANY: bool = false;

    /// Carries it out.
    fn run(self, tx: &mut Tx) -> impl Future<Output = Result<Self::Answer, StoreError>> + Send;
}

/// Answers the caller, after the commit or with the reason why there was none.
type Settle = Box<dyn FnOnce(Result<(), String>) + Send>;

/// How a command went, as far as the writer cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    Well,
    Wrong,
    /// The database is gone.
    Nowhere,
}

trait Job: Send {
    fn run(self: Box<Self>, tx: &mut Tx) -> BoxFuture<'_, (Went, Settle)>;
    fn refuse(self: Box<Self>, reason: String);
    fn is_kept_apart(&self) -> bool;
    fn is_trial(&self) -> bool;
    fn writes_many(&self) -> bool;
}

struct Pending<C: Command> {
    command: C,
    actor: Actor,
    /// Whether its writes are undone when it has gone well too.
    is_trial: bool,
    reply: oneshot::Sender<Result<C::Answer, StoreError>>,
}

impl<C: Command> Job for Pending<C> {
    fn run(self: Box<Self>, tx: &mut Tx) -> BoxFuture<'_, (Went, Settle)> {
        Box::pin(async move {
            let Self { command, actor, reply, is_trial: _ } = *self;
            tx.actor = actor;
            let result = command.run(tx).await;
            let went = match &result {
                Ok(_) => Went::Well,
                Err(StoreError::ConnectionLost(_)) => Went::Nowhere,
                Err(_) => Went::Wrong,
            };
            let settle: Settle = Box::new(move |committed| {
                let answer = match (result, committed) {
                    (Ok(_), Err(reason)) => Err(StoreError::Commit { reason }),
                    (result, _) => result,
                };
                answer_caller(reply, answer);
            });
            (went, settle)
        })
    }

    fn refuse(self: Box<Self>, reason: String) {
        answer_caller(self.reply, Err(StoreError::Commit { reason }));
    }

    fn is_kept_apart(&self) -> bool {
        C::IS_KEPT_APART
    }

    fn is_trial(&self) -> bool {
        self.is_trial
    }

    fn writes_many(&self) -> bool {
        C::WRITES_MANY
    }
}

fn answer_caller<T>(reply: oneshot::Sender<Result<T, StoreError>>, answer: Result<T, StoreError>) {
    if reply.send(answer).is_err() {
        tracing::debug!("the caller of a store command no longer waits");
    }
}

/// The sending end: cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Box<dyn Job>>,
}

impl Writer {
    /// Starts the writer on a connection. It ends when every sender is gone and the queue is empty,
    /// or when the database is; `is_over` is cancelled then.
    pub(super) async fn start(
        mut conn: Connection,
        clock: Clock,
        changes: broadcast::Sender<EventView>,
        is_over: CancellationToken,
    ) -> Result<(Self, tokio::task::JoinHandle<()>), StoreError> {
        let mut last_event_id = query_scalar("SELECT COALESCE(MAX(id), 0) FROM events")
            .fetch_one(&mut conn)
            .await
            .map_err(from_driver)?;
        let a_trunk: Option<String> = query_scalar("SELECT run_id FROM trunks LIMIT 1")
            .fetch_optional(&mut conn)
            .await
            .map_err(from_driver)?;
        if is_planted(Mistake::EventNumberSkipped) && last_event_id > 0 {
            last_event_id += 1;
        }
        let (jobs, queue) = mpsc::channel(MAX_QUEUED);
        let tx = Tx {
            conn,
            now_ms: clock.wall_ms(),
            actor: Actor::Coordinator,
            events: Events::after(last_event_id),
            has_trunks: a_trunk.is_some(),
            writes_many: false,
            n_careful: 0,
            growth: Growth::default(),
        };
        let task = tokio::spawn(async move {
            let _ends = is_over.drop_guard();
            write(tx, queue, clock, changes).await;
        });
        Ok((Self { jobs }, task))
    }

    /// Carries out a command, durably, or says why not.
    pub(super) async fn run<C: Command>(&self, command: C) -> Result<C::Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let (actor, is_trial) = (actor::current(), trial::is_trial());
        let job: Box<dyn Job> = Box::new(Pending { command, actor, is_trial, reply });
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)?
    }
}

async fn write(
    mut tx: Tx,
    mut queue: mpsc::Receiver<Box<dyn Job>>,
    clock: Clock,
    changes: broadcast::Sender<EventView>,
) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while queue.recv_many(&mut batch, MAX_BATCH).await > 0 {
        tx.now_ms = clock.wall_ms();
        let in_time = tokio::time::timeout(BATCH_DEADLINE, commit(&mut tx, &mut batch)).await;
        let committed = in_time.unwrap_or_else(|_| Err(lost()));
        if committed.is_err() {
            // Nothing of it is known to be stored, so nothing of it is announced.
            tx.events.clear();
        }
        for event in tx.events.take() {
            // Without a listener there is nobody to tell.
            drop(changes.send(event));
        }
        if let Err(StoreError::ConnectionLost(error)) = committed {
            tracing::error!(error = %error, "the database is gone, and with it the right to lead");
            return;
        }
    }
    if let Err(error) = tx.conn.close().await {
        tracing::warn!(error = %error, "could not close the store cleanly");
    }
}

/// Runs a batch in one transaction. Afterwards `tx.events` holds what was committed.
async fn commit(tx: &mut Tx, batch: &mut Vec<Box<dyn Job>>) -> Result<(), StoreError> {
    if !is_planted(Mistake::BatchWithoutTransaction)
        && let Err(error) = tx.conn.begin().await.map_err(from_driver)
    {
        let reason = describe(&error);
        tracing::error!(error = reason, "could not begin a transaction");
        batch.drain(..).for_each(|job| job.refuse(reason.clone()));
        return Err(error);
    }
    let mut settles = Vec::with_capacity(batch.len());
    let mut outcome = Ok(());
    let is_alone = batch.len() == 1;
    tx.n_careful = tx.n_careful.saturating_sub(1);
    for job in batch.drain(..) {
        if outcome.is_err() {
            job.refuse("the transaction was broken by an earlier command".to_owned());
            continue;
        }
        match run_one(tx, job, is_alone).await {
            (settle, Ok(())) => settles.push(settle),
            (settle, Err(error)) => {
                settles.push(settle);
                outcome = Err(error);
            }
        }
    }
    if outcome.is_ok() {
        outcome = tx.write_events().await;
    }
    if is_planted(Mistake::AnsweredBeforeCommit) && outcome.is_ok() {
        settles.drain(..).for_each(|settle| settle(Ok(())));
    }
    if outcome.is_ok() && !is_planted(Mistake::BatchWithoutTransaction) {
        outcome = tx.conn.commit().await.map_err(from_driver);
    }
    let committed = match &outcome {
        Ok(()) => Ok(()),
        Err(error) => {
            // A command that was alone and failed has its own answer.
            if !(is_alone && matches!(error, StoreError::Undone { .. })) {
                tracing::error!(error = describe(error), "could not commit");
            }
            roll_back(tx).await;
            Err(describe(error))
        }
    };
    for settle in settles {
        settle(committed.clone());
    }
    outcome
}

/// Runs one command, between savepoints if its failure is to undo its own writes alone, or if it is
/// only tried out. The error means that the transaction cannot be trusted.
async fn run_one(
    tx: &mut Tx,
    job: Box<dyn Job>,
    is_alone: bool,
) -> (Settle, Result<(), StoreError>) {
    tx.writes_many = job.writes_many();
    let is_trial = job.is_trial();
    if !is_trial && (is_alone || !(job.is_kept_apart() || tx.n_careful > 0)) {
        let (went, settle) = job.run(tx).await;
        if went == Went::Wrong && !is_alone {
            tx.n_careful = CAREFUL_BATCHES;
        }
        let why = "a command failed, and what shared its transaction is undone with it";
        let outcome = match went {
            Went::Well => Ok(()),
            Went::Wrong => Err(StoreError::Undone { why }),
            Went::Nowhere => Err(lost()),
        };
        return (settle, outcome);
    }
    let written = tx.spill_events().await;
    let mark = tx.events.mark();
    let begun = written.and(tx.execute("SAVEPOINT command").await);
    let (went, settle) = job.run(tx).await;
    let mut ended = if went == Went::Nowhere { Err(lost()) } else { begun };
    if went != Went::Well || is_trial {
        tx.events.undo_to(mark);
        if ended.is_ok() {
            ended = tx.execute("ROLLBACK TO command").await;
        }
    }
    if ended.is_ok() {
        ended = tx.execute("RELEASE command").await;
    }
    (settle, ended)
}

fn lost() -> StoreError {
    StoreError::ConnectionLost("a statement found that it is".into())
}

async fn roll_back(tx: &mut Tx) {
    tx.events.clear();
    // SQLite may have rolled back by itself, and then there is no transaction to roll back.
    if let Err(error) = tx.execute("ROLLBACK").await {
        tracing::debug!(error = describe(&error), "nothing to roll back");
    }
}

fn describe(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}
