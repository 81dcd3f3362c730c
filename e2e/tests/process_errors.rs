//! Bad input and bad surroundings: one clear line, the right exit status, nothing half done.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::Result;
use e2e::{Cluster, ClusterOptions, TinyStudy, binary, tiny_study};

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
