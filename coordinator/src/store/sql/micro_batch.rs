//! A run that did not fit into memory takes half as many sequences at a time.
//!
//! Whether it is tried again at all is the domain's.

use domain::cell::Identity;
use domain::ids::RunId;
use domain::recipe::CellConfig;
use serde_json::json;

use super::convert::{from_json, signed, small, to_json};
use super::database::{query, query_as};
use super::error::from_driver;
use super::writer::Tx;
use crate::store::{Numerics, StoreError};

#[derive(Debug, sqlx::FromRow)]
struct RunRow {
    config_json: String,
    micro_batch_sequences: i64,
    numerics_json: Option<String>,
}

/// Halves the micro-batch of a run; nothing when it is one sequence already. What its first attempt
/// fixed is changed with it, and the run is marked: it is promised equal to rounding only.
pub(super) async fn halve(tx: &mut Tx, run: &RunId) -> Result<(), StoreError> {
    let row: RunRow = query_as(
        "SELECT config_json, micro_batch_sequences, numerics_json
FROM runs
WHERE id = ?",
    )
    .bind(run.as_str())
    .fetch_one(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    let mut numerics: Option<Numerics> =
        row.numerics_json.as_deref().map(|text| from_json(text, "numerics_json")).transpose()?;
    let CellConfig::Pretrain(cell) =
        Identity::parse(&row.config_json).map_err(StoreError::Configuration)?;
    let fixed = numerics.as_ref().map_or(0, |numerics| numerics.micro_batch_sequences);
    let batch = cell.training.batch_sequences;
    // 0 is the whole batch, and a study may say more than that.
    let from = [fixed, small(row.micro_batch_sequences), batch]
        .into_iter()
        .find(|n_sequences| *n_sequences > 0)
        .map_or(1, |n_sequences| n_sequences.min(batch));
    let to = from / 2;
    if to == 0 {
        return Ok(());
    }
    let has_changed_numerics = numerics.is_some();
    if let Some(numerics) = &mut numerics {
        numerics.micro_batch_sequences = to;
    }
    let numerics_json = numerics.map(|numerics| to_json(&numerics, "numerics_json")).transpose()?;
    query(
        "UPDATE runs
SET micro_batch_sequences = ?, memory_bytes = ?, numerics_json = ?,
    has_changed_numerics = GREATEST(has_changed_numerics, ?)
WHERE id = ?",
    )
    .bind(to)
    .bind(signed(cell.memory(to).total()))
    .bind(numerics_json)
    .bind(has_changed_numerics)
    .bind(run.as_str())
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    tx.record(run.as_str(), "micro_batch_halved", &json!({ "from": from, "to": to }));
    Ok(())
}
