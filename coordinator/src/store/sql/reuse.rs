//! Runs of a plan that are in the store already: what a further study changes of them.
//!
//! For which study they are granted is `wanted`'s.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{RunId, WorkId};
use planner::PlannedCell;

use super::change::evaluations_of;
use super::convert::{from_json, parse_id, small, to_json};
use super::database::{query, query_with_list};
use super::error::from_driver;
use super::many::{self, Asked};
use super::retries;
use super::work::WorkRow;
use super::writer::Tx;
use crate::store::{Changed, StoreError, StudyToApply};

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
}

/// Those runs that are there.
pub(super) async fn known_runs(
    tx: &mut Tx,
    cells: &[&PlannedCell],
) -> Result<BTreeMap<RunId, KnownRun>, StoreError> {
    let head = "SELECT runs.id, work.state, work.n_attempts, work.max_failures, work.retries_json,
    runs.data_point_steps_json, runs.rolling_checkpoint_seconds
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
    cell: &PlannedCell,
    row: &KnownRun,
) -> Result<Option<u64>, StoreError> {
    let runtime = &study.spec.runtime;
    let what = "data_point_steps_json";
    let mut steps: BTreeSet<u64> = from_json(&row.data_point_steps_json, what)?;
    steps.extend(&cell.seedless.data_point_steps);
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
