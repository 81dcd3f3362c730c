//! The command line's types, and what follows from them for all benchmarks. It measures nothing.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::device::Place;
use crate::dispatch::Database;

/// Measures the training engine on this machine
#[derive(Debug, Parser)]
#[command(name = "gradus-bench", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Training tokens per second, beside PyTorch for `llama`
    Train(TrainArgs),
    /// The linear-attention operators, and step time by sequence length
    Ops(OpsArgs),
    /// What a checkpoint adds to a step
    Checkpoint(CheckpointArgs),
    /// A run under coordinator and worker against the bare loop
    Orchestration(OrchestrationArgs),
    /// Runs that do nothing through a coordinator, and how long one waits
    Dispatch(DispatchArgs),
    /// What a long queue and many idle workers cost
    Scale(ScaleArgs),
    /// How long a killed coordinator and a killed worker are missed
    Recovery(RecoveryArgs),
    /// Train what standard input asks for; started by the others
    #[command(hide = true)]
    Loop,
}

/// What all benchmarks take.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Common {
    /// Intra-op threads of each side
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: u32,
    /// How often each side is measured, in turns
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: Option<u32>,
    /// Less of everything, in under a minute: shows that it works, not how fast it is
    #[arg(long)]
    pub(crate) quick: bool,
    /// Folder for the results as JSON
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
}

impl Common {
    /// The folder of the results, made and with its whole path. What is measured writes there too: the
    /// system's temporary folder may be memory, where nothing waits for a disk.
    pub(crate) fn folder(&self) -> Result<PathBuf> {
        std::fs::create_dir_all(&self.out)
            .and_then(|()| self.out.canonicalize())
            .with_context(|| format!("could not make `{}`", self.out.display()))
    }

    /// The number of rounds asked for, or the usual one.
    pub(crate) fn rounds_or(&self, usual: u32) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { usual })
    }
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(flatten)]
    pub(crate) place: Place,
    /// Only the cases whose name contains this, such as `llama-7m-t256-fp32` or `bf16`; repeatable
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,
    /// Timed steps of each side in a round
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: Option<u32>,
    /// Compare the losses of so many steps, which are trained for that and not timed; the mean of the
    /// last tenth of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) loss_steps: Option<u32>,
    /// Compare bf16 with `torch.compile` too, which compiles for minutes
    #[arg(long)]
    pub(crate) compile: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OpsArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Only what the table's first column names so, such as `vector decay (hgrn2), T = 2048`; repeatable
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Vec<String>,
    /// The longest text of the operators, a power of two
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u32).range(256..=65536))]
    pub(crate) up_to: Option<u32>,
    /// The longest text of the parallel form, whose memory grows as T²
    #[arg(long, value_name = "T", default_value_t = 4096)]
    pub(crate) parallel_up_to: u32,
    /// Timed steps of a model in a round
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) steps: Option<u32>,
}

impl OpsArgs {
    /// Whether something is to be measured whose rows begin so.
    pub(crate) fn wants(&self, what: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|text| what.contains(text.as_str()))
    }
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct CheckpointArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Checkpoints in a round
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) checkpoints: Option<u32>,
    /// Steps from one checkpoint to the next
    #[arg(long, value_name = "N", default_value_t = 8)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) every: u32,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OrchestrationArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Timed steps of each side in a round; enough for more than a minute, so that a checkpoint a
    /// minute is among what is measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=9000))]
    pub(crate) steps: Option<u32>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DispatchArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Only this database
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<Database>,
    /// Runs in a round
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) runs: Option<u32>,
    /// Workers
    #[arg(long, value_name = "N", default_value_t = 4)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: u32,
    /// Slots of each worker
    #[arg(long, value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) slots: u32,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Only this database
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<Database>,
    /// Runs in the long queue
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) queued: Option<u32>,
    /// Idle workers
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) workers: Option<u32>,
}

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RecoveryArgs {
    #[command(flatten)]
    pub(crate) common: Common,
    /// Only this database
    #[arg(long, value_name = "NAME")]
    pub(crate) database: Option<Database>,
    /// Runs that are queued when the coordinator is killed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) queued: Option<u32>,
    /// Runs that are leased then
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) leased: Option<u32>,
    /// Workers killed, one after the other
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) kills: Option<u32>,
}
