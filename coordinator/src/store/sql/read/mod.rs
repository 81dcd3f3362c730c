//! The queries behind the views. One query for each part of a page, whatever the
//! number of runs.
//! It writes nothing: every query runs on the pool of read-only connections.

mod curves;
mod events;
mod fits;
mod history;
mod points;
mod restarts;
mod run_parts;
mod runs;
mod snapshot;
mod status;
mod studies;
mod thin;
mod workers;

use api::{
    CurveList, EventView, FitSummary, HistoryEvent, LogList, RunList, RunView, StudyList,
    StudyView, WorkerView,
};
use async_trait::async_trait;
use domain::ids::{ContentHash, FitId, RunId, StudyId};
use domain::invariant::Snapshot;
use serde::de::DeserializeOwned;

use crate::store::read::{
    CurveQuery, DroppedCell, FitInputs, FitRecord, HistoryOf, Lookup, ReadError, ReadStore,
    RunStatus, SeriesPoint,
};
use crate::store::sql::SqlStore;
use crate::store::sql::database::query_scalar;

#[async_trait]
impl ReadStore for SqlStore {
    async fn schema_version(&self) -> Result<i64, ReadError> {
        query_scalar("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations")
            .fetch_one(self.read_pool())
            .await
            .map_err(failed("the store's version"))
    }

    async fn count_live_workers(&self, since_ms: i64) -> Result<u64, ReadError> {
        workers::count_live(self.read_pool(), since_ms).await
    }

    async fn missing_sources(&self, hashes: &[ContentHash]) -> Result<Vec<ContentHash>, ReadError> {
        studies::missing_sources(self.read_pool(), hashes).await
    }

    async fn find_study(&self, name_or_id: &str) -> Result<Lookup<StudyId>, ReadError> {
        studies::find(self.read_pool(), name_or_id).await
    }

    async fn find_run(&self, name_or_id: &str) -> Result<Lookup<RunId>, ReadError> {
        runs::find(self.read_pool(), name_or_id).await
    }

    async fn study_list(&self) -> Result<StudyList, ReadError> {
        studies::list(self.read_pool()).await
    }

    async fn study_view(&self, study: &StudyId) -> Result<Option<StudyView>, ReadError> {
        studies::view(self.read_pool(), study).await
    }

    async fn run_list(&self, study: Option<&StudyId>) -> Result<RunList, ReadError> {
        let runs = match study {
            Some(study) => runs::of_study(self.read_pool(), study).await?,
            None => runs::all(self.read_pool()).await?,
        };
        Ok(RunList { runs })
    }

    async fn run_view(&self, run: &RunId) -> Result<Option<RunView>, ReadError> {
        run_parts::view(self.read_pool(), run).await
    }

    async fn curves(&self, query: &CurveQuery) -> Result<CurveList, ReadError> {
        curves::curves(self.read_pool(), query).await
    }

    async fn points(&self, run: &RunId, series: &str) -> Result<Vec<SeriesPoint>, ReadError> {
        points::of_run(self.read_pool(), run, series).await
    }

    async fn history(
        &self,
        of: &HistoryOf,
        after: i64,
        limit: u32,
    ) -> Result<Vec<HistoryEvent>, ReadError> {
        history::of(self.read_pool(), of, after, limit).await
    }

    async fn logs(&self, run: &RunId, after: i64, limit: u32) -> Result<LogList, ReadError> {
        run_parts::logs(self.read_pool(), run, after, limit).await
    }

    async fn workers(&self, is_there_only: bool) -> Result<Vec<WorkerView>, ReadError> {
        workers::list(self.read_pool(), is_there_only).await
    }

    async fn worker_named(&self, name_or_id: &str) -> Result<Option<WorkerView>, ReadError> {
        workers::named(self.read_pool(), name_or_id).await
    }

    async fn events_after(&self, after: i64, limit: u32) -> Result<Vec<EventView>, ReadError> {
        events::after(self.read_pool(), after, limit).await
    }

    async fn last_event_id(&self) -> Result<i64, ReadError> {
        events::last_id(self.read_pool()).await
    }

    async fn run_status(&self, run: &RunId) -> Result<Option<RunStatus>, ReadError> {
        status::run(self.read_pool(), run).await
    }

    async fn dropped_cells(&self, name: &str) -> Result<Vec<DroppedCell>, ReadError> {
        status::dropped_cells(self.read_pool(), name).await
    }

    async fn snapshot(&self) -> Result<Snapshot, ReadError> {
        snapshot::snapshot(self.read_pool()).await
    }

    async fn fit_inputs(&self, study: &StudyId) -> Result<Option<FitInputs>, ReadError> {
        fits::inputs(self.read_pool(), study).await
    }

    async fn fit_list(
        &self,
        study: Option<&StudyId>,
        limit: u32,
    ) -> Result<Vec<FitSummary>, ReadError> {
        fits::list(self.read_pool(), study, limit).await
    }

    async fn fit_record(&self, fit: &FitId) -> Result<Option<FitRecord>, ReadError> {
        fits::record(self.read_pool(), fit).await
    }

    async fn stored_fit(
        &self,
        study: &StudyId,
        inputs_hash: &ContentHash,
    ) -> Result<Option<String>, ReadError> {
        fits::stored(self.read_pool(), study, inputs_hash).await
    }
}

/// The one map from the driver's errors to ours.
fn failed(what: &'static str) -> impl FnOnce(sqlx::Error) -> ReadError {
    move |error| ReadError::Query { what, source: Box::new(error) }
}

/// Reads a value stored as JSON.
fn from_json<T: DeserializeOwned>(
    text: &str,
    what: &'static str,
    id: &str,
) -> Result<T, ReadError> {
    serde_json::from_str(text).map_err(corrupt(what, id))
}

/// For a stored value that this build would not write.
fn corrupt<E>(what: &'static str, id: &str) -> impl FnOnce(E) -> ReadError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |error| ReadError::Corrupt { what, id: id.to_owned(), source: Box::new(error) }
}

/// A count that the schema keeps from being negative.
fn count(value: i64) -> u64 {
    u64::try_from(value).unwrap_or_default()
}

/// The same for the small ones.
fn small_count(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(if value < 0 { 0 } else { u32::MAX })
}
