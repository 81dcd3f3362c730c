//! `gradus-fake-trainer`: speaks the trainer's side of the pipe without training anything.
//!
//! For tests of whole clusters; `gradus-worker run --trainer` takes it.

use std::process::ExitCode;

fn main() -> ExitCode {
    worker::fake_trainer::main()
}
