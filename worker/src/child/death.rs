//! How a trainer ended, and what that means for the attempt it had.
//!
//! It watches no process.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use domain::attempt::AttemptEnd;

use super::lines::is_panic;

/// The signal with which the kernel kills for memory, and others kill for good.
const SIGKILL: i32 = 9;

/// The longest message about a failure, in bytes: it is stored with the attempt.
const MAX_MESSAGE_BYTES: usize = 8 * 1024;

/// The end of a trainer.
#[derive(Debug, Clone)]
pub struct Death {
    /// How it exited, if the system told.
    pub status: Option<ExitStatus>,
    /// Whether the agent killed it.
    pub is_killed: bool,
    /// Whether the kernel killed somebody for memory during its life.
    pub was_memory_kill: bool,
    /// What was wrong with its pipe.
    pub pipe_error: Option<String>,
    /// The last lines of its standard error.
    pub last_lines: String,
}

impl Death {
    /// What it means for the attempt at hand.
    pub fn end(&self) -> AttemptEnd {
        let signal = self.status.and_then(|status| status.signal());
        if signal == Some(SIGKILL) && !self.is_killed && self.was_memory_kill {
            return AttemptEnd::OutOfMemory;
        }
        // A trainer says how its attempt ends before it exits, whatever the status: one that does
        // not has a bug.
        AttemptEnd::Bug
    }

    /// In words, for people: how it exited, then its last lines.
    pub fn describe(&self) -> String {
        let mut text = self.headline();
        if !self.last_lines.is_empty() {
            let room = MAX_MESSAGE_BYTES.saturating_sub(text.len());
            text.push('\n');
            text.push_str(last_bytes(&self.last_lines, room));
        }
        text
    }

    /// In one line: how it exited, and what its panic or its last line says.
    pub fn brief(&self) -> String {
        let mut lines = self.last_lines.lines().filter(|line| !line.trim().is_empty());
        let panic = lines.clone().skip_while(|line| !is_panic(line)).nth(1);
        match panic.or_else(|| lines.next_back()) {
            Some(line) => format!("{}: {line}", self.headline()),
            None => self.headline(),
        }
    }

    fn headline(&self) -> String {
        if let Some(error) = &self.pipe_error {
            return format!("the trainer's pipe broke: {error}");
        }
        let Some(status) = self.status else {
            return "the trainer's end is unknown".to_owned();
        };
        match (status.signal(), status.code()) {
            (Some(SIGKILL), _) if self.is_killed => {
                "the trainer was killed by its agent".to_owned()
            }
            (Some(SIGKILL), _) if self.was_memory_kill => {
                "the system killed the trainer for memory".to_owned()
            }
            (Some(signal), _) => format!("the trainer was killed by signal {signal}"),
            (None, Some(code)) => format!("the trainer exited with status {code}"),
            (None, None) => "the trainer's end is unknown".to_owned(),
        }
    }
}

/// At most the last `n_bytes` of a text, cut between characters.
fn last_bytes(text: &str, n_bytes: usize) -> &str {
    let from = text.len().saturating_sub(n_bytes);
    let start = (from..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Raw wait statuses: a signal's number stands as it is, an exit code in the second byte.
    fn death(raw_status: i32) -> Death {
        Death {
            status: Some(ExitStatus::from_raw(raw_status)),
            is_killed: false,
            was_memory_kill: false,
            pipe_error: None,
            last_lines: String::new(),
        }
    }

    #[track_caller]
    fn check(death: &Death, end: AttemptEnd, text: &str) {
        assert_eq!(death.end(), end);
        assert!(death.describe().contains(text), "{}", death.describe());
    }

    #[test]
    fn a_kill_with_the_kernels_evidence_is_out_of_memory() {
        let death = Death { was_memory_kill: true, ..death(SIGKILL) };
        check(&death, AttemptEnd::OutOfMemory, "for memory");
    }

    #[test]
    fn a_kill_of_unknown_origin_is_a_bug() {
        check(&death(SIGKILL), AttemptEnd::Bug, "killed by signal 9");
    }

    #[test]
    fn the_agents_own_kill_is_never_taken_for_the_kernels() {
        let death = Death { was_memory_kill: true, is_killed: true, ..death(SIGKILL) };
        check(&death, AttemptEnd::Bug, "killed by its agent");
    }

    #[test]
    fn other_signals_and_exits_are_bugs_with_the_last_lines() {
        check(&death(11), AttemptEnd::Bug, "signal 11");
        let death = Death { last_lines: "thread 'main' panicked".into(), ..death(101 << 8) };
        check(&death, AttemptEnd::Bug, "status 101\nthread 'main' panicked");
    }

    #[test]
    fn a_long_message_keeps_its_end() {
        let last_lines = "ä".repeat(MAX_MESSAGE_BYTES) + "end";
        let text = Death { last_lines, ..death(6) }.describe();
        assert!(text.len() <= MAX_MESSAGE_BYTES + 1);
        assert!(text.ends_with("end"));
    }

    #[test]
    fn the_brief_form_is_one_line_with_the_reason() {
        let last_lines = "loading\nlibx.so: not found\n".to_owned();
        let missing = Death { last_lines, ..death(127 << 8) };
        assert_eq!(missing.brief(), "the trainer exited with status 127: libx.so: not found");
        let last_lines = "thread 'main' panicked at x:\nno paper\n  1: main\n".to_owned();
        let panicked = Death { last_lines, ..death(101 << 8) };
        assert_eq!(panicked.brief(), "the trainer exited with status 101: no paper");
    }
}
