//! The queries behind the views of the HTTP API and behind the fits: trait [`ReadStore`].
//! It changes nothing and decides nothing; the verbs that write are the trait `super::Store`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use api::{
    CurveList, EventView, FitSummary, HistoryEvent, LogList, RunList, RunView, StudyList,
    StudyView, WorkerView,
};
use async_trait::async_trait;
use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, FitId, RunId, StudyId, WorkerId};
use domain::invariant::Snapshot;

use super::StoreErrorClass;
use crate::scheduler::policy::{Needs, StudyTerms};

/// Why a view could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store did not answer the query.
    #[error("could not read {what}")]
    Query {
        /// What was asked for.
        what: &'static str,
        /// The driver's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stored value is not what this build writes.
    #[error("the stored {what} of `{id}` cannot be read")]
    Corrupt {
        /// Which value.
        what: &'static str,
        /// Whose.
        id: String,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ReadError {
    /// What a caller may do about it.
    pub fn class(&self) -> StoreErrorClass {
        match self {
            Self::Query { .. } => StoreErrorClass::RetryLater,
            Self::Corrupt { .. } => StoreErrorClass::Bug,
        }
    }
}

/// What a name in an address was found to mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup<T> {
    /// Exactly one thing.
    Found(T),
    /// Nothing; the nearest name that there is.
    Missing {
        /// A name that may have been meant.
        nearest: Option<String>,
    },
    /// Several things.
    Ambiguous {
        /// How to name each of them.
        candidates: Vec<String>,
    },
}

/// Whose curves are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CurveScope {
    /// Every run of a study, in the order of its cells.
    Study(StudyId),
    /// One run.
    Run(RunId),
}

/// Which curves are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurveQuery {
    /// Whose.
    pub scope: CurveScope,
    /// The series, such as `train_loss_nats`.
    pub series: String,
    /// At most so many points for each run; at least 3.
    pub max_points: usize,
    /// Only points of these steps.
    pub steps: RangeInclusive<u64>,
}

/// A curve from its first to its last step.
pub const ALL_STEPS: RangeInclusive<u64> = 0..=u64::MAX;

/// One point of a series, whether the current truth shows it or not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SeriesPoint {
    /// The step.
    pub step: u64,
    /// The attempt that reported it.
    pub attempt: u32,
    /// The value, absent where it was not finite.
    pub value: Option<f64>,
    /// Whether it is the value of its step, see [`ReadStore::curves`].
    pub is_current: bool,
}

/// Whose history is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryOf {
    /// A study's, with its runs, their evaluations and its data.
    Study(StudyId),
    /// A run's, with its evaluations.
    Run(RunId),
    /// A worker's.
    Worker(WorkerId),
}

/// A run that another one waits for, because that goes on from one of its checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkStatus {
    /// The run.
    pub run_id: String,
    /// The label of its state.
    pub state: String,
    /// How far it is.
    pub latest_step: u64,
    /// The step of the checkpoint.
    pub step: u64,
}

/// Where a run stands with the scheduler.
#[derive(Debug, Clone, PartialEq)]
pub struct RunStatus {
    /// The label of its state.
    pub state: String,
    /// Whether every live study that wants it is paused.
    pub is_held: bool,
    /// Higher first.
    pub priority: i32,
    /// Longer first.
    pub cost_flops: f64,
    /// When its back-off ends.
    pub backoff_until_ms: Option<i64>,
    /// Its attempts so far.
    pub n_attempts: u32,
    /// How many pieces of queued work go before it, whichever study's turn it is.
    pub n_ahead: u64,
    /// The study that it is granted for, unless no live one has it.
    pub study: Option<StudyId>,
    /// What that study says.
    pub terms: StudyTerms,
    /// What a machine must have.
    pub needs: Needs,
    /// The paused studies that have it, each with why.
    pub paused_studies: Vec<(String, String)>,
    /// The data it needs.
    pub preparation: PreparationStatus,
    /// The run whose checkpoint it waits for, if it does.
    pub trunk: Option<TrunkStatus>,
    /// How its last attempt ended.
    pub ended_as: Option<String>,
    /// What its last attempt said.
    pub message: String,
}

/// Where a data preparation stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparationStatus {
    /// Its identifier.
    pub id: String,
    /// The label of its state.
    pub state: String,
    /// What its last attempt said.
    pub message: String,
}

/// A cell that a plan left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedCell {
    /// The study's name.
    pub study: String,
    /// Why.
    pub reason: String,
}

/// A stored fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FitRecord {
    /// Everything that it is made from, as canonical JSON; empty where an older build made it.
    pub inputs_json: String,
    /// The report (`api::FitReport`) as JSON.
    pub report_json: String,
}

/// What the fits of a study are made from.
#[derive(Debug, Clone, PartialEq)]
pub struct FitInputs {
    /// The study's name.
    pub study: String,
    /// Its `fit` section (`domain::spec::FitSpec`) as JSON.
    pub fit_spec_json: String,
    /// The runs of its cells in their order; one that several cells have stands there for each.
    pub runs: Vec<FitRun>,
    /// The measured values, by run in the same order and then by step; one for each task and step.
    pub evaluations: Vec<FitEvaluation>,
    /// Evaluations without a value, in the same order; none of a place that has a value.
    pub unmeasured: Vec<FitUnmeasured>,
    /// Evaluations that the study asks for and that are not over.
    pub n_open_evaluations: u64,
}

/// A run as the fits see it.
#[derive(Debug, Clone, PartialEq)]
pub struct FitRun {
    /// The run.
    pub run_id: RunId,
    /// Its cell's name.
    pub name: String,
    /// The value of each axis, as text.
    pub axis_values: BTreeMap<String, String>,
    /// The label of its state.
    pub state: String,
    /// N without embeddings and head.
    pub parameters_non_embedding: u64,
    /// N with everything.
    pub parameters_total: u64,
    /// Tokens in one step; D at a step is this times the step.
    pub batch_tokens: u64,
    /// Steps in all.
    pub steps: u64,
    /// C in all, by the tensor shapes; C at a step is its share.
    pub flops_exact: f64,
    /// C in all, by the published closed form.
    pub flops_published: f64,
    /// The budget it belongs to, for isoFLOP designs.
    pub budget_flops: Option<f64>,
    /// The trunk that its first steps are, where its schedule has one; runs of one trunk share its
    /// luck.
    pub trunk: Option<ContentHash>,
    /// Tokens of the training split, each read once in an epoch; none while it is not prepared.
    pub training_tokens: Option<u64>,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// Whether the learning rate falls towards the last step, so that a checkpoint on the way is no
    /// end of a shorter run.
    pub is_decaying: bool,
    /// The steps that this study measures. The run may have checkpoints at others, for another
    /// study.
    pub data_point_steps: Vec<u64>,
    /// How its last attempt ended.
    pub end: Option<AttemptEnd>,
    /// What that attempt said when it went wrong.
    pub message: String,
}

/// A measured value of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct FitEvaluation {
    /// The run.
    pub run_id: RunId,
    /// The checkpoint's step.
    pub step: u64,
    /// What was measured, such as `validation_loss`.
    pub task: String,
    /// The value, such as nats per token.
    pub value: f64,
}

/// A checkpoint that was to be measured and has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FitUnmeasured {
    /// The run.
    pub run_id: RunId,
    /// The checkpoint's step.
    pub step: u64,
    /// What was to be measured, such as `validation_loss`.
    pub task: String,
    /// The label of the evaluation's state.
    pub state: String,
}

/// The queries behind the views. Every method only reads, and may be repeated.
#[async_trait]
pub trait ReadStore: Send + Sync {
    /// The number of the newest migration.
    async fn schema_version(&self) -> Result<i64, ReadError>;

    /// How many workers take part and were heard of at or after this time.
    async fn count_live_workers(&self, since_ms: i64) -> Result<u64, ReadError>;

    /// Those of the given hashes that no source has, in the given order.
    async fn missing_sources(&self, hashes: &[ContentHash]) -> Result<Vec<ContentHash>, ReadError>;

    /// The study with this name or identifier.
    async fn find_study(&self, name_or_id: &str) -> Result<Lookup<StudyId>, ReadError>;

    /// The run with this identifier, or the one run of all cells with this name.
    async fn find_run(&self, name_or_id: &str) -> Result<Lookup<RunId>, ReadError>;

    /// Every study, the newest first.
    async fn study_list(&self) -> Result<StudyList, ReadError>;

    /// One study; `None` when it is gone.
    async fn study_view(&self, study: &StudyId) -> Result<Option<StudyView>, ReadError>;

    /// The runs of a study in the order of its cells, or of the whole store; each run once.
    async fn run_list(&self, study: Option<&StudyId>) -> Result<RunList, ReadError>;

    /// One run with its attempts, checkpoints and evaluations; `None` when it is gone.
    async fn run_view(&self, run: &RunId) -> Result<Option<RunView>, ReadError>;

    /// The current truth of one series, thinned; from one consistent state of the store. Of some
    /// steps it is what the whole curve has there, and a run without a point there has no curve.
    ///
    /// For each step it is the value of the highest attempt that has one. Once the newest attempt
    /// has reported the series, points of older attempts beyond the step it resumed from are
    /// hidden: they were undone by the restart, and a curve never runs back on itself.
    async fn curves(&self, query: &CurveQuery) -> Result<CurveList, ReadError>;

    /// Every point of one series of a run, of all attempts: by step, and then by attempt.
    async fn points(&self, run: &RunId, series: &str) -> Result<Vec<SeriesPoint>, ReadError>;

    /// What has happened, with numbers above `after`, the oldest first, at most `limit`.
    async fn history(
        &self,
        of: &HistoryOf,
        after: i64,
        limit: u32,
    ) -> Result<Vec<HistoryEvent>, ReadError>;

    /// Log lines of a run with a number above `after`, the oldest first, at most `limit`.
    async fn logs(&self, run: &RunId, after: i64, limit: u32) -> Result<LogList, ReadError>;

    /// The workers with what they do, those that are there first. With `is_there_only`, those that
    /// left or were lost are left out.
    async fn workers(&self, is_there_only: bool) -> Result<Vec<WorkerView>, ReadError>;

    /// The worker with this identifier or name; of several with one name one that is there, and then
    /// the newest.
    async fn worker_named(&self, name_or_id: &str) -> Result<Option<WorkerView>, ReadError>;

    /// Stored events with a number above `after`, the oldest first, at most `limit`.
    async fn events_after(&self, after: i64, limit: u32) -> Result<Vec<EventView>, ReadError>;

    /// The number of the newest stored event; 0 when there is none.
    async fn last_event_id(&self) -> Result<i64, ReadError>;

    /// Where a run stands with the scheduler; `None` when it is gone.
    async fn run_status(&self, run: &RunId) -> Result<Option<RunStatus>, ReadError>;

    /// The cells of this name that plans left out, in the order of their studies.
    async fn dropped_cells(&self, name: &str) -> Result<Vec<DroppedCell>, ReadError>;

    /// One consistent state of all work, for the checker of the invariants.
    async fn snapshot(&self) -> Result<Snapshot, ReadError>;

    /// What the fits of a study are made from; `None` when the study is gone. Only evaluations
    /// that the study itself asks for, at the steps that it asks for, are given.
    async fn fit_inputs(&self, study: &StudyId) -> Result<Option<FitInputs>, ReadError>;

    /// Stored fits, of one study or of all, the newest first, at most `limit`; of those made by an
    /// older build only identifier, study and time are known.
    async fn fit_list(
        &self,
        study: Option<&StudyId>,
        limit: u32,
    ) -> Result<Vec<FitSummary>, ReadError>;

    /// A stored fit.
    async fn fit_record(&self, fit: &FitId) -> Result<Option<FitRecord>, ReadError>;

    /// The stored report (`api::FitReport` as JSON) of a study's fit with this inputs' hash.
    async fn stored_fit(
        &self,
        study: &StudyId,
        inputs_hash: &ContentHash,
    ) -> Result<Option<String>, ReadError>;
}
