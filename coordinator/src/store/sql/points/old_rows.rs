//! Points of a store that an older build made, one a row: they are packed before anything else is
//! done with the store. What points look like afterwards is `super::series`'.

use domain::ids::RunId;

use super::chunk::Point;
use super::series::{self, Owner};
use crate::store::StoreError;
use crate::store::sql::convert::parse_id;
use crate::store::sql::database::{Connection, Pool, query, query_as, query_scalar};
use crate::store::sql::error::from_driver;

/// Whether some are left.
pub(in crate::store::sql) async fn remain(pool: &Pool) -> Result<bool, StoreError> {
    let first: Option<i64> = query_scalar("SELECT attempt FROM points LIMIT 1")
        .fetch_optional(pool)
        .await
        .map_err(from_driver)?;
    Ok(first.is_some())
}

/// Packs all of them in one transaction: a store has its points in one form or in the other.
pub(in crate::store::sql) async fn pack(conn: &mut Connection) -> Result<(), StoreError> {
    conn.begin().await.map_err(from_driver)?;
    let packed = pack_each(conn).await;
    let end = if packed.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = query(end).execute(&mut *conn).await.map_err(from_driver);
    packed.and(ended.map(|_| ()))
}

async fn pack_each(conn: &mut Connection) -> Result<(), StoreError> {
    let mut n_series = 0;
    let mut last = (String::new(), String::new());
    while let Some((run_id, name)) = after(conn, &last).await? {
        let run: RunId = parse_id(&run_id)?;
        for (attempt, points) in attempts(conn, &run_id, &name).await? {
            let owner = Owner { run: &run, attempt };
            series::append(conn, owner, [(name.as_str(), points)]).await?;
            n_series += 1;
        }
        last = (run_id, name);
    }
    if n_series > 0 {
        query("DELETE FROM points").execute(conn).await.map_err(from_driver)?;
        tracing::info!(n_series, "the metric points of an older build are packed");
    }
    Ok(())
}

/// The next series.
async fn after(
    conn: &mut Connection,
    (run_id, name): &(String, String),
) -> Result<Option<(String, String)>, StoreError> {
    query_as(
        "SELECT run_id, name
FROM points
WHERE (run_id, name) > (?, ?)
ORDER BY run_id, name
LIMIT 1",
    )
    .bind(run_id)
    .bind(name)
    .fetch_optional(conn)
    .await
    .map_err(from_driver)
}

/// The points of a series, by attempt.
async fn attempts(
    conn: &mut Connection,
    run_id: &str,
    name: &str,
) -> Result<Vec<(i64, Vec<Point>)>, StoreError> {
    let rows: Vec<(i64, i64, Option<f64>)> = query_as(
        "SELECT attempt, step, value
FROM points
WHERE run_id = ? AND name = ?
ORDER BY attempt, step",
    )
    .bind(run_id)
    .bind(name)
    .fetch_all(conn)
    .await
    .map_err(from_driver)?;
    let mut attempts: Vec<(i64, Vec<Point>)> = Vec::new();
    for (attempt, step, value) in rows {
        match attempts.last_mut() {
            Some((last, points)) if *last == attempt => points.push((step, value)),
            _ => attempts.push((attempt, vec![(step, value)])),
        }
    }
    Ok(attempts)
}
