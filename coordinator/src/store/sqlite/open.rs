//! Opening the file: who may, with which settings, and with which schema.
//!
//! It runs no verb.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::ConnectOptions as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

use super::error::{from_driver, primary_code};
use crate::store::StoreError;

/// The migrations of this build.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// How many views are read at a time.
const READ_CONNECTIONS: u32 = 4;

/// How long a statement waits for another program's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Statements kept compiled on each connection: more than there are in this crate.
const STATEMENTS_KEPT: usize = 400;

/// SQLite's result code for a file that is something else.
const SQLITE_NOTADB: i64 = 26;

/// An open store for the one that writes.
pub(super) struct Opened {
    pub(super) writer: SqliteConnection,
    pub(super) readers: SqlitePool,
    pub(super) lock: File,
}

/// Opens or makes the file, alone, and brings its schema up to date.
pub(super) async fn for_writing(path: &Path) -> Result<Opened, StoreError> {
    let lock = lock(path)?;
    let options = options(path).create_if_missing(true);
    let mut writer = options.connect().await.map_err(|error| not_a_database(path, error))?;
    MIGRATIONS
        .run_direct(None, &mut writer, false)
        .await
        .map_err(|error| migrate_error(path, error))?;
    let readers = read_pool(path).await?;
    Ok(Opened { writer, readers, lock })
}

/// Opens the file for views only; another coordinator may be writing it.
pub(super) async fn for_reading(path: &Path) -> Result<SqlitePool, StoreError> {
    if !path.exists() {
        return Err(StoreError::Absent { path: path.to_owned() });
    }
    let readers = read_pool(path).await?;
    let found: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations")
        .fetch_one(&readers)
        .await
        .map_err(|error| not_a_database(path, error))?;
    let known = newest_migration();
    let path = path.to_owned();
    match found.cmp(&known) {
        std::cmp::Ordering::Greater => Err(StoreError::NewerSchema { path, found, known }),
        std::cmp::Ordering::Less => Err(StoreError::OlderSchema { path, found, known }),
        std::cmp::Ordering::Equal => Ok(readers),
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        // An acknowledged report survives the loss of power.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS_KEPT)
        .disable_statement_logging()
}

async fn read_pool(path: &Path) -> Result<SqlitePool, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS_KEPT)
        .disable_statement_logging();
    SqlitePoolOptions::new()
        .max_connections(READ_CONNECTIONS)
        .connect_with(options)
        .await
        .map_err(|error| not_a_database(path, error))
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
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(open_error(source)),
    }
}

fn not_a_database(path: &Path, error: sqlx::Error) -> StoreError {
    if primary_code(&error) == Some(SQLITE_NOTADB) {
        return StoreError::NotADatabase { path: path.to_owned() };
    }
    from_driver(error)
}

fn migrate_error(path: &Path, error: MigrateError) -> StoreError {
    let path = path.to_owned();
    match error {
        MigrateError::VersionMissing(found) => {
            StoreError::NewerSchema { path, found, known: newest_migration() }
        }
        MigrateError::Execute(error) => not_a_database(&path, error),
        error => StoreError::Migrate { path, source: error.into() },
    }
}

fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default()
}
