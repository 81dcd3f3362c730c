//! The arguments and answers of the store's verbs.
//!
//! No row and no message of the wire: those are converted at their own edges.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use domain::attempt::AttemptEnd;
use domain::ids::{
    AttemptNumber, ContentHash, FitId, LeaseToken, RunId, StudyId, WorkId, WorkerId,
};
use domain::run::RunState;
use domain::spec::StudySpec;
use domain::worker::WorkerState;
use serde::{Deserialize, Serialize};

use crate::scheduler::fit::Machine;

/// An object of the artifact store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its key; only the coordinator and its trainers make keys.
    pub key: String,
    /// BLAKE3 of its bytes.
    pub hash: ContentHash,
    /// Its size.
    pub n_bytes: u64,
}

/// A study that was parsed and planned.
#[derive(Debug, Clone)]
pub struct StudyToApply {
    /// What the study file says.
    pub spec: StudySpec,
    /// Its text.
    pub spec_text: String,
    /// Its name.
    pub spec_file: String,
    /// Its cells. They are shared with the answer that shows them: there may be a million.
    pub plan: Arc<planner::Plan>,
}

/// What became of an applied study.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ApplyOutcome {
    /// It is stored.
    Applied(Applied),
    /// These sources are not there; nothing was stored.
    MissingSources(Vec<ContentHash>),
}

/// A stored study.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its identifier, made from its name.
    pub study_id: StudyId,
    /// Whether it was there before.
    pub is_update: bool,
    /// Runs that this made.
    pub n_new_runs: u64,
    /// Cells whose run was there already.
    pub n_reused_runs: u64,
    /// Of those, how many have their result.
    pub n_reused_succeeded: u64,
    /// Data points that the study asks of runs which have passed them without a checkpoint.
    pub n_missed_data_points: u64,
    /// Cells that the study has no longer.
    pub n_removed_cells: u64,
    /// What the removed cells' runs went through.
    pub changed: Changed,
}

/// What a change did beside its own row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changed {
    /// The work that changed state, in the order it happened.
    pub work: Vec<(WorkId, RunState)>,
    /// The rights that ended: their holders must be told to stop.
    pub revoked: Vec<(LeaseToken, WorkerId)>,
    /// The rights that are wanted back: their holders are to write a checkpoint and leave.
    pub preempted: Vec<(LeaseToken, WorkerId)>,
    /// The runs that have another priority, or are held or no longer held.
    pub settled: Vec<RunId>,
}

/// What is queued again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// Everything that failed, was cancelled, or waits for its next attempt.
    All,
    /// What failed, in whatever way.
    Failed,
    /// What failed in this way.
    Class(AttemptEnd),
}

impl Retry {
    /// The text in the audit trail.
    pub fn label(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Failed => "failed",
            Self::Class(end) => end.label(),
        }
    }

    /// Whether it means work that is in this state and, if it failed, failed like this.
    pub fn means(self, state: &str, failed_end: Option<&str>) -> bool {
        match self {
            Self::All => matches!(state, "failed" | "cancelled" | "backoff"),
            Self::Failed => state == "failed",
            Self::Class(end) => failed_end == Some(end.label()),
        }
    }
}

impl Changed {
    /// The runs that it concerned, each once, in the order it happened.
    pub fn run_ids(&self) -> Vec<&RunId> {
        let moved = self.work.iter().filter_map(|(work, _)| match work {
            WorkId::Run(run) => Some(run),
            WorkId::Evaluation(_) | WorkId::Preparation(_) => None,
        });
        let mut seen = BTreeSet::new();
        moved.chain(&self.settled).filter(|run| seen.insert(*run)).collect()
    }
}

/// What a worker's machine can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// `cpu` or `cuda`.
    pub device_kind: String,
    /// For people.
    pub device_name: String,
    /// Intra-op threads of each slot's trainer.
    pub threads_per_slot: u32,
    /// What decides which kernels run: a CPU's instructions and model, or a CUDA device's model.
    pub cpu_capability: String,
    /// The libtorch build.
    pub libtorch_version: String,
    /// Memory of the machine.
    pub memory_bytes: u64,
    /// The recipes it can carry out.
    pub recipes: Vec<String>,
    /// What its operator says of it.
    pub labels: BTreeMap<String, String>,
}

/// What decides a run's rounding; its first attempt fixes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Numerics {
    /// `cpu` or `cuda`.
    pub device_kind: String,
    /// Threads of one operator.
    pub intra_op_threads: u32,
    /// Sequences in one forward pass; 0 is the whole batch.
    pub micro_batch_sequences: u32,
    /// What decides which kernels run: a CPU's instructions and model, or a CUDA device's model.
    pub cpu_capability: String,
    /// The libtorch build.
    pub libtorch_version: String,
}

#[cfg(test)]
impl Capabilities {
    /// Those of a CPU with so many threads for each slot.
    pub(crate) fn of_a_cpu(threads_per_slot: u32) -> Self {
        Self {
            device_kind: "cpu".into(),
            device_name: "a CPU".into(),
            threads_per_slot,
            cpu_capability: "AVX2".into(),
            libtorch_version: "2.11.0".into(),
            memory_bytes: 1 << 30,
            recipes: vec!["pretrain".into()],
            labels: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
impl Numerics {
    /// Those of such a CPU, with the whole batch at once.
    pub(crate) fn of_a_cpu(intra_op_threads: u32) -> Self {
        Self {
            device_kind: "cpu".into(),
            intra_op_threads,
            micro_batch_sequences: 0,
            cpu_capability: "AVX2".into(),
            libtorch_version: "2.11.0".into(),
        }
    }
}

/// A worker that announces itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerToRegister {
    /// The identifier it gets when it is new.
    pub proposed_id: WorkerId,
    /// A name for people.
    pub name: String,
    /// Its machine's name.
    pub hostname: String,
    /// Its agent's process.
    pub pid: u32,
    /// Which of all processes that it is: random.
    pub instance: String,
    /// The workers that are connected at this moment: their names are not free.
    pub connected: Vec<WorkerId>,
    /// Its machine.
    pub machine: Machine,
}

/// A worker that was entered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its identifier.
    pub worker: WorkerId,
    /// Its name here: as it was given, or with a number behind it.
    pub name: String,
    /// Older registrations that this ended.
    pub replaced: Vec<WorkerId>,
    /// What their attempts went through.
    pub changed: Changed,
}

/// A worker as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// Its identifier.
    pub worker: WorkerId,
    /// Its state.
    pub state: WorkerState,
    /// Its machine.
    pub machine: Machine,
}

/// A lease as the store knows it, or the right of a gang's other member to its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveLease {
    /// The right.
    pub token: LeaseToken,
    /// What it is for.
    pub work: WorkId,
    /// Who has it.
    pub worker: WorkerId,
}

/// A placement that became a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The right.
    pub token: LeaseToken,
    /// What it is for.
    pub work: WorkId,
    /// The attempt.
    pub attempt: AttemptNumber,
    /// Who has it: rank 0 where there are others.
    pub worker: WorkerId,
    /// The other members of a gang, by rank from 1, each with a right to its own slot.
    pub members: Vec<LiveLease>,
}

/// What the holder of a token is to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The right.
    pub token: LeaseToken,
    /// What it is for.
    pub work: WorkId,
    /// The attempt.
    pub attempt: AttemptNumber,
    /// Its place among the members, from 0, who does the work and reports.
    pub rank: u32,
    /// How many members there are.
    pub world_size: u32,
    /// The work itself.
    pub details: AssignmentDetails,
}

impl Assignment {
    /// The key of the object where the members of a gang meet; empty for work of one slot. No other
    /// attempt has it.
    pub fn rendezvous(&self) -> String {
        match self.world_size {
            1 => String::new(),
            _ => format!("runs/{}/{}/rendezvous", self.work, self.attempt.0),
        }
    }
}

/// The three kinds of work.
#[derive(Debug, Clone, PartialEq)]
pub enum AssignmentDetails {
    /// Train a run.
    Train(Box<TrainDetails>),
    /// Measure a checkpoint.
    Evaluate {
        /// The evaluation's canonical JSON.
        config_json: String,
        /// The canonical JSON of the cell whose weights these are.
        cell_config_json: String,
        /// The checkpoint.
        checkpoint_manifest: Artifact,
        /// The data.
        data_manifest: Artifact,
    },
    /// Prepare data.
    Prepare {
        /// The preparation's canonical JSON.
        config_json: String,
        /// The files in the configuration's order.
        sources: Vec<Artifact>,
    },
}

/// A run to train.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainDetails {
    /// The cell's canonical JSON.
    pub config_json: String,
    /// The data.
    pub data_manifest: Artifact,
    /// Sequences in one forward pass; 0 is the whole batch.
    pub micro_batch_sequences: u32,
    /// The steps that leave a data-point checkpoint, ascending.
    pub data_point_steps: Vec<u64>,
    /// Seconds between rolling checkpoints.
    pub rolling_checkpoint_seconds: u32,
    /// The checkpoints that were not refused, newest first.
    pub checkpoints: Vec<OfferedCheckpoint>,
    /// What the first attempt fixed.
    pub numerics: Option<Numerics>,
    /// The step from which runs that share its trunk go on.
    pub branch_step: Option<u64>,
}

/// A rolling checkpoint that later ones stand in for, whose files may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupersededCheckpoint {
    /// The run that left it.
    pub run: RunId,
    /// The attempt that did.
    pub attempt: u32,
    /// The step after which it was written.
    pub step: u64,
    /// The key of its manifest. Its files lie beside that.
    pub manifest_key: String,
}

/// A checkpoint that an attempt may continue from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedCheckpoint {
    /// The step after which it was written.
    pub step: u64,
    /// Its manifest.
    pub manifest: Artifact,
    /// Whether an earlier attempt found it damaged.
    pub has_failed: bool,
}

/// One thing that an attempt has to say.
#[derive(Debug, Clone, PartialEq)]
pub enum ReportEvent {
    /// It has begun to work.
    Started {
        /// What decides its rounding.
        numerics: Numerics,
        /// The step it continues from; 0 for a fresh start.
        resumed_from_step: u64,
    },
    /// Metrics of one step.
    Point {
        /// The step.
        step: u64,
        /// Name and value.
        values: BTreeMap<String, f64>,
    },
    /// A log line.
    Log {
        /// The worker's clock, for display.
        at_ms: i64,
        /// `info`, `warn` or `error`.
        level: LogLevel,
        /// What it says.
        text: String,
    },
    /// A durable checkpoint.
    Checkpoint {
        /// The step after which it was written.
        step: u64,
        /// Its manifest.
        manifest: Artifact,
        /// The weights file.
        weights: Artifact,
        /// Whether evaluations follow.
        is_data_point: bool,
        /// All its files together.
        n_bytes: u64,
    },
    /// A checkpoint that is damaged. The second attempt that says so has it refused for good.
    CheckpointRefused {
        /// Its manifest.
        manifest_key: String,
        /// Why.
        reason: String,
    },
    /// The result of an evaluation.
    Evaluation {
        /// The measured quantity.
        name: String,
        /// Its value.
        value: f64,
        /// Its standard error.
        standard_error: Option<f64>,
        /// How many tokens were predicted.
        n_tokens: u64,
    },
    /// The result of a data preparation.
    Preparation {
        /// The data's manifest.
        manifest: Artifact,
        /// Tokens to train on.
        n_training_tokens: u64,
        /// Tokens held out.
        n_validation_tokens: u64,
        /// The number of token ids.
        vocab_size: u32,
    },
}

/// How grave a log line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// For the record.
    Info,
    /// Somebody may want to look.
    Warn,
    /// Something failed.
    Error,
}

impl LogLevel {
    /// Every level.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warn, Self::Error];

    /// The text in the store and on the wire.
    pub fn label(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// The level with this label.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.label() == label)
    }
}

/// Work that waits for its next attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backoff {
    /// What it is.
    pub work: WorkId,
    /// How long it is to wait, by the wall clock that read both ends.
    pub pause_ms: u64,
    /// When it ends by that clock, for display; it tells this back-off from the one before.
    pub until_ms: i64,
}

/// A fit to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FitToSave {
    /// Its identifier, made from the inputs' hash.
    pub id: FitId,
    /// The study.
    pub study: StudyId,
    /// BLAKE3 of the observations and the settings.
    pub inputs_hash: ContentHash,
    /// Everything that it is made from, as canonical JSON, whose hash that is.
    pub inputs_json: String,
    /// The report (`api::FitReport`) as JSON.
    pub report_json: String,
    /// The report in a line (`api::FitSummary`) as JSON.
    pub summary_json: String,
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// It is durable.
    Stored {
        /// What it was about.
        work: WorkId,
        /// Whether it queued evaluations.
        has_new_work: bool,
    },
    /// The token is not live; nothing was stored.
    Stale,
}

/// What became of the end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finished {
    /// It is durable, now or since the same report before.
    Ended {
        /// How it was recorded: a success without a result is recorded as a bug.
        end: AttemptEnd,
        /// What the work and its dependents went through; empty when it was repeated.
        changed: Changed,
    },
    /// The token is not live; nothing was stored.
    Stale,
}
