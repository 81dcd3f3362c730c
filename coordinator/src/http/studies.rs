//! Studies: the list, one of them, its runs, curves and fits, and what can be done to it.
//! How one comes in is `super::apply`.

use std::sync::Arc;

use api::{
    CancelRequest, ChangeView, CurveList, ErrorBody, FitReport, RunList, StudyList, StudyView,
};
use axum::Json;
use axum::extract::State;
use domain::ids::StudyId;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::address::{Found, StudyAddress};
use super::error::ApiError;
use super::extract::{Body, Parameters, in_range};
use crate::App;
use crate::fits;
use crate::store::Store;
use crate::store::read::{CurveQuery, CurveScope, ReadStore};

/// Which curves.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CurveParameters {
    /// The series' name; by default `train_loss_nats`.
    #[serde(default = "default_series")]
    series: String,
    /// At most so many points for each run, 3 to 10000; by default 400.
    #[serde(default = "default_max_points")]
    max_points: usize,
}

fn default_series() -> String {
    "train_loss_nats".to_owned()
}

/// More than a chart of usual width can show.
fn default_max_points() -> usize {
    400
}

/// A page of a hundred runs stays within some tens of megabytes.
const MOST_POINTS: usize = 10_000;

impl CurveParameters {
    pub(super) fn into_query(self, scope: CurveScope) -> Result<CurveQuery, ApiError> {
        in_range("max_points", self.max_points, 3..=MOST_POINTS)?;
        Ok(CurveQuery { scope, series: self.series, max_points: self.max_points })
    }
}

/// A request without options: `{}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EmptyRequest {}

/// Every study, the newest first.
#[utoipa::path(get, path = "/studies", tag = "studies", responses((status = 200, body = StudyList)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<StudyList>, ApiError> {
    Ok(Json(app.store.study_list().await?))
}

/// One study.
#[utoipa::path(
    get,
    path = "/studies/{study}",
    tag = "studies",
    params(StudyAddress),
    responses((status = 200, body = StudyView), (status = 404, body = ErrorBody))
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
) -> Result<Json<StudyView>, ApiError> {
    app.store.study_view(&study.id).await?.map(Json).ok_or_else(|| study.missing())
}

/// Its runs, in the order of its cells.
#[utoipa::path(
    get,
    path = "/studies/{study}/runs",
    tag = "studies",
    params(StudyAddress),
    responses((status = 200, body = RunList), (status = 404, body = ErrorBody))
)]
pub(super) async fn runs(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
) -> Result<Json<RunList>, ApiError> {
    Ok(Json(app.store.run_list(Some(&study.id)).await?))
}

/// One series of each of its runs, thinned.
#[utoipa::path(
    get,
    path = "/studies/{study}/curves",
    tag = "studies",
    params(StudyAddress, CurveParameters),
    responses((status = 200, body = CurveList), (status = 404, body = ErrorBody))
)]
pub(super) async fn curves(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
    Parameters(parameters): Parameters<CurveParameters>,
) -> Result<Json<CurveList>, ApiError> {
    let scope = CurveScope::Study(study.id);
    Ok(Json(app.store.curves(&parameters.into_query(scope)?).await?))
}

/// Its fitted scaling laws; made anew when runs have come in since the last time.
#[utoipa::path(
    get,
    path = "/studies/{study}/fit",
    tag = "studies",
    params(StudyAddress),
    responses((status = 200, body = FitReport), (status = 404, body = ErrorBody))
)]
pub(super) async fn fit(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
) -> Result<Json<FitReport>, ApiError> {
    Ok(Json(fits::report(&*app.store, &study.id).await?))
}

/// Cancels it, and those of its runs that no other study has.
#[utoipa::path(
    post,
    path = "/studies/{study}/cancel",
    tag = "studies",
    params(StudyAddress),
    request_body = CancelRequest,
    responses((status = 200, body = ChangeView), (status = 404, body = ErrorBody))
)]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
    Body(request): Body<CancelRequest>,
) -> Result<Json<ChangeView>, ApiError> {
    let changed = app.store.cancel_study(&study.id, &request.reason).await?;
    Ok(Json(super::apply::carry_out(&app, &changed)))
}

/// Queues its failed and cancelled runs again.
#[utoipa::path(
    post,
    path = "/studies/{study}/retry",
    tag = "studies",
    params(StudyAddress),
    request_body = EmptyRequest,
    responses((status = 200, body = ChangeView), (status = 404, body = ErrorBody))
)]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
    Body(EmptyRequest {}): Body<EmptyRequest>,
) -> Result<Json<ChangeView>, ApiError> {
    let changed = app.store.retry_study(&study.id).await?;
    Ok(Json(super::apply::carry_out(&app, &changed)))
}
