//! What the live studies want of a run: its priority, and whether it is held.
//!
//! A run is as urgent as the most urgent study that has it and is not paused, and held while all of
//! them are. Its evaluations follow it; its data is as urgent as the most urgent run that waits.

use domain::ids::{RunId, StudyId, WorkId};

use super::convert::parse_id;
use super::database::{query, query_scalar};
use super::error::from_driver;
use super::writer::Tx;
use crate::store::StoreError;

/// What the studies want of runs: a query with the runs' condition at its end.
macro_rules! wanted {
    ($runs:literal) => {
        concat!(
            "UPDATE work
SET priority = wanted.priority, is_held = wanted.is_held
FROM (
    SELECT cells.run_id,
        COALESCE(
            MAX(CASE WHEN studies.is_paused = 0 THEN studies.priority END),
            MAX(studies.priority)
        ) AS priority,
        MIN(studies.is_paused) AS is_held
    FROM cells
    JOIN studies ON studies.id = cells.study_id
    WHERE studies.is_cancelled = 0 AND cells.run_id ",
            $runs,
            "
    GROUP BY cells.run_id
) AS wanted
WHERE work.id = wanted.run_id
    AND (work.priority <> wanted.priority OR work.is_held <> wanted.is_held)
RETURNING work.id"
        )
    };
}

macro_rules! evaluations {
    ($runs:literal) => {
        concat!(
            "UPDATE work
SET priority = run.priority, is_held = run.is_held
FROM evaluations
JOIN work AS run ON run.id = evaluations.run_id
WHERE work.id = evaluations.id
    AND (work.priority <> run.priority OR work.is_held <> run.is_held)
    AND evaluations.run_id ",
            $runs
        )
    };
}

/// What is prepared for runs that are not over. One that nobody waits for is not held.
const PREPARATIONS: &str = "UPDATE work
SET priority = GREATEST(work.priority, needed.priority), is_held = needed.is_held
FROM (
    SELECT dependent.depends_on, MAX(dependent.priority) AS priority,
        MIN(dependent.is_held) AS is_held
    FROM work AS dependent
    WHERE dependent.state IN ('waiting', 'queued', 'leased', 'backoff')
        AND dependent.depends_on IN (
            SELECT prepared.id
            FROM cells
            JOIN runs ON runs.id = cells.run_id
            JOIN work AS prepared ON prepared.id = runs.preparation_id
            WHERE cells.study_id = ? AND prepared.state <> 'succeeded'
        )
    GROUP BY dependent.depends_on
) AS needed
WHERE work.id = needed.depends_on";

/// Settles every run of a study; those that changed.
pub(super) async fn settle_study(tx: &mut Tx, study: &StudyId) -> Result<Vec<RunId>, StoreError> {
    let changed: Vec<String> =
        query_scalar(wanted!("IN (SELECT run_id FROM cells WHERE study_id = ?)"))
            .bind(study.as_str())
            .fetch_all(&mut tx.conn)
            .await
            .map_err(from_driver)?;
    query(evaluations!("IN (SELECT run_id FROM cells WHERE study_id = ?)"))
        .bind(study.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    query(PREPARATIONS).bind(study.as_str()).execute(&mut tx.conn).await.map_err(from_driver)?;
    changed.iter().map(|id| parse_id(id)).collect()
}

/// Settles one run, such as one that its study has no longer.
pub(super) async fn settle_run(tx: &mut Tx, run: &RunId) -> Result<(), StoreError> {
    let work = WorkId::Run(run.clone());
    query(wanted!("= ?")).bind(work.as_str()).execute(&mut tx.conn).await.map_err(from_driver)?;
    query(evaluations!("= ?"))
        .bind(work.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    Ok(())
}
