//! A store copied from one database to the other and back, and what is copied from under a writer.

use std::collections::BTreeSet;
use std::path::Path;

use test_postgres::{Disk, Server};

use super::super::copy::{Dump, copy, dump, plan_copy, table_names};
use crate::changes_channel;
use crate::clock::Clock;
use crate::store::conformance::fixture::{Fixture, checkpoint, placement, point};
use crate::store::read::ReadStore;
use crate::store::{
    Granted, Location, LogLevel, ReportEvent, Reported, SqlStore, Store, StoreError,
};

pub(super) async fn open(location: &Location) -> SqlStore {
    loop {
        match SqlStore::open(location, Clock::system(), changes_channel()).await {
            Ok(store) => return store,
            // The lock of a store that was closed goes a moment later.
            Err(StoreError::InUse { .. }) => tokio::task::yield_now().await,
            Err(error) => panic!("{error:?}"),
        }
    }
}

fn file(folder: &Path, name: &str) -> Location {
    Location::Sqlite(folder.join(name))
}

fn log(at_ms: i64) -> ReportEvent {
    ReportEvent::Log { at_ms, level: LogLevel::Warn, text: format!("line {at_ms}") }
}

/// A run in the middle of its work, with points in chunks and in a tail.
pub(super) async fn fill(f: &Fixture<SqlStore>) -> Granted {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    let mut events: Vec<ReportEvent> =
        (1..=600).map(|step| point(step, 0.1 * step as f64)).collect();
    events.extend([point(601, f64::NAN), checkpoint(20, true), log(1), log(2)]);
    f.store.report(granted.token, events).await.unwrap();
    f.report(granted.token, point(602, 1.0)).await;
    granted
}

/// All rows that are copied as they are.
async fn rows(location: &Location) -> Dump {
    let mut rows = dump(location).await.unwrap();
    assert_eq!(rows.remove("lease_tokens").map(|tokens| tokens.len()), Some(1));
    rows
}

#[tokio::test]
async fn every_table_is_copied() {
    let folder = tempfile::tempdir().unwrap();
    let store = file(folder.path(), "store.db");
    open(&store).await.close().await;
    let names = "SELECT name
FROM sqlite_schema
WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '_sqlx%'";
    let readers = super::super::connect_to_read(&store, 1).await.unwrap();
    let tables: Vec<String> = super::super::query_scalar(names).fetch_all(&readers).await.unwrap();
    assert_eq!(table_names(), tables.into_iter().collect::<BTreeSet<_>>());
}

/// Aim: a store may go to the other database and come back as it was. Method: both copies have the
/// same rows, and a coordinator goes on with the first one where the source stopped.
#[tokio::test]
async fn a_store_goes_to_the_other_database_and_comes_back() {
    let Some(server) = Server::start(Disk::Unsynced) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (source, back) = (file(folder.path(), "store.db"), file(folder.path(), "back.db"));
    let on_server = Location::Postgres(server.url());
    let fixture = Fixture::new((open(&source).await, Box::new(())));
    let granted = fill(&fixture).await;
    fixture.store.close().await;

    let planned = plan_copy(&source, &on_server).await.unwrap();
    let copied = copy(&source, &on_server).await.unwrap();
    assert_eq!(planned, copied);
    assert!(copied.iter().any(|table| table.name == "point_chunks" && table.n_rows > 0));
    assert_eq!(copied, copy(&on_server, &back).await.unwrap());
    let expected = rows(&source).await;
    assert_eq!(rows(&on_server).await, expected);
    assert_eq!(rows(&back).await, expected);

    for location in [on_server, back] {
        let moved = Fixture::new((open(&location).await, Box::new(())));
        let last_event = moved.store.last_event_id().await.unwrap();
        moved.report(granted.token, log(3)).await;
        let worker = moved.store.live_workers().await.unwrap().remove(0).worker;
        let work = moved.queued_ids().await.remove(0);
        let next = moved.store.grant(&[placement(&work, &worker)]).await.unwrap().remove(0);
        assert!(next.token > granted.token);
        assert!(moved.store.last_event_id().await.unwrap() > last_event);
        moved.store.close().await;
    }
}

/// Aim: what a worker holds of a store that went on after its backup is worth nothing in what is
/// restored from that. Method: the source grants more after the copy was taken; a report under that
/// token, and one of a copy of the copy, is stale, and no token of the copy is one that the source
/// gives.
#[tokio::test]
async fn a_restored_store_gives_no_token_that_its_source_gave_after_the_backup() {
    let folder = tempfile::tempdir().unwrap();
    let (source, backup) = (file(folder.path(), "store.db"), file(folder.path(), "backup.db"));
    let restored = file(folder.path(), "restored.db");
    let fixture = Fixture::new((open(&source).await, Box::new(())));
    let before = fill(&fixture).await;
    copy(&source, &backup).await.unwrap();
    copy(&backup, &restored).await.unwrap();
    let grant = async |f: &Fixture<SqlStore>| {
        let worker = f.store.live_workers().await.unwrap().remove(0).worker;
        let work = f.queued_ids().await.remove(0);
        f.store.grant(&[placement(&work, &worker)]).await.unwrap().remove(0)
    };
    let lost = grant(&fixture).await;
    assert_eq!(lost.token.0, before.token.0 + 1);
    let moved = Fixture::new((open(&restored).await, Box::new(())));
    let granted = grant(&moved).await;
    assert!(granted.token.0 > lost.token.0 + (1 << 32), "{granted:?}");
    assert_eq!(moved.report(lost.token, point(1, 7.0)).await, Reported::Stale);
    // What was granted before the backup goes on.
    assert_ne!(moved.report(before.token, log(9)).await, Reported::Stale);
    moved.check().await;
    moved.store.close().await;
    fixture.store.close().await;
}

/// Aim: a copy is one state of the store. Method: it is taken while reports are stored, each with a
/// point, a line and a second point; the copy has as many of each and keeps every invariant.
#[tokio::test]
async fn a_copy_from_under_a_writer_is_consistent() {
    let folder = tempfile::tempdir().unwrap();
    let source = file(folder.path(), "store.db");
    let fixture = Fixture::new((open(&source).await, Box::new(())));
    let granted = fill(&fixture).await;
    let is_copied = tokio_util::sync::CancellationToken::new();
    let writing = async {
        for number in 1_000.. {
            if is_copied.is_cancelled() {
                break;
            }
            let step = u64::try_from(number).unwrap();
            let events = vec![point(step, 1.0), log(number)];
            fixture.store.report(granted.token, events).await.unwrap();
        }
    };
    let copying = async {
        let mut copies = Vec::new();
        for number in 0..5 {
            let target = file(folder.path(), &format!("copy-{number}.db"));
            copy(&source, &target).await.unwrap();
            copies.push(target);
        }
        is_copied.cancel();
        copies
    };
    let ((), copies) = tokio::join!(writing, copying);
    let mut n_seen = 0;
    for location in copies {
        let copied = Fixture::new((open(&location).await, Box::new(())));
        copied.check().await;
        let domain::ids::WorkId::Run(run) = &granted.work else { panic!("a run was granted") };
        let points = copied.store.points(run, "train_loss_nats").await.unwrap();
        let lines = copied.store.logs(run, 0, u32::MAX).await.unwrap().lines;
        assert_eq!(points.len() - 602, lines.len() - 2);
        assert!(points.len() >= n_seen, "a later copy has no less");
        n_seen = points.len();
        copied.store.close().await;
    }
    fixture.check().await;
}

#[tokio::test]
async fn a_target_that_is_there_is_refused_and_left() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (file(folder.path(), "store.db"), file(folder.path(), "there.db"));
    open(&source).await.close().await;
    std::fs::write(folder.path().join("there.db"), "mine").unwrap();
    let names = |error: &StoreError| error.to_string().contains("there.db");
    let planned = plan_copy(&source, &target).await.unwrap_err();
    assert!(matches!(planned, StoreError::NotEmpty { .. }) && names(&planned), "{planned}");
    let refused = copy(&source, &target).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotEmpty { .. }) && names(&refused), "{refused}");
    assert_eq!(std::fs::read(folder.path().join("there.db")).unwrap(), b"mine");
    let absent = copy(&file(folder.path(), "nothing.db"), &target).await.unwrap_err();
    assert!(matches!(absent, StoreError::Absent { .. }), "{absent}");
    let left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("partial")), "{left:?}");

    let Some(server) = Server::start(Disk::Unsynced) else { return };
    let on_server = Location::Postgres(server.url());
    let fixture = Fixture::new((open(&on_server).await, Box::new(())));
    fill(&fixture).await;
    let before = rows(&on_server).await;
    let refused = copy(&source, &on_server).await.unwrap_err();
    assert!(matches!(refused, StoreError::NotEmpty { .. }), "{refused}");
    assert_eq!(rows(&on_server).await, before);
}
