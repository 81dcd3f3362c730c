//! The commands that work on files, without a coordinator.
//!
//! They take no assignments; `trainer` does.

mod describe;
mod forward;
mod input;

use std::process::ExitCode;

use crate::cli::{DescribeArgs, ForwardArgs};

/// `gradus-worker forward`: logits, and on demand loss and gradients, of a model in a folder.
pub fn forward(args: &ForwardArgs) -> ExitCode {
    end(forward::forward(args))
}

/// `gradus-worker describe`: a configuration's tensors, parameters and FLOPs.
pub fn describe(args: &DescribeArgs) -> ExitCode {
    end(describe::describe(args))
}

#[expect(clippy::print_stderr, reason = "the one line that says why the command failed")]
fn end(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gradus-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}
