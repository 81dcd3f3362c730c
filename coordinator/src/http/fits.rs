//! Fits: the list, one of them, its curve, and what it predicts.
//! The arithmetic is `crate::fits`'.

use std::sync::Arc;

use api::{ComparisonList, ErrorBody, FitCurve, FitList, FitPredictionList, FitReport, FitRequest};
use axum::Json;
use axum::extract::{Path, State};
use domain::ids::{FitId, StudyId};
use serde::Deserialize;
use utoipa::IntoParams;

use super::address::{Found, StudyAddress};
use super::error::ApiError;
use super::extract::{Body, Parameters, in_range};
use super::fit_settings;
use crate::App;
use crate::fits::{self, Comparing, FitsError, Model, Question, Which};
use crate::store::read::{Lookup, ReadStore};

/// The most fits of a list.
const MOST_FITS: u32 = 1_000;

/// What stands for a fit in an address.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is there for the document; the handlers read the address")]
pub(super) struct FitAddress {
    /// Its identifier
    fit: String,
}

/// Which fits.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParameters {
    /// Only those of this study, by name or identifier.
    study: Option<String>,
    /// At most so many, 1 to 1000; by default 100.
    #[serde(default = "default_limit")]
    limit: u32,
}

fn default_limit() -> u32 {
    100
}

/// Which lines of a curve, and where.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CurveOfFit {
    /// Only this group.
    group: Option<String>,
    /// Only this method.
    method: Option<String>,
    /// The smallest C; by default the smallest that was measured.
    low: Option<f64>,
    /// The largest C; by default the largest that was measured.
    high: Option<f64>,
    /// So many points, 2 to 1000; by default 40.
    #[serde(default = "default_points")]
    points: usize,
}

fn default_points() -> usize {
    40
}

/// What is to be predicted: a budget (`c`), or a model (`n` and `d`).
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PredictParameters {
    /// C, to be split best where the method knows how.
    c: Option<f64>,
    /// N.
    n: Option<f64>,
    /// D.
    d: Option<f64>,
    /// Only this group.
    group: Option<String>,
    /// Only this method.
    method: Option<String>,
}

/// Which groups are compared, and where.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct CompareParameters {
    /// C; by default the largest that both were fitted to.
    c: Option<f64>,
    /// Only pairs with this group.
    group: Option<String>,
    /// Only pairs with this one too.
    with: Option<String>,
    /// Only by this method.
    method: Option<String>,
}

/// Stored fits, the newest first.
#[utoipa::path(
    get,
    path = "/fits",
    tag = "fits",
    params(ListParameters),
    responses((status = 200, body = FitList), (status = 404, body = ErrorBody))
)]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Parameters(asked): Parameters<ListParameters>,
) -> Result<Json<FitList>, ApiError> {
    in_range("limit", asked.limit, 1..=MOST_FITS)?;
    let study = match asked.study {
        None => None,
        Some(name) => match app.store.find_study(&name).await? {
            Lookup::Found(study) => Some(study),
            Lookup::Missing { nearest } => {
                return Err(ApiError::NotFound { kind: "study", name, nearest });
            }
            Lookup::Ambiguous { candidates } => {
                return Err(ApiError::Ambiguous { name, candidates });
            }
        },
    };
    Ok(Json(FitList { fits: app.store.fit_list(study.as_ref(), asked.limit).await? }))
}

/// Fits a study as it stands and keeps the fit, by the study's settings or by others; with runs
/// that are not over it is provisional. The same observations under the same settings are one fit.
#[utoipa::path(
    post,
    path = "/studies/{study}/fits",
    tag = "fits",
    params(StudyAddress),
    request_body = FitRequest,
    responses(
        (status = 200, body = FitReport),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody)
    )
)]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    study: Found<StudyId>,
    Body(request): Body<FitRequest>,
) -> Result<Json<FitReport>, ApiError> {
    let mut change = fit_settings::change(&request.settings())?;
    change.spec = request.fit.map(fit_settings::section).transpose()?;
    Ok(Json(fits::create(&*app.store, &study.id, &change).await?))
}

/// One stored fit.
#[utoipa::path(
    get,
    path = "/fits/{fit}",
    tag = "fits",
    params(FitAddress),
    responses((status = 200, body = FitReport), (status = 404, body = ErrorBody))
)]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(fit): Path<String>,
) -> Result<Json<FitReport>, ApiError> {
    let id = identifier(&fit)?;
    let Some(report) = fits::stored_report(&*app.store, &id).await? else {
        return Err(missing(fit));
    };
    Ok(Json(report))
}

/// The loss over C: where every budget is split best, or by a law of C alone.
#[utoipa::path(
    get,
    path = "/fits/{fit}/curve",
    tag = "fits",
    params(FitAddress, CurveOfFit),
    responses(
        (status = 200, body = FitCurve),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, description = "Another build made it", body = ErrorBody)
    )
)]
pub(super) async fn curve(
    State(app): State<Arc<App>>,
    Path(fit): Path<String>,
    Parameters(asked): Parameters<CurveOfFit>,
) -> Result<Json<FitCurve>, ApiError> {
    in_range("points", asked.points, 2..=1_000)?;
    let model = model(&app, fit).await?;
    let which = which(&model, asked.group, asked.method)?;
    let (smallest, largest) = model.measured_range();
    let low = positive("low", asked.low)?.unwrap_or(smallest);
    let high = positive("high", asked.high)?.unwrap_or(largest);
    if low >= high {
        let message = format!("`low` is {low:e}, which is not below `high`, {high:e}");
        return Err(ApiError::BadRequest(message));
    }
    Ok(Json(model.curve(&which, (low, high), asked.points)))
}

/// What a budget or a model comes to.
#[utoipa::path(
    get,
    path = "/fits/{fit}/predict",
    tag = "fits",
    params(FitAddress, PredictParameters),
    responses(
        (status = 200, body = FitPredictionList),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, description = "Another build made it", body = ErrorBody)
    )
)]
pub(super) async fn predict(
    State(app): State<Arc<App>>,
    Path(fit): Path<String>,
    Parameters(asked): Parameters<PredictParameters>,
) -> Result<Json<FitPredictionList>, ApiError> {
    let flops = positive("c", asked.c)?;
    let parameters = positive("n", asked.n)?;
    let tokens = positive("d", asked.d)?;
    let question = match (flops, parameters, tokens) {
        (Some(flops), None, None) => Question::Budget { flops },
        (None, Some(parameters), Some(tokens)) => Question::Model { parameters, tokens },
        _ => {
            let message = "give `c` alone for a budget, or `n` and `d` for a model";
            return Err(ApiError::BadRequest(message.to_owned()));
        }
    };
    let model = model(&app, fit).await?;
    let which = which(&model, asked.group, asked.method)?;
    Ok(Json(model.predict(&which, question)))
}

/// Two groups beside each other, or every two: loss at a budget, compute for equal loss, where they
/// cross. Only laws that say the loss at a budget compare.
#[utoipa::path(
    get,
    path = "/fits/{fit}/compare",
    tag = "fits",
    params(FitAddress, CompareParameters),
    responses(
        (status = 200, body = ComparisonList),
        (status = 400, body = ErrorBody),
        (status = 404, body = ErrorBody),
        (status = 409, description = "Another build made it", body = ErrorBody)
    )
)]
pub(super) async fn compare(
    State(app): State<Arc<App>>,
    Path(fit): Path<String>,
    Parameters(asked): Parameters<CompareParameters>,
) -> Result<Json<ComparisonList>, ApiError> {
    let model = model(&app, fit).await?;
    known("method", asked.method.as_deref(), &model.methods())?;
    known("group", asked.group.as_deref(), &model.groups())?;
    known("with", asked.with.as_deref(), &model.groups())?;
    if asked.with.is_some() && asked.with == asked.group {
        let message = format!("`with` is `group`, `{}`", asked.with.unwrap_or_default());
        return Err(ApiError::BadRequest(message));
    }
    let budgets = positive("c", asked.c)?.into_iter().collect();
    let CompareParameters { method, group, with, .. } = asked;
    let wanted = Comparing { method, group, with, budgets };
    // Seconds of a core where there are many groups.
    let compared = tokio::task::spawn_blocking(move || model.compare(&wanted));
    Ok(Json(compared.await.map_err(|source| FitsError::Broken { source })?))
}

fn identifier(fit: &str) -> Result<FitId, ApiError> {
    fit.parse().map_err(|_| missing(fit.to_owned()))
}

fn missing(name: String) -> ApiError {
    ApiError::NotFound { kind: "fit", name, nearest: None }
}

async fn model(app: &App, fit: String) -> Result<Arc<Model>, ApiError> {
    let id = identifier(&fit)?;
    fits::model(&*app.store, &id).await?.ok_or_else(|| missing(fit))
}

/// A group or a method that the fit does not have is refused by name.
fn which(model: &Model, group: Option<String>, method: Option<String>) -> Result<Which, ApiError> {
    known("group", group.as_deref(), &model.groups())?;
    known("method", method.as_deref(), &model.methods())?;
    Ok(Which { group, method })
}

fn known(field: &str, asked: Option<&str>, all: &[&str]) -> Result<(), ApiError> {
    match asked {
        Some(asked) if !all.contains(&asked) => {
            let all: Vec<String> = all.iter().map(|name| format!("`{name}`")).collect();
            let message = format!("`{field}` is `{asked}`; the fit has {}", all.join(", "));
            Err(ApiError::BadRequest(message))
        }
        _ => Ok(()),
    }
}

/// A number that a budget or a model can have.
fn positive(field: &str, value: Option<f64>) -> Result<Option<f64>, ApiError> {
    match value {
        Some(number) if !(number.is_finite() && number > 0.0) => {
            let message = format!("`{field}` is {number}; it must be finite and above 0");
            Err(ApiError::BadRequest(message))
        }
        _ => Ok(value),
    }
}
