//! What only SQLite has: the file, the lock that lets one coordinator write it, its settings.
//!
//! It runs no verb.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};

use super::database::Pool;
use super::error::{from_driver, sqlite_code};
use crate::store::StoreError;

/// The migrations of this build.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// How long a statement waits for another program's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements kept compiled on each connection. Those with a number of rows come in many lengths; the
/// ones that are not used for long make room.
const STATEMENTS_KEPT: usize = 400;

/// Kibibytes of pages that the writer keeps; a transaction that changes more writes pages again and
/// again. Negative, as SQLite tells kibibytes from pages.
const WRITER_CACHE: &str = "-98304";

/// SQLite's result code for a file that is something else.
const SQLITE_NOTADB: i64 = 26;

/// Opens or makes the file, alone, and brings its schema up to date. Whoever holds the file that is
/// answered may write.
pub(super) async fn open_to_write(path: &Path) -> Result<(SqliteConnection, File), StoreError> {
    let lock = lock(path)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // An acknowledged report survives the loss of power.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("cache_size", WRITER_CACHE)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS_KEPT)
        .disable_statement_logging();
    let mut writer = options.connect().await.map_err(|error| not_a_database(path, error))?;
    MIGRATIONS
        .run_direct(None, &mut writer, false)
        .await
        .map_err(|error| migrate_error(path, error))?;
    Ok((writer, lock))
}

/// Opens the file for views only; another coordinator may be writing it.
pub(super) async fn open_to_read(path: &Path, n_connections: u32) -> Result<Pool, StoreError> {
    if !path.exists() {
        return Err(StoreError::Absent { store: path.display().to_string() });
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS_KEPT)
        .disable_statement_logging();
    let pool = SqlitePoolOptions::new()
        .max_connections(n_connections)
        .connect_with(options)
        .await
        .map_err(|error| not_a_database(path, error))?;
    Ok(Pool::Sqlite(pool))
}

/// Two coordinators on one file would both lead, so the second one is turned away. The lock is the
/// operating system's and dies with the process, however that ends.
fn lock(path: &Path) -> Result<File, StoreError> {
    let open_error = |source| StoreError::Open { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(open_error)?;
    }
    let lock_path = PathBuf::from(format!("{}.lock", path.display()));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(lock_path)
        .map_err(open_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::InUse { store: path.display().to_string() })
        }
        Err(TryLockError::Error(source)) => Err(open_error(source)),
    }
}

/// What a driver's error means when the file may be something else.
pub(super) fn not_a_database(path: &Path, error: sqlx::Error) -> StoreError {
    if sqlite_code(&error) == Some(SQLITE_NOTADB) {
        return StoreError::NotADatabase { path: path.to_owned() };
    }
    from_driver(error)
}

fn migrate_error(path: &Path, error: MigrateError) -> StoreError {
    match error {
        MigrateError::Execute(error) => not_a_database(path, error),
        error => super::migrate_error(path.display().to_string(), error),
    }
}
