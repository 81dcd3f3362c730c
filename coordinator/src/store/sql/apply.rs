//! `apply_study`: a planned study becomes rows, or the difference to what is there.
//!
//! What is in a plan is the planner's; what cancelling and retrying mean is `change`'s.

use std::collections::BTreeMap;

use domain::ids::{ContentHash, RunId, StudyId, WorkId};
use domain::recipe::CellConfig;
use domain::run::RunEvent;
use domain::spec::{EvaluateSpec, FlopKind, RecipeSpec};
use domain::study::{Decision, StudyEvent};
use planner::PlannedCell;
use serde_json::json;

use super::change::cancel_unwanted;
use super::convert::{parse_id, signed, to_json};
use super::database::{Query, query, query_as, query_scalar, query_with_rows};
use super::decision::{self, decide};
use super::error::from_driver;
use super::evaluations;
use super::statistics::Filled;
use super::trunks::{self, Reused};
use super::wanted;
use super::work::{WorkRow, advance};
use super::writer::{Command, Tx};
use super::{retries, reuse};
use crate::store::{Applied, ApplyOutcome, Changed, StoreError, StudyToApply};

/// Rows in one statement: some eleven values each stay far below the databases' limits.
const ROWS_PER_STATEMENT: usize = 128;

pub(super) struct ApplyStudy(pub(super) Box<StudyToApply>);

impl Command for ApplyStudy {
    type Answer = ApplyOutcome;

    const WRITES_MANY: bool = true;

    async fn run(self, tx: &mut Tx) -> Result<ApplyOutcome, StoreError> {
        let study = *self.0;
        let missing = missing_sources(tx, &study).await?;
        if !missing.is_empty() {
            return Ok(ApplyOutcome::MissingSources(missing));
        }
        let id = StudyId::from_hash(&ContentHash::of(study.spec.name.as_bytes()));
        let Upserted { before, is_new } = upsert_study(tx, &id, &study).await?;
        evaluations::ask(tx, &id, &evaluate_specs(&study)).await?;
        let mut applied = Applied {
            study_id: id,
            is_update: before.is_some(),
            n_new_runs: 0,
            n_reused_runs: 0,
            n_reused_succeeded: 0,
            n_missed_data_points: 0,
            n_removed_cells: 0,
            changed: Changed::default(),
        };
        let is_held = before.is_some_and(Decision::is_paused);
        let preparation = upsert_preparation(tx, &study, is_held, &mut applied.changed).await?;
        let mut old_runs = match before {
            Some(_) => take_out_cells(tx, &applied.study_id).await?,
            None => BTreeMap::new(),
        };
        let runs = upsert_runs(tx, &study, &preparation, is_held, &mut applied).await?;
        insert_cells(tx, &applied.study_id, &study.plan).await?;
        insert_dropped(tx, &applied.study_id, &study.plan).await?;
        old_runs.retain(|run, _| !has_run(&runs.all, run));
        applied.n_removed_cells = old_runs.values().sum();
        let removed: Vec<RunId> = old_runs.into_keys().collect();
        cancel_unwanted(tx, &removed, &mut applied.changed).await?;
        // What is new is this study's alone, and was entered as it wants it.
        let mut shared = removed;
        shared.extend(runs.reused.iter().map(|cell| cell.run_id.clone()));
        wanted::settle_runs(tx, &shared, &mut applied.changed).await?;
        if runs.reused.is_empty() {
            if preparation.is_shared
                && let Some(cell) = runs.all.first()
            {
                wanted::settle_preparation_of(tx, &cell.run_id).await?;
            }
        } else {
            for run in evaluations::with_data_points(tx, &applied.study_id).await? {
                // A new run has no checkpoint to measure yet.
                if has_run(&runs.reused, &run) {
                    evaluations::ensure_for_run(tx, &run).await?;
                }
            }
        }
        let has_new_cells = applied.n_new_runs > 0 || applied.n_removed_cells > 0;
        if is_new || has_new_cells || !applied.changed.work.is_empty() {
            let detail = json!({
                "name": study.spec.name, "n_new_runs": applied.n_new_runs,
                "n_removed_cells": applied.n_removed_cells,
                "n_missed_data_points": applied.n_missed_data_points,
            });
            tx.record(applied.study_id.as_str(), "study_applied", &detail);
        }
        Ok(ApplyOutcome::Applied(applied))
    }
}

async fn missing_sources(
    tx: &mut Tx,
    study: &StudyToApply,
) -> Result<Vec<ContentHash>, StoreError> {
    let mut missing = Vec::new();
    for hash in study.plan.preparation.config.sources.iter().flat_map(|s| &s.file_hashes) {
        let found: Option<i64> = query_scalar("SELECT n_bytes FROM sources WHERE hash = ?")
            .bind(hash)
            .fetch_optional(&mut tx.conn)
            .await
            .map_err(from_driver)?;
        if found.is_none() {
            missing.push(parse_id(hash)?);
        }
    }
    Ok(missing)
}

/// What became of a study's row.
struct Upserted {
    /// What is decided about the study now, if there was one.
    before: Option<Decision>,
    /// Whether the study is another than it was.
    is_new: bool,
}

/// Writes the study's row. It stays that of the user who applied it first.
async fn upsert_study(
    tx: &mut Tx,
    id: &StudyId,
    study: &StudyToApply,
) -> Result<Upserted, StoreError> {
    let found: Option<(i64, String, String)> =
        query_as("SELECT priority, spec_text, spec_file FROM studies WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(&mut tx.conn)
            .await
            .map_err(from_driver)?;
    query(
        "INSERT INTO studies (id, name, spec_text, spec_file, description, fit_spec_json,
    evaluate_json, priority, weight, user_name, budget_flops, placement_json, log_rules_json,
    created_at_ms, updated_at_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE
SET spec_text = excluded.spec_text, spec_file = excluded.spec_file,
    description = excluded.description, fit_spec_json = excluded.fit_spec_json,
    evaluate_json = excluded.evaluate_json, priority = excluded.priority,
    weight = excluded.weight, budget_flops = excluded.budget_flops,
    placement_json = excluded.placement_json, log_rules_json = excluded.log_rules_json,
    updated_at_ms = excluded.updated_at_ms",
    )
    .bind(id.as_str())
    .bind(&study.spec.name)
    .bind(&study.spec_text)
    .bind(&study.spec_file)
    .bind(&study.spec.description)
    .bind(to_json(&study.spec.fit, "fit_spec_json")?)
    .bind(to_json(&evaluate_specs(study), "evaluate_json")?)
    .bind(study.spec.runtime.priority)
    .bind(study.spec.runtime.weight)
    .bind(tx.actor.user())
    .bind(study.spec.runtime.budget_flops)
    .bind(to_json(&study.spec.runtime.placement, "placement_json")?)
    .bind(to_json(&study.spec.runtime.log_rules, "log_rules_json")?)
    .bind(tx.now_ms)
    .bind(tx.now_ms)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    let Some((priority, spec_text, spec_file)) = found else {
        return Ok(Upserted { before: None, is_new: true });
    };
    // What else is in the row follows from the text.
    let is_same = priority == i64::from(study.spec.runtime.priority)
        && spec_text == study.spec_text
        && spec_file == study.spec_file;
    let is_decided_anew = decide(tx, id, StudyEvent::Applied, "").await?;
    let before = Some(decision::about(tx, id).await?);
    Ok(Upserted { before, is_new: is_decided_anew || !is_same })
}

fn evaluate_specs(study: &StudyToApply) -> Vec<EvaluateSpec> {
    study
        .spec
        .stages
        .iter()
        .flat_map(|stage| match &stage.recipe {
            RecipeSpec::Pretrain(pretrain) => pretrain.evaluate.clone(),
        })
        .collect()
}

/// The data of a study.
struct Prepared {
    work: WorkId,
    is_succeeded: bool,
    /// Whether other studies may wait for it too.
    is_shared: bool,
}

async fn upsert_preparation(
    tx: &mut Tx,
    study: &StudyToApply,
    is_held: bool,
    changed: &mut Changed,
) -> Result<Prepared, StoreError> {
    let planned = &study.plan.preparation;
    let work = WorkId::Preparation(planned.id.clone());
    let is_new = insert_preparation_work(tx, &work, study, is_held).await?;
    let mut is_succeeded = false;
    if is_new {
        query("INSERT INTO preparations (id, hash, config_json) VALUES (?, ?, ?)")
            .bind(work.as_str())
            .bind(planned.identity.hash.as_str())
            .bind(&planned.identity.canonical_json)
            .execute(&mut tx.conn)
            .await
            .map_err(from_driver)?;
        tx.record(work.as_str(), "preparation_queued", &json!({}));
    } else {
        let row = WorkRow::load(tx, &work).await?;
        let state = row.as_ref().map_or("", |row| row.state.as_str());
        is_succeeded = state == "succeeded";
        if matches!(state, "failed" | "cancelled") {
            advance(tx, &work, RunEvent::RetryRequested, changed).await?;
        }
    }
    Ok(Prepared { work, is_succeeded, is_shared: !is_new && !is_succeeded })
}

/// Enters a preparation that is not there; whether it was not.
async fn insert_preparation_work(
    tx: &mut Tx,
    work: &WorkId,
    study: &StudyToApply,
    is_held: bool,
) -> Result<bool, StoreError> {
    let inserted = query(
        "INSERT INTO work (id, kind, state, is_held, priority, cost_flops, max_failures,
    retries_json, created_at_ms, updated_at_ms)
VALUES (?, 'preparation', 'queued', ?, ?, 0, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING",
    )
    .bind(work.as_str())
    .bind(is_held)
    .bind(study.spec.runtime.priority)
    .bind(study.spec.runtime.max_failures)
    .bind(retries_of(study)?)
    .bind(tx.now_ms)
    .bind(tx.now_ms)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(inserted.rows_affected() == 1)
}

fn retries_of(study: &StudyToApply) -> Result<Option<String>, StoreError> {
    let runtime = &study.spec.runtime;
    retries::stored(runtime.max_failures, &runtime.retry_rules())
}

/// Removes the study's cells, which the plan enters again; how many cells each run had.
async fn take_out_cells(tx: &mut Tx, study: &StudyId) -> Result<BTreeMap<RunId, u64>, StoreError> {
    let removed: Vec<String> =
        query_scalar("DELETE FROM cells WHERE study_id = ? RETURNING run_id")
            .bind(study.as_str())
            .fetch_all(&mut tx.conn)
            .await
            .map_err(from_driver)?;
    query("DELETE FROM dropped_cells WHERE study_id = ?")
        .bind(study.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    let mut runs = BTreeMap::new();
    for run in removed {
        *runs.entry(parse_id(&run)?).or_default() += 1;
    }
    Ok(runs)
}

/// The runs of a study, each by its first cell, in the order of their identifiers.
struct Runs<'a> {
    all: Vec<&'a PlannedCell>,
    /// Those that were there before.
    reused: Vec<&'a PlannedCell>,
}

fn has_run(cells: &[&PlannedCell], run: &RunId) -> bool {
    cells.binary_search_by(|cell| cell.run_id.cmp(run)).is_ok()
}

/// Enters the runs that are not there, many at a time, and joins those that are.
async fn upsert_runs<'a>(
    tx: &mut Tx,
    study: &'a StudyToApply,
    preparation: &Prepared,
    is_held: bool,
    applied: &mut Applied,
) -> Result<Runs<'a>, StoreError> {
    let mut known_before: BTreeMap<RunId, Reused> = BTreeMap::new();
    // In the order of the indexes, whose pages are then written once each.
    let mut all: Vec<&PlannedCell> = study.plan.cells.iter().collect();
    all.sort_by(|one, other| one.run_id.cmp(&other.run_id));
    all.dedup_by(|next, first| next.run_id == first.run_id);
    let (mut reused, mut new) = (Vec::new(), Vec::new());
    for cells in all.chunks(ROWS_PER_STATEMENT) {
        let known = reuse::known_runs(tx, cells).await?;
        for cell in cells {
            let Some(row) = known.get(&cell.run_id) else {
                new.push(*cell);
                continue;
            };
            reused.push(*cell);
            applied.n_reused_succeeded += u64::from(row.state == "succeeded");
            let pair = (*cell, row);
            let first_data_point = reuse::merge_runtime(tx, study, pair, applied).await?;
            let has_begun = row.n_attempts > 0;
            known_before.insert(cell.run_id.clone(), Reused { has_begun, first_data_point });
        }
        reuse::ask_again(tx, &known, &mut applied.changed).await?;
    }
    applied.n_new_runs = new.len() as u64;
    applied.n_reused_runs = reused.len() as u64;
    let common = Common { id: &applied.study_id, study, preparation, is_held };
    insert_runs(tx, &common, &new).await?;
    let micro_batch_sequences = study.spec.runtime.micro_batch_sequences.unwrap_or(0);
    trunks::note(tx, &all, &known_before, micro_batch_sequences).await?;
    if !reused.is_empty() || all.iter().any(|cell| cell.trunk.is_some()) {
        let ids: Vec<RunId> = all.iter().map(|cell| cell.run_id.clone()).collect();
        trunks::settle(tx, &ids, &mut applied.changed).await?;
    }
    Ok(Runs { all, reused })
}

/// What new runs of a study have in common.
struct Common<'a> {
    id: &'a StudyId,
    study: &'a StudyToApply,
    preparation: &'a Prepared,
    /// By a pause of the study.
    is_held: bool,
}

async fn insert_runs(
    tx: &mut Tx,
    common: &Common<'_>,
    cells: &[&PlannedCell],
) -> Result<(), StoreError> {
    let now_ms = tx.now_ms;
    tx.grows_by(cells.len());
    let goes_on =
        |cell: &&PlannedCell| cell.trunk.as_ref().is_some_and(|trunk| trunk.from.is_some());
    let (waiting, ready): (Vec<&PlannedCell>, Vec<&PlannedCell>) =
        cells.iter().copied().partition(|cell| !common.preparation.is_succeeded || goes_on(cell));
    for (cells, state, kind) in
        [(ready, "queued", "run_queued"), (waiting, "waiting", "run_planned")]
    {
        if cells.is_empty() {
            continue;
        }
        let lots = cells.chunks(ROWS_PER_STATEMENT);
        tx.execute_each(lots.map(|cells| insert_work(common, (state, now_ms), cells))).await?;
        tx.count(Filled::Work).await?;
        let lots = cells.chunks(ROWS_PER_STATEMENT);
        tx.execute_each(lots.map(|cells| insert_rows(common, cells))).await?;
        tx.count(Filled::Runs).await?;
        for cells in cells.chunks(ROWS_PER_STATEMENT) {
            for cell in cells {
                tx.record(cell.run_id.as_str(), kind, &json!({ "name": cell.name }));
            }
            tx.spill_events().await?;
        }
    }
    Ok(())
}

/// What is the same in all rows is bound once, before them.
fn insert_work(
    common: &Common<'_>,
    (state, now_ms): (&str, i64),
    cells: &[&PlannedCell],
) -> Result<Query, StoreError> {
    let runtime = &common.study.spec.runtime;
    let head = "INSERT INTO work (id, cost_flops, kind, state, depends_on, priority, is_held,
    max_failures, retries_json, study_id, created_at_ms, updated_at_ms)
SELECT given.column1, given.column2, 'run', ?, ?, ?, ?, ?, ?, ?, ?, ?
FROM (VALUES";
    let mut insert = query_with_rows(head, (cells.len(), 2), ") AS given")
        .bind(state)
        .bind(common.preparation.work.as_str())
        .bind(runtime.priority)
        .bind(common.is_held)
        .bind(runtime.max_failures)
        .bind(retries_of(common.study)?)
        .bind(common.id.as_str())
        .bind(now_ms)
        .bind(now_ms);
    for cell in cells {
        let cost_flops = cell.seedless.flops_exact - cell.shared_flops(FlopKind::Exact);
        insert = insert.bind(cell.run_id.as_str()).bind(cost_flops);
    }
    Ok(insert)
}

fn insert_rows(common: &Common<'_>, cells: &[&PlannedCell]) -> Result<Query, StoreError> {
    let runtime = &common.study.spec.runtime;
    let head = "INSERT INTO runs (id, identity_hash, config_json, steps, batch_tokens,
    parameters_non_embedding, parameters_total, flops_exact, flops_published,
    data_point_steps_json, memory_bytes, recipe, preparation_id, micro_batch_sequences,
    rolling_checkpoint_seconds)
SELECT given.*, ?, ?, ?, ?
FROM (VALUES";
    let recipe = cells.first().map_or("", |cell| cell.seedless.config.recipe());
    let mut insert = query_with_rows(head, (cells.len(), 11), ") AS given")
        .bind(recipe)
        .bind(common.preparation.work.as_str())
        .bind(runtime.micro_batch_sequences.unwrap_or(0))
        .bind(runtime.rolling_checkpoint_seconds);
    for cell in cells {
        let seedless = &cell.seedless;
        let CellConfig::Pretrain(config) = &seedless.config;
        insert = insert
            .bind(cell.run_id.as_str())
            .bind(cell.identity_hash.as_str())
            .bind(cell.canonical_json().map_err(StoreError::Configuration)?)
            .bind(signed(config.steps))
            .bind(signed(config.batch_tokens()))
            .bind(signed(seedless.parameters_non_embedding))
            .bind(signed(seedless.parameters_total))
            .bind(seedless.flops_exact)
            .bind(seedless.flops_published)
            .bind(to_json(&seedless.data_point_steps, "data_point_steps_json")?)
            .bind(signed(seedless.memory_bytes));
    }
    Ok(insert)
}

async fn insert_cells(
    tx: &mut Tx,
    study: &StudyId,
    plan: &planner::Plan,
) -> Result<(), StoreError> {
    let mut position = 0_i64;
    let statements = plan.cells.chunks(ROWS_PER_STATEMENT).map(|cells| {
        let head = "INSERT INTO cells (name, position, run_id, axis_values_json, budget_flops,
    data_point_steps_json, study_id, stage)
SELECT given.*, ?, ?
FROM (VALUES";
        let mut insert = query_with_rows(head, (cells.len(), 6), ") AS given")
            .bind(study.as_str())
            .bind(&plan.stage);
        for cell in cells {
            insert = insert
                .bind(&cell.name)
                .bind(position)
                .bind(cell.run_id.as_str())
                .bind(to_json(&cell.axis_values.to_map(), "axis_values_json")?)
                .bind(cell.seedless.budget_flops)
                .bind(to_json(&cell.seedless.data_point_steps, "data_point_steps_json")?);
            position += 1;
        }
        Ok(insert)
    });
    tx.execute_each(statements).await?;
    tx.count(Filled::Cells).await
}

async fn insert_dropped(
    tx: &mut Tx,
    study: &StudyId,
    plan: &planner::Plan,
) -> Result<(), StoreError> {
    for dropped in &plan.dropped {
        query(
            "INSERT INTO dropped_cells (study_id, stage, name, reason)
VALUES (?, ?, ?, ?)
ON CONFLICT (study_id, stage, name) DO UPDATE
SET reason = excluded.reason",
        )
        .bind(study.as_str())
        .bind(&plan.stage)
        .bind(&dropped.name)
        .bind(&dropped.reason)
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    }
    Ok(())
}
