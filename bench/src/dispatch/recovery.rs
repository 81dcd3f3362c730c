//! How long it takes until work goes on after a coordinator was killed, and after a worker was.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, ClusterOptions, TinyStudy, tiny_study, wait_for};
use tokio::runtime::Runtime;

use super::Database;
use super::server::Server;
use super::workers::Worker;
use crate::args::RecoveryArgs;
use crate::report::{Report, Row};
use crate::say;

/// The slots of the worker that takes one more run after each restart; more than there are restarts.
const FURTHER_SLOTS: u32 = 1024;

/// What `gradus up` gives its coordinator.
const LOCAL_LEASE_TERM_MS: u64 = 5_000;

/// A coordinator that does not answer within it is missed for good.
const DEADLINE: Duration = Duration::from_mins(2);

const PAUSE: Duration = Duration::from_millis(1);

pub(crate) fn measure(args: &RecoveryArgs) -> Result<Report> {
    let mut report = Report::new("recovery", &args.common)?;
    let is_quick = args.common.quick;
    let n_queued = args.queued.unwrap_or(if is_quick { 1_000 } else { 100_000 });
    let n_leased = args.leased.unwrap_or(if is_quick { 10 } else { 1_000 });
    let n_kills = args.kills.unwrap_or(if is_quick { 2 } else { 20 });
    report.note(format!(
        "The coordinator is killed with {n_queued} runs queued and {n_leased} leased, and started \
         at once on the same store. Times are from its start: until a heartbeat has renewed all \
         leases, and until a further slot was given its next run. {n_kills} workers are killed, \
         one after the other, under the settings of `gradus up` (a lease term of \
         {LOCAL_LEASE_TERM_MS} ms): from the kill until the store has the next step of its run, by \
         another worker."
    ));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("could not start the runtime")?;
    let databases = match args.database {
        Some(database) => vec![database],
        None => vec![Database::Sqlite, Database::Postgres],
    };
    for database in databases {
        let label = database.label();
        say(&format!("{label}: submitting {n_queued} runs …"));
        let Some(mut server) = Server::start(database, &args.common.folder()?)? else {
            report.note(format!("{label} is not installed here."));
            continue;
        };
        let mut restarts = Restarts::begin(&runtime, &mut server, n_queued, n_leased)?;
        let mut found = Vec::new();
        for _ in 0..args.common.rounds_or(5) {
            found.push(restarts.once(&runtime, &mut server)?);
        }
        let mut add = |what: &str, of: fn(&Restart) -> Duration| {
            let values: Vec<f64> = found.iter().map(|restart| of(restart).as_secs_f64()).collect();
            report.add(Row::alone(format!("{label}, {what}"), "s", &values));
        };
        add("coordinator started to leases renewed", |restart| restart.renewed);
        add("coordinator started to next run granted", |restart| restart.granted);
    }
    say("killing workers …");
    let mut waits = kill_workers(n_kills)?;
    waits.sort_by(f64::total_cmp);
    // The smallest that so many percent do not exceed.
    let at_percent = |percent: usize| waits[(waits.len() * percent).div_ceil(100) - 1];
    report.add(Row::alone("worker killed to next step elsewhere, p50", "s", &[at_percent(50)]));
    report.add(Row::alone("worker killed to next step elsewhere, p95", "s", &[at_percent(95)]));
    report.add(Row::alone(
        "worker killed to next step elsewhere, longest",
        "s",
        &[at_percent(100)],
    ));
    Ok(report)
}

/// What one restart of a coordinator took.
struct Restart {
    renewed: Duration,
    granted: Duration,
}

/// A study with many runs, some of which one worker holds.
struct Restarts {
    holder: Worker,
    tokens: Vec<u64>,
    further: Worker,
    n_further: u64,
    n_runs: u64,
}

impl Restarts {
    fn begin(runtime: &Runtime, server: &mut Server, n_queued: u32, n_leased: u32) -> Result<Self> {
        runtime.block_on(async {
            let first = Worker::join(server, "first", 1).await?;
            server.apply("warm-up", 1, 0).await?;
            first.work_until(2).await?;
            first.leave().await?;
            server.apply("many", n_queued + n_leased, 1).await?;
            let holder = Worker::join(server, "holder", n_leased).await?;
            let tokens = holder.hold(n_leased).await?;
            let further = Worker::join(server, "further", FURTHER_SLOTS).await?;
            // A study of learning rates times seeds may have some more.
            let n_runs =
                server.n_in("many", "leased").await? + server.n_in("many", "queued").await?;
            ensure!(n_runs >= u64::from(n_queued + n_leased), "only {n_runs} runs are there");
            Ok(Self { holder, tokens, further, n_further: 0, n_runs })
        })
    }

    fn once(&mut self, runtime: &Runtime, server: &mut Server) -> Result<Restart> {
        server.kill();
        let begun = Instant::now();
        server.serve()?;
        runtime.block_on(async {
            let n_stale = loop {
                match self.holder.renew(&self.tokens).await {
                    Ok(n_stale) => break n_stale,
                    Err(error) => {
                        ensure!(begun.elapsed() < DEADLINE, "nobody renews leases: {error:#}");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            let renewed = begun.elapsed();
            ensure!(n_stale == 0, "{n_stale} leases are lost");
            let (granted_at, assignment) = self.further.take_one().await?;
            let is_new = !self.tokens.contains(&assignment.lease_token);
            ensure!(is_new, "a lease is granted twice");
            self.n_further += 1;
            let n_leased = server.n_in("many", "leased").await?;
            let n_queued = server.n_in("many", "queued").await?;
            let n_expected = self.tokens.len() as u64 + self.n_further;
            ensure!(n_leased == n_expected, "{n_leased} runs are leased, not {n_expected}");
            ensure!(n_leased + n_queued == self.n_runs, "runs are lost or doubled");
            Ok(Restart { renewed, granted: granted_at.saturating_duration_since(begun) })
        })
    }
}

/// Endless, as long as a benchmark takes.
const ENDLESS: TinyStudy = TinyStudy {
    name: "endless",
    architectures: &["llama"],
    widths: &[16],
    tokens: 128 * 10_000_000,
    learning_rate: 3e-3,
    slots: 1,
};

/// The run's worker, its attempt and its step.
fn holder(cluster: &Cluster) -> Option<(usize, u64, u64)> {
    let runs = cluster.json(&["runs", ENDLESS.name]);
    let run = &runs["runs"][0];
    let worker = run["worker"].as_str()?.trim_start_matches("worker-").parse().ok()?;
    let is_leased = run["state"] == "leased";
    is_leased.then_some((worker, run["n_attempts"].as_u64()?, run["step"].as_u64()?))
}

/// Seconds from each kill of the run's worker to its next step on another one.
fn kill_workers(n_kills: u32) -> Result<Vec<f64>> {
    let options = ClusterOptions {
        lease_term_ms: LOCAL_LEASE_TERM_MS,
        fake_step_ms: Some(20),
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(options)?;
    cluster.start_worker();
    cluster.start_worker();
    cluster.apply(&tiny_study(cluster.path(), &ENDLESS));
    let mut waits = Vec::new();
    for _ in 0..n_kills {
        let (worker, attempt, step) = wait_for("the run to be worked on", 120, || {
            holder(&cluster).filter(|(_, _, step)| *step > 0)
        });
        // In any moment between two heartbeats: a step further, another one each time.
        wait_for("more steps", 120, || holder(&cluster).filter(|(_, _, now)| *now > step));
        cluster.kill_worker_number(worker);
        let begun = Instant::now();
        let mut first_step = None;
        wait_for("a step elsewhere", 120, || {
            let (_, _, step) = holder(&cluster).filter(|(_, now, _)| *now > attempt)?;
            // The step that it goes on from is the first that is seen.
            (step > *first_step.get_or_insert(step)).then_some(())
        });
        waits.push(begun.elapsed().as_secs_f64());
        cluster.start_worker_again(worker);
    }
    cluster.stop();
    Ok(waits)
}
