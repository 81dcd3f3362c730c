//! The event stream: what was missed, then what happens, as server-sent events.
//! It says that something changed, never what it is now.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::EventView;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::{Stream, stream};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::error::ApiError;
use crate::store::read::ReadStore;
use crate::{App, RESYNC};

/// Events read from the store at a time.
const PAGE: u32 = 500;

/// A reader that missed more than this reads everything again instead of every event.
const MOST_REPLAYED: usize = 10_000;

/// Shorter than the idle limits of usual proxies. It is an event, so that who hears none knows that
/// nobody is there.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const ALIVE: &str = "alive";

/// Who does not lead hears nothing of what the leader does, and looks for it so often.
const FOLLOW_PAUSE: Duration = Duration::from_secs(2);

/// Points are no stored events: after so many looks everything is to be read again.
const LOOKS_PER_RESYNC: u32 = 5;

/// The header by which a browser says what it saw last.
const LAST_EVENT_ID: &str = "last-event-id";

/// What happens, as server-sent events with an `EventView` each. Stored events after the header
/// `Last-Event-ID` come first. An event named `resync` says that some were left out and that
/// everything should be read again.
#[utoipa::path(
    get,
    path = "/events",
    tag = "system",
    params((
        "Last-Event-ID" = Option<i64>,
        Header,
        description = "The last id seen; without it only what happens from now on is sent"
    )),
    responses((status = 200, content_type = "text/event-stream", body = EventView))
)]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let last_id = match headers.get(LAST_EVENT_ID) {
        None => None,
        Some(value) => {
            let id = value.to_str().ok().and_then(|text| text.parse::<i64>().ok());
            Some(id.ok_or_else(|| ApiError::BadRequest("`Last-Event-ID` is no number".to_owned()))?)
        }
    };
    let reader = Reader::new(app, last_id);
    let stream = stream::unfold(reader, |mut reader| async move {
        let message = reader.next().await?;
        Some((Ok(message), reader))
    });
    let alive = Event::default().event(ALIVE).data("{}");
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).event(alive)))
}

/// One open stream.
#[derive(Debug)]
struct Reader {
    app: Arc<App>,
    live: broadcast::Receiver<EventView>,
    /// The newest stored event that was sent, or is known to be seen.
    last_id: i64,
    /// Read from the store and not sent yet.
    missed: VecDeque<EventView>,
    n_replayed: usize,
    is_replaying: bool,
    /// The newest stored event at the last look, while another coordinator leads.
    followed: Option<i64>,
    n_looks: u32,
}

impl Reader {
    /// Listens before it reads the store, so that nothing falls between the two.
    fn new(app: Arc<App>, last_id: Option<i64>) -> Self {
        let live = app.changes.subscribe();
        Self {
            app,
            live,
            last_id: last_id.unwrap_or_default(),
            missed: VecDeque::new(),
            n_replayed: 0,
            is_replaying: last_id.is_some(),
            followed: None,
            n_looks: 0,
        }
    }

    /// The next message; none when the coordinator stops.
    async fn next(&mut self) -> Option<Event> {
        while self.is_replaying {
            if let Some(message) = self.next_missed().await {
                return Some(message);
            }
        }
        let shutdown = self.app.shutdown.clone();
        loop {
            let received = tokio::select! {
                () = shutdown.cancelled() => return None,
                received = self.live.recv() => received,
                () = tokio::time::sleep(FOLLOW_PAUSE) => match self.follow().await {
                    Some(message) => return Some(message),
                    None => continue,
                },
            };
            match received {
                // It was sent from the store already.
                Ok(event) if event.id != 0 && event.id <= self.last_id => {}
                Ok(event) if event.kind == RESYNC => return Some(resync()),
                Ok(event) => return Some(self.send(&event)),
                Err(RecvError::Lagged(_)) => return Some(resync()),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Whether there is something new to read, where another coordinator leads.
    async fn follow(&mut self) -> Option<Event> {
        if self.app.store.is_leading() {
            self.followed = None;
            return None;
        }
        self.n_looks += 1;
        let newest = self.app.store.last_event_id().await.ok();
        let is_known = newest.is_some() && newest == self.followed;
        self.followed = newest;
        let is_time = self.n_looks.is_multiple_of(LOOKS_PER_RESYNC);
        (!is_known || is_time).then(resync)
    }

    /// The next stored event; none at the end of a page.
    async fn next_missed(&mut self) -> Option<Event> {
        if let Some(event) = self.missed.pop_front() {
            self.n_replayed += 1;
            return Some(self.send(&event));
        }
        if self.n_replayed >= MOST_REPLAYED {
            self.is_replaying = false;
            return Some(resync());
        }
        match self.app.store.events_after(self.last_id, PAGE).await {
            Ok(page) => {
                self.is_replaying = !page.is_empty();
                self.missed = page.into();
                if self.is_replaying { None } else { self.resync_if_another_store().await }
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "could not read the events that a reader missed"
                );
                self.is_replaying = false;
                Some(resync())
            }
        }
    }

    /// A reader that has seen more than there is followed another store at this address.
    async fn resync_if_another_store(&mut self) -> Option<Event> {
        let newest = self.app.store.last_event_id().await.ok()?;
        if self.last_id <= newest {
            return None;
        }
        self.last_id = newest;
        Some(resync())
    }

    fn send(&mut self, event: &EventView) -> Event {
        self.last_id = self.last_id.max(event.id);
        let message = with_data(Event::default(), event);
        if event.id == 0 { message } else { message.id(event.id.to_string()) }
    }
}

/// Some events were left out.
fn resync() -> Event {
    with_data(Event::default().event(RESYNC), &crate::resync())
}

fn with_data(message: Event, event: &EventView) -> Event {
    message.json_data(event).expect("an event view is texts and numbers")
}
