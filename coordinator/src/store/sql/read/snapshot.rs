//! One consistent state of work, attempts, workers and events, for the checker of the invariants.
//! What must hold is `domain::invariant`'s.

use domain::invariant::{Attempt, Member, Snapshot, Work};

use super::{count, failed, small_count};
use crate::store::read::ReadError;
use crate::store::sql::database::{Pool, query_as, query_scalar};
use crate::store::sql::trunks::waits_for_trunk;

#[derive(sqlx::FromRow)]
struct WorkRow {
    id: String,
    state: String,
    lease_token: Option<i64>,
    lease_attempt: Option<i64>,
    lease_worker_id: Option<String>,
    n_attempts: i64,
    n_failures: i64,
    n_losses: i64,
    depends_on: Option<String>,
    waits_for_trunk: i64,
    is_held: i64,
    should_be_held: Option<i64>,
    n_results: i64,
}

#[derive(sqlx::FromRow)]
struct AttemptRow {
    work_id: String,
    attempt: i64,
    lease_token: i64,
    worker_id: String,
    state: String,
    ended_as: Option<String>,
    world_size: i64,
}

#[derive(sqlx::FromRow)]
struct MemberRow {
    attempt_token: i64,
    lease_token: i64,
    rank: i64,
    worker_id: String,
    is_held: i64,
}

/// Every piece of work, with what is true of it beside its row.
const ALL_WORK: &str = concat!(
    "SELECT
    work.id,
    work.state,
    work.lease_token,
    work.lease_attempt,
    work.lease_worker_id,
    work.n_attempts,
    work.n_failures,
    work.n_losses,
    work.depends_on,
    work.is_held,
    CAST(CASE WHEN ",
    waits_for_trunk!(),
    " THEN 1 ELSE 0 END AS BIGINT) AS waits_for_trunk,
    -- What the live studies want of a run holds for its evaluations too. Whether data is held is
    -- settled with the verbs that people give, and not with each end of a run that needs it.
    CASE WHEN work.kind <> 'preparation' THEN COALESCE((
        SELECT MIN(s.is_paused)
        FROM cells c
        JOIN studies s ON s.id = c.study_id
        WHERE c.run_id = COALESCE(e.run_id, work.id) AND s.is_cancelled = 0
    ), 0) END AS should_be_held,
    CASE work.kind
        WHEN 'run' THEN (
            SELECT COUNT(*)
            FROM runs r
            JOIN checkpoints k ON k.run_id = r.id AND k.step = r.steps
            WHERE r.id = work.id
        )
        WHEN 'evaluation' THEN CASE WHEN e.result_name IS NOT NULL THEN 1 ELSE 0 END
        ELSE (
            SELECT COUNT(*)
            FROM preparations p
            WHERE p.id = work.id AND p.manifest_key IS NOT NULL
        )
    END AS n_results
FROM work
LEFT JOIN evaluations e ON e.id = work.id
ORDER BY work.id"
);

pub(super) async fn snapshot(pool: &Pool) -> Result<Snapshot, ReadError> {
    let mut reading = pool.begin().await.map_err(failed("a snapshot"))?;
    let work: Vec<WorkRow> =
        query_as(ALL_WORK).fetch_all(&mut reading).await.map_err(failed("all work"))?;
    let attempts: Vec<AttemptRow> = query_as(
        "SELECT work_id, attempt, lease_token, worker_id, state, ended_as, world_size
FROM attempts
ORDER BY work_id, attempt",
    )
    .fetch_all(&mut reading)
    .await
    .map_err(failed("all attempts"))?;
    let members: Vec<MemberRow> = query_as(
        "SELECT attempt_token, lease_token, rank, worker_id, is_held
FROM members
ORDER BY attempt_token, rank",
    )
    .fetch_all(&mut reading)
    .await
    .map_err(failed("all members of gangs"))?;
    let workers: Vec<String> =
        query_scalar("SELECT id FROM workers WHERE state IN ('joining', 'active', 'draining')")
            .fetch_all(&mut reading)
            .await
            .map_err(failed("the workers"))?;
    let last_token: i64 = query_scalar("SELECT last_token FROM lease_tokens")
        .fetch_one(&mut reading)
        .await
        .map_err(failed("the last token"))?;
    let events: (i64, i64) = query_as("SELECT COUNT(*), COALESCE(MAX(id), 0) FROM events")
        .fetch_one(&mut reading)
        .await
        .map_err(failed("the events' numbers"))?;
    let spent_flops: (f64, f64) = query_as(
        "SELECT
    (SELECT COALESCE(SUM(spent_flops), CAST(0 AS DOUBLE PRECISION)) FROM studies),
    (
        SELECT COALESCE(SUM(cost_flops), CAST(0 AS DOUBLE PRECISION))
        FROM work
        WHERE kind = 'run' AND n_attempts > 0
    )",
    )
    .fetch_one(&mut reading)
    .await
    .map_err(failed("what studies are charged with"))?;
    Ok(Snapshot {
        work: work.into_iter().map(WorkRow::into_work).collect(),
        attempts: attempts.into_iter().map(AttemptRow::into_attempt).collect(),
        members: members.into_iter().map(MemberRow::into_member).collect(),
        workers: workers.into_iter().collect(),
        last_token: count(last_token),
        events: (count(events.0), count(events.1)),
        spent_flops,
    })
}

impl WorkRow {
    fn into_work(self) -> Work {
        let lease = match (self.lease_token, self.lease_attempt, self.lease_worker_id) {
            (Some(token), Some(attempt), Some(worker)) => {
                Some((count(token), small_count(attempt), worker))
            }
            _ => None,
        };
        Work {
            id: self.id,
            state: self.state,
            lease,
            n_attempts: small_count(self.n_attempts),
            n_failures: small_count(self.n_failures),
            n_losses: small_count(self.n_losses),
            depends_on: self.depends_on,
            waits_for_trunk: self.waits_for_trunk != 0,
            is_held: self.is_held != 0,
            should_be_held: self.should_be_held.map(|held| held != 0),
            has_result: self.n_results > 0,
        }
    }
}

impl AttemptRow {
    fn into_attempt(self) -> Attempt {
        Attempt {
            work: self.work_id,
            attempt: small_count(self.attempt),
            token: count(self.lease_token),
            worker: self.worker_id,
            state: self.state,
            ended_as: self.ended_as,
            world_size: small_count(self.world_size),
        }
    }
}

impl MemberRow {
    fn into_member(self) -> Member {
        Member {
            attempt_token: count(self.attempt_token),
            token: count(self.lease_token),
            rank: small_count(self.rank),
            worker: self.worker_id,
            is_held: self.is_held != 0,
        }
    }
}
