//! A store copied to another place, row for row, whichever databases the two are.
//!
//! The source may be in use: what is copied is one consistent state of it. Artifacts are not in the
//! database and are not copied.

mod rows;
mod target;

use std::path::Path;

use self::rows::TABLES;
use super::convert::signed;
use super::database::{Connection, Reading, query};
use super::error::from_driver;
use super::{check_schema, connect_to_read};
use crate::store::{Location, StoreError};

/// How many rows of a table were copied, or would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableRows {
    /// The table.
    pub name: &'static str,
    /// Its rows.
    pub n_rows: u64,
}

/// A copy counts its lease tokens from so much further on. The source may go on, or may have gone
/// on since this backup of it was taken: what its workers still hold must never be granted again
/// here, to somebody whose points and weights theirs would be taken for. No store grants so many
/// attempts, and two million copies of copies stay exact in every reader of JSON.
const TOKEN_JUMP: u64 = 1 << 32;

/// Copies a store into a file that does not exist or a database that is empty; anything else is
/// refused and left as it is. All of it happens, or nothing. Both have the schema of this build.
/// Every row is as it was but the last lease token, which is far larger.
pub async fn copy(from: &Location, to: &Location) -> Result<Vec<TableRows>, StoreError> {
    let readers = connect_to_read(from, 1).await?;
    check_schema(from, &readers).await?;
    let mut reading = readers.begin().await.map_err(from_driver)?;
    let copied = match to {
        Location::Sqlite(path) => to_sqlite(&mut reading, path).await,
        Location::Postgres(url) => {
            let mut conn = target::empty_database(url).await?;
            let filled = fill(&mut reading, &mut conn).await;
            conn.close().await.map_err(from_driver).and(filled)
        }
        Location::Memory(session) => {
            let in_use = || StoreError::InUse { store: to.to_string() };
            let (mut conn, _lead) = super::memory::lead(session).await?.ok_or_else(in_use)?;
            fill(&mut reading, &mut conn).await
        }
    };
    drop(reading);
    readers.close().await;
    copied
}

/// What a copy would do: the same checks, and the rows that there are.
pub async fn plan_copy(from: &Location, to: &Location) -> Result<Vec<TableRows>, StoreError> {
    let readers = connect_to_read(from, 1).await?;
    check_schema(from, &readers).await?;
    match to {
        Location::Sqlite(path) => target::check_absent(path)?,
        Location::Postgres(url) => target::check_empty(url).await?,
        // One that has rows refuses those of the copy.
        Location::Memory(_) => {}
    }
    let mut reading = readers.begin().await.map_err(from_driver)?;
    let mut planned = Vec::new();
    for table in TABLES {
        let n_rows = table.count(&mut reading).await?;
        planned.push(TableRows { name: table.name, n_rows });
    }
    drop(reading);
    readers.close().await;
    Ok(planned)
}

/// The file appears under its name when it is whole.
async fn to_sqlite(reading: &mut Reading, path: &Path) -> Result<Vec<TableRows>, StoreError> {
    let partial = target::PartialFile::beside(path)?;
    let (writer, lock) = super::sqlite::open_to_write(partial.path()).await?;
    let mut conn = Connection::Sqlite(Box::new(writer));
    let filled = fill(reading, &mut conn).await;
    let closed = conn.close().await.map_err(from_driver);
    drop(lock);
    let tables = filled?;
    closed?;
    partial.publish(path)?;
    Ok(tables)
}

/// Copies every table in one transaction, and counts what has arrived.
async fn fill(reading: &mut Reading, conn: &mut Connection) -> Result<Vec<TableRows>, StoreError> {
    conn.begin().await.map_err(from_driver)?;
    let filled = fill_tables(reading, conn).await;
    let end = if filled.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = query(end).execute(&mut *conn).await.map_err(from_driver);
    filled.and_then(|tables| ended.map(|_| tables))
}

async fn fill_tables(
    reading: &mut Reading,
    conn: &mut Connection,
) -> Result<Vec<TableRows>, StoreError> {
    // A new store has its one row already.
    query("DELETE FROM lease_tokens").execute(&mut *conn).await.map_err(from_driver)?;
    let mut tables = Vec::new();
    for table in TABLES {
        let n_rows = table.copy(reading, conn).await?;
        let n_found = table.count(&mut *conn).await?;
        if n_found != n_rows {
            return Err(StoreError::CopyDiffers { table: table.name, n_rows, n_found });
        }
        tables.push(TableRows { name: table.name, n_rows });
    }
    query("UPDATE lease_tokens SET last_token = last_token + ?")
        .bind(signed(TOKEN_JUMP))
        .execute(&mut *conn)
        .await
        .map_err(from_driver)?;
    // SQLite's counters follow what is inserted.
    if let Connection::Postgres(_) = conn {
        let next = "SELECT setval(pg_get_serial_sequence('log_lines', 'id'),
    COALESCE(MAX(id), 0) + 1, false)
FROM log_lines";
        query(next).execute(conn).await.map_err(from_driver)?;
    }
    Ok(tables)
}

/// The names of the tables that are copied.
#[cfg(test)]
pub(super) fn table_names() -> std::collections::BTreeSet<String> {
    TABLES.iter().map(|table| table.name.to_owned()).collect()
}

/// By table, its rows.
#[cfg(test)]
pub(super) type Dump = std::collections::BTreeMap<String, Vec<rows::DumpedRow>>;

/// Everything that a copy copies.
#[cfg(test)]
pub(super) async fn dump(location: &Location) -> Result<Dump, StoreError> {
    let readers = connect_to_read(location, 1).await?;
    let mut reading = readers.begin().await.map_err(from_driver)?;
    let mut tables = Dump::new();
    for table in TABLES {
        tables.insert(table.name.to_owned(), table.dump(&mut reading).await?);
    }
    drop(reading);
    readers.close().await;
    Ok(tables)
}
