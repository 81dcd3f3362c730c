//! How fast runs that do nothing go through a coordinator: real gRPC, every change durable before it
//! is acknowledged; and how long a submitted run waits for an idle worker.
//!
//! The workers here speak the protocol and train nothing; the coordinator is the program itself.

pub(crate) mod recovery;
pub(crate) mod scale;
mod server;
mod workers;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::args::DispatchArgs;
use crate::report::{Report, Row};
use crate::say;
use server::Server;
use workers::Worker;

/// Which database is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Database {
    Sqlite,
    Postgres,
}

impl Database {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

pub(crate) fn measure(args: &DispatchArgs) -> Result<Report> {
    let mut report = Report::new("dispatch", &args.common)?;
    let n_runs = args.runs.unwrap_or(if args.common.quick { 200 } else { 10_000 });
    let n_latencies = if args.common.quick { 20 } else { 300 };
    report.note(format!(
        "{n_runs} runs in one study, {} workers with {} slots each; a run is granted, reports that \
         it has begun and its last checkpoint, and ends: three durable changes, each acknowledged \
         before the next. Latency: from sending a study of one run to its assignment in a worker \
         that waits, {n_latencies} times, one after the other.",
        args.workers, args.slots
    ));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let rounds = args.common.rounds_or(3);
    let databases = match args.database {
        Some(database) => vec![database],
        None => vec![Database::Sqlite, Database::Postgres],
    };
    for database in databases {
        let mut found: Vec<Round> = Vec::new();
        for _ in 0..rounds {
            say(&format!("{} …", database.label()));
            let Some(server) = Server::start(database, &args.common.folder()?)? else {
                break;
            };
            found.push(runtime.block_on(round(args, &server, n_runs, n_latencies))?);
        }
        if found.is_empty() {
            report.note(format!("{} is not installed here.", database.label()));
            continue;
        }
        let label = database.label();
        let mut add = |what: &str, unit, value: fn(&Round) -> f64| {
            let values: Vec<f64> = found.iter().map(value).collect();
            report.add(Row::alone(format!("{label}, {what}"), unit, &values));
        };
        add("runs submitted", "runs/s", |round| round.submitted_per_second);
        add("runs carried out", "runs/s", |round| round.runs_per_second);
        add("submit to assignment, p50", "ms", |round| round.p50_ms);
        add("submit to assignment, p99", "ms", |round| round.p99_ms);
    }
    Ok(report)
}

/// What one round measured.
struct Round {
    submitted_per_second: f64,
    runs_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

async fn round(
    args: &DispatchArgs,
    server: &Server,
    n_runs: u32,
    n_latencies: u32,
) -> Result<Round> {
    // The data is prepared first, so that the runs are queued when they come.
    let first = Worker::join(server, "first", 1).await?;
    server.apply("warm-up", 1, 0).await?;
    first.work_until(2).await?;

    let begun = Instant::now();
    server.apply("many", n_runs, 1).await?;
    let submitted = begun.elapsed();

    let mut workers = Vec::new();
    for number in 0..args.workers {
        workers.push(Worker::join(server, &format!("worker-{number}"), args.slots).await?);
    }
    let begun = Instant::now();
    let counter = workers::Counter::new(n_runs);
    let working = workers.iter().map(|worker| worker.work_with(&counter));
    for done in futures::future::join_all(working).await {
        done?;
    }
    let elapsed = begun.elapsed();
    ensure!(server.n_succeeded("many").await? == u64::from(n_runs), "not every run succeeded");
    for worker in workers {
        worker.leave().await?;
    }

    let mut waits = Vec::new();
    for number in 0..n_latencies {
        waits.push(wait_once(server, &first, number).await?);
    }
    waits.sort();
    let at_percent = |percent: usize| {
        waits.get((waits.len() - 1) * percent / 100).map_or(0.0, |wait| wait.as_secs_f64() * 1000.0)
    };
    Ok(Round {
        submitted_per_second: f64::from(n_runs) / submitted.as_secs_f64(),
        runs_per_second: f64::from(n_runs) / elapsed.as_secs_f64(),
        p50_ms: at_percent(50),
        p99_ms: at_percent(99),
    })
}

/// One run from its submission to its assignment, with the worker waiting beforehand.
async fn wait_once(server: &Server, worker: &Worker, number: u32) -> Result<Duration> {
    let name = format!("one-{number}");
    let taking = worker.take_one();
    let submitting = async {
        // The poll is open by then: it is answered when something comes.
        tokio::time::sleep(Duration::from_millis(5)).await;
        let begun = Instant::now();
        server.apply(&name, 1, 10_000 + number).await?;
        anyhow::Ok(begun)
    };
    let (taken, begun) = tokio::join!(taking, submitting);
    let (at, assignment) = taken?;
    let waited = at.saturating_duration_since(begun?);
    worker.carry_out(assignment).await?;
    Ok(waited)
}
