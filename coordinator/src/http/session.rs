//! Signing in: a browser shows the token once and keeps a cookie, because a page cannot send a header
//! with its event stream.
//! What the cookie is stands in `auth`.

use std::sync::Arc;

use api::SignIn;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::ApiError;
use super::extract::Body;
use crate::{App, auth};

/// Begins a session of this browser, which ends with it. Without a token there is none to begin.
#[utoipa::path(
    post,
    path = "/session",
    tag = "system",
    request_body = SignIn,
    responses((status = 204, description = "the answers to come are not refused for want of a token"))
)]
pub(super) async fn sign_in(
    State(app): State<Arc<App>>,
    Body(given): Body<SignIn>,
) -> Result<Response, ApiError> {
    let Some(tokens) = &app.config.tokens else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let Some(token) = auth::token_shown(tokens, given.token.trim()) else {
        return Err(ApiError::WrongToken);
    };
    // No script reads it, and no other site's page sends it.
    let cookie =
        format!("{}; Path=/; HttpOnly; SameSite=Strict", auth::session_cookie(&token.secret));
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}
