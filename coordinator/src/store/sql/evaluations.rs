//! Evaluations that follow from a data-point checkpoint: one for each task that a live study asks.
//!
//! Their results come with `report`.

use domain::attempt::AttemptEnd;
use domain::cell::Identity;
use domain::ids::{ContentHash, EvaluationId, RunId, StudyId, WorkId};
use domain::recipe::{CellConfig, EvaluationConfig, VALIDATION_LOSS_VERSION};
use domain::run::RunState;
use domain::spec::{EvaluateSpec, EvaluationTask, FlopKind};
use serde_json::json;

use super::change::retry_if_over;
use super::convert::{from_json, parse_id, signed};
use super::database::{query, query_as, query_scalar};
use super::error::from_driver;
use super::writer::Tx;
use crate::store::{Changed, StoreError};

/// A forward pass is a third of forward and backward.
const FORWARD_SHARE: f64 = 1.0 / 3.0;

/// A checkpoint whose weights are measured.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct CheckpointToEvaluate {
    pub(super) attempt: i64,
    pub(super) step: i64,
    pub(super) weights_hash: String,
}

#[derive(Debug, sqlx::FromRow)]
struct RunRow {
    config_json: String,
    preparation_hash: String,
    priority: i64,
    max_failures: i64,
    retries_json: Option<String>,
    is_held: i64,
    study_id: String,
}

/// Stores what a study asks to be measured, in place of what it asked before.
pub(super) async fn ask(
    tx: &mut Tx,
    study: &StudyId,
    specs: &[EvaluateSpec],
) -> Result<(), StoreError> {
    query("DELETE FROM asked_evaluations WHERE study_id = ?")
        .bind(study.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    for spec in specs {
        query(
            "INSERT INTO asked_evaluations (study_id, task, sequences)
VALUES (?, ?, ?)
ON CONFLICT (study_id, task, sequences) DO NOTHING",
        )
        .bind(study.as_str())
        .bind(spec.task.label())
        .bind(stored_sequences(spec.sequences))
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    }
    Ok(())
}

/// No study asks for 0 sequences, so that this stands for all.
fn stored_sequences(sequences: Option<u32>) -> i64 {
    sequences.map_or(0, i64::from)
}

/// The runs of a study that left checkpoints to measure.
pub(super) async fn with_data_points(
    tx: &mut Tx,
    study: &StudyId,
) -> Result<Vec<RunId>, StoreError> {
    let runs: Vec<String> = query_scalar(
        "SELECT DISTINCT cells.run_id
FROM cells
JOIN checkpoints ON checkpoints.run_id = cells.run_id AND checkpoints.is_data_point = 1
WHERE cells.study_id = ?
ORDER BY 1",
    )
    .bind(study.as_str())
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    runs.iter().map(|run| parse_id(run)).collect()
}

/// Queues the evaluations that every data-point checkpoint of a run lacks; how many.
pub(super) async fn ensure_for_run(tx: &mut Tx, run: &RunId) -> Result<u64, StoreError> {
    // Where two attempts left a checkpoint at one step, the later one is the truth.
    let checkpoints: Vec<CheckpointToEvaluate> = query_as(
        "SELECT attempt, step, weights_hash
FROM checkpoints
WHERE run_id = ? AND is_data_point = 1 AND refused_reason IS NULL AND NOT EXISTS (
    SELECT *
    FROM checkpoints later
    WHERE later.run_id = checkpoints.run_id AND later.step = checkpoints.step
        AND later.attempt > checkpoints.attempt AND later.is_data_point = 1
        AND later.refused_reason IS NULL
)
ORDER BY step",
    )
    .bind(run.as_str())
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    ensure(tx, run, &checkpoints).await
}

/// Queues the evaluations that these checkpoints lack; how many.
pub(super) async fn ensure(
    tx: &mut Tx,
    run: &RunId,
    checkpoints: &[CheckpointToEvaluate],
) -> Result<u64, StoreError> {
    if checkpoints.is_empty() {
        return Ok(0);
    }
    let asked: Vec<String> = query_scalar(
        "SELECT DISTINCT studies.evaluate_json
FROM cells
JOIN studies ON studies.id = cells.study_id
WHERE cells.run_id = ? AND studies.is_cancelled = 0",
    )
    .bind(run.as_str())
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    let mut specs: Vec<EvaluateSpec> = Vec::new();
    for text in asked {
        specs.extend(from_json::<Vec<EvaluateSpec>>(&text, "evaluate_json")?);
    }
    if specs.is_empty() {
        return Ok(0);
    }
    let row: RunRow = query_as(
        "SELECT runs.config_json, preparations.hash AS preparation_hash, work.priority,
    work.max_failures, work.retries_json, work.is_held, work.study_id
FROM runs
JOIN work ON work.id = runs.id
JOIN preparations ON preparations.id = runs.preparation_id
WHERE runs.id = ?",
    )
    .bind(run.as_str())
    .fetch_one(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    let CellConfig::Pretrain(cell) =
        Identity::parse(&row.config_json).map_err(StoreError::Configuration)?;
    let cost_flops = cell.flops_per_token(FlopKind::Exact) * FORWARD_SHARE;
    let mut n_new = 0;
    for spec in &specs {
        for checkpoint in checkpoints {
            let config = EvaluationConfig {
                task: spec.task.label().to_owned(),
                task_version: version_of(spec.task),
                weights_hash: checkpoint.weights_hash.clone(),
                preparation_hash: row.preparation_hash.clone(),
                sequence_length: cell.training.sequence_length,
                sequences: spec.sequences,
            };
            let identity = config.identity().map_err(StoreError::Configuration)?;
            let id = evaluation_id(&identity, run, checkpoint.step);
            let config_json = identity.canonical_json;
            let to_insert = ToInsert { id, config_json, spec, cost_flops };
            n_new += u64::from(insert(tx, run, &row, checkpoint, &to_insert).await?);
        }
    }
    Ok(n_new)
}

/// Two runs may have the same weights at some step (one is the other with more steps), and each
/// needs its own data point; so the run and the step are part of what is hashed.
fn evaluation_id(identity: &Identity, run: &RunId, step: i64) -> EvaluationId {
    let key = format!("{} {run} {step}", identity.hash);
    EvaluationId::from_hash(&ContentHash::of(key.as_bytes()))
}

fn version_of(task: EvaluationTask) -> u32 {
    match task {
        EvaluationTask::ValidationLoss => VALIDATION_LOSS_VERSION,
    }
}

struct ToInsert<'a> {
    id: EvaluationId,
    config_json: String,
    spec: &'a EvaluateSpec,
    cost_flops: f64,
}

async fn insert(
    tx: &mut Tx,
    run: &RunId,
    row: &RunRow,
    checkpoint: &CheckpointToEvaluate,
    evaluation: &ToInsert<'_>,
) -> Result<bool, StoreError> {
    let inserted = query(
        "INSERT INTO work (id, kind, state, priority, cost_flops, max_failures, retries_json,
    is_held, study_id, created_at_ms, updated_at_ms)
VALUES (?, 'evaluation', 'queued', ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING",
    )
    .bind(evaluation.id.as_str())
    .bind(row.priority)
    .bind(evaluation.cost_flops)
    .bind(row.max_failures)
    .bind(row.retries_json.as_deref())
    .bind(row.is_held)
    .bind(&row.study_id)
    .bind(tx.now_ms)
    .bind(tx.now_ms)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    if inserted.rows_affected() == 0 {
        return measure_again(tx, checkpoint, &evaluation.id).await;
    }
    query(
        "INSERT INTO evaluations (id, run_id, attempt, step, task, sequences, config_json)
VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(evaluation.id.as_str())
    .bind(run.as_str())
    .bind(checkpoint.attempt)
    .bind(checkpoint.step)
    .bind(evaluation.spec.task.label())
    .bind(stored_sequences(evaluation.spec.sequences))
    .bind(&evaluation.config_json)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    let detail = json!({ "run": run.as_str(), "step": checkpoint.step });
    tx.record(evaluation.id.as_str(), "evaluation_queued", &detail);
    Ok(true)
}

/// A later attempt has written the same weights at the same step again: an evaluation without a
/// result reads those, and one that failed on the earlier files is queued again.
async fn measure_again(
    tx: &mut Tx,
    checkpoint: &CheckpointToEvaluate,
    evaluation: &EvaluationId,
) -> Result<bool, StoreError> {
    let moved = query(
        "UPDATE evaluations
SET attempt = ?
WHERE id = ? AND attempt < ? AND value IS NULL",
    )
    .bind(checkpoint.attempt)
    .bind(evaluation.as_str())
    .bind(checkpoint.attempt)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    if moved.rows_affected() == 0 {
        return Ok(false);
    }
    let mut changed = Changed::default();
    let failed = [RunState::Failed { end: AttemptEnd::BadCheckpoint }.label()];
    let work = WorkId::Evaluation(evaluation.clone());
    retry_if_over(tx, &work, &failed, &mut changed).await?;
    Ok(!changed.work.is_empty())
}

/// For reports: the checkpoint that was just stored.
pub(super) fn checkpoint_at(
    attempt: i64,
    step: u64,
    weights_hash: &ContentHash,
) -> CheckpointToEvaluate {
    CheckpointToEvaluate { attempt, step: signed(step), weights_hash: weights_hash.to_string() }
}
