//! What serves the API: its health, its document, its workers.

use std::sync::Arc;

use api::{CheckView, ErrorBody, HealthView, ViolationView, WorkerList, WorkerView};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;

use domain::ids::{IdError, WorkerId};
use domain::invariant::{self, Violation};
use domain::suggest::nearest;

use super::error::ApiError;
use super::extract::Body;
use super::studies::EmptyRequest;
use crate::App;
use crate::clock::Clock;
use crate::store::Store;
use crate::store::read::ReadStore;

/// What serves the API.
#[utoipa::path(get, path = "/health", tag = "system", responses((status = 200, body = HealthView)))]
pub(super) async fn health(State(app): State<Arc<App>>) -> Result<Json<HealthView>, ApiError> {
    // A worker that missed two lease terms has lost its leases.
    let two_terms_ms =
        i64::try_from(app.config.lease_term_ms.saturating_mul(2)).unwrap_or(i64::MAX);
    let since_ms = Clock::system().wall_ms().saturating_sub(two_terms_ms);
    Ok(Json(HealthView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema_version: app.store.schema_version().await?,
        is_read_only: app.is_read_only,
        pid: std::process::id(),
        n_live_workers: app.store.count_live_workers(since_ms).await?,
    }))
}

/// Whether the store keeps its invariants. It reads all work, so it takes a while on a large store.
#[utoipa::path(get, path = "/check", tag = "system", responses((status = 200, body = CheckView)))]
pub(super) async fn check(State(app): State<Arc<App>>) -> Result<Json<CheckView>, ApiError> {
    let snapshot = app.store.snapshot().await?;
    let view = |violation: Violation| ViolationView {
        invariant: format!("INV-{}", violation.invariant.number()),
        rule: violation.invariant.rule().to_owned(),
        subject: violation.subject,
        found: violation.found,
    };
    Ok(Json(CheckView {
        n_work: snapshot.work.len() as u64,
        n_attempts: snapshot.attempts.len() as u64,
        violations: invariant::check(&snapshot).into_iter().map(view).collect(),
    }))
}

/// The document that describes these routes.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "system",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub(super) async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], super::DOCUMENT.as_str())
}

/// A worker takes nothing more, and leaves when what it has is over.
#[utoipa::path(
    post,
    path = "/workers/{worker}/drain",
    tag = "workers",
    params(("worker" = String, Path, description = "Its identifier or its name")),
    request_body = EmptyRequest,
    responses((status = 200, body = WorkerView), (status = 404, body = ErrorBody))
)]
pub(super) async fn drain(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Body(EmptyRequest {}): Body<EmptyRequest>,
) -> Result<Json<WorkerView>, ApiError> {
    let id = worker_called(&app, &name).await?;
    let missing = || ApiError::NotFound { kind: "worker", name: name.clone(), nearest: None };
    if !app.store.drain_worker(&id).await? {
        return Err(missing());
    }
    app.leader.drain(&id);
    app.store.worker_named(id.as_str()).await?.map(Json).ok_or_else(missing)
}

/// The workers with what they do, those that are there first.
#[utoipa::path(get, path = "/workers", tag = "workers", responses((status = 200, body = WorkerList)))]
pub(super) async fn workers(State(app): State<Arc<App>>) -> Result<Json<WorkerList>, ApiError> {
    Ok(Json(WorkerList { workers: app.store.workers(false).await? }))
}

/// The worker that a name or identifier means.
pub(super) async fn worker_called(app: &App, name: &str) -> Result<WorkerId, ApiError> {
    let Some(found) = app.store.worker_named(name).await? else {
        let workers = app.store.workers(true).await?;
        let names = workers.iter().map(|worker| worker.name.as_str());
        let nearest = nearest(name, names).map(str::to_owned);
        return Err(ApiError::NotFound { kind: "worker", name: name.to_owned(), nearest });
    };
    found.id.parse().map_err(|error: IdError| ApiError::BadRequest(error.to_string()))
}
