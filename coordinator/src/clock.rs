//! The one handle to time: the wall clock for display and back-off, the monotonic one for leases.
//!
//! It decides nothing. Workers' clocks are never compared with either.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Where the time comes from. Cheap to clone; all clones share one origin.
#[derive(Debug, Clone)]
pub struct Clock {
    origin: Instant,
    /// What a test added by hand, in milliseconds.
    moved_ms: Arc<AtomicU64>,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self { origin: Instant::now(), moved_ms: Arc::default() }
    }

    /// Moves all clones forward, so that a test need not wait.
    pub fn advance(&self, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Milliseconds since the Unix epoch.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that the others ask")]
    pub fn wall_ms(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let moved_ms = i64::try_from(self.moved_ms.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX).saturating_add(moved_ms)
    }

    /// Milliseconds of the monotonic clock since this handle was made.
    pub fn monotonic_ms(&self) -> u64 {
        let elapsed_ms = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        elapsed_ms.saturating_add(self.moved_ms.load(Ordering::Relaxed))
    }
}
