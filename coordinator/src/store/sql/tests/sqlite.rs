//! The suite on SQLite, and what only a file has: migrations, locks, read-only readers, restarts.

use std::any::Any;
use std::collections::BTreeSet;
use std::path::Path;

use domain::attempt::AttemptEnd;
use domain::worker::WorkerState;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::super::finish::{BACKOFFS, LEASES_OF_WORKER};
use super::super::grant::LIVE_LEASES;
use super::super::pause::HELD_LEASES;
use super::super::queue::{BUSY, WANTING};
use super::super::sqlite::{MIGRATIONS, open_to_write};
use super::super::*;
use super::old_points;
use crate::changes_channel;
use crate::store::conformance::conformance;
use crate::store::conformance::fixture::{Fixture, study};
use crate::store::{LogLevel, StoreError};

async fn made() -> Option<(SqlStore, Box<dyn Any + Send + Sync>)> {
    let directory = tempfile::tempdir().unwrap();
    let store = open_in(directory.path()).await.unwrap();
    Some((store, Box::new(directory)))
}

async fn open_in(directory: &Path) -> Result<SqlStore, StoreError> {
    SqlStore::open(&location(directory), Clock::system(), changes_channel()).await
}

fn location(directory: &Path) -> Location {
    Location::Sqlite(directory.join("store.db"))
}

conformance!(made);

async fn memory() -> SqliteConnection {
    SqliteConnection::connect("sqlite::memory:").await.unwrap()
}

async fn schema(conn: &mut SqliteConnection) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT sql
FROM sqlite_schema
WHERE sql IS NOT NULL AND name NOT LIKE '_sqlx%' AND name NOT LIKE 'sqlite_%'
ORDER BY name",
    )
    .fetch_all(conn)
    .await
    .unwrap()
}

/// Aim: what is acknowledged survives the loss of power, and views do not wait for the writer.
#[tokio::test]
async fn the_writer_syncs_every_commit_to_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let (mut writer, _lock) = open_to_write(&path).await.unwrap();
    let synchronous: i64 =
        sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut writer).await.unwrap();
    let journal: String =
        sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut writer).await.unwrap();
    assert_eq!((synchronous, journal.as_str()), (2, "wal"));
}

/// How SQLite carries a statement out, step by step.
async fn steps_of(conn: &mut SqliteConnection, statement: &str) -> Vec<String> {
    let plan: Vec<(i64, i64, i64, String)> =
        sqlx::query_as(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")))
            .fetch_all(conn)
            .await
            .unwrap();
    plan.into_iter().map(|(_, _, _, step)| step).collect()
}

/// Aim: what every tick asks across all studies reads what is in hand, and not the queues beside it.
#[tokio::test]
async fn what_a_tick_asks_of_all_work_reads_small_indexes() {
    let mut conn = memory().await;
    MIGRATIONS.run_direct(None, &mut conn, false).await.unwrap();
    let leased = [LIVE_LEASES, HELD_LEASES, LEASES_OF_WORKER, BUSY];
    for (statement, index) in
        leased.map(|text| (text, "work_leased")).into_iter().chain([(BACKOFFS, "work_backing_off")])
    {
        let steps = steps_of(&mut conn, statement).await;
        let of_work = |step: &&String| {
            ["SCAN work", "SCAN w ", "SEARCH work", "SEARCH w "]
                .iter()
                .any(|of| step.starts_with(of))
        };
        assert!(steps.iter().any(|step| step.contains(index)), "{statement}: {steps:?}");
        for step in steps.iter().filter(of_work) {
            let by_token = step.contains("(lease_token=?)");
            assert!(step.contains(index) || by_token, "{statement}: {steps:?}");
        }
    }
}

/// Aim: which studies have something queued is read off the first entry of an index, without a sort.
#[tokio::test]
async fn whether_a_study_has_something_queued_is_read_off_an_index() {
    let mut conn = memory().await;
    MIGRATIONS.run_direct(None, &mut conn, false).await.unwrap();
    let steps = steps_of(&mut conn, WANTING).await;
    let by = |index: &str| steps.iter().filter(|step| step.contains(index)).count();
    assert!(by("work_by_study") >= 2 && by("work_to_evaluate") >= 2, "{steps:?}");
    assert!(!steps.iter().any(|step| step.contains("SCAN work") || step.contains("TEMP B-TREE")));
}

#[tokio::test]
async fn migrations_go_up_down_and_up_again() {
    let mut conn = memory().await;
    MIGRATIONS.run_direct(None, &mut conn, false).await.unwrap();
    let first = schema(&mut conn).await;
    assert!(!first.is_empty());
    MIGRATIONS.undo(&mut conn, 0).await.unwrap();
    assert_eq!(schema(&mut conn).await, Vec::<String>::new());
    MIGRATIONS.run_direct(None, &mut conn, false).await.unwrap();
    assert_eq!(schema(&mut conn).await, first);
}

/// Aim: a store of an older build keeps its points. Method: a store goes back to the schema of rows,
/// gets some for two attempts, and is opened again; then it has chunks and goes back no more.
#[tokio::test]
async fn points_of_an_older_build_are_packed() {
    let directory = tempfile::tempdir().unwrap();
    let fixture = Fixture::new((open_in(directory.path()).await.unwrap(), Box::new(())));
    fixture.prepared().await;
    fixture.store.close().await;
    drop(fixture);
    let url = format!("sqlite:{}", directory.path().join("store.db").display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    MIGRATIONS.undo(&mut conn, 3).await.unwrap();
    let run = old_points::run();
    for row in old_points::rows() {
        let insert = "INSERT INTO points (run_id, attempt, name, step, value)
VALUES (?, ?, ?, ?, ?)";
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
    MIGRATIONS.run_direct(None, &mut conn, false).await.unwrap();
    let unpacked = SqlStore::open_read_only(&location(directory.path())).await.unwrap_err();
    assert!(matches!(unpacked, StoreError::OldPoints { .. }), "{unpacked:?}");

    old_points::check(&reopened(directory.path()).await).await;
    assert!(MIGRATIONS.undo(&mut conn, 3).await.is_err(), "chunks cannot become rows again");
    old_points::check(&reopened(directory.path()).await).await;
}

/// The quoted words of a column's `IN` list.
fn labels(schema: &str, column: &str) -> BTreeSet<String> {
    let start = schema.find(&format!("{column} IN")).unwrap();
    let list = schema[start..].split(')').next().unwrap();
    list.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
}

fn set<'a>(labels: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    labels.into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_labels_of_the_schema_are_those_of_the_domain() {
    let mut conn = memory().await;
    MIGRATIONS.run_direct(None, &mut conn, false).await.unwrap();
    let schema = schema(&mut conn).await;
    let table = |name: &str| {
        let start = format!("CREATE TABLE {name} ");
        schema.iter().find(|sql| sql.starts_with(&start)).unwrap().as_str()
    };
    assert_eq!(labels(table("work"), "state"), set(domain::run::LABELS));
    assert_eq!(labels(table("work"), "kind"), set(["run", "evaluation", "preparation"]));
    let ends = AttemptEnd::ALL.map(AttemptEnd::label);
    assert_eq!(labels(table("attempts"), "ended_as"), set(ends));
    let states = domain::attempt::HOLDS_LEASE.into_iter().chain(["ended"]);
    assert_eq!(labels(table("attempts"), "state"), set(states));
    let states = WorkerState::ALL.map(WorkerState::label);
    assert_eq!(labels(table("workers"), "state"), set(states));
    assert_eq!(labels(table("log_lines"), "level"), set(LogLevel::ALL.map(LogLevel::label)));
}

#[tokio::test]
async fn a_second_coordinator_is_turned_away() {
    let directory = tempfile::tempdir().unwrap();
    let first = open_in(directory.path()).await.unwrap();
    assert!(matches!(open_in(directory.path()).await, Err(StoreError::InUse { .. })));
    first.close().await;
    drop(first);
    open_in(directory.path()).await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("store.db"), "x".repeat(4096)).unwrap();
    let error = open_in(directory.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error:?}");
    let error = SqlStore::open_read_only(&location(directory.path())).await.unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error:?}");
}

#[tokio::test]
async fn a_store_of_a_newer_build_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let store = open_in(directory.path()).await.unwrap();
    store.close().await;
    drop(store);
    let log = std::fs::metadata(directory.path().join("store.db-wal"));
    assert_eq!(log.map_or(0, |log| log.len()), 0, "the log is folded into the file");
    let url = format!("sqlite:{}", path.display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
VALUES (9999, 'from the future', 1, x'00', 0)",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    conn.close().await.unwrap();
    let error = open_in(directory.path()).await.unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 9999, .. }), "{error:?}");
    let error = SqlStore::open_read_only(&location(directory.path())).await.unwrap_err();
    assert!(matches!(error, StoreError::NewerSchema { found: 9999, .. }), "{error:?}");
}

#[tokio::test]
async fn a_reader_sees_what_a_coordinator_writes_and_what_one_left() {
    let directory = tempfile::tempdir().unwrap();
    let absent = SqlStore::open_read_only(&location(directory.path())).await.unwrap_err();
    assert!(matches!(absent, StoreError::Absent { .. }), "{absent:?}");
    let store = open_in(directory.path()).await.unwrap();
    let reader = SqlStore::open_read_only(&location(directory.path())).await.unwrap();
    assert!(reader.live_workers().await.unwrap().is_empty());
    let worker = crate::store::conformance::fixture::registration("w_1", "machine", 1);
    store.register_worker(worker.clone()).await.unwrap();
    assert_eq!(reader.live_workers().await.unwrap().len(), 1);
    store.close().await;
    drop(store);
    reader.close().await;
    let reader = SqlStore::open_read_only(&location(directory.path())).await.unwrap();
    assert_eq!(reader.live_workers().await.unwrap().len(), 1);
    assert!(matches!(reader.register_worker(worker).await, Err(StoreError::ReadOnly)));
}

/// Aim: a coordinator that is killed loses and doubles nothing. Method: the store is dropped with
/// live leases and opened again; the same leases are live, and their holders may report.
#[tokio::test]
async fn a_restart_keeps_the_live_leases() {
    use crate::store::conformance::fixture::placement;
    let directory = tempfile::tempdir().unwrap();
    let fixture = Fixture::new((open_in(directory.path()).await.unwrap(), Box::new(())));
    let worker = fixture.prepared().await;
    let works = fixture.queued_ids().await;
    let granted = fixture.store.grant(&[placement(&works[0], &worker)]).await.unwrap();
    let leases = fixture.store.live_leases().await.unwrap();
    drop(fixture);

    let store = reopened(directory.path()).await;
    assert_eq!(store.live_leases().await.unwrap(), leases);
    assert_eq!(store.live_workers().await.unwrap()[0].worker, worker);
    assert!(store.grant(&[placement(&works[0], &worker)]).await.unwrap().is_empty());
    assert!(store.assignment(granted[0].token).await.unwrap().is_some());
    let next = store.grant(&[placement(&works[1], &worker)]).await.unwrap();
    assert!(next[0].token > granted[0].token);
}

/// The writer's task lets go of the file a moment after the store was dropped.
async fn reopened(directory: &Path) -> SqlStore {
    loop {
        match open_in(directory).await {
            Ok(store) => return store,
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test]
async fn events_are_announced_after_their_commit_and_in_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let changes = changes_channel();
    let mut heard = changes.subscribe();
    let path = location(directory.path());
    let store = SqlStore::open(&path, Clock::system(), changes).await.unwrap();
    store.apply_study(study(&[])).await.unwrap();
    assert!(heard.try_recv().is_err(), "a refused study is no event");
    let source = crate::store::conformance::fixture::source();
    store.record_source(&source).await.unwrap();
    store.apply_study(study(&[])).await.unwrap();
    store.close().await;
    let mut kinds = Vec::new();
    let mut last_id = 0;
    while let Ok(event) = heard.try_recv() {
        assert!(event.id > last_id);
        last_id = event.id;
        kinds.push(event.kind);
    }
    assert_eq!(kinds, ["preparation_queued", "run_planned", "run_planned", "study_applied"]);
}

/// Aim: a part of a curve costs what lies in it. Method: the first chunk is damaged, so that whoever
/// reads it fails.
#[tokio::test]
async fn a_part_of_a_curve_reads_no_other_chunks() {
    use crate::store::conformance::fixture::{point, run_of};
    use crate::store::read::{ALL_STEPS, CurveQuery, CurveScope, ReadError, ReadStore as _};
    let directory = tempfile::tempdir().unwrap();
    let fixture = Fixture::new((open_in(directory.path()).await.unwrap(), Box::new(())));
    let worker = fixture.prepared().await;
    let granted = fixture.grant_first(&worker).await;
    for steps in [1..=600, 601..=1_200] {
        let points = steps.map(|step| point(step, step as f64)).collect();
        fixture.store.report(granted.token, points).await.unwrap();
    }
    let url = format!("sqlite:{}", directory.path().join("store.db").display());
    let mut conn = SqliteConnection::connect(&url).await.unwrap();
    let damage = "UPDATE point_chunks SET bytes = x'00' WHERE first_step = 1";
    assert_eq!(sqlx::query(damage).execute(&mut conn).await.unwrap().rows_affected(), 1);
    let curves = async |steps| {
        let scope = CurveScope::Run(run_of(&granted.work));
        let query =
            CurveQuery { scope, series: "train_loss_nats".into(), max_points: 9_999, steps };
        fixture.store.curves(&query).await
    };
    let part = curves(700..=1_100).await.unwrap().curves.remove(0);
    assert_eq!(part.steps, (700..=1_100).collect::<Vec<u64>>());
    for steps in [ALL_STEPS, 600..=700] {
        let error = curves(steps).await.unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { .. }), "{error:?}");
    }
}
