//! Where the binaries under test are.

use std::env;
use std::path::PathBuf;

/// The path of one of our binaries: beside the test's own folder of the target directory.
///
/// # Panics
/// If it was not built; a test run of the whole workspace builds all of them.
pub fn binary(name: &str) -> PathBuf {
    let own = env::current_exe().expect("a test knows its own path");
    let folder = own
        .ancestors()
        .find(|folder| folder.file_name().is_some_and(|name| name == "release" || name == "debug"))
        .expect("tests run from the target directory");
    let path = folder.join(name);
    assert!(path.is_file(), "`{name}` is not built; `make test` builds it");
    path
}

/// Whether `gradus-worker` can train here. Without it the tests that train are skipped visibly.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub fn libtorch_is_there() -> bool {
    let found = std::process::Command::new(binary("gradus-worker"))
        .arg("devices")
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("SKIPPED: `gradus-worker devices` fails, so nothing can be trained here");
    }
    found
}
