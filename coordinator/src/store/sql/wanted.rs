//! What the live studies want of a run: its priority, whether it is held, and for which of them it is
//! granted.
//!
//! A run is as urgent as the most urgent live study that has it and is not paused, and held while all
//! of them are; one that no live study has is not held. It is granted for that most urgent study, of
//! several for the one with the largest weight: it takes that one's turn and follows its rules. Its
//! evaluations follow it. Data that is not prepared is as urgent as the most urgent run that needs it,
//! and held while all of those are.

use domain::ids::{RunId, StudyId};
use domain::planted::{Mistake, is_planted};

use super::convert::parse_id;
use super::database::{query, query_scalar};
use super::error::from_driver;
use super::writer::Tx;
use crate::store::StoreError;

/// The runs of one study.
macro_rules! of_study {
    () => {
        "(SELECT DISTINCT run_id FROM cells WHERE study_id = ?)"
    };
}

/// One run.
macro_rules! of_run {
    () => {
        "(SELECT id AS run_id FROM runs WHERE id = ?)"
    };
}

/// What the studies want of some runs. These come first, so that a database without statistics goes
/// from them to all their cells, and not over all cells.
macro_rules! wanted {
    ($runs:expr) => {
        concat!(
            "UPDATE work
SET priority = COALESCE(wanted.priority, work.priority), is_held = wanted.is_held,
    study_id = wanted.study_id
FROM (
    SELECT own.run_id,
        COALESCE(
            MAX(CASE WHEN studies.is_paused = 0 THEN studies.priority END),
            MAX(studies.priority)
        ) AS priority,
        COALESCE(MIN(studies.is_paused), 0) AS is_held,
        COALESCE((
            SELECT best.id
            FROM cells AS its
            JOIN studies AS best ON best.id = its.study_id
            WHERE its.run_id = own.run_id AND best.is_cancelled = 0
            ORDER BY best.is_paused, best.priority DESC, best.weight DESC, best.id
            LIMIT 1
        ), '') AS study_id
    FROM ",
            $runs,
            " AS own
    LEFT JOIN cells ON cells.run_id = own.run_id
    LEFT JOIN studies ON studies.id = cells.study_id AND studies.is_cancelled = 0
    GROUP BY own.run_id
) AS wanted
WHERE work.id = wanted.run_id AND (
    work.priority <> COALESCE(wanted.priority, work.priority)
    OR work.is_held <> wanted.is_held
    OR work.study_id <> wanted.study_id
)
RETURNING work.id"
        )
    };
}

macro_rules! evaluations {
    ($runs:expr) => {
        concat!(
            "UPDATE work
SET priority = run.priority, is_held = run.is_held, study_id = run.study_id
FROM ",
            $runs,
            " AS own
JOIN evaluations ON evaluations.run_id = own.run_id
JOIN work AS run ON run.id = own.run_id
WHERE work.id = evaluations.id
    AND (
        work.priority <> run.priority
        OR work.is_held <> run.is_held
        OR work.study_id <> run.study_id
    )"
        )
    };
}

/// What is prepared for runs that are not over. What nobody waits for is not held.
macro_rules! preparations {
    ($runs:expr) => {
        concat!(
            "UPDATE work
SET priority = COALESCE(needed.priority, work.priority), is_held = needed.is_held
FROM (
    SELECT prepared.id, MAX(dependent.priority) AS priority,
        COALESCE(MIN(dependent.is_held), 0) AS is_held
    FROM (
        SELECT DISTINCT runs.preparation_id
        FROM ",
            $runs,
            " AS own
        JOIN runs ON runs.id = own.run_id
    ) AS needing
    JOIN work AS prepared ON prepared.id = needing.preparation_id
        AND prepared.state <> 'succeeded'
    LEFT JOIN work AS dependent ON dependent.depends_on = prepared.id
        AND dependent.state IN ('waiting', 'queued', 'leased', 'backoff')
    GROUP BY prepared.id
) AS needed
WHERE work.id = needed.id"
        )
    };
}

/// Settles every run of a study; those that changed.
pub(super) async fn settle_study(tx: &mut Tx, study: &StudyId) -> Result<Vec<RunId>, StoreError> {
    if is_planted(Mistake::PauseHoldsNothing) {
        return Ok(Vec::new());
    }
    let changed: Vec<String> = query_scalar(wanted!(of_study!()))
        .bind(study.as_str())
        .fetch_all(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    query(evaluations!(of_study!()))
        .bind(study.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    query(preparations!(of_study!()))
        .bind(study.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    changed.iter().map(|id| parse_id(id)).collect()
}

/// Settles one run with its data, such as one that its study has no longer.
pub(super) async fn settle_run(tx: &mut Tx, run: &RunId) -> Result<(), StoreError> {
    for statement in [wanted!(of_run!()), evaluations!(of_run!()), preparations!(of_run!())] {
        query(statement).bind(run.as_str()).execute(&mut tx.conn).await.map_err(from_driver)?;
    }
    Ok(())
}
