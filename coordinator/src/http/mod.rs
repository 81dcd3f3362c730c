//! HTTP for everyone: the API under `/api/v1`, its OpenAPI document, the event stream and the web
//! application. Handlers decode, call and encode.
//! It holds no rule of the domain and no SQL.

use std::sync::{Arc, LazyLock};

use axum::extract::DefaultBodyLimit;
use axum::middleware;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;

mod address;
mod apply;
mod change;
mod error;
mod events;
mod explain;
mod extract;
mod fit_settings;
mod fits;
mod guard;
mod history;
mod plan;
mod runs;
mod session;
mod sources;
mod studies;
mod system;
mod web;

/// The largest JSON body: a study file with the hashes of a hundred thousand sources fits.
const MAX_JSON_BYTES: usize = 32 * 1024 * 1024;

#[derive(OpenApi)]
#[openapi(info(
    title = "Gradus",
    description = "Studies, their runs and what came out of them. Every error is an `ErrorBody`."
))]
struct Document;

/// The OpenAPI document as JSON, made once.
static DOCUMENT: LazyLock<String> = LazyLock::new(|| {
    documented().into_openapi().to_json().expect("the document holds only texts and numbers")
});

/// Every route of the API. A route is documented by being here: there is no other way in.
fn documented() -> OpenApiRouter<Arc<App>> {
    let api = OpenApiRouter::new()
        .routes(routes!(system::health))
        .routes(routes!(system::check))
        .routes(routes!(system::openapi))
        .routes(routes!(session::sign_in))
        .routes(routes!(system::workers))
        .routes(routes!(system::drain))
        .routes(routes!(explain::explain))
        .routes(routes!(events::events))
        .routes(routes!(apply::plan))
        .routes(routes!(sources::missing))
        .routes(routes!(sources::put))
        .routes(routes!(studies::list, apply::apply))
        .routes(routes!(studies::show))
        .routes(routes!(studies::runs))
        .routes(routes!(studies::curves))
        .routes(routes!(studies::fit))
        .routes(routes!(fits::list))
        .routes(routes!(fits::create))
        .routes(routes!(fits::show))
        .routes(routes!(fits::curve))
        .routes(routes!(fits::predict))
        .routes(routes!(fits::compare))
        .routes(routes!(studies::cancel))
        .routes(routes!(studies::retry))
        .routes(routes!(studies::pause))
        .routes(routes!(studies::resume))
        .routes(routes!(studies::priority))
        .routes(routes!(history::of_study))
        .routes(routes!(history::of_run))
        .routes(routes!(history::of_worker))
        .routes(routes!(history::points))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show))
        .routes(routes!(runs::curves))
        .routes(routes!(runs::logs))
        .routes(routes!(runs::cancel))
        .routes(routes!(runs::retry));
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", api)
}

/// The routes.
pub fn router(app: Arc<App>) -> axum::Router {
    let (router, _) = documented().split_for_parts();
    router
        .method_not_allowed_fallback(web::no_such_method)
        .fallback(web::page)
        .layer(DefaultBodyLimit::max(MAX_JSON_BYTES))
        .layer(middleware::from_fn_with_state(app.clone(), guard::guard))
        .with_state(app)
}
