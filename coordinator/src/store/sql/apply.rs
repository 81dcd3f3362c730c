//! `apply_study`: a planned study becomes rows, or the difference to what is there.
//!
//! What is in a plan is the planner's; what cancelling and retrying mean is `change`'s.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{ContentHash, RunId, StudyId, WorkId};
use domain::recipe::CellConfig;
use domain::spec::{EvaluateSpec, FlopKind, RecipeSpec};
use domain::study::StudyEvent;
use planner::PlannedCell;
use serde_json::json;

use super::change::{cancel_unwanted, evaluations_of, retry_if_over};
use super::convert::{from_json, parse_id, signed, to_json};
use super::database::{Query, query, query_scalar, query_with_list, query_with_rows};
use super::decision::decide;
use super::error::from_driver;
use super::evaluations;
use super::many::{self, Asked};
use super::trunks::{self, Reused};
use super::wanted;
use super::work::WorkRow;
use super::writer::{Command, Tx};
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
        let is_update = upsert_study(tx, &id, &study).await?;
        let mut applied = Applied {
            study_id: id,
            is_update,
            n_new_runs: 0,
            n_reused_runs: 0,
            n_reused_succeeded: 0,
            n_removed_cells: 0,
            changed: Changed::default(),
        };
        let preparation = upsert_preparation(tx, &study, &mut applied.changed).await?;
        let mut old_runs = take_out_cells(tx, &applied.study_id).await?;
        let runs = upsert_runs(tx, &study, &preparation, &mut applied).await?;
        insert_cells(tx, &applied.study_id, &study.plan).await?;
        insert_dropped(tx, &applied.study_id, &study.plan).await?;
        old_runs.retain(|run, _| !has_run(&runs.all, run));
        applied.n_removed_cells = old_runs.values().sum();
        let removed: Vec<RunId> = old_runs.into_keys().collect();
        cancel_unwanted(tx, &removed, &mut applied.changed).await?;
        wanted::settle_runs(tx, &removed, &mut applied.changed).await?;
        wanted::settle_study(tx, &applied.study_id, &mut applied.changed).await?;
        for run in evaluations::with_data_points(tx, &applied.study_id).await? {
            // A new run has no checkpoint to measure yet.
            if has_run(&runs.reused, &run) {
                evaluations::ensure_for_run(tx, &run).await?;
            }
        }
        let detail = json!({
            "name": study.spec.name, "n_new_runs": applied.n_new_runs,
            "n_removed_cells": applied.n_removed_cells,
        });
        tx.record(applied.study_id.as_str(), "study_applied", &detail);
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

/// Writes the study's row; whether there was one. It stays that of the user who applied it first.
async fn upsert_study(tx: &mut Tx, id: &StudyId, study: &StudyToApply) -> Result<bool, StoreError> {
    let found: Option<i64> = query_scalar("SELECT priority FROM studies WHERE id = ?")
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
    decide(tx, id, StudyEvent::Applied, "").await?;
    Ok(found.is_some())
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

async fn upsert_preparation(
    tx: &mut Tx,
    study: &StudyToApply,
    changed: &mut Changed,
) -> Result<WorkId, StoreError> {
    let planned = &study.plan.preparation;
    let work = WorkId::Preparation(planned.id.clone());
    if insert_preparation_work(tx, &work, study).await? {
        query("INSERT INTO preparations (id, hash, config_json) VALUES (?, ?, ?)")
            .bind(work.as_str())
            .bind(planned.identity.hash.as_str())
            .bind(&planned.identity.canonical_json)
            .execute(&mut tx.conn)
            .await
            .map_err(from_driver)?;
        tx.record(work.as_str(), "preparation_queued", &json!({}));
    } else {
        retry_if_over(tx, &work, &["failed", "cancelled"], changed).await?;
    }
    Ok(work)
}

/// Enters a preparation that is not there; whether it was not.
async fn insert_preparation_work(
    tx: &mut Tx,
    work: &WorkId,
    study: &StudyToApply,
) -> Result<bool, StoreError> {
    let inserted = query(
        "INSERT INTO work (id, kind, state, priority, cost_flops, max_failures, retries_json,
    created_at_ms, updated_at_ms)
VALUES (?, 'preparation', 'queued', ?, 0, ?, ?, ?, ?)
ON CONFLICT (id) DO NOTHING",
    )
    .bind(work.as_str())
    .bind(study.spec.runtime.priority)
    .bind(study.spec.runtime.max_failures)
    .bind(to_json(&study.spec.runtime.retry_rules(), "retries_json")?)
    .bind(tx.now_ms)
    .bind(tx.now_ms)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(inserted.rows_affected() == 1)
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
    preparation: &WorkId,
    applied: &mut Applied,
) -> Result<Runs<'a>, StoreError> {
    let is_prepared = is_succeeded(tx, preparation).await?;
    let mut known_before: BTreeMap<RunId, Reused> = BTreeMap::new();
    // In the order of the indexes, whose pages are then written once each.
    let mut all: Vec<&PlannedCell> = study.plan.cells.iter().collect();
    all.sort_by(|one, other| one.run_id.cmp(&other.run_id));
    all.dedup_by(|next, first| next.run_id == first.run_id);
    let (mut reused, mut new) = (Vec::new(), Vec::new());
    for cells in all.chunks(ROWS_PER_STATEMENT) {
        let known = known_runs(tx, cells).await?;
        for cell in cells {
            let Some(row) = known.get(&cell.run_id) else {
                new.push(*cell);
                continue;
            };
            reused.push(*cell);
            applied.n_reused_succeeded += u64::from(row.state == "succeeded");
            let first_data_point = merge_runtime(tx, study, cell, row).await?;
            let has_begun = row.n_attempts > 0;
            known_before.insert(cell.run_id.clone(), Reused { has_begun, first_data_point });
        }
        ask_again(tx, &known, &mut applied.changed).await?;
    }
    applied.n_new_runs = new.len() as u64;
    applied.n_reused_runs = reused.len() as u64;
    let common = Common { id: &applied.study_id, study, preparation, is_prepared };
    insert_runs(tx, &common, &new).await?;
    trunks::note(tx, &all, &known_before).await?;
    if !reused.is_empty() || all.iter().any(|cell| cell.trunk.is_some()) {
        let ids: Vec<RunId> = all.iter().map(|cell| cell.run_id.clone()).collect();
        trunks::settle(tx, &ids, &mut applied.changed).await?;
    }
    Ok(Runs { all, reused })
}

/// What a study that has a run too may change of it.
#[derive(Debug, sqlx::FromRow)]
struct KnownRun {
    id: String,
    state: String,
    n_attempts: i64,
    max_failures: i64,
    retries_json: Option<String>,
    data_point_steps_json: String,
    rolling_checkpoint_seconds: i64,
}

/// Those runs that are there.
async fn known_runs(
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
async fn ask_again(
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

async fn is_succeeded(tx: &mut Tx, work: &WorkId) -> Result<bool, StoreError> {
    Ok(WorkRow::load(tx, work).await?.is_some_and(|row| row.state == "succeeded"))
}

/// What new runs of a study have in common.
struct Common<'a> {
    id: &'a StudyId,
    study: &'a StudyToApply,
    preparation: &'a WorkId,
    is_prepared: bool,
}

async fn insert_runs(
    tx: &mut Tx,
    common: &Common<'_>,
    cells: &[&PlannedCell],
) -> Result<(), StoreError> {
    let now_ms = tx.now_ms;
    let goes_on =
        |cell: &&PlannedCell| cell.trunk.as_ref().is_some_and(|trunk| trunk.from.is_some());
    let (waiting, ready): (Vec<&PlannedCell>, Vec<&PlannedCell>) =
        cells.iter().copied().partition(|cell| !common.is_prepared || goes_on(cell));
    for (cells, state, kind) in
        [(ready, "queued", "run_queued"), (waiting, "waiting", "run_planned")]
    {
        let lots = cells.chunks(ROWS_PER_STATEMENT);
        tx.execute_each(lots.map(|cells| insert_work(common, (state, now_ms), cells))).await?;
        let lots = cells.chunks(ROWS_PER_STATEMENT);
        tx.execute_each(lots.map(|cells| insert_rows(common, cells))).await?;
        for cells in cells.chunks(ROWS_PER_STATEMENT) {
            for cell in cells {
                tx.record(cell.run_id.as_str(), kind, &json!({ "name": cell.name }));
            }
            tx.write_events().await?;
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
    // `wanted` settles for whom a run is granted; for nearly all it is this study.
    let head = "INSERT INTO work (id, cost_flops, kind, state, depends_on, priority, max_failures,
    retries_json, study_id, created_at_ms, updated_at_ms)
SELECT given.column1, given.column2, 'run', ?, ?, ?, ?, ?, ?, ?, ?
FROM (VALUES";
    let mut insert = query_with_rows(head, (cells.len(), 2), ") AS given")
        .bind(state)
        .bind(common.preparation.as_str())
        .bind(runtime.priority)
        .bind(runtime.max_failures)
        .bind(to_json(&runtime.retry_rules(), "retries_json")?)
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
        .bind(common.preparation.as_str())
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

/// A run that another study has too leaves the data points of both, and of each class the larger
/// number of attempts counts, with the pauses of the study at hand. Its micro-batch stays: the first
/// attempt may have fixed it. Answers the first data point of all.
async fn merge_runtime(
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
    let what = "retries_json";
    let mut rules = study.spec.runtime.retry_rules();
    if let Some(text) = &row.retries_json {
        rules = rules.or_more_attempts(from_json(text, what)?);
    }
    let rules = to_json(&rules, what)?;
    let max_failures = row.max_failures.max(i64::from(study.spec.runtime.max_failures));
    if Some(&rules) == row.retries_json.as_ref() && max_failures == row.max_failures {
        return Ok(());
    }
    query("UPDATE work SET max_failures = ?, retries_json = ? WHERE id = ?")
        .bind(max_failures)
        .bind(rules)
        .bind(&row.id)
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    Ok(())
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
    tx.execute_each(statements).await
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
