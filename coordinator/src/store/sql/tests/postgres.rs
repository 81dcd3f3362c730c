//! The suite on PostgreSQL, and what only a server has: standbys, restarts, a schema that must be
//! the same as SQLite's.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row as _};
use test_postgres::{Disk, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::queue::WANTING;
use super::super::{postgres, sqlite};
use super::old_points;
use crate::artifacts::Artifacts;
use crate::changes_channel;
use crate::clock::Clock;
use crate::config::Config;
use crate::random::Random;
use crate::serve::{Surroundings, build_in, ensure_lead};
use crate::store::conformance::conformance;
use crate::store::conformance::fixture::{Fixture, placement, registration, source};
use crate::store::{Location, SqlStore, Store as _, StoreError};

async fn open(server: &Server) -> SqlStore {
    let location = Location::Postgres(server.url());
    SqlStore::open(&location, Clock::system(), changes_channel()).await.unwrap()
}

async fn made() -> Option<(SqlStore, Box<dyn Any + Send + Sync>)> {
    let server = Server::start(Disk::Unsynced)?;
    Some((open(&server).await, Box::new(server)))
}

conformance!(made);

/// Aim: statements are planned by the rows that a large study has just entered. Method: what the server
/// says it has counted, after a study of fewer runs than are counted, and after one of more.
#[tokio::test]
async fn tables_are_counted_when_a_study_has_filled_them() {
    let Some(server) = Server::start(Disk::Unsynced) else { return };
    let fixture = Fixture::new((open(&server).await, Box::new(())));
    let mut conn = connect(&server).await;
    let mut counted = async || -> Vec<f32> {
        sqlx::query_scalar(
            "SELECT GREATEST(reltuples, 0) FROM pg_class
WHERE relname IN ('work', 'runs', 'cells') ORDER BY relname",
        )
        .fetch_all(&mut conn)
        .await
        .unwrap()
    };
    fixture.apply(&[]).await;
    assert_eq!(counted().await, [0.0; 3]);
    let axes = many_seeds();
    let many = [("name: tiny", "name: many"), ("        axes:\n", axes.as_str())];
    assert_eq!(fixture.apply(&many).await.n_new_runs, 1198);
    // The data's preparation is work too.
    assert_eq!(counted().await, [1202.0, 1200.0, 1201.0]);
}

/// Aim: which studies have something queued is read off an index, however much is queued; of `EXISTS`
/// the server made a hash of all work, in each tick.
#[tokio::test]
async fn whether_a_study_has_something_queued_reads_no_whole_table() {
    let Some(server) = Server::start(Disk::Unsynced) else { return };
    let fixture = Fixture::new((open(&server).await, Box::new(())));
    let mut conn = connect(&server).await;
    fixture
        .prepared_with(&[("name: tiny", "name: many"), ("        axes:\n", &many_seeds())])
        .await;
    let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN {WANTING}")))
        .fetch_all(&mut conn)
        .await
        .unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("work_by_study"), "{plan}");
    assert!(!plan.contains("Seq Scan on work") && !plan.contains("hashed"), "{plan}");
}

/// Axes of 600 seeds and what the study has.
fn many_seeds() -> String {
    let seeds: Vec<String> = (0..600).map(|seed| seed.to_string()).collect();
    let seeds = seeds.join(", ");
    format!("        axes:\n          - {{name: seed, field: training.seed, values: [{seeds}]}}\n")
}

async fn connect(server: &Server) -> PgConnection {
    PgConnection::connect(&server.url()).await.unwrap()
}

/// The server ends the leader's session, as it does when the network between them is cut for long.
async fn end_leading_session(conn: &mut PgConnection) {
    sqlx::query(
        "SELECT pg_terminate_backend(pid)
FROM pg_locks
WHERE locktype = 'advisory' AND granted",
    )
    .execute(conn)
    .await
    .unwrap();
}

/// By table, its columns with whether they may be absent.
type Schema = BTreeMap<String, BTreeSet<(String, bool)>>;

async fn schema(conn: &mut PgConnection) -> Schema {
    let rows = sqlx::query(
        "SELECT table_name::text, column_name::text, is_nullable = 'YES'
FROM information_schema.columns
WHERE table_schema = 'public' AND table_name <> '_sqlx_migrations'",
    )
    .fetch_all(conn)
    .await
    .unwrap();
    let mut schema = Schema::new();
    for row in rows {
        schema.entry(row.get(0)).or_default().insert((row.get(1), row.get(2)));
    }
    schema
}

async fn schema_of_sqlite() -> Schema {
    let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    sqlite::MIGRATIONS.run_direct(None, &mut conn, false).await.unwrap();
    let rows = sqlx::query(
        "SELECT tables.name, columns.name, columns.\"notnull\" = 0 AND columns.pk = 0
FROM sqlite_schema AS tables
JOIN pragma_table_info(tables.name) AS columns
WHERE tables.type = 'table' AND tables.name NOT LIKE '_sqlx%' AND tables.name NOT LIKE 'sqlite_%'",
    )
    .fetch_all(&mut conn)
    .await
    .unwrap();
    let mut schema = Schema::new();
    for row in rows {
        schema.entry(row.get(0)).or_default().insert((row.get(1), row.get(2)));
    }
    schema
}

#[tokio::test]
async fn migrations_go_up_down_and_up_again_and_make_the_tables_of_sqlite() {
    let Some(server) = Server::start(Disk::Unsynced) else { return };
    let mut conn = connect(&server).await;
    postgres::MIGRATIONS.run_direct(None, &mut conn, false).await.unwrap();
    let first = schema(&mut conn).await;
    assert_eq!(first, schema_of_sqlite().await);
    postgres::MIGRATIONS.undo(&mut conn, 0).await.unwrap();
    assert_eq!(schema(&mut conn).await, Schema::new());
    postgres::MIGRATIONS.run_direct(None, &mut conn, false).await.unwrap();
    assert_eq!(schema(&mut conn).await, first);
}

/// Aim: a store of an older build keeps its points. Method: a store goes back to the schema of rows,
/// gets some for two attempts, and is opened again.
#[tokio::test]
async fn points_of_an_older_build_are_packed() {
    let Some(server) = Server::start(Disk::Unsynced) else { return };
    let fixture = Fixture::new((open(&server).await, Box::new(())));
    fixture.prepared().await;
    fixture.store.close().await;
    let mut conn = connect(&server).await;
    postgres::MIGRATIONS.undo(&mut conn, 3).await.unwrap();
    let run = old_points::run();
    for row in old_points::rows() {
        let insert = "INSERT INTO points (run_id, attempt, name, step, value)
VALUES ($1, $2, $3, $4, $5)";
        sqlx::query(insert)
            .bind(run.as_str())
            .bind(row.attempt)
            .bind(row.name)
            .bind(row.step)
            .bind(row.value)
            .execute(&mut conn)
            .await
            .unwrap();
    }
    let store = open(&server).await;
    old_points::check(&store).await;
    store.close().await;
    assert!(postgres::MIGRATIONS.undo(&mut conn, 3).await.is_err(), "chunks stay");
    // The session still has the lock on migrations.
    conn.close().await.unwrap();
    old_points::check(&open(&server).await).await;
}

#[test]
fn both_databases_have_the_same_migrations() {
    let numbers = |migrations: &sqlx::migrate::Migrator| -> Vec<(i64, String)> {
        migrations.iter().map(|m| (m.version, m.description.to_string())).collect()
    };
    assert_eq!(numbers(&sqlite::MIGRATIONS), numbers(&postgres::MIGRATIONS));
}

/// Aim: of two coordinators one leads, and the other takes over what it left. Method: both open one
/// database; the first leaves in order, and the second finds its leases.
#[tokio::test]
async fn a_standby_takes_over_when_the_leader_leaves() {
    let Some(server) = Server::start(Disk::Unsynced) else { return };
    let first = Fixture::new((open(&server).await, Box::new(())));
    let second = open(&server).await;
    assert!(first.store.is_leading());
    assert!(!second.is_leading());
    let refused = second.record_source(&source()).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotLeading), "{refused:?}");
    assert!(!second.try_to_lead().await.unwrap());
    let worker = first.prepared().await;
    let granted = first.grant_first(&worker).await;
    assert_eq!(second.live_leases().await.unwrap().len(), 1, "a standby sees what the leader did");

    let ((), ()) = tokio::join!(first.store.close(), second.wait_to_lead(Duration::from_secs(1)));
    assert!(second.try_to_lead().await.unwrap());
    assert_eq!(second.live_leases().await.unwrap()[0].token, granted.token);
    assert!(second.assignment(granted.token).await.unwrap().is_some());
}

/// Aim: a standby leads as soon as the leader leaves, by one listener that it keeps. Method: it would
/// else look only after a minute; the server says who listens.
#[tokio::test]
async fn a_standby_is_woken_when_the_leader_leaves() {
    let Some(server) = Server::start(Disk::Unsynced) else { return };
    let first = open(&server).await;
    let second = open(&server).await;
    let mut conn = connect(&server).await;
    let listening = "SELECT pid FROM pg_stat_activity WHERE query ILIKE 'listen %' ORDER BY pid";
    second.wait_to_lead(Duration::from_millis(200)).await;
    let wait = second.wait_to_lead(Duration::from_mins(1));
    let leave = async {
        let mut listeners: Vec<i32> = Vec::new();
        while listeners.len() != 1 {
            listeners = sqlx::query_scalar(listening).fetch_all(&mut conn).await.unwrap();
        }
        first.close().await;
    };
    let woken = async { tokio::join!(wait, leave) };
    tokio::time::timeout(Duration::from_secs(5), Box::pin(woken)).await.expect("it is told");
    assert!(second.try_to_lead().await.unwrap());
}

/// Aim: a deposed leader's writes are refused. Method: the server ends the leader's session; a standby
/// leads; the first one writes.
#[tokio::test]
async fn a_deposed_leader_writes_nothing() {
    let Some(server) = Server::start(Disk::Unsynced) else { return };
    let first = Fixture::new((open(&server).await, Box::new(())));
    let worker = first.prepared().await;
    let second = open(&server).await;
    end_leading_session(&mut connect(&server).await).await;
    while !second.try_to_lead().await.unwrap() {
        tokio::task::yield_now().await;
    }
    let work = second.queue_head(1, None).await.unwrap().work.remove(0).work;
    let by_second = second.grant(&[placement(&work, &worker)]).await.unwrap();
    assert_eq!(by_second.len(), 1);
    // Its connection does not say so before it writes, but the database does when it is asked.
    let asked = tokio::time::timeout(Duration::from_mins(1), first.store.right_is_lost());
    asked.await.expect("it holds the lock no longer");
    let kept = tokio::time::timeout(Duration::from_secs(7), second.right_is_lost());
    kept.await.expect_err("that one holds it");
    let by_first = first.store.grant(&[placement(&work, &worker)]).await;
    assert!(by_first.is_err(), "{by_first:?}");
    first.store.lead_is_over().await;
    assert!(!first.store.is_leading());
    assert!(!first.store.try_to_lead().await.unwrap());
    assert_eq!(second.live_leases().await.unwrap().len(), 1);
}

/// Aim: what was acknowledged outlives a crash of the server, and the coordinator leads again.
#[tokio::test]
async fn a_crash_of_the_server_loses_nothing_that_was_acknowledged() {
    let Some(mut server) = Server::start(Disk::Synced) else { return };
    let fixture = Fixture::new((open(&server).await, Box::new(())));
    let worker = fixture.prepared().await;
    let granted = fixture.grant_first(&worker).await;
    server.crash();
    let lost = fixture.store.register_worker(registration("w_9", "machine", 9)).await;
    assert!(lost.is_err(), "{lost:?}");
    fixture.store.lead_is_over().await;
    server.start_again();
    while !matches!(fixture.store.try_to_lead().await, Ok(true)) {
        tokio::task::yield_now().await;
    }
    let leases = fixture.store.live_leases().await.unwrap();
    assert_eq!(leases.iter().map(|lease| lease.token).collect::<Vec<_>>(), [granted.token]);
    let next = fixture.grant_first(&worker).await;
    assert!(next.token > granted.token);
}

/// Aim: a server that vanishes without a word keeps no standby waiting for ever. Method: a server that
/// greets, hears a question and says nothing more.
#[tokio::test]
async fn a_server_that_falls_silent_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (greeted, has_greeted) = tokio::sync::oneshot::channel();
    let server = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        // The length of the startup message, and the message.
        let length = client.read_u32().await.unwrap() as usize;
        client.read_exact(&mut vec![0; length - 4]).await.unwrap();
        // Whoever asks is welcome, and the server is ready.
        client.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
        assert!(client.read_u8().await.is_ok(), "something is asked");
        greeted.send(client).unwrap();
    });
    let url = format!("postgres://gradus@{address}/gradus?sslmode=disable");
    let leading = tokio::spawn(async move { postgres::lead(&url).await });
    let _silent = has_greeted.await.unwrap();
    server.await.unwrap();
    let error = leading.await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::ConnectionLost(_)), "{error}");
}

/// Aim: a take-over whose reads hang ends with the lead, and the coordinator may try again. Method: the
/// table that it reads is locked by another, and the server ends the leader's session meanwhile.
#[tokio::test]
async fn a_take_over_that_hangs_ends_with_the_lead() {
    let Some(server) = Server::start(Disk::Unsynced) else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::for_directory(folder.path());
    config.database = Location::Postgres(server.url());
    let surroundings = Surroundings {
        clock: Clock::system(),
        random: Random::system(),
        artifacts: Artifacts::in_memory(),
    };
    let app = build_in(config, surroundings).await.unwrap();
    assert!(app.store.is_leading());
    let mut conn = connect(&server).await;
    let mut locking = conn.begin().await.unwrap();
    let lock = "LOCK TABLE workers IN ACCESS EXCLUSIVE MODE";
    sqlx::query(lock).execute(&mut *locking).await.unwrap();
    end_leading_session(&mut locking).await;
    let error = ensure_lead(&app).await.unwrap_err();
    assert!(matches!(error, StoreError::ConnectionLost(_)), "{error}");
    assert!(!app.store.is_leading());
    assert!(!app.leader.has_taken_over());
    locking.rollback().await.unwrap();
    assert!(ensure_lead(&app).await.unwrap());
}
