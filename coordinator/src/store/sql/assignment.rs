//! `assignment`: everything that the holder of a token needs.
//!
//! It grants nothing and delivers nothing.

use domain::cell::Identity;
use domain::ids::{AttemptNumber, LeaseToken, WorkId};
use domain::planted::{Mistake, is_planted};
use domain::recipe::PreparationConfig;

use super::convert::{from_json, parse_id, signed, small, unsigned};
use super::database::{Pool, query_as, query_scalar};
use super::error::from_driver;
use super::members;
use crate::store::{
    Artifact, Assignment, AssignmentDetails, OfferedCheckpoint, StoreError, TrainDetails,
};

/// So many checkpoints are named to a trainer: when that many are damaged in a row, starting over
/// is the smaller loss.
const MAX_CHECKPOINTS: i64 = 32;

/// What the holder of a token is to do; none when the token is not live.
pub(super) async fn assignment(
    pool: &Pool,
    token: LeaseToken,
) -> Result<Option<Assignment>, StoreError> {
    let row: Option<(String, i64, i64)> = query_as(
        "SELECT work.id, lease_attempt, world_size
FROM work
JOIN attempts ON attempts.lease_token = work.lease_token
WHERE work.state = 'leased' AND work.lease_token = ?",
    )
    .bind(signed(token.0))
    .fetch_optional(pool)
    .await
    .map_err(from_driver)?;
    let (work, attempt, rank, world_size) = match row {
        Some((id, attempt, world_size)) => (parse_id(&id)?, attempt, 0, small(world_size)),
        None => match members::held(pool, token).await? {
            Some(member) => (member.work, member.attempt, member.rank, member.world_size),
            None => return Ok(None),
        },
    };
    let details = match &work {
        WorkId::Run(_) => train(pool, &work, attempt).await?,
        WorkId::Evaluation(_) => evaluate(pool, &work).await?,
        WorkId::Preparation(_) => prepare(pool, &work).await?,
    };
    let attempt = AttemptNumber(small(attempt));
    Ok(Some(Assignment { token, work, attempt, rank, world_size, details }))
}

#[derive(Debug, sqlx::FromRow)]
struct ArtifactRow {
    key: String,
    hash: String,
    n_bytes: i64,
}

impl ArtifactRow {
    fn into_artifact(self) -> Result<Artifact, StoreError> {
        Ok(Artifact { key: self.key, hash: parse_id(&self.hash)?, n_bytes: unsigned(self.n_bytes) })
    }
}

#[derive(Debug, sqlx::FromRow)]
struct TrainRow {
    config_json: String,
    #[sqlx(flatten)]
    data: ArtifactRow,
    micro_batch_sequences: i64,
    rolling_checkpoint_seconds: i64,
    data_point_steps_json: String,
    numerics_json: Option<String>,
    branch_step: Option<i64>,
}

#[derive(Debug, sqlx::FromRow)]
struct CheckpointRow {
    step: i64,
    manifest_key: String,
    manifest_hash: String,
    manifest_bytes: i64,
    failed_attempt: Option<i64>,
    failed_run_id: Option<String>,
    run_id: String,
}

impl CheckpointRow {
    /// As it is offered to this attempt of this run.
    fn into_offered(self, work: &WorkId, attempt: i64) -> Result<OfferedCheckpoint, StoreError> {
        let manifest = Artifact {
            key: self.manifest_key,
            hash: parse_id(&self.manifest_hash)?,
            n_bytes: unsigned(self.manifest_bytes),
        };
        // What this attempt itself says of it does not make it doubtful to the same attempt.
        let by = self.failed_run_id.as_ref().unwrap_or(&self.run_id);
        let is_own_word = by.as_str() == work.as_str();
        let has_failed = self.failed_attempt.is_some_and(|failed| !is_own_word || failed < attempt);
        Ok(OfferedCheckpoint { step: unsigned(self.step), manifest, has_failed })
    }
}

async fn train(pool: &Pool, work: &WorkId, attempt: i64) -> Result<AssignmentDetails, StoreError> {
    let row: Option<TrainRow> = query_as(
        "SELECT runs.config_json, micro_batch_sequences, rolling_checkpoint_seconds,
    data_point_steps_json, numerics_json, preparations.manifest_key AS key,
    preparations.manifest_hash AS hash, preparations.manifest_bytes AS n_bytes,
    trunks.steps AS branch_step
FROM runs
JOIN preparations ON preparations.id = runs.preparation_id
LEFT JOIN trunks ON trunks.run_id = runs.id
WHERE runs.id = ? AND preparations.manifest_key IS NOT NULL",
    )
    .bind(work.as_str())
    .fetch_optional(pool)
    .await
    .map_err(from_driver)?;
    let row = row.ok_or_else(|| without_data(work.as_str()))?;
    let data_point_steps: Vec<u64> =
        from_json(&row.data_point_steps_json, "data_point_steps_json")?;
    let checkpoints = checkpoints(pool, work, attempt, &data_point_steps).await?;
    Ok(AssignmentDetails::Train(Box::new(TrainDetails {
        config_json: row.config_json,
        data_manifest: row.data.into_artifact()?,
        micro_batch_sequences: small(row.micro_batch_sequences),
        data_point_steps,
        rolling_checkpoint_seconds: small(row.rolling_checkpoint_seconds),
        checkpoints,
        numerics: row.numerics_json.map(|text| from_json(&text, "numerics_json")).transpose()?,
        branch_step: row.branch_step.map(unsigned),
    })))
}

/// The run's own checkpoints, and those of the run that it goes on from up to where it does and below
/// every data point, if they were made with the run's numerics; or with any, if the run is marked
/// that its numerics have changed.
async fn checkpoints(
    pool: &Pool,
    work: &WorkId,
    attempt: i64,
    data_point_steps: &[u64],
) -> Result<Vec<OfferedCheckpoint>, StoreError> {
    let rows: Vec<CheckpointRow> = query_as(
        "SELECT step, manifest_key, manifest_hash, manifest_bytes, failed_attempt, failed_run_id,
    run_id
FROM checkpoints
WHERE run_id IN (?1, (SELECT from_run_id FROM trunks WHERE trunks.run_id = ?1))
    AND (
        run_id = ?1
        OR EXISTS (
            SELECT 1
            FROM trunks
            JOIN runs ON runs.id = trunks.run_id
            JOIN attempts ON attempts.work_id = checkpoints.run_id
                AND attempts.attempt = checkpoints.attempt
            WHERE trunks.run_id = ?1 AND checkpoints.step <= trunks.from_step
                -- A study may have wanted a data point since.
                AND checkpoints.step < ?2
                AND (
                    runs.has_changed_numerics = 1
                    OR COALESCE(runs.numerics_json, attempts.numerics_json)
                        = attempts.numerics_json
                )
        )
    )
    AND refused_reason IS NULL AND superseded_at_ms IS NULL
ORDER BY step DESC, attempt DESC
LIMIT ?3",
    )
    .bind(work.as_str())
    .bind(data_point_steps.first().map_or(i64::MAX, |first| signed(*first)))
    .bind(MAX_CHECKPOINTS)
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    let mut checkpoints: Vec<OfferedCheckpoint> =
        rows.into_iter().map(|row| row.into_offered(work, attempt)).collect::<Result<_, _>>()?;
    if is_planted(Mistake::OldestCheckpointFirst) {
        checkpoints.reverse();
    }
    Ok(checkpoints)
}

fn without_data(run: &str) -> StoreError {
    StoreError::Bug(format!("`{run}` was granted before its data was there"))
}

/// The prepared data of a run.
async fn data_of(pool: &Pool, run: &str) -> Result<Artifact, StoreError> {
    let row: Option<ArtifactRow> = query_as(
        "SELECT preparations.manifest_key AS key, preparations.manifest_hash AS hash,
    preparations.manifest_bytes AS n_bytes
FROM runs
JOIN preparations ON preparations.id = runs.preparation_id
WHERE runs.id = ? AND preparations.manifest_key IS NOT NULL",
    )
    .bind(run)
    .fetch_optional(pool)
    .await
    .map_err(from_driver)?;
    row.ok_or_else(|| without_data(run))?.into_artifact()
}

#[derive(Debug, sqlx::FromRow)]
struct EvaluateRow {
    run_id: String,
    config_json: String,
    cell_config_json: String,
    manifest_key: String,
    manifest_hash: String,
    manifest_bytes: i64,
}

async fn evaluate(pool: &Pool, work: &WorkId) -> Result<AssignmentDetails, StoreError> {
    let row: EvaluateRow = query_as(
        "SELECT evaluations.run_id, evaluations.config_json, runs.config_json AS cell_config_json,
    checkpoints.manifest_key, checkpoints.manifest_hash, checkpoints.manifest_bytes
FROM evaluations
JOIN runs ON runs.id = evaluations.run_id
JOIN checkpoints ON checkpoints.run_id = evaluations.run_id
    AND checkpoints.attempt = evaluations.attempt AND checkpoints.step = evaluations.step
WHERE evaluations.id = ?",
    )
    .bind(work.as_str())
    .fetch_one(pool)
    .await
    .map_err(from_driver)?;
    Ok(AssignmentDetails::Evaluate {
        data_manifest: data_of(pool, &row.run_id).await?,
        config_json: row.config_json,
        cell_config_json: row.cell_config_json,
        checkpoint_manifest: Artifact {
            key: row.manifest_key,
            hash: parse_id(&row.manifest_hash)?,
            n_bytes: unsigned(row.manifest_bytes),
        },
    })
}

async fn prepare(pool: &Pool, work: &WorkId) -> Result<AssignmentDetails, StoreError> {
    let config_json: String = query_scalar("SELECT config_json FROM preparations WHERE id = ?")
        .bind(work.as_str())
        .fetch_one(pool)
        .await
        .map_err(from_driver)?;
    let config: PreparationConfig =
        Identity::parse(&config_json).map_err(StoreError::Configuration)?;
    let mut sources = Vec::new();
    for hash in config.sources.iter().flat_map(|source| &source.file_hashes) {
        let row: ArtifactRow = query_as("SELECT key, hash, n_bytes FROM sources WHERE hash = ?")
            .bind(hash)
            .fetch_one(pool)
            .await
            .map_err(from_driver)?;
        sources.push(row.into_artifact()?);
    }
    Ok(AssignmentDetails::Prepare { config_json, sources })
}
