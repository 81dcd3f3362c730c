//! What is trained: architecture, size, sequence length and precision, with a name on the command
//! line, and the cell that the trainer is given.

use std::fmt;

use anyhow::{Context, Result, ensure};
use domain::model::Architecture;
use domain::recipe::{CellConfig, NUMERICS_VERSION};
use domain::spec::Precision;
use serde_json::json;

/// The token ids of all cases.
pub(crate) const VOCAB_SIZE: u16 = 1024;

/// The identity that all cells and the data claim; the benchmarks prepare their tokens themselves.
pub(crate) const PREPARATION_HASH: &str = "bench";

/// Constant over the steps, so that PyTorch needs no schedule of ours.
pub(crate) const LEARNING_RATE: f64 = 1e-3;

/// About so many parameters without the embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Large,
}

/// Widths of a size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Widths {
    pub(crate) d_model: u32,
    pub(crate) n_layers: u32,
    pub(crate) n_heads: u32,
    pub(crate) ffn_hidden: u32,
}

impl Size {
    pub(crate) const ALL: [Self; 2] = [Self::Small, Self::Large];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Small => "0.3m",
            Self::Large => "7m",
        }
    }

    pub(crate) const fn widths(self) -> Widths {
        match self {
            Self::Small => Widths { d_model: 96, n_layers: 3, n_heads: 3, ffn_hidden: 256 },
            Self::Large => Widths { d_model: 256, n_layers: 8, n_heads: 4, ffn_hidden: 768 },
        }
    }
}

/// One thing to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) architecture: Architecture,
    pub(crate) size: Size,
    pub(crate) sequence_length: u32,
    pub(crate) batch_sequences: u32,
    pub(crate) precision: Precision,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { architecture, size, sequence_length, .. } = self;
        write!(f, "{architecture}-{}-t{sequence_length}-{}", size.label(), self.precision_label())
    }
}

impl Case {
    /// The name of the precision in cells, names and for PyTorch.
    pub(crate) fn precision_label(&self) -> &'static str {
        match self.precision {
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
        }
    }

    /// Tokens of one step.
    pub(crate) fn batch_tokens(&self) -> u32 {
        self.batch_sequences * self.sequence_length
    }

    /// The cell that trains this for so many steps.
    pub(crate) fn cell(&self, steps: u32) -> Result<CellConfig> {
        let Widths { d_model, n_layers, n_heads, ffn_hidden } = self.size.widths();
        // Keys, not fields: what is not said here has the default that studies have.
        let keys = json!({ "pretrain": {
            "numerics_version": NUMERICS_VERSION,
            "model": {
                "architecture": self.architecture.label(), "vocab_size": VOCAB_SIZE,
                "d_model": d_model, "n_layers": n_layers, "n_heads": n_heads,
                "ffn_hidden": ffn_hidden,
            },
            "training": {
                "sequence_length": self.sequence_length,
                "batch_sequences": self.batch_sequences,
                "precision": self.precision_label(),
                "optimizer": { "learning_rate": LEARNING_RATE },
                "schedule": { "constant": { "warmup_steps": 0 } },
            },
            "steps": steps,
            "preparation_hash": PREPARATION_HASH,
        }});
        serde_json::from_value(keys).with_context(|| format!("`{self}` is no cell"))
    }
}

/// Every case of the training benchmark: 2048 tokens a step.
fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in Size::ALL {
        for (sequence_length, batch_sequences) in [(256, 8), (2048, 1)] {
            for &architecture in Architecture::ALL {
                for precision in [Precision::Fp32, Precision::Bf16] {
                    cases.push(Case {
                        architecture,
                        size,
                        sequence_length,
                        batch_sequences,
                        precision,
                    });
                }
            }
        }
    }
    cases
}

/// The cases whose name contains one of the texts; all of them without any.
pub(crate) fn chosen(only: &[String]) -> Result<Vec<Case>> {
    let cases = all();
    for text in only {
        ensure!(
            cases.iter().any(|case| case.to_string().contains(text.as_str())),
            "`--only {text}` is in no case's name; valid: {}",
            cases.iter().map(Case::to_string).collect::<Vec<_>>().join(", ")
        );
    }
    let is_chosen = |case: &Case| {
        only.is_empty() || only.iter().any(|text| case.to_string().contains(text.as_str()))
    };
    Ok(cases.into_iter().filter(is_chosen).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_a_valid_cell_of_about_its_size() {
        let cases = all();
        assert_eq!(cases.len(), 4 * 2 * 2 * 2);
        for case in cases {
            let CellConfig::Pretrain(cell) = case.cell(3).unwrap();
            cell.model.validate().unwrap();
            assert_eq!((cell.batch_tokens(), cell.steps), (2048, 3), "{case}");
            let n = cell.model.parameters_non_embedding() as f64;
            let asked = if case.size == Size::Small { 0.33e6 } else { 7e6 };
            assert!((n / asked - 1.0).abs() < 0.25, "{case}: {n}");
            assert_eq!(cell.learning_rate(0), LEARNING_RATE);
            assert_eq!(cell.learning_rate(2), LEARNING_RATE);
        }
    }

    #[test]
    fn cases_are_chosen_by_parts_of_their_names() {
        let names = |only: &[&str]| -> Vec<String> {
            let only: Vec<String> = only.iter().map(|text| (*text).to_owned()).collect();
            chosen(&only).unwrap().iter().map(Case::to_string).collect()
        };
        assert_eq!(names(&["llama-7m-t256-fp32"]), ["llama-7m-t256-fp32"]);
        assert_eq!(names(&["tnl-0.3m-t2048"]), ["tnl-0.3m-t2048-fp32", "tnl-0.3m-t2048-bf16"]);
        assert_eq!(names(&["fp32"]).len(), 16);
        assert_eq!(names(&[]).len(), 32);
        let error = chosen(&["gpt".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("`--only gpt`") && error.contains("llama-7m-t256-fp32"), "{error}");
    }
}
