//! The head of the queue, for the scheduler: a bounded piece of each study's, and what those studies
//! say about it.
//!
//! Which of it is granted is `scheduler::policy`'s.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use domain::ids::StudyId;
use domain::spec::PlacementSpec;

use super::convert::{from_json, parse_id, signed, unsigned};
use super::database::{Pool, query_as, query_with_list};
use super::error::from_driver;
use crate::scheduler::policy::{BusySlot, Needs, QueueHead, QueuedWork, StudyTerms};
use crate::store::{Numerics, StoreError};

/// With more studies than this, each has fewer runs in a look.
const STUDIES_IN_FULL: u32 = 8;

/// However many studies there are, so many runs of each are looked at.
const FEWEST_RUNS: u32 = 16;

#[derive(Debug, sqlx::FromRow)]
struct QueuedRow {
    id: String,
    priority: i64,
    cost_flops: f64,
    study_id: String,
    n_attempts: i64,
    excluded_json: String,
    recipe: Option<String>,
    numerics_json: Option<String>,
    memory_bytes: i64,
}

impl QueuedRow {
    fn into_work(self) -> Result<QueuedWork, StoreError> {
        let numerics: Option<Numerics> =
            self.numerics_json.map(|text| from_json(&text, "numerics_json")).transpose()?;
        Ok(QueuedWork {
            work: parse_id(&self.id)?,
            priority: i32::try_from(self.priority).unwrap_or_default(),
            cost_flops: self.cost_flops,
            study: study_of(&self.study_id)?,
            has_begun: self.n_attempts > 0,
            needs: Needs {
                recipe: self.recipe,
                numerics,
                memory_bytes: unsigned(self.memory_bytes),
                excluded: from_json(&self.excluded_json, "excluded_json")?,
            },
        })
    }
}

#[derive(Debug, sqlx::FromRow)]
struct BusyRow {
    worker_id: String,
    cost_flops: f64,
    latest_step: i64,
    steps: i64,
}

impl BusyRow {
    fn into_slot(self) -> Result<BusySlot, StoreError> {
        let done = self.latest_step as f64 / self.steps.max(1) as f64;
        let flops_left = self.cost_flops * (1.0 - done).max(0.0);
        Ok(BusySlot { worker: parse_id(&self.worker_id)?, flops_left })
    }
}

/// The slots that are taken.
pub(super) async fn busy(pool: &Pool) -> Result<Vec<BusySlot>, StoreError> {
    let rows: Vec<BusyRow> = query_as(
        "SELECT work.lease_worker_id AS worker_id, work.cost_flops,
    COALESCE(runs.latest_step, 0) AS latest_step, COALESCE(runs.steps, 1) AS steps
FROM work
LEFT JOIN runs ON runs.id = work.id
WHERE work.state = 'leased'
UNION ALL
SELECT members.worker_id, work.cost_flops, runs.latest_step, runs.steps
FROM work
JOIN members ON members.attempt_token = work.lease_token AND members.is_held = 1
JOIN runs ON runs.id = work.id
WHERE work.state = 'leased'",
    )
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    rows.into_iter().map(BusyRow::into_slot).collect()
}

/// An empty text is no study.
pub(super) fn study_of(id: &str) -> Result<Option<StudyId>, StoreError> {
    if id.is_empty() { Ok(None) } else { parse_id(id).map(Some) }
}

#[derive(Debug, sqlx::FromRow)]
struct TermsRow {
    id: String,
    user_name: String,
    weight: f64,
    budget_flops: Option<f64>,
    begun_flops: f64,
    placement_json: String,
}

impl TermsRow {
    fn into_terms(self) -> Result<(Option<StudyId>, StudyTerms), StoreError> {
        let terms = StudyTerms {
            user: self.user_name,
            weight: self.weight,
            budget_left_flops: self.budget_flops.map(|budget| budget - self.begun_flops),
            placement: from_json(&self.placement_json, "placement_json")?,
        };
        Ok((study_of(&self.id)?, terms))
    }
}

/// What a study says. Only where there is a budget is it summed up what was begun.
macro_rules! terms {
    () => {
        "SELECT studies.id, studies.user_name, studies.weight, studies.budget_flops,
    studies.placement_json,
    CASE WHEN studies.budget_flops IS NULL THEN 0.0 ELSE COALESCE((
        SELECT SUM(begun.cost_flops)
        FROM work AS begun
        WHERE begun.study_id = studies.id AND begun.kind = 'run' AND begun.n_attempts > 0
    ), 0.0) END AS begun_flops
FROM studies
WHERE "
    };
}

/// Each read follows an index and stops early, so that the length of the queue costs nothing.
pub(super) async fn head(
    pool: &Pool,
    limit: u32,
    largest_slot: u64,
) -> Result<QueueHead, StoreError> {
    let mut work = short(pool, limit).await?;
    let wanting = wanting(pool).await?;
    let n_studies = u32::try_from(wanting.len()).unwrap_or(u32::MAX);
    let share = limit.saturating_mul(STUDIES_IN_FULL) / n_studies.max(1);
    let of_each = share.max(FEWEST_RUNS).min(limit);
    let mut is_cut = work.len() >= limit as usize;
    let mut runs = Vec::new();
    for (study, terms) in &wanting {
        let study = study.as_ref().map_or("", StudyId::as_str);
        let own = runs_of(pool, (study, terms), of_each, largest_slot).await?;
        is_cut |= own.len() >= of_each as usize;
        runs.extend(own);
    }
    let mut studies: BTreeMap<StudyId, StudyTerms> =
        wanting.into_iter().filter_map(|(study, terms)| Some((study?, terms))).collect();
    let asking: BTreeSet<&str> =
        work.iter().filter_map(|work| work.study.as_ref()).map(StudyId::as_str).collect();
    let unknown: Vec<&str> = asking
        .into_iter()
        .filter(|asking| studies.keys().all(|study| study.as_str() != *asking))
        .collect();
    let others = terms_of(pool, &unknown).await?;
    studies.extend(others);
    runs.sort_by(|a, b| {
        Reverse(a.priority)
            .cmp(&Reverse(b.priority))
            .then(b.cost_flops.total_cmp(&a.cost_flops))
            .then(a.work.cmp(&b.work))
    });
    work.extend(runs);
    Ok(QueueHead { work, studies, is_cut })
}

/// What takes no turns.
async fn short(pool: &Pool, limit: u32) -> Result<Vec<QueuedWork>, StoreError> {
    let rows: Vec<QueuedRow> = query_as(
        "SELECT work.id, work.priority, work.cost_flops, work.study_id, work.n_attempts,
    work.excluded_json, runs.recipe, CAST(NULL AS TEXT) AS numerics_json,
    CAST(0 AS BIGINT) AS memory_bytes
FROM work
LEFT JOIN evaluations ON evaluations.id = work.id
LEFT JOIN runs ON runs.id = evaluations.run_id
WHERE work.state = 'queued' AND work.is_held = 0 AND work.kind <> 'run'
ORDER BY work.priority DESC, work.cost_flops DESC
LIMIT ?",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    rows.into_iter().map(QueuedRow::into_work).collect()
}

/// The studies that have runs in the queue; with none of them, what no live study has.
async fn wanting(pool: &Pool) -> Result<Vec<(Option<StudyId>, StudyTerms)>, StoreError> {
    let rows: Vec<TermsRow> = query_as(concat!(
        terms!(),
        "studies.is_cancelled = 0 AND EXISTS (
    SELECT *
    FROM work
    WHERE work.study_id = studies.id AND work.state = 'queued' AND work.is_held = 0
        AND work.kind = 'run'
)
UNION ALL
SELECT '' AS id, '' AS user_name, 1.0 AS weight, CAST(NULL AS DOUBLE PRECISION) AS budget_flops,
    '{}' AS placement_json, 0.0 AS begun_flops
WHERE EXISTS (
    SELECT *
    FROM work
    WHERE work.study_id = '' AND work.state = 'queued' AND work.is_held = 0 AND work.kind = 'run'
)"
    ))
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    rows.into_iter().map(TermsRow::into_terms).collect()
}

/// What these studies say.
pub(super) async fn terms_of(
    pool: &Pool,
    studies: &[&str],
) -> Result<BTreeMap<StudyId, StudyTerms>, StoreError> {
    if studies.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut query = query_with_list::<TermsRow>(concat!(terms!(), "studies.id IN"), studies.len());
    for study in studies {
        query = query.bind(*study);
    }
    let rows = query.fetch_all(pool).await.map_err(from_driver)?;
    let found = rows.into_iter().map(TermsRow::into_terms);
    found.filter_map(|row| row.map(|(study, terms)| Some((study?, terms))).transpose()).collect()
}

async fn runs_of(
    pool: &Pool,
    (study, terms): (&str, &StudyTerms),
    limit: u32,
    largest_slot: u64,
) -> Result<Vec<QueuedWork>, StoreError> {
    // What the study says itself holds for each run alike, and hides none.
    let most_memory = match terms.placement {
        PlacementSpec { memory_bytes: Some(_), .. } => u64::MAX,
        _ => largest_slot,
    };
    let rows: Vec<QueuedRow> = query_as(
        "SELECT work.id, work.priority, work.cost_flops, work.study_id, work.n_attempts,
    work.excluded_json, runs.recipe, runs.numerics_json, runs.memory_bytes
FROM work
JOIN runs ON runs.id = work.id
WHERE work.study_id = ? AND work.state = 'queued' AND work.is_held = 0 AND work.kind = 'run'
    AND runs.memory_bytes <= ? AND (work.n_attempts > 0 OR work.cost_flops <= ?)
ORDER BY work.priority DESC, work.cost_flops DESC
LIMIT ?",
    )
    .bind(study)
    .bind(signed(most_memory))
    .bind(terms.most_flops())
    .bind(limit)
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    rows.into_iter().map(QueuedRow::into_work).collect()
}
