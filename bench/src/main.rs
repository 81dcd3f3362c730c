//! `gradus-bench`: what the training engine promises about speed, measured on this machine.
//!
//! Every benchmark prints a Markdown table and writes `target/bench/NAME.json`. Two things are
//! compared in turns (A B A B …), each in processes of its own, and every number comes with the range
//! over the turns. What is measured is the trainer itself, never a copy of its loop.

mod args;
mod bare;
mod case;
mod checkpoint;
mod device;
mod dispatch;
mod filter;
mod machine;
mod ops;
mod orchestration;
mod pytorch;
mod report;
mod site;
mod spread;
mod train;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::{Args, Command};
use report::Report;

/// Exit status: 0 when all was measured and what must agree does, 1 otherwise.
fn main() -> ExitCode {
    match run(&Args::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> Result<bool> {
    let (common, report): (_, Report) = match command {
        Command::Loop => return bare::serve().map(|()| true),
        Command::Train(args) => (&args.common, train::measure(args)?),
        Command::Ops(args) => (&args.common, ops::measure(args)?),
        Command::Checkpoint(args) => (&args.common, checkpoint::measure(args)?),
        Command::Dispatch(args) => (&args.common, dispatch::measure(args)?),
        Command::Scale(args) => (&args.common, dispatch::scale::measure(args)?),
        Command::Recovery(args) => (&args.common, dispatch::recovery::measure(args)?),
        Command::Orchestration(args) => (&args.common, orchestration::measure(args)?),
    };
    print(&report.to_markdown());
    let path = report.write(&common.folder()?)?;
    say(&format!("written to `{}`", path.display()));
    for bar in report.bars() {
        say(&bar);
    }
    for failure in report.failures() {
        say(&format!("FAILED: {failure}"));
    }
    Ok(report.failures().is_empty())
}

/// A line about the progress, apart from the data.
#[expect(clippy::print_stderr, reason = "progress is for people, apart from the data")]
fn say(text: &str) {
    eprintln!("gradus-bench: {text}");
}

#[expect(clippy::print_stdout, reason = "data goes to standard output")]
fn print(text: &str) {
    println!("{text}");
}
