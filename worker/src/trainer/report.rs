//! What the trainer has to say: the trait that recipes speak to, and the pipe behind it.
//!
//! It does not decide what is worth saying.

use std::io::{self, Write};
use std::time::Duration;

use domain::attempt::AttemptEnd;
use domain::ids::LeaseToken;
use proto::v1;
use proto::v1::event::Kind;
use proto::v1::from_trainer;

use crate::clock::{self, Monotonic};
use crate::pipe;

/// How many points wait at most before they are written.
const MAX_WAITING_POINTS: usize = 32;
/// How long after the last writing points wait for more; half of what the agent then waits for more.
const MAX_WAIT: Duration = Duration::from_millis(crate::attempt::FLUSH_MS / 2);

/// Where a recipe reports to.
pub trait Report {
    /// One thing that the attempt has to say.
    fn event(&mut self, kind: Kind);

    /// A line for the run's log.
    fn log(&mut self, level: &str, text: String) {
        let line = v1::LogLine { at_ms: clock::wall_ms(), level: level.to_owned(), text };
        self.event(Kind::Log(line));
    }
}

/// Writes messages to the agent.
///
/// Metric points are gathered for a moment, so that a fast step does not pay for a system call;
/// everything else goes out at once, after the points that wait. The order is kept.
#[derive(Debug)]
pub struct PipeReport<W> {
    pipe: W,
    buffer: Vec<u8>,
    n_points: usize,
    /// When something was written last.
    written: Option<Monotonic>,
}

impl<W: Write> PipeReport<W> {
    /// Writes to this end.
    pub fn new(pipe: W) -> Self {
        Self { pipe, buffer: Vec::new(), n_points: 0, written: None }
    }

    /// Says that the child is ready.
    pub fn ready(&mut self, capabilities: v1::Capabilities) -> io::Result<()> {
        self.add(from_trainer::Kind::Ready(capabilities));
        self.flush()
    }

    /// Says that the assignment is over.
    pub fn finished(&mut self, token: u64, end: AttemptEnd, message: &str) -> io::Result<()> {
        let finish = proto::to_wire::finish(LeaseToken(token), end, message);
        self.add(from_trainer::Kind::Finished(finish));
        self.flush()
    }

    fn add(&mut self, kind: from_trainer::Kind) {
        let message = v1::FromTrainer { kind: Some(kind) };
        self.buffer.extend(pipe::encode(&message));
    }

    fn try_event(&mut self, kind: Kind) -> io::Result<()> {
        let is_point = matches!(kind, Kind::Point(_));
        self.add(from_trainer::Kind::Event(proto::to_wire::event(kind)));
        if is_point {
            self.n_points += 1;
            // A slow step's point waits for no other: the next one may be minutes away.
            let is_recent = |written: &Monotonic| written.instant(0).elapsed() < MAX_WAIT;
            if self.n_points < MAX_WAITING_POINTS && self.written.as_ref().is_some_and(is_recent) {
                return Ok(());
            }
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.write_all(&self.buffer)?;
        self.pipe.flush()?;
        self.buffer.clear();
        self.n_points = 0;
        self.written = Some(Monotonic::start());
        Ok(())
    }
}

impl<W: Write> Report for PipeReport<W> {
    fn event(&mut self, kind: Kind) {
        if let Err(error) = self.try_event(kind) {
            tracing::error!(%error, "the agent is gone");
            super::die();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: u64) -> Kind {
        Kind::Point(v1::MetricPoint { step, ..v1::MetricPoint::default() })
    }

    /// What was written so far, as letters: a point, a log line, the end.
    fn written(bytes: &[u8]) -> String {
        let mut reader = pipe::MessageReader::new(bytes);
        let mut text = String::new();
        while let Some(message) = reader.next_blocking::<v1::FromTrainer>().unwrap() {
            text.push(match message.kind.unwrap() {
                from_trainer::Kind::Event(event) => match event.kind.unwrap() {
                    Kind::Point(_) => 'p',
                    _ => 'l',
                },
                from_trainer::Kind::Finished(_) => 'f',
                from_trainer::Kind::Ready(_) => 'r',
            });
        }
        text
    }

    #[test]
    fn points_are_gathered_and_anything_else_takes_them_along_in_order() {
        let mut bytes = Vec::new();
        let mut report = PipeReport::new(&mut bytes);
        report.event(point(1));
        assert_eq!(report.n_points, 0, "nothing was written for long");
        report.event(point(2));
        assert_eq!(report.n_points, 1);
        // As after a step that took longer.
        report.written = None;
        report.event(point(3));
        assert_eq!(report.n_points, 0);
        report.event(point(4));
        report.log("info", "text".into());
        report.event(point(5));
        report.finished(1, AttemptEnd::Succeeded, "").unwrap();
        assert_eq!(written(&bytes), "pppplpf");
    }

    #[test]
    fn no_more_points_wait_than_allowed() {
        let mut bytes = Vec::new();
        let mut report = PipeReport::new(&mut bytes);
        report.event(point(0));
        for step in 1..=MAX_WAITING_POINTS as u64 {
            report.event(point(step));
        }
        assert_eq!(report.n_points, 0);
        assert_eq!(written(&bytes).len(), MAX_WAITING_POINTS + 1);
    }
}
