//! The one handle to time: the wall clock for display and back-off, the monotonic one for leases.
//!
//! It decides nothing. Workers' clocks are never compared with either.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// Where the time comes from. Cheap to clone; all clones share one origin.
#[derive(Debug, Clone)]
pub struct Clock {
    source: Source,
    /// What a test added by hand, in milliseconds.
    moved_ms: Arc<AtomicU64>,
}

#[derive(Debug, Clone)]
enum Source {
    System { origin: Instant },
    ByHand(Arc<Hands>),
}

#[derive(Debug, Default)]
struct Hands {
    monotonic_ms: AtomicU64,
    wall_ms: AtomicI64,
}

impl Clock {
    /// The machine's clocks.
    pub fn system() -> Self {
        Self { source: Source::System { origin: Instant::now() }, moved_ms: Arc::default() }
    }

    /// Clocks that stand still until they are set.
    pub fn by_hand() -> Self {
        Self { source: Source::ByHand(Arc::default()), moved_ms: Arc::default() }
    }

    /// Sets clocks that go by hand, of all clones; the machine's are not moved by it.
    pub fn set(&self, monotonic_ms: u64, wall_ms: i64) {
        if let Source::ByHand(hands) = &self.source {
            hands.monotonic_ms.store(monotonic_ms, Ordering::Relaxed);
            hands.wall_ms.store(wall_ms, Ordering::Relaxed);
        }
    }

    /// Moves all clones forward, so that a test need not wait.
    pub fn advance(&self, by: Duration) {
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.moved_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    /// Milliseconds since the Unix epoch.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that the others ask")]
    pub fn wall_ms(&self) -> i64 {
        let moved_ms = i64::try_from(self.moved_ms.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
        let unmoved_ms = match &self.source {
            Source::System { .. } => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
            }
            Source::ByHand(hands) => hands.wall_ms.load(Ordering::Relaxed),
        };
        unmoved_ms.saturating_add(moved_ms)
    }

    /// Milliseconds of the monotonic clock since this handle was made.
    pub fn monotonic_ms(&self) -> u64 {
        let elapsed_ms = match &self.source {
            Source::System { origin } => {
                u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX)
            }
            Source::ByHand(hands) => hands.monotonic_ms.load(Ordering::Relaxed),
        };
        elapsed_ms.saturating_add(self.moved_ms.load(Ordering::Relaxed))
    }
}
