//! What only PostgreSQL has: the connection, and the lock that lets one coordinator lead.
//!
//! It runs no verb.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _};

use super::database::Pool;
use super::error::from_driver;
use crate::store::{Location, StoreError};

/// The migrations of this build.
pub(super) static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

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

/// How often the leader looks whether it still holds the lock.
const LOCK_INTERVAL: Duration = Duration::from_secs(3);

/// A server that has not answered a question of one line for so long is not there.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// So many looks in a row that find no answer end the lead.
const LOOKS_IN_VAIN: u32 = 2;

/// Where a leader that leaves says so, that a standby need not wait for its next look.
const LEADER_CHANNEL: &str = "gradus_leader";

/// Connects to write, as the only leader. None when another coordinator leads.
///
/// The lock belongs to the session, and everything is written through this very session: once the
/// server has given the lock to another coordinator, this one's session is gone, and with it
/// whatever it had not committed. There is nothing that a deposed leader could still write with.
///
/// The number beside it is that of the session, by which [`holds_lock`] knows it.
pub(super) async fn lead(url: &str) -> Result<Option<(PgConnection, i32)>, StoreError> {
    // A standby asks every second for as long as it lives: a server that vanishes meanwhile without a
    // word must not keep it waiting for ever.
    tokio::time::timeout(ANSWER_DEADLINE, lock(url)).await.map_err(|_| silent())?
}

/// Brings the schema up to date, which may take as long as it likes.
pub(super) async fn migrate(url: &str, connection: &mut PgConnection) -> Result<(), StoreError> {
    MIGRATIONS.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) => from_driver(error),
        error => super::migrate_error(Location::Postgres(url.to_owned()).to_string(), error),
    })
}

/// Connects and takes the leader's lock; none when another coordinator has it.
async fn lock(url: &str) -> Result<Option<(PgConnection, i32)>, StoreError> {
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
    let session = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut connection)
        .await
        .map_err(from_driver)?;
    Ok(Some((connection, session)))
}

/// Waits until this session no longer holds the leader's lock, or the server no longer answers.
///
/// A connection that is cut off without a word is closed by the server after some ten seconds, and
/// the lock is another's then; at this end it looks as if it was only slow. So another connection is
/// asked who holds it.
pub(super) async fn lock_is_lost(pool: &PgPool, session: i32) {
    let mut n_silent = 0;
    loop {
        tokio::time::sleep(LOCK_INTERVAL).await;
        match tokio::time::timeout(ANSWER_DEADLINE, holds_lock(pool, session)).await {
            Ok(Ok(true)) => n_silent = 0,
            Ok(Ok(false)) => return,
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "could not ask who leads");
                n_silent += 1;
            }
            Err(_) => n_silent += 1,
        }
        if n_silent >= LOOKS_IN_VAIN {
            return;
        }
    }
}

async fn holds_lock(pool: &PgPool, session: i32) -> Result<bool, sqlx::Error> {
    // The number of an advisory lock is kept in two halves.
    sqlx::query_scalar(
        "SELECT EXISTS (
    SELECT *
    FROM pg_locks
    WHERE locktype = 'advisory' AND pid = $1 AND granted
        AND (classid::bigint << 32) | objid::bigint = $2
)",
    )
    .bind(session)
    .bind(LEADER_LOCK)
    .fetch_one(pool)
    .await
}

/// There is no answer.
pub(super) fn silent() -> StoreError {
    StoreError::ConnectionLost("the server does not answer".into())
}

/// Gives the lead back and tells the standbys.
pub(super) async fn resign(mut connection: PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_unlock($1)").bind(LEADER_LOCK).execute(&mut connection).await?;
    sqlx::query("SELECT pg_notify($1, '')").bind(LEADER_CHANNEL).execute(&mut connection).await?;
    connection.close().await
}

/// Connects for views only.
pub(super) async fn open_to_read(url: &str, n_connections: u32) -> Result<Pool, StoreError> {
    let options = options(url)?.options([("default_transaction_read_only", "on")]);
    let pool = PgPoolOptions::new()
        .max_connections(n_connections)
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
