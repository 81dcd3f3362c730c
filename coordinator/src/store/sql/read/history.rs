//! The audit trail of a study, a run or a worker.
//! The stream of all events is `super::events`'.

use api::HistoryEvent;

use super::{failed, from_json};
use crate::store::read::{HistoryOf, ReadError};
use crate::store::sql::database::{Pool, query_as};

#[derive(sqlx::FromRow)]
struct HistoryRow {
    id: i64,
    at_ms: i64,
    subject: String,
    kind: String,
    actor: String,
    detail_json: String,
}

macro_rules! history {
    ($subjects:literal) => {
        concat!(
            "SELECT id, at_ms, subject, kind, actor, detail_json
FROM events
WHERE id > ?2 AND subject IN (",
            $subjects,
            ")
ORDER BY id
LIMIT ?3"
        )
    };
}

const OF_STUDY: &str = history!(
    "SELECT ?1
    UNION SELECT run_id FROM cells WHERE study_id = ?1
    UNION SELECT e.id FROM cells c JOIN evaluations e ON e.run_id = c.run_id WHERE c.study_id = ?1
    UNION SELECT r.preparation_id FROM cells c JOIN runs r ON r.id = c.run_id WHERE c.study_id = ?1"
);

const OF_RUN: &str = history!("SELECT ?1 UNION SELECT id FROM evaluations WHERE run_id = ?1");

const OF_WORKER: &str = history!("?1");

pub(super) async fn of(
    pool: &Pool,
    of: &HistoryOf,
    after: i64,
    limit: u32,
) -> Result<Vec<HistoryEvent>, ReadError> {
    let (sql, id) = match of {
        HistoryOf::Study(study) => (OF_STUDY, study.as_str()),
        HistoryOf::Run(run) => (OF_RUN, run.as_str()),
        HistoryOf::Worker(worker) => (OF_WORKER, worker.as_str()),
    };
    let rows: Vec<HistoryRow> = query_as(sql)
        .bind(id)
        .bind(after)
        .bind(limit)
        .fetch_all(pool)
        .await
        .map_err(failed("what has happened"))?;
    rows.into_iter().map(HistoryRow::into_event).collect()
}

impl HistoryRow {
    fn into_event(self) -> Result<HistoryEvent, ReadError> {
        Ok(HistoryEvent {
            detail: from_json(&self.detail_json, "detail of an event", &self.subject)?,
            id: self.id,
            at_ms: self.at_ms,
            subject: self.subject,
            kind: self.kind,
            actor: self.actor,
        })
    }
}
