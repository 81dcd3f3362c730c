//! `gradus-worker devices` tells what there is and, without CUDA, the reason; a trainer that must
//! have CUDA does not start without.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn worker(arguments: &[&str], libtorch: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gradus-worker"))
        .args(arguments)
        .env("OMP_NUM_THREADS", "1")
        .env("GRADUS_LIBTORCH", libtorch)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn without_the_cuda_half_there_is_the_cpu_and_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().to_str().unwrap();
    let output = worker(&["devices"], folder.path());
    assert!(output.status.success());
    let table = text(&output.stdout);
    assert!(table.lines().nth(1).unwrap().starts_with("cpu:0 "), "{table}");
    assert!(table.contains("\nlibtorch 2.11.0 in `"), "{table}");
    let reason = table.lines().last().unwrap();
    assert!(reason.starts_with("no CUDA: there is no `libtorch_cuda.so` in "), "{table}");
    assert!(reason.contains(name), "{table}");
    assert!(text(&output.stderr).contains("hint: name the `lib` folder of a CUDA build"));
}

#[test]
fn programs_read_the_reason_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    // The argument outweighs the environment.
    let named = folder.path().join("named");
    let arguments = ["devices", "--json", "--libtorch", named.to_str().unwrap()];
    let output = worker(&arguments, folder.path());
    assert!(output.status.success());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let cpu = &found["devices"][0];
    assert_eq!((cpu["kind"].as_str(), cpu["index"].as_u64()), (Some("cpu"), Some(0)));
    assert!(cpu["memory_bytes"].as_u64().unwrap() > 0, "{found}");
    assert!(!cpu["capability"].as_str().unwrap().is_empty(), "{found}");
    assert_eq!(found["devices"].as_array().unwrap().len(), 1);
    assert!(found["machine"]["n_cores"].as_u64().unwrap() > 0);
    assert_eq!(found["libtorch"]["version"], "2.11.0");
    assert_eq!(found["cuda"]["is_available"], false);
    assert_eq!(found["cuda"]["reason"], "no_library");
    let message = found["cuda"]["message"].as_str().unwrap();
    assert!(message.contains(named.to_str().unwrap()), "{message}");
    assert!(found["cuda"]["remedy"].as_str().unwrap().contains("GRADUS_LIBTORCH"));
}

#[test]
fn a_trainer_that_must_have_cuda_says_why_it_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let scratch = folder.path().to_str().unwrap();
    let arguments = ["trainer", "--probe", "--scratch", scratch, "--device", "cuda"];
    let output = worker(&arguments, folder.path());
    assert!(!output.status.success());
    let log = text(&output.stderr);
    assert!(log.contains("there is no `libtorch_cuda.so` in "), "{log}");
    assert!(log.contains("--libtorch"), "{log}");
    // The same without insisting.
    let output = worker(&["trainer", "--probe", "--scratch", scratch], folder.path());
    assert!(output.status.success(), "{}", text(&output.stderr));
}
