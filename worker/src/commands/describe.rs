//! `gradus-worker describe`: what a configuration means, in numbers.
//!
//! It counts nothing itself; `domain::model` does.

use anyhow::{Result, ensure};
use domain::model::{FlopCount, FlopTerm, ModelConfig, TensorSpec};
use serde::Serialize;

use super::{input, print};
use crate::cli::DescribeArgs;

/// The length of the published study's sequences, for which its FLOPs are printed. Only `llama`'s
/// counts depend on it.
const USUAL_SEQUENCE_LENGTH: u64 = 8192;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Description {
    /// The configuration with every default spelled out.
    config: ModelConfig,
    /// The length that the FLOPs are for.
    sequence_length: u64,
    /// Every tensor by name and shape.
    tensors: Vec<TensorSpec>,
    /// All parameters.
    parameters_total: u64,
    /// All but `embedding.weight` and `head.weight`.
    parameters_non_embedding: u64,
    /// FLOPs per token of training from the tensor shapes.
    flops_exact: Count,
    /// FLOPs per token of training by the published closed form.
    flops_published: Count,
}

/// Operations per token of training, forward and backward.
#[derive(Debug, Serialize)]
struct Count {
    total: f64,
    terms: Vec<FlopTerm>,
}

impl From<FlopCount> for Count {
    fn from(count: FlopCount) -> Self {
        Self { total: count.total(), terms: count.terms }
    }
}

pub(super) fn describe(args: &DescribeArgs) -> Result<()> {
    let config = input::config(&args.config)?;
    let sequence_length = args.sequence_length.unwrap_or(USUAL_SEQUENCE_LENGTH);
    ensure!(sequence_length > 0, "`--sequence-length` must be at least 1");
    let description = Description {
        sequence_length,
        tensors: config.tensors(),
        parameters_total: config.parameters_total(),
        parameters_non_embedding: config.parameters_non_embedding(),
        flops_exact: config.flops_exact(sequence_length).into(),
        flops_published: config.flops_published(sequence_length).into(),
        config,
    };
    if args.json {
        print(&serde_json::to_string_pretty(&description)?);
    } else {
        print(&table(&description));
    }
    Ok(())
}

fn table(description: &Description) -> String {
    let Description { parameters_total, parameters_non_embedding, sequence_length, .. } =
        description;
    let mut lines = vec![
        format!("parameters, total            {parameters_total:>16}"),
        format!("parameters, non-embedding    {parameters_non_embedding:>16}"),
    ];
    for (name, count) in
        [("exact", &description.flops_exact), ("published", &description.flops_published)]
    {
        let title = format!("FLOPs per token, {name}");
        lines.push(format!("{title:<28} {:>16.4e}  (T = {sequence_length})", count.total));
        for FlopTerm { name, flops } in &count.terms {
            lines.push(format!("  {name:<26} {flops:>16.4e}"));
        }
    }
    lines.push("tensors".to_owned());
    for TensorSpec { name, shape } in &description.tensors {
        lines.push(format!("  {name:<40} {shape:?}"));
    }
    lines.join("\n")
}
