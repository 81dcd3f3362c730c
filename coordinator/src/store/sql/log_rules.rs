//! What follows from what a failed attempt had said: its study's log rules.
//!
//! What a rule is, and whether a line has its pattern, is the domain's.

use std::collections::BTreeMap;

use domain::ids::{LeaseToken, WorkId, WorkerId};
use domain::spec::{LogAction, LogRule, matching_log_rules};
use serde_json::json;

use super::convert::{from_json, signed, to_json};
use super::database::{query, query_scalar};
use super::error::from_driver;
use super::writer::Tx;
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
            LogAction::ExcludeWorker => exclude(tx, work, worker, &rule.pattern).await?,
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
    pattern: &str,
) -> Result<(), StoreError> {
    let text: String = query_scalar("SELECT excluded_json FROM work WHERE id = ?")
        .bind(work.as_str())
        .fetch_one(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    let mut excluded: BTreeMap<String, String> = from_json(&text, "excluded_json")?;
    excluded.insert(worker.to_string(), pattern.to_owned());
    write(tx, work, &excluded).await
}

/// Whoever asks for a retry gives a fresh start.
pub(super) async fn forget(tx: &mut Tx, work: &WorkId) -> Result<(), StoreError> {
    write(tx, work, &BTreeMap::new()).await
}

async fn write(
    tx: &mut Tx,
    work: &WorkId,
    excluded: &BTreeMap<String, String>,
) -> Result<(), StoreError> {
    query("UPDATE work SET excluded_json = ? WHERE id = ?")
        .bind(to_json(excluded, "excluded_json")?)
        .bind(work.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    Ok(())
}
