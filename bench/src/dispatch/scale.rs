//! What size costs: a long queue, and many workers that have nothing to do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::Database;
use super::server::Server;
use super::workers::Worker;
use crate::args::ScaleArgs;
use crate::report::{Report, Row};
use crate::say;

/// The queue that the long one is compared with.
const SHORT_QUEUE: u32 = 1_000;

/// How long idle workers are watched.
const WATCHED: Duration = Duration::from_secs(20);

/// How often a worker of a local coordinator says that it lives, with the usual lease term or less.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Registrations at a time: as many machines as come up together.
const JOINING_AT_A_TIME: usize = 64;

/// Workers on one connection, so that their number does not meet the limit of open files.
const WORKERS_PER_CONNECTION: usize = 100;

pub(crate) fn measure(args: &ScaleArgs) -> Result<Report> {
    let mut report = Report::new("scale", &args.common)?;
    let quick = args.common.quick;
    let n_queued = args.queued.unwrap_or(if quick { 2_000 } else { 100_000 });
    let n_workers = args.workers.unwrap_or(if quick { 50 } else { 10_000 });
    let n_taken = if quick { 20 } else { 300 };
    report.note(format!(
        "`next`: from the acknowledged end of a run to the next assignment, one worker with one slot, \
         {n_taken} times; beside it the same with {SHORT_QUEUE} queued. Peak memory is the most that the \
         coordinator had in RAM until the long study was retried. Idle workers hold a poll open and \
         send a heartbeat every {} s.",
        HEARTBEAT.as_secs()
    ));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    for database in args.database.map_or(vec![Database::Sqlite, Database::Postgres], |d| vec![d]) {
        let label = database.label();
        say(&format!("{label} …"));
        let Some(server) = Server::start(database, &args.common.folder()?)? else {
            report.note(format!("{label} is not installed here."));
            continue;
        };
        let queue = runtime.block_on(queue(&server, n_queued, n_taken))?;
        let submitted = f64::from(n_queued) / queue.submitted.as_secs_f64();
        let what = |what: &str| format!("{label}, {n_queued} queued, {what}");
        report.add(Row::alone(what("submitted"), "runs/s", &[submitted]));
        for (name, took) in queue.verbs {
            let rate = f64::from(n_queued) / took.as_secs_f64();
            report.add(Row::alone(what(name), "runs/s", &[rate]));
        }
        report.add(Row::alone(what("peak memory"), "MiB", &[queue.peak_mib]));
        for (name, percent) in [("next, p50", 50), ("next, p99", 99)] {
            let short = at_percent(&queue.short, percent);
            let row = Row::alone(what(name), "ms", &[at_percent(&queue.long, percent)]);
            report.add(row.beside(&[at_percent(&queue.long, percent)], "short queue", &[short]));
        }
    }
    let Some(server) = Server::start(Database::Sqlite, &args.common.folder()?)? else {
        return Ok(report);
    };
    let share = runtime.block_on(idle(&server, n_workers))?;
    let what = format!("SQLite, {n_workers} idle workers, of one core");
    report.add(Row::alone(what, "%", &[share * 100.0]));
    Ok(report)
}

/// What a queue costs.
struct Queue {
    submitted: Duration,
    /// What is asked of all of it afterwards.
    verbs: [(&'static str, Duration); 3],
    /// The most memory until then.
    peak_mib: f64,
    /// Waits for the next assignment, ascending.
    short: Vec<Duration>,
    long: Vec<Duration>,
}

async fn queue(server: &Server, n_queued: u32, n_taken: u32) -> Result<Queue> {
    let worker = Worker::join(server, "only", 1).await?;
    server.apply("warm-up", 1, 0).await?;
    worker.work_until(2).await?;
    server.apply("short", SHORT_QUEUE.max(n_taken + 1), 1).await?;
    let short = waits(&worker, n_taken).await?;
    let begun = Instant::now();
    server.apply("long", n_queued.max(n_taken + 1), 2).await?;
    let submitted = begun.elapsed();
    let long = waits(&worker, n_taken).await?;
    let begun = Instant::now();
    server.apply("long", n_queued.max(n_taken + 1), 2).await?;
    let again = begun.elapsed();
    let begun = Instant::now();
    server.change("long", "cancel", &json!({ "reason": "measured" })).await?;
    let cancelled = begun.elapsed();
    let begun = Instant::now();
    server.change("long", "retry", &json!({})).await?;
    let verbs = [("applied again", again), ("cancelled", cancelled), ("retried", begun.elapsed())];
    let peak_mib = server.peak_bytes()? as f64 / f64::from(1 << 20);
    Ok(Queue { submitted, verbs, peak_mib, short, long })
}

/// From the end of a run to the next assignment, so many times, ascending.
async fn waits(worker: &Worker, n: u32) -> Result<Vec<Duration>> {
    let (_, mut assignment) = worker.take_one().await?;
    let mut waits = Vec::new();
    for _ in 0..n {
        worker.carry_out(assignment).await?;
        let ended = Instant::now();
        let (at, next) = worker.take_one().await?;
        waits.push(at.saturating_duration_since(ended));
        assignment = next;
    }
    worker.carry_out(assignment).await?;
    waits.sort();
    Ok(waits)
}

fn at_percent(ascending: &[Duration], percent: usize) -> f64 {
    let index = ascending.len().saturating_sub(1) * percent / 100;
    ascending.get(index).map_or(0.0, |wait| wait.as_secs_f64() * 1000.0)
}

/// The share of a core that so many idle workers take of the coordinator.
async fn idle(server: &Server, n_workers: u32) -> Result<f64> {
    say(&format!("{n_workers} workers join …"));
    let workers = join_all(server, n_workers).await?;
    say("they are idle …");
    let mut living = JoinSet::new();
    for (number, worker) in workers.iter().cloned().enumerate() {
        // Spread over the interval, as machines are that came up at their own times.
        let offset = HEARTBEAT * u32::try_from(number)? / n_workers.max(1);
        let beating = worker.clone();
        living.spawn(async move { beating.beat(offset, HEARTBEAT).await });
        living.spawn(async move { worker.wait_for_work().await });
    }
    // The first round of polls is no idling yet.
    tokio::time::sleep(HEARTBEAT).await;
    let (begun, before) = (Instant::now(), server.cpu_time()?);
    tokio::time::sleep(WATCHED).await;
    let spent = server.cpu_time()?.saturating_sub(before);
    let share = spent.as_secs_f64() / begun.elapsed().as_secs_f64();
    if let Some(ended) = living.try_join_next() {
        ended??;
    }
    living.shutdown().await;
    Ok(share)
}

async fn join_all(server: &Server, n_workers: u32) -> Result<Vec<Arc<Worker>>> {
    let names: Vec<String> = (0..n_workers).map(|number| format!("idle-{number}")).collect();
    let mut workers = Vec::with_capacity(names.len());
    for names in names.chunks(WORKERS_PER_CONNECTION) {
        let channel = Channel::from_shared(server.grpc_url.clone())?.connect().await?;
        for names in names.chunks(JOINING_AT_A_TIME) {
            let joining = names.iter().map(|name| Worker::join_on(&channel, server, name, 1));
            for worker in futures::future::join_all(joining).await {
                workers.push(Arc::new(worker?));
            }
        }
    }
    Ok(workers)
}
