//! `gradus-worker`: the worker's program.
//!
//! It decides nothing; `cli` reads the arguments and calls what they ask for.

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::cli::main()
}
