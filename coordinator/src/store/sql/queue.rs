//! The head of the queue, for the scheduler: a bounded piece of each study's, and what those studies
//! say about it.
//!
//! Which of it is granted is `scheduler::policy`'s.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use domain::ids::{StudyId, WorkId};

use super::convert::{from_json, parse_id, signed, unsigned};
use super::database::{Pool, query_as, query_with_list};
use super::error::from_driver;
use crate::scheduler::fit::{Machine, largest_slot};
use crate::scheduler::policy::{BusySlot, Needs, QueueHead, QueuedWork, StudyTerms};
use crate::store::{Numerics, StoreError};

/// With more studies than this, each has fewer runs in a look.
const STUDIES_IN_FULL: u32 = 8;

/// However many studies there are, so many runs and evaluations of each are looked at.
const FEWEST_OF_EACH: u32 = 16;

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
    all_flops: f64,
    latest_step: i64,
    steps: i64,
}

impl BusyRow {
    fn into_slot(self) -> Result<BusySlot, StoreError> {
        let done = self.latest_step as f64 / self.steps.max(1) as f64;
        let flops_left = self.all_flops * (1.0 - done).max(0.0);
        Ok(BusySlot { worker: parse_id(&self.worker_id)?, flops_left })
    }
}

pub(super) const BUSY: &str = "SELECT work.lease_worker_id AS worker_id,
    COALESCE(runs.flops_exact, work.cost_flops) AS all_flops,
    COALESCE(runs.latest_step, 0) AS latest_step, COALESCE(runs.steps, 1) AS steps
FROM work
LEFT JOIN runs ON runs.id = work.id
WHERE work.state = 'leased'
UNION ALL
SELECT members.worker_id, runs.flops_exact, runs.latest_step, runs.steps
FROM work
JOIN members ON members.attempt_token = work.lease_token AND members.is_held = 1
JOIN runs ON runs.id = work.id
WHERE work.state = 'leased'";

/// The slots that are taken.
pub(super) async fn busy(pool: &Pool) -> Result<Vec<BusySlot>, StoreError> {
    let rows: Vec<BusyRow> = query_as(BUSY).fetch_all(pool).await.map_err(from_driver)?;
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
    spent_flops: f64,
    placement_json: String,
}

impl TermsRow {
    fn into_terms(self) -> Result<(Option<StudyId>, StudyTerms), StoreError> {
        let terms = StudyTerms {
            user: self.user_name,
            weight: self.weight,
            budget_left_flops: self.budget_flops.map(|budget| budget - self.spent_flops),
            placement: from_json(&self.placement_json, "placement_json")?,
        };
        Ok((study_of(&self.id)?, terms))
    }
}

/// What a study says.
macro_rules! terms {
    () => {
        "SELECT studies.id, studies.user_name, studies.weight, studies.budget_flops,
    studies.placement_json, studies.spent_flops
FROM studies
WHERE "
    };
}

/// Each read follows an index and stops early, so that the length of the queue costs nothing. What
/// one study has in the queue hides nothing of another.
pub(super) async fn head(
    pool: &Pool,
    limit: u32,
    machines: Option<&[Machine]>,
) -> Result<QueueHead, StoreError> {
    read(pool, limit, Part::Head(machines)).await
}

/// A piece of the whole queue. Where much of it is equally long, what is of one length is sorted for
/// each piece: without a whole order something might be in none of them.
pub(super) async fn page(pool: &Pool, limit: u32, page: u32) -> Result<QueueHead, StoreError> {
    read(pool, limit, Part::Page(page)).await
}

/// Which part of the queue.
#[derive(Clone, Copy)]
enum Part<'a> {
    /// What goes first, of runs those that may begin on one of the machines.
    Head(Option<&'a [Machine]>),
    /// So many times as much is passed over.
    Page(u32),
}

impl Part<'_> {
    fn n_passed(self, limit: u32) -> i64 {
        match self {
            Self::Head(_) => 0,
            Self::Page(page) => i64::from(limit) * i64::from(page),
        }
    }
}

async fn read(pool: &Pool, limit: u32, part: Part<'_>) -> Result<QueueHead, StoreError> {
    let mut work = preparations(pool, limit, part.n_passed(limit)).await?;
    let wanting = wanting(pool).await?;
    let n_studies = u32::try_from(wanting.len()).unwrap_or(u32::MAX);
    let share = limit.saturating_mul(STUDIES_IN_FULL) / n_studies.max(1);
    let of_each = share.max(FEWEST_OF_EACH).min(limit);
    let mut is_cut = work.len() >= limit as usize;
    for Wanting { study, terms, has_runs, has_evaluations } in &wanting {
        let study = study.as_ref().map_or("", StudyId::as_str);
        if *has_evaluations {
            let own = evaluations_of(pool, study, of_each, part).await?;
            is_cut |= own.len() >= of_each as usize;
            work.extend(own);
        }
        if *has_runs {
            let own = match part {
                Part::Head(machines) => runs_of(pool, (study, terms), of_each, machines).await?,
                Part::Page(_) => runs_after(pool, study, of_each, part.n_passed(of_each)).await?,
            };
            is_cut |= own.len() >= of_each as usize;
            work.extend(own);
        }
    }
    let studies: BTreeMap<StudyId, StudyTerms> =
        wanting.into_iter().filter_map(|wanting| Some((wanting.study?, wanting.terms))).collect();
    work.sort_by(|a, b| {
        Reverse(a.priority)
            .cmp(&Reverse(b.priority))
            .then(rank(&a.work).cmp(&rank(&b.work)))
            .then(b.cost_flops.total_cmp(&a.cost_flops))
            .then(a.work.cmp(&b.work))
    });
    Ok(QueueHead { work, studies, is_cut })
}

/// What goes first in one priority, for whoever looks at the head.
fn rank(work: &WorkId) -> u8 {
    match work {
        WorkId::Preparation(_) => 0,
        WorkId::Evaluation(_) => 1,
        WorkId::Run(_) => 2,
    }
}

async fn preparations(
    pool: &Pool,
    limit: u32,
    n_passed: i64,
) -> Result<Vec<QueuedWork>, StoreError> {
    let rows: Vec<QueuedRow> = query_as(
        "SELECT id, priority, cost_flops, study_id, n_attempts, excluded_json,
    CAST(NULL AS TEXT) AS recipe, CAST(NULL AS TEXT) AS numerics_json,
    CAST(0 AS BIGINT) AS memory_bytes
FROM work
WHERE state = 'queued' AND is_held = 0 AND kind = 'preparation'
ORDER BY priority DESC, id
LIMIT ? OFFSET ?",
    )
    .bind(limit)
    .bind(n_passed)
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    rows.into_iter().map(QueuedRow::into_work).collect()
}

/// A study that has something in the queue.
struct Wanting {
    /// None for what no live study has.
    study: Option<StudyId>,
    terms: StudyTerms,
    has_runs: bool,
    has_evaluations: bool,
}

#[derive(Debug, sqlx::FromRow)]
struct WantingRow {
    #[sqlx(flatten)]
    terms: TermsRow,
    has_runs: i64,
    has_evaluations: i64,
}

/// Whether something of this kind is queued of the study at hand. The order is that of the index, whose
/// first entry then tells: of `EXISTS` PostgreSQL may read all work into a hash.
macro_rules! has {
    ($study:literal, $kind:literal) => {
        concat!(
            "COALESCE((
        SELECT 1
        FROM work
        WHERE work.study_id = ",
            $study,
            " AND work.state = 'queued' AND work.is_held = 0
            AND work.kind = '",
            $kind,
            "'
        ORDER BY work.priority DESC, work.cost_flops DESC
        LIMIT 1
    ), 0)"
        )
    };
}

/// Which studies have runs or evaluations in the queue.
pub(super) const WANTING: &str = concat!(
    "SELECT *
FROM (
    SELECT id, user_name, weight, budget_flops, placement_json, spent_flops,
        CAST(",
    has!("studies.id", "run"),
    " AS BIGINT) AS has_runs,
        CAST(",
    has!("studies.id", "evaluation"),
    " AS BIGINT) AS has_evaluations
    FROM studies
    UNION ALL
    SELECT '' AS id, '' AS user_name, 1.0 AS weight,
        CAST(NULL AS DOUBLE PRECISION) AS budget_flops, '{}' AS placement_json,
        0.0 AS spent_flops,
        CAST(",
    has!("''", "run"),
    " AS BIGINT) AS has_runs,
        CAST(",
    has!("''", "evaluation"),
    " AS BIGINT) AS has_evaluations
) AS asking
WHERE has_runs = 1 OR has_evaluations = 1"
);

/// The studies that have runs or evaluations in the queue; with none of them, what no live study has.
async fn wanting(pool: &Pool) -> Result<Vec<Wanting>, StoreError> {
    let rows: Vec<WantingRow> = query_as(WANTING).fetch_all(pool).await.map_err(from_driver)?;
    let wanting = |row: WantingRow| {
        let (study, terms) = row.terms.into_terms()?;
        let (has_runs, has_evaluations) = (row.has_runs != 0, row.has_evaluations != 0);
        Ok(Wanting { study, terms, has_runs, has_evaluations })
    };
    rows.into_iter().map(wanting).collect()
}

/// The evaluations of a study in an order.
macro_rules! evaluations {
    ($order:literal) => {
        concat!(
            "SELECT work.id, work.priority, work.cost_flops, work.study_id, work.n_attempts,
    work.excluded_json, runs.recipe, CAST(NULL AS TEXT) AS numerics_json,
    CAST(0 AS BIGINT) AS memory_bytes
FROM work
JOIN evaluations ON evaluations.id = work.id
JOIN runs ON runs.id = evaluations.run_id
WHERE work.study_id = ? AND work.state = 'queued' AND work.is_held = 0
    AND work.kind = 'evaluation'
ORDER BY ",
            $order,
            "
LIMIT ? OFFSET ?"
        )
    };
}

async fn evaluations_of(
    pool: &Pool,
    study: &str,
    limit: u32,
    part: Part<'_>,
) -> Result<Vec<QueuedWork>, StoreError> {
    let sql = match part {
        Part::Head(_) => evaluations!("work.priority DESC, work.cost_flops DESC"),
        Part::Page(_) => evaluations!("work.priority DESC, work.cost_flops DESC, work.id"),
    };
    let rows: Vec<QueuedRow> = query_as(sql)
        .bind(study)
        .bind(limit)
        .bind(part.n_passed(limit))
        .fetch_all(pool)
        .await
        .map_err(from_driver)?;
    rows.into_iter().map(QueuedRow::into_work).collect()
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
    machines: Option<&[Machine]>,
) -> Result<Vec<QueuedWork>, StoreError> {
    // What the study says itself holds for each run alike, and hides none.
    let is_same_for_all = terms.placement.memory_bytes.is_some();
    let most_memory = machines
        .filter(|_| !is_same_for_all)
        .map_or(u64::MAX, |machines| largest_slot(machines, &terms.placement));
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

/// What is passed over is not looked for among the runs.
async fn runs_after(
    pool: &Pool,
    study: &str,
    limit: u32,
    n_passed: i64,
) -> Result<Vec<QueuedWork>, StoreError> {
    let rows: Vec<QueuedRow> = query_as(
        "SELECT work.id, work.priority, work.cost_flops, work.study_id, work.n_attempts,
    work.excluded_json, runs.recipe, runs.numerics_json, runs.memory_bytes
FROM (
    SELECT id
    FROM work
    WHERE study_id = ? AND state = 'queued' AND is_held = 0 AND kind = 'run'
    ORDER BY priority DESC, cost_flops DESC, id
    LIMIT ? OFFSET ?
) AS page
JOIN work ON work.id = page.id
JOIN runs ON runs.id = page.id",
    )
    .bind(study)
    .bind(limit)
    .bind(n_passed)
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    rows.into_iter().map(QueuedRow::into_work).collect()
}
