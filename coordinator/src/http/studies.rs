//! Studies: the list, one of them, its runs, curves and fits, and what can be done to it.
//! How one comes in is `super::apply`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use api::{
    CancelRequest, ChangeView, CurveList, ErrorBody, FitReport, FitSettings, PauseRequest,
    PriorityRequest, RetryRequest, RunList, StudyList, StudyView,
};
use axum::Json;
use axum::extract::State;
use domain::attempt::{AttemptEnd, Charge};
use domain::ids::StudyId;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::address::{Found, StudyAddress};
use super::change::{Trial, change};
use super::error::ApiError;
use super::extract::{Body, Parameters, in_range};
use super::fit_settings;
use crate::App;
use crate::fits;
use crate::store::read::{ALL_STEPS, CurveQuery, CurveScope, ReadStore};
use crate::store::{Retry, Store};

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
    /// Only points of this step and later ones.
    #[param(minimum = 0)]
    from_step: Option<i64>,
    /// Only points of this step and earlier ones.
    #[param(minimum = 0)]
    to_step: Option<i64>,
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
        let steps = self.steps()?;
        Ok(CurveQuery { scope, series: self.series, max_points: self.max_points, steps })
    }

    fn steps(&self) -> Result<RangeInclusive<u64>, ApiError> {
        let from = step("from_step", self.from_step, *ALL_STEPS.start())?;
        let to = step("to_step", self.to_step, *ALL_STEPS.end())?;
        if from > to {
            let message = format!("`from_step={from}` is above `to_step={to}`");
            return Err(ApiError::BadRequest(message));
        }
        Ok(from..=to)
    }
}

fn step(parameter: &str, given: Option<i64>, otherwise: u64) -> Result<u64, ApiError> {
    let Some(given) = given else { return Ok(otherwise) };
    let negative = |_| format!("`{parameter}={given}` is out of range: a step is 0 or more");
    u64::try_from(given).map_err(|error| ApiError::BadRequest(negative(error)))
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

/// Its fitted scaling laws, by its own settings or by others; made anew when runs have come in since
/// the last time.
#[utoipa::path(
    get,
    path = "/studies/{study}/fit",
    tag = "studies",
    params(StudyAddress, FitSettings),
    responses(
        (status = 200, body = FitReport),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn fit(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
    Parameters(asked): Parameters<FitSettings>,
) -> Result<Json<FitReport>, ApiError> {
    let change = fit_settings::change(&asked)?;
    Ok(Json(fits::report(&*app.store, &study.id, &change).await?))
}

/// Cancels it, and those of its runs that no other study has.
#[utoipa::path(
    post,
    path = "/studies/{study}/cancel",
    tag = "studies",
    params(StudyAddress, Trial),
    request_body = CancelRequest,
    responses(
        (status = 200, body = ChangeView),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
    Parameters(trial): Parameters<Trial>,
    Body(request): Body<CancelRequest>,
) -> Result<Json<ChangeView>, ApiError> {
    change(&app, trial, app.store.cancel_study(&study.id, &request.reason)).await
}

/// Queues its failed and cancelled runs again, or some of them.
#[utoipa::path(
    post,
    path = "/studies/{study}/retry",
    tag = "studies",
    params(StudyAddress, Trial),
    request_body = RetryRequest,
    responses(
        (status = 200, body = ChangeView),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn retry(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
    Parameters(trial): Parameters<Trial>,
    Body(request): Body<RetryRequest>,
) -> Result<Json<ChangeView>, ApiError> {
    change(&app, trial, app.store.retry_study(&study.id, which(&request)?)).await
}

/// What a retry means.
pub(super) fn which(request: &RetryRequest) -> Result<Retry, ApiError> {
    let Some(label) = &request.class else {
        return Ok(if request.failed { Retry::Failed } else { Retry::All });
    };
    let is_failure = |end: &AttemptEnd| end.charge() != Charge::Nothing;
    let end = AttemptEnd::from_label(label).filter(is_failure);
    end.map(Retry::Class).ok_or_else(|| {
        let classes = AttemptEnd::ALL.into_iter().filter(is_failure);
        let labels: Vec<String> = classes.map(|end| format!("`{}`", end.label())).collect();
        let labels = labels.join(", ");
        ApiError::BadRequest(format!("`class` is `{label}`; expected one of {labels}"))
    })
}

/// Holds it: nothing more of it is granted, and its runs write a checkpoint and leave, except
/// those that another study wants too.
#[utoipa::path(
    post,
    path = "/studies/{study}/pause",
    tag = "studies",
    params(StudyAddress, Trial),
    request_body = PauseRequest,
    responses(
        (status = 200, body = ChangeView),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn pause(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
    Parameters(trial): Parameters<Trial>,
    Body(request): Body<PauseRequest>,
) -> Result<Json<ChangeView>, ApiError> {
    change(&app, trial, app.store.pause_study(&study.id, &request.reason)).await
}

/// Lets it go on.
#[utoipa::path(
    post,
    path = "/studies/{study}/resume",
    tag = "studies",
    params(StudyAddress, Trial),
    request_body = EmptyRequest,
    responses(
        (status = 200, body = ChangeView),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn resume(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
    Parameters(trial): Parameters<Trial>,
    Body(EmptyRequest {}): Body<EmptyRequest>,
) -> Result<Json<ChangeView>, ApiError> {
    change(&app, trial, app.store.resume_study(&study.id)).await
}

/// Gives it another priority, until it is applied again.
#[utoipa::path(
    post,
    path = "/studies/{study}/priority",
    tag = "studies",
    params(StudyAddress, Trial),
    request_body = PriorityRequest,
    responses(
        (status = 200, body = ChangeView),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn priority(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
    Parameters(trial): Parameters<Trial>,
    Body(request): Body<PriorityRequest>,
) -> Result<Json<ChangeView>, ApiError> {
    change(&app, trial, app.store.set_priority(&study.id, request.priority)).await
}
