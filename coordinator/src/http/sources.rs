//! Source files: which ones the store lacks, and the upload of one.
//! Keys are made of hashes that were parsed, never of a client's text.

use std::sync::Arc;

use api::{ErrorBody, SourceHashes};
use axum::Json;
use axum::body::{Body as RawBody, Bytes};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use domain::ids::ContentHash;
use futures::{Stream, StreamExt};

use super::error::ApiError;
use super::extract::Body;
use crate::App;
use crate::store::Store;
use crate::store::read::ReadStore;

/// The largest source file: far beyond what one file of text holds, below what fills a disk
/// unseen.
const MOST_SOURCE_BYTES: u64 = 64 << 30;

/// Which of these hashes the store lacks.
#[utoipa::path(
    post,
    path = "/sources/missing",
    tag = "sources",
    request_body = SourceHashes,
    responses((status = 200, body = SourceHashes), (status = 400, body = ErrorBody))
)]
pub(super) async fn missing(
    State(app): State<Arc<App>>,
    Body(request): Body<SourceHashes>,
) -> Result<Json<SourceHashes>, ApiError> {
    let hashes = request.hashes.iter().map(|text| parsed(text)).collect::<Result<Vec<_>, _>>()?;
    let missing = app.store.missing_sources(&hashes).await?;
    Ok(Json(SourceHashes { hashes: missing.iter().map(ToString::to_string).collect() }))
}

/// Keeps a source file under its hash. Repeating it changes nothing.
#[utoipa::path(
    put,
    path = "/sources/{hash}",
    tag = "sources",
    params(("hash" = String, Path, description = "BLAKE3 of the bytes, hexadecimal")),
    request_body(content_type = "application/octet-stream", description = "The file's bytes"),
    responses(
        (status = 204, description = "It is there"),
        (status = 400, description = "The bytes have another hash", body = ErrorBody)
    )
)]
pub(super) async fn put(
    State(app): State<Arc<App>>,
    Path(hash): Path<String>,
    body: RawBody,
) -> Result<StatusCode, ApiError> {
    let hash = parsed(&hash)?;
    let source = app.artifacts.put_source(&hash, bounded(body)).await?;
    app.store.record_source(&source).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn parsed(hash: &str) -> Result<ContentHash, ApiError> {
    hash.parse::<ContentHash>().map_err(|error| ApiError::BadRequest(error.to_string()))
}

/// Breaks off where a body is longer than any source may be.
fn bounded(body: RawBody) -> impl Stream<Item = Result<Bytes, axum::Error>> {
    let mut n_bytes = 0_u64;
    body.into_data_stream().map(move |chunk| {
        let chunk = chunk?;
        n_bytes = n_bytes.saturating_add(chunk.len() as u64);
        if n_bytes > MOST_SOURCE_BYTES {
            let message = format!("a source may have {MOST_SOURCE_BYTES} bytes");
            return Err(axum::Error::new(std::io::Error::other(message)));
        }
        Ok(chunk)
    })
}
