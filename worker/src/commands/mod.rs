//! The commands that work on files, without a coordinator.
//!
//! They take no assignments; `trainer` does.

mod describe;
mod devices;
mod forward;
mod generate;
mod input;

use std::io::Write;
use std::process::ExitCode;

use crate::cli::{DescribeArgs, DevicesArgs, ForwardArgs, GenerateArgs};

/// `gradus-worker forward`: logits, and on demand loss and gradients, of a model in a folder.
pub fn forward(args: &ForwardArgs) -> ExitCode {
    end(forward::forward(args))
}

/// `gradus-worker generate`: a model in a folder goes on with a prompt. Exit status 2 where the input
/// is wrong, 1 where the model fails on it.
pub fn generate(args: &GenerateArgs) -> ExitCode {
    match generate::Generation::new(args) {
        Ok(generation) => end(generation.run()),
        Err(error) => {
            explain(&error);
            ExitCode::from(WRONG_INPUT)
        }
    }
}

/// `gradus-worker describe`: a configuration's tensors, parameters and FLOPs.
pub fn describe(args: &DescribeArgs) -> ExitCode {
    end(describe::describe(args))
}

/// `gradus-worker devices`: what this machine can compute on.
pub fn devices(args: &DevicesArgs) -> ExitCode {
    end(devices::devices(args))
}

/// The exit status that clap has for wrong arguments.
const WRONG_INPUT: u8 = 2;

fn end(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            explain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one line that says why the command failed")]
fn explain(error: &anyhow::Error) {
    eprintln!("gradus-worker: {error:#}");
}

#[expect(clippy::print_stderr, reason = "a note for people, apart from the data")]
fn warn(text: &str) {
    eprintln!("gradus-worker: {text}");
}

/// Writes text and a newline to standard output. A reader that has gone away, as in
/// `gradus-worker describe | head`, is no error of ours.
fn print(text: &str) {
    drop(writeln!(std::io::stdout().lock(), "{text}"));
}
