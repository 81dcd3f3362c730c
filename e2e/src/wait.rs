//! Waiting for a condition with a deadline: the one place that sleeps.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits until `condition` gives a value.
///
/// # Panics
/// If it gives none within `seconds`, with `what` in the message.
pub fn wait_for<T>(what: &str, seconds: u64, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {seconds} s in vain for {what}");
        pause();
    }
}

/// Lets time pass between faults that chance chose. No test waits for a condition in this way.
pub fn let_pass(time: Duration) {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "a condition of another process has no wake-up")]
fn pause() {
    std::thread::sleep(PAUSE);
}
