//! What work is kept from: the workers that its study's log rules name by what a failed attempt had
//! said, and those where it failed.
//!
//! What a rule is, and whether a line has its pattern, is the domain's.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, WorkId, WorkerId};
use domain::spec::{LogAction, LogRule, matching_log_rules};
use serde_json::json;

use super::convert::{from_json, signed, to_json};
use super::database::{query, query_scalar};
use super::error::from_driver;
use super::writer::Tx;
use crate::scheduler::fit::Exclusion;
use crate::store::StoreError;

/// So many of an attempt's last lines are looked at: what made it fail stands near the end.
const LAST_LINES: u32 = 2000;

/// Keeps the work from the worker of a failed attempt when a rule of its study says so; whether one
/// says that it is not to be tried again.
pub(super) async fn apply(
    tx: &mut Tx,
    work: &WorkId,
    token: LeaseToken,
    worker: &WorkerId,
    message: &str,
) -> Result<bool, StoreError> {
    let rules: Option<String> = query_scalar(
        "SELECT studies.log_rules_json
FROM work
JOIN studies ON studies.id = work.study_id
WHERE work.id = ? AND studies.log_rules_json <> '[]'",
    )
    .bind(work.as_str())
    .fetch_optional(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    let Some(rules) = rules else { return Ok(false) };
    let rules: Vec<LogRule> = from_json(&rules, "log_rules_json")?;
    let said = said(tx, token).await?;
    let lines: Vec<&str> = said.iter().map(String::as_str).chain([message]).collect();
    let mut is_final = false;
    for rule in matching_log_rules(&rules, &lines) {
        match rule.action {
            LogAction::ExcludeWorker => {
                exclude(tx, work, worker, Exclusion::Rule(rule.pattern.clone())).await?;
            }
            LogAction::StopRetries => is_final = true,
        }
        let detail = json!({
            "lease_token": token.0,
            "worker": worker.as_str(),
            "pattern": rule.pattern,
            "action": rule.action.label(),
        });
        tx.record(work.as_str(), "log_rule_matched", &detail);
    }
    Ok(is_final)
}

async fn said(tx: &mut Tx, token: LeaseToken) -> Result<Vec<String>, StoreError> {
    query_scalar(
        "SELECT log_lines.text
FROM attempts
JOIN log_lines ON log_lines.work_id = attempts.work_id AND log_lines.attempt = attempts.attempt
WHERE attempts.lease_token = ?
ORDER BY log_lines.id DESC
LIMIT ?",
    )
    .bind(signed(token.0))
    .bind(LAST_LINES)
    .fetch_all(&mut tx.conn)
    .await
    .map_err(from_driver)
}

async fn exclude(
    tx: &mut Tx,
    work: &WorkId,
    worker: &WorkerId,
    why: Exclusion,
) -> Result<(), StoreError> {
    let mut excluded = read(tx, work).await?;
    excluded.insert(worker.to_string(), why);
    write(tx, work, &excluded).await
}

/// The next attempt goes to another machine, if there is one: what failed here for the machine's
/// sake would fail here again, and a machine where all fails at once is always free.
pub(super) async fn avoid(
    tx: &mut Tx,
    work: &WorkId,
    worker: &WorkerId,
    end: AttemptEnd,
) -> Result<(), StoreError> {
    let mut excluded = read(tx, work).await?;
    if let Entry::Vacant(vacant) = excluded.entry(worker.to_string()) {
        vacant.insert(Exclusion::Failed { failed: end.label().to_owned() });
        write(tx, work, &excluded).await?;
    }
    Ok(())
}

/// An attempt that did not fail shows that there is nothing to avoid; log rules stay.
pub(super) async fn avoid_nobody(tx: &mut Tx, work: &WorkId) -> Result<(), StoreError> {
    let mut excluded = read(tx, work).await?;
    let n_before = excluded.len();
    excluded.retain(|_, why| matches!(why, Exclusion::Rule(_)));
    if excluded.len() < n_before { write(tx, work, &excluded).await } else { Ok(()) }
}

async fn read(tx: &mut Tx, work: &WorkId) -> Result<BTreeMap<String, Exclusion>, StoreError> {
    let text: String = query_scalar("SELECT excluded_json FROM work WHERE id = ?")
        .bind(work.as_str())
        .fetch_one(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    from_json(&text, "excluded_json")
}

/// Whoever asks for a retry gives a fresh start.
pub(super) async fn forget(tx: &mut Tx, work: &WorkId) -> Result<(), StoreError> {
    write(tx, work, &BTreeMap::new()).await
}

async fn write(
    tx: &mut Tx,
    work: &WorkId,
    excluded: &BTreeMap<String, Exclusion>,
) -> Result<(), StoreError> {
    query("UPDATE work SET excluded_json = ? WHERE id = ?")
        .bind(to_json(excluded, "excluded_json")?)
        .bind(work.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    Ok(())
}
