//! Metric points: series in compressed chunks, and the latest values of a run.
//!
//! Thinning and the current truth of a step are the views'.

mod chunk;
mod old_rows;
mod series;

use std::collections::BTreeMap;

use domain::ids::RunId;

pub(super) use self::chunk::{Point, unpack};
pub(super) use self::old_rows::{pack as pack_old_rows, remain as old_rows_remain};
use self::series::Owner;
use super::convert::{from_json, signed, to_json};
use super::database::{query, query_as};
use super::error::from_driver;
use super::writer::Tx;
use crate::store::StoreError;

/// Stores the points of some steps in their order. A point that is there already stays.
pub(super) async fn write(
    tx: &mut Tx,
    run: &RunId,
    attempt: i64,
    steps: &[(u64, BTreeMap<String, f64>)],
) -> Result<(), StoreError> {
    let mut by_name: BTreeMap<&str, Vec<Point>> = BTreeMap::new();
    for (step, values) in steps {
        for (name, value) in values {
            let point = (signed(*step), finite(*value));
            by_name.entry(name).or_default().push(point);
        }
    }
    series::append(&mut tx.conn, Owner { run, attempt }, by_name).await?;
    update_latest(tx, run, steps).await
}

/// Packs what an attempt that is over has left open.
pub(super) async fn close(tx: &mut Tx, run: &RunId, attempt: i64) -> Result<(), StoreError> {
    series::close(&mut tx.conn, Owner { run, attempt }).await
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
    let mut latest: BTreeMap<&str, f64> = BTreeMap::new();
    for (step, new_values) in steps {
        if signed(*step) >= newest {
            newest = signed(*step);
            latest.extend(new_values.iter().map(|(name, value)| (name.as_str(), *value)));
        }
    }
    let latest = latest.into_iter();
    values.extend(latest.map(|(name, value)| (name.to_owned(), finite(value))));
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

/// JSON cannot show infinities; a value that is not finite is absent.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}
