//! `gradus` as a person runs it, and what it shows.

use std::path::Path;
use std::process::{Command, Output};

/// Runs it in a folder, with no coordinator but the one that the folder or the arguments name.
pub(crate) fn gradus(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradus"))
        .args(args)
        .current_dir(folder)
        .env_remove("GRADUS_COORDINATOR")
        .output()
        .unwrap()
}

/// Exit status and both streams as one text.
pub(crate) fn shown(output: &Output) -> String {
    format!(
        "status {}\n--- out\n{}--- err\n{}",
        output.status.code().unwrap_or(-1),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}
