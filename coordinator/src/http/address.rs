//! What an address names: a study or a run, found before its handler is called.
//! It reads nothing else of the store.

use std::future::Future;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use domain::ids::{RunId, StudyId};
use utoipa::IntoParams;

use super::error::ApiError;
use crate::App;
use crate::store::read::{Lookup, ReadError, ReadStore};

/// What stands for a study in an address.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is there for the document; `Found` reads the address")]
pub(super) struct StudyAddress {
    /// Its name or identifier
    study: String,
}

/// What stands for a run in an address.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "it is there for the document; `Found` reads the address")]
pub(super) struct RunAddress {
    /// Its identifier, or a cell's name that only it has
    run: String,
}

/// What can be asked for by name or identifier.
pub(super) trait Addressed: Sized {
    /// What people call it.
    const KIND: &'static str;

    /// What the store says to a name.
    fn find(app: &App, name: &str) -> impl Future<Output = Result<Lookup<Self>, ReadError>> + Send;
}

impl Addressed for StudyId {
    const KIND: &'static str = "study";

    async fn find(app: &App, name: &str) -> Result<Lookup<Self>, ReadError> {
        app.store.find_study(name).await
    }
}

impl Addressed for RunId {
    const KIND: &'static str = "run";

    async fn find(app: &App, name: &str) -> Result<Lookup<Self>, ReadError> {
        app.store.find_run(name).await
    }
}

/// The study or run that an address means; an address that means none or several is refused.
#[derive(Debug)]
pub(super) struct Found<T> {
    /// What the store calls it.
    pub(super) id: T,
    /// As it was asked for.
    name: String,
}

impl<T: Addressed> Found<T> {
    /// For one that was there when it was looked up and is there no longer.
    pub(super) fn missing(self) -> ApiError {
        ApiError::NotFound { kind: T::KIND, name: self.name, nearest: None }
    }
}

impl<T: Addressed> FromRequestParts<Arc<App>> for Found<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Path(name) = Path::<String>::from_request_parts(parts, app)
            .await
            .map_err(|rejection| ApiError::BadRequest(rejection.body_text()))?;
        match T::find(app, &name).await? {
            Lookup::Found(id) => Ok(Self { id, name }),
            Lookup::Missing { nearest } => Err(ApiError::NotFound { kind: T::KIND, name, nearest }),
            Lookup::Ambiguous { candidates } => Err(ApiError::Ambiguous { name, candidates }),
        }
    }
}
