//! Metric points: many rows in few statements, and the latest values of a run.
//!
//! Thinning and the current truth of a step are the views'.

use std::collections::BTreeMap;

use domain::ids::RunId;

use super::convert::{from_json, signed, to_json};
use super::database::{query, query_as, query_with_rows};
use super::error::from_driver;
use super::writer::Tx;
use crate::store::StoreError;

/// Rows in one statement: five values each stay far below the databases' limits of 32,766 and 65,535, and beyond
/// this many the statement's own cost no longer shows.
const ROWS_PER_STATEMENT: usize = 128;

/// Stores the points of some steps in their order. A point that is there already stays.
pub(super) async fn write(
    tx: &mut Tx,
    run: &RunId,
    attempt: i64,
    steps: &[(u64, BTreeMap<String, f64>)],
) -> Result<(), StoreError> {
    let rows: Vec<(i64, &str, f64)> = steps
        .iter()
        .flat_map(|(step, values)| {
            values.iter().map(|(name, value)| (signed(*step), name.as_str(), *value))
        })
        .collect();
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        insert(tx, run, attempt, chunk).await?;
    }
    update_latest(tx, run, steps).await
}

async fn insert(
    tx: &mut Tx,
    run: &RunId,
    attempt: i64,
    rows: &[(i64, &str, f64)],
) -> Result<(), StoreError> {
    let head = "INSERT INTO points (run_id, name, step, attempt, value) VALUES";
    let mut insert = query_with_rows(head, (rows.len(), 5), "ON CONFLICT DO NOTHING");
    for (step, name, value) in rows {
        // JSON cannot show infinities; a value that is not finite is absent.
        let value = value.is_finite().then_some(*value);
        insert = insert.bind(run.as_str()).bind(*name).bind(*step).bind(attempt).bind(value);
    }
    insert.execute(&mut tx.conn).await.map_err(from_driver)?;
    Ok(())
}

/// The values of the latest step, name by name. A step that comes again sets nothing back.
async fn update_latest(
    tx: &mut Tx,
    run: &RunId,
    steps: &[(u64, BTreeMap<String, f64>)],
) -> Result<(), StoreError> {
    let what = "latest_values_json";
    let (latest_step, text): (i64, String) =
        query_as("SELECT latest_step, latest_values_json FROM runs WHERE id = ?")
            .bind(run.as_str())
            .fetch_one(&mut tx.conn)
            .await
            .map_err(from_driver)?;
    let mut values: BTreeMap<String, Option<f64>> = from_json(&text, what)?;
    let mut newest = latest_step;
    for (step, new_values) in steps {
        if signed(*step) >= newest {
            newest = signed(*step);
            values.extend(
                new_values
                    .iter()
                    .map(|(name, value)| (name.clone(), value.is_finite().then_some(*value))),
            );
        }
    }
    let of = |name: &str| values.get(name).copied().flatten();
    query(
        "UPDATE runs
SET latest_step = ?, latest_values_json = ?, latest_train_loss_nats = ?,
    latest_tokens_per_second = ?
WHERE id = ?",
    )
    .bind(newest)
    .bind(to_json(&values, what)?)
    .bind(of("train_loss_nats"))
    .bind(of("tokens_per_second"))
    .bind(run.as_str())
    .execute(&mut tx.conn)
    .await
    .map_err(from_driver)?;
    Ok(())
}
