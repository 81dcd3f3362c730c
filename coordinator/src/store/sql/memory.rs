//! What only a database in memory has: the way to open it.
//!
//! It runs no verb; what can happen to a session is `store::memory`'s.

use sqlx::ConnectOptions as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePoolOptions};

use super::database::{Connection, Pool};
use super::error::from_driver;
use super::sqlite::MIGRATIONS;
use crate::store::StoreError;
use crate::store::memory::{Lead, Memory, Session, lost};

/// How many views are read at a time.
const READ_CONNECTIONS: u32 = 2;

/// Statements kept compiled on each connection.
const STATEMENTS_KEPT: usize = 400;

/// Connects to write, as the only leader, and makes the schema. None when another session leads.
pub(super) async fn lead(session: &Session) -> Result<Option<(Connection, Lead)>, StoreError> {
    if !session.is_on() {
        return Err(from_driver(lost()));
    }
    let Some(lead) = session.memory().try_to_lead(session) else {
        return Ok(None);
    };
    let line = session.line();
    hold(session.memory()).await?;
    let mut connection = connect(session.memory()).await?;
    MIGRATIONS
        .run_direct(None, &mut connection, false)
        .await
        .map_err(|error| super::migrate_error(session.to_string(), error))?;
    Ok(Some((Connection::Memory(Box::new(connection), line), lead)))
}

/// Connects for views only.
pub(super) async fn open_to_read(session: &Session) -> Result<Pool, StoreError> {
    hold(session.memory()).await?;
    let pool = SqlitePoolOptions::new()
        .max_connections(READ_CONNECTIONS)
        .connect_with(options(session.memory()))
        .await
        .map_err(from_driver)?;
    Ok(Pool::Memory(pool, session.clone()))
}

/// Such a database is gone with its last connection, so that one is kept.
async fn hold(memory: &Memory) -> Result<(), StoreError> {
    if !memory.is_held() {
        memory.hold(connect(memory).await?);
    }
    Ok(())
}

async fn connect(memory: &Memory) -> Result<SqliteConnection, StoreError> {
    options(memory).connect().await.map_err(from_driver)
}

fn options(memory: &Memory) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .vfs("memdb")
        .filename(memory.name())
        .create_if_missing(true)
        .foreign_keys(true)
        .statement_cache_capacity(STATEMENTS_KEPT)
        .disable_statement_logging()
}
