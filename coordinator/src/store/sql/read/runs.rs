//! Runs in a line: the lists, and what a name means.
//! What else one run has is `super::run_parts`; curves are `super::curves`.

use std::collections::BTreeMap;

use api::RunSummary;
use domain::ids::{RunId, StudyId};
use domain::suggest::nearest;

use super::{corrupt, count, failed, from_json, small_count};
use crate::store::read::{Lookup, ReadError};
use crate::store::sql::database::{Pool, query_as, query_scalar};

/// Names beyond this many are not searched for the nearest one: that is a help, not a promise.
const MAX_SUGGESTED_FROM: u32 = 10_000;

const OF_STUDY: &str = concat!(
    include_str!("run_summary.sql"),
    "JOIN cells c ON c.run_id = r.id
JOIN studies s ON s.id = c.study_id
WHERE c.study_id = ?1
ORDER BY c.position, c.name"
);

const ACTIVE_OF_STUDY: &str = concat!(
    include_str!("run_summary.sql"),
    "JOIN cells c ON c.run_id = r.id
JOIN studies s ON s.id = c.study_id
WHERE c.study_id = ?1 AND w.state = 'leased'
ORDER BY c.position, c.name"
);

/// The first cell of a run, which `once_each` keeps, is that of the oldest study that has it.
macro_rules! with_cells {
    ($tail:literal) => {
        concat!(
            include_str!("run_summary.sql"),
            "LEFT JOIN cells c ON c.run_id = r.id
LEFT JOIN studies s ON s.id = c.study_id
",
            $tail
        )
    };
}

const ALL: &str =
    with_cells!("ORDER BY COALESCE(s.created_at_ms, 0), COALESCE(s.id, ''), c.position, r.id");
const ONE: &str = with_cells!(
    "WHERE r.id = ?2
ORDER BY COALESCE(s.created_at_ms, 0), COALESCE(s.id, ''), c.position
LIMIT 1"
);

/// A run that is shown without a study has the measurements of all that have it.
const NO_STUDY: Option<&str> = None;

#[derive(sqlx::FromRow)]
struct SummaryRow {
    id: String,
    name: String,
    study: String,
    axis_values_json: String,
    budget_flops: Option<f64>,
    state: String,
    worker_id: Option<String>,
    worker: Option<String>,
    n_attempts: i64,
    parameters_non_embedding: i64,
    parameters_total: i64,
    steps: i64,
    step: i64,
    tokens: i64,
    flops_exact: f64,
    flops_published: f64,
    has_changed_numerics: i64,
    train_loss_nats: Option<f64>,
    tokens_per_second: Option<f64>,
    validation_loss_nats: Option<f64>,
    message: String,
}

impl SummaryRow {
    fn into_view(self) -> Result<RunSummary, ReadError> {
        Ok(RunSummary {
            axis_values: from_json(&self.axis_values_json, "axis values", &self.id)?,
            id: self.id,
            name: self.name,
            study: self.study,
            state: self.state,
            worker_id: self.worker_id,
            worker: self.worker,
            parameters_non_embedding: count(self.parameters_non_embedding),
            parameters_total: count(self.parameters_total),
            steps: count(self.steps),
            step: count(self.step),
            tokens: count(self.tokens),
            flops_exact: self.flops_exact,
            flops_published: self.flops_published,
            budget_flops: self.budget_flops,
            train_loss_nats: self.train_loss_nats,
            validation_loss_nats: self.validation_loss_nats,
            tokens_per_second: self.tokens_per_second,
            n_attempts: small_count(self.n_attempts),
            message: self.message,
            has_changed_numerics: self.has_changed_numerics != 0,
        })
    }
}

/// Several cells may share a run: it is listed once, under the first cell's name.
fn once_each(rows: Vec<SummaryRow>) -> Result<Vec<RunSummary>, ReadError> {
    let mut seen = std::collections::HashSet::new();
    rows.into_iter().filter(|row| seen.insert(row.id.clone())).map(SummaryRow::into_view).collect()
}

pub(super) async fn of_study(pool: &Pool, study: &StudyId) -> Result<Vec<RunSummary>, ReadError> {
    let query = query_as(OF_STUDY).bind(study.as_str());
    once_each(query.fetch_all(pool).await.map_err(failed("the runs of a study"))?)
}

pub(super) async fn active(pool: &Pool, study: &StudyId) -> Result<Vec<RunSummary>, ReadError> {
    let query = query_as(ACTIVE_OF_STUDY).bind(study.as_str());
    once_each(query.fetch_all(pool).await.map_err(failed("the active runs of a study"))?)
}

pub(super) async fn all(pool: &Pool) -> Result<Vec<RunSummary>, ReadError> {
    let query = query_as(ALL).bind(NO_STUDY);
    once_each(query.fetch_all(pool).await.map_err(failed("the runs"))?)
}

pub(super) async fn find(pool: &Pool, name_or_id: &str) -> Result<Lookup<RunId>, ReadError> {
    let found: Vec<(String, String)> = query_as(
        "SELECT r.id AS run_id, '' AS study
FROM runs r
WHERE r.id = ?1
UNION ALL
SELECT c.run_id, s.name AS study
FROM cells c
JOIN studies s ON s.id = c.study_id
WHERE c.name = ?1 AND NOT EXISTS (SELECT * FROM runs WHERE id = ?1)
ORDER BY run_id, study",
    )
    .bind(name_or_id)
    .fetch_all(pool)
    .await
    .map_err(failed("a run by its name"))?;
    let mut studies: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (run_id, study) in found {
        let of_run = studies.entry(run_id).or_default();
        if !of_run.contains(&study) {
            of_run.push(study);
        }
    }
    if studies.len() > 1 {
        let candidate = |(run_id, studies): (&String, &Vec<String>)| {
            format!("`{run_id}` (study `{}`)", studies.join(","))
        };
        return Ok(Lookup::Ambiguous { candidates: studies.iter().map(candidate).collect() });
    }
    match studies.into_keys().next() {
        None => Ok(Lookup::Missing { nearest: nearest_name(pool, name_or_id).await? }),
        Some(run_id) => run_id.parse().map(Lookup::Found).map_err(corrupt("identifier", &run_id)),
    }
}

async fn nearest_name(pool: &Pool, written: &str) -> Result<Option<String>, ReadError> {
    let names: Vec<String> = query_scalar(
        "SELECT DISTINCT name FROM cells
UNION
SELECT id FROM runs
LIMIT ?1",
    )
    .bind(MAX_SUGGESTED_FROM)
    .fetch_all(pool)
    .await
    .map_err(failed("the runs' names"))?;
    Ok(nearest(written, names.iter().map(String::as_str)).map(str::to_owned))
}

pub(super) async fn summary(pool: &Pool, run: &RunId) -> Result<Option<RunSummary>, ReadError> {
    let query = query_as(ONE).bind(NO_STUDY).bind(run.as_str());
    let row: Option<SummaryRow> = query.fetch_optional(pool).await.map_err(failed("a run"))?;
    row.map(SummaryRow::into_view).transpose()
}
