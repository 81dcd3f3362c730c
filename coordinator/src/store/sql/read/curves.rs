//! Curves: the current truth of one series, thinned.
//! What stands for how much of a curve is kept is `super::thin`.

use std::collections::HashMap;

use api::{Curve, CurveList};

use super::points::{self, OF_RUN, OF_STUDY, Part};
use super::restarts::{self, Restart};
use super::thin::{Point, Thinner};
use super::{count, failed, from_json};
use crate::store::read::{CurveQuery, CurveScope, ReadError};
use crate::store::sql::database::{Pool, query_as};

const HEADS_OF_STUDY: &str = "SELECT c.run_id, c.name, c.axis_values_json,
    CAST(r.batch_tokens AS DOUBLE PRECISION) AS tokens_per_step,
    r.flops_exact / GREATEST(r.steps, 1) AS flops_per_step
FROM cells c
JOIN runs r ON r.id = c.run_id
WHERE c.study_id = ?1
ORDER BY c.position, c.name";

const HEAD_OF_RUN: &str = "SELECT r.id AS run_id, COALESCE(c.name, r.id) AS name,
    COALESCE(c.axis_values_json, '{}') AS axis_values_json,
    CAST(r.batch_tokens AS DOUBLE PRECISION) AS tokens_per_step,
    r.flops_exact / GREATEST(r.steps, 1) AS flops_per_step
FROM runs r
LEFT JOIN cells c ON c.run_id = r.id
LEFT JOIN studies s ON s.id = c.study_id
WHERE r.id = ?1
ORDER BY s.created_at_ms, s.id, c.position
LIMIT 1";

#[derive(sqlx::FromRow)]
struct Head {
    run_id: String,
    name: String,
    axis_values_json: String,
    tokens_per_step: f64,
    flops_per_step: f64,
}

pub(super) async fn curves(pool: &Pool, query: &CurveQuery) -> Result<CurveList, ReadError> {
    let (id, heads, restarts, series) = match &query.scope {
        CurveScope::Study(id) => (id.as_str(), HEADS_OF_STUDY, restarts::OF_STUDY, OF_STUDY),
        CurveScope::Run(id) => (id.as_str(), HEAD_OF_RUN, restarts::OF_RUN, OF_RUN),
    };
    // One transaction, so that a restart and its points are seen together or not at all.
    let mut reading = pool.begin().await.map_err(failed("curves"))?;
    let heads: Vec<Head> = query_as(heads)
        .bind(id)
        .fetch_all(&mut reading)
        .await
        .map_err(failed("the runs of curves"))?;
    let restarts = restarts::newest(&mut reading, restarts, id, &query.series).await?;
    // By run: several cells may have one.
    let mut kept = HashMap::new();
    let part = Part::new(&query.series, &query.steps);
    points::each_run(&mut reading, series, id, part, |run_id, points| {
        let mut truth = Truth::new(restarts.get(&run_id).copied(), query.max_points);
        for (step, attempt, value) in points {
            truth.push(step, attempt, value);
        }
        let points = truth.finish();
        if !points.is_empty() {
            kept.insert(run_id, points);
        }
    })
    .await?;
    let curves = heads
        .into_iter()
        .filter_map(|head| kept.get(&head.run_id).cloned().map(|points| head.into_curve(points)))
        .collect::<Result<_, _>>()?;
    Ok(CurveList { series: query.series.clone(), curves })
}

/// The current truth of one run's series: of each step the highest attempt's value, and nothing of
/// older attempts beyond the step that the newest one resumed from.
#[derive(Debug)]
struct Truth {
    newest: Option<Restart>,
    /// The highest attempt's value so far of the step at hand.
    pending: Option<Point>,
    thinner: Thinner,
}

impl Truth {
    fn new(newest: Option<Restart>, max_points: usize) -> Self {
        Self { newest, pending: None, thinner: Thinner::new(max_points) }
    }

    /// Takes the next row, ordered by step and then by attempt.
    fn push(&mut self, step: i64, attempt: i64, value: Option<f64>) {
        if self.newest.is_some_and(|restart| restart.undoes(step, attempt)) {
            return;
        }
        let point = (count(step), value);
        match self.pending.replace(point) {
            Some(before) if before.0 != point.0 => self.thinner.push(before),
            // The same step of an older attempt, or the first row.
            _ => {}
        }
    }

    fn finish(mut self) -> Vec<Point> {
        if let Some(last) = self.pending {
            self.thinner.push(last);
        }
        self.thinner.finish()
    }
}

impl Head {
    fn into_curve(self, points: Vec<Point>) -> Result<Curve, ReadError> {
        let (steps, values) = points.into_iter().unzip();
        Ok(Curve {
            axis_values: from_json(&self.axis_values_json, "axis values", &self.run_id)?,
            run_id: self.run_id,
            name: self.name,
            tokens_per_step: self.tokens_per_step,
            flops_per_step: self.flops_per_step,
            steps,
            values,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `rows` are (step, attempt, value).
    #[track_caller]
    fn check(newest: Option<(i64, i64)>, rows: &[(i64, i64, f64)], truth: &[(u64, f64)]) {
        let newest =
            newest.map(|(attempt, resumed_from_step)| Restart { attempt, resumed_from_step });
        let mut found = Truth::new(newest, 100);
        for (step, attempt, value) in rows {
            found.push(*step, *attempt, Some(*value));
        }
        let truth: Vec<Point> = truth.iter().map(|(step, value)| (*step, Some(*value))).collect();
        assert_eq!(found.finish(), truth);
    }

    #[test]
    fn of_each_step_the_highest_attempt_counts() {
        let rows = [(1, 1, 0.1), (2, 1, 0.2), (2, 2, 0.3), (3, 2, 0.4)];
        check(Some((2, 1)), &rows, &[(1, 0.1), (2, 0.3), (3, 0.4)]);
    }

    #[test]
    fn what_a_restart_has_undone_is_hidden() {
        // The second attempt resumed from step 1 and has only reached step 2.
        let rows = [(1, 1, 0.1), (2, 1, 0.2), (2, 2, 0.3), (3, 1, 0.4), (4, 1, 0.5)];
        check(Some((2, 1)), &rows, &[(1, 0.1), (2, 0.3)]);
    }

    #[test]
    fn a_restart_that_has_not_reported_hides_nothing() {
        check(None, &[(1, 1, 0.1), (2, 1, 0.2)], &[(1, 0.1), (2, 0.2)]);
    }

    #[test]
    fn a_fresh_start_hides_all_of_the_older_attempts() {
        check(Some((3, 0)), &[(1, 1, 0.1), (1, 3, 0.2), (2, 2, 0.3)], &[(1, 0.2)]);
    }
}
