//! Runs of a plan that are in the store already: what a further study changes of them.
//!
//! For which study they are granted is `wanted`'s.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{LeaseToken, RunId, WorkId};
use planner::PlannedCell;

use super::change::evaluations_of;
use super::convert::{from_json, parse_id, signed, small, to_json, unsigned};
use super::database::{query, query_scalar, query_with_list};
use super::error::from_driver;
use super::many::{self, Asked};
use super::retries;
use super::work::WorkRow;
use super::writer::Tx;
use crate::store::{Applied, Changed, StoreError, StudyToApply};

/// What a study that has a run too may change of it.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct KnownRun {
    id: String,
    pub(super) state: String,
    pub(super) n_attempts: i64,
    max_failures: i64,
    retries_json: Option<String>,
    data_point_steps_json: String,
    rolling_checkpoint_seconds: i64,
    latest_step: i64,
    steps: i64,
    lease_token: Option<i64>,
    lease_worker_id: Option<String>,
}

/// Those runs that are there.
pub(super) async fn known_runs(
    tx: &mut Tx,
    cells: &[&PlannedCell],
) -> Result<BTreeMap<RunId, KnownRun>, StoreError> {
    let head = "SELECT runs.id, work.state, work.n_attempts, work.max_failures, work.retries_json,
    runs.data_point_steps_json, runs.rolling_checkpoint_seconds, runs.latest_step, runs.steps,
    work.lease_token, work.lease_worker_id
FROM runs
JOIN work ON work.id = runs.id
WHERE runs.id IN";
    let mut query = query_with_list::<KnownRun>(head, cells.len());
    for cell in cells {
        query = query.bind(cell.run_id.as_str());
    }
    let rows = query.fetch_all(&mut tx.conn).await.map_err(from_driver)?;
    rows.into_iter().map(|row| Ok((parse_id(&row.id)?, row))).collect()
}

/// Runs that were cancelled, and their evaluations, are wanted again when another study has them, or
/// the same one again.
pub(super) async fn ask_again(
    tx: &mut Tx,
    known: &BTreeMap<RunId, KnownRun>,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let runs: Vec<RunId> = known.keys().cloned().collect();
    let works = runs.iter().cloned().map(WorkId::Run);
    let evaluations = evaluations_of(tx, &runs).await?;
    let all: Vec<WorkId> = works.chain(evaluations).collect();
    let cancelled = in_state(tx, &all, "cancelled").await?;
    many::ask(tx, &cancelled, Asked::Retry, changed).await
}

async fn in_state(tx: &mut Tx, works: &[WorkId], state: &str) -> Result<Vec<WorkId>, StoreError> {
    let mut found = Vec::new();
    for works in works.chunks(many::AT_ONCE) {
        let rows = WorkRow::load_many(tx, &works.iter().collect::<Vec<_>>()).await?;
        let is_in = |work: &&WorkId| rows.get(work.as_str()).is_some_and(|row| row.state == state);
        found.extend(works.iter().filter(is_in).cloned());
    }
    Ok(found)
}

/// A run that another study has too leaves the data points of both, and of each class the larger
/// number of attempts counts, with the pauses of the study at hand. Its micro-batch stays: the first
/// attempt may have fixed it. Answers the first data point of all.
pub(super) async fn merge_runtime(
    tx: &mut Tx,
    study: &StudyToApply,
    (cell, row): (&PlannedCell, &KnownRun),
    applied: &mut Applied,
) -> Result<Option<u64>, StoreError> {
    let runtime = &study.spec.runtime;
    let what = "data_point_steps_json";
    let mut steps: BTreeSet<u64> = from_json(&row.data_point_steps_json, what)?;
    let wanted = &cell.seedless.data_point_steps;
    let added: BTreeSet<u64> =
        wanted.iter().filter(|step| !steps.contains(step)).copied().collect();
    if row.n_attempts > 0 && !added.is_empty() {
        measure_more(tx, (&cell.run_id, row), &added, applied).await?;
    }
    steps.extend(wanted);
    let first = steps.first().copied();
    let steps = to_json(&steps, what)?;
    let rolling = i64::from(runtime.rolling_checkpoint_seconds);
    if steps != row.data_point_steps_json || rolling != row.rolling_checkpoint_seconds {
        query(
            "UPDATE runs
SET data_point_steps_json = ?, rolling_checkpoint_seconds = ?
WHERE id = ?",
        )
        .bind(steps)
        .bind(rolling)
        .bind(cell.run_id.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    }
    merge_retries(tx, study, row).await?;
    Ok(first)
}

/// Data points that are wanted of a run after it has begun: a checkpoint that is there is measured;
/// an attempt that has yet to come to one is asked back, so that the next one knows of it; and what
/// was passed without a checkpoint is counted, for it will never be measured.
async fn measure_more(
    tx: &mut Tx,
    (run, row): (&RunId, &KnownRun),
    added: &BTreeSet<u64>,
    applied: &mut Applied,
) -> Result<(), StoreError> {
    let kept: Vec<i64> = query_scalar(
        "SELECT DISTINCT step
FROM checkpoints
WHERE run_id = ? AND refused_reason IS NULL AND superseded_at_ms IS NULL AND NOT EXISTS (
    SELECT 1
    FROM attempts AS later
    WHERE later.work_id = checkpoints.run_id AND later.attempt > checkpoints.attempt
        AND later.started_at_ms IS NOT NULL AND later.resumed_from_step < checkpoints.step
)",
    )
    .bind(run.as_str())
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    let kept: BTreeSet<u64> = kept.into_iter().map(unsigned).collect();
    for step in added.intersection(&kept) {
        query(
            "UPDATE checkpoints
SET is_data_point = 1
WHERE run_id = ? AND step = ? AND refused_reason IS NULL AND superseded_at_ms IS NULL",
        )
        .bind(run.as_str())
        .bind(signed(*step))
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    }
    let latest = unsigned(row.latest_step);
    let passed = match row.state.as_str() {
        "succeeded" => unsigned(row.steps),
        "leased" => latest,
        _ => kept.last().copied().unwrap_or_default(),
    };
    let is_missed = |step: &&u64| **step <= passed && !kept.contains(step);
    applied.n_missed_data_points += added.iter().filter(is_missed).count() as u64;
    if let (Some(token), Some(worker)) = (row.lease_token, &row.lease_worker_id)
        && added.iter().any(|step| *step > latest)
    {
        let right = (LeaseToken(unsigned(token)), parse_id(worker)?);
        applied.changed.preempted.push(right);
    }
    Ok(())
}

async fn merge_retries(
    tx: &mut Tx,
    study: &StudyToApply,
    row: &KnownRun,
) -> Result<(), StoreError> {
    let runtime = &study.spec.runtime;
    let before = retries::of_row(row.max_failures, row.retries_json.as_deref())?;
    let rules = runtime.retry_rules().or_more_attempts(before);
    let max_failures = small(row.max_failures).max(runtime.max_failures);
    if rules == before && i64::from(max_failures) == row.max_failures {
        return Ok(());
    }
    query("UPDATE work SET max_failures = ?, retries_json = ? WHERE id = ?")
        .bind(max_failures)
        .bind(retries::stored(max_failures, &rules)?)
        .bind(&row.id)
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    Ok(())
}
