//! Which rolling checkpoints later ones stand in for, and whose files may be removed.
//!
//! Rows are never deleted: they say where attempts went on from. Removing files is
//! `crate::retention`'s.

use domain::ids::RunId;
use domain::planted::{Mistake, is_planted};
use serde_json::json;

use super::convert::{parse_id, signed, small, unsigned};
use super::database::{Pool, query, query_as, query_scalar, query_with_rows};
use super::error::from_driver;
use super::many::AT_ONCE;
use super::writer::{Command, Tx};
use crate::store::{StoreError, SupersededCheckpoint};

/// Whether later checkpoints stand in for one: a rolling one before the last step, at which no trunk
/// ends, with three sound ones after it, or one where its run has succeeded; and with three between it
/// and where each other run goes on that may yet begin from it. Three, because the files of the newest
/// may be damaged, and so may those of the one before. Files under other keys than a trainer's of
/// this run are nobody's to remove.
macro_rules! is_superseded {
    () => {
        "checkpoints.is_data_point = 0 AND checkpoints.superseded_at_ms IS NULL
AND checkpoints.manifest_key LIKE
    'runs/' || checkpoints.run_id || '/' || checkpoints.attempt || '%/' || checkpoints.step || '/%'
AND EXISTS (
    SELECT 1
    FROM runs
    JOIN work ON work.id = runs.id
    WHERE runs.id = checkpoints.run_id AND checkpoints.step < runs.steps
        AND CASE WHEN work.state = 'succeeded' THEN 1 ELSE 3 END <= (
            SELECT COUNT(*)
            FROM checkpoints AS later
            WHERE later.run_id = checkpoints.run_id AND later.refused_reason IS NULL
                AND later.failed_attempt IS NULL AND later.superseded_at_ms IS NULL
                AND (
                    later.step > checkpoints.step
                    OR later.step = checkpoints.step AND later.attempt > checkpoints.attempt
                )
        )
)
AND NOT EXISTS (
    SELECT 1
    FROM trunks
    WHERE trunks.run_id = checkpoints.run_id AND trunks.steps = checkpoints.step
)
AND NOT EXISTS (
    SELECT 1
    FROM trunks
    JOIN work AS branch ON branch.id = trunks.run_id
    WHERE trunks.from_run_id = checkpoints.run_id AND trunks.from_step >= checkpoints.step
        AND branch.state <> 'succeeded'
        AND (trunks.from_step = checkpoints.step OR 3 > (
            SELECT COUNT(*)
            FROM checkpoints AS later
            WHERE later.run_id = checkpoints.run_id AND later.refused_reason IS NULL
                AND later.failed_attempt IS NULL AND later.superseded_at_ms IS NULL
                AND later.step <= trunks.from_step
                AND (
                    later.step > checkpoints.step
                    OR later.step = checkpoints.step AND later.attempt > checkpoints.attempt
                )
        ))
)"
    };
}

/// Runs with superseded checkpoints that are not marked yet, in the order of their identifiers.
pub(super) async fn runs_to_clear(pool: &Pool, limit: u32) -> Result<Vec<RunId>, StoreError> {
    let runs: Vec<String> = query_scalar(concat!(
        "SELECT DISTINCT checkpoints.run_id
FROM checkpoints
WHERE ",
        is_superseded!(),
        "
ORDER BY 1
LIMIT ?"
    ))
    .bind(limit)
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    runs.iter().map(|run| parse_id(run)).collect()
}

/// Marks the superseded checkpoints of these runs: no attempt is told of them from here on.
pub(super) struct Supersede(pub(super) Vec<RunId>);

impl Command for Supersede {
    type Answer = u64;

    async fn run(self, tx: &mut Tx) -> Result<u64, StoreError> {
        let mut n_marked = 0;
        for runs in self.0.chunks(AT_ONCE) {
            // Somebody may have asked for a data point since they were found.
            let head = "UPDATE checkpoints SET superseded_at_ms = ? WHERE run_id IN";
            let tail = if is_planted(Mistake::NewestCheckpointsRemoved) {
                "AND is_data_point = 0 AND superseded_at_ms IS NULL
RETURNING run_id, attempt, step"
            } else {
                concat!("AND ", is_superseded!(), "\nRETURNING run_id, attempt, step")
            };
            let update = query_with_rows(head, (1, runs.len()), tail);
            let update = update.with_rows::<(String, i64, i64)>().bind(tx.now_ms);
            let update = runs.iter().fold(update, |update, run| update.bind(run.as_str()));
            let mut marked = update.fetch_all(&mut tx.conn).await.map_err(from_driver)?;
            marked.sort();
            n_marked += marked.len() as u64;
            for (run, attempt, step) in marked {
                let detail = json!({ "step": step, "attempt": attempt });
                tx.record(&run, "checkpoint_superseded", &detail);
            }
        }
        Ok(n_marked)
    }
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    run_id: String,
    attempt: i64,
    step: i64,
    manifest_key: String,
}

/// Superseded checkpoints with files, of which nobody reads: an attempt that was granted before the
/// mark may be about to go on from one until it says that it has started.
pub(super) async fn superseded(
    pool: &Pool,
    limit: u32,
) -> Result<Vec<SupersededCheckpoint>, StoreError> {
    let rows: Vec<Row> = query_as(
        "SELECT run_id, attempt, step, manifest_key
FROM checkpoints
WHERE superseded_at_ms IS NOT NULL AND removed_at_ms IS NULL
    AND NOT EXISTS (
        SELECT 1
        FROM work AS reader
        JOIN attempts ON attempts.lease_token = reader.lease_token
        WHERE reader.state = 'leased' AND attempts.state = 'granted'
            AND (
                reader.id = checkpoints.run_id
                OR reader.id IN (
                    SELECT trunks.run_id
                    FROM trunks
                    WHERE trunks.from_run_id = checkpoints.run_id
                )
            )
    )
ORDER BY run_id, step, attempt
LIMIT ?",
    )
    .bind(limit)
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    let parsed = |row: Row| {
        Ok(SupersededCheckpoint {
            run: parse_id(&row.run_id)?,
            attempt: small(row.attempt),
            step: unsigned(row.step),
            manifest_key: row.manifest_key,
        })
    };
    rows.into_iter().map(parsed).collect()
}

/// Notes that the files of superseded checkpoints are gone. What happened to them was said when they
/// were marked.
pub(super) struct NoteRemoved(pub(super) Vec<SupersededCheckpoint>);

impl Command for NoteRemoved {
    type Answer = ();

    async fn run(self, tx: &mut Tx) -> Result<(), StoreError> {
        for checkpoint in self.0 {
            query(
                "UPDATE checkpoints
SET removed_at_ms = ?
WHERE run_id = ? AND attempt = ? AND step = ? AND superseded_at_ms IS NOT NULL",
            )
            .bind(tx.now_ms)
            .bind(checkpoint.run.as_str())
            .bind(i64::from(checkpoint.attempt))
            .bind(signed(checkpoint.step))
            .execute(&mut tx.conn)
            .await
            .map_err(from_driver)?;
        }
        Ok(())
    }
}
