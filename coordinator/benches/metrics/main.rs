//! How many metric points a second the store acknowledges as durable, what they take on disk, and how
//! fast a chart of them is read; beside the naive twin, one row a point in the same database.
//!
//! `make bench-metrics` runs it. It prints a Markdown table and writes `target/bench/metrics.json`.

mod naive;
mod ours;
mod rows;
mod series;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Parser;
use test_postgres::{Disk, Server};

use rows::Rows;

/// Measures the store of metric points
#[derive(Debug, Clone, Parser)]
#[command(name = "metrics")]
struct Args {
    /// How often each side is measured, in turns
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,
    /// Runs that report at the same time
    #[arg(long, value_name = "N", default_value_t = 8)]
    runs: u32,
    /// Series of each run
    #[arg(long, value_name = "N", default_value_t = 14)]
    series: u32,
    /// Steps in a report
    #[arg(long, value_name = "N", default_value_t = 64)]
    steps: u64,
    /// Reports of each run
    #[arg(long, value_name = "N", default_value_t = 500)]
    reports: u64,
    /// Less of everything: shows that it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Folder for the results as JSON; what is measured is written there too
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    // Cargo says so to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a round measured on one side.
#[derive(Debug, Clone, Copy)]
struct Measured {
    points_per_second: f64,
    bytes_per_point: f64,
    /// The same without what a vacuum frees; of PostgreSQL only.
    vacuumed_bytes_per_point: Option<f64>,
    chart_p95_ms: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.rounds, args.reports) = (1, 50);
    }
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("could not make `{}`", args.out.display()))?;
    args.out = args.out.canonicalize()?;
    let n_points = u64::from(args.runs * args.series) * args.steps * args.reports;
    let mut rows = Rows::new(format!(
        "{n_points} points: {} runs at a time with {} series each, every one a noisy loss of 32-bit \
         floats; a report has {} steps and is acknowledged before the run's next one. The naive twin \
         stores one row a point, in the same transactions. The chart is one series of every run, 400 \
         points each.",
        args.runs, args.series, args.steps
    ));
    let (mut ours, mut naive) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        ours.push(ours::on_sqlite(&args).await?);
        naive.push(naive::on_sqlite(&args).await?);
    }
    rows.add("SQLite", &ours, &naive);
    let (mut ours, mut naive) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds {
        let Some(server) = Server::start(Disk::Synced) else { break };
        ours.push(ours::on_postgres(&args, &server).await?);
        let Some(server) = Server::start(Disk::Synced) else { break };
        naive.push(naive::on_postgres(&args, &server).await?);
    }
    if !naive.is_empty() {
        rows.add("PostgreSQL", &ours, &naive);
    }
    rows.print();
    rows.write(&args.out)
}
