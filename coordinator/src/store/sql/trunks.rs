//! Runs that go on from a checkpoint of another run of their trunk: who waits for whom, and how long.
//!
//! Which run goes on from which is the planner's; whether a checkpoint may be used is the trainer's.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{RunId, WorkId};
use domain::run::{RunEvent, RunState, Transition, Tries};
use planner::PlannedCell;
use serde_json::json;

use super::convert::{parse_id, signed, unsigned};
use super::database::{query, query_as, query_scalar, query_with_list, query_with_rows};
use super::error::from_driver;
use super::many::AT_ONCE;
use super::work::kind_of;
use super::writer::Tx;
use crate::store::{Changed, StoreError};

/// Whether a row of `work` waits for a checkpoint of another run: one that is still to come, from a
/// run that is not over, while it has none of its own. After that it begins with what there is.
///
/// Checkpoints come in their order, so after a later one it will not come. A run that is held keeps
/// nobody waiting but those that are held too; and one that may never be granted nobody until it is:
/// by the terms of another study, or because its own study cannot afford it, or because a log rule
/// keeps it from a machine that may be the only one.
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
        AND NOT (
            source.state = 'queued' AND source.n_attempts = 0
            AND EXISTS (
                SELECT 1
                FROM studies
                WHERE studies.id = source.study_id
                    -- As `StudyTerms` has it: sums round.
                    AND (studies.budget_flops - studies.spent_flops) * 1.000000001
                        < source.cost_flops
            )
        )
        -- Without what only says where an attempt failed, a pattern is left beside each worker.
        AND NOT (
            source.state IN ('queued', 'backoff')
            AND REPLACE(source.excluded_json, '\":{\"failed\":\"', '') LIKE '%\":\"%'
        )
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
    micro_batch_sequences: u32,
) -> Result<(), StoreError> {
    let stands = |cell: &&PlannedCell| cell.trunk.is_some() || reused.contains_key(&cell.run_id);
    let cells: Vec<&PlannedCell> = cells.iter().copied().filter(stands).collect();
    for cells in cells.chunks(AT_ONCE) {
        let known: Vec<&PlannedCell> =
            cells.iter().copied().filter(|cell| reused.contains_key(&cell.run_id)).collect();
        let before = sources_of(tx, &known).await?;
        let mut own = Vec::with_capacity(cells.len());
        for cell in cells.iter().copied() {
            let known = reused.get(&cell.run_id);
            let may_begin = |step: u64| known.is_none_or(|known| known.may_begin_at(step));
            let trunk = cell.trunk.as_ref();
            let from = trunk.and_then(|trunk| trunk.from.as_ref());
            let from = from.filter(|(_, step)| may_begin(*step));
            let is_before = before.get(cell.run_id.as_str());
            if is_before.is_some_and(|run| from.is_none_or(|(from, _)| from.as_str() != run)) {
                give_back(tx, cell, micro_batch_sequences).await?;
            }
            own.extend(trunk.map(|trunk| (cell, trunk.steps, from)));
        }
        write(tx, &own).await?;
    }
    Ok(())
}

/// Which run each of these was to go on from, where it has not begun.
async fn sources_of(
    tx: &mut Tx,
    cells: &[&PlannedCell],
) -> Result<BTreeMap<String, String>, StoreError> {
    if cells.is_empty() || !tx.has_trunks {
        return Ok(BTreeMap::new());
    }
    let head = "SELECT trunks.run_id, trunks.from_run_id
FROM trunks
JOIN work ON work.id = trunks.run_id AND work.n_attempts = 0
WHERE trunks.from_run_id IS NOT NULL AND trunks.run_id IN";
    let query = query_with_list::<(String, String)>(head, cells.len());
    let query = cells.iter().fold(query, |query, cell| query.bind(cell.run_id.as_str()));
    Ok(query.fetch_all(&mut tx.conn).await.map_err(from_driver)?.into_iter().collect())
}

/// A run that has not begun no longer goes on from the run that it was to: what it took over from
/// there is its plan's again.
async fn give_back(
    tx: &mut Tx,
    cell: &PlannedCell,
    micro_batch_sequences: u32,
) -> Result<(), StoreError> {
    let run = cell.run_id.as_str();
    query("UPDATE trunks SET from_run_id = NULL, from_step = NULL WHERE run_id = ?")
        .bind(run)
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    query(
        "UPDATE runs
SET numerics_json = NULL, has_changed_numerics = 0, micro_batch_sequences = ?, memory_bytes = ?
WHERE id = ? AND numerics_json IS NOT NULL",
    )
    .bind(micro_batch_sequences)
    .bind(signed(cell.seedless.memory_bytes))
    .bind(run)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(())
}

type Branch<'a> = (&'a PlannedCell, u64, Option<&'a (RunId, u64)>);

/// Writes how long each stands in its trunk, and what it goes on from.
async fn write(tx: &mut Tx, branches: &[Branch<'_>]) -> Result<(), StoreError> {
    if branches.is_empty() {
        return Ok(());
    }
    tx.has_trunks = true;
    let head = "INSERT INTO trunks (run_id, steps, from_run_id, from_step)
VALUES";
    let tail = "ON CONFLICT (run_id) DO UPDATE
SET from_run_id = excluded.from_run_id, from_step = excluded.from_step
WHERE (SELECT n_attempts FROM work WHERE work.id = trunks.run_id) = 0";
    let mut insert = query_with_rows(head, (branches.len(), 4), tail);
    for (cell, steps, from) in branches {
        let (run, step) = from.map(|(run, step)| (run.as_str(), signed(*step))).unzip();
        insert = insert.bind(cell.run_id.as_str()).bind(signed(*steps)).bind(run).bind(step);
    }
    insert.execute(&mut tx.conn).await.map_err(from_driver)?;
    Ok(())
}

/// Settles the runs that go on from one of a study's that nobody has begun: what the study can still
/// afford has changed.
pub(super) async fn settle_afforded(tx: &mut Tx, study: &str) -> Result<(), StoreError> {
    if !tx.has_trunks {
        return Ok(());
    }
    let branches: Vec<String> = query_scalar(
        "SELECT trunks.run_id
FROM trunks
JOIN work AS source ON source.id = trunks.from_run_id
JOIN work ON work.id = trunks.run_id AND work.state = 'waiting'
WHERE source.study_id = ? AND source.state = 'queued' AND source.n_attempts = 0
ORDER BY 1",
    )
    .bind(study)
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    let branches: Vec<RunId> = branches.iter().map(|id| parse_id(id)).collect::<Result<_, _>>()?;
    settle(tx, &branches, &mut Changed::default()).await
}

/// A run that has begun below where it was to go on costs more than was thought, and its study is
/// charged with the rest. One with checkpoints of its own has begun before.
pub(super) async fn charge_rest(
    tx: &mut Tx,
    run: &RunId,
    from_step: i64,
) -> Result<(), StoreError> {
    if !tx.has_trunks {
        return Ok(());
    }
    let found: Option<(String, f64, f64)> = query_as(
        "SELECT work.study_id, work.cost_flops,
    runs.flops_exact * (runs.steps - ?1) / runs.steps AS flops
FROM work
JOIN runs ON runs.id = work.id
JOIN trunks ON trunks.run_id = runs.id AND trunks.from_run_id IS NOT NULL
WHERE work.id = ?2 AND NOT EXISTS (
    SELECT 1
    FROM checkpoints AS own
    WHERE own.run_id = runs.id
)",
    )
    .bind(from_step)
    .bind(run.as_str())
    .fetch_optional(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    // Beyond what sums round.
    let is_more = |(_, before, flops): &(String, f64, f64)| *flops > before * (1.0 + 1e-9);
    let Some((study, before, flops)) = found.filter(is_more) else { return Ok(()) };
    query("UPDATE work SET cost_flops = ? WHERE id = ?")
        .bind(flops)
        .bind(run.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    query("UPDATE studies SET spent_flops = spent_flops + ? WHERE id = ?")
        .bind(flops - before)
        .bind(&study)
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    settle_afforded(tx, &study).await
}

/// Whether a run waits for a checkpoint of another.
pub(super) async fn waits(tx: &mut Tx, work: &WorkId) -> Result<bool, StoreError> {
    let WorkId::Run(run) = work else { return Ok(false) };
    if !tx.has_trunks {
        return Ok(false);
    }
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
    if !tx.has_trunks {
        return Ok(());
    }
    let branches = branches_of(tx, sources).await?;
    settle(tx, &branches, changed).await
}

/// The runs that go on from one of these.
async fn branches_of(tx: &mut Tx, sources: &[&RunId]) -> Result<Vec<RunId>, StoreError> {
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
    Ok(branches)
}

/// Holds back those of these runs that are queued and wait for a trunk, and queues those that no
/// longer do. Runs that stand in no trunk cost one look.
///
/// Whether a run keeps others waiting depends on whether it is queued itself, and on its cost: those
/// that go on from one that has changed are settled after it, and so on along the trunk, which has
/// an end.
pub(super) async fn settle(
    tx: &mut Tx,
    runs: &[RunId],
    changed: &mut Changed,
) -> Result<(), StoreError> {
    if !tx.has_trunks {
        return Ok(());
    }
    let mut next = runs.to_vec();
    while !next.is_empty() {
        let mut others: BTreeSet<RunId> = BTreeSet::new();
        for runs in next.chunks(AT_ONCE) {
            others.extend(settle_some(tx, runs, changed).await?);
        }
        next = branches_of(tx, &others.iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

/// The runs that have another state or another cost since.
async fn settle_some(
    tx: &mut Tx,
    runs: &[RunId],
    changed: &mut Changed,
) -> Result<Vec<RunId>, StoreError> {
    let runs = in_trunks(tx, runs).await?;
    if runs.is_empty() {
        return Ok(runs);
    }
    let runs = runs.as_slice();
    let head = "UPDATE work
SET state = 'waiting', updated_at_ms = ?
WHERE id IN";
    let tail = concat!("AND state = 'queued' AND ", waits_for_trunk!(), " RETURNING id");
    let held_back = moved(tx, runs, head, tail).await?;
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
    let mut others = adopt(tx, runs).await?;
    others.extend(held_back.iter().chain(&released).cloned());
    for run in held_back {
        note_change(tx, run, RunState::Waiting, changed);
    }
    let event = RunEvent::DependencySucceeded;
    let transition = RunState::Waiting.on(event, Tries::none(unsigned(tx.now_ms)));
    let Ok(Transition::To { state, .. }) = transition else {
        return Err(StoreError::Bug("a run that waits cannot be queued".to_owned()));
    };
    for run in released {
        note_change(tx, run, state.clone(), changed);
    }
    Ok(others)
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
/// again until they begin; one that has begun keeps what it has. Answers those that cost something
/// else since.
async fn adopt(tx: &mut Tx, runs: &[RunId]) -> Result<Vec<RunId>, StoreError> {
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
            AND kept.refused_reason IS NULL AND kept.superseded_at_ms IS NULL
    )
    AND runs.id IN";
    let update = query_with_rows(head, (1, runs.len()), "");
    let update = runs.iter().fold(update, |update, run| update.bind(run.as_str()));
    update.execute(&mut tx.conn).await.map_err(from_driver)?;
    let head = "UPDATE work
SET cost_flops = left_over.flops
FROM (
    SELECT runs.id,
        runs.flops_exact * (runs.steps - COALESCE(MAX(kept.step), 0)) / runs.steps AS flops
    FROM runs
    LEFT JOIN trunks ON trunks.run_id = runs.id
    LEFT JOIN checkpoints AS kept ON kept.run_id = trunks.from_run_id
        AND kept.step <= trunks.from_step AND kept.refused_reason IS NULL
        AND kept.superseded_at_ms IS NULL
    WHERE runs.id IN";
    let tail = "
    GROUP BY runs.id
) AS left_over
WHERE work.id = left_over.id AND work.n_attempts = 0 AND work.state = 'queued'
    AND work.cost_flops <> left_over.flops
RETURNING work.id";
    let update = query_with_rows(head, (1, runs.len()), tail).with_rows::<(String,)>();
    let update = runs.iter().fold(update, |update, run| update.bind(run.as_str()));
    let rows = update.fetch_all(&mut tx.conn).await.map_err(from_driver)?;
    rows.into_iter().map(|(id,)| parse_id(&id)).collect()
}
