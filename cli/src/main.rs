//! Reads the arguments, runs the command, and turns its end into an exit status.
//!
//! The commands are in `cli::commands`.

use std::process::ExitCode;

use clap::Parser;
use cli::args::Args;
use cli::failure::Failure;

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cli::commands::run(args)),
        Err(error) => Err(Failure::from(anyhow::Error::from(error))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            cli::output::note(&failure.report());
            ExitCode::from(failure.exit_status())
        }
    }
}
