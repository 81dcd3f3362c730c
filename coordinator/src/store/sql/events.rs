//! The events of a batch: noted one by one, written many at a time, announced after the commit.
//!
//! What they say is said by whoever notes them.

use api::EventView;

use super::database::{Connection, query_with_rows};
use super::error::from_driver;
use crate::store::StoreError;
use crate::{LIVE_EVENTS, resync};

/// Events in one statement: six values each stay far below the databases' limits.
const EVENTS_PER_STATEMENT: usize = 256;

/// The events of the batch at hand. Only the one writer has any, so their numbers are counted here.
#[derive(Debug)]
pub(super) struct Events {
    /// Not written yet.
    noted: Vec<Noted>,
    /// Written, and announced unless they are more than listeners follow.
    written: Vec<EventView>,
    n_written: usize,
    /// The newest one that is committed.
    last_id: i64,
}

#[derive(Debug)]
struct Noted {
    view: EventView,
    detail_json: String,
}

/// How far a batch was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    n_noted: usize,
    n_written: usize,
}

impl Events {
    pub(super) fn after(last_id: i64) -> Self {
        Self { noted: Vec::new(), written: Vec::new(), n_written: 0, last_id }
    }

    /// Notes one; its number comes with the writing.
    pub(super) fn note(&mut self, view: EventView, detail_json: String) {
        self.noted.push(Noted { view, detail_json });
    }

    /// Writes what is noted.
    pub(super) async fn write(&mut self, conn: &mut Connection) -> Result<(), StoreError> {
        for events in self.noted.chunks_mut(EVENTS_PER_STATEMENT) {
            let head = "INSERT INTO events (id, at_ms, subject, kind, actor, detail_json) VALUES";
            let mut insert = query_with_rows(head, (events.len(), 6), "");
            for Noted { view, detail_json } in events.iter_mut() {
                self.n_written += 1;
                view.id = self.last_id + i64::try_from(self.n_written).unwrap_or(i64::MAX);
                insert = insert
                    .bind(view.id)
                    .bind(view.at_ms)
                    .bind(&view.subject)
                    .bind(&view.kind)
                    .bind(&view.actor)
                    .bind(std::mem::take(detail_json));
            }
            insert.execute(&mut *conn).await.map_err(from_driver)?;
        }
        if self.n_written > LIVE_EVENTS {
            self.written.clear();
            self.noted.clear();
        }
        self.written.extend(self.noted.drain(..).map(|event| event.view));
        Ok(())
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { n_noted: self.noted.len(), n_written: self.n_written }
    }

    /// Forgets what came after the mark, of which the database has nothing any more either.
    pub(super) fn undo_to(&mut self, mark: Mark) {
        self.noted.truncate(mark.n_noted);
        self.written.truncate(mark.n_written);
        self.n_written = mark.n_written;
    }

    /// Forgets the batch.
    pub(super) fn clear(&mut self) {
        self.undo_to(Mark { n_noted: 0, n_written: 0 });
    }

    /// Takes out what was committed, to be announced: one by one, or that they are many.
    pub(super) fn take(&mut self) -> Vec<EventView> {
        self.last_id += i64::try_from(self.n_written).unwrap_or(i64::MAX);
        let is_announced = self.written.len() == self.n_written;
        self.n_written = 0;
        let written = std::mem::take(&mut self.written);
        if is_announced { written } else { vec![resync()] }
    }
}
