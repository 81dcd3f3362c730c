//! Weights that came from Transformers compute here what they compute there, and go back unchanged.
//!
//! The cases and their logits are in `cli/tests/hugging_face`, with the script that made them.

use std::collections::BTreeMap;
use std::fs::{read, read_to_string};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use e2e::{binary, libtorch_is_there};
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

/// What the issue asks for. Both sides compute in F32, in another order of additions.
const LARGEST_DIFFERENCE: f32 = 1e-4;

fn golden(case: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate of the workspace");
    root.join("cli/tests/hugging_face").join(case)
}

fn run(program: &str, arguments: &[&Path]) {
    let output = Command::new(binary(program))
        .args(arguments)
        .env("OMP_NUM_THREADS", "1")
        .output()
        .expect("a program of ours can be started");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} ended with {}: {text}", output.status);
}

fn weights(direction: &str, from: &Path, to: &Path) {
    let [weights, direction, out] = ["weights", direction, "--out"].map(Path::new);
    run("gradus", &[weights, direction, from, out, to]);
}

fn forward(model: &Path, tokens: &Path, out: &Path) {
    let [forward, model_flag, tokens_flag, out_flag] =
        ["forward", "--model", "--tokens", "--out"].map(Path::new);
    run("gradus-worker", &[forward, model_flag, model, tokens_flag, tokens, out_flag, out]);
}

fn logits(file: &Path) -> Result<(Vec<usize>, Vec<f32>)> {
    let bytes = read(file)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let tensor = tensors.tensor("logits")?;
    assert_eq!(tensor.dtype(), Dtype::F32);
    let numbers = tensor.data().as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four));
    Ok((tensor.shape().to_vec(), numbers.collect()))
}

/// The largest difference between the logits that Transformers gives and ours.
fn largest_difference(case: &str, model: &Path, out: &Path) -> Result<f32> {
    forward(model, &golden(case).join("tokens.json"), out);
    let (expected, found) = (logits(&golden(case).join("expected.safetensors"))?, logits(out)?);
    assert_eq!(found.0, expected.0);
    let differences = found.1.iter().zip(&expected.1).map(|(a, b)| (a - b).abs());
    // A number that is none is no small difference.
    assert!(found.1.iter().all(|logit| logit.is_finite()));
    Ok(differences.fold(0.0, f32::max))
}

#[track_caller]
fn check(case: &str) -> Result<()> {
    if !libtorch_is_there() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    weights("import", &golden(case).join("model"), &path("ours"));
    let difference = largest_difference(case, &path("ours"), &path("logits"))?;
    assert!(difference < LARGEST_DIFFERENCE, "{case}: {difference}");
    weights("export", &path("ours"), &path("theirs"));
    weights("import", &path("theirs"), &path("again"));
    for file in ["config.json", "model.safetensors"] {
        assert_eq!(read(path("ours").join(file))?, read(path("again").join(file))?, "{file}");
    }
    // What Transformers wrote is what it is given back: nothing it reads has another name or value.
    let original = golden(case).join("model");
    assert_same_tensors(&tensors(&original)?, &tensors(&path("theirs"))?);
    let config = |folder: &Path| -> Result<Map<String, Value>> {
        Ok(serde_json::from_str(&read_to_string(folder.join("config.json"))?)?)
    };
    let (written, read) = (config(&path("theirs"))?, config(&original)?);
    for (key, value) in &written {
        // Weights are exported in float32, whatever they came in, and without special tokens.
        let is_free = key.ends_with("dtype") || key.ends_with("_token_id");
        // Older versions of Transformers look for the base beside the others.
        let of_rope = (key == "rope_theta").then(|| &read["rope_parameters"]["rope_theta"]);
        let expected = of_rope.or(read.get(key));
        assert!(is_free || expected == Some(value), "`{key}` is {value}");
    }
    let of_the_network = ["model_type", "hidden_act", "rope_parameters", "tie_word_embeddings"];
    assert!(of_the_network.iter().all(|key| written.contains_key(*key)), "{written:?}");
    Ok(())
}

/// A tensor's shape and its numbers; none of those in half precision, which the logits compare.
type Found = (Vec<usize>, Option<Vec<f32>>);

/// The tensors of a folder in Transformers' layout, of all its shards.
fn tensors(folder: &Path) -> Result<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "safetensors") {
            continue;
        }
        let bytes = read(&path)?;
        for (name, tensor) in SafeTensors::deserialize(&bytes)?.tensors() {
            let data = tensor.data();
            let numbers = match tensor.dtype() {
                Dtype::F32 => Some(
                    data.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect(),
                ),
                // The upper half of a float32.
                Dtype::BF16 => Some(
                    data.as_chunks::<2>()
                        .0
                        .iter()
                        .map(|[low, high]| f32::from_le_bytes([0, 0, *low, *high]))
                        .collect(),
                ),
                _ => None,
            };
            found.insert(name, (tensor.shape().to_vec(), numbers));
        }
    }
    Ok(found)
}

fn assert_same_tensors(expected: &BTreeMap<String, Found>, found: &BTreeMap<String, Found>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, (shape, numbers)) in expected {
        assert_eq!(&found[name].0, shape, "{name}");
        if numbers.is_some() {
            assert!(&found[name].1 == numbers, "{name} has other numbers");
        }
    }
}

#[test]
fn a_tied_llama_of_transformers_has_the_same_logits_here() -> Result<()> {
    check("mha-tied")
}

#[test]
fn grouped_queries_and_shards_have_the_same_logits_here() -> Result<()> {
    check("gqa-untied-sharded")
}

#[test]
fn weights_in_bfloat16_have_the_same_logits_here() -> Result<()> {
    check("gqa-bf16")
}

#[test]
fn weights_in_half_precision_have_the_same_logits_here() -> Result<()> {
    check("mqa-f16-tied")
}

#[test]
fn the_comparison_of_logits_notices_another_rotation() -> Result<()> {
    // Aim: the tolerance is not so wide that a wrong pairing of channels could pass.
    if !libtorch_is_there() {
        return Ok(());
    }
    let case = "mha-tied";
    let folder = tempfile::tempdir()?;
    let model = folder.path().join("model");
    weights("import", &golden(case).join("model"), &model);
    let config = read_to_string(model.join("config.json"))?;
    std::fs::write(model.join("config.json"), config.replace("\"half\"", "\"interleaved_full\""))?;
    let difference = largest_difference(case, &model, &folder.path().join("logits"))?;
    assert!(difference > 100.0 * LARGEST_DIFFERENCE, "{difference}");
    Ok(())
}
