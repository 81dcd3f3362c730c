//! The one map from errors to gRPC statuses.
//!
//! The inside of an error stays in the log; the worker gets the short message.

use domain::ids::WorkerId;
use proto::from_wire::DecodeError;
use tonic::{Code, Status};

use crate::artifacts::ArtifactError;
use crate::store::{StoreError, StoreErrorClass};

/// Everything that a worker's call can fail with.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    #[error("the worker speaks version {theirs} of the protocol, the coordinator version {ours}")]
    ProtocolVersion { theirs: u32, ours: u32 },
    #[error("a worker needs at least one slot")]
    NoSlots,
    #[error("a report may hold {max} events, this one has {found}")]
    TooManyEvents { found: usize, max: usize },
    #[error("the worker `{worker}` is not registered; register again")]
    UnknownWorker { worker: WorkerId },
    #[error(
        "cannot see the artifact store: the bytes are not those of the nonce object of `{worker}`"
    )]
    WrongNonce { worker: WorkerId },
    #[error("a lease of the worker `{worker}` is being ended; ask again")]
    LeaseEnding { worker: WorkerId },
    #[error("this coordinator does not lead")]
    NotLeading,
    #[error("the coordinator is stopping")]
    Stopping,
}

impl ApiError {
    fn code(&self) -> Code {
        match self {
            Self::Decode(_) | Self::NoSlots | Self::TooManyEvents { .. } => Code::InvalidArgument,
            Self::ProtocolVersion { .. } | Self::WrongNonce { .. } => Code::FailedPrecondition,
            Self::UnknownWorker { .. } | Self::Store(StoreError::NotFound { .. }) => Code::NotFound,
            // Workers are never served read-only: that is a store which is closing.
            Self::Stopping
            | Self::NotLeading
            | Self::LeaseEnding { .. }
            | Self::Artifact(_)
            | Self::Store(StoreError::ReadOnly) => Code::Unavailable,
            Self::Store(error) => match error.class() {
                StoreErrorClass::RetryNow | StoreErrorClass::RetryLater => Code::Unavailable,
                StoreErrorClass::GiveUp => Code::FailedPrecondition,
                StoreErrorClass::Bug => Code::Internal,
            },
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let code = error.code();
        if matches!(code, Code::Internal | Code::Unavailable) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "a worker's call failed");
        }
        Status::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(error: ApiError, code: Code) {
        let status = Status::from(error);
        assert_eq!(status.code(), code, "{status}");
    }

    #[test]
    fn each_error_has_its_code() {
        let worker: WorkerId = "w_1".parse().unwrap();
        check(DecodeError::Missing { field: "x" }.into(), Code::InvalidArgument);
        check(ApiError::NoSlots, Code::InvalidArgument);
        check(ApiError::TooManyEvents { found: 2, max: 1 }, Code::InvalidArgument);
        check(ApiError::ProtocolVersion { theirs: 2, ours: 1 }, Code::FailedPrecondition);
        check(ApiError::WrongNonce { worker: worker.clone() }, Code::FailedPrecondition);
        check(ApiError::LeaseEnding { worker: worker.clone() }, Code::Unavailable);
        check(ApiError::UnknownWorker { worker }, Code::NotFound);
        check(ApiError::Stopping, Code::Unavailable);
        check(ApiError::NotLeading, Code::Unavailable);
        check(StoreError::NotLeading.into(), Code::Unavailable);
        check(StoreError::ReadOnly.into(), Code::Unavailable);
        check(StoreError::Closed.into(), Code::Unavailable);
        check(StoreError::NotFound { kind: "run", id: "r_1".into() }.into(), Code::NotFound);
        check(StoreError::Bug("x".into()).into(), Code::Internal);
        let key = "nonces/w_1".into();
        let source = object_store::Error::NotImplemented {
            operation: "get".into(),
            implementer: "test".into(),
        };
        check(ArtifactError::Read { key, source }.into(), Code::Unavailable);
    }
}
