//! `report`: what an attempt has to say, stored under its live token.
//!
//! How an attempt ends is `finish`'s.

use std::collections::BTreeMap;

use domain::attempt::{AttemptEvent, AttemptState, AttemptTransition};
use domain::ids::{LeaseToken, RunId, WorkId};
use domain::planted::{Mistake, is_planted};
use serde_json::json;

use super::convert::{parse_id, signed, to_json};
use super::database::{query, query_as};
use super::error::from_driver;
use super::evaluations;
use super::members;
use super::points;
use super::trunks;
use super::writer::{Command, Tx};
use crate::actor::Actor;
use crate::store::{Artifact, Changed, LogLevel, Numerics, ReportEvent, Reported, StoreError};

pub(super) struct Report {
    pub(super) token: LeaseToken,
    pub(super) events: Vec<ReportEvent>,
}

/// The attempt that a live token belongs to.
struct Holder {
    token: LeaseToken,
    work: WorkId,
    attempt: i64,
    state: AttemptState,
}

impl Command for Report {
    type Answer = Reported;
    const IS_KEPT_APART: bool = false;

    async fn run(mut self, tx: &mut Tx) -> Result<Reported, StoreError> {
        if is_planted(Mistake::LastEventDropped) && self.events.len() > 2 {
            self.events.pop();
        }
        let Some(mut holder) = holder(tx, self.token).await? else {
            return self.by_member(tx).await;
        };
        let mut has_new_work = false;
        let mut steps: Vec<(u64, BTreeMap<String, f64>)> = Vec::new();
        for event in self.events {
            match event {
                ReportEvent::Point { step, values } => steps.push((step, values)),
                // A resumed run counts from its checkpoint again, so the order to points matters.
                other => {
                    write_points(tx, &holder, &mut steps).await?;
                    has_new_work |= store(tx, &mut holder, other).await?;
                }
            }
        }
        write_points(tx, &holder, &mut steps).await?;
        Ok(Reported::Stored { work: holder.work, has_new_work })
    }
}

impl Report {
    /// A member beside rank 0 has log lines only; what counts is rank 0's to say.
    async fn by_member(self, tx: &mut Tx) -> Result<Reported, StoreError> {
        let Some(member) = members::held(&mut tx.conn, self.token).await? else {
            return Ok(Reported::Stale);
        };
        tx.actor = Actor::Worker(member.worker);
        let holder = Holder {
            token: member.attempt_token,
            work: member.work,
            attempt: member.attempt,
            state: AttemptState::Running { token: member.attempt_token },
        };
        for event in self.events {
            if let ReportEvent::Log { at_ms, level, text } = event {
                let text = format!("rank {}: {text}", member.rank);
                store_log(tx, &holder, at_ms, level, &text).await?;
            }
        }
        Ok(Reported::Stored { work: holder.work, has_new_work: false })
    }
}

async fn holder(tx: &mut Tx, token: LeaseToken) -> Result<Option<Holder>, StoreError> {
    let sql = if is_planted(Mistake::ReportsAreNotFenced) {
        "SELECT work_id, attempt, state, worker_id FROM attempts WHERE lease_token = ?"
    } else {
        "SELECT work_id, attempt, state, worker_id
FROM attempts
WHERE lease_token = ? AND state IN ('granted', 'running')"
    };
    let row: Option<(String, i64, String, String)> = query_as(sql)
        .bind(signed(token.0))
        .fetch_optional(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    row.map(|(work, attempt, state, worker)| {
        tx.actor = Actor::Worker(parse_id(&worker)?);
        // A row without a live state is passed on only where a mistake is planted.
        let state = AttemptState::from_label(&state, token, None)
            .unwrap_or(AttemptState::Running { token });
        Ok(Holder { token, work: parse_id(&work)?, attempt, state })
    })
    .transpose()
}

async fn write_points(
    tx: &mut Tx,
    holder: &Holder,
    steps: &mut Vec<(u64, BTreeMap<String, f64>)>,
) -> Result<(), StoreError> {
    match &holder.work {
        WorkId::Run(run) if !steps.is_empty() => {
            points::write(tx, run, holder.attempt, steps).await?;
        }
        // Only runs have series; what else sends points is not harmed by that.
        _ => {}
    }
    steps.clear();
    Ok(())
}

/// Stores one event; whether it made new work.
async fn store(tx: &mut Tx, holder: &mut Holder, event: ReportEvent) -> Result<bool, StoreError> {
    match (event, &holder.work) {
        (ReportEvent::Started { numerics, resumed_from_step }, _) => {
            let transition = holder.state.on(holder.token, AttemptEvent::Started);
            if let AttemptTransition::To(state) = transition {
                mark_running(tx, holder, &numerics, signed(resumed_from_step)).await?;
                holder.state = state;
            }
        }
        (ReportEvent::Log { at_ms, level, text }, _) => {
            store_log(tx, holder, at_ms, level, &text).await?;
        }
        (
            ReportEvent::Checkpoint { step, manifest, weights, is_data_point, n_bytes },
            WorkId::Run(run),
        ) => {
            let run = run.clone();
            let row = CheckpointToStore { step, manifest, weights, is_data_point, n_bytes };
            return store_checkpoint(tx, holder, &run, &row).await;
        }
        (ReportEvent::CheckpointRefused { .. }, _) if is_planted(Mistake::RefusalLost) => {}
        (ReportEvent::CheckpointRefused { manifest_key, reason }, WorkId::Run(run)) => {
            doubt_checkpoint(tx, run, holder.attempt, (&manifest_key, &reason)).await?;
        }
        (
            ReportEvent::Evaluation { name, value, standard_error, n_tokens },
            WorkId::Evaluation(_),
        ) => {
            query(
                "UPDATE evaluations
SET result_name = ?, value = ?, standard_error = ?, n_tokens = ?
WHERE id = ?",
            )
            .bind(name)
            // A value that is not finite is none.
            .bind(value.is_finite().then_some(value))
            .bind(standard_error.filter(|error| error.is_finite()))
            .bind(signed(n_tokens))
            .bind(holder.work.as_str())
            .execute(&mut tx.conn)
            .await
            .map_err(from_driver)?;
        }
        (
            ReportEvent::Preparation {
                manifest,
                n_training_tokens,
                n_validation_tokens,
                vocab_size,
            },
            WorkId::Preparation(_),
        ) => {
            let n_tokens = (n_training_tokens, n_validation_tokens);
            store_preparation(tx, holder, &manifest, n_tokens, vocab_size).await?;
        }
        (ReportEvent::Point { .. }, _) => {}
        (event, work) => {
            tracing::warn!(work.id = %work, ?event, "an attempt reported what its work cannot have");
        }
    }
    Ok(false)
}

async fn store_log(
    tx: &mut Tx,
    holder: &Holder,
    at_ms: i64,
    level: LogLevel,
    text: &str,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO log_lines (work_id, attempt, at_ms, level, text)
VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING",
    )
    .bind(holder.work.as_str())
    .bind(holder.attempt)
    .bind(at_ms)
    .bind(level.label())
    .bind(text)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(())
}

/// The attempt works; its numerics are the run's when it is the first. A run that goes on from another
/// one's checkpoint and rounds in another way than that one did is marked like one that changed on
/// its own way.
async fn mark_running(
    tx: &mut Tx,
    holder: &Holder,
    numerics: &Numerics,
    step: i64,
) -> Result<(), StoreError> {
    let numerics = to_json(numerics, "numerics_json")?;
    query(
        "UPDATE attempts
SET state = 'running', started_at_ms = COALESCE(started_at_ms, ?), resumed_from_step = ?,
    numerics_json = ?
WHERE lease_token = ?",
    )
    .bind(tx.now_ms)
    .bind(step)
    .bind(&numerics)
    .bind(signed(holder.token.0))
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    if let WorkId::Run(run) = &holder.work {
        query(
            "UPDATE runs
SET latest_step = ?1,
    has_changed_numerics = CASE
        WHEN numerics_json <> ?2 THEN 1
        WHEN EXISTS (
            SELECT 1
            FROM trunks
            JOIN checkpoints AS kept ON kept.run_id = trunks.from_run_id AND kept.step = ?1
            WHERE trunks.run_id = runs.id AND trunks.from_step >= ?1
        ) AND NOT EXISTS (
            -- It goes on from one of its own.
            SELECT 1
            FROM checkpoints AS own
            WHERE own.run_id = runs.id AND own.step = ?1
        ) AND NOT EXISTS (
            -- It goes on from one that was made with these numerics alone.
            SELECT 1
            FROM trunks
            JOIN checkpoints AS kept ON kept.run_id = trunks.from_run_id AND kept.step = ?1
            JOIN attempts ON attempts.work_id = kept.run_id AND attempts.attempt = kept.attempt
            JOIN runs AS source ON source.id = kept.run_id
            LEFT JOIN trunks AS its ON its.run_id = source.id
            WHERE trunks.run_id = runs.id AND attempts.numerics_json = ?2
                AND (source.has_changed_numerics = 0 OR its.from_run_id IS NULL)
                AND NOT EXISTS (
                    SELECT 1
                    FROM attempts AS earlier
                    WHERE earlier.work_id = kept.run_id AND earlier.attempt < kept.attempt
                        AND earlier.numerics_json <> attempts.numerics_json
                )
        ) THEN 1
        ELSE has_changed_numerics
    END,
    numerics_json = COALESCE(numerics_json, ?2)
WHERE id = ?3",
        )
        .bind(step)
        .bind(&numerics)
        .bind(run.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
        trunks::charge_rest(tx, run, step).await?;
    }
    let kind = format!("{}_started", holder.work.kind());
    tx.record(holder.work.as_str(), &kind, &json!({ "resumed_from_step": step }));
    Ok(())
}

struct CheckpointToStore {
    step: u64,
    manifest: Artifact,
    weights: Artifact,
    is_data_point: bool,
    n_bytes: u64,
}

async fn store_checkpoint(
    tx: &mut Tx,
    holder: &Holder,
    run: &RunId,
    row: &CheckpointToStore,
) -> Result<bool, StoreError> {
    let inserted = query(
        "INSERT INTO checkpoints (run_id, attempt, step, manifest_key, manifest_hash,
    manifest_bytes, weights_key, weights_hash, weights_bytes, n_bytes, is_data_point,
    created_at_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (run_id, attempt, step) DO NOTHING",
    )
    .bind(run.as_str())
    .bind(holder.attempt)
    .bind(signed(row.step))
    .bind(&row.manifest.key)
    .bind(row.manifest.hash.as_str())
    .bind(signed(row.manifest.n_bytes))
    .bind(&row.weights.key)
    .bind(row.weights.hash.as_str())
    .bind(signed(row.weights.n_bytes))
    .bind(signed(row.n_bytes))
    .bind(row.is_data_point)
    .bind(tx.now_ms)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    if inserted.rows_affected() == 0 {
        return Ok(false);
    }
    let detail = json!({ "step": row.step, "is_data_point": row.is_data_point });
    tx.record(run.as_str(), "checkpoint_published", &detail);
    if !row.is_data_point {
        forget_losses(tx, run).await?;
    }
    let mut changed = Changed::default();
    trunks::settle_branches(tx, &[run], &mut changed).await?;
    let has_branches = !changed.work.is_empty();
    let is_unmeasured = is_planted(Mistake::LaterCheckpointsUnmeasured) && holder.attempt > 1;
    if !row.is_data_point || is_unmeasured {
        return Ok(has_branches);
    }
    let checkpoint = evaluations::checkpoint_at(holder.attempt, row.step, &row.weights.hash);
    Ok(evaluations::ensure(tx, run, &[checkpoint]).await? > 0 || has_branches)
}

/// Workers that are lost in a row are counted where nothing comes of it: a run that has got on since,
/// as a rolling checkpoint says, may lose as many again.
async fn forget_losses(tx: &mut Tx, run: &RunId) -> Result<(), StoreError> {
    query("UPDATE work SET n_losses = 0 WHERE id = ? AND n_losses > 0")
        .bind(run.as_str())
        .execute(&mut tx.conn)
        .await
        .map_err(from_driver)?;
    Ok(())
}

/// An attempt found a checkpoint damaged. It may have been its machine: the next attempt that finds
/// it so has it refused. An attempt that says it twice says it once.
async fn doubt_checkpoint(
    tx: &mut Tx,
    run: &RunId,
    attempt: i64,
    (manifest_key, reason): (&str, &str),
) -> Result<(), StoreError> {
    let detail = json!({ "manifest_key": manifest_key, "reason": reason, "attempt": attempt });
    let doubted = query(
        "UPDATE checkpoints
SET failed_attempt = ?, failed_run_id = ?
WHERE run_id IN (?, (SELECT from_run_id FROM trunks WHERE trunks.run_id = ?))
    AND manifest_key = ? AND failed_attempt IS NULL",
    )
    .bind(attempt)
    .bind(run.as_str())
    .bind(run.as_str())
    .bind(run.as_str())
    .bind(manifest_key)
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    if doubted.rows_affected() > 0 {
        tx.record(run.as_str(), "checkpoint_doubted", &detail);
        return Ok(());
    }
    let refused = query(
        "UPDATE checkpoints
SET refused_reason = ?
WHERE run_id IN (?, (SELECT from_run_id FROM trunks WHERE trunks.run_id = ?))
    AND manifest_key = ? AND refused_reason IS NULL
    AND (failed_attempt <> ? OR COALESCE(failed_run_id, run_id) <> ?)",
    )
    .bind(reason)
    .bind(run.as_str())
    .bind(run.as_str())
    .bind(manifest_key)
    .bind(attempt)
    .bind(run.as_str())
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    if refused.rows_affected() > 0 {
        tx.record(run.as_str(), "checkpoint_refused", &detail);
    }
    Ok(())
}

async fn store_preparation(
    tx: &mut Tx,
    holder: &Holder,
    manifest: &Artifact,
    (n_training_tokens, n_validation_tokens): (u64, u64),
    vocab_size: u32,
) -> Result<(), StoreError> {
    query(
        "UPDATE preparations
SET manifest_key = ?, manifest_hash = ?, manifest_bytes = ?, n_training_tokens = ?,
    n_validation_tokens = ?, vocab_size = ?
WHERE id = ?",
    )
    .bind(&manifest.key)
    .bind(manifest.hash.as_str())
    .bind(signed(manifest.n_bytes))
    .bind(signed(n_training_tokens))
    .bind(signed(n_validation_tokens))
    .bind(vocab_size)
    .bind(holder.work.as_str())
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(())
}
