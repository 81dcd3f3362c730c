//! The row of an attempt that is over, and what it has left open.
//!
//! What its work becomes is `work`'s.

use domain::attempt::AttemptEnd;
use domain::ids::LeaseToken;
use domain::planted::{Mistake, is_planted};

use super::convert::{parse_id, signed};
use super::database::query_as;
use super::error::from_driver;
use super::members;
use super::points;
use super::writer::Tx;
use crate::store::{Changed, StoreError};

#[derive(Debug, sqlx::FromRow)]
struct ClosedRow {
    work_id: String,
    attempt: i64,
    world_size: i64,
    n_open_series: i64,
}

/// Ends the row of an attempt, packs its points, and takes the slots of its other members back;
/// whether it was open.
pub(super) async fn close_attempt(
    tx: &mut Tx,
    token: LeaseToken,
    end: AttemptEnd,
    message: &str,
    changed: &mut Changed,
) -> Result<bool, StoreError> {
    let closed: Option<ClosedRow> = query_as(
        "UPDATE attempts
SET state = 'ended', ended_as = ?, message = ?, ended_at_ms = ?
WHERE lease_token = ? AND state IN ('granted', 'running')
RETURNING work_id, attempt, world_size, (
    SELECT COUNT(*)
    FROM point_series s
    WHERE s.run_id = attempts.work_id AND s.attempt = attempts.attempt AND s.n_open > 0
) AS n_open_series",
    )
    .bind(end.label())
    .bind(message)
    .bind(tx.now_ms)
    .bind(signed(token.0))
    .fetch_optional(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    if let Some(row) = closed.as_ref().filter(|row| row.n_open_series > 0) {
        points::close(tx, &parse_id(&row.work_id)?, row.attempt).await?;
    }
    let is_gang = closed.as_ref().is_some_and(|row| row.world_size > 1);
    if is_gang && !is_planted(Mistake::MembersKeepSlots) {
        members::release(tx, token, changed).await?;
    }
    Ok(closed.is_some())
}
