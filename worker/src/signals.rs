//! The signals that stop a service, a job or a terminal's programs: who of a worker hears them.
//!
//! They come to every process of it. The agent decides what follows, and asks its trainers by the
//! pipe.

use std::io;

use nix::sys::signal::{SigSet, Signal};

/// What is left to the agent.
const STOPPING: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// From here on this thread, and those that it starts, do not hear them. To be called before any
/// other thread is there: one that hears them would end the process.
pub(crate) fn leave_to_agent() -> io::Result<()> {
    let stopping: SigSet = STOPPING.into_iter().collect();
    stopping.thread_block().map_err(io::Error::from)
}

/// Whether whoever started this process wants it to outlive its terminal (`nohup`).
pub(crate) fn ignores_hang_ups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|mask| is_in(mask, Signal::SIGHUP))
}

/// Whether a mask as the kernel prints it has a signal.
fn is_in(mask: &str, signal: Signal) -> bool {
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_of_the_kernel_is_read() {
        assert!(is_in("\t0000000000000001", Signal::SIGHUP));
        assert!(is_in("0000000000005007", Signal::SIGTERM));
        assert!(!is_in("0000000000001000", Signal::SIGHUP));
        assert!(!is_in("", Signal::SIGHUP));
    }
}
