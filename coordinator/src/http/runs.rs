//! Runs: the list, one of them, its curves and logs, and what can be done to it.

use std::sync::Arc;

use api::{
    CancelRequest, ChangeView, CurveList, ErrorBody, LogList, RetryRequest, RunList, RunView,
};
use axum::Json;
use axum::extract::State;
use domain::ids::RunId;

use super::address::{Found, RunAddress};
use super::change::{Trial, change};
use super::error::ApiError;
use super::extract::{Body, Page, Parameters};
use super::studies::{CurveParameters, which};
use crate::App;
use crate::store::Store;
use crate::store::read::{CurveScope, ReadStore};

/// Every run of the store.
#[utoipa::path(get, path = "/runs", tag = "runs", responses((status = 200, body = RunList)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<RunList>, ApiError> {
    Ok(Json(app.store.run_list(None).await?))
}

/// One run.
#[utoipa::path(
    get,
    path = "/runs/{run}",
    tag = "runs",
    params(RunAddress),
    responses(
        (status = 200, body = RunView),
        (status = 404, body = ErrorBody),
        (status = 409, description = "Several runs have the name", body = ErrorBody)
    )
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    run: Found<RunId>,
) -> Result<Json<RunView>, ApiError> {
    app.store.run_view(&run.id).await?.map(Json).ok_or_else(|| run.missing())
}

/// One series of it, thinned.
#[utoipa::path(
    get,
    path = "/runs/{run}/curves",
    tag = "runs",
    params(RunAddress, CurveParameters),
    responses((status = 200, body = CurveList), (status = 404, body = ErrorBody))
)]
pub(super) async fn curves(
    State(app): State<Arc<App>>,
    run: Found<RunId>,
    Parameters(parameters): Parameters<CurveParameters>,
) -> Result<Json<CurveList>, ApiError> {
    let scope = CurveScope::Run(run.id);
    Ok(Json(app.store.curves(&parameters.into_query(scope)?).await?))
}

/// Its log lines, the oldest first, in pages.
#[utoipa::path(
    get,
    path = "/runs/{run}/logs",
    tag = "runs",
    params(RunAddress, Page),
    responses((status = 200, body = LogList), (status = 404, body = ErrorBody))
)]
pub(super) async fn logs(
    State(app): State<Arc<App>>,
    run: Found<RunId>,
    Parameters(page): Parameters<Page>,
) -> Result<Json<LogList>, ApiError> {
    let Page { after, limit } = page.checked()?;
    Ok(Json(app.store.logs(&run.id, after, limit).await?))
}

/// Cancels it and its open evaluations.
#[utoipa::path(
    post,
    path = "/runs/{run}/cancel",
    tag = "runs",
    params(RunAddress, Trial),
    request_body = CancelRequest,
    responses(
        (status = 200, body = ChangeView),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    run: Found<RunId>,
    Parameters(trial): Parameters<Trial>,
    Body(request): Body<CancelRequest>,
) -> Result<Json<ChangeView>, ApiError> {
    change(&app, trial, app.store.cancel_run(&run.id, &request.reason)).await
}

/// Queues it again when it failed or was cancelled.
#[utoipa::path(
    post,
    path = "/runs/{run}/retry",
    tag = "runs",
    params(RunAddress, Trial),
    request_body = RetryRequest,
    responses(
        (status = 200, body = ChangeView),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    run: Found<RunId>,
    Parameters(trial): Parameters<Trial>,
    Body(request): Body<RetryRequest>,
) -> Result<Json<ChangeView>, ApiError> {
    change(&app, trial, app.store.retry_run(&run.id, which(&request)?)).await
}
