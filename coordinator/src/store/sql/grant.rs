//! `grant`: placements become leases; and the leases that are live.
//!
//! Which placement is wise is `scheduler::policy`'s.

use std::collections::BTreeSet;

use domain::ids::{AttemptNumber, LeaseToken, RunId, WorkId, WorkerId};
use domain::planted::{Mistake, is_planted};

use super::convert::{parse_id, signed, unsigned};
use super::database::{Pool, query_as, query_scalar, query_with_list, query_with_rows};
use super::error::from_driver;
use super::members;
use super::trunks;
use super::work::{WorkRow, record_grant};
use super::writer::{Command, Tx};
use crate::scheduler::policy::Placement;
use crate::store::{Changed, Granted, LiveLease, StoreError};

/// Rows in one statement.
const ROWS_PER_STATEMENT: usize = 128;

pub(super) struct Grant(pub(super) Vec<Placement>);

impl Command for Grant {
    type Answer = Vec<Granted>;
    const IS_KEPT_APART: bool = false;

    async fn run(self, tx: &mut Tx) -> Result<Vec<Granted>, StoreError> {
        let mut granted = Vec::with_capacity(self.0.len());
        for placements in self.0.chunks(ROWS_PER_STATEMENT) {
            granted.extend(grant_some(tx, placements).await?);
        }
        Ok(granted)
    }
}

async fn grant_some(tx: &mut Tx, placements: &[Placement]) -> Result<Vec<Granted>, StoreError> {
    let active = active_workers(tx, placements).await?;
    let works: Vec<&WorkId> = placements.iter().map(|placement| &placement.work).collect();
    let mut rows = WorkRow::load_many(tx, &works).await?;
    let mut chosen = Vec::new();
    for placement in placements.iter().filter(|placement| is_there(placement, &active)) {
        // Taken out, so that work which is placed twice is granted once.
        if let Some(row) = rows.remove(placement.work.as_str()).filter(WorkRow::may_be_granted) {
            chosen.push((placement, row));
        }
    }
    if chosen.is_empty() {
        return Ok(Vec::new());
    }
    let n_tokens = chosen.iter().map(|(placement, _)| placement.workers.len()).sum();
    let mut last = last_token_after(tx, n_tokens).await?.0 - n_tokens as u64;
    if is_planted(Mistake::TokenReused) {
        last = last.saturating_sub(1);
    }
    let mut granted = Vec::with_capacity(chosen.len());
    let mut begun = Vec::new();
    for (placement, row) in chosen {
        if row.n_attempts == 0 && matches!(placement.work, WorkId::Run(_)) {
            begun.push(&placement.work);
        }
        let attempt = u32::try_from(row.n_attempts + 1)
            .map_err(|_| StoreError::Bug(format!("`{}` has too many attempts", placement.work)))?;
        let mut rights = placement.workers.iter().map(|worker| {
            last += 1;
            LiveLease {
                token: LeaseToken(last),
                work: placement.work.clone(),
                worker: worker.clone(),
            }
        });
        let Some(LiveLease { token, work, worker }) = rights.next() else { continue };
        let members = rights.collect();
        let lease = Granted { token, work, attempt: AttemptNumber(attempt), worker, members };
        row.check_grant(&lease, tx.now_ms)?;
        granted.push(lease);
    }
    write_leases(tx, &granted).await?;
    charge_studies(tx, &begun).await?;
    insert_attempts(tx, &granted).await?;
    members::insert(tx, &granted).await?;
    for lease in &granted {
        record_grant(tx, lease);
    }
    // Whoever goes on from a run that is carried out now waits for it, whatever its study.
    let runs = granted.iter().filter_map(|lease| match &lease.work {
        WorkId::Run(run) => Some(run),
        WorkId::Evaluation(_) | WorkId::Preparation(_) => None,
    });
    let carried_out: Vec<&RunId> = runs.collect();
    trunks::settle_branches(tx, &carried_out, &mut Changed::default()).await?;
    Ok(granted)
}

/// Whether all who are to have it are there.
fn is_there(placement: &Placement, active: &BTreeSet<String>) -> bool {
    !placement.workers.is_empty()
        && placement.workers.iter().all(|worker| active.contains(worker.as_str()))
}

async fn active_workers(
    tx: &mut Tx,
    placements: &[Placement],
) -> Result<BTreeSet<String>, StoreError> {
    let asked: BTreeSet<&str> =
        placements.iter().flat_map(|p| &p.workers).map(WorkerId::as_str).collect();
    if asked.is_empty() {
        return Ok(BTreeSet::new());
    }
    let head = "SELECT id FROM workers WHERE state = 'active' AND id IN";
    let mut query = query_with_list::<(String,)>(head, asked.len());
    for worker in asked {
        query = query.bind(worker);
    }
    let rows = query.fetch_all(&mut tx.conn).await.map_err(from_driver)?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// Takes so many tokens; the last of them.
async fn last_token_after(tx: &mut Tx, n: usize) -> Result<LeaseToken, StoreError> {
    let token: i64 = query_scalar(
        "UPDATE lease_tokens
SET last_token = last_token + ?
WHERE only_row = 1
RETURNING last_token",
    )
    .bind(signed(n as u64))
    .fetch_one(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(LeaseToken(unsigned(token)))
}

async fn write_leases(tx: &mut Tx, granted: &[Granted]) -> Result<(), StoreError> {
    let head = "UPDATE work
SET state = 'leased', lease_token = lease.column2, lease_attempt = lease.column3,
    n_attempts = lease.column3, lease_worker_id = lease.column4, backoff_until_ms = NULL,
    failed_end = NULL, updated_at_ms = lease.column5
FROM (VALUES";
    let tail = ") AS lease
WHERE work.id = lease.column1 AND work.state = 'queued' AND work.is_held = 0";
    let mut update = query_with_rows(head, (granted.len(), 5), tail);
    for lease in granted {
        update = update
            .bind(lease.work.as_str())
            .bind(signed(lease.token.0))
            .bind(i64::from(lease.attempt.0))
            .bind(lease.worker.as_str())
            .bind(tx.now_ms);
    }
    let written = update.execute(&mut tx.conn).await.map_err(from_driver)?;
    if written.rows_affected() == granted.len() as u64 {
        Ok(())
    } else {
        Err(StoreError::Bug("work changed inside a transaction of the one writer".to_owned()))
    }
}

/// What runs cost that begin is charged to the studies that they are granted for, once and for good:
/// a study that gives up a run which it has begun gets nothing back.
async fn charge_studies(tx: &mut Tx, begun: &[&WorkId]) -> Result<(), StoreError> {
    if begun.is_empty() || is_planted(Mistake::ChargeForgotten) {
        return Ok(());
    }
    let head = "UPDATE studies
SET spent_flops = spent_flops + begun.flops
FROM (
    SELECT study_id, SUM(cost_flops) AS flops
    FROM work
    WHERE id IN";
    let tail = "
    GROUP BY study_id
) AS begun
WHERE studies.id = begun.study_id
RETURNING studies.id, studies.budget_flops";
    let mut charge = query_with_rows(head, (1, begun.len()), tail);
    for work in begun {
        charge = charge.bind(work.as_str());
    }
    let charged: Vec<(String, Option<f64>)> =
        charge.with_rows().fetch_all(&mut tx.conn).await.map_err(from_driver)?;
    for (study, budget_flops) in charged {
        if budget_flops.is_some() {
            trunks::settle_afforded(tx, &study).await?;
        }
    }
    Ok(())
}

async fn insert_attempts(tx: &mut Tx, granted: &[Granted]) -> Result<(), StoreError> {
    let head = "INSERT INTO attempts (work_id, attempt, lease_token, worker_id, state,
    granted_at_ms, world_size)
VALUES";
    let mut insert = query_with_rows(head, (granted.len(), 7), "");
    for lease in granted {
        insert = insert
            .bind(lease.work.as_str())
            .bind(i64::from(lease.attempt.0))
            .bind(signed(lease.token.0))
            .bind(lease.worker.as_str())
            .bind("granted")
            .bind(tx.now_ms)
            .bind(signed(1 + lease.members.len() as u64));
    }
    insert.execute(&mut tx.conn).await.map_err(from_driver)?;
    Ok(())
}

pub(super) const LIVE_LEASES: &str = "SELECT lease_token, id, lease_worker_id
FROM work
WHERE state = 'leased'
ORDER BY lease_token";

/// The leases that are live, with the rights of gangs' other members to their slots.
pub(super) async fn live_leases(pool: &Pool) -> Result<Vec<LiveLease>, StoreError> {
    let rows: Vec<(i64, String, String)> =
        query_as(LIVE_LEASES).fetch_all(pool).await.map_err(from_driver)?;
    let mut leases = members::live(pool).await?;
    for (token, work, worker) in rows {
        let token = LeaseToken(unsigned(token));
        leases.push(LiveLease { token, work: parse_id(&work)?, worker: parse_id(&worker)? });
    }
    leases.sort_by_key(|lease| lease.token);
    Ok(leases)
}
