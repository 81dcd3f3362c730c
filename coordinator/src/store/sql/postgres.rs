//! What only PostgreSQL has: the connection, and the lock that lets one coordinator lead.
//!
//! It runs no verb.

use std::str::FromStr as _;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

use super::database::Pool;
use super::error::from_driver;
use crate::store::{Location, StoreError};

/// The migrations of this build.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// How many views are read at a time.
const READ_CONNECTIONS: u32 = 4;

/// Statements kept prepared on each connection. Those with a number of rows come in many lengths; the
/// ones that are not used for long make room.
const STATEMENTS_KEPT: usize = 400;

/// The advisory lock of the leader: "gradus" as a number. Locks are a database's own, so that two
/// stores on one server have two leaders.
const LEADER_LOCK: i64 = 0x0067_7261_6475_7300;

/// So that the server lets go of the lock within some ten seconds when the leader's machine is cut
/// off without a word. On a socket of the same machine they mean nothing.
const SESSION_OPTIONS: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "4"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "10000"),
];

/// Where a leader that leaves says so, that a standby need not wait for its next look.
const LEADER_CHANNEL: &str = "gradus_leader";

/// Connects to write, as the only leader, and brings the schema up to date. None when another
/// coordinator leads.
///
/// The lock belongs to the session, and everything is written through this very session: once the
/// server has given the lock to another coordinator, this one's session is gone, and with it
/// whatever it had not committed. There is nothing that a deposed leader could still write with.
pub(super) async fn lead(url: &str) -> Result<Option<PgConnection>, StoreError> {
    let options = options(url)?.options(SESSION_OPTIONS);
    let mut connection = options.connect().await.map_err(from_driver)?;
    let is_leader: bool = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(LEADER_LOCK)
        .fetch_one(&mut connection)
        .await
        .map_err(from_driver)?;
    if !is_leader {
        if let Err(error) = connection.close().await {
            tracing::debug!(error = %error, "could not say goodbye to the database");
        }
        return Ok(None);
    }
    // What is acknowledged survives the loss of power, whatever the server's default is.
    sqlx::query("SET synchronous_commit = on")
        .execute(&mut connection)
        .await
        .map_err(from_driver)?;
    MIGRATIONS.run_direct(None, &mut connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) => from_driver(error),
        error => super::migrate_error(Location::Postgres(url.to_owned()).to_string(), error),
    })?;
    Ok(Some(connection))
}

/// Gives the lead back and tells the standbys.
pub(super) async fn resign(mut connection: PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(LEADER_LOCK).execute(&mut connection).await?;
    sqlx::query("SELECT pg_notify($1, '')").bind(LEADER_CHANNEL).execute(&mut connection).await?;
    connection.close().await
}

/// Connects for views only.
pub(super) async fn open_to_read(url: &str) -> Result<Pool, StoreError> {
    let options = options(url)?.options([("default_transaction_read_only", "on")]);
    let pool = PgPoolOptions::new()
        .max_connections(READ_CONNECTIONS)
        .connect_with(options)
        .await
        .map_err(from_driver)?;
    Ok(Pool::Postgres(pool))
}

/// Hears when a leader leaves.
pub(super) async fn listen(url: &str) -> Result<sqlx::postgres::PgListener, StoreError> {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options(url)?)
        .await
        .map_err(from_driver)?;
    let mut listener =
        sqlx::postgres::PgListener::connect_with(&pool).await.map_err(from_driver)?;
    listener.listen(LEADER_CHANNEL).await.map_err(from_driver)?;
    Ok(listener)
}

fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url)
        .map_err(from_driver)?
        .application_name("gradus-coordinator")
        .statement_cache_capacity(STATEMENTS_KEPT)
        .disable_statement_logging();
    Ok(options)
}
