//! The suite in memory, and what only a database in memory has: sessions that break.

use std::any::Any;

use domain::ids::ContentHash;

use super::super::*;
use crate::changes_channel;
use crate::store::conformance::conformance;
use crate::store::memory::{Memory, Moment, Session};
use crate::store::read::ReadStore;

async fn made() -> Option<(SqlStore, Box<dyn Any + Send + Sync>)> {
    let memory = Memory::new();
    let store = open(&memory.session()).await.unwrap();
    Some((store, Box::new(memory)))
}

async fn open(session: &Session) -> Result<SqlStore, StoreError> {
    let location = Location::Memory(session.clone());
    SqlStore::open(&location, Clock::system(), changes_channel()).await
}

conformance!(made);

fn source(name: &str) -> Artifact {
    Artifact { key: name.to_owned(), hash: ContentHash::of(name.as_bytes()), n_bytes: 1 }
}

async fn missing(store: &SqlStore, names: &[&str]) -> usize {
    let hashes: Vec<ContentHash> =
        names.iter().map(|name| ContentHash::of(name.as_bytes())).collect();
    store.missing_sources(&hashes).await.unwrap().len()
}

/// Aim: whatever statement the power fails at, what was acknowledged is there afterwards, and what
/// was not is there whole or not at all. Method: the power fails at the first, second, … statement
/// of a write, and another session looks.
#[tokio::test]
async fn a_write_that_loses_power_is_whole_or_not_there() {
    let mut n_kept = 0;
    for (n, keeps_last) in (1..=5).flat_map(|n| [(n, false), (n, true)]) {
        let memory = Memory::new();
        let session = memory.session();
        let store = open(&session).await.unwrap();
        store.record_source(&source("before")).await.unwrap();
        session.cut_at(Moment::Statement(n), keeps_last);
        let answer = store.record_source(&source("after")).await;
        let other = open(&memory.session()).await.unwrap();
        assert_eq!(missing(&other, &["before"]).await, 0, "{n}");
        let is_kept = missing(&other, &["after"]).await == 0;
        assert!(is_kept || answer.is_err(), "{n}: acknowledged and lost");
        n_kept += u32::from(is_kept && answer.is_err());
    }
    assert_eq!(n_kept, 1, "the commit that was carried out and not heard of");
}

/// Aim: a commit that the power fails at is not heard of, and the ones before it are there.
#[tokio::test]
async fn the_power_fails_at_a_chosen_commit() {
    for keeps_last in [false, true] {
        let memory = Memory::new();
        let session = memory.session();
        let store = open(&session).await.unwrap();
        session.cut_at(Moment::Commit(2), keeps_last);
        store.record_source(&source("before")).await.unwrap();
        store.record_source(&source("after")).await.unwrap_err();
        let other = open(&memory.session()).await.unwrap();
        assert_eq!(missing(&other, &["before"]).await, 0);
        assert_eq!(missing(&other, &["after"]).await, usize::from(!keeps_last));
    }
}

#[tokio::test]
async fn a_session_that_broke_leads_no_longer_and_may_lead_again() {
    let memory = Memory::new();
    let (first, second) = (memory.session(), memory.session());
    let deposed = open(&first).await.unwrap();
    let standby = open(&second).await.unwrap();
    assert!(deposed.is_leading() && !standby.is_leading());
    assert!(!standby.try_to_lead().await.unwrap());
    first.cut();
    assert!(standby.try_to_lead().await.unwrap());
    first.restore();
    let refused = deposed.record_source(&source("a")).await;
    assert!(matches!(refused, Err(StoreError::Commit { .. })), "{refused:?}");
    deposed.lead_is_over().await;
    assert!(!deposed.try_to_lead().await.unwrap());
    second.cut();
    assert!(deposed.try_to_lead().await.unwrap());
    deposed.record_source(&source("a")).await.unwrap();
}
