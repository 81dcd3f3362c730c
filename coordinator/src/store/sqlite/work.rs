//! One piece of work moves on: the domain's transition, carried out with its effects.
//!
//! Which event comes is the verbs' decision, what it does the domain's.

use domain::attempt::{AttemptEnd, Charge};
use domain::ids::{AttemptNumber, LeaseToken, WorkId, WorkerId};
use domain::run::{Effect, RunEvent, RunState, Transition, Tries};
use serde_json::{Value, json};

use super::convert::{parse_id, signed, unsigned};
use super::error::from_driver;
use super::writer::Tx;
use crate::store::{Changed, StoreError};

/// The part of `work` that a transition needs.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct WorkRow {
    pub(super) state: String,
    lease_token: Option<i64>,
    lease_attempt: Option<i64>,
    lease_worker_id: Option<String>,
    backoff_until_ms: Option<i64>,
    failed_end: Option<String>,
    depends_on: Option<String>,
    pub(super) n_attempts: i64,
    n_failures: i64,
    n_losses: i64,
    max_failures: i64,
}

impl WorkRow {
    /// The row of a piece of work, if there is one.
    pub(super) async fn load(tx: &mut Tx, work: &WorkId) -> Result<Option<Self>, StoreError> {
        sqlx::query_as(
            "SELECT state, lease_token, lease_attempt, lease_worker_id, backoff_until_ms,
    failed_end, depends_on, n_attempts, n_failures, n_losses, max_failures
FROM work
WHERE id = ?",
        )
        .bind(work.as_str())
        .fetch_optional(&mut tx.conn)
        .await
        .map_err(from_driver)
    }

    /// The state that the columns spell.
    pub(super) fn state(&self) -> Result<RunState, StoreError> {
        let state = match self.state.as_str() {
            "waiting" => Some(RunState::Waiting),
            "queued" => Some(RunState::Queued),
            "leased" => self.leased()?,
            "backoff" => self
                .backoff_until_ms
                .map(|until_ms| RunState::Backoff { until_ms: unsigned(until_ms) }),
            "succeeded" => Some(RunState::Succeeded),
            "failed" => self
                .failed_end
                .as_deref()
                .and_then(AttemptEnd::from_label)
                .map(|end| RunState::Failed { end }),
            "cancelled" => Some(RunState::Cancelled),
            "diverged" => Some(RunState::Diverged),
            _ => None,
        };
        state.ok_or_else(|| StoreError::Bug(format!("a row of work spells no state: {self:?}")))
    }

    fn leased(&self) -> Result<Option<RunState>, StoreError> {
        let (Some(token), Some(attempt), Some(worker)) =
            (self.lease_token, self.lease_attempt, &self.lease_worker_id)
        else {
            return Ok(None);
        };
        Ok(Some(RunState::Leased {
            token: LeaseToken(unsigned(token)),
            attempt: AttemptNumber(small(attempt)),
            worker: parse_id(worker)?,
        }))
    }

    fn tries(&self, now_ms: i64) -> Tries {
        Tries {
            n_failures: small(self.n_failures),
            n_losses: small(self.n_losses),
            max_failures: small(self.max_failures),
            now_ms: unsigned(now_ms),
        }
    }
}

/// Moves a piece of work on by one event, with everything that follows from it. False when the
/// event is late or repeated and changes nothing. What changed is added to `changed`.
pub(super) async fn advance(
    tx: &mut Tx,
    work: &WorkId,
    event: RunEvent,
    changed: &mut Changed,
) -> Result<bool, StoreError> {
    let row = WorkRow::load(tx, work)
        .await?
        .ok_or_else(|| StoreError::NotFound { kind: work.kind(), id: work.to_string() })?;
    let from = row.state()?;
    let transition = from
        .on(event.clone(), row.tries(tx.now_ms))
        .map_err(|source| StoreError::Transition { work: work.to_string(), source })?;
    let Transition::To { state, effects, charge } = transition else {
        return Ok(false);
    };
    let state = wait_for_data(tx, &row, state).await?;
    let counts = Counts::after(&row, &event, charge);
    write(tx, work, &row, &state, counts).await?;
    tx.record(work.as_str(), &kind_of(work, &state), &detail_of(&event)).await?;
    changed.work.push((work.clone(), state));
    for effect in effects {
        carry_out(tx, work, &from, effect, changed).await?;
    }
    Ok(true)
}

/// Work is queued only when the data it needs is there: a retry may come before that.
async fn wait_for_data(
    tx: &mut Tx,
    row: &WorkRow,
    state: RunState,
) -> Result<RunState, StoreError> {
    let (RunState::Queued, Some(needed)) = (&state, &row.depends_on) else {
        return Ok(state);
    };
    let needed: String = sqlx::query_scalar("SELECT state FROM work WHERE id = ?")
        .bind(needed)
        .fetch_one(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    Ok(if needed == RunState::Succeeded.label() { state } else { RunState::Waiting })
}

/// The counters of a row.
#[expect(clippy::struct_field_names, reason = "the columns' names: every count is `n_…`")]
#[derive(Debug, Clone, Copy)]
struct Counts {
    n_attempts: i64,
    n_failures: i64,
    n_losses: i64,
}

impl Counts {
    fn after(row: &WorkRow, event: &RunEvent, charge: Charge) -> Self {
        let mut counts =
            Self { n_attempts: row.n_attempts, n_failures: row.n_failures, n_losses: row.n_losses };
        match charge {
            Charge::Nothing => {}
            Charge::Loss => counts.n_losses += 1,
            // Losses count in a row: an attempt that failed by itself shows that a worker lived.
            Charge::Failure => (counts.n_failures, counts.n_losses) = (counts.n_failures + 1, 0),
        }
        match event {
            RunEvent::Granted { attempt, .. } => counts.n_attempts = i64::from(attempt.0),
            // Whoever asks for a retry gives a new budget.
            RunEvent::RetryRequested => (counts.n_failures, counts.n_losses) = (0, 0),
            _ => {}
        }
        counts
    }
}

async fn write(
    tx: &mut Tx,
    work: &WorkId,
    row: &WorkRow,
    state: &RunState,
    counts: Counts,
) -> Result<(), StoreError> {
    let (token, attempt, worker) = match state {
        RunState::Leased { token, attempt, worker } => {
            (Some(signed(token.0)), Some(attempt.0), Some(worker.as_str()))
        }
        _ => (None, None, None),
    };
    let until_ms = match state {
        RunState::Backoff { until_ms } => Some(signed(*until_ms)),
        _ => None,
    };
    let failed_end = match state {
        RunState::Failed { end } => Some(end.label()),
        _ => None,
    };
    let written = sqlx::query(
        "UPDATE work
SET state = ?, lease_token = ?, lease_attempt = ?, lease_worker_id = ?, backoff_until_ms = ?,
    failed_end = ?, n_attempts = ?, n_failures = ?, n_losses = ?, updated_at_ms = ?
WHERE id = ? AND state = ? AND lease_token IS ?",
    )
    .bind(state.label())
    .bind(token)
    .bind(attempt)
    .bind(worker)
    .bind(until_ms)
    .bind(failed_end)
    .bind(counts.n_attempts)
    .bind(counts.n_failures)
    .bind(counts.n_losses)
    .bind(tx.now_ms)
    .bind(work.as_str())
    .bind(&row.state)
    .bind(row.lease_token)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    if written.rows_affected() == 1 {
        Ok(())
    } else {
        Err(StoreError::Bug(format!("`{work}` changed inside a transaction of the one writer")))
    }
}

async fn carry_out(
    tx: &mut Tx,
    work: &WorkId,
    from: &RunState,
    effect: Effect,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    match effect {
        Effect::RevokeLease { token } => {
            close_attempt(tx, token, AttemptEnd::Cancelled, "").await?;
            if let RunState::Leased { worker, .. } = from {
                changed.revoked.push((token, worker.clone()));
            }
            Ok(())
        }
        Effect::ReleaseDependents => {
            advance_dependents(tx, work, RunEvent::DependencySucceeded, changed).await
        }
        Effect::FailDependents => {
            advance_dependents(tx, work, RunEvent::DependencyFailed, changed).await
        }
    }
}

/// Everything that waits is in one state and sees one event, so the transition is asked for once
/// and written for all. Dependents have none of their own: only preparations are depended on.
async fn advance_dependents(
    tx: &mut Tx,
    work: &WorkId,
    event: RunEvent,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let tries = Tries { n_failures: 0, n_losses: 0, max_failures: 0, now_ms: unsigned(tx.now_ms) };
    let transition = RunState::Waiting
        .on(event, tries)
        .map_err(|source| StoreError::Transition { work: work.to_string(), source })?;
    let Transition::To { state, .. } = transition else {
        return Ok(());
    };
    let failed_end = match state {
        RunState::Failed { end } => Some(end.label()),
        _ => None,
    };
    let moved: Vec<String> = sqlx::query_scalar(
        "UPDATE work
SET state = ?, failed_end = ?, updated_at_ms = ?
WHERE depends_on = ? AND state = 'waiting'
RETURNING id",
    )
    .bind(state.label())
    .bind(failed_end)
    .bind(tx.now_ms)
    .bind(work.as_str())
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    for id in moved {
        let dependent: WorkId = parse_id(&id)?;
        let detail = json!({ "after": work.as_str() });
        tx.record(&id, &kind_of(&dependent, &state), &detail).await?;
        changed.work.push((dependent, state.clone()));
    }
    Ok(())
}

/// Ends the row of an attempt; whether it was open.
pub(super) async fn close_attempt(
    tx: &mut Tx,
    token: LeaseToken,
    end: AttemptEnd,
    message: &str,
) -> Result<bool, StoreError> {
    let closed = sqlx::query(
        "UPDATE attempts
SET state = 'ended', ended_as = ?, message = ?, ended_at_ms = ?
WHERE lease_token = ? AND state IN ('granted', 'running')",
    )
    .bind(end.label())
    .bind(message)
    .bind(tx.now_ms)
    .bind(signed(token.0))
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(closed.rows_affected() == 1)
}

/// Ends a live attempt and moves its work on.
pub(super) async fn end_attempt(
    tx: &mut Tx,
    token: LeaseToken,
    work: &WorkId,
    end: AttemptEnd,
    message: &str,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let was_open = close_attempt(tx, token, end, message).await?;
    let has_moved = advance(tx, work, RunEvent::AttemptEnded { token, end }, changed).await?;
    if was_open && has_moved {
        Ok(())
    } else {
        Err(StoreError::Bug(format!(
            "the lease {token} of `{work}` is not that of an open attempt"
        )))
    }
}

/// Every token that a worker holds, ended in one way.
pub(super) async fn end_attempts_of(
    tx: &mut Tx,
    worker: &WorkerId,
    end: AttemptEnd,
    message: &str,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let held: Vec<(i64, String)> = sqlx::query_as(
        "SELECT lease_token, id
FROM work
WHERE state = 'leased' AND lease_worker_id = ?
ORDER BY lease_token",
    )
    .bind(worker.as_str())
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    for (token, work) in held {
        let token = LeaseToken(unsigned(token));
        end_attempt(tx, token, &parse_id(&work)?, end, message, changed).await?;
        changed.revoked.push((token, worker.clone()));
    }
    Ok(())
}

/// What the event row says beside the new state.
fn detail_of(event: &RunEvent) -> Value {
    match event {
        RunEvent::Granted { token, attempt, worker } => {
            json!({ "lease_token": token.0, "attempt": attempt.0, "worker": worker.as_str() })
        }
        RunEvent::AttemptEnded { token, end } => {
            json!({ "lease_token": token.0, "ended_as": end.label() })
        }
        RunEvent::RetryRequested => json!({ "why": "retry_requested" }),
        _ => json!({}),
    }
}

/// The event's kind: what happened to which kind of work.
pub(super) fn kind_of(work: &WorkId, state: &RunState) -> String {
    let happened = match state {
        RunState::Waiting => "held_back",
        RunState::Queued => "queued",
        RunState::Leased { .. } => "granted",
        RunState::Backoff { .. } => "backed_off",
        RunState::Succeeded => "succeeded",
        RunState::Failed { .. } => "failed",
        RunState::Cancelled => "cancelled",
        RunState::Diverged => "diverged",
    };
    format!("{}_{happened}", work.kind())
}

fn small(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
