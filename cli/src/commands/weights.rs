//! `gradus weights`: a model's weights from and to the Hugging Face layout.
//!
//! The conversion itself is in `weights`.

use std::collections::BTreeMap;
use std::path::Path;

use domain::model::{MixerConfig, ModelConfig, Shape};
use serde::Serialize;

use crate::args::{Global, WeightsCommand, WeightsPaths};
use crate::failure::Failure;
use crate::output::{Form, View, format, pairs};
use crate::weights::{Transfer, check_out};

/// Which way the weights went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    Import,
    Export,
}

/// What was converted. `gradus weights … --json` prints this.
#[derive(Debug, Clone, Serialize)]
struct WeightsView {
    direction: Direction,
    /// Whether nothing was written.
    is_dry_run: bool,
    /// The folder that was read.
    source: String,
    /// The folder that was made.
    out: String,
    /// The model by the contract.
    config: ModelConfig,
    parameters_total: u64,
    parameters_non_embedding: u64,
    n_tensors: usize,
    /// Size of the weights as written, all of them F32.
    weights_bytes: u64,
    /// How many tensors were of another element type, by type.
    widened: BTreeMap<String, usize>,
    /// Keys of the configuration that mean nothing to the model.
    ignored_keys: Vec<String>,
    /// Tensors that the model does not need.
    ignored_tensors: Vec<String>,
    /// The ids of the tokens that end a text where the weights come from; none for an export.
    stop_tokens: Vec<u64>,
}

pub(super) fn run(global: &Global, command: &WeightsCommand) -> Result<(), Failure> {
    match command {
        WeightsCommand::Import(paths) => {
            check_out(&paths.out)?;
            finish(global, paths, Direction::Import, &Transfer::import(&paths.folder)?)
        }
        WeightsCommand::Export(args) => {
            let paths = &args.paths;
            check_out(&paths.out)?;
            let transfer = Transfer::export(&paths.folder, args.context_length)?;
            finish(global, paths, Direction::Export, &transfer)
        }
    }
}

fn finish(
    global: &Global,
    paths: &WeightsPaths,
    direction: Direction,
    transfer: &Transfer,
) -> Result<(), Failure> {
    if !paths.dry_run {
        transfer.write(&paths.out)?;
    }
    let text = |path: &Path| path.display().to_string();
    let view = WeightsView {
        direction,
        is_dry_run: paths.dry_run,
        source: text(&paths.folder),
        out: text(&paths.out),
        config: transfer.config,
        parameters_total: transfer.config.parameters_total(),
        parameters_non_embedding: transfer.config.parameters_non_embedding(),
        n_tensors: transfer.n_tensors(),
        weights_bytes: transfer.n_bytes(),
        widened: transfer.widened(),
        ignored_keys: transfer.ignored_keys.clone(),
        ignored_tensors: transfer.ignored_tensors.clone(),
        stop_tokens: transfer.stop_tokens.clone(),
    };
    Form::of(paths.json, global.quiet).print(&view)?;
    Ok(())
}

impl View for WeightsView {
    fn table(&self) -> String {
        let (done, would) = match self.direction {
            Direction::Import => ("imported", "import"),
            Direction::Export => ("exported", "export"),
        };
        let verb = if self.is_dry_run { format!("dry run: would {would}") } else { done.into() };
        let title = format!("{verb} `{}` to `{}`", self.source, self.out);
        let parameters = format!(
            "{} ({} without embeddings)",
            format::count(self.parameters_total as f64),
            format::count(self.parameters_non_embedding as f64)
        );
        let lines = pairs(&[
            ("model", model(&self.config)),
            ("widths", widths(&self.config)),
            ("parameters", parameters),
            ("tensors", format!("{}{}", self.n_tensors, self.widening())),
            ("size", format::bytes(self.weights_bytes)),
            ("ignored keys", self.ignored_keys.join(", ")),
            ("ignored tensors", self.ignored_tensors.join(", ")),
            ("stop tokens", self.stopping()),
        ]);
        format!("{title}\n{lines}")
    }

    fn names(&self) -> Vec<String> {
        vec![self.out.clone()]
    }
}

impl WeightsView {
    fn widening(&self) -> String {
        let counts: Vec<String> =
            self.widened.iter().map(|(element, count)| format!("{count} {element}")).collect();
        if counts.is_empty() {
            String::new()
        } else {
            format!(", of them {} widened to F32", counts.join(" and "))
        }
    }

    /// The ids, and how a text ends at them here, where nothing of the model says so.
    fn stopping(&self) -> String {
        if self.stop_tokens.is_empty() {
            return String::new();
        }
        let ids: Vec<String> = self.stop_tokens.iter().map(u64::to_string).collect();
        let options: Vec<String> = ids.iter().map(|id| format!("--stop-token {id}")).collect();
        format!("{} (`gradus-worker generate {}`)", ids.join(", "), options.join(" "))
    }
}

fn model(config: &ModelConfig) -> String {
    let Shape { n_layers, n_heads, .. } = config.shape;
    let heads = match config.mixer {
        MixerConfig::Llama { n_kv_heads, .. } if n_kv_heads != n_heads => {
            format!("{n_heads} heads ({n_kv_heads} for keys and values)")
        }
        _ => format!("{n_heads} heads"),
    };
    let tied = if config.tie_embeddings { "tied" } else { "untied" };
    format!("{}, {n_layers} layers, {heads}, {tied} embeddings", config.architecture())
}

fn widths(config: &ModelConfig) -> String {
    let Shape { vocab_size, d_model, ffn_hidden, .. } = config.shape;
    format!("d_model {d_model}, ffn_hidden {ffn_hidden}, vocab_size {vocab_size}")
}
