//! Pausing and resuming studies, and their priority.
//!
//! What that means for a run that several studies have is `wanted`'s; telling the workers is the
//! leader's.

use domain::ids::{LeaseToken, StudyId, WorkerId};
use domain::study::StudyEvent;
use serde_json::json;

use super::convert::{parse_id, unsigned};
use super::database::{Place, query, query_as};
use super::decision::{self, decide};
use super::error::from_driver;
use super::wanted;
use super::writer::{Command, Tx};
use crate::store::{Changed, StoreError};

pub(super) struct PauseStudy {
    pub(super) study: StudyId,
    pub(super) reason: String,
}

impl Command for PauseStudy {
    type Answer = Changed;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let event = StudyEvent::PauseRequested;
        let is_new = decide(tx, &self.study, event, &self.reason).await?;
        let mut changed = Changed::default();
        if is_new {
            changed.settled = wanted::settle_study(tx, &self.study, &mut changed).await?;
            let detail = json!({ "reason": self.reason });
            tx.record(self.study.as_str(), "study_paused", &detail);
        }
        changed.preempted = held_leases(&mut tx.conn).await?;
        Ok(changed)
    }
}

/// That a lease has a token is said for the sake of SQLite, which would else go through the queues.
pub(super) const HELD_LEASES: &str = "SELECT lease_token, lease_worker_id
FROM work
WHERE state = 'leased' AND lease_token IS NOT NULL AND is_held = 1 AND kind = 'run'
UNION
SELECT w.lease_token, w.lease_worker_id
FROM work w
JOIN members m ON m.attempt_token = w.lease_token AND m.is_held = 0
WHERE w.state = 'leased'
ORDER BY 1";

/// The attempts of runs that are held, and of gangs that a member has left. Evaluations and
/// preparations are short: they end by themselves.
pub(super) async fn held_leases(
    place: impl Into<Place<'_>>,
) -> Result<Vec<(LeaseToken, WorkerId)>, StoreError> {
    let rows: Vec<(i64, String)> =
        query_as(HELD_LEASES).fetch_all(place).await.map_err(from_driver)?;
    rows.into_iter()
        .map(|(token, worker)| Ok((LeaseToken(unsigned(token)), parse_id(&worker)?)))
        .collect()
}

pub(super) struct ResumeStudy(pub(super) StudyId);

impl Command for ResumeStudy {
    type Answer = Changed;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        let is_new = decide(tx, &self.0, StudyEvent::ResumeRequested, "").await?;
        let mut changed = Changed::default();
        if is_new {
            changed.settled = wanted::settle_study(tx, &self.0, &mut changed).await?;
            tx.record(self.0.as_str(), "study_resumed", &json!({}));
        }
        Ok(changed)
    }
}

pub(super) struct SetPriority {
    pub(super) study: StudyId,
    pub(super) priority: i32,
}

impl Command for SetPriority {
    type Answer = Changed;

    async fn run(self, tx: &mut Tx) -> Result<Changed, StoreError> {
        decision::about(tx, &self.study).await?;
        let set = query(
            "UPDATE studies
SET priority = ?, updated_at_ms = ?
WHERE id = ? AND priority <> ?",
        )
        .bind(self.priority)
        .bind(tx.now_ms)
        .bind(self.study.as_str())
        .bind(self.priority)
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
        let mut changed = Changed::default();
        if set.rows_affected() > 0 {
            changed.settled = wanted::settle_study(tx, &self.study, &mut changed).await?;
            let detail = json!({ "priority": self.priority });
            tx.record(self.study.as_str(), "study_prioritised", &detail);
        }
        Ok(changed)
    }
}
