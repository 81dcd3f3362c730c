//! `gradus-worker` as a person runs it, and the golden models to run it on.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The folder of the golden models.
pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/golden")
}

/// Runs it on one thread.
pub(crate) fn worker(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradus-worker"))
        .args(arguments)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .unwrap()
}
