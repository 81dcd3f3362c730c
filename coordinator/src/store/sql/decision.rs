//! What somebody decides about a study: pause, resume, cancel, and back.
//!
//! What a decision becomes is the domain's; what it means for the study's runs is the verbs'.

use domain::ids::StudyId;
use domain::study::{Decision, StudyEvent};

use super::database::{query, query_as};
use super::error::from_driver;
use super::writer::Tx;
use crate::store::StoreError;

/// The decision about a study that exists.
pub(super) async fn about(tx: &mut Tx, study: &StudyId) -> Result<Decision, StoreError> {
    let flags: Option<(i64, i64)> =
        query_as("SELECT is_cancelled, is_paused FROM studies WHERE id = ?")
            .bind(study.as_str())
            .fetch_optional(&mut tx.conn)
            .await
            .map_err(from_driver)?;
    match flags {
        Some((is_cancelled, is_paused)) => Ok(Decision::of(is_cancelled != 0, is_paused != 0)),
        None => Err(StoreError::NotFound { kind: "study", id: study.to_string() }),
    }
}

/// Moves the decision about a study on; whether that changed it. A reason stays with the flag that it
/// was given for.
pub(super) async fn decide(
    tx: &mut Tx,
    study: &StudyId,
    event: StudyEvent,
    reason: &str,
) -> Result<bool, StoreError> {
    let from = about(tx, study).await?;
    let to = from.on(event);
    if to == from {
        return Ok(false);
    }
    query(
        "UPDATE studies
SET cancel_reason = CASE WHEN is_cancelled <> ?1 THEN ?3 ELSE cancel_reason END,
    pause_reason = CASE WHEN is_paused <> ?2 THEN ?3 ELSE pause_reason END,
    is_cancelled = ?1, is_paused = ?2, updated_at_ms = ?4
WHERE id = ?5",
    )
    .bind(to.is_cancelled())
    .bind(to.is_paused())
    .bind(reason)
    .bind(tx.now_ms)
    .bind(study.as_str())
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(true)
}
