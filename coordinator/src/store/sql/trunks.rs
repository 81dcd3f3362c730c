//! Runs that go on from a checkpoint of another run of their trunk: who waits for whom, and how long.
//!
//! Which run goes on from which is the planner's; whether a checkpoint may be used is the trainer's.

use std::collections::BTreeMap;

use domain::ids::{RunId, WorkId};
use domain::run::{RunEvent, RunState, Transition, Tries};
use planner::PlannedCell;
use serde_json::json;

use super::convert::{parse_id, signed, unsigned};
use super::database::{query_scalar, query_with_list, query_with_rows};
use super::error::from_driver;
use super::many::AT_ONCE;
use super::work::kind_of;
use super::writer::Tx;
use crate::store::{Changed, StoreError};

/// Whether a row of `work` waits for a checkpoint of another run: one that is still to come, from a
/// run that is not over, while it has none of its own. After that it begins with what there is.
///
/// Checkpoints come in their order, so after a later one it will not come. A run that is held keeps
/// nobody waiting but those that are held too; and one that is granted for another study, by whose
/// terms it may never be, nobody until it is.
///
/// As text, so that it stands in statements of one piece.
macro_rules! waits_for_trunk {
    () => {
        "EXISTS (
    SELECT 1
    FROM trunks
    JOIN work AS source ON source.id = trunks.from_run_id
    WHERE trunks.run_id = work.id
        AND source.state IN ('waiting', 'queued', 'leased', 'backoff')
        AND (source.is_held = 0 OR work.is_held = 1)
        AND (source.state = 'leased' OR source.study_id = work.study_id)
        AND NOT EXISTS (
            SELECT 1
            FROM checkpoints AS kept
            WHERE kept.run_id = trunks.from_run_id AND kept.step >= trunks.from_step
                AND kept.refused_reason IS NULL
        )
        AND NOT EXISTS (
            SELECT 1
            FROM checkpoints AS own
            WHERE own.run_id = trunks.run_id AND own.refused_reason IS NULL
        )
)"
    };
}
pub(super) use waits_for_trunk;

/// What is known of a run that was there before its study was applied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reused {
    pub(super) has_begun: bool,
    /// The first step that any study wants a data point of.
    pub(super) first_data_point: Option<u64>,
}

impl Reused {
    /// Whether it may still be told to go on from a step of another run.
    fn may_begin_at(self, step: u64) -> bool {
        !self.has_begun && self.first_data_point.is_none_or(|data_point| step < data_point)
    }
}

/// Notes where the runs of a plan stand in their trunks. One that has begun stays as it is, and one
/// that another study wants data points of on the way trains all of it.
pub(super) async fn note(
    tx: &mut Tx,
    cells: &[&PlannedCell],
    reused: &BTreeMap<RunId, Reused>,
) -> Result<(), StoreError> {
    let (own, none): (Vec<&PlannedCell>, Vec<&PlannedCell>) =
        cells.iter().partition(|cell| cell.trunk.is_some());
    let cleared: Vec<&PlannedCell> =
        none.into_iter().filter(|cell| reused.contains_key(&cell.run_id)).collect();
    for cells in cleared.chunks(AT_ONCE) {
        let head = "UPDATE trunks
SET from_run_id = NULL, from_step = NULL
WHERE from_run_id IS NOT NULL
    AND (SELECT n_attempts FROM work WHERE work.id = trunks.run_id) = 0 AND run_id IN";
        let clear = query_with_rows(head, (1, cells.len()), "");
        let clear = cells.iter().fold(clear, |clear, cell| clear.bind(cell.run_id.as_str()));
        clear.execute(&mut tx.conn).await.map_err(from_driver)?;
        // What was taken over from the run that it no longer goes on from.
        let head = "UPDATE runs
SET numerics_json = NULL, has_changed_numerics = 0
WHERE numerics_json IS NOT NULL
    AND (SELECT n_attempts FROM work WHERE work.id = runs.id) = 0 AND id IN";
        let reset = query_with_rows(head, (1, cells.len()), "");
        let reset = cells.iter().fold(reset, |reset, cell| reset.bind(cell.run_id.as_str()));
        reset.execute(&mut tx.conn).await.map_err(from_driver)?;
    }
    for cells in own.chunks(AT_ONCE) {
        let head = "INSERT INTO trunks (run_id, steps, from_run_id, from_step)
VALUES";
        let tail = "ON CONFLICT (run_id) DO UPDATE
SET from_run_id = excluded.from_run_id, from_step = excluded.from_step
WHERE (SELECT n_attempts FROM work WHERE work.id = trunks.run_id) = 0";
        let mut insert = query_with_rows(head, (cells.len(), 4), tail);
        for cell in cells {
            let Some(trunk) = &cell.trunk else { continue };
            let known = reused.get(&cell.run_id);
            let may_begin = |step: u64| known.is_none_or(|known| known.may_begin_at(step));
            let from = trunk.from.as_ref().filter(|(_, step)| may_begin(*step));
            let (run, step) = from.map(|(run, step)| (run.as_str(), *step)).unzip();
            insert = insert
                .bind(cell.run_id.as_str())
                .bind(signed(trunk.steps))
                .bind(run)
                .bind(step.map(signed));
        }
        insert.execute(&mut tx.conn).await.map_err(from_driver)?;
    }
    Ok(())
}

/// Whether a run waits for a checkpoint of another.
pub(super) async fn waits(tx: &mut Tx, work: &WorkId) -> Result<bool, StoreError> {
    let WorkId::Run(run) = work else { return Ok(false) };
    let found: Option<String> =
        query_scalar(concat!("SELECT id FROM work WHERE id = ? AND ", waits_for_trunk!()))
            .bind(run.as_str())
            .fetch_optional(&mut tx.conn)
            .await
            .map_err(from_driver)?;
    Ok(found.is_some())
}

/// Settles the runs that go on from one of these, which ended or left a checkpoint.
pub(super) async fn settle_branches(
    tx: &mut Tx,
    sources: &[&RunId],
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let mut branches: Vec<RunId> = Vec::new();
    for sources in sources.chunks(AT_ONCE) {
        let head = "SELECT run_id FROM trunks WHERE from_run_id IN";
        let query = query_with_list::<(String,)>(head, sources.len());
        let query = sources.iter().fold(query, |query, run| query.bind(run.as_str()));
        let found = query.fetch_all(&mut tx.conn).await.map_err(from_driver)?;
        for (id,) in found {
            branches.push(parse_id(&id)?);
        }
    }
    branches.sort();
    settle(tx, &branches, changed).await
}

/// Holds back those of these runs that are queued and wait for a trunk, and queues those that no
/// longer do. Runs that stand in no trunk cost one look.
pub(super) async fn settle(
    tx: &mut Tx,
    runs: &[RunId],
    changed: &mut Changed,
) -> Result<(), StoreError> {
    for runs in runs.chunks(AT_ONCE) {
        let runs = in_trunks(tx, runs).await?;
        if runs.is_empty() {
            continue;
        }
        let runs = runs.as_slice();
        let head = "UPDATE work
SET state = 'waiting', updated_at_ms = ?
WHERE id IN";
        let tail = concat!("AND state = 'queued' AND ", waits_for_trunk!(), " RETURNING id");
        for run in moved(tx, runs, head, tail).await? {
            note_change(tx, run, RunState::Waiting, changed);
        }
        let head = "UPDATE work
SET state = 'queued', updated_at_ms = ?
WHERE id IN";
        let tail = concat!(
            "AND state = 'waiting'
    AND (SELECT data.state FROM work AS data WHERE data.id = work.depends_on) = 'succeeded'
    AND NOT ",
            waits_for_trunk!(),
            " RETURNING id"
        );
        let released = moved(tx, runs, head, tail).await?;
        adopt(tx, runs).await?;
        let event = RunEvent::DependencySucceeded;
        let transition = RunState::Waiting.on(event, Tries::none(unsigned(tx.now_ms)));
        let Ok(Transition::To { state, .. }) = transition else {
            return Err(StoreError::Bug("a run that waits cannot be queued".to_owned()));
        };
        for run in released {
            note_change(tx, run, state.clone(), changed);
        }
    }
    Ok(())
}

async fn in_trunks(tx: &mut Tx, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
    let head = "SELECT run_id FROM trunks WHERE run_id IN";
    let query = query_with_list::<(String,)>(head, runs.len());
    let query = runs.iter().fold(query, |query, run| query.bind(run.as_str()));
    let mut found = query.fetch_all(&mut tx.conn).await.map_err(from_driver)?;
    found.sort();
    found.into_iter().map(|(id,)| parse_id(&id)).collect()
}

async fn moved(
    tx: &mut Tx,
    runs: &[RunId],
    head: &'static str,
    tail: &'static str,
) -> Result<Vec<RunId>, StoreError> {
    let update = query_with_rows(head, (1, runs.len()), tail).with_rows::<(String,)>();
    let update = update.bind(tx.now_ms);
    let update = runs.iter().fold(update, |update, run| update.bind(run.as_str()));
    let mut rows = update.fetch_all(&mut tx.conn).await.map_err(from_driver)?;
    rows.sort();
    rows.into_iter().map(|(id,)| parse_id(&id)).collect()
}

fn note_change(tx: &mut Tx, run: RunId, state: RunState, changed: &mut Changed) {
    let work = WorkId::Run(run);
    tx.record(work.as_str(), &kind_of(&work, &state), &json!({ "why": "trunk" }));
    changed.work.push((work, state));
}

/// What goes on from another run's checkpoint rounds as that run does, or the two would not be one
/// up to there; and costs what is left. This is settled for those of the runs that are queued, and
/// again until they begin; one that has begun keeps what it has.
async fn adopt(tx: &mut Tx, runs: &[RunId]) -> Result<(), StoreError> {
    let head = "UPDATE runs
SET numerics_json = source.numerics_json,
    micro_batch_sequences = source.micro_batch_sequences, memory_bytes = source.memory_bytes,
    has_changed_numerics = source.has_changed_numerics
FROM trunks
JOIN runs AS source ON source.id = trunks.from_run_id
WHERE trunks.run_id = runs.id AND source.numerics_json IS NOT NULL
    AND EXISTS (
        SELECT 1
        FROM work
        WHERE work.id = runs.id AND work.state = 'queued' AND work.n_attempts = 0
    )
    AND EXISTS (
        SELECT 1
        FROM checkpoints AS kept
        WHERE kept.run_id = source.id AND kept.step <= trunks.from_step
            AND kept.refused_reason IS NULL
    )
    AND runs.id IN";
    let update = query_with_rows(head, (1, runs.len()), "");
    let update = runs.iter().fold(update, |update, run| update.bind(run.as_str()));
    update.execute(&mut tx.conn).await.map_err(from_driver)?;
    let head = "UPDATE work
SET cost_flops = (
    SELECT runs.flops_exact * (runs.steps - COALESCE(MAX(kept.step), 0)) / runs.steps
    FROM runs
    LEFT JOIN trunks ON trunks.run_id = runs.id
    LEFT JOIN checkpoints AS kept ON kept.run_id = trunks.from_run_id
        AND kept.step <= trunks.from_step AND kept.refused_reason IS NULL
    WHERE runs.id = work.id
    GROUP BY runs.id
)
WHERE n_attempts = 0 AND state = 'queued' AND id IN";
    let update = query_with_rows(head, (1, runs.len()), "");
    let update = runs.iter().fold(update, |update, run| update.bind(run.as_str()));
    update.execute(&mut tx.conn).await.map_err(from_driver)?;
    Ok(())
}
