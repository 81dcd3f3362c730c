//! Both sides of the training benchmark do the same: from the same weights and batches they come to
//! the same losses.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Where the PyTorch to compare with is.
const VARIABLE: &str = "BENCH_PYTHON";

/// What a benchmark over two steps writes, with the Python of the environment or with none.
fn result(folder: &Path, only: &str, python: Option<&OsStr>) -> Value {
    result_with(folder, only, python, &[])
}

/// The same with more arguments.
fn result_with(folder: &Path, only: &str, python: Option<&OsStr>, more: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus-bench"));
    match python {
        Some(python) => command.env(VARIABLE, python),
        None => command.env_remove(VARIABLE),
    };
    let output = command
        .args(["train", "--only", only, "--rounds", "1", "--steps", "2", "--threads", "1"])
        .arg("--quick")
        .args(more)
        .arg("--out")
        .arg(folder)
        // Where no environment of the benchmarks' own is.
        .current_dir(folder)
        .output()
        .expect("the benchmark starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let file = std::fs::read(folder.join("train.json")).expect("a file of results");
    let result: Value = serde_json::from_slice(&file).expect("JSON");
    assert_eq!(result["failures"], Value::Array(Vec::new()), "{result}");
    result
}

fn rows(result: &Value) -> &[Value] {
    result["rows"].as_array().expect("a list of rows")
}

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn check(only: &str, tolerance: f64) {
    let Some(python) = std::env::var_os(VARIABLE) else {
        eprintln!("SKIPPED: `{VARIABLE}` names no Python with PyTorch");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let result = result(folder.path(), only, Some(&python));
    let rows = rows(&result);
    let is_final_loss = |row: &&Value| {
        row["what"].as_str().is_some_and(|what| what.ends_with("final loss"))
            && row["peer"].as_str().is_some_and(|peer| peer.starts_with("PyTorch 2.11"))
    };
    let row = rows.iter().find(is_final_loss).expect("a row with both losses");
    let ratio = row["ratio"].as_f64().expect("a number");
    assert!((ratio - 1.0).abs() <= tolerance, "{row}");
    let speed = &rows[0];
    assert!(speed["value"].as_f64() > Some(0.0) && speed["ratio"].as_f64() > Some(0.0), "{speed}");
}

#[test]
fn in_fp32_the_losses_are_equal_to_rounding() {
    check("llama-0.3m-t256-fp32", 1e-6);
}

#[test]
fn in_bf16_the_losses_are_equal_to_a_thousandth() {
    check("llama-0.3m-t256-bf16", 1e-3);
}

#[test]
fn cuda_that_is_not_there_is_refused_with_what_is_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(env!("CARGO_BIN_EXE_gradus-bench"))
        .args(["train", "--device", "cuda", "--quick", "--out"])
        .arg(folder.path())
        // Nothing of CUDA is in it.
        .env("GRADUS_LIBTORCH", folder.path())
        .output()
        .expect("the benchmark starts");
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    let reason = "`--device cuda` was asked for: there is no `libtorch_cuda.so`";
    assert!(errors.contains(reason) && errors.contains("GRADUS_LIBTORCH"), "{errors}");
    assert!(!folder.path().join("train.json").exists());
}

#[test]
fn without_pytorch_our_side_is_measured_alone_and_the_result_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let result = result(folder.path(), "llama-0.3m-t256-fp32", None);
    let [row] = rows(&result) else { panic!("not one row: {result}") };
    assert_eq!(row["unit"], "tokens/s");
    assert!(row["value"].as_f64() > Some(0.0) && row.get("peer").is_none(), "{row}");
    let note = result["notes"][0].as_str().expect("a note");
    assert!(note.contains("PyTorch's side is left out"), "{note}");
}

#[test]
fn losses_of_more_steps_are_compared_by_their_last_tenth_beside_the_same_timed_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let more = ["--loss-steps", "60"];
    let result = result_with(folder.path(), "llama-0.3m-t256", None, &more);
    let value = |what: &str, key: &str| {
        let is_row = |row: &&Value| row["what"] == what && row.get(key).is_some();
        let row = rows(&result).iter().find(is_row);
        row.and_then(|row| row[key].as_f64()).unwrap_or_else(|| panic!("no {what}: {result}"))
    };
    for precision in ["fp32", "bf16"] {
        let case = format!("llama-0.3m-t256-{precision}");
        assert!(value(&case, "value") > 0.0);
        let first = value(&format!("{case}, first loss"), "value");
        assert!((first - 1024_f64.ln()).abs() < 0.2, "{first}");
        // What the timed three steps learn is a hundredth of that.
        assert!(value(&format!("{case}, final loss"), "value") < first - 1.0, "{result}");
    }
    let ratio = value("llama-0.3m-t256-bf16, final loss", "ratio");
    assert!((ratio - 1.0).abs() < 0.005, "{ratio}");
    let note = result["notes"][1].as_str().expect("a note");
    assert!(note.contains("the mean of the last 6 of 60 more steps"), "{note}");
}
