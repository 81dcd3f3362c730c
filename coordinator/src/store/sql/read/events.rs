//! Stored events, for the event stream.
//! It does not know the live ones.

use api::EventView;

use super::failed;
use crate::store::read::ReadError;
use crate::store::sql::database::{Pool, query_as, query_scalar};

#[derive(sqlx::FromRow)]
struct EventRow {
    id: i64,
    at_ms: i64,
    subject: String,
    kind: String,
    actor: String,
}

pub(super) async fn after(
    pool: &Pool,
    after: i64,
    limit: u32,
) -> Result<Vec<EventView>, ReadError> {
    let rows: Vec<EventRow> = query_as(
        "SELECT id, at_ms, subject, kind, actor
FROM events
WHERE id > ?1
ORDER BY id
LIMIT ?2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(pool)
    .await
    .map_err(failed("the events"))?;
    Ok(rows.into_iter().map(EventRow::into_view).collect())
}

pub(super) async fn last_id(pool: &Pool) -> Result<i64, ReadError> {
    query_scalar("SELECT COALESCE(MAX(id), 0) FROM events")
        .fetch_one(pool)
        .await
        .map_err(failed("the newest event"))
}

impl EventRow {
    fn into_view(self) -> EventView {
        EventView {
            id: self.id,
            at_ms: self.at_ms,
            subject: self.subject,
            kind: self.kind,
            actor: self.actor,
        }
    }
}
