//! What the live studies want of a run: its priority, whether it is held, and for which of them it is
//! granted.
//!
//! A run is as urgent as the most urgent live study that has it and is not paused, and held while all
//! of them are; one that no live study has is not held. It is granted for that most urgent study, of
//! several for the one with the largest weight: it takes that one's turn and follows its rules. Its
//! evaluations follow it. Data that is not prepared is as urgent as the most urgent run that needs it,
//! and held while all of those are.

use std::collections::BTreeMap;

use domain::ids::{RunId, StudyId};
use domain::planted::{Mistake, is_planted};

use super::convert::parse_id;
use super::database::{Query, query_with_rows};
use super::error::from_driver;
use super::many::AT_ONCE;
use super::trunks;
use super::writer::Tx;
use crate::store::{Changed, StoreError};

/// Of which runs: those of a study, or those in a list. A statement has a head up to the list of
/// identifiers and a tail after it.
const OF_STUDY: &str = "(SELECT DISTINCT run_id FROM cells WHERE study_id IN";
const OF_LIST: &str = "(SELECT id AS run_id FROM runs WHERE id IN";

/// What the studies want of some runs. These come first, so that a database without statistics goes
/// from them to all their cells, and not over all cells.
const WANTED: Statement = Statement {
    head: "UPDATE work
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
    tail: ") AS own
    LEFT JOIN cells ON cells.run_id = own.run_id
    LEFT JOIN studies ON studies.id = cells.study_id AND studies.is_cancelled = 0
    GROUP BY own.run_id
) AS wanted
WHERE work.id = wanted.run_id AND (
    work.priority <> COALESCE(wanted.priority, work.priority)
    OR work.is_held <> wanted.is_held
    OR work.study_id <> wanted.study_id
)
RETURNING work.id",
};

const EVALUATIONS: Statement = Statement {
    head: "UPDATE work
SET priority = run.priority, is_held = run.is_held, study_id = run.study_id
FROM ",
    tail: ") AS own
JOIN evaluations ON evaluations.run_id = own.run_id
JOIN work AS run ON run.id = own.run_id
WHERE work.id = evaluations.id
    AND (
        work.priority <> run.priority
        OR work.is_held <> run.is_held
        OR work.study_id <> run.study_id
    )",
};

/// What is prepared for runs that are not over. What nobody waits for is not held.
const PREPARATIONS: Statement = Statement {
    head: "UPDATE work
SET priority = COALESCE(needed.priority, work.priority), is_held = needed.is_held
FROM (
    SELECT prepared.id, MAX(dependent.priority) AS priority,
        COALESCE(MIN(dependent.is_held), 0) AS is_held
    FROM (
        SELECT DISTINCT runs.preparation_id
        FROM ",
    tail: ") AS own
        JOIN runs ON runs.id = own.run_id
    ) AS needing
    JOIN work AS prepared ON prepared.id = needing.preparation_id
        AND prepared.state <> 'succeeded'
    LEFT JOIN work AS dependent ON dependent.depends_on = prepared.id
        AND dependent.state IN ('waiting', 'queued', 'leased', 'backoff')
    GROUP BY prepared.id
) AS needed
WHERE work.id = needed.id",
};

struct Statement {
    head: &'static str,
    tail: &'static str,
}

impl Statement {
    fn over(&self, runs: &'static str, ids: &[&str]) -> Query {
        let head = format!("{}{runs}", self.head);
        let query = query_with_rows(&head, (1, ids.len()), self.tail);
        ids.iter().fold(query, |query, id| query.bind(*id))
    }
}

/// Settles every run of a study; those that changed.
pub(super) async fn settle_study(
    tx: &mut Tx,
    study: &StudyId,
    moved: &mut Changed,
) -> Result<Vec<RunId>, StoreError> {
    if is_planted(Mistake::PauseHoldsNothing) {
        return Ok(Vec::new());
    }
    let ids = [study.as_str()];
    let changed = settle(tx, OF_STUDY, &ids, moved).await?;
    run(tx, &PREPARATIONS, OF_STUDY, &ids).await?;
    Ok(changed)
}

/// Settles runs with their data, such as those that their study has no longer.
pub(super) async fn settle_runs(
    tx: &mut Tx,
    runs: &[RunId],
    moved: &mut Changed,
) -> Result<(), StoreError> {
    // Data is looked at once, for one of the runs that need it: it goes over all that wait for it.
    let mut of_each: BTreeMap<String, String> = BTreeMap::new();
    for runs in runs.chunks(AT_ONCE) {
        let ids: Vec<&str> = runs.iter().map(RunId::as_str).collect();
        settle(tx, OF_LIST, &ids, moved).await?;
        let head = "SELECT preparation_id, MIN(id) FROM runs WHERE id IN";
        let one = query_with_rows(head, (1, ids.len()), "GROUP BY preparation_id");
        let one = ids.iter().fold(one, |query, id| query.bind(*id)).with_rows();
        let found: Vec<(String, String)> =
            one.fetch_all(&mut tx.conn).await.map_err(from_driver)?;
        of_each.extend(found);
    }
    for run_id in of_each.values() {
        run(tx, &PREPARATIONS, OF_LIST, &[run_id]).await?;
    }
    Ok(())
}

/// Settles the data that a run needs, by all that wait for it.
pub(super) async fn settle_preparation_of(tx: &mut Tx, run_id: &RunId) -> Result<(), StoreError> {
    run(tx, &PREPARATIONS, OF_LIST, &[run_id.as_str()]).await
}

/// Runs and their evaluations; the runs that changed. Whether one is held decides too who waits for
/// it: what `moved` by that is added.
async fn settle(
    tx: &mut Tx,
    runs: &'static str,
    ids: &[&str],
    moved: &mut Changed,
) -> Result<Vec<RunId>, StoreError> {
    let changed: Vec<(String,)> =
        WANTED.over(runs, ids).with_rows().fetch_all(&mut tx.conn).await.map_err(from_driver)?;
    run(tx, &EVALUATIONS, runs, ids).await?;
    let changed: Vec<RunId> = changed.iter().map(|(id,)| parse_id(id)).collect::<Result<_, _>>()?;
    trunks::settle(tx, &changed, moved).await?;
    trunks::settle_branches(tx, &changed.iter().collect::<Vec<_>>(), moved).await?;
    Ok(changed)
}

async fn run(
    tx: &mut Tx,
    statement: &Statement,
    runs: &'static str,
    ids: &[&str],
) -> Result<(), StoreError> {
    statement.over(runs, ids).execute(&mut tx.conn).await.map_err(from_driver)?;
    Ok(())
}
