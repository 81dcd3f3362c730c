//! Lines from a trainer's standard error: bounded in length and number, with a level each.
//!
//! It does not send them anywhere.

use std::collections::VecDeque;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _};

/// A longer line is cut: a log line is for people.
const MAX_LINE_BYTES: usize = 4 * 1024;

/// So many of the last lines go into the message about a failure.
const N_LAST_LINES: usize = 20;

/// How serious a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Something worth knowing.
    Info,
    /// Something odd.
    Warn,
    /// Something that went wrong.
    Error,
}

impl LogLevel {
    /// The text on the wire.
    pub fn label(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// The level of a line: what its own log says, else a warning, because a trainer that works writes
/// nothing to standard error on its own.
pub fn level_of(line: &str) -> LogLevel {
    // The level stands behind the time, if there is one.
    let mut words = line.split_whitespace().take(2);
    let is_error = is_panic(line) || line.to_ascii_lowercase().starts_with("error");
    if is_error {
        return LogLevel::Error;
    }
    words
        .find_map(|word| match word {
            "ERROR" => Some(LogLevel::Error),
            "WARN" => Some(LogLevel::Warn),
            "INFO" | "DEBUG" | "TRACE" => Some(LogLevel::Info),
            _ => None,
        })
        .unwrap_or(LogLevel::Warn)
}

/// Whether a line is the first of a panic's two; the second says what is wrong.
pub(super) fn is_panic(line: &str) -> bool {
    line.contains("panicked at")
}

/// The last lines, for the message about a failure, and the last panic's two, which a long
/// backtrace must not push out.
#[derive(Debug, Default)]
pub(super) struct LastLines {
    lines: VecDeque<String>,
    panic: Vec<String>,
}

impl LastLines {
    pub(super) fn push(&mut self, line: &str) {
        if is_panic(line) {
            self.panic = vec![line.to_owned()];
        } else if self.panic.len() == 1 {
            self.panic.push(line.to_owned());
        }
        if self.lines.len() == N_LAST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line.to_owned());
    }

    pub(super) fn into_text(self) -> String {
        let is_kept = self.panic.first().is_none_or(|line| self.lines.contains(line));
        let panic = if is_kept { Vec::new() } else { self.panic };
        panic.into_iter().chain(self.lines).collect::<Vec<_>>().join("\n")
    }
}

/// The next line without its end, cut at [`MAX_LINE_BYTES`]; `None` when there are no more.
pub(super) async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<String> {
    let mut line = Vec::new();
    let mut is_any = false;
    loop {
        let chunk = reader.fill_buf().await.ok()?;
        if chunk.is_empty() {
            break;
        }
        is_any = true;
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let n_bytes = end.unwrap_or(chunk.len());
        let n_kept = n_bytes.min(MAX_LINE_BYTES - line.len());
        line.extend_from_slice(&chunk[..n_kept]);
        let n_used = end.map_or(n_bytes, |end| end + 1);
        reader.consume(n_used);
        if end.is_some() {
            break;
        }
    }
    is_any.then(|| String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_the_lines_own() {
        let time = "2026-01-01T00:00:00Z";
        assert_eq!(level_of(&format!("{time}  INFO loaded")), LogLevel::Info);
        assert_eq!(level_of(&format!("{time} ERROR no")), LogLevel::Error);
        assert_eq!(level_of("thread 'main' panicked at src/x.rs:1:1:"), LogLevel::Error);
        assert_eq!(level_of("error: out of paper"), LogLevel::Error);
        assert_eq!(level_of("something odd"), LogLevel::Warn);
    }

    #[tokio::test]
    async fn lines_are_cut_and_the_last_needs_no_end() {
        let text = format!("short\n{}\nlast", "x".repeat(2 * MAX_LINE_BYTES));
        let mut reader = text.as_bytes();
        assert_eq!(read_line(&mut reader).await.unwrap(), "short");
        assert_eq!(read_line(&mut reader).await.unwrap().len(), MAX_LINE_BYTES);
        assert_eq!(read_line(&mut reader).await.unwrap(), "last");
        assert_eq!(read_line(&mut reader).await, None);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let mut lines = LastLines::default();
        (0..100).for_each(|n| lines.push(&n.to_string()));
        let text = lines.into_text();
        assert_eq!(text.lines().count(), N_LAST_LINES);
        assert!(text.starts_with("80\n") && text.ends_with("\n99"));
    }

    #[test]
    fn a_backtrace_does_not_push_out_what_it_is_about() {
        let mut lines = LastLines::default();
        lines.push("thread 'main' panicked at src/x.rs:1:1:");
        lines.push("no paper");
        (0..100).for_each(|n| lines.push(&n.to_string()));
        let text = lines.into_text();
        assert!(text.starts_with("thread 'main' panicked at src/x.rs:1:1:\nno paper\n80\n"));
    }
}
