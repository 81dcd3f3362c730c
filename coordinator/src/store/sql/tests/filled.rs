//! A store that has something of everything goes back to an older schema and comes again: nothing is
//! lost but what the older schema has no place for.

use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, FitId};
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use sqlx::sqlite::SqliteConnection;
use test_postgres::{Disk, Server};

use super::super::copy::{Dump, dump};
use super::super::{postgres, sqlite};
use super::copy::{fill, open};
use crate::scheduler::policy::Placement;
use crate::store::conformance::fixture::{Fixture, placement, study_named};
use crate::store::conformance::trunks::{runs, shared, work};
use crate::store::{FitToSave, Location, SqlStore, Store as _};

/// The oldest schema with points in chunks; one before it takes none back.
const OLDEST: i64 = 4;

/// What schema 4 has no column for; these begin anew with what their migrations say.
const NO_COLUMN: [(&str, &[&str]); 8] = [
    ("studies", &["weight", "user_name", "budget_flops", "placement_json", "log_rules_json"]),
    ("work", &["excluded_json"]),
    ("runs", &["memory_bytes"]),
    ("workers", &["labels_json", "instance"]),
    ("events", &["actor"]),
    ("attempts", &["world_size"]),
    ("checkpoints", &["failed_attempt", "failed_run_id"]),
    ("fits", &["inputs_json", "summary_json"]),
];

/// A run with points, a gang, a trunk whose first run failed on a machine, and a fit.
async fn fill_all(f: &Fixture<SqlStore>) {
    let begun = fill(f).await;
    let other = f.worker().await;
    let queued = f.queued_ids().await.into_iter().find(|queued| queued.kind() == "run").unwrap();
    let workers = vec![begun.worker.clone(), other];
    let gang = Placement { work: queued, workers, passes: None };
    assert_eq!(f.store.grant(&[gang]).await.unwrap()[0].members.len(), 1);

    let mut trunks = shared();
    trunks.push(("name: tiny", "name: trunks"));
    f.apply(&trunks).await;
    let [(short, ..), ..] = runs();
    let failed = f.store.grant(&[placement(&work(&short), &begun.worker)]).await.unwrap();
    f.finish(failed[0].token, AttemptEnd::Bug).await;

    let inputs_hash = ContentHash::of(b"inputs");
    let fit = FitToSave {
        id: FitId::from_hash(&inputs_hash),
        study: study_named("tiny"),
        inputs_hash,
        inputs_json: "[1]".into(),
        report_json: "{}".into(),
        summary_json: String::new(),
    };
    f.store.save_fit(fit).await.unwrap();
}

/// What must come back, out of what was there.
fn without_what_is_lost(mut rows: Dump) -> Dump {
    for (table, columns) in NO_COLUMN {
        for row in rows.get_mut(table).unwrap() {
            for column in columns {
                assert!(row.remove(*column).is_some(), "`{table}` has no `{column}`");
            }
        }
    }
    // They were in the order of all their columns.
    for rows in rows.values_mut() {
        rows.sort();
    }
    for table in ["members", "trunks"] {
        rows.insert(table.to_owned(), Vec::new());
    }
    rows
}

/// Without trunks a run trains all of its steps, and waits for its data only.
fn without_trunks(mut rows: Dump) -> Dump {
    let runs = rows["runs"].clone();
    let mut n_changed = 0;
    for row in rows.get_mut("work").unwrap() {
        if row["state"] == text("waiting") && row["kind"] == text("run") {
            let run = runs.iter().find(|run| run["id"] == row["id"]).unwrap();
            row.insert("state".to_owned(), text("queued"));
            row.insert("cost_flops".to_owned(), run["flops_exact"].clone());
            n_changed += 1;
        }
    }
    assert_eq!(n_changed, 2, "two runs waited for the trunk");
    rows
}

fn text(value: &str) -> String {
    format!("Text(Some({value:?}))")
}

/// Fills a store, has its schema go back and come again, and looks.
async fn check(location: &Location, there_and_back: impl AsyncFnOnce()) {
    let fixture = Fixture::new((open(location).await, Box::new(())));
    fill_all(&fixture).await;
    fixture.store.close().await;
    let before = dump(location).await.unwrap();
    for (table, rows) in &before {
        let is_filled = !rows.is_empty() || table == "points" || table == "dropped_cells";
        assert!(is_filled, "nothing in `{table}`");
    }
    let is_set = |table: &str, column: &str, unset: &str| {
        assert!(before[table].iter().any(|row| !row[column].contains(unset)), "{table}.{column}");
    };
    is_set("work", "excluded_json", "\"{}\"");
    is_set("studies", "spent_flops", "(0.0)");

    there_and_back().await;
    let after = dump(location).await.unwrap();
    let expected = without_what_is_lost(without_trunks(before));
    let found = without_what_is_lost(after.clone());
    for (table, rows) in &expected {
        assert_eq!(&found[table], rows, "`{table}` is not what it was");
    }
    assert!(after["members"].is_empty() && after["trunks"].is_empty());
    let fixture = Fixture::new((open(location).await, Box::new(())));
    fixture.check().await;
    fixture.store.close().await;
}

#[tokio::test]
async fn a_filled_store_on_sqlite_goes_back_and_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let url = format!("sqlite:{}", path.display());
    check(&Location::Sqlite(path), async || {
        let mut conn = SqliteConnection::connect(&url).await.unwrap();
        sqlite::MIGRATIONS.undo(&mut conn, OLDEST).await.unwrap();
        sqlite::MIGRATIONS.run_direct(None, &mut conn, false).await.unwrap();
        conn.close().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_filled_store_on_postgres_goes_back_and_comes_again() {
    let Some(server) = Server::start(Disk::Unsynced) else { return };
    check(&Location::Postgres(server.url()), async || {
        let mut conn = PgConnection::connect(&server.url()).await.unwrap();
        postgres::MIGRATIONS.undo(&mut conn, OLDEST).await.unwrap();
        postgres::MIGRATIONS.run_direct(None, &mut conn, false).await.unwrap();
        conn.close().await.unwrap();
    })
    .await;
}
