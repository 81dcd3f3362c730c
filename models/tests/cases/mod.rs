//! The golden cases of the contract, read from their files.
//!
//! It runs no model.

use std::fs;
use std::path::{Path, PathBuf};

use domain::model::ModelConfig;
use safetensors::SafeTensors;
use tch::{Kind, Tensor};

/// One case: a model, a text, and what it must give.
pub(crate) struct Case {
    /// The folder's name.
    pub(crate) name: String,
    /// `config.json`.
    pub(crate) config: ModelConfig,
    /// `model.safetensors`.
    pub(crate) weights: Vec<(String, Tensor)>,
    /// `tokens.json`, `[B, T]`.
    pub(crate) tokens: Tensor,
    /// `expected.safetensors`.
    pub(crate) expected: Vec<(String, Tensor)>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn tensors(path: &Path) -> Vec<(String, Tensor)> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        assert_eq!(view.dtype(), safetensors::Dtype::F32);
        let shape: Vec<i64> =
            view.shape().iter().map(|size| i64::try_from(*size).unwrap()).collect();
        (name, Tensor::from_data_size(view.data(), &shape, Kind::Float))
    };
    file.tensors().into_iter().map(tensor).collect()
}

/// The case of this name.
pub(crate) fn case(name: &str) -> Case {
    let path = folder().join(name);
    let text = |name: &str| fs::read_to_string(path.join(name)).unwrap();
    let rows: Vec<Vec<i64>> = serde_json::from_str(&text("tokens.json")).unwrap();
    let rows: Vec<Tensor> = rows.iter().map(|row| Tensor::from_slice(row)).collect();
    Case {
        name: name.to_owned(),
        config: serde_json::from_str(&text("config.json")).unwrap(),
        weights: tensors(&path.join("model.safetensors")),
        tokens: Tensor::stack(&rows, 0),
        expected: tensors(&path.join("expected.safetensors")),
    }
}

/// The cases of an architecture.
pub(crate) fn cases(architecture: &str) -> Vec<Case> {
    let names = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.starts_with(architecture));
    names.sort();
    assert!(names.len() >= 4, "the golden cases of {architecture} are there");
    names.iter().map(|name| case(name)).collect()
}
