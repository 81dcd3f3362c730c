//! What has happened: the audit trail of a study, a run or a worker; and every point of a series.

use std::sync::Arc;

use api::{ErrorBody, HistoryPage, PointRecord};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use domain::ids::{RunId, StudyId};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use utoipa::IntoParams;

use super::address::{Found, RunAddress, StudyAddress};
use super::error::ApiError;
use super::extract::{Page, Parameters};
use super::system::worker_called;
use crate::App;
use crate::store::read::{HistoryOf, ReadError, ReadStore};

async fn answer(app: &App, of: HistoryOf, page: Page) -> Result<Json<HistoryPage>, ApiError> {
    let Page { after, limit } = page.checked()?;
    Ok(Json(HistoryPage { events: app.store.history(&of, after, limit).await? }))
}

/// What has happened to it, its runs, their evaluations and its data, and who did it.
#[utoipa::path(
    get,
    path = "/studies/{study}/history",
    tag = "studies",
    params(StudyAddress, Page),
    responses((status = 200, body = HistoryPage), (status = 404, body = ErrorBody))
)]
pub(super) async fn of_study(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
    Parameters(page): Parameters<Page>,
) -> Result<Json<HistoryPage>, ApiError> {
    answer(&app, HistoryOf::Study(study.id), page).await
}

/// What has happened to it and its evaluations, and who did it.
#[utoipa::path(
    get,
    path = "/runs/{run}/history",
    tag = "runs",
    params(RunAddress, Page),
    responses((status = 200, body = HistoryPage), (status = 404, body = ErrorBody))
)]
pub(super) async fn of_run(
    State(app): State<Arc<App>>,
    run: Found<RunId>,
    Parameters(page): Parameters<Page>,
) -> Result<Json<HistoryPage>, ApiError> {
    answer(&app, HistoryOf::Run(run.id), page).await
}

/// What has happened to it, and who did it.
#[utoipa::path(
    get,
    path = "/workers/{worker}/history",
    tag = "workers",
    params(
        ("worker" = String, Path, description = "Its identifier or its name"),
        Page
    ),
    responses((status = 200, body = HistoryPage), (status = 404, body = ErrorBody))
)]
pub(super) async fn of_worker(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Parameters(page): Parameters<Page>,
) -> Result<Json<HistoryPage>, ApiError> {
    let worker = worker_called(&app, &name).await?;
    answer(&app, HistoryOf::Worker(worker), page).await
}

/// Which points.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PointParameters {
    /// Only the series of this name; by default all.
    #[serde(default)]
    series: Option<String>,
}

/// Every point of every attempt, a [`PointRecord`] a line: by series, then step, then attempt. What a
/// restart has undone is there too, and says so.
#[utoipa::path(
    get,
    path = "/runs/{run}/points",
    tag = "runs",
    params(RunAddress, PointParameters),
    responses(
        (status = 200, content_type = "application/x-ndjson", body = PointRecord),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn points(
    State(app): State<Arc<App>>,
    run: Found<RunId>,
    Parameters(PointParameters { series }): Parameters<PointParameters>,
) -> Result<Response, ApiError> {
    let id = run.id.clone();
    let names = match series {
        Some(name) => vec![name],
        None => app.store.run_view(&run.id).await?.ok_or_else(|| run.missing())?.series,
    };
    // A series at a time is in memory, and a reader that is slow holds the next one back.
    let lines = stream::iter(names).then(move |name| {
        let (app, run) = (app.clone(), id.clone());
        async move { lines_of(&app, &run, &name).await }
    });
    let body = Body::from_stream(lines.map_err(std::io::Error::other));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

async fn lines_of(app: &App, run: &RunId, series: &str) -> Result<Bytes, ReadError> {
    let mut text = Vec::new();
    for point in app.store.points(run, series).await? {
        let record = PointRecord {
            run: run.to_string(),
            series: series.to_owned(),
            attempt: point.attempt,
            step: point.step,
            value: point.value,
            is_current: point.is_current,
        };
        let line = serde_json::to_string(&record).expect("a record is texts and numbers");
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    Ok(text.into())
}
