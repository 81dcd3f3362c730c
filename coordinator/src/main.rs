//! `gradus-coordinator`: reads the flags, starts telemetry, serves, or copies a store.
//!
//! It decides nothing. Exit status 2 says that the flags are wrong, 1 that the coordinator could
//! not serve or copy.

use std::error::Error;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use coordinator::config::{Args, Command, Config, CopyArgs, StoreCommand};
use coordinator::{copying, serve};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(Command::Store(StoreCommand::Copy(args))) = &args.command {
        start_telemetry("warn");
        return copy(args);
    }
    let config = match Config::from_args(args) {
        Ok(config) => config,
        Err(error) => return fail(&error, 2),
    };
    start_telemetry("info");
    match runtime() {
        Ok(runtime) => match runtime.block_on(serve::run(config)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Err(error) => fail(&error, 1),
    }
}

fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

fn start_telemetry(level: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

/// Copies a store and prints what was copied.
fn copy(args: &CopyArgs) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    let copied = match runtime.block_on(copying::run(args)) {
        Ok(copied) => copied,
        Err(error) => return fail(&error, error.exit_status()),
    };
    let text = match serde_json::to_string_pretty(&copied) {
        Ok(text) => text,
        Err(error) => return fail(&error, 1),
    };
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

/// One line with the whole chain of causes.
fn fail(error: &dyn Error, status: u8) -> ExitCode {
    let mut line = format!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        line = format!("{line}: {cause}");
        source = cause.source();
    }
    // When standard error is closed there is nobody to tell.
    drop(writeln!(std::io::stderr(), "{line}"));
    ExitCode::from(status)
}
