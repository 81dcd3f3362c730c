//! Every point of a series, out of its chunks and its tail.
//!
//! Which of them is the current truth is `super::curves`'.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use domain::ids::RunId;
use futures::TryStreamExt;

use super::restarts::{self, Restart};
use super::{corrupt, count, failed, small_count};
use crate::store::read::{ALL_STEPS, ReadError, SeriesPoint};
use crate::store::sql::convert::signed;
use crate::store::sql::database::{Pool, Reading, query_as};
use crate::store::sql::points::unpack;

/// A point of a run: step, attempt and value.
pub(super) type RunPoint = (i64, i64, Option<f64>);

/// Where the points of a series are, for some runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    tails: &'static str,
    chunks: &'static str,
}

macro_rules! places {
    ($runs:literal) => {
        Places {
            tails: concat!(
                "SELECT run_id, attempt, tail
FROM point_series
WHERE run_id ",
                $runs,
                " AND name = ?2 AND last_step >= ?3 AND chunked_to_step < ?4
ORDER BY run_id, attempt"
            ),
            chunks: concat!(
                "SELECT run_id, attempt, bytes
FROM point_chunks
WHERE run_id ",
                $runs,
                " AND name = ?2 AND last_step >= ?3 AND first_step <= ?4
ORDER BY run_id, attempt, first_step"
            ),
        }
    };
}

/// Of every run of a study.
pub(super) const OF_STUDY: Places = places!("IN (SELECT run_id FROM cells WHERE study_id = ?1)");

/// Of one run.
pub(super) const OF_RUN: Places = places!("= ?1");

/// A chunk or tail: run, attempt and bytes.
type Packed = (String, i64, Vec<u8>);

/// A series, and which of its steps are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) series: &'a str,
    first_step: i64,
    last_step: i64,
}

impl<'a> Part<'a> {
    pub(super) fn new(series: &'a str, steps: &RangeInclusive<u64>) -> Self {
        Self { series, first_step: signed(*steps.start()), last_step: signed(*steps.end()) }
    }

    /// Adds the points that are in these steps: only what may have some is unpacked.
    fn add(
        &self,
        points: &mut Vec<RunPoint>,
        (run_id, attempt, bytes): &Packed,
    ) -> Result<(), ReadError> {
        let unpacked = unpack(bytes).map_err(corrupt("points", run_id))?;
        let steps = self.first_step..=self.last_step;
        let within = unpacked.into_iter().filter(|(step, _)| steps.contains(step));
        points.extend(within.map(|(step, value)| (step, *attempt, value)));
        Ok(())
    }

    /// A run's points with those of its tails. Each attempt's are in order, so that sorting them
    /// joins a few runs of numbers.
    fn in_order(
        &self,
        mut points: Vec<RunPoint>,
        tails: &[Packed],
    ) -> Result<Vec<RunPoint>, ReadError> {
        for tail in tails {
            self.add(&mut points, tail)?;
        }
        points.sort_by_key(|(step, attempt, _)| (*step, *attempt));
        Ok(points)
    }
}

/// Hands over the points of each run that may have some, by step and then by attempt. Of the points,
/// those of one run at a time are in memory.
pub(super) async fn each_run(
    reading: &mut Reading,
    places: Places,
    id: &str,
    part: Part<'_>,
    mut take: impl FnMut(String, Vec<RunPoint>),
) -> Result<(), ReadError> {
    let mut tails: HashMap<String, Vec<Packed>> = HashMap::new();
    let rows: Vec<Packed> = query_as(places.tails)
        .bind(id)
        .bind(part.series)
        .bind(part.first_step)
        .bind(part.last_step)
        .fetch_all(&mut *reading)
        .await
        .map_err(failed("points"))?;
    for row in rows {
        tails.entry(row.0.clone()).or_default().push(row);
    }
    let mut current: Option<(String, Vec<RunPoint>)> = None;
    let mut finish = |(run_id, points): (String, Vec<RunPoint>), tails: Vec<Packed>| {
        part.in_order(points, &tails).map(|points| take(run_id, points))
    };
    let mut rows = query_as::<Packed>(places.chunks)
        .bind(id)
        .bind(part.series)
        .bind(part.first_step)
        .bind(part.last_step)
        .fetch(reading);
    while let Some(row) = rows.try_next().await.map_err(failed("points"))? {
        if current.as_ref().is_none_or(|(run_id, _)| *run_id != row.0)
            && let Some(whole) = current.replace((row.0.clone(), Vec::new()))
        {
            let tails = tails.remove(&whole.0).unwrap_or_default();
            finish(whole, tails)?;
        }
        if let Some((_, points)) = &mut current {
            part.add(points, &row)?;
        }
    }
    if let Some(whole) = current {
        let tails = tails.remove(&whole.0).unwrap_or_default();
        finish(whole, tails)?;
    }
    for (run_id, tails) in tails {
        finish((run_id, Vec::new()), tails)?;
    }
    Ok(())
}

/// Every point of a series of one run.
pub(super) async fn of_run(
    pool: &Pool,
    run: &RunId,
    series: &str,
) -> Result<Vec<SeriesPoint>, ReadError> {
    let mut reading = pool.begin().await.map_err(failed("points"))?;
    let newest = restarts::newest_of_run(&mut reading, run, series).await?;
    let mut found = Vec::new();
    let whole = Part::new(series, &ALL_STEPS);
    each_run(&mut reading, OF_RUN, run.as_str(), whole, |_, points| {
        found = with_truth(points, newest);
    })
    .await?;
    Ok(found)
}

/// Of each step the last point that was not undone is the current one.
fn with_truth(points: Vec<RunPoint>, newest: Option<Restart>) -> Vec<SeriesPoint> {
    let undone = |step, attempt| newest.is_some_and(|restart| restart.undoes(step, attempt));
    let mut found: Vec<SeriesPoint> = Vec::with_capacity(points.len());
    for (step, attempt, value) in points {
        let (step_at, is_current) = (count(step), !undone(step, attempt));
        if is_current && let Some(before) = found.last_mut().filter(|p| p.step == step_at) {
            before.is_current = false;
        }
        let attempt = small_count(attempt);
        found.push(SeriesPoint { step: step_at, attempt, value, is_current });
    }
    found
}
