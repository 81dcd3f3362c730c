//! From the wire to `domain`. Decoding is fallible and names the missing or bad field.

use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, IdError, LeaseToken, WorkId, WorkerId};

use crate::v1;

/// A message that does not say what it must.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field that must be there is not.
    #[error("the field `{field}` is missing")]
    Missing {
        /// The field's path in the message.
        field: &'static str,
    },
    /// A field is no identifier or hash.
    #[error("the field `{field}` is not valid")]
    Id {
        /// The field's path in the message.
        field: &'static str,
        /// What is wrong with it.
        #[source]
        source: IdError,
    },
    /// A label is not one of the known ones.
    #[error("the field `{field}` has the unknown label `{label}`")]
    Label {
        /// The field's path in the message.
        field: &'static str,
        /// The label.
        label: String,
    },
}

/// A field that must be there.
pub fn required<T>(value: Option<T>, field: &'static str) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing { field })
}

/// A worker's identifier.
pub fn worker_id(text: &str) -> Result<WorkerId, DecodeError> {
    text.parse().map_err(|source| DecodeError::Id { field: "worker_id", source })
}

/// The identifier of what an assignment is about.
pub fn work_id(text: &str) -> Result<WorkId, DecodeError> {
    text.parse().map_err(|source| DecodeError::Id { field: "work_id", source })
}

/// A content hash in the named field.
pub fn content_hash(text: &str, field: &'static str) -> Result<ContentHash, DecodeError> {
    text.parse().map_err(|source| DecodeError::Id { field, source })
}

/// A lease token; 0 is no token.
pub fn lease_token(token: u64) -> Result<LeaseToken, DecodeError> {
    if token == 0 {
        return Err(DecodeError::Missing { field: "lease_token" });
    }
    Ok(LeaseToken(token))
}

/// How an attempt ended, and the words for people.
pub fn finish(request: &v1::FinishRequest) -> Result<(LeaseToken, AttemptEnd), DecodeError> {
    let token = lease_token(request.lease_token)?;
    let end = AttemptEnd::from_label(&request.end)
        .ok_or_else(|| DecodeError::Label { field: "end", label: request.end.clone() })?;
    Ok((token, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_token_is_named() {
        let error = finish(&v1::FinishRequest::default()).unwrap_err();
        assert_eq!(error, DecodeError::Missing { field: "lease_token" });
    }

    #[test]
    fn an_unknown_end_is_named() {
        let request =
            v1::FinishRequest { lease_token: 1, end: "exploded".into(), message: String::new() };
        assert_eq!(
            finish(&request).unwrap_err().to_string(),
            "the field `end` has the unknown label `exploded`"
        );
    }

    #[test]
    fn every_end_goes_over_the_wire_and_back() {
        for end in AttemptEnd::ALL {
            let request = crate::to_wire::finish(LeaseToken(3), end, "why");
            assert_eq!(finish(&request), Ok((LeaseToken(3), end)));
        }
    }
}
