//! `apply_study`: a planned study becomes rows, or the difference to what is there.
//!
//! What is in a plan is the planner's; what cancelling and retrying mean is `change`'s.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::{ContentHash, RunId, StudyId, WorkId};
use domain::recipe::CellConfig;
use domain::spec::{EvaluateSpec, FlopKind, ParameterKind, RecipeSpec};
use domain::study::StudyEvent;
use planner::PlannedCell;
use serde_json::json;

use super::change::{cancel_unwanted, evaluations_of, retry_if_over};
use super::convert::{from_json, parse_id, signed, to_json};
use super::database::{query, query_scalar, query_with_list, query_with_rows};
use super::decision::decide;
use super::error::from_driver;
use super::evaluations;
use super::many::{self, Asked};
use super::trunks::{self, Reused};
use super::wanted;
use super::work::WorkRow;
use super::writer::{Command, Tx};
use crate::store::{Applied, ApplyOutcome, Changed, StoreError, StudyToApply};

/// Rows in one statement: some fourteen values each stay far below the databases' limits.
const ROWS_PER_STATEMENT: usize = 128;

pub(super) struct ApplyStudy(pub(super) Box<StudyToApply>);

impl Command for ApplyStudy {
    type Answer = ApplyOutcome;

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
        old_runs.retain(|run, _| !runs.all.contains(run));
        applied.n_removed_cells = old_runs.values().sum();
        let removed: Vec<RunId> = old_runs.into_keys().collect();
        cancel_unwanted(tx, &removed, &mut applied.changed).await?;
        wanted::settle_runs(tx, &removed, &mut applied.changed).await?;
        wanted::settle_study(tx, &applied.study_id, &mut applied.changed).await?;
        for run in evaluations::with_data_points(tx, &applied.study_id).await? {
            // A new run has no checkpoint to measure yet.
            if runs.reused.contains(&run) {
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

/// The runs of a study.
struct Runs {
    all: BTreeSet<RunId>,
    /// Those that were there before.
    reused: BTreeSet<RunId>,
}

/// Enters the runs that are not there, many at a time, and joins those that are.
async fn upsert_runs(
    tx: &mut Tx,
    study: &StudyToApply,
    preparation: &WorkId,
    applied: &mut Applied,
) -> Result<Runs, StoreError> {
    let is_prepared = is_succeeded(tx, preparation).await?;
    let common = Common { id: &applied.study_id, study, preparation, is_prepared };
    let mut runs = Runs { all: BTreeSet::new(), reused: BTreeSet::new() };
    let mut reused: BTreeMap<RunId, Reused> = BTreeMap::new();
    let mut first_of_each: Vec<&PlannedCell> =
        study.plan.cells.iter().filter(|cell| runs.all.insert(cell.run_id.clone())).collect();
    let has_trunks = first_of_each.iter().any(|cell| cell.trunk.is_some());
    // In the order of the indexes, whose pages are then written once each.
    first_of_each.sort_by(|one, other| one.run_id.cmp(&other.run_id));
    for cells in first_of_each.chunks(ROWS_PER_STATEMENT) {
        let known = known_runs(tx, cells).await?;
        let (old, new): (Vec<&PlannedCell>, Vec<&PlannedCell>) =
            cells.iter().partition(|cell| known.contains_key(&cell.run_id));
        if !new.is_empty() {
            insert_runs(tx, &common, &new).await?;
            applied.n_new_runs += new.len() as u64;
        }
        applied.n_reused_runs += old.len() as u64;
        for cell in old {
            let row = &known[&cell.run_id];
            applied.n_reused_succeeded += u64::from(row.state == "succeeded");
            let first_data_point = merge_runtime(tx, study, cell, row).await?;
            let has_begun = row.n_attempts > 0;
            reused.insert(cell.run_id.clone(), Reused { has_begun, first_data_point });
        }
        ask_again(tx, &known, &mut applied.changed).await?;
        runs.reused.extend(known.into_keys());
    }
    trunks::note(tx, &first_of_each, &reused).await?;
    if has_trunks || !runs.reused.is_empty() {
        let all: Vec<RunId> = runs.all.iter().cloned().collect();
        trunks::settle(tx, &all, &mut applied.changed).await?;
    }
    Ok(runs)
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
    let Common { id, study, preparation, is_prepared } = *common;
    let runtime = &study.spec.runtime;
    let retries_json = to_json(&runtime.retry_rules(), "retries_json")?;
    // `wanted` settles for whom a run is granted; for nearly all it is this study.
    let head = "INSERT INTO work (id, kind, state, depends_on, priority, cost_flops, max_failures,
    retries_json, study_id, created_at_ms, updated_at_ms)
VALUES";
    let mut work = query_with_rows(head, (cells.len(), 11), "");
    let head = "INSERT INTO runs (id, identity_hash, config_json, recipe, preparation_id, steps,
    batch_tokens, parameters_non_embedding, parameters_total, flops_exact, flops_published,
    micro_batch_sequences, rolling_checkpoint_seconds, data_point_steps_json, memory_bytes)
VALUES";
    let mut runs = query_with_rows(head, (cells.len(), 15), "");
    for cell in cells {
        let CellConfig::Pretrain(config) = &cell.config;
        let is_ready = is_prepared && cell.trunk.as_ref().is_none_or(|trunk| trunk.from.is_none());
        let (state, kind) =
            if is_ready { ("queued", "run_queued") } else { ("waiting", "run_planned") };
        let flops_exact = config.flops_at(config.steps, FlopKind::Exact);
        let cost_flops = flops_exact - cell.shared_flops(FlopKind::Exact);
        work = work
            .bind(cell.run_id.as_str())
            .bind("run")
            .bind(state)
            .bind(preparation.as_str())
            .bind(runtime.priority)
            .bind(cost_flops)
            .bind(runtime.max_failures)
            .bind(&retries_json)
            .bind(id.as_str())
            .bind(tx.now_ms)
            .bind(tx.now_ms);
        runs = runs
            .bind(cell.run_id.as_str())
            .bind(cell.identity.hash.as_str())
            .bind(&cell.identity.canonical_json)
            .bind(cell.config.recipe())
            .bind(preparation.as_str())
            .bind(signed(config.steps))
            .bind(signed(config.batch_tokens()))
            .bind(signed(config.parameters(ParameterKind::NonEmbedding)))
            .bind(signed(config.parameters(ParameterKind::Total)))
            .bind(flops_exact)
            .bind(config.flops_at(config.steps, FlopKind::Published))
            .bind(runtime.micro_batch_sequences.unwrap_or(0))
            .bind(runtime.rolling_checkpoint_seconds)
            .bind(to_json(&cell.data_point_steps, "data_point_steps_json")?)
            .bind(signed(cell.memory_bytes));
        tx.record(cell.run_id.as_str(), kind, &json!({ "name": cell.name }));
    }
    work.execute(&mut tx.conn).await.map_err(from_driver)?;
    runs.execute(&mut tx.conn).await.map_err(from_driver)?;
    Ok(())
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
    steps.extend(&cell.data_point_steps);
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
    let head = "INSERT INTO cells (study_id, stage, name, position, run_id, axis_values_json,
    budget_flops, data_point_steps_json)
VALUES";
    let mut position = 0;
    for cells in plan.cells.chunks(ROWS_PER_STATEMENT) {
        let mut insert = query_with_rows(head, (cells.len(), 8), "");
        for cell in cells {
            insert = insert
                .bind(study.as_str())
                .bind(&plan.stage)
                .bind(&cell.name)
                .bind(position)
                .bind(cell.run_id.as_str())
                .bind(to_json(&cell.axis_values, "axis_values_json")?)
                .bind(cell.budget_flops)
                .bind(to_json(&cell.data_point_steps, "data_point_steps_json")?);
            position += 1_i64;
        }
        insert.execute(&mut tx.conn).await.map_err(from_driver)?;
    }
    Ok(())
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
