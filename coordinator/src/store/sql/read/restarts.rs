//! Restarts: what they hide of a curve.
//! What a curve shows is `super::curves`'.

use std::collections::HashMap;

use domain::ids::RunId;

use super::failed;
use crate::store::read::ReadError;
use crate::store::sql::database::{Reading, query_as};

/// The restarts that have reported the series, the newest last. A first attempt hides nothing.
macro_rules! restarts {
    ($runs:literal) => {
        concat!(
            "SELECT a.work_id, a.attempt, COALESCE(a.resumed_from_step, 0) AS resumed_from_step
FROM attempts a
WHERE a.work_id ",
            $runs,
            " AND a.attempt > 1 AND EXISTS (
    SELECT 1
    FROM point_series s
    WHERE s.run_id = a.work_id AND s.attempt = a.attempt AND s.name = ?2
        AND s.last_step >= COALESCE(a.resumed_from_step, 0)
)
ORDER BY a.work_id, a.attempt"
        )
    };
}

/// Of every run of a study.
pub(super) const OF_STUDY: &str = restarts!("IN (SELECT run_id FROM cells WHERE study_id = ?1)");
/// Of one run.
pub(super) const OF_RUN: &str = restarts!("= ?1");

/// An attempt that continued from a checkpoint.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restart {
    pub(super) attempt: i64,
    pub(super) resumed_from_step: i64,
}

impl Restart {
    /// Whether it has undone a point of an older attempt: one beyond the step that it resumed from.
    pub(super) fn undoes(self, step: i64, attempt: i64) -> bool {
        attempt < self.attempt && step > self.resumed_from_step
    }
}

/// By run, the newest restart that has reported the series.
pub(super) async fn newest(
    reading: &mut Reading,
    sql: &'static str,
    id: &str,
    series: &str,
) -> Result<HashMap<String, Restart>, ReadError> {
    let rows: Vec<(String, i64, i64)> = query_as(sql)
        .bind(id)
        .bind(series)
        .fetch_all(reading)
        .await
        .map_err(failed("the restarts of runs"))?;
    let by_run = rows.into_iter().map(|(run_id, attempt, resumed_from_step)| {
        (run_id, Restart { attempt, resumed_from_step })
    });
    Ok(by_run.collect())
}

/// The newest restart of one run that has reported the series.
pub(super) async fn newest_of_run(
    reading: &mut Reading,
    run: &RunId,
    series: &str,
) -> Result<Option<Restart>, ReadError> {
    Ok(newest(reading, OF_RUN, run.as_str(), series).await?.remove(run.as_str()))
}
