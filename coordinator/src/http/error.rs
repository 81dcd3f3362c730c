//! How the API says no: every refusal and failure, and the one map from them to answers.
//! It does not decide what is refused.

use api::ErrorBody;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::ids::ContentHash;
use domain::spec::SpecError;

use crate::artifacts::ArtifactError;
use crate::fits::FitsError;
use crate::store::StoreError;
use crate::store::read::ReadError;

/// So many missing hashes are named in a message; `POST /sources/missing` names all.
const MAX_NAMED: usize = 3;

/// Every answer that is not a success.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// The study file is wrong; the message has file, line and column.
    #[error(transparent)]
    InvalidSpec(#[from] SpecError),
    /// The study needs sources that were not uploaded.
    #[error("{}", missing_sources(.0))]
    MissingSources(Vec<ContentHash>),
    /// An address names nothing.
    #[error("there is no {kind} `{name}`{}", did_you_mean(.nearest.as_deref()))]
    NotFound {
        /// `study`, `run` or `route`.
        kind: &'static str,
        /// As it was asked for.
        name: String,
        /// A name that may have been meant.
        nearest: Option<String>,
    },
    /// A name that stands for several runs.
    #[error("`{name}` is the name of several runs; ask for one of {}", .candidates.join(", "))]
    Ambiguous {
        /// As it was asked for.
        name: String,
        /// What it may mean.
        candidates: Vec<String>,
    },
    /// The request cannot be understood.
    #[error("{0}")]
    BadRequest(String),
    /// The route has no such method.
    #[error("`{path}` has no method {method}")]
    MethodNotAllowed {
        /// As it was asked for.
        method: String,
        /// The route.
        path: String,
    },
    /// The body is larger than the route takes.
    #[error("the body is too large: {0}")]
    TooLarge(String),
    /// A changing call that a form of another site could have sent.
    #[error("the content type must be `{expected}`, not `{given}`")]
    ContentType {
        /// What the route takes.
        expected: &'static str,
        /// What came.
        given: String,
    },
    /// The caller may not ask this.
    #[error("{0}")]
    Forbidden(String),
    /// A token is configured and the caller did not show it.
    #[error(
        "this coordinator asks for its token: give the commands `--token-file FILE`; other programs \
         send `Authorization: Bearer TOKEN`"
    )]
    Unauthorized,
    /// A sign-in with another token.
    #[error("this is not the token of this coordinator")]
    WrongToken,
    /// The coordinator changes nothing.
    #[error("this coordinator is read-only")]
    ReadOnly,
    /// A view could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A verb failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A source could not be kept.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// A study could not be fitted.
    #[error(transparent)]
    Fits(FitsError),
    /// A request's own work broke off.
    #[error("a request broke off")]
    Broken(#[source] tokio::task::JoinError),
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

fn missing_sources(hashes: &[ContentHash]) -> String {
    let named: Vec<String> =
        hashes.iter().take(MAX_NAMED).map(|hash| format!("`{hash}`")).collect();
    let more = match hashes.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("the store lacks the sources {}{more}; upload them first", named.join(", "))
}

impl ApiError {
    /// The status and the stable word of the body.
    fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::InvalidSpec(_) => (StatusCode::BAD_REQUEST, "invalid_spec"),
            Self::MissingSources(_) => (StatusCode::CONFLICT, "missing_sources"),
            Self::NotFound { .. }
            | Self::Store(StoreError::NotFound { .. })
            | Self::Fits(FitsError::NoStudy { .. }) => (StatusCode::NOT_FOUND, "not_found"),
            Self::Ambiguous { .. }
            | Self::Fits(FitsError::OlderBuild { .. } | FitsError::NotReproduced { .. }) => {
                (StatusCode::CONFLICT, "conflict")
            }
            Self::BadRequest(_)
            | Self::Fits(FitsError::NoAxis { .. } | FitsError::Setting(_))
            | Self::Artifact(ArtifactError::HashMismatch { .. } | ArtifactError::Upload { .. }) => {
                (StatusCode::BAD_REQUEST, "bad_request")
            }
            Self::MethodNotAllowed { .. } => (StatusCode::METHOD_NOT_ALLOWED, "bad_request"),
            Self::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "bad_request"),
            Self::ContentType { .. } => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_request"),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::Unauthorized | Self::WrongToken => (StatusCode::UNAUTHORIZED, "forbidden"),
            Self::ReadOnly | Self::Store(StoreError::ReadOnly) => {
                (StatusCode::FORBIDDEN, "read_only")
            }
            Self::Store(StoreError::NotLeading) => (StatusCode::SERVICE_UNAVAILABLE, "not_leading"),
            Self::Store(
                StoreError::Locked(_)
                | StoreError::Closed
                | StoreError::ConnectionLost(_)
                | StoreError::Commit { .. }
                | StoreError::DiskFull(_),
            ) => (StatusCode::SERVICE_UNAVAILABLE, "internal"),
            Self::Read(_)
            | Self::Store(_)
            | Self::Artifact(_)
            | Self::Fits(_)
            | Self::Broken(_) => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }
}

impl From<FitsError> for ApiError {
    /// What the store said is answered as the store's.
    fn from(error: FitsError) -> Self {
        match error {
            FitsError::Store(error) => Self::Store(error),
            error => Self::Fits(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status();
        if status.is_server_error() {
            // The chain of causes stays here; the caller gets the first line.
            tracing::error!(error = &self as &dyn std::error::Error, "could not answer a request");
        }
        let body = ErrorBody { code: code.to_owned(), message: self.to_string() };
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_missing_sources_are_named_and_the_rest_counted() {
        let hashes: Vec<ContentHash> = (0..5_u8).map(|n| ContentHash::of(&[n])).collect();
        let message = ApiError::MissingSources(hashes.clone()).to_string();
        assert!(message.contains(hashes[2].as_str()), "{message}");
        assert!(message.contains("and 2 more"), "{message}");
    }

    #[test]
    fn a_name_that_is_not_there_suggests_the_nearest() {
        let error = ApiError::NotFound {
            kind: "study",
            name: "dem".to_owned(),
            nearest: Some("demo".to_owned()),
        };
        assert_eq!(error.to_string(), "there is no study `dem`; did you mean `demo`?");
    }
}
