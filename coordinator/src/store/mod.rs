//! What is durable: the verbs that change it, their contract and their errors.
//!
//! It holds no SQL and no rule of the domain. Questions that only views ask stand in `read`.

mod error;
mod location;
pub mod memory;
pub mod read;
pub mod sql;
mod trial;
mod types;

#[cfg(test)]
mod conformance;

use async_trait::async_trait;
use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, RunId, StudyId, WorkId, WorkerId};

pub use error::{DriverError, StoreError, StoreErrorClass};
pub use location::{Location, LocationError};
pub use sql::SqlStore;
pub use sql::copy::{TableRows, copy, plan_copy};
pub use trial::trying_out;
pub use types::*;

use crate::scheduler::fit::Machine;
use crate::scheduler::policy::{BusySlot, Placement, QueueHead};

/// The verbs. Each is one transaction: all of it happens, durably, or nothing. Every change leaves
/// a row in `events` in the same transaction, and is announced after the commit.
///
/// A read-only store answers every verb that changes something with [`StoreError::ReadOnly`]. Inside
/// [`trying_out`] a verb answers what it would do, and nothing of it stays.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores a planned study: the study, its data preparation, its cells and the runs they lack.
    ///
    /// A study of the same name is updated: cells gone from the plan are removed and their runs
    /// cancelled when no other live study wants them; cancelled runs it has again are queued.
    /// Data-point checkpoints that are there already get the evaluations the study asks for.
    /// Sources that are missing are an answer, and nothing is stored. Repeating it changes nothing.
    async fn apply_study(&self, study: StudyToApply) -> Result<ApplyOutcome, StoreError>;

    /// Cancels a study, and those of its runs and their evaluations that no other live study has.
    /// Repeating it changes nothing; what is over stays as it is.
    async fn cancel_study(&self, study: &StudyId, reason: &str) -> Result<Changed, StoreError>;

    /// Cancels one run and its open evaluations. Repeating it changes nothing.
    async fn cancel_run(&self, run: &RunId, reason: &str) -> Result<Changed, StoreError>;

    /// Queues the failed and cancelled runs, evaluations and data preparations of a study again,
    /// with a new budget of failures, and lifts its cancellation. Repeating it changes nothing.
    ///
    /// Only a retry of everything lifts the cancellation; any other does nothing to a study that is
    /// cancelled.
    async fn retry_study(&self, study: &StudyId, which: Retry) -> Result<Changed, StoreError>;

    /// The same for one run, its evaluations and the data it waits for.
    async fn retry_run(&self, run: &RunId, which: Retry) -> Result<Changed, StoreError>;

    /// Holds a study: nothing of it is granted while every live study that has it is paused. The
    /// attempts of its held runs are to give their slots back. Repeating it changes nothing, and
    /// names those attempts again.
    async fn pause_study(&self, study: &StudyId, reason: &str) -> Result<Changed, StoreError>;

    /// Lets a paused study go on. Repeating it changes nothing.
    async fn resume_study(&self, study: &StudyId) -> Result<Changed, StoreError>;

    /// Gives a study another priority, until it is applied again. Repeating it changes nothing.
    async fn set_priority(&self, study: &StudyId, priority: i32) -> Result<Changed, StoreError>;

    /// Records a source that the artifact store has. Repeating it changes nothing.
    async fn record_source(&self, source: &Artifact) -> Result<(), StoreError>;

    /// Enters a worker as `joining` under the proposed identifier. The same process (its instance
    /// says so) registering again keeps its identifier, its leases, and its state if it has
    /// confirmed. Another process of the same name on the same machine ends the older registration
    /// and its attempts, unless that worker is connected: then it gets a name with a number behind
    /// it.
    async fn register_worker(&self, worker: WorkerToRegister) -> Result<Registered, StoreError>;

    /// Lets a joining worker take assignments. False when it is not known or was ended.
    /// Repeating it changes nothing.
    async fn confirm_worker(&self, worker: &WorkerId) -> Result<bool, StoreError>;

    /// A worker takes nothing more. False when it is not known. Repeating it changes nothing.
    async fn drain_worker(&self, worker: &WorkerId) -> Result<bool, StoreError>;

    /// A worker has left: attempts it still had end as preempted. Repeating it changes nothing.
    async fn deregister_worker(&self, worker: &WorkerId) -> Result<Changed, StoreError>;

    /// Workers that were not heard of for too long are lost, and so are their attempts.
    async fn close_lost_workers(&self, workers: &[WorkerId]) -> Result<Changed, StoreError>;

    /// When workers were last heard of, milliseconds since the Unix epoch. For display only.
    async fn record_seen(&self, seen: &[(WorkerId, i64)]) -> Result<(), StoreError>;

    /// The workers that a starting leader takes over.
    async fn live_workers(&self) -> Result<Vec<WorkerRecord>, StoreError>;

    /// The leases that a starting leader takes over, with the rights of gangs' other members.
    async fn live_leases(&self) -> Result<Vec<LiveLease>, StoreError>;

    /// The rights of attempts whose runs are held since, and of gangs that a member has left: they
    /// are to give their slots back.
    async fn held_leases(&self) -> Result<Vec<(LeaseToken, WorkerId)>, StoreError>;

    /// The head of the queue for the scheduler: preparations, then the evaluations and the runs of
    /// every study, with what those studies say. Of the first, and of each study and kind, at most
    /// `limit`, fewer where there are many studies, by priority and then the longest first. Held work
    /// is left out, and so are runs that would begin beyond their study's budget, and runs that need
    /// more memory than any slot of those `machines` that their study asks for.
    async fn queue_head(
        &self,
        limit: u32,
        machines: Option<&[Machine]>,
    ) -> Result<QueueHead, StoreError>;

    /// The whole queue, piece by piece, from page 0: of preparations, and of each study and kind, as
    /// many at a time as the head has of them, in the same order. Nothing is left out but held work.
    /// Between two calls work may move from one page to another: whoever seeks begins anew after the
    /// last, which is not cut.
    async fn queue_page(&self, limit: u32, page: u32) -> Result<QueueHead, StoreError>;

    /// The slots that are taken, with what is about left to do on each.
    async fn busy_slots(&self) -> Result<Vec<BusySlot>, StoreError>;

    /// Grants placements, compare-and-set each: work that is no longer queued, and what has a
    /// worker that is no longer active, is left out of the answer. A gang is granted whole or not
    /// at all. Tokens only grow. Not to be repeated blindly: a second call grants nothing for the
    /// same work.
    async fn grant(&self, placements: &[Placement]) -> Result<Vec<Granted>, StoreError>;

    /// What the holder of a token is to do; none when the token is not live.
    async fn assignment(&self, token: LeaseToken) -> Result<Option<Assignment>, StoreError>;

    /// Stores what an attempt has to say: all of it, or with a token that is not live none of it.
    /// Of a gang's other members only log lines are stored. Repeating it changes nothing.
    async fn report(
        &self,
        token: LeaseToken,
        events: Vec<ReportEvent>,
    ) -> Result<Reported, StoreError>;

    /// Ends an attempt and moves its work on. A token that is not live is stale and changes
    /// nothing, except that the same end twice is answered alike.
    ///
    /// A gang's other member that leaves in order lets go of its slot, and the attempt is to give
    /// the rest back; any other end of it is the attempt's.
    async fn finish_attempt(
        &self,
        token: LeaseToken,
        end: AttemptEnd,
        message: &str,
    ) -> Result<Finished, StoreError>;

    /// Ends the attempts whose leases ran out, as lost. Tokens that are not live are passed over,
    /// so it may be repeated. Answers the tokens that it ended.
    async fn expire_leases(&self, tokens: &[LeaseToken]) -> Result<Changed, StoreError>;

    /// The work that is backing off, at most `limit`, those first that began with the shortest time
    /// left. Reads only.
    async fn backoffs(&self, limit: u32) -> Result<Vec<Backoff>, StoreError>;

    /// Queues work whose back-off is over; what does not back off any more is passed over. May be
    /// repeated.
    async fn requeue(&self, works: &[WorkId]) -> Result<Changed, StoreError>;

    /// Marks rolling checkpoints that later ones stand in for, of at most `limit` runs; how many. No
    /// attempt is told of them from here on, and no study can have them measured. Kept are the last
    /// three that are sound, data points, the end of a trunk, and what runs that go on from it need.
    /// Repeating it changes nothing.
    async fn supersede_checkpoints(&self, limit: u32) -> Result<u64, StoreError>;

    /// At most `limit` marked checkpoints whose files are there and that no attempt can be about to
    /// read. Reads only.
    async fn superseded_checkpoints(
        &self,
        limit: u32,
    ) -> Result<Vec<SupersededCheckpoint>, StoreError>;

    /// The files of these are gone. Repeating it changes nothing.
    async fn note_removed(&self, removed: Vec<SupersededCheckpoint>) -> Result<(), StoreError>;

    /// Keeps a fit. The same study with the same inputs' hash is kept once; repeating it changes
    /// nothing.
    async fn save_fit(&self, fit: FitToSave) -> Result<(), StoreError>;
}
