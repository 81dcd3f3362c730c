//! The identity of a cell: canonical JSON (RFC 8785) and its BLAKE3 hash.
//!
//! It does not decide what belongs to an identity; `recipe` does.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ids::ContentHash;

/// A configuration's hash and the text that was hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// BLAKE3 of `canonical_json`.
    pub hash: ContentHash,
    /// The configuration as RFC 8785 canonical JSON.
    pub canonical_json: String,
}

/// Why something has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A number is not finite, or a map has keys that are no text.
    #[error("the configuration cannot be written as canonical JSON")]
    Canonicalise(#[source] serde_json::Error),
    /// The stored text does not have the type that was asked for.
    #[error("the stored configuration is not of this build's form")]
    Parse(#[source] serde_json::Error),
}

impl Identity {
    /// The identity of a configuration.
    pub fn of<T: Serialize>(config: &T) -> Result<Self, IdentityError> {
        let canonical_json =
            serde_json_canonicalizer::to_string(config).map_err(IdentityError::Canonicalise)?;
        Ok(Self { hash: ContentHash::of(canonical_json.as_bytes()), canonical_json })
    }

    /// The configuration behind a canonical text.
    pub fn parse<T: DeserializeOwned>(canonical_json: &str) -> Result<T, IdentityError> {
        serde_json::from_str(canonical_json).map_err(IdentityError::Parse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_and_the_spelling_of_floats_change_nothing() {
        let a = Identity::of(&json!({"b": 1.0, "a": 1e-3})).unwrap();
        let b = Identity::of(&json!({"a": 0.001, "b": 1})).unwrap();
        assert_eq!(a, b);
        assert_eq!(a.canonical_json, r#"{"a":0.001,"b":1}"#);
    }
}
