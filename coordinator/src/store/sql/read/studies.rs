//! Studies: the list, one of them, their progress, and what a name means.
//! Their runs are `super::runs`.

use std::collections::{BTreeMap, HashMap};

use api::{DroppedCellView, StateCounts, StudyList, StudySummary, StudyView};
use domain::ids::{ContentHash, StudyId};
use domain::run::TERMINAL;
use domain::study::{StudyState, WorkCounts};
use domain::suggest::nearest;

use super::{corrupt, count, failed, from_json, runs, workers};
use crate::store::read::{Lookup, ReadError};
use crate::store::sql::database::{Pool, query_as, query_scalar, query_with_list};

/// So many hashes are looked up at a time, far below the databases' limits.
const HASHES_PER_QUERY: usize = 256;

#[derive(sqlx::FromRow)]
struct StudyRow {
    id: String,
    name: String,
    spec_text: String,
    spec_file: String,
    description: String,
    is_cancelled: i64,
    cancel_reason: String,
    is_paused: i64,
    pause_reason: String,
    priority: i64,
    user_name: String,
    weight: f64,
    budget_flops: Option<f64>,
    created_at_ms: i64,
    updated_at_ms: i64,
}

#[derive(sqlx::FromRow)]
struct ProgressRow {
    study_id: String,
    kind: String,
    state: String,
    n: i64,
    flops_total: f64,
    flops_done: f64,
    flops_per_second: Option<f64>,
}

/// A study's progress, summed up from its rows.
#[derive(Debug, Default)]
struct Progress {
    runs: StateCounts,
    evaluations: StateCounts,
    preparations: StateCounts,
    work: WorkCounts,
    flops_done: f64,
    flops_total: f64,
    /// What runs that are not over still have to train.
    flops_open: f64,
    flops_per_second: Option<f64>,
}

impl Progress {
    fn add(&mut self, row: &ProgressRow) {
        let n = count(row.n);
        let counts = match row.kind.as_str() {
            "run" => &mut self.runs,
            "evaluation" => &mut self.evaluations,
            _ => &mut self.preparations,
        };
        counts.insert(row.state.clone(), n);
        if row.kind != "preparation" {
            self.work.add(&row.state, n);
        }
        self.flops_done += row.flops_done;
        self.flops_total += row.flops_total;
        if !TERMINAL.contains(&row.state.as_str()) {
            self.flops_open += row.flops_total - row.flops_done;
        }
        if let Some(rate) = row.flops_per_second {
            *self.flops_per_second.get_or_insert(0.0) += rate;
        }
    }

    /// Only with a rate and something left; a study that is over or stands still has no estimate.
    fn eta_seconds(&self) -> Option<f64> {
        let rate = self.flops_per_second.filter(|rate| *rate > 0.0)?;
        (self.flops_open > 0.0).then(|| self.flops_open / rate)
    }
}

async fn progress(
    pool: &Pool,
    study: Option<&StudyId>,
) -> Result<HashMap<String, Progress>, ReadError> {
    let rows: Vec<ProgressRow> = query_as(include_str!("study_progress.sql"))
        .bind(study.map(StudyId::as_str))
        .fetch_all(pool)
        .await
        .map_err(failed("the progress of studies"))?;
    let mut by_study: HashMap<String, Progress> = HashMap::new();
    for row in rows {
        by_study.entry(row.study_id.clone()).or_default().add(&row);
    }
    Ok(by_study)
}

impl StudyRow {
    fn summary(&self, progress: Progress) -> StudySummary {
        StudySummary {
            id: self.id.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            state: StudyState::of(self.is_cancelled != 0, self.is_paused != 0, progress.work)
                .label()
                .to_owned(),
            priority: i32::try_from(self.priority).unwrap_or_default(),
            user: self.user_name.clone(),
            weight: self.weight,
            budget_flops: self.budget_flops,
            eta_seconds: progress.eta_seconds(),
            runs: progress.runs,
            evaluations: progress.evaluations,
            preparations: progress.preparations,
            flops_done: progress.flops_done,
            flops_total: progress.flops_total,
            flops_per_second: progress.flops_per_second,
            created_at_ms: self.created_at_ms,
            updated_at_ms: self.updated_at_ms,
        }
    }
}

pub(super) async fn list(pool: &Pool) -> Result<StudyList, ReadError> {
    let rows: Vec<StudyRow> = query_as(
        "SELECT id, name, spec_text, spec_file, description, is_cancelled, cancel_reason,
    is_paused, pause_reason, priority, user_name, weight, budget_flops, created_at_ms,
    updated_at_ms
FROM studies
ORDER BY created_at_ms DESC, id",
    )
    .fetch_all(pool)
    .await
    .map_err(failed("the studies"))?;
    let mut progress = progress(pool, None).await?;
    let summary = |row: StudyRow| row.summary(progress.remove(&row.id).unwrap_or_default());
    Ok(StudyList { studies: rows.into_iter().map(summary).collect() })
}

pub(super) async fn view(pool: &Pool, study: &StudyId) -> Result<Option<StudyView>, ReadError> {
    let Some(row) = query_as::<StudyRow>(
        "SELECT id, name, spec_text, spec_file, description, is_cancelled, cancel_reason,
    is_paused, pause_reason, priority, user_name, weight, budget_flops, created_at_ms,
    updated_at_ms
FROM studies
WHERE id = ?1",
    )
    .bind(study.as_str())
    .fetch_optional(pool)
    .await
    .map_err(failed("a study"))?
    else {
        return Ok(None);
    };
    let progress = progress(pool, Some(study)).await?.remove(&row.id).unwrap_or_default();
    Ok(Some(StudyView {
        summary: row.summary(progress),
        axes: axes(pool, &row).await?,
        spec_text: row.spec_text,
        spec_file: row.spec_file,
        dropped: dropped(pool, study).await?,
        active_runs: runs::active(pool, study).await?,
        workers: workers::list(pool, true).await?,
        cancel_reason: row.cancel_reason,
        pause_reason: row.pause_reason,
    }))
}

/// The axes of the study file in its order, then those that only the planned cells have.
async fn axes(pool: &Pool, row: &StudyRow) -> Result<Vec<String>, ReadError> {
    let first_cell: Option<String> = query_scalar(
        "SELECT axis_values_json
FROM cells
WHERE study_id = ?1
ORDER BY position
LIMIT 1",
    )
    .bind(&row.id)
    .fetch_optional(pool)
    .await
    .map_err(failed("the axes of a study"))?;
    let planned: BTreeMap<String, String> = match first_cell {
        Some(json) => from_json(&json, "axis values", &row.id)?,
        None => BTreeMap::new(),
    };
    // A file that an older build applied may no longer parse; its cells still name their axes.
    let mut axes: Vec<String> = domain::spec::parse(&row.spec_text, &row.spec_file)
        .map(|parsed| axes_of(&parsed.spec))
        .unwrap_or_default();
    let unnamed: Vec<String> = planned.into_keys().filter(|axis| !axes.contains(axis)).collect();
    axes.extend(unnamed);
    Ok(axes)
}

fn axes_of(spec: &domain::spec::StudySpec) -> Vec<String> {
    spec.stages
        .iter()
        .flat_map(|stage| match &stage.recipe {
            domain::spec::RecipeSpec::Pretrain(pretrain) => &pretrain.axes,
        })
        .map(|axis| axis.name.clone())
        .collect()
}

async fn dropped(pool: &Pool, study: &StudyId) -> Result<Vec<DroppedCellView>, ReadError> {
    let rows: Vec<(String, String)> = query_as(
        "SELECT name, reason
FROM dropped_cells
WHERE study_id = ?1
ORDER BY stage, name",
    )
    .bind(study.as_str())
    .fetch_all(pool)
    .await
    .map_err(failed("the dropped cells of a study"))?;
    Ok(rows.into_iter().map(|(name, reason)| DroppedCellView { name, reason }).collect())
}

pub(super) async fn find(pool: &Pool, name_or_id: &str) -> Result<Lookup<StudyId>, ReadError> {
    let rows: Vec<(String, String)> =
        query_as("SELECT id, name FROM studies ORDER BY created_at_ms DESC, id")
            .fetch_all(pool)
            .await
            .map_err(failed("a study by its name"))?;
    // An identifier wins over a study that somebody named like one.
    let found = rows
        .iter()
        .find(|(id, _)| id == name_or_id)
        .or_else(|| rows.iter().find(|(_, name)| name == name_or_id));
    let Some((id, _)) = found else {
        let names = rows.iter().flat_map(|(id, name)| [name.as_str(), id.as_str()]);
        return Ok(Lookup::Missing { nearest: nearest(name_or_id, names).map(str::to_owned) });
    };
    id.parse().map(Lookup::Found).map_err(corrupt("identifier", id))
}

pub(super) async fn missing_sources(
    pool: &Pool,
    hashes: &[ContentHash],
) -> Result<Vec<ContentHash>, ReadError> {
    let mut known: Vec<(String,)> = Vec::new();
    for asked in hashes.chunks(HASHES_PER_QUERY) {
        let mut query = query_with_list("SELECT hash FROM sources WHERE hash IN", asked.len());
        for hash in asked {
            query = query.bind(hash.as_str());
        }
        known.extend(query.fetch_all(pool).await.map_err(failed("the known sources"))?);
    }
    let known: std::collections::HashSet<&str> =
        known.iter().map(|(hash,)| hash.as_str()).collect();
    Ok(hashes.iter().filter(|hash| !known.contains(hash.as_str())).cloned().collect())
}
