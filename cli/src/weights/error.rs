//! Why weights cannot be converted.
//!
//! It prints nothing.

use std::path::PathBuf;

use domain::model::{HuggingFaceError, ModelError};
use safetensors::Dtype;

/// Names listed in full; the rest is counted.
const LISTED_NAMES: usize = 3;

/// Weights that were not converted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WeightsError {
    /// A file cannot be read.
    #[error("could not read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file or folder cannot be written.
    #[error("could not write `{}`", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is no JSON of the form that is expected.
    #[error("`{}` is not the JSON that it should be", path.display())]
    Json {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A model that one of the two sides cannot express.
    #[error("`{}` describes a model that cannot be converted", path.display())]
    Model {
        /// The configuration.
        path: PathBuf,
        /// What in it.
        #[source]
        source: Box<HuggingFaceError>,
    },
    /// Not a configuration of the contract.
    #[error("`{}` is no configuration of a model of ours", path.display())]
    Contract {
        /// The configuration.
        path: PathBuf,
        /// What in it.
        #[source]
        source: Box<ModelError>,
    },
    /// There is no file with weights that can be read.
    #[error(
        "`{}` has neither `model.safetensors` nor `model.safetensors.index.json`; pickled weights \
         (`.bin`, `.pt`, `.pth`) are not read",
        folder.display()
    )]
    NoWeights {
        /// Where.
        folder: PathBuf,
    },
    /// Two sets of weights.
    #[error(
        "`{}` has `model.safetensors` and `model.safetensors.index.json`; move one of them away",
        folder.display()
    )]
    TwoWeights {
        /// Where.
        folder: PathBuf,
    },
    /// A file is no whole safetensors file.
    #[error("`{}` is no whole safetensors file: {problem}", path.display())]
    Format {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The index and the files that it names do not agree.
    #[error("`{}` does not fit its files: {problem}", path.display())]
    Index {
        /// The index.
        path: PathBuf,
        /// Where they differ.
        problem: String,
    },
    /// The file's tensors are not those of the configuration.
    #[error("the tensors are not those of `config.json`{}", names(missing, extra))]
    Names {
        /// Of the configuration, not of the file.
        missing: Vec<String>,
        /// Of the file, not of the configuration.
        extra: Vec<String>,
    },
    /// A tensor has other sizes than the configuration says.
    #[error("`{name}` has the shape {found:?}; valid: {expected:?}, by `config.json`")]
    Shape {
        /// Which.
        name: String,
        /// As in the file.
        found: Vec<u64>,
        /// By the configuration.
        expected: Vec<u64>,
    },
    /// A tensor's numbers are of a type that is not read.
    #[error("`{name}` has elements of type {dtype}; valid: F32, F16, BF16")]
    ElementType {
        /// Which.
        name: String,
        /// The type.
        dtype: Dtype,
    },
    /// Tied by the configuration, not by the numbers.
    #[error(
        "`lm_head.weight` is not `model.embed_tokens.weight`, but `tie_word_embeddings` is true; \
         valid: false, or weights without `lm_head.weight`"
    )]
    UntiedHead,
    /// There is something where the result should go.
    #[error("`{}` is there and is no empty folder; give another `--out`", path.display())]
    OutTaken {
        /// Where.
        path: PathBuf,
    },
    /// The place for the result has no name of its own.
    #[error("`--out` is `{}`; valid: a folder that can be made, such as `model`", path.display())]
    OutName {
        /// Where.
        path: PathBuf,
    },
}

impl WeightsError {
    /// Whether what was asked for is wrong, rather than this machine.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Write { .. })
    }
}

fn names(missing: &[String], extra: &[String]) -> String {
    let part = |what: &str, names: &[String]| {
        let shown: Vec<String> =
            names.iter().take(LISTED_NAMES).map(|name| format!("`{name}`")).collect();
        let more = match names.len().saturating_sub(LISTED_NAMES) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        if names.is_empty() {
            String::new()
        } else {
            format!("; {what}: {}{more}", shown.join(", "))
        }
    };
    part("missing", missing) + &part("not of the model", extra)
}
