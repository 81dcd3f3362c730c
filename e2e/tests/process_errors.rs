//! Bad input and bad surroundings: one clear line, the right exit status, nothing half done.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use e2e::{Cluster, ClusterOptions, TinyStudy, binary, libtorch_is_there, tiny_study};

#[track_caller]
fn check_failure(output: &Output, status: i32, says: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{text}");
    for part in says {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    assert!(!text.contains("panicked") && !text.contains("stack backtrace"), "{text}");
}

fn coordinator(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(binary("gradus-coordinator"))
        .arg("--database")
        .arg(format!("sqlite:{}", folder.join("store.db").display()))
        .args(arguments)
        .output()
        .expect("the coordinator can be started")
}

#[test]
fn a_port_in_use_is_one_clear_line() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let output = coordinator(folder.path(), &["--listen", &address]);
    check_failure(&output, 1, &[&address, "in use"]);
    Ok(())
}

#[test]
fn listening_to_the_world_without_a_token_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = coordinator(folder.path(), &["--listen", "0.0.0.0:0"]);
    check_failure(&output, 2, &["--token-file"]);
    Ok(())
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("store.db");
    std::fs::write(&file, "this is a letter, not a database, and it is longer than a header")?;
    let before = std::fs::read(&file)?;
    let output = coordinator(folder.path(), &["--listen", "127.0.0.1:0"]);
    check_failure(&output, 1, &["store.db", "database"]);
    assert_eq!(std::fs::read(&file)?, before);
    Ok(())
}

#[test]
fn a_bad_study_file_stores_nothing() -> Result<()> {
    let cluster = Cluster::start(ClusterOptions::default())?;
    let file = tiny_study(cluster.path(), &TinyStudy { widths: &[17], ..TinyStudy::default() });
    let output = cluster.gradus(&["apply", &file.display().to_string()]);
    check_failure(&output, 2, &["tiny.yaml:", "d_model", "17", "n_heads"]);
    let studies = cluster.json(&["status"]);
    assert_eq!(studies["studies"].as_array().map(Vec::len), Some(0));
    Ok(())
}

#[test]
fn a_coordinator_that_is_not_there_is_exit_status_three() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(binary("gradus"))
        .args(["status", "--coordinator", "http://127.0.0.1:9"])
        .current_dir(folder.path())
        .output()?;
    check_failure(&output, 3, &["127.0.0.1:9"]);
    Ok(())
}

/// A copy of the worker that looks for libtorch where there is none. The folder is written into the
/// program when it is linked, so another one of the same length is put in its place.
fn worker_without_libtorch(folder: &Path) -> Result<PathBuf> {
    let libtorch = std::env::var("LIBTORCH").context("cargo's configuration names libtorch")?;
    let (there, nowhere) = (libtorch.as_bytes(), vec![b'_'; libtorch.len()]);
    let mut program = std::fs::read(binary("gradus-worker"))?;
    let places: Vec<usize> =
        (0..program.len() - there.len()).filter(|at| program[*at..].starts_with(there)).collect();
    assert!(!places.is_empty(), "the program does not name `{libtorch}`");
    for at in places {
        program[at..at + there.len()].copy_from_slice(&nowhere);
    }
    let path = folder.join("gradus-worker");
    std::fs::write(&path, program)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn a_missing_libtorch_is_one_clear_line() -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let worker = worker_without_libtorch(folder.path())?;
    let output = Command::new(&worker).arg("devices").output()?;
    // The program is linked to libtorch, so the system's loader speaks, not we.
    check_failure(&output, 127, &["libtorch_cpu.so", "No such file"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);

    for name in ["gradus", "gradus-coordinator"] {
        std::fs::copy(binary(name), folder.path().join(name))?;
    }
    let output = Command::new(folder.path().join("gradus"))
        .args(["up", "--workers", "1", "--listen", "127.0.0.1:0"])
        .current_dir(folder.path())
        .output()?;
    check_failure(&output, 1, &["libtorch_cpu.so", "hint: libtorch is not", "make setup"]);
    let output = Command::new(folder.path().join("gradus"))
        .arg("doctor")
        .current_dir(folder.path())
        .output()?;
    assert_eq!(output.status.code(), Some(1));
    let table = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(table.contains("fail  libtorch: ") && table.contains("make setup"), "{table}");
    Ok(())
}

#[test]
fn a_worker_whose_trainer_program_is_missing_says_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Command::new(binary("gradus-worker"))
        .args(["run", "--coordinator", "http://127.0.0.1:9", "--name", "w"])
        .args(["--trainer", "/nonexistent/gradus-worker"])
        .arg("--scratch")
        .arg(folder.path())
        .output()?;
    check_failure(&output, 1, &["trainer"]);
    Ok(())
}
