//! The one map from the driver's errors to the store's.
//!
//! Files and folders are `open`'s.

use crate::store::StoreError;

/// SQLite's primary result codes that mean something to a caller.
const SQLITE_BUSY: i64 = 5;
const SQLITE_LOCKED: i64 = 6;
const SQLITE_FULL: i64 = 13;

/// What a driver's error means.
pub(crate) fn from_driver(error: sqlx::Error) -> StoreError {
    match primary_code(&error) {
        Some(SQLITE_BUSY | SQLITE_LOCKED) => StoreError::Locked(error.into()),
        Some(SQLITE_FULL) => StoreError::DiskFull(error.into()),
        _ => StoreError::Database(error.into()),
    }
}

/// SQLite's primary result code: the low byte of the extended one.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i64> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i64>().ok().map(|extended| extended & 0xff)
}
