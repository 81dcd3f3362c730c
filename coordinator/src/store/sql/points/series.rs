//! One series of one attempt as rows: a tail of recent points in `point_series`, and chunks behind it
//! in `point_chunks`.
//!
//! It keeps two promises: the chunks of a series do not overlap, and the tail lies behind them. What
//! stands in a chunk's bytes is `super::chunk`'s.

use std::collections::HashMap;

use domain::ids::RunId;

use super::chunk::{Point, pack, plain, unpack};
use crate::store::StoreError;
use crate::store::sql::convert::signed;
use crate::store::sql::database::{Connection, query, query_as, query_scalar, query_with_rows};
use crate::store::sql::error::from_driver;

/// A tail of so many points becomes a chunk. It is written anew with each report, so it stays short:
/// some pages of the database.
const TAIL_POINTS: usize = 512;

/// Chunks of fewer points are packed together once they have so many: the larger a chunk, the less
/// its page of the database is left empty, and the more there is to decompress for one point of it.
pub(super) const CHUNK_POINTS: usize = 16_384;

/// Rows in one statement: nine values each stay far below the databases' limits.
const ROWS_PER_STATEMENT: usize = 256;

/// Whose series are meant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) run: &'a RunId,
    pub(super) attempt: i64,
}

#[derive(Debug, sqlx::FromRow)]
struct SeriesRow {
    name: String,
    n_points: i64,
    last_step: i64,
    chunked_to_step: i64,
    n_open: i64,
    open_from_step: i64,
    tail: Vec<u8>,
}

/// A series of an attempt.
#[derive(Debug)]
struct Series {
    name: String,
    n_points: usize,
    /// The highest step in a chunk, −1 without one.
    chunked_to_step: i64,
    /// Points in the chunks that begin at `open_from_step` or later, to be packed with later ones.
    n_loose: usize,
    open_from_step: i64,
    tail: Vec<Point>,
}

/// Adds points to the series of an attempt. A point of a step that is there already stays as it is,
/// wherever it is by now.
pub(super) async fn append<'a>(
    conn: &mut Connection,
    owner: Owner<'_>,
    new: impl IntoIterator<Item = (&'a str, Vec<Point>)>,
) -> Result<(), StoreError> {
    let mut known = load(conn, owner, 0).await?;
    let mut changed = Vec::new();
    for (name, points) in new {
        let mut series = known.remove(name).unwrap_or_else(|| Series::empty(name));
        let n_before = series.n_points;
        series.add(conn, owner, points).await?;
        if series.n_points > n_before {
            changed.push(series);
        }
    }
    save(conn, owner, &changed).await
}

/// Packs whatever an attempt has left open. It writes no more.
pub(super) async fn close(conn: &mut Connection, owner: Owner<'_>) -> Result<(), StoreError> {
    let mut changed = Vec::new();
    for mut series in load(conn, owner, 1).await?.into_values() {
        series.store_open(conn, owner).await?;
        changed.push(series);
    }
    save(conn, owner, &changed).await
}

/// The series of an attempt that have at least so many open points, by name.
async fn load(
    conn: &mut Connection,
    owner: Owner<'_>,
    n_open: i64,
) -> Result<HashMap<String, Series>, StoreError> {
    let rows: Vec<SeriesRow> = query_as(
        "SELECT name, n_points, last_step, chunked_to_step, n_open, open_from_step, tail
FROM point_series
WHERE run_id = ? AND attempt = ? AND n_open >= ?",
    )
    .bind(owner.run.as_str())
    .bind(owner.attempt)
    .bind(n_open)
    .fetch_all(conn)
    .await
    .map_err(from_driver)?;
    rows.into_iter().map(|row| Ok((row.name.clone(), row.into_series()?))).collect()
}

async fn save(
    conn: &mut Connection,
    owner: Owner<'_>,
    changed: &[Series],
) -> Result<(), StoreError> {
    let head = "INSERT INTO point_series (run_id, attempt, name, n_points, last_step,
    chunked_to_step, n_open, open_from_step, tail)
VALUES";
    let tail = "ON CONFLICT (run_id, attempt, name) DO UPDATE
SET n_points = excluded.n_points, last_step = excluded.last_step,
    chunked_to_step = excluded.chunked_to_step, n_open = excluded.n_open,
    open_from_step = excluded.open_from_step, tail = excluded.tail";
    for some in changed.chunks(ROWS_PER_STATEMENT) {
        let mut upsert = query_with_rows(head, (some.len(), 9), tail);
        for series in some {
            upsert = upsert
                .bind(owner.run.as_str())
                .bind(owner.attempt)
                .bind(&series.name)
                .bind(signed_len(series.n_points))
                .bind(series.last_step())
                .bind(series.chunked_to_step)
                .bind(signed_len(series.n_loose + series.tail.len()))
                .bind(series.open_from_step)
                .bind(plain(&series.tail));
        }
        upsert.execute(&mut *conn).await.map_err(from_driver)?;
    }
    Ok(())
}

impl SeriesRow {
    fn into_series(self) -> Result<Series, StoreError> {
        let tail = unpack(&self.tail).map_err(damaged)?;
        let count = |n: i64| usize::try_from(n).unwrap_or_default();
        let n_loose = count(self.n_open).checked_sub(tail.len());
        let last_step = tail.last().map_or(self.chunked_to_step, |(step, _)| *step);
        match n_loose {
            Some(n_loose) if last_step == self.last_step => Ok(Series {
                name: self.name,
                n_points: count(self.n_points),
                chunked_to_step: self.chunked_to_step,
                n_loose,
                open_from_step: self.open_from_step,
                tail,
            }),
            _ => Err(StoreError::Bug(format!(
                "the row of series `{}` contradicts its tail",
                self.name
            ))),
        }
    }
}

impl Series {
    fn empty(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            n_points: 0,
            chunked_to_step: -1,
            n_loose: 0,
            open_from_step: 0,
            tail: Vec::new(),
        }
    }

    fn last_step(&self) -> i64 {
        self.tail.last().map_or(self.chunked_to_step, |(step, _)| *step)
    }

    async fn add(
        &mut self,
        conn: &mut Connection,
        owner: Owner<'_>,
        points: Vec<Point>,
    ) -> Result<(), StoreError> {
        let mut late = Vec::new();
        merge(&mut late, points);
        let n_late = late.partition_point(|(step, _)| *step <= self.chunked_to_step);
        let fresh = late.split_off(n_late);
        if !late.is_empty() {
            self.add_late(conn, owner, late).await?;
        }
        self.n_points += merge(&mut self.tail, fresh);
        if self.tail.len() >= TAIL_POINTS {
            self.store_tail(conn, owner).await?;
        }
        Ok(())
    }

    /// Takes points whose steps the chunks have passed: a report that comes again, whose points are
    /// there, or one that comes late, whose points are put between the others.
    async fn add_late(
        &mut self,
        conn: &mut Connection,
        owner: Owner<'_>,
        late: Vec<Point>,
    ) -> Result<(), StoreError> {
        let (Some((first_step, _)), Some((last_step, _))) = (late.first(), late.last()) else {
            return Ok(());
        };
        let (first_step, last_step) = (*first_step, *last_step);
        let chunks: Vec<Vec<u8>> = query_scalar(
            "SELECT bytes
FROM point_chunks
WHERE run_id = ? AND name = ? AND attempt = ? AND first_step <= ? AND last_step >= ?
ORDER BY first_step",
        )
        .bind(owner.run.as_str())
        .bind(&self.name)
        .bind(owner.attempt)
        .bind(last_step)
        .bind(first_step)
        .fetch_all(&mut *conn)
        .await
        .map_err(from_driver)?;
        let mut points = unpack_all(&chunks)?;
        let n_new = merge(&mut points, late);
        if n_new == 0 {
            return Ok(());
        }
        query(
            "DELETE FROM point_chunks
WHERE run_id = ? AND name = ? AND attempt = ? AND first_step <= ? AND last_step >= ?",
        )
        .bind(owner.run.as_str())
        .bind(&self.name)
        .bind(owner.attempt)
        .bind(last_step)
        .bind(first_step)
        .execute(&mut *conn)
        .await
        .map_err(from_driver)?;
        insert_chunks(conn, owner, &self.name, &points).await?;
        self.n_points += n_new;
        // Which of the open chunks these were is not worth knowing: none is packed again.
        self.n_loose = 0;
        self.open_from_step = self.chunked_to_step + 1;
        Ok(())
    }

    /// Makes the tail a chunk, with those before it when they are enough.
    async fn store_tail(
        &mut self,
        conn: &mut Connection,
        owner: Owner<'_>,
    ) -> Result<(), StoreError> {
        if self.n_loose + self.tail.len() >= CHUNK_POINTS {
            return self.store_open(conn, owner).await;
        }
        let tail = std::mem::take(&mut self.tail);
        insert_chunks(conn, owner, &self.name, &tail).await?;
        self.n_loose += tail.len();
        self.chunked_to_step = tail.last().map_or(self.chunked_to_step, |(step, _)| *step);
        Ok(())
    }

    /// Packs all that is open.
    async fn store_open(
        &mut self,
        conn: &mut Connection,
        owner: Owner<'_>,
    ) -> Result<(), StoreError> {
        let mut points = self.take_loose(conn, owner).await?;
        points.append(&mut self.tail);
        insert_chunks(conn, owner, &self.name, &points).await?;
        self.n_loose = 0;
        self.chunked_to_step = points.last().map_or(self.chunked_to_step, |(step, _)| *step);
        self.open_from_step = self.chunked_to_step + 1;
        Ok(())
    }

    /// Takes the points of the open chunks out of the store.
    async fn take_loose(
        &self,
        conn: &mut Connection,
        owner: Owner<'_>,
    ) -> Result<Vec<Point>, StoreError> {
        if self.n_loose == 0 {
            return Ok(Vec::new());
        }
        let mut taken: Vec<(i64, Vec<u8>)> = query_as(
            "DELETE FROM point_chunks
WHERE run_id = ? AND name = ? AND attempt = ? AND first_step >= ?
RETURNING first_step, bytes",
        )
        .bind(owner.run.as_str())
        .bind(&self.name)
        .bind(owner.attempt)
        .bind(self.open_from_step)
        .fetch_all(conn)
        .await
        .map_err(from_driver)?;
        taken.sort_unstable_by_key(|(first_step, _)| *first_step);
        let chunks: Vec<Vec<u8>> = taken.into_iter().map(|(_, bytes)| bytes).collect();
        let points = unpack_all(&chunks)?;
        if points.len() == self.n_loose {
            Ok(points)
        } else {
            let (found, expected) = (points.len(), self.n_loose);
            Err(StoreError::Bug(format!(
                "series `{}` has {found} open points in chunks, not {expected}",
                self.name
            )))
        }
    }
}

/// Puts points between others by their steps; how many were new. Of one step the first one stays.
fn merge(points: &mut Vec<Point>, new: Vec<Point>) -> usize {
    let n_before = points.len();
    points.extend(new);
    // The order of equal steps is kept, and what is in order already takes one pass.
    points.sort_by_key(|(step, _)| *step);
    points.dedup_by_key(|(step, _)| *step);
    points.len() - n_before
}

fn unpack_all(chunks: &[Vec<u8>]) -> Result<Vec<Point>, StoreError> {
    let mut points = Vec::new();
    for bytes in chunks {
        points.extend(unpack(bytes).map_err(damaged)?);
    }
    Ok(points)
}

/// Writes points as chunks of about the same size, none of which could be two.
async fn insert_chunks(
    conn: &mut Connection,
    owner: Owner<'_>,
    name: &str,
    points: &[Point],
) -> Result<(), StoreError> {
    let n_chunks = (points.len() / CHUNK_POINTS).max(1);
    for chunk in points.chunks(points.len().div_ceil(n_chunks).max(1)) {
        let (Some((first_step, _)), Some((last_step, _))) = (chunk.first(), chunk.last()) else {
            continue;
        };
        query(
            "INSERT INTO point_chunks (run_id, name, attempt, first_step, last_step, n_points, bytes)
VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(owner.run.as_str())
        .bind(name)
        .bind(owner.attempt)
        .bind(*first_step)
        .bind(*last_step)
        .bind(signed_len(chunk.len()))
        .bind(pack(chunk).map_err(damaged)?)
        .execute(&mut *conn)
        .await
        .map_err(from_driver)?;
    }
    Ok(())
}

fn damaged(error: super::chunk::ChunkError) -> StoreError {
    StoreError::Points(error.into())
}

fn signed_len(n: usize) -> i64 {
    signed(n as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_one_step_the_first_point_stays() {
        let mut points = vec![(1, Some(0.1)), (4, Some(0.4))];
        let n_new = merge(&mut points, vec![(4, None), (2, None), (2, Some(9.0)), (5, Some(0.5))]);
        assert_eq!(n_new, 2);
        assert_eq!(points, [(1, Some(0.1)), (2, None), (4, Some(0.4)), (5, Some(0.5))]);
    }
}
