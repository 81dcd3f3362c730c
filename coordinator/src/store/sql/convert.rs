//! Between the columns' types and the domain's.
//!
//! It asks the database nothing.

use std::str::FromStr;

use domain::ids::IdError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::store::StoreError;

/// A count or token as a column holds it. Nothing that this store counts reaches 2^63.
pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A count or token as it was given.
pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or_default()
}

/// A small count as it was given.
pub(super) fn small(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(if n < 0 { 0 } else { u32::MAX })
}

/// A stored identifier.
pub(super) fn parse_id<T: FromStr<Err = IdError>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(StoreError::Id)
}

/// A value as JSON text for the named column.
pub(super) fn to_json<T: Serialize + ?Sized>(
    value: &T,
    what: &'static str,
) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|source| StoreError::Json { what, source })
}

/// The value of the named column.
pub(super) fn from_json<T: DeserializeOwned>(
    text: &str,
    what: &'static str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|source| StoreError::Json { what, source })
}
