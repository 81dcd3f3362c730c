//! Why an agent stops: a signal, or the end of who started it.
//!
//! It stops nothing itself.

use std::fmt;
use std::io::{self, Read as _};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::signals;

/// Reasons that may wait; the second ends the agent at once, so more are of no use.
const CAPACITY: usize = 4;

/// Why an agent should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGHUP: its terminal is gone.
    HangUp,
    /// Standard input was closed.
    ParentGone,
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "told to terminate",
            Self::Interrupt => "interrupted",
            Self::HangUp => "hung up",
            Self::ParentGone => "who started this worker is gone",
        })
    }
}

/// Listens for signals and, with `with_parent`, for the end of standard input.
pub(super) fn listen(with_parent: bool) -> io::Result<mpsc::Receiver<StopReason>> {
    let (reasons, receiver) = mpsc::channel(CAPACITY);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = None;
    if !signals::ignores_hang_ups() {
        hang_up = Some(signal(SignalKind::hangup())?);
    }
    let from_signals = reasons.clone();
    tokio::spawn(async move {
        loop {
            let reason = tokio::select! {
                _ = terminate.recv() => StopReason::Terminate,
                _ = interrupt.recv() => StopReason::Interrupt,
                () = hung_up(&mut hang_up) => StopReason::HangUp,
            };
            // A terminal that closes may say so twice, and after another signal: only the first
            // reason may be that.
            hang_up = None;
            if from_signals.send(reason).await.is_err() {
                return;
            }
        }
    });
    if with_parent {
        // A thread of its own: a read of standard input cannot be given up, and must not keep the
        // program from ending.
        std::thread::Builder::new().name("parent".to_owned()).spawn(move || {
            wait_for_end();
            reasons.blocking_send(StopReason::ParentGone)
        })?;
    }
    Ok(receiver)
}

async fn hung_up(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

fn wait_for_end() {
    let mut ignored = [0; 256];
    let mut stdin = io::stdin().lock();
    loop {
        match stdin.read(&mut ignored) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}
