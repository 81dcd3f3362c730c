//! The one handle to time: the wall clock for display and back-off, the monotonic one for leases.
//!
//! It decides nothing. Workers' clocks are never compared with either.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Where the time comes from. Cheap to clone; all clones share one origin.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// The machine's clocks. Under a paused tokio runtime the monotonic one is paused too.
    pub fn system() -> Self {
        Self { origin: Instant::now() }
    }

    /// Milliseconds since the Unix epoch.
    pub fn wall_ms(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
    }

    /// Milliseconds of the monotonic clock since this handle was made.
    pub fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
