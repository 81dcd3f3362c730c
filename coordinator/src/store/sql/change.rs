//! Cancelling and retrying studies and runs.
//!
//! What a state becomes is the domain's; telling the workers is the leader's.

use std::collections::BTreeSet;
use std::str::FromStr;

use domain::attempt::AttemptEnd;
use domain::ids::{IdError, RunId, StudyId, WorkId};
use domain::run::RunEvent;
use domain::study::StudyEvent;
use serde_json::json;

use super::convert::parse_id;
use super::database::{query_scalar, query_with_list};
use super::decision::{self, decide};
use super::error::from_driver;
use super::evaluations;
use super::many::{self, Asked};
use super::wanted;
use super::work::{WorkRow, advance};
use super::writer::{Command, Tx};
use crate::store::{Changed, Retry, StoreError};

pub(super) struct CancelStudy {
    pub(super) study: StudyId,
    pub(super) reason: String,
}

impl Command for CancelStudy {
    type Answer = Changed;

    const WRITES_MANY: bool = true;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        let event = StudyEvent::CancelRequested;
        if !decide(tx, &self.study, event, &self.reason).await? {
            return Ok(changed);
        }
        let runs = runs_of(tx, &self.study).await?;
        cancel_unwanted(tx, &runs, &mut changed).await?;
        // What only a paused study wants now is held, and less urgent.
        wanted::settle_study(tx, &self.study, &mut changed).await?;
        let detail = json!({ "reason": self.reason });
        tx.record(self.study.as_str(), "study_cancelled", &detail);
        Ok(changed)
    }
}

pub(super) struct CancelRun {
    pub(super) run: RunId,
    pub(super) reason: String,
}

impl Command for CancelRun {
    type Answer = Changed;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        let run = std::slice::from_ref(&self.run);
        cancel_with_evaluations(tx, run, &mut changed).await?;
        wanted::settle_runs(tx, run, &mut changed).await?;
        if !changed.work.is_empty() {
            let detail = json!({ "reason": self.reason });
            tx.record(self.run.as_str(), "cancel_requested", &detail);
        }
        Ok(changed)
    }
}

pub(super) struct RetryStudy {
    pub(super) study: StudyId,
    pub(super) which: Retry,
}

impl Command for RetryStudy {
    type Answer = Changed;

    const WRITES_MANY: bool = true;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        let event = StudyEvent::RetryRequested { of_all: self.which == Retry::All };
        let is_back = decide(tx, &self.study, event, "").await?;
        if decision::about(tx, &self.study).await?.is_cancelled() {
            // Nobody would measure what is trained for a study that is cancelled.
            return Ok(changed);
        }
        let runs = runs_of(tx, &self.study).await?;
        retry_with_needs(tx, &runs, self.which, &mut changed).await?;
        if is_back {
            // While the study was cancelled, its runs' data points got no evaluation of its own.
            for run in evaluations::with_data_points(tx, &self.study).await? {
                evaluations::ensure_for_run(tx, &run).await?;
            }
        }
        // Only now: what the data is wanted for depends on what was queued again.
        wanted::settle_study(tx, &self.study, &mut changed).await?;
        if is_back || !changed.work.is_empty() {
            let detail = json!({ "which": self.which.label(), "n_changed": changed.work.len() });
            tx.record(self.study.as_str(), "study_retried", &detail);
        }
        Ok(changed)
    }
}

pub(super) struct RetryRun {
    pub(super) run: RunId,
    pub(super) which: Retry,
}

impl Command for RetryRun {
    type Answer = Changed;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        let run = std::slice::from_ref(&self.run);
        retry_with_needs(tx, run, self.which, &mut changed).await?;
        wanted::settle_runs(tx, run, &mut changed).await?;
        Ok(changed)
    }
}

/// The runs of a study.
async fn runs_of(tx: &mut Tx, study: &StudyId) -> Result<Vec<RunId>, StoreError> {
    let runs: Vec<String> = query_scalar(
        "SELECT DISTINCT run_id
FROM cells
WHERE study_id = ?
ORDER BY run_id",
    )
    .bind(study.as_str())
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    runs.iter().map(|run| parse_id(run)).collect()
}

/// Cancels those runs that no live study has a cell on, their evaluations, and data that no other
/// open run needs.
pub(super) async fn cancel_unwanted(
    tx: &mut Tx,
    runs: &[RunId],
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let unwanted: Vec<RunId> = of_runs(
        tx,
        runs,
        "SELECT id
FROM runs
WHERE NOT EXISTS (
    SELECT 1
    FROM cells
    JOIN studies ON studies.id = cells.study_id
    WHERE cells.run_id = runs.id AND studies.is_cancelled = 0
) AND id IN",
    )
    .await?;
    cancel_with_evaluations(tx, &unwanted, changed).await?;
    for preparation in preparations_of(tx, &unwanted).await? {
        let open: Option<String> = query_scalar(
            "SELECT id
FROM work
WHERE depends_on = ? AND state IN ('waiting', 'queued', 'leased', 'backoff')
LIMIT 1",
        )
        .bind(preparation.as_str())
        .fetch_optional(&mut tx.conn)
        .await
        .map_err(from_driver)?;
        if open.is_none() {
            advance(tx, &preparation, RunEvent::CancelRequested, changed).await?;
        }
    }
    Ok(())
}

async fn cancel_with_evaluations(
    tx: &mut Tx,
    runs: &[RunId],
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let works: Vec<WorkId> = runs.iter().cloned().map(WorkId::Run).collect();
    many::ask(tx, &works, Asked::Cancel, changed).await?;
    let evaluations = evaluations_of(tx, runs).await?;
    many::ask(tx, &evaluations, Asked::Cancel, changed).await
}

/// Retries runs, their evaluations, and the data that they wait for.
async fn retry_with_needs(
    tx: &mut Tx,
    runs: &[RunId],
    which: Retry,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let works: Vec<WorkId> = runs.iter().cloned().map(WorkId::Run).collect();
    let meant = meant_of(tx, &works, which).await?;
    let of_run = |work: &WorkId| match work {
        WorkId::Run(run) => Some(run.clone()),
        WorkId::Evaluation(_) | WorkId::Preparation(_) => None,
    };
    let runs_meant: Vec<RunId> = meant.iter().filter_map(of_run).collect();
    // The data first, so that the runs find it on its way; what they found damaged is made again.
    for preparation in found_damaged(tx, runs, which).await? {
        advance(tx, &preparation, RunEvent::RemakeRequested, changed).await?;
    }
    for preparation in preparations_of(tx, &runs_meant).await? {
        for preparation in meant_of(tx, &[preparation], Retry::All).await? {
            advance(tx, &preparation, RunEvent::RetryRequested, changed).await?;
        }
    }
    many::ask(tx, &meant, Asked::Retry, changed).await?;
    let evaluations = evaluations_of(tx, runs).await?;
    let meant = meant_of(tx, &evaluations, which).await?;
    many::ask(tx, &meant, Asked::Retry, changed).await
}

/// Those that a retry means.
async fn meant_of(tx: &mut Tx, works: &[WorkId], which: Retry) -> Result<Vec<WorkId>, StoreError> {
    let mut meant = Vec::new();
    for works in works.chunks(many::AT_ONCE) {
        let rows = WorkRow::load_many(tx, &works.iter().collect::<Vec<_>>()).await?;
        for work in works {
            let row = rows.get(work.as_str());
            let row = row
                .ok_or_else(|| StoreError::NotFound { kind: work.kind(), id: work.to_string() })?;
            if row.is_meant_by(which) {
                meant.push(work.clone());
            }
        }
    }
    Ok(meant)
}

/// Queues work again that is in one of these states.
pub(super) async fn retry_if_over(
    tx: &mut Tx,
    work: &WorkId,
    states: &[&str],
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let row = WorkRow::load(tx, work).await?;
    if row.is_some_and(|row| states.contains(&row.state.as_str())) {
        advance(tx, work, RunEvent::RetryRequested, changed).await?;
    }
    Ok(())
}

/// The evaluations of runs.
pub(super) async fn evaluations_of(tx: &mut Tx, runs: &[RunId]) -> Result<Vec<WorkId>, StoreError> {
    of_runs(tx, runs, "SELECT id FROM evaluations WHERE run_id IN").await
}

/// What is prepared for runs, each once.
async fn preparations_of(tx: &mut Tx, runs: &[RunId]) -> Result<BTreeSet<WorkId>, StoreError> {
    let sql = "SELECT DISTINCT preparation_id FROM runs WHERE id IN";
    Ok(of_runs(tx, runs, sql).await?.into_iter().collect())
}

/// What was prepared for those of these runs that failed because it is damaged, or whose evaluations
/// did, each once; of those that a retry means.
async fn found_damaged(
    tx: &mut Tx,
    runs: &[RunId],
    which: Retry,
) -> Result<BTreeSet<WorkId>, StoreError> {
    if !which.means("failed", Some(AttemptEnd::BadData.label())) {
        return Ok(BTreeSet::new());
    }
    let by_runs = "SELECT DISTINCT runs.preparation_id
FROM runs
JOIN work ON work.id = runs.id AND work.state = 'failed' AND work.failed_end = 'bad_data'
WHERE runs.id IN";
    let by_evaluations = "SELECT DISTINCT runs.preparation_id
FROM evaluations
JOIN runs ON runs.id = evaluations.run_id
JOIN work ON work.id = evaluations.id AND work.state = 'failed' AND work.failed_end = 'bad_data'
WHERE evaluations.run_id IN";
    let mut found: BTreeSet<WorkId> = of_runs(tx, runs, by_runs).await?.into_iter().collect();
    found.extend(of_runs::<WorkId>(tx, runs, by_evaluations).await?);
    Ok(found)
}

/// The identifiers that a statement, up to its list of runs, finds of some runs at a time; in order.
async fn of_runs<T: FromStr<Err = IdError>>(
    tx: &mut Tx,
    runs: &[RunId],
    sql: &'static str,
) -> Result<Vec<T>, StoreError> {
    let mut found = Vec::new();
    for runs in runs.chunks(many::AT_ONCE) {
        let mut query = query_with_list::<(String,)>(sql, runs.len());
        for run in runs {
            query = query.bind(run.as_str());
        }
        let mut ids = query.fetch_all(&mut tx.conn).await.map_err(from_driver)?;
        ids.sort();
        for (id,) in ids {
            found.push(parse_id(&id)?);
        }
    }
    Ok(found)
}
