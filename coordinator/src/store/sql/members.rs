//! The members of a gang beside rank 0: each holds its slot by a token of its own, and all of them
//! let go when their attempt is over.
//!
//! What the attempt does is `finish`'s; the attempt's own token alone may write.

use domain::ids::{LeaseToken, WorkId, WorkerId};

use super::convert::{parse_id, signed, unsigned};
use super::database::{Place, Pool, query, query_as, query_with_rows};
use super::error::from_driver;
use super::writer::Tx;
use crate::store::{Changed, Granted, LiveLease, StoreError};

/// Rows in one statement.
const ROWS_PER_STATEMENT: usize = 256;

/// A member that holds its slot, of an attempt that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    /// The right to what its attempt does.
    pub(super) attempt_token: LeaseToken,
    /// The attempt's work.
    pub(super) work: WorkId,
    /// The attempt's number.
    pub(super) attempt: i64,
    /// Who holds the attempt's own token.
    pub(super) lead: WorkerId,
    /// Its place among the members, from 1.
    pub(super) rank: u32,
    /// How many members there are, with rank 0.
    pub(super) world_size: u32,
    /// Who it is.
    pub(super) worker: WorkerId,
}

#[derive(Debug, sqlx::FromRow)]
struct MemberRow {
    attempt_token: i64,
    work_id: String,
    attempt: i64,
    lead_id: String,
    rank: i64,
    world_size: i64,
    worker_id: String,
}

/// The member with this token, if it holds its slot.
pub(super) async fn held(
    place: impl Into<Place<'_>>,
    token: LeaseToken,
) -> Result<Option<Member>, StoreError> {
    let row: Option<MemberRow> = query_as(
        "SELECT m.attempt_token, a.work_id, a.attempt, a.worker_id AS lead_id, m.rank, a.world_size,
    m.worker_id
FROM members m
JOIN attempts a ON a.lease_token = m.attempt_token
WHERE m.lease_token = ? AND m.is_held = 1 AND a.state IN ('granted', 'running')",
    )
    .bind(signed(token.0))
    .fetch_optional(place)
    .await
    .map_err(from_driver)?;
    row.map(|row| {
        Ok(Member {
            attempt_token: LeaseToken(unsigned(row.attempt_token)),
            work: parse_id(&row.work_id)?,
            attempt: row.attempt,
            lead: parse_id(&row.lead_id)?,
            rank: super::convert::small(row.rank),
            world_size: super::convert::small(row.world_size),
            worker: parse_id(&row.worker_id)?,
        })
    })
    .transpose()
}

/// Enters the members of leases that were granted.
pub(super) async fn insert(tx: &mut Tx, granted: &[Granted]) -> Result<(), StoreError> {
    let rows: Vec<(LeaseToken, usize, &LiveLease)> = granted
        .iter()
        .flat_map(|lease| {
            let ranks = lease.members.iter().zip(1..);
            ranks.map(|(member, rank)| (lease.token, rank, member))
        })
        .collect();
    let head = "INSERT INTO members (lease_token, attempt_token, rank, worker_id) VALUES";
    for rows in rows.chunks(ROWS_PER_STATEMENT) {
        let mut insert = query_with_rows(head, (rows.len(), 4), "");
        for (attempt, rank, member) in rows {
            insert = insert
                .bind(signed(member.token.0))
                .bind(signed(attempt.0))
                .bind(signed(*rank as u64))
                .bind(member.worker.as_str());
        }
        insert.execute(&mut tx.conn).await.map_err(from_driver)?;
    }
    Ok(())
}

/// All members of an attempt let go: it is over.
pub(super) async fn release(
    tx: &mut Tx,
    attempt: LeaseToken,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let released: Vec<(i64, String)> = query_as(
        "UPDATE members
SET is_held = 0
WHERE attempt_token = ? AND is_held = 1
RETURNING lease_token, worker_id",
    )
    .bind(signed(attempt.0))
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    for (token, worker) in released {
        changed.revoked.push((LeaseToken(unsigned(token)), parse_id(&worker)?));
    }
    Ok(())
}

/// One member lets go of its slot, and the others go on until they are asked to leave.
pub(super) async fn leave(tx: &mut Tx, token: LeaseToken) -> Result<(), StoreError> {
    query("UPDATE members SET is_held = 0 WHERE lease_token = ?")
        .bind(signed(token.0))
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    Ok(())
}

/// The open attempts in which a worker is a member, by their own tokens, with who holds each.
pub(super) async fn attempts_with(
    tx: &mut Tx,
    worker: &WorkerId,
) -> Result<Vec<(LeaseToken, WorkerId)>, StoreError> {
    let rows: Vec<(i64, String)> = query_as(
        "SELECT DISTINCT a.lease_token, a.worker_id
FROM members m
JOIN attempts a ON a.lease_token = m.attempt_token
WHERE m.worker_id = ? AND m.is_held = 1 AND a.state IN ('granted', 'running')
ORDER BY a.lease_token",
    )
    .bind(worker.as_str())
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    let of = |(token, lead): (i64, String)| Ok((LeaseToken(unsigned(token)), parse_id(&lead)?));
    rows.into_iter().map(of).collect()
}

/// The rights of members that hold their slots.
pub(super) async fn live(pool: &Pool) -> Result<Vec<LiveLease>, StoreError> {
    let rows: Vec<(i64, String, String)> = query_as(
        "SELECT m.lease_token, a.work_id, m.worker_id
FROM members m
JOIN attempts a ON a.lease_token = m.attempt_token
WHERE m.is_held = 1 AND a.state IN ('granted', 'running')
ORDER BY m.lease_token",
    )
    .fetch_all(pool)
    .await
    .map_err(from_driver)?;
    rows.into_iter()
        .map(|(token, work, worker)| {
            Ok(LiveLease {
                token: LeaseToken(unsigned(token)),
                work: parse_id(&work)?,
                worker: parse_id(&worker)?,
            })
        })
        .collect()
}
