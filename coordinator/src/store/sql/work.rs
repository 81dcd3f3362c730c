//! One piece of work moves on: the domain's transition, carried out with its effects.
//!
//! Which event comes is the verbs' decision, what it does the domain's.

use std::collections::{BTreeMap, HashMap};

use domain::attempt::{AttemptEnd, Charge};
use domain::ids::{AttemptNumber, ContentHash, LeaseToken, WorkId};
use domain::planted::{Mistake, is_planted};
use domain::run::{Effect, RunEvent, RunState, Transition, Tries};
use domain::spec::RetryRules;
use serde_json::{Value, json};

use super::closing::close_attempt;
use super::convert::{from_json, parse_id, signed, small, to_json, unsigned};
use super::database::{query, query_as, query_scalar, query_with_list};
use super::error::from_driver;
use super::log_rules;
use super::retries;
use super::trunks::{self, waits_for_trunk};
use super::writer::Tx;
use crate::store::{Changed, Granted, Retry, StoreError};

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
    is_held: i64,
    failures_json: String,
    retries_json: Option<String>,
}

#[derive(Debug, sqlx::FromRow)]
struct NamedRow {
    id: String,
    #[sqlx(flatten)]
    row: WorkRow,
}

impl WorkRow {
    /// The row of a piece of work, if there is one.
    pub(super) async fn load(tx: &mut Tx, work: &WorkId) -> Result<Option<Self>, StoreError> {
        query_as(
            "SELECT state, lease_token, lease_attempt, lease_worker_id, backoff_until_ms,
    failed_end, depends_on, n_attempts, n_failures, n_losses, max_failures, is_held,
    failures_json, retries_json
FROM work
WHERE id = ?",
        )
        .bind(work.as_str())
        .fetch_optional(&mut tx.conn)
        .await
        .map_err(from_driver)
    }

    /// The rows of several pieces of work, by identifier.
    pub(super) async fn load_many(
        tx: &mut Tx,
        works: &[&WorkId],
    ) -> Result<HashMap<String, Self>, StoreError> {
        let head =
            "SELECT id, state, lease_token, lease_attempt, lease_worker_id, backoff_until_ms,
    failed_end, depends_on, n_attempts, n_failures, n_losses, max_failures, is_held,
    failures_json, retries_json
FROM work
WHERE id IN";
        let mut query = query_with_list::<NamedRow>(head, works.len());
        for work in works {
            query = query.bind(work.as_str());
        }
        let rows = query.fetch_all(&mut tx.conn).await.map_err(from_driver)?;
        Ok(rows.into_iter().map(|named| (named.id, named.row)).collect())
    }

    /// Asks the state machine about a grant, whose state `grant` then writes for many at once.
    pub(super) fn check_grant(&self, lease: &Granted, now_ms: i64) -> Result<(), StoreError> {
        let event = RunEvent::Granted {
            token: lease.token,
            attempt: lease.attempt,
            worker: lease.worker.clone(),
        };
        let transition = self
            .state()?
            .on(event, Tries::none(unsigned(now_ms)))
            .map_err(|source| StoreError::Transition { work: lease.work.to_string(), source })?;
        match transition {
            Transition::To { state: RunState::Leased { .. }, effects, charge: Charge::Nothing }
                if effects.is_empty() =>
            {
                Ok(())
            }
            other => Err(StoreError::Bug(format!("a grant of `{}` became {other:?}", lease.work))),
        }
    }

    /// Whether it is queued and not held.
    pub(super) fn may_be_granted(&self) -> bool {
        self.state == "queued" && self.is_held == 0
    }

    /// What it needs before it can be granted.
    pub(super) fn depends_on(&self) -> Option<&str> {
        self.depends_on.as_deref()
    }

    /// Whether a retry means this work.
    pub(super) fn is_meant_by(&self, which: Retry) -> bool {
        which.means(&self.state, self.failed_end.as_deref())
    }

    /// However often it may be tried by its rules, the failure at hand is its last.
    pub(super) fn give_up(&mut self) -> Result<(), StoreError> {
        self.retries_json = Some(to_json(&RetryRules::never(), "retries_json")?);
        Ok(())
    }

    /// Its machine is there, and says that it cannot.
    pub(super) fn pause_after_loss(&mut self) -> Result<(), StoreError> {
        let rules = self.rules()?.for_a_sick_machine();
        self.retries_json = Some(to_json(&rules, "retries_json")?);
        Ok(())
    }

    fn rules(&self) -> Result<RetryRules, StoreError> {
        retries::of_row(self.max_failures, self.retries_json.as_deref())
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

    /// What the transition must know of how often this went wrong.
    fn tries(&self, work: &WorkId, event: &RunEvent, now_ms: i64) -> Result<Tries, StoreError> {
        let now_ms = unsigned(now_ms);
        let RunEvent::AttemptEnded { end, .. } = event else { return Ok(Tries::none(now_ms)) };
        let Some(rule) = self.rules()?.rule(*end) else { return Ok(Tries::none(now_ms)) };
        let n_alike = match end.charge() {
            Charge::Loss => small(self.n_losses),
            Charge::Failure | Charge::Nothing => {
                self.failures()?.get(end.label()).copied().unwrap_or_default()
            }
        };
        let jitter_permille = jitter_permille(work, self.n_attempts);
        Ok(Tries { n_alike, rule, jitter_permille, now_ms })
    }

    /// How often it failed in which way.
    fn failures(&self) -> Result<BTreeMap<String, u32>, StoreError> {
        from_json(&self.failures_json, "failures_json")
    }
}

/// Spreads what failed together, and is the same each time it is asked.
fn jitter_permille(work: &WorkId, n_attempts: i64) -> u32 {
    let hash = ContentHash::of(format!("{work} {n_attempts}").as_bytes());
    u32::from_str_radix(&hash.as_str()[..6], 16).unwrap_or_default() % 1001
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
    advance_row(tx, work, &row, event, changed).await
}

/// The same for work whose row was read in this transaction.
pub(super) async fn advance_row(
    tx: &mut Tx,
    work: &WorkId,
    row: &WorkRow,
    event: RunEvent,
    changed: &mut Changed,
) -> Result<bool, StoreError> {
    let from = row.state()?;
    let transition = from
        .on(event.clone(), row.tries(work, &event, tx.now_ms)?)
        .map_err(|source| StoreError::Transition { work: work.to_string(), source })?;
    let Transition::To { state, effects, charge } = transition else {
        return Ok(false);
    };
    let state = wait_for_needs(tx, work, row, state).await?;
    let counts = Counts::after(row, &event, charge)?;
    write(tx, work, row, &state, &counts).await?;
    if matches!(event, RunEvent::RetryRequested | RunEvent::RemakeRequested) {
        log_rules::forget(tx, work).await?;
    }
    tx.record(work.as_str(), &kind_of(work, &state), &detail_of(&event));
    // Runs may wait for one that is not over, and for another study's while it is carried out.
    let lets_go = state.is_terminal() || matches!(from, RunState::Leased { .. });
    changed.work.push((work.clone(), state));
    for effect in effects {
        carry_out(tx, work, &from, effect, changed).await?;
    }
    if lets_go && let WorkId::Run(run) = work {
        trunks::settle_branches(tx, &[run], changed).await?;
    }
    Ok(true)
}

/// Work is queued only when the data it needs is there, and the checkpoint that it goes on from: a
/// retry may come before that.
async fn wait_for_needs(
    tx: &mut Tx,
    work: &WorkId,
    row: &WorkRow,
    state: RunState,
) -> Result<RunState, StoreError> {
    let (RunState::Queued, Some(needed)) = (&state, &row.depends_on) else {
        return Ok(state);
    };
    if trunks::waits(tx, work).await? {
        return Ok(RunState::Waiting);
    }
    let needed: String = query_scalar("SELECT state FROM work WHERE id = ?")
        .bind(needed)
        .fetch_one(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    Ok(if needed == RunState::Succeeded.label() { state } else { RunState::Waiting })
}

/// The counters of a row.
#[derive(Debug, Clone)]
struct Counts {
    n_attempts: i64,
    n_failures: i64,
    n_losses: i64,
    failures: BTreeMap<String, u32>,
}

impl Counts {
    fn after(row: &WorkRow, event: &RunEvent, charge: Charge) -> Result<Self, StoreError> {
        let mut counts = Self {
            n_attempts: row.n_attempts,
            n_failures: row.n_failures,
            n_losses: row.n_losses,
            failures: row.failures()?,
        };
        match (charge, event) {
            (Charge::Loss, _) => counts.n_losses += 1,
            (Charge::Failure, RunEvent::AttemptEnded { end, .. }) => {
                counts.n_failures += if is_planted(Mistake::FailureCountedTwice) { 2 } else { 1 };
                counts.n_losses = 0;
                *counts.failures.entry(end.label().to_owned()).or_default() += 1;
            }
            // Losses count in a row: an attempt that ended otherwise shows that a worker lived.
            (Charge::Nothing, RunEvent::AttemptEnded { .. }) => counts.n_losses = 0,
            (_, RunEvent::Granted { attempt, .. }) => counts.n_attempts = i64::from(attempt.0),
            // Whoever asks for a retry gives a new budget.
            (_, RunEvent::RetryRequested | RunEvent::RemakeRequested) => {
                (counts.n_failures, counts.n_losses) = (0, 0);
                counts.failures.clear();
            }
            _ => {}
        }
        Ok(counts)
    }
}

async fn write(
    tx: &mut Tx,
    work: &WorkId,
    row: &WorkRow,
    state: &RunState,
    counts: &Counts,
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
    let written = query(
        "UPDATE work
SET state = ?, lease_token = ?, lease_attempt = ?, lease_worker_id = ?, backoff_until_ms = ?,
    failed_end = ?, n_attempts = ?, n_failures = ?, n_losses = ?, failures_json = ?,
    updated_at_ms = ?
WHERE id = ? AND state = ? AND lease_token IS NOT DISTINCT FROM ?",
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
    .bind(to_json(&counts.failures, "failures_json")?)
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
    // Only preparations are depended on.
    let has_dependents = matches!(work, WorkId::Preparation(_));
    match effect {
        Effect::ReleaseDependents | Effect::FailDependents | Effect::HoldBackDependents
            if !has_dependents =>
        {
            Ok(())
        }
        Effect::RevokeLease { token } => {
            if !is_planted(Mistake::CancelKeepsAttempt) {
                close_attempt(tx, token, AttemptEnd::Cancelled, "", changed).await?;
            }
            if let RunState::Leased { worker, .. } = from {
                changed.revoked.push((token, worker.clone()));
            }
            Ok(())
        }
        Effect::ReleaseDependents if is_planted(Mistake::DependentsForgotten) => Ok(()),
        Effect::ReleaseDependents => {
            let event = (RunState::Waiting, RunEvent::DependencySucceeded);
            advance_dependents(tx, work, event, changed).await
        }
        Effect::FailDependents => {
            let event = (RunState::Waiting, RunEvent::DependencyFailed);
            advance_dependents(tx, work, event, changed).await
        }
        Effect::HoldBackDependents => {
            let event = (RunState::Queued, RunEvent::DependencyRemade);
            advance_dependents(tx, work, event, changed).await
        }
    }
}

/// Everything that is in one state sees one event, so the transition is asked for once and written
/// for all. Dependents have none of their own: only preparations are depended on.
async fn advance_dependents(
    tx: &mut Tx,
    work: &WorkId,
    (from, event): (RunState, RunEvent),
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let transition = from
        .on(event, Tries::none(unsigned(tx.now_ms)))
        .map_err(|source| StoreError::Transition { work: work.to_string(), source })?;
    let Transition::To { state, .. } = transition else {
        return Ok(());
    };
    let failed_end = match state {
        RunState::Failed { end } => Some(end.label()),
        _ => None,
    };
    // With its data a run may still wait for another's checkpoint, and never without.
    let sql = match state {
        RunState::Queued => concat!(
            "UPDATE work
SET state = ?, failed_end = ?, updated_at_ms = ?
WHERE depends_on = ? AND state = ? AND NOT ",
            waits_for_trunk!(),
            " RETURNING id"
        ),
        _ => {
            "UPDATE work
SET state = ?, failed_end = ?, updated_at_ms = ?
WHERE depends_on = ? AND state = ?
RETURNING id"
        }
    };
    let moved: Vec<String> = query_scalar(sql)
        .bind(state.label())
        .bind(failed_end)
        .bind(tx.now_ms)
        .bind(work.as_str())
        .bind(from.label())
        .fetch_all(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    let mut runs = Vec::new();
    for id in moved {
        let dependent: WorkId = parse_id(&id)?;
        let detail = json!({ "after": work.as_str() });
        tx.record(&id, &kind_of(&dependent, &state), &detail);
        if let WorkId::Run(run) = &dependent {
            runs.push(run.clone());
        }
        changed.work.push((dependent, state.clone()));
    }
    // Those whose trunk ended before the data was there begin without it.
    trunks::settle(tx, &runs, changed).await?;
    // A run that is queued now keeps others waiting on other terms than while it waited itself.
    trunks::settle_branches(tx, &runs.iter().collect::<Vec<_>>(), changed).await
}

/// Notes a grant.
pub(super) fn record_grant(tx: &mut Tx, lease: &Granted) {
    let (token, attempt, worker) = (lease.token, lease.attempt, lease.worker.clone());
    let mut detail = detail_of(&RunEvent::Granted { token, attempt, worker: worker.clone() });
    if !lease.members.is_empty() {
        let members: Vec<&str> = lease.members.iter().map(|m| m.worker.as_str()).collect();
        detail["members"] = json!(members);
    }
    let state = RunState::Leased { token, attempt, worker };
    tx.record(lease.work.as_str(), &kind_of(&lease.work, &state), &detail);
}

/// What the event row says beside the new state.
pub(super) fn detail_of(event: &RunEvent) -> Value {
    match event {
        RunEvent::Granted { token, attempt, worker } => {
            json!({ "lease_token": token.0, "attempt": attempt.0, "worker": worker.as_str() })
        }
        RunEvent::AttemptEnded { token, end } => {
            json!({ "lease_token": token.0, "ended_as": end.label() })
        }
        RunEvent::RetryRequested => json!({ "why": "retry_requested" }),
        RunEvent::RemakeRequested => json!({ "why": "data_damaged" }),
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
