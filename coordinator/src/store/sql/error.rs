//! The one map from the drivers' errors to the store's.
//!
//! Files and folders are `sqlite`'s.

use crate::store::StoreError;

/// SQLite's primary result codes that mean something to a caller.
const SQLITE_BUSY: i64 = 5;
const SQLITE_LOCKED: i64 = 6;
const SQLITE_FULL: i64 = 13;

/// PostgreSQL's codes of the same meaning (its manual, appendix A).
const SERIALIZATION_FAILURE: &str = "40001";
const DEADLOCK_DETECTED: &str = "40P01";
const LOCK_NOT_AVAILABLE: &str = "55P03";
const DISK_FULL: &str = "53100";
/// Of its classes: the connection broke, and an operator or a restart intervened.
const CONNECTION_EXCEPTION: &str = "08";
const OPERATOR_INTERVENTION: &str = "57P";

/// What a driver's error means.
pub(crate) fn from_driver(error: sqlx::Error) -> StoreError {
    if is_connection_lost(&error) {
        return StoreError::ConnectionLost(error.into());
    }
    match sqlite_code(&error) {
        Some(SQLITE_BUSY | SQLITE_LOCKED) => return StoreError::Locked(error.into()),
        Some(SQLITE_FULL) => return StoreError::DiskFull(error.into()),
        _ => {}
    }
    match postgres_code(&error).as_deref() {
        Some(SERIALIZATION_FAILURE | DEADLOCK_DETECTED | LOCK_NOT_AVAILABLE) => {
            StoreError::Locked(error.into())
        }
        Some(DISK_FULL) => StoreError::DiskFull(error.into()),
        _ => StoreError::Database(error.into()),
    }
}

/// Whether the server is gone, so that nothing more comes of this connection.
fn is_connection_lost(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::WorkerCrashed => true,
        error => postgres_code(error).is_some_and(|code| {
            code.starts_with(CONNECTION_EXCEPTION) || code.starts_with(OPERATOR_INTERVENTION)
        }),
    }
}

/// SQLite's primary result code: the low byte of the extended one.
pub(super) fn sqlite_code(error: &sqlx::Error) -> Option<i64> {
    let error = error.as_database_error()?;
    error.try_downcast_ref::<sqlx::sqlite::SqliteError>()?;
    error.code()?.parse::<i64>().ok().map(|extended| extended & 0xff)
}

fn postgres_code(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    let error = error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    Some(error.code().to_owned())
}
