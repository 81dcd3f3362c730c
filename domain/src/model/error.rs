//! Why a configuration is refused.
//!
//! It does not know where the configuration stood; the study file adds line and column.

use thiserror::Error;

use crate::suggest::nearest;

/// A configuration of a language model was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ModelError {
    /// A key that the contract does not have.
    #[error("unknown key `{field}`; {hint}")]
    UnknownKey {
        /// The key as written.
        field: String,
        /// The nearest valid key, or all of them.
        hint: String,
    },
    /// A key of the contract that this architecture does not use.
    #[error("`{field}` is no key of `{architecture}`, it belongs to {valid}")]
    KeyOfOtherArchitecture {
        /// The key as written.
        field: &'static str,
        /// The label of the architecture that was asked for.
        architecture: &'static str,
        /// The architectures that have the key.
        valid: String,
    },
    /// A key without default is absent.
    #[error("`{field}` is missing; valid: {valid}")]
    Missing {
        /// The key.
        field: &'static str,
        /// What it may hold.
        valid: String,
    },
    /// A value has the wrong type, is out of range, or does not fit the others.
    #[error("`{field}` is {value}; valid: {valid}")]
    Invalid {
        /// The key.
        field: &'static str,
        /// The value as written.
        value: String,
        /// What would be valid beside the other keys.
        valid: String,
    },
}

impl ModelError {
    /// The key that the error is about, for the path in a study file.
    pub fn field(&self) -> &str {
        match self {
            Self::UnknownKey { field, .. } => field,
            Self::KeyOfOtherArchitecture { field, .. }
            | Self::Missing { field, .. }
            | Self::Invalid { field, .. } => field,
        }
    }

    pub(super) fn unknown_key(key: &str, valid: &[&str]) -> Self {
        let hint = match nearest(key, valid.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => format!("valid: {}", list(valid)),
        };
        Self::UnknownKey { field: key.to_owned(), hint }
    }

    pub(super) fn unknown_name(field: &'static str, value: &str, valid: &[&str]) -> Self {
        let mut text = list(valid);
        if let Some(name) = nearest(value, valid.iter().copied()) {
            text = format!("{text} (did you mean `{name}`?)");
        }
        Self::Invalid { field, value: format!("`{value}`"), valid: text }
    }

    pub(super) fn invalid(
        field: &'static str,
        value: &impl ToString,
        valid: impl Into<String>,
    ) -> Self {
        Self::Invalid { field, value: value.to_string(), valid: valid.into() }
    }
}

/// Names in backticks with commas between them.
pub(super) fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
