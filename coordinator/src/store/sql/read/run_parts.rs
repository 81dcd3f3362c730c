//! One run with all it has: configuration, cells, attempts, checkpoints, evaluations, log lines.
//! The run in a line is `super::runs`; its curves are `super::curves`.

use api::{
    AttemptView, CellRef, CheckpointView, ContinuesView, EvaluationView, LogLineView, LogList,
    RunView,
};
use domain::ids::RunId;

use super::{count, failed, from_json, small_count};
use crate::store::read::ReadError;
use crate::store::sql::database::{Pool, query_as, query_scalar};

#[derive(sqlx::FromRow)]
struct DetailRow {
    identity_hash: String,
    config_json: String,
    numerics_json: Option<String>,
    from_run_id: Option<String>,
    from_step: Option<i64>,
}

/// What a run is, and the step that it went on from.
const DETAIL: &str = "SELECT runs.identity_hash, runs.config_json, runs.numerics_json, trunks.from_run_id,
    CASE
        WHEN work.n_attempts = 0 THEN trunks.from_step
        ELSE (
            SELECT gone_on.step
            FROM (
                SELECT kept.step, attempts.attempt, CASE
                    WHEN attempts.attempt = work.n_attempts OR EXISTS (
                        SELECT 1
                        FROM checkpoints AS left_over
                        WHERE left_over.run_id = runs.id
                            AND left_over.attempt = attempts.attempt
                    ) THEN 0
                    ELSE 1
                END AS came_to_nothing
                FROM attempts
                JOIN checkpoints AS kept ON kept.run_id = trunks.from_run_id
                    AND kept.step = attempts.resumed_from_step
                WHERE attempts.work_id = runs.id AND kept.step <= trunks.from_step
                    -- What a later attempt has trained from the first step on owes it nothing.
                    AND NOT EXISTS (
                        SELECT 1
                        FROM attempts AS fresh
                        WHERE fresh.work_id = runs.id AND fresh.attempt > attempts.attempt
                            AND fresh.resumed_from_step = 0
                            AND (fresh.attempt = work.n_attempts OR EXISTS (
                                SELECT 1
                                FROM checkpoints AS left_over
                                WHERE left_over.run_id = runs.id
                                    AND left_over.attempt = fresh.attempt
                            ))
                    )
                    AND NOT EXISTS (
                        SELECT 1
                        FROM checkpoints AS own
                        WHERE own.run_id = runs.id AND own.step = kept.step
                            AND own.attempt < attempts.attempt
                    )
            ) AS gone_on
            -- The last attempt, or one that has left what a later one went on from, says from where;
            -- one that came to nothing may have gone on from an earlier step.
            ORDER BY gone_on.came_to_nothing, gone_on.attempt DESC
            LIMIT 1
        )
    END AS from_step
FROM runs
JOIN work ON work.id = runs.id
LEFT JOIN trunks ON trunks.run_id = runs.id
WHERE runs.id = ?1";

pub(super) async fn view(pool: &Pool, run: &RunId) -> Result<Option<RunView>, ReadError> {
    let id = run.as_str();
    let Some(summary) = super::runs::summary(pool, run).await? else {
        return Ok(None);
    };
    let detail: DetailRow =
        query_as(DETAIL).bind(id).fetch_one(pool).await.map_err(failed("a run's configuration"))?;
    let numerics = detail.numerics_json.map(|json| from_json(&json, "numerics", id)).transpose()?;
    Ok(Some(RunView {
        summary,
        identity_hash: detail.identity_hash,
        config: from_json(&detail.config_json, "configuration", id)?,
        numerics,
        continues: detail
            .from_run_id
            .zip(detail.from_step)
            .map(|(run_id, step)| ContinuesView { run_id, step: count(step) }),
        cells: cells(pool, id).await?,
        attempts: attempts(pool, id).await?,
        checkpoints: checkpoints(pool, id).await?,
        evaluations: evaluations(pool, id).await?,
        series: series(pool, id).await?,
    }))
}

#[derive(sqlx::FromRow)]
struct CellRow {
    study: String,
    cell: String,
}

async fn cells(pool: &Pool, id: &str) -> Result<Vec<CellRef>, ReadError> {
    let rows: Vec<CellRow> = query_as(
        "SELECT s.name AS study, c.name AS cell
FROM cells c
JOIN studies s ON s.id = c.study_id
WHERE c.run_id = ?1
ORDER BY s.created_at_ms, s.id, c.position",
    )
    .bind(id)
    .fetch_all(pool)
    .await
    .map_err(failed("a run's cells"))?;
    Ok(rows.into_iter().map(|row| CellRef { study: row.study, cell: row.cell }).collect())
}

#[derive(sqlx::FromRow)]
struct AttemptRow {
    attempt: i64,
    state: String,
    ended_as: Option<String>,
    message: String,
    worker_id: String,
    worker: String,
    resumed_from_step: Option<i64>,
    granted_at_ms: i64,
    started_at_ms: Option<i64>,
    ended_at_ms: Option<i64>,
}

async fn attempts(pool: &Pool, id: &str) -> Result<Vec<AttemptView>, ReadError> {
    let rows: Vec<AttemptRow> = query_as(
        "SELECT a.attempt, a.state, a.ended_as, a.message, a.worker_id, k.name AS worker,
    a.resumed_from_step, a.granted_at_ms, a.started_at_ms, a.ended_at_ms
FROM attempts a
JOIN workers k ON k.id = a.worker_id
WHERE a.work_id = ?1
ORDER BY a.attempt",
    )
    .bind(id)
    .fetch_all(pool)
    .await
    .map_err(failed("a run's attempts"))?;
    let mut members = members(pool, id).await?;
    let mut of_attempt = |attempt: i64| {
        let (own, others) = std::mem::take(&mut members).into_iter().partition(|m| m.0 == attempt);
        members = others;
        let own: Vec<(i64, String)> = own;
        own.into_iter().map(|(_, worker)| worker).collect()
    };
    let into_view = |row: AttemptRow| AttemptView {
        attempt: small_count(row.attempt),
        members: of_attempt(row.attempt),
        state: row.state,
        ended_as: row.ended_as,
        message: row.message,
        worker_id: row.worker_id,
        worker: row.worker,
        resumed_from_step: row.resumed_from_step.map(count),
        granted_at_ms: row.granted_at_ms,
        started_at_ms: row.started_at_ms,
        ended_at_ms: row.ended_at_ms,
    };
    Ok(rows.into_iter().map(into_view).collect())
}

/// The workers of gangs' other members, each with its attempt.
async fn members(pool: &Pool, id: &str) -> Result<Vec<(i64, String)>, ReadError> {
    query_as(
        "SELECT a.attempt, k.name
FROM attempts a
JOIN members m ON m.attempt_token = a.lease_token
JOIN workers k ON k.id = m.worker_id
WHERE a.work_id = ?1
ORDER BY a.attempt, m.rank",
    )
    .bind(id)
    .fetch_all(pool)
    .await
    .map_err(failed("a run's gangs"))
}

#[derive(sqlx::FromRow)]
struct CheckpointRow {
    step: i64,
    attempt: i64,
    is_data_point: i64,
    n_bytes: i64,
    manifest_key: String,
    weights_hash: String,
    refused_reason: Option<String>,
    is_superseded: i64,
    created_at_ms: i64,
}

async fn checkpoints(pool: &Pool, id: &str) -> Result<Vec<CheckpointView>, ReadError> {
    let rows: Vec<CheckpointRow> = query_as(
        "SELECT step, attempt, is_data_point, n_bytes, manifest_key, weights_hash, refused_reason,
    CAST(CASE WHEN superseded_at_ms IS NULL THEN 0 ELSE 1 END AS BIGINT) AS is_superseded,
    created_at_ms
FROM checkpoints
WHERE run_id = ?1
ORDER BY step, attempt",
    )
    .bind(id)
    .fetch_all(pool)
    .await
    .map_err(failed("a run's checkpoints"))?;
    let into_view = |row: CheckpointRow| CheckpointView {
        step: count(row.step),
        attempt: small_count(row.attempt),
        is_data_point: row.is_data_point != 0,
        n_bytes: count(row.n_bytes),
        manifest_key: row.manifest_key,
        weights_hash: row.weights_hash,
        refused_reason: row.refused_reason,
        is_superseded: row.is_superseded != 0,
        created_at_ms: row.created_at_ms,
    };
    Ok(rows.into_iter().map(into_view).collect())
}

#[derive(sqlx::FromRow)]
struct EvaluationRow {
    id: String,
    step: i64,
    tokens: i64,
    flops_exact: f64,
    task: String,
    state: String,
    value: Option<f64>,
    standard_error: Option<f64>,
    attempt: i64,
    n_tokens: Option<i64>,
}

async fn evaluations(pool: &Pool, id: &str) -> Result<Vec<EvaluationView>, ReadError> {
    let rows: Vec<EvaluationRow> = query_as(
        "SELECT e.id, e.step, e.step * r.batch_tokens AS tokens,
    r.flops_exact * e.step / GREATEST(r.steps, 1) AS flops_exact,
    e.task, w.state, e.value, e.standard_error, e.attempt, e.n_tokens
FROM evaluations e
JOIN runs r ON r.id = e.run_id
JOIN work w ON w.id = e.id
WHERE e.run_id = ?1
ORDER BY e.step, e.task, e.attempt, COALESCE(e.n_tokens, 0) DESC, e.id",
    )
    .bind(id)
    .fetch_all(pool)
    .await
    .map_err(failed("a run's evaluations"))?;
    let into_view = |row: EvaluationRow| EvaluationView {
        id: row.id,
        attempt: small_count(row.attempt),
        step: count(row.step),
        tokens: count(row.tokens),
        flops_exact: row.flops_exact,
        task: row.task,
        state: row.state,
        value: row.value,
        standard_error: row.standard_error,
        n_tokens: row.n_tokens.map(count),
    };
    Ok(rows.into_iter().map(into_view).collect())
}

async fn series(pool: &Pool, id: &str) -> Result<Vec<String>, ReadError> {
    query_scalar(
        "SELECT DISTINCT name
FROM point_series
WHERE run_id = ?1
ORDER BY name",
    )
    .bind(id)
    .fetch_all(pool)
    .await
    .map_err(failed("the names of a run's series"))
}

#[derive(sqlx::FromRow)]
struct LogRow {
    id: i64,
    attempt: i64,
    at_ms: i64,
    level: String,
    text: String,
}

pub(super) async fn logs(
    pool: &Pool,
    run: &RunId,
    after: i64,
    limit: u32,
) -> Result<LogList, ReadError> {
    let rows: Vec<LogRow> = query_as(
        "SELECT id, attempt, at_ms, level, text
FROM log_lines
WHERE work_id = ?1 AND id > ?2
ORDER BY id
LIMIT ?3",
    )
    .bind(run.as_str())
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await
    .map_err(failed("a run's log lines"))?;
    let into_view = |row: LogRow| LogLineView {
        id: row.id,
        attempt: small_count(row.attempt),
        at_ms: row.at_ms,
        level: row.level,
        text: row.text,
    };
    Ok(LogList { lines: rows.into_iter().map(into_view).collect() })
}
