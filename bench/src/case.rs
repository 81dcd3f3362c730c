//! What is trained: architecture, size, sequence length and precision, with a name on the command
//! line, and the cell that the trainer is given.

use std::fmt;

use anyhow::{Context, Result, ensure};
use domain::model::Architecture;
use domain::recipe::{CellConfig, NUMERICS_VERSION};
use domain::spec::Precision;
use serde_json::json;

use crate::device::Device;

/// The token ids of all cases.
pub(crate) const VOCAB_SIZE: u16 = 1024;

/// The identity that all cells and the data claim; the benchmarks prepare their tokens themselves.
pub(crate) const PREPARATION_HASH: &str = "bench";

/// Constant over the steps, so that PyTorch needs no schedule of ours.
pub(crate) const LEARNING_RATE: f64 = 1e-3;

/// About so many parameters without the embedding: the first two for a CPU, the others for a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    Small,
    Large,
    M70,
    M160,
    M410,
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
    /// The sizes that a device is measured with, the smallest first.
    pub(crate) const fn of(device: Device) -> &'static [Self] {
        match device {
            Device::Cpu => &[Self::Small, Self::Large],
            Device::Cuda => &[Self::M70, Self::M160, Self::M410],
        }
    }

    /// In fp32 a GPU's larger sizes take long and tell nothing new.
    pub(crate) const fn precisions(self) -> &'static [Precision] {
        match self {
            Self::Small | Self::Large | Self::M70 => &[Precision::Fp32, Precision::Bf16],
            Self::M160 | Self::M410 => &[Precision::Bf16],
        }
    }

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Small => "0.3m",
            Self::Large => "7m",
            Self::M70 => "70m",
            Self::M160 => "160m",
            Self::M410 => "410m",
        }
    }

    /// From 7M on, heads of 64 channels and a channel mixer of 3 d: N of `llama` is 13 L d².
    pub(crate) const fn widths(self) -> Widths {
        let (d_model, n_layers, n_heads, ffn_hidden) = match self {
            Self::Small => (96, 3, 3, 256),
            Self::Large => (256, 8, 4, 768),
            Self::M70 => (768, 9, 12, 2304),
            Self::M160 => (1024, 12, 16, 3072),
            Self::M410 => (1280, 19, 20, 3840),
        };
        Widths { d_model, n_layers, n_heads, ffn_hidden }
    }
}

/// Tokens of a step: seconds of work for two cores, and on a GPU what 80 GB have room for in the
/// largest model.
pub(crate) const fn batch_tokens(device: Device) -> u32 {
    match device {
        Device::Cpu => 2048,
        Device::Cuda => 16_384,
    }
}

/// Tokens of a sequence, each a divisor of those of a step.
const fn sequence_lengths(device: Device) -> [u32; 2] {
    match device {
        Device::Cpu => [256, 2048],
        Device::Cuda => [2048, 8192],
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

/// Every case of the training benchmark on a device.
fn all(device: Device) -> Vec<Case> {
    let mut cases = Vec::new();
    for &size in Size::of(device) {
        for sequence_length in sequence_lengths(device) {
            let batch_sequences = batch_tokens(device) / sequence_length;
            for &architecture in Architecture::ALL {
                for &precision in size.precisions() {
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

/// A device's cases whose name contains one of the texts; all of them without any.
pub(crate) fn chosen(device: Device, only: &[String]) -> Result<Vec<Case>> {
    let cases = all(device);
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
        let cases = all(Device::Cpu);
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
    fn a_size_for_a_gpu_has_as_many_parameters_as_its_name_says() {
        let asked = [(Size::M70, 70e6), (Size::M160, 160e6), (Size::M410, 410e6)];
        let cases = all(Device::Cuda);
        for (size, asked) in asked {
            for case in cases.iter().filter(|case| case.size == size) {
                let CellConfig::Pretrain(cell) = case.cell(3).unwrap();
                cell.model.validate().unwrap();
                assert_eq!((cell.batch_tokens(), cell.steps), (16_384, 3), "{case}");
                for n in [cell.model.parameters_non_embedding(), cell.model.parameters_total()] {
                    assert!((n as f64 / asked - 1.0).abs() < 0.05, "{case}: {n}");
                }
            }
        }
    }

    #[test]
    fn a_gpu_has_longer_texts_and_fp32_at_the_smallest_size_only() {
        let cases = all(Device::Cuda);
        assert_eq!(cases.len(), 4 * 2 * (2 + 1 + 1));
        let names = cases.iter().map(Case::to_string);
        assert_eq!(
            names.filter(|name| name.starts_with("llama")).collect::<Vec<_>>(),
            [
                "llama-70m-t2048-fp32",
                "llama-70m-t2048-bf16",
                "llama-70m-t8192-fp32",
                "llama-70m-t8192-bf16",
                "llama-160m-t2048-bf16",
                "llama-160m-t8192-bf16",
                "llama-410m-t2048-bf16",
                "llama-410m-t8192-bf16",
            ]
        );
    }

    #[test]
    fn cases_are_chosen_by_parts_of_their_names() {
        let names = |only: &[&str]| -> Vec<String> {
            let only: Vec<String> = only.iter().map(|text| (*text).to_owned()).collect();
            chosen(Device::Cpu, &only).unwrap().iter().map(Case::to_string).collect()
        };
        assert_eq!(names(&["llama-7m-t256-fp32"]), ["llama-7m-t256-fp32"]);
        assert_eq!(names(&["tnl-0.3m-t2048"]), ["tnl-0.3m-t2048-fp32", "tnl-0.3m-t2048-bf16"]);
        assert_eq!(names(&["fp32"]).len(), 16);
        assert_eq!(names(&[]).len(), 32);
        for (device, name) in
            [(Device::Cpu, "llama-7m-t256-fp32"), (Device::Cuda, "llama-70m-t2048-fp32")]
        {
            let error = chosen(device, &["gpt".to_owned()]).unwrap_err().to_string();
            assert!(error.contains("`--only gpt`") && error.contains(name), "{error}");
        }
    }
}
