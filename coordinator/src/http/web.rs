//! The web application, embedded when it was built, and whatever is no route of the API.
//! It holds no data: the pages read the API.

use axum::body::Body;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use rust_embed::RustEmbed;

use super::error::ApiError;

/// The built pages; none in a build without Node.
#[derive(RustEmbed)]
#[folder = "../dashboards/web/dist"]
#[allow_missing = true]
struct Assets;

/// Everything from here, no inline script. Styles may be inline: the charts set them on elements.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; script-src 'self'; \
     style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; \
     object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Files below this have a hash of their content in their name.
const HASHED: &str = "assets/";

/// Shown in place of the pages when they were not built.
const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\">
<head><meta charset=\"utf-8\"><title>Gradus</title></head>
<body>
<h1>The dashboard is not in this build</h1>
<p>Build it with <code>make web</code>, then build the coordinator again.</p>
<p>The API is at <a href=\"/api/v1/openapi.json\"><code>/api/v1</code></a>.</p>
</body>
</html>
";

/// A page or file of the web application; what is no file is a page that the application itself
/// resolves.
pub(super) async fn page(method: Method, uri: Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    if path == "api" || path.starts_with("api/") {
        return no_such_route(uri.path());
    }
    if method != Method::GET && method != Method::HEAD {
        return no_such_method(method, uri).await;
    }
    if let Some(file) = Assets::get(path) {
        return with_policy(content_type(path), cache_control(path), file.data.into_owned().into());
    }
    if path.starts_with(HASHED) {
        return no_such_route(uri.path());
    }
    match Assets::get("index.html") {
        Some(index) => {
            with_policy("text/html; charset=utf-8", "no-cache", index.data.into_owned().into())
        }
        None => with_policy("text/html; charset=utf-8", "no-store", NOT_BUILT.into()),
    }
}

/// A route that has other methods.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Response {
    let (method, path) = (method.to_string(), uri.path().to_owned());
    ApiError::MethodNotAllowed { method, path }.into_response()
}

fn no_such_route(path: &str) -> Response {
    ApiError::NotFound { kind: "route", name: path.to_owned(), nearest: None }.into_response()
}

fn content_type(path: &str) -> &'static str {
    mime_guess::from_path(path).first_raw().unwrap_or("application/octet-stream")
}

fn cache_control(path: &str) -> &'static str {
    if path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" }
}

fn with_policy(content_type: &'static str, cache_control: &'static str, body: Body) -> Response {
    let mut response = (StatusCode::OK, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
    headers
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    response
}
