//! `gradus-worker forward` reproduces every golden case to its tolerance, and `describe` the
//! published table; wrong input is refused with the file and the place.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod program;

use std::fs;
use std::path::Path;
use std::process::Output;

use program::{golden, worker};
use safetensors::SafeTensors;
use serde_json::{Value, json};

/// max |logits − expected| over max |expected|.
const LOGITS_BOUND: f64 = 5e-5;
/// |loss − expected|.
const LOSS_BOUND: f64 = 5e-5;
/// ‖gradient − expected‖ over ‖expected‖.
const GRADIENT_BOUND: f64 = 3e-4;

fn forward(model: &Path, tokens: &Path, out: &Path, flags: &[&str]) -> Output {
    let paths = [model, tokens, out].map(|path| path.to_str().unwrap());
    let mut arguments =
        vec!["forward", "--model", paths[0], "--tokens", paths[1], "--out", paths[2]];
    arguments.extend(flags);
    worker(&arguments)
}

fn values(file: &SafeTensors<'_>, name: &str) -> (Vec<usize>, Vec<f64>) {
    let view = file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
    let numbers = view.data().chunks_exact(4);
    let numbers = numbers.map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    (view.shape().to_vec(), numbers.collect())
}

fn check_case(case: &Path) {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out.safetensors");
    let output = forward(case, &case.join("tokens.json"), &out, &["--loss", "--grad"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let expected_bytes = fs::read(case.join("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&expected_bytes).unwrap();
    let found_bytes = fs::read(&out).unwrap();
    let found = SafeTensors::deserialize(&found_bytes).unwrap();
    for name in expected.names() {
        let ((shape, expected), (found_shape, found)) =
            (values(&expected, name), values(&found, name));
        assert_eq!(found_shape, shape, "{name}");
        let pairs = || found.iter().zip(&expected).map(|(found, expected)| found - expected);
        let norm =
            |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let largest =
            |values: &mut dyn Iterator<Item = f64>| values.map(f64::abs).fold(0.0, f64::max);
        let (error, bound) = match name {
            "logits" => {
                let scale = largest(&mut expected.iter().copied());
                (largest(&mut pairs()) / scale, LOGITS_BOUND)
            }
            "loss" => (largest(&mut pairs()), LOSS_BOUND),
            _ => (norm(&mut pairs()) / norm(&mut expected.iter().copied()), GRADIENT_BOUND),
        };
        assert!(error <= bound, "{} {name}: {error}", case.display());
    }
    // A row of one token has logits only.
    assert_eq!(found.names().contains(&"loss"), expected.names().contains(&"loss"));
}

#[test]
fn every_golden_case_is_reproduced_to_its_tolerance() {
    let mut n_cases = 0;
    for entry in fs::read_dir(golden()).unwrap() {
        let case = entry.unwrap().path();
        if case.is_dir() {
            check_case(&case);
            n_cases += 1;
        }
    }
    assert_eq!(n_cases, 20);
}

#[track_caller]
fn check_refused(model: &Path, tokens: &str, expected: &str) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens.json");
    fs::write(&path, tokens).unwrap();
    let out = directory.path().join("out.safetensors");
    let output = forward(model, &path, &out, &[]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(expected) && text.lines().count() == 1, "{text}");
    assert!(!out.exists());
}

#[test]
fn wrong_tokens_and_models_are_refused_with_the_place() {
    let model = golden().join("tnl-small");
    check_refused(&model, "[[1, 2], [3]]", "row 1 has 1 tokens, row 0 has 2");
    check_refused(&model, "[[1, 61]]", "row 0, token 1 is 61; `vocab_size` 61 allows 0 to 60");
    check_refused(&model, "[[1, -1]]", "row 0, token 1 is -1");
    check_refused(&model, "[[1, 2", "tokens.json` is no list of lists of token ids: EOF");
    check_refused(&model, "[]", "holds no rows");
    check_refused(&model, "[[]]", "row 0 is empty");
    check_refused(&golden().join("nothing"), "[[1]]", "nothing/config.json`: No such file");

    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json");
    fs::write(&config, "{\"architecture\": \"tnl\", }").unwrap();
    check_refused(directory.path(), "[[1]]", "config.json` is no JSON object");
    let mut keys: Value =
        serde_json::from_slice(&fs::read(model.join("config.json")).unwrap()).unwrap();
    fs::write(&config, keys.to_string()).unwrap();
    check_refused(directory.path(), "[[1]]", "could not read");
    fs::write(directory.path().join("model.safetensors"), b"nonsense").unwrap();
    check_refused(directory.path(), "[[1]]", "model.safetensors` is no file of tensors");
    fs::copy(model.join("model.safetensors"), directory.path().join("model.safetensors")).unwrap();
    keys["gate_rank"] = json!(3);
    fs::write(&config, keys.to_string()).unwrap();
    check_refused(directory.path(), "[[1]]", "gate_down.weight` has shape");
    keys["n_laers"] = json!(3);
    fs::write(&config, keys.to_string()).unwrap();
    check_refused(directory.path(), "[[1]]", "n_laers");
}

fn describe(config: &Value, flags: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    fs::write(&path, config.to_string()).unwrap();
    let mut arguments = vec!["describe", "--config", path.to_str().unwrap(), "--json"];
    arguments.extend(flags);
    let output = worker(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The rows of the published table, each as configuration, printed parameters (in millions) and
/// printed FLOPs (in 10^15 a step).
fn published() -> Vec<(Value, String, String)> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../domain/tests/published/linear-lm-sizes.csv");
    let table = fs::read_to_string(path).unwrap();
    let rows = table.lines().skip(1).map(|line| {
        let row: Vec<&str> = line.split(',').collect();
        let size = |column: usize| row[column].parse::<u32>().unwrap();
        let mut config = json!({
            "architecture": row[0], "vocab_size": 100_280, "n_layers": size(2),
            "d_model": size(3), "n_heads": size(4), "ffn_hidden": size(5),
        });
        if row[0] == "llama" {
            for (key, value) in domain::model::Preset::LlamaStudy.keys() {
                config[key] = value;
            }
        }
        (config, row[6].to_owned(), row[7].to_owned())
    });
    rows.collect()
}

#[test]
fn describe_gives_the_published_counts_to_the_printed_digit() {
    let rows = published();
    assert_eq!(rows.len(), 24);
    for (config, parameters, petaflops) in rows {
        let found = describe(&config, &["--sequence-length", "8192"]);
        let millions = found["parameters_non_embedding"].as_f64().unwrap() / 1e6;
        let printed: f64 = parameters.parse().unwrap();
        if config["architecture"] == "cosformer2" {
            assert!((millions / printed - 1.0).abs() < 2e-3, "{config}");
        } else {
            assert_eq!(format!("{millions:.1}"), format!("{printed:.1}"), "{config}");
        }
        let per_token = found["flops_published"]["total"].as_f64().unwrap();
        let printed: f64 = petaflops.parse().unwrap();
        let peta = per_token * 480.0 * 8192.0 / 1e15;
        assert_eq!(format!("{peta:.1}"), format!("{printed:.1}"), "{config}");
        let terms = found["flops_published"]["terms"].as_array().unwrap();
        let sum: f64 = terms.iter().map(|term| term["flops"].as_f64().unwrap()).sum();
        assert!((sum / per_token - 1.0).abs() < 1e-12);
        let of_tensors: u64 = found["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|tensor| {
                let shape = tensor["shape"].as_array().unwrap();
                shape.iter().map(|size| size.as_u64().unwrap()).product::<u64>()
            })
            .sum();
        assert_eq!(found["parameters_total"].as_u64(), Some(of_tensors));
        // The published length is the usual one.
        assert_eq!(describe(&config, &[]), found);
    }
}

#[test]
fn describe_refuses_what_is_no_configuration() {
    let output = worker(&["describe", "--config", "no-such-file", "--json"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("could not read `no-such-file`"), "{text}");
}
