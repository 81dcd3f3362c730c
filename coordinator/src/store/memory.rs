//! A database in memory, and what can happen to the way to it: for simulations and tests.
//!
//! It is SQLite without a file, so that what runs on it are the statements of the real store. What a
//! disk does beyond that is modelled here: power that fails at a chosen statement, with what was not
//! yet committed lost and what was on its way to be committed lost or kept; and a session that breaks
//! while its coordinator lives on, as a server's may.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

/// Databases in memory are told apart by their names, in one process.
static N_MADE: AtomicU64 = AtomicU64::new(0);

/// A database in memory. It lives as long as some clone, session or connection of it.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    name: String,
    /// The connection that keeps the database there while no coordinator has one.
    anchor: Mutex<Option<Box<sqlx::sqlite::SqliteConnection>>>,
    /// Whose session leads.
    leader: Mutex<Option<Line>>,
}

/// One process's way to a database in memory.
#[derive(Clone)]
pub struct Session {
    memory: Memory,
    power: Arc<Mutex<Power>>,
    /// Whether somebody has stopped between two operations.
    is_paused: Arc<AtomicBool>,
}

/// What is left of a session.
#[derive(Debug, Clone, Copy, Default)]
struct Power {
    /// Grows with each cut: what was connected before stays cut off.
    epoch: u64,
    is_on: bool,
    /// When the power fails.
    fails_at: Option<Moment>,
    /// Whether the next statement is a commit.
    is_commit_next: bool,
    /// Whether a statement that the failure meets is carried out all the same, unheard.
    keeps_last: bool,
}

/// A statement to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The `n`-th from now, `n` from 1.
    Statement(u64),
    /// The `n`-th commit from now, `n` from 1.
    Commit(u64),
}

/// What becomes of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Fate {
    /// It runs.
    Runs,
    /// It runs, and nobody hears of it.
    RunsUnheard,
    /// It does not run.
    Lost,
}

/// A connection's share of its session: until the next cut.
#[derive(Clone)]
pub(in crate::store) struct Line {
    session: Session,
    epoch: u64,
}

impl Memory {
    /// An empty database.
    #[expect(clippy::new_without_default, reason = "each is another database")]
    pub fn new() -> Self {
        let number = N_MADE.fetch_add(1, Ordering::Relaxed);
        // The leading slash makes it one database for all connections of this process.
        let name = format!("/gradus-{number}");
        Self(Arc::new(Inner { name, anchor: Mutex::default(), leader: Mutex::default() }))
    }

    /// A way to it, for one coordinator.
    pub fn session(&self) -> Session {
        let power = Power { epoch: 0, is_on: true, ..Power::default() };
        let power = Arc::new(Mutex::new(power));
        Session { memory: self.clone(), power, is_paused: Arc::default() }
    }

    pub(in crate::store) fn name(&self) -> &str {
        &self.0.name
    }

    /// Keeps the database there; whether that was still to be done.
    pub(in crate::store) fn hold(&self, connection: sqlx::sqlite::SqliteConnection) {
        *lock(&self.0.anchor) = Some(Box::new(connection));
    }

    pub(in crate::store) fn is_held(&self) -> bool {
        lock(&self.0.anchor).is_some()
    }

    /// Lets this session lead if no other live one does.
    pub(in crate::store) fn try_to_lead(&self, session: &Session) -> Option<Lead> {
        let mut leader = lock(&self.0.leader);
        if leader.as_ref().is_some_and(Line::is_live) {
            return None;
        }
        let line = session.line();
        *leader = Some(line.clone());
        Some(Lead(line))
    }
}

/// The right to write a database in memory; given back when it is dropped.
#[derive(Debug)]
pub(in crate::store) struct Lead(Line);

impl Drop for Lead {
    fn drop(&mut self) {
        let mut leader = lock(&self.0.session.memory.0.leader);
        if leader.as_ref().is_some_and(|leading| leading.is_same(&self.0)) {
            *leader = None;
        }
    }
}

impl Session {
    pub(in crate::store) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Cuts the way off now: what is not committed is lost, and so is the lead.
    pub fn cut(&self) {
        self.power().fail();
    }

    /// Lets the power fail at this moment. With `keeps_last` that statement is still carried out, and
    /// only its answer is lost.
    pub fn cut_at(&self, moment: Moment, keeps_last: bool) {
        let mut power = self.power();
        power.fails_at = Some(moment);
        power.keeps_last = keeps_last;
    }

    /// Opens the way again. Connections from before stay cut off.
    pub fn restore(&self) {
        self.power().is_on = true;
    }

    /// Whether the way is open.
    pub fn is_on(&self) -> bool {
        self.power().is_on
    }

    /// Stops once before an operation on the store, or after it. A simulation lets others go on
    /// there; elsewhere it costs one turn of the runtime.
    pub(in crate::store) async fn pause(&self) {
        let mut was_here = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut was_here, true) {
                return Poll::Ready(());
            }
            self.is_paused.store(true, Ordering::Relaxed);
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Whether somebody has stopped since this was last asked.
    pub fn take_pause(&self) -> bool {
        self.is_paused.swap(false, Ordering::Relaxed)
    }

    pub(in crate::store) fn line(&self) -> Line {
        Line { session: self.clone(), epoch: self.power().epoch }
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.power, &other.power)
    }

    fn power(&self) -> MutexGuard<'_, Power> {
        lock(&self.power)
    }
}

impl Power {
    fn fail(&mut self) {
        *self = Self { epoch: self.epoch + 1, ..Self::default() };
    }
}

impl Line {
    fn is_live(&self) -> bool {
        let power = self.session.power();
        power.is_on && power.epoch == self.epoch
    }

    fn is_same(&self, other: &Self) -> bool {
        self.session.is_same(&other.session) && self.epoch == other.epoch
    }

    /// The next statement is a commit.
    pub(in crate::store) fn announce_commit(&self) {
        self.session.power().is_commit_next = true;
    }

    /// What becomes of the next statement.
    pub(in crate::store) fn fate(&self) -> Fate {
        let mut power = self.session.power();
        if !power.is_on || power.epoch != self.epoch {
            return Fate::Lost;
        }
        let is_commit = std::mem::take(&mut power.is_commit_next);
        match &mut power.fails_at {
            None => Fate::Runs,
            Some(Moment::Commit(_)) if !is_commit => Fate::Runs,
            Some(Moment::Statement(n) | Moment::Commit(n)) if *n > 1 => {
                *n -= 1;
                Fate::Runs
            }
            Some(_) => {
                let keeps_last = power.keeps_last;
                power.fail();
                if keeps_last { Fate::RunsUnheard } else { Fate::Lost }
            }
        }
    }
}

/// What a statement without power is answered.
pub(in crate::store) fn lost() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PartialEq for Session {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other)
    }
}

impl Eq for Session {}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "memory:{}", self.memory.name())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({self})")
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({}, {})", self.session, self.epoch)
    }
}
