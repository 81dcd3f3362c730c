//! `gradus up`: a coordinator and workers in this folder, until Ctrl-C.

use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Global, UpArgs};
use crate::failure::Failure;
use crate::local::Local;
use crate::output::{data, note};

pub(super) async fn run(global: &Global, args: &UpArgs) -> Result<(), Failure> {
    let mut local = start(global, args).await?;
    data(&format!("dashboard and API: {}", local.client.address()));
    if !global.quiet {
        note("\nhint: `gradus apply FILE` in this folder adds a study; Ctrl-C stops everything");
    }
    let ended = until_stopped(&mut local).await;
    stop(local, global.quiet).await;
    ended
}

/// Starts everything and says how.
pub(super) async fn start(global: &Global, args: &UpArgs) -> Result<Local, Failure> {
    if global.coordinator.is_some() {
        return Err(Failure::wrong(
            "a coordinator is named by `--coordinator` or `GRADUS_COORDINATOR`, but this command \
             starts its own",
        ));
    }
    let local = Local::start(global, args).await?;
    if !global.quiet {
        local.notes.iter().for_each(|text| note(text));
        note(&format!("{} workers started, logs in `.gradus/logs`", local.workers.len()));
    }
    Ok(local)
}

/// Waits for Ctrl-C or a termination signal; the unasked end of a child is a failure.
pub(super) async fn until_stopped(local: &mut Local) -> Result<(), Failure> {
    tokio::select! {
        () = stop_signal() => Ok(()),
        error = local.watch() => Err(Failure::Failed(error)),
    }
}

/// Ends with the first signal that asks this process to stop.
pub(super) async fn stop_signal() {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut hangup)) = signals else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
        // The terminal was closed.
        _ = hangup.recv() => {}
    }
}

/// Stops everything and says so.
pub(super) async fn stop(local: Local, is_quiet: bool) {
    if !is_quiet {
        note("stopping");
    }
    local.stop().await;
}
