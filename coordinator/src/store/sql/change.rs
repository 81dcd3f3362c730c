//! Cancelling and retrying studies and runs.
//!
//! What a state becomes is the domain's; telling the workers is the leader's.

use domain::ids::{RunId, StudyId, WorkId};
use domain::run::RunEvent;
use domain::study::StudyEvent;
use serde_json::json;

use super::convert::parse_id;
use super::database::query_scalar;
use super::decision::{self, decide};
use super::error::from_driver;
use super::evaluations;
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

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        let event = StudyEvent::CancelRequested;
        if !decide(tx, &self.study, event, &self.reason).await? {
            return Ok(changed);
        }
        let runs = runs_of(tx, &self.study).await?;
        for run in &runs {
            cancel_unwanted(tx, run, &mut changed).await?;
        }
        // What only a paused study wants now is held, and less urgent.
        wanted::settle_study(tx, &self.study).await?;
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
        cancel_with_evaluations(tx, &self.run, &mut changed).await?;
        wanted::settle_run(tx, &self.run).await?;
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

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let mut changed = Changed::default();
        let event = StudyEvent::RetryRequested { of_all: self.which == Retry::All };
        decide(tx, &self.study, event, "").await?;
        if decision::about(tx, &self.study).await?.is_cancelled() {
            // Nobody would measure what is trained for a study that is cancelled.
            return Ok(changed);
        }
        let runs = runs_of(tx, &self.study).await?;
        for run in &runs {
            retry_with_needs(tx, run, self.which, &mut changed).await?;
            // While the study was cancelled, its runs' data points got no evaluation of its own.
            evaluations::ensure_for_run(tx, run).await?;
        }
        // Only now: what the data is wanted for depends on what was queued again.
        wanted::settle_study(tx, &self.study).await?;
        tx.record(self.study.as_str(), "study_retried", &json!({}));
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
        retry_with_needs(tx, &self.run, self.which, &mut changed).await?;
        wanted::settle_run(tx, &self.run).await?;
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

/// Cancels a run that no live study has a cell on, its evaluations, and its data when no other
/// open run needs that.
pub(super) async fn cancel_unwanted(
    tx: &mut Tx,
    run: &RunId,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let wanted: i64 = query_scalar(
        "SELECT COUNT(*)
FROM cells
JOIN studies ON studies.id = cells.study_id
WHERE cells.run_id = ? AND studies.is_cancelled = 0",
    )
    .bind(run.as_str())
    .fetch_one(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    if wanted > 0 {
        return Ok(());
    }
    cancel_with_evaluations(tx, run, changed).await?;
    let unneeded: Option<String> = query_scalar(
        "SELECT preparation_id
FROM runs
WHERE id = ? AND NOT EXISTS (
    SELECT 1
    FROM work
    WHERE work.depends_on = runs.preparation_id
        AND work.state IN ('waiting', 'queued', 'leased', 'backoff')
)",
    )
    .bind(run.as_str())
    .fetch_optional(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    if let Some(preparation) = unneeded {
        advance(tx, &parse_id(&preparation)?, RunEvent::CancelRequested, changed).await?;
    }
    Ok(())
}

async fn cancel_with_evaluations(
    tx: &mut Tx,
    run: &RunId,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    advance(tx, &WorkId::Run(run.clone()), RunEvent::CancelRequested, changed).await?;
    for evaluation in evaluations_of(tx, run).await? {
        advance(tx, &evaluation, RunEvent::CancelRequested, changed).await?;
    }
    Ok(())
}

/// Retries a run, its evaluations, and the data that it waits for.
async fn retry_with_needs(
    tx: &mut Tx,
    run: &RunId,
    which: Retry,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let preparation: Option<String> = query_scalar("SELECT preparation_id FROM runs WHERE id = ?")
        .bind(run.as_str())
        .fetch_optional(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    let Some(preparation) = preparation else {
        return Err(StoreError::NotFound { kind: "run", id: run.to_string() });
    };
    let work = WorkId::Run(run.clone());
    let is_meant = WorkRow::load(tx, &work).await?.is_some_and(|row| row.is_meant_by(which));
    if is_meant {
        // The data first, so that the run finds it on its way.
        retry_if_meant(tx, &parse_id(&preparation)?, Retry::All, changed).await?;
        retry_if_meant(tx, &work, which, changed).await?;
    }
    for evaluation in evaluations_of(tx, run).await? {
        retry_if_meant(tx, &evaluation, which, changed).await?;
    }
    Ok(())
}

async fn retry_if_meant(
    tx: &mut Tx,
    work: &WorkId,
    which: Retry,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    if WorkRow::load(tx, work).await?.is_some_and(|row| row.is_meant_by(which)) {
        advance(tx, work, RunEvent::RetryRequested, changed).await?;
    }
    Ok(())
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

pub(super) async fn evaluations_of(tx: &mut Tx, run: &RunId) -> Result<Vec<WorkId>, StoreError> {
    let ids: Vec<String> = query_scalar(
        "SELECT id
FROM evaluations
WHERE run_id = ?
ORDER BY step, id",
    )
    .bind(run.as_str())
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    ids.iter().map(|id| parse_id(id)).collect()
}
