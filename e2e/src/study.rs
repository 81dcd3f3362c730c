//! A study small enough to be trained within a test.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What a tiny study asks for.
#[derive(Debug, Clone)]
pub struct TinyStudy {
    /// Its name.
    pub name: &'static str,
    /// The presets of the architectures.
    pub architectures: &'static [&'static str],
    /// The model widths; each is one size.
    pub widths: &'static [u32],
    /// Training tokens of each cell.
    pub tokens: u64,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// How many slots a run takes at a time.
    pub slots: u32,
}

impl Default for TinyStudy {
    fn default() -> Self {
        Self {
            name: "tiny",
            architectures: &["llama"],
            widths: &[16],
            tokens: 16_384,
            learning_rate: 3e-3,
            slots: 1,
        }
    }
}

/// Writes a study file and its text into a folder and gives the file's path.
///
/// # Panics
/// If the folder cannot be written.
pub fn tiny_study(folder: &Path, study: &TinyStudy) -> PathBuf {
    std::fs::write(folder.join("text.txt"), text()).expect("a writable folder");
    let sizes: Vec<String> = study
        .widths
        .iter()
        .map(|width| {
            let ffn = width * 3;
            format!(
                "            - {{label: d{width}, model.d_model: {width}, model.n_heads: 2, \
                 model.ffn_hidden: {ffn}}}"
            )
        })
        .collect();
    let TinyStudy { name, tokens, learning_rate, slots, .. } = study;
    let text = format!(
        "version: 1
name: {name}
data:
  corpora:
    - {{name: text, files: [text.txt]}}
  validation_fraction: 0.2
stages:
  - name: pretrain
    recipe:
      pretrain:
        model: {{n_layers: 2}}
        training:
          sequence_length: 32
          batch_sequences: 4
          optimizer: {{learning_rate: {learning_rate}}}
          schedule: {{constant: {{warmup_steps: 4}}}}
        axes:
          - {{name: architecture, field: model.preset, values: [{architectures}]}}
          - name: size
            values:
{sizes}
        design: {{fixed_tokens: {{tokens: {tokens}}}}}
        checkpoints: {{log_spaced: {{count: 4}}}}
        evaluate: [{{task: validation_loss, sequences: 8}}]
fit: {{group_by: architecture, draws: 100}}
runtime: {{rolling_checkpoint_seconds: 1, placement: {{slots: {slots}}}}}
",
        architectures = study.architectures.join(", "),
        sizes = sizes.join("\n"),
    );
    let path = folder.join(format!("{name}.yaml"));
    std::fs::write(&path, text).expect("a writable folder");
    path
}

/// Some 60 KiB of lines with structure that a tiny model can learn.
fn text() -> String {
    let mut text = String::new();
    let mut state: u64 = 7;
    for line in 0..1500 {
        // A linear congruential generator (Knuth's MMIX constants): varied, the same everywhere.
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let words = ["the", "step", "climbs", "a", "ladder", "of", "sizes", "slowly"];
        let first = words[(state >> 40) as usize % words.len()];
        let second = words[(state >> 50) as usize % words.len()];
        writeln!(text, "{line}: {first} {second} and {first} again.").expect("a string grows");
    }
    text
}
