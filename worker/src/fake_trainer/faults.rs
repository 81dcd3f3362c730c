//! What a fake trainer does wrong on purpose, from the environment that it inherits from the test.
//!
//! The agent knows nothing of it.

use std::env;
use std::time::Duration;

/// The time of a step, in milliseconds.
pub const STEP_MS: &str = "GRADUS_FAKE_STEP_MS";
/// The step at which the loss is not finite.
pub const DIVERGE_AT: &str = "GRADUS_FAKE_DIVERGE_AT";
/// The step at which a run's first attempt panics.
pub const CRASH_AT: &str = "GRADUS_FAKE_CRASH_AT";
/// The step from which on nothing is heard or said any more.
pub const HANG_AT: &str = "GRADUS_FAKE_HANG_AT";
/// A rolling checkpoint every so many steps, beside those by time.
pub const CHECKPOINT_EVERY: &str = "GRADUS_FAKE_CHECKPOINT_EVERY";

/// What goes wrong, and how fast.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    pub(super) step: Duration,
    pub(super) diverge_at: Option<u64>,
    pub(super) crash_at: Option<u64>,
    pub(super) hang_at: Option<u64>,
    pub(super) checkpoint_every: Option<u64>,
}

impl Faults {
    pub(super) fn from_environment() -> Self {
        Self {
            step: Duration::from_millis(number(STEP_MS).unwrap_or(0)),
            diverge_at: number(DIVERGE_AT),
            crash_at: number(CRASH_AT),
            hang_at: number(HANG_AT),
            checkpoint_every: number(CHECKPOINT_EVERY).filter(|n_steps| *n_steps > 0),
        }
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}
