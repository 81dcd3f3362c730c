//! Where a copy goes: a file that does not exist yet, or a database without a row.
//!
//! What is there already is never touched.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::rows::TABLES;
use crate::store::sql::database::{Connection, Pool, query_scalar};
use crate::store::sql::error::from_driver;
use crate::store::sql::{check_schema, postgres};
use crate::store::{Location, StoreError};

/// A file that is not whole yet, beside the one that it will be. It is removed unless it is
/// published.
#[derive(Debug)]
pub(super) struct PartialFile {
    path: PathBuf,
}

impl PartialFile {
    /// Makes sure that the file is not there, and its folder is.
    pub(super) fn beside(path: &Path) -> Result<Self, StoreError> {
        check_absent(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let partial = format!(".{name}.partial-{}", std::process::id());
        Ok(Self { path: path.with_file_name(partial) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its name, once what it holds is on the disk.
    pub(super) fn publish(self, path: &Path) -> Result<(), StoreError> {
        let failed = |source| StoreError::Open { path: path.to_owned(), source };
        File::open(&self.path).and_then(|file| file.sync_all()).map_err(failed)?;
        check_absent(path)?;
        std::fs::rename(&self.path, path).map_err(failed)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|file| file.sync_all())
            .map_err(failed)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", ".lock"] {
            // What is gone already is as good.
            drop(std::fs::remove_file(format!("{}{suffix}", self.path.display())));
        }
    }
}

/// A file that is there is somebody's.
pub(super) fn check_absent(path: &Path) -> Result<(), StoreError> {
    let log = PathBuf::from(format!("{}-wal", path.display()));
    if path.exists() || log.exists() {
        return Err(StoreError::NotEmpty { store: path.display().to_string() });
    }
    Ok(())
}

/// The connection to a database that has the schema of this build and no row.
pub(super) async fn empty_database(url: &str) -> Result<Connection, StoreError> {
    check_empty(url).await?;
    let location = Location::Postgres(url.to_owned());
    let (mut conn, _session) = postgres::lead(url)
        .await?
        .ok_or_else(|| StoreError::InUse { store: location.to_string() })?;
    postgres::migrate(url, &mut conn).await?;
    Ok(Connection::Postgres(Box::new(conn)))
}

/// A database is empty when it has no table, or those of this build without a row.
pub(super) async fn check_empty(url: &str) -> Result<(), StoreError> {
    let location = Location::Postgres(url.to_owned());
    let readers = postgres::open_to_read(url, 1).await?;
    let empty = is_empty(&location, &readers).await;
    readers.close().await;
    if empty? { Ok(()) } else { Err(StoreError::NotEmpty { store: location.to_string() }) }
}

async fn is_empty(location: &Location, readers: &Pool) -> Result<bool, StoreError> {
    let tables: Vec<String> = query_scalar(
        "SELECT CAST(table_name AS TEXT)
FROM information_schema.tables
WHERE table_schema = current_schema()",
    )
    .fetch_all(readers)
    .await
    .map_err(from_driver)?;
    if tables.is_empty() {
        return Ok(true);
    }
    if !tables.iter().any(|name| name == "_sqlx_migrations") {
        return Ok(false);
    }
    check_schema(location, readers).await?;
    let last_token: i64 = query_scalar("SELECT COALESCE(MAX(last_token), 0) FROM lease_tokens")
        .fetch_one(readers)
        .await
        .map_err(from_driver)?;
    let mut n_rows = 0;
    for table in TABLES.iter().filter(|table| table.name != "lease_tokens") {
        n_rows += table.count(readers).await?;
    }
    Ok(last_token == 0 && n_rows == 0)
}
