//! What the fits of a study are made from, and the fits that are stored.
//! It fits nothing.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use api::FitSummary;
use domain::attempt::AttemptEnd;
use domain::cell::Identity;
use domain::ids::{ContentHash, FitId, RunId, StudyId};
use domain::recipe::{CellConfig, EvaluationConfig};
use domain::run::TERMINAL;
use domain::spec::{EvaluateSpec, ScheduleSpec};

use super::{corrupt, count, failed, from_json};
use crate::store::read::{FitEvaluation, FitInputs, FitRecord, FitRun, FitUnmeasured, ReadError};
use crate::store::sql::database::{Pool, Reading, query_as, query_scalar};

#[derive(sqlx::FromRow)]
struct StudyRow {
    name: String,
    fit_spec_json: String,
    evaluate_json: String,
}

#[derive(sqlx::FromRow)]
struct RunRow {
    run_id: String,
    name: String,
    axis_values_json: String,
    state: String,
    parameters_non_embedding: i64,
    parameters_total: i64,
    batch_tokens: i64,
    steps: i64,
    flops_exact: f64,
    flops_published: f64,
    config_json: String,
    n_training_tokens: Option<i64>,
    budget_flops: Option<f64>,
    data_point_steps_json: String,
    ended_as: Option<String>,
    message: String,
}

#[derive(sqlx::FromRow)]
struct EvaluationRow {
    run_id: String,
    step: i64,
    task: String,
    attempt: i64,
    config_json: String,
    value: Option<f64>,
    state: String,
}

/// All of it is of one state: settings and runs that never were together would be kept as a fit.
pub(super) async fn inputs(pool: &Pool, study: &StudyId) -> Result<Option<FitInputs>, ReadError> {
    let mut reading = pool.begin().await.map_err(failed("the inputs of a fit"))?;
    let Some(row) = query_as::<StudyRow>(
        "SELECT name, fit_spec_json, evaluate_json
FROM studies
WHERE id = ?1",
    )
    .bind(study.as_str())
    .fetch_optional(&mut reading)
    .await
    .map_err(failed("a study's fit"))?
    else {
        return Ok(None);
    };
    let asked: Vec<EvaluateSpec> = from_json(&row.evaluate_json, "evaluations", study.as_str())?;
    let runs = runs(&mut reading, study).await?;
    let measured = evaluations(&mut reading, study, &asked, &runs).await?;
    Ok(Some(FitInputs {
        study: row.name,
        fit_spec_json: row.fit_spec_json,
        runs,
        evaluations: measured.values,
        unmeasured: measured.unmeasured,
        n_open_evaluations: measured.n_open,
    }))
}

async fn runs(reading: &mut Reading, study: &StudyId) -> Result<Vec<FitRun>, ReadError> {
    let rows: Vec<RunRow> = query_as(include_str!("fit_runs.sql"))
        .bind(study.as_str())
        .fetch_all(reading)
        .await
        .map_err(failed("the runs of a fit"))?;
    rows.into_iter().map(RunRow::into_run).collect()
}

/// What the evaluations of a study came to.
struct Measured {
    values: Vec<FitEvaluation>,
    unmeasured: Vec<FitUnmeasured>,
    n_open: u64,
}

async fn evaluations(
    reading: &mut Reading,
    study: &StudyId,
    asked: &[EvaluateSpec],
    runs: &[FitRun],
) -> Result<Measured, ReadError> {
    let rows: Vec<EvaluationRow> = query_as(
        "SELECT e.run_id, e.step, e.task, e.attempt, e.config_json, e.value, w.state
FROM evaluations e
JOIN work w ON w.id = e.id
WHERE e.run_id IN (SELECT run_id FROM cells WHERE study_id = ?1)
ORDER BY e.run_id, e.step, e.task, e.attempt, e.id",
    )
    .bind(study.as_str())
    .fetch_all(reading)
    .await
    .map_err(failed("the evaluations of a fit"))?;
    // Several cells may have one run.
    let mut positions: BTreeMap<&RunId, usize> = BTreeMap::new();
    for (position, run) in runs.iter().enumerate() {
        positions.entry(&run.run_id).or_insert(position);
    }
    let mut found: BTreeMap<(usize, u64, String), Found> = BTreeMap::new();
    let mut n_open = 0;
    for row in rows {
        let config: EvaluationConfig =
            from_json(&row.config_json, "evaluation's configuration", &row.run_id)?;
        let run_id: RunId = row.run_id.parse().map_err(corrupt("identifier", &row.run_id))?;
        let Some(position) = positions.get(&run_id).copied() else { continue };
        let step = count(row.step);
        if !is_asked(&config, asked) || !runs[position].data_point_steps.contains(&step) {
            continue;
        }
        n_open += u64::from(row.value.is_none() && !TERMINAL.contains(&row.state.as_str()));
        let (attempt, version) = (row.attempt, config.task_version);
        let new = Found { attempt, version, run_id, value: row.value, state: row.state };
        match found.entry((position, step, row.task)) {
            Entry::Occupied(mut known) if new.goes_before(known.get()) => {
                known.insert(new);
            }
            Entry::Occupied(_) => {}
            Entry::Vacant(place) => {
                place.insert(new);
            }
        }
    }
    let (mut values, mut unmeasured) = (Vec::new(), Vec::new());
    for ((_, step, task), Found { run_id, value, state, .. }) in found {
        match value {
            Some(value) => values.push(FitEvaluation { run_id, step, task, value }),
            None => unmeasured.push(FitUnmeasured { run_id, step, task, state }),
        }
    }
    Ok(Measured { values, unmeasured, n_open })
}

/// What an evaluation at some place came to.
struct Found {
    attempt: i64,
    version: u32,
    run_id: RunId,
    value: Option<f64>,
    state: String,
}

impl Found {
    /// Where a restart measured a step again, its weights are the run's, measured or not. Of one
    /// attempt the newest way to measure counts that has a value.
    fn goes_before(&self, known: &Self) -> bool {
        let rank = |one: &Self| (one.attempt, one.value.is_some(), one.version);
        rank(self) > rank(known)
    }
}

/// A run may be in two studies that measure it differently; each fits its own measurements.
fn is_asked(config: &EvaluationConfig, asked: &[EvaluateSpec]) -> bool {
    asked.iter().any(|spec| spec.task.label() == config.task && spec.sequences == config.sequences)
}

#[derive(sqlx::FromRow)]
struct SummaryRow {
    id: String,
    study: String,
    created_at_ms: i64,
    summary_json: String,
}

impl SummaryRow {
    fn into_summary(self) -> Result<FitSummary, ReadError> {
        let summary = match self.summary_json.as_str() {
            "" => FitSummary::default(),
            text => from_json(text, "fit in a line", &self.id)?,
        };
        Ok(FitSummary {
            id: self.id,
            study: self.study,
            created_at_ms: self.created_at_ms,
            ..summary
        })
    }
}

pub(super) async fn list(
    pool: &Pool,
    study: Option<&StudyId>,
    limit: u32,
) -> Result<Vec<FitSummary>, ReadError> {
    let rows: Vec<SummaryRow> = query_as(
        "SELECT f.id, s.name AS study, f.created_at_ms, f.summary_json
FROM fits f
JOIN studies s ON s.id = f.study_id
WHERE ?1 = '' OR f.study_id = ?1
ORDER BY f.created_at_ms DESC, f.id DESC
LIMIT ?2",
    )
    .bind(study.map_or("", StudyId::as_str))
    .bind(limit)
    .fetch_all(pool)
    .await
    .map_err(failed("the stored fits"))?;
    rows.into_iter().map(SummaryRow::into_summary).collect()
}

pub(super) async fn record(pool: &Pool, fit: &FitId) -> Result<Option<FitRecord>, ReadError> {
    let row: Option<(String, String)> = query_as(
        "SELECT inputs_json, report_json
FROM fits
WHERE id = ?1",
    )
    .bind(fit.as_str())
    .fetch_optional(pool)
    .await
    .map_err(failed("a stored fit"))?;
    Ok(row.map(|(inputs_json, report_json)| FitRecord { inputs_json, report_json }))
}

pub(super) async fn stored(
    pool: &Pool,
    study: &StudyId,
    inputs_hash: &ContentHash,
) -> Result<Option<String>, ReadError> {
    query_scalar(
        "SELECT report_json
FROM fits
WHERE study_id = ?1 AND inputs_hash = ?2",
    )
    .bind(study.as_str())
    .bind(inputs_hash.as_str())
    .fetch_optional(pool)
    .await
    .map_err(failed("a stored fit"))
}

impl RunRow {
    fn into_run(self) -> Result<FitRun, ReadError> {
        // A configuration of another build shares no trunk that this one knows.
        let config = Identity::parse::<CellConfig>(&self.config_json).ok();
        let cell = config.map(|CellConfig::Pretrain(cell)| cell);
        let trunk = cell.as_ref().and_then(|cell| cell.trunk().ok().flatten());
        let schedule = cell.as_ref().map(|cell| &cell.training.schedule);
        Ok(FitRun {
            warmup_steps: schedule.map_or(0, ScheduleSpec::warmup_steps),
            is_decaying: schedule.is_some_and(ScheduleSpec::is_decaying),
            trunk: trunk.map(|trunk| trunk.hash),
            training_tokens: self.n_training_tokens.map(count),
            axis_values: from_json(&self.axis_values_json, "axis values", &self.run_id)?,
            data_point_steps: from_json(
                &self.data_point_steps_json,
                "data point steps",
                &self.run_id,
            )?,
            run_id: self.run_id.parse().map_err(corrupt("identifier", &self.run_id))?,
            name: self.name,
            state: self.state,
            parameters_non_embedding: count(self.parameters_non_embedding),
            parameters_total: count(self.parameters_total),
            batch_tokens: count(self.batch_tokens),
            steps: count(self.steps),
            flops_exact: self.flops_exact,
            flops_published: self.flops_published,
            budget_flops: self.budget_flops,
            end: self.ended_as.as_deref().and_then(AttemptEnd::from_label),
            message: self.message,
        })
    }
}
