//! What the event stream `GET /events` says: that something changed, not what it is now.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One message of the event stream; the `data` of a server-sent event. A reader that was away
/// sends the last `id` it saw as `Last-Event-ID` and gets what it missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Grows; 0 for a message that is not stored (`points`).
    pub id: i64,
    /// When it happened.
    pub at_ms: i64,
    /// What it is about: a study, run, evaluation, preparation or worker identifier.
    pub subject: String,
    /// What happened, such as `run_granted`, `run_succeeded`, `checkpoint_published`, or `points`.
    pub kind: String,
    /// Who did it: `user NAME`, or `user` where no name is known, `worker ID` or `coordinator`; empty
    /// for a message that is not stored, and for an event of a store older than schema 5.
    pub actor: String,
}
