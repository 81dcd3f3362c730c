//! Where a run stands with the scheduler, for explanations; and the cells that plans left out.
//! It explains nothing.

use domain::ids::{RunId, StudyId};

use super::{count, failed, from_json, small_count};
use crate::scheduler::policy::Needs;
use crate::store::read::{DroppedCell, PreparationStatus, ReadError, RunStatus, TrunkStatus};
use crate::store::sql::database::{Pool, query_as, query_scalar};
use crate::store::sql::queue;
use crate::store::sql::trunks::waits_for_trunk;

#[derive(sqlx::FromRow)]
struct StatusRow {
    state: String,
    is_held: i64,
    priority: i64,
    cost_flops: f64,
    study_id: String,
    excluded_json: String,
    memory_bytes: i64,
    backoff_until_ms: Option<i64>,
    n_attempts: i64,
    recipe: String,
    numerics_json: Option<String>,
    preparation_id: String,
    preparation_state: String,
    ended_as: Option<String>,
    message: Option<String>,
}

pub(super) async fn run(pool: &Pool, run: &RunId) -> Result<Option<RunStatus>, ReadError> {
    let row: Option<StatusRow> = query_as(
        "SELECT w.state, w.is_held, w.priority, w.cost_flops, w.study_id, w.backoff_until_ms,
    w.n_attempts, w.excluded_json, r.memory_bytes, r.recipe, r.numerics_json, r.preparation_id,
    p.state AS preparation_state, a.ended_as, a.message
FROM runs r
JOIN work w ON w.id = r.id
JOIN work p ON p.id = r.preparation_id
LEFT JOIN attempts a ON a.work_id = r.id AND a.attempt = w.n_attempts
WHERE r.id = ?1",
    )
    .bind(run.as_str())
    .fetch_optional(pool)
    .await
    .map_err(failed("a run's state"))?;
    let Some(row) = row else { return Ok(None) };
    let numerics = row
        .numerics_json
        .as_deref()
        .map(|json| from_json(json, "numerics", run.as_str()))
        .transpose()?;
    let not_read =
        |error| ReadError::Query { what: "what a run's study says", source: Box::new(error) };
    let study = queue::study_of(&row.study_id).map_err(not_read)?;
    let asked: Vec<&str> = study.iter().map(StudyId::as_str).collect();
    let mut terms = queue::terms_of(pool, &asked).await.map_err(not_read)?;
    Ok(Some(RunStatus {
        is_held: row.is_held != 0,
        priority: i32::try_from(row.priority).unwrap_or_default(),
        cost_flops: row.cost_flops,
        backoff_until_ms: row.backoff_until_ms,
        n_attempts: small_count(row.n_attempts),
        n_ahead: n_ahead(pool, row.priority, row.cost_flops, &row.study_id).await?,
        terms: study.as_ref().and_then(|study| terms.remove(study)).unwrap_or_default(),
        study,
        needs: Needs {
            recipe: Some(row.recipe),
            numerics,
            memory_bytes: count(row.memory_bytes),
            excluded: from_json(&row.excluded_json, "excluded", run.as_str())?,
        },
        paused_studies: paused_studies(pool, run).await?,
        preparation: preparation(pool, row.preparation_id, row.preparation_state).await?,
        trunk: trunk(pool, run).await?,
        ended_as: row.ended_as,
        message: row.message.unwrap_or_default(),
        state: row.state,
    }))
}

/// Study by study, as the indexes have them.
const N_AHEAD: &str = "WITH owners AS (
    SELECT id FROM studies
    UNION ALL
    SELECT ''
)
SELECT (
    SELECT COUNT(*)
    FROM work
    WHERE kind = 'preparation' AND state = 'queued' AND is_held = 0 AND priority >= ?1
) + (
    SELECT COUNT(*)
    FROM owners
    JOIN work ON work.study_id = owners.id
    WHERE work.kind = 'evaluation' AND work.state = 'queued' AND work.is_held = 0
        AND work.priority >= ?1
) + (
    SELECT COUNT(*)
    FROM owners
    JOIN work ON work.study_id = owners.id
    WHERE work.kind = 'run' AND work.state = 'queued' AND work.is_held = 0
        AND work.priority >= ?1
        AND (work.priority > ?1 OR (work.study_id = ?3 AND work.cost_flops > ?2))
)";

/// What goes first whoever's turn it is: a higher priority, then what is no run, then the study's
/// longer runs.
async fn n_ahead(
    pool: &Pool,
    priority: i64,
    cost_flops: f64,
    study_id: &str,
) -> Result<u64, ReadError> {
    let n: i64 = query_scalar(N_AHEAD)
        .bind(priority)
        .bind(cost_flops)
        .bind(study_id)
        .fetch_one(pool)
        .await
        .map_err(failed("the place in the queue"))?;
    Ok(count(n))
}

async fn paused_studies(pool: &Pool, run: &RunId) -> Result<Vec<(String, String)>, ReadError> {
    query_as(
        "SELECT DISTINCT s.name, s.pause_reason
FROM cells c
JOIN studies s ON s.id = c.study_id
WHERE c.run_id = ?1 AND s.is_paused = 1 AND s.is_cancelled = 0
ORDER BY s.name",
    )
    .bind(run.as_str())
    .fetch_all(pool)
    .await
    .map_err(failed("the paused studies of a run"))
}

async fn preparation(
    pool: &Pool,
    id: String,
    state: String,
) -> Result<PreparationStatus, ReadError> {
    let message: Option<String> = query_scalar(
        "SELECT message
FROM attempts
WHERE work_id = ?1
ORDER BY attempt DESC
LIMIT 1",
    )
    .bind(&id)
    .fetch_optional(pool)
    .await
    .map_err(failed("a preparation's last attempt"))?;
    Ok(PreparationStatus { id, state, message: message.unwrap_or_default() })
}

#[derive(sqlx::FromRow)]
struct TrunkRow {
    run_id: String,
    state: String,
    latest_step: i64,
    step: i64,
}

async fn trunk(pool: &Pool, run: &RunId) -> Result<Option<TrunkStatus>, ReadError> {
    let row: Option<TrunkRow> = query_as(concat!(
        "SELECT runs.id AS run_id, source.state, runs.latest_step, trunks.from_step AS step
FROM work
JOIN trunks ON trunks.run_id = work.id
JOIN runs ON runs.id = trunks.from_run_id
JOIN work AS source ON source.id = runs.id
WHERE work.id = ?1 AND ",
        waits_for_trunk!()
    ))
    .bind(run.as_str())
    .fetch_optional(pool)
    .await
    .map_err(failed("the run that a run waits for"))?;
    Ok(row.map(|row| TrunkStatus {
        run_id: row.run_id,
        state: row.state,
        latest_step: count(row.latest_step),
        step: count(row.step),
    }))
}

pub(super) async fn dropped_cells(pool: &Pool, name: &str) -> Result<Vec<DroppedCell>, ReadError> {
    let rows: Vec<(String, String)> = query_as(
        "SELECT s.name, d.reason
FROM dropped_cells d
JOIN studies s ON s.id = d.study_id
WHERE d.name = ?1
ORDER BY s.created_at_ms, s.id",
    )
    .bind(name)
    .fetch_all(pool)
    .await
    .map_err(failed("the dropped cells of a name"))?;
    Ok(rows.into_iter().map(|(study, reason)| DroppedCell { study, reason }).collect())
}
