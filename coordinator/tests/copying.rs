//! `gradus-coordinator store copy` as `gradus store` starts it.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail as tests do")]

use std::path::Path;
use std::process::{Command, Output};

use api::StoreCopyView;
use coordinator::clock::Clock;
use coordinator::store::{Artifact, Location, SqlStore, Store as _};
use domain::ids::ContentHash;

fn store_copy(folder: &Path, from: &str, to: &str, flags: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradus-coordinator"))
        .current_dir(folder)
        .args(["store", "copy", "--from", from, "--to", to])
        .args(flags)
        .output()
        .unwrap()
}

/// A store with one source, which a coordinator has open.
async fn served(folder: &Path) -> SqlStore {
    let location = Location::Sqlite(folder.join("store.db"));
    let store = SqlStore::open(&location, Clock::system(), coordinator::changes_channel());
    let store = store.await.unwrap();
    let source = Artifact { key: "sources/a".into(), hash: ContentHash::of(b"a"), n_bytes: 1 };
    store.record_source(&source).await.unwrap();
    store
}

#[tokio::test]
async fn a_served_store_is_copied_and_the_rows_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("artifacts")).unwrap();
    let store = served(folder.path()).await;
    let check = |flags: &[&str]| {
        let output = store_copy(folder.path(), "sqlite:store.db", "sqlite:copy.db", flags);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let view: StoreCopyView = serde_json::from_slice(&output.stdout).unwrap();
        let rows = |name: &str| view.tables.iter().find(|table| table.name == name).unwrap().n_rows;
        assert_eq!((rows("sources"), rows("studies"), rows("lease_tokens")), (1, 0, 1));
        assert_eq!((view.from.as_str(), view.to.as_str()), ("store.db", "copy.db"));
        assert_eq!(view.artifacts.as_deref(), Some("artifacts"));
        view.is_dry_run
    };
    assert!(check(&["--dry-run"]));
    assert!(!folder.path().join("copy.db").exists());
    assert!(!check(&[]));
    store.close().await;
    let location = Location::Sqlite(folder.path().join("copy.db"));
    let copied = SqlStore::open(&location, Clock::system(), coordinator::changes_channel());
    copied.await.unwrap().close().await;
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    served(folder.path()).await.close().await;
    std::fs::write(folder.path().join("there.db"), "mine").unwrap();
    for (from, to, named) in [
        ("sqlite:nothing.db", "sqlite:copy.db", "nothing.db"),
        ("sqlite:store.db", "sqlite:there.db", "there.db"),
        ("sqlite:store.db", "mysql://there", "mysql://there"),
        ("sqlite:there.db", "sqlite:copy.db", "there.db"),
    ] {
        let output = store_copy(folder.path(), from, to, &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.starts_with("error: ") && said.contains(named), "{said}");
        assert!(!folder.path().join("copy.db").exists());
    }
    assert_eq!(std::fs::read(folder.path().join("there.db")).unwrap(), b"mine");
}
