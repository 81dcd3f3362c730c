//! The event stream: what was missed, then what happens.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use coordinator::http::router;
use futures::StreamExt;
use tower::ServiceExt;

use crate::support::{STUDY, Served, with_seeds};

/// Longer than any of this takes; only a failing test waits for it.
const DEADLINE: Duration = Duration::from_secs(20);

struct Stream {
    body: BodyDataStream,
    text: String,
}

impl Stream {
    async fn open(served: &Served, last_event_id: Option<&str>) -> Self {
        let mut request = Request::get("/api/v1/events").header("host", "localhost");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = router(served.app.clone()).oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next message as (id, event name, kind).
    async fn next(&mut self) -> Option<(i64, String, String)> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let (message, rest) = (message.to_owned(), rest.to_owned());
                self.text = rest;
                if message.contains("data:") && !message.contains("event: alive") {
                    return Some(parse(&message));
                }
                continue;
            }
            let chunk = tokio::time::timeout(DEADLINE, self.body.next()).await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
    }
}

fn parse(message: &str) -> (i64, String, String) {
    let field = |name: &str| {
        message.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
    };
    let data: serde_json::Value = serde_json::from_str(field("data:")).unwrap();
    let id = data["id"].as_i64().unwrap();
    assert_eq!(field("id:"), if id == 0 { String::new() } else { id.to_string() });
    (id, field("event:").to_owned(), data["kind"].as_str().unwrap().to_owned())
}

/// Another coordinator writes what this one shows, and its events are not heard here.
#[tokio::test]
async fn who_does_not_lead_tells_its_listeners_to_look_again() {
    let served = Served::new().await;
    served.apply(STUDY).await;
    let served = served.reopened_read_only().await;
    let mut stream = Stream::open(&served, None).await;
    for _ in 0..2 {
        let (id, event, kind) = stream.next().await.unwrap();
        assert_eq!((id, event.as_str(), kind.as_str()), (0, "resync", "resync"));
    }
}

#[tokio::test]
async fn what_was_missed_comes_before_what_happens_and_nothing_twice() {
    let served = Served::new().await;
    served.apply(STUDY).await;
    let mut from_start = Stream::open(&served, Some("0")).await;
    let (first, ..) = from_start.next().await.unwrap();
    assert_eq!(first, 1);
    // More happens while the reader is still in the past.
    served.worker("one").await;
    let mut last = first;
    loop {
        let (id, _, kind) = from_start.next().await.unwrap();
        assert_eq!(id, last + 1, "{kind}");
        last = id;
        if kind.starts_with("worker_") {
            break;
        }
    }
    let (_, _, kind) =
        Stream::open(&served, Some(&(last - 1).to_string())).await.next().await.unwrap();
    assert!(kind.starts_with("worker_"), "{kind}");
}

#[tokio::test]
async fn a_study_of_more_runs_than_a_reader_can_be_behind_is_one_message() {
    let served = Served::new().await;
    let mut stream = Stream::open(&served, None).await;
    served.apply(&with_seeds(2_100)).await;
    let resync = (0, "resync".to_owned(), "resync".to_owned());
    assert_eq!(stream.next().await.unwrap(), resync);
    // The numbers go on behind those that were left out.
    served.worker("one").await;
    let (id, _, kind) = stream.next().await.unwrap();
    assert!(id > 4_200 && kind.starts_with("worker_"), "{id} {kind}");
    let mut from_start = Stream::open(&served, Some("0")).await;
    for expected in 1..=4_200 {
        assert_eq!(from_start.next().await.unwrap().0, expected);
    }
}

#[tokio::test]
async fn without_a_last_id_only_what_happens_from_now_on_comes() {
    let served = Served::new().await;
    served.apply(STUDY).await;
    let mut stream = Stream::open(&served, None).await;
    let points = api::EventView {
        id: 0,
        at_ms: 1,
        subject: "r_1".to_owned(),
        kind: "points".to_owned(),
        actor: String::new(),
    };
    served.app.changes.send(points).unwrap();
    assert_eq!(stream.next().await.unwrap(), (0, String::new(), "points".to_owned()));
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_to_read_again() {
    let served = Served::new().await;
    let mut stream = Stream::open(&served, None).await;
    for at_ms in 0..100_000 {
        let (subject, kind) = ("r_1".to_owned(), "points".to_owned());
        served
            .app
            .changes
            .send(api::EventView { id: 0, at_ms, subject, kind, actor: String::new() })
            .unwrap();
    }
    let (_, event, kind) = stream.next().await.unwrap();
    assert_eq!((event.as_str(), kind.as_str()), ("resync", "resync"));
    assert_eq!(stream.next().await.unwrap().2, "points");
}

#[tokio::test]
async fn a_stopping_coordinator_ends_its_streams() {
    let served = Served::new().await;
    let mut stream = Stream::open(&served, None).await;
    served.app.shutdown.cancel();
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_reader_of_another_store_is_told_to_read_again_and_then_follows() {
    let served = Served::new().await;
    let mut stream = Stream::open(&served, Some("5000")).await;
    let (id, name, kind) = stream.next().await.unwrap();
    assert_eq!((id, name.as_str(), kind.as_str()), (0, "resync", "resync"));
    served.apply(STUDY).await;
    assert_eq!(stream.next().await.unwrap().0, 1);
}
