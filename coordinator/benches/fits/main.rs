//! How fast a kept fit answers over HTTP: the time from the request to the whole body, on one
//! connection of the loopback that is kept alive.
//!
//! `make bench-fit-answers` runs it. It prints a Markdown table and writes
//! `target/bench/fit_answers.json`.

mod planted;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use coordinator::config::Config;
use serde_json::{Value, json};

/// What a kept fit may take, by the median: a dashboard asks while a slider moves.
const BAR_MS: f64 = 1.0;

/// Measures the answers of a kept fit
#[derive(Debug, Clone, Parser)]
#[command(name = "fits")]
struct Args {
    /// How often each question is asked, one after the other
    #[arg(long, value_name = "N", default_value_t = 1000)]
    requests: usize,
    /// Bootstrap draws of the fit
    #[arg(long, value_name = "N", default_value_t = 1000)]
    draws: u32,
    /// Less of everything: shows that it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Folder for the results as JSON
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    // Cargo says so to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The times of one question, in milliseconds.
struct Row {
    what: &'static str,
    n_bytes: usize,
    first: f64,
    p50: f64,
    p99: f64,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut args = Args::parse();
    if args.quick {
        (args.requests, args.draws) = (100, 100);
    }
    let folder = tempfile::tempdir()?;
    let config = || Config::for_directory(folder.path());
    // Filled by hand, for a coordinator that dispatches would grant the same work itself.
    let filled = coordinator::serve::build(config()).await?;
    planted::fill(&*filled.store).await?;
    filled.store.close().await;
    drop(filled);
    let running = coordinator::serve::start(config()).await?;
    let rows = ask(&args, &format!("{}/api/v1", running.http_url())).await?;
    running.stop().await;
    let head = format!(
        "A fit of {} runs by the envelope and the additive law, with {} draws; {} requests each, one \
         after the other on one connection, from the request to the whole body.",
        planted::N_RUNS,
        args.draws,
        args.requests
    );
    print(&head, &rows);
    write(&args, &head, &rows)
}

/// Makes the fit and asks it.
async fn ask(args: &Args, base: &str) -> Result<Vec<Row>> {
    let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(1).build()?;
    let body = json!({ "fit": { "methods": ["envelope", "chinchilla"], "draws": args.draws } });
    let made = client.post(format!("{base}/studies/kept/fits")).json(&body).send().await?;
    let made: Value = made.error_for_status()?.json().await?;
    let id = made["id"].as_str().context("a fit has an identifier")?;
    ensure!(made["is_provisional"] == false, "every run is measured: {made}");
    let questions = [
        ("the report", String::new()),
        ("`/curve`, 40 points", "/curve?points=40".to_owned()),
        ("`/predict?c=`", "/predict?c=1e10".to_owned()),
        ("`/predict?n=&d=`", "/predict?n=50000&d=60000".to_owned()),
    ];
    let mut rows = Vec::new();
    for (what, path) in questions {
        let url = format!("{base}/fits/{id}{path}");
        let mut times = Vec::with_capacity(args.requests);
        let mut n_bytes = 0;
        for _ in 0..=args.requests {
            let begun = Instant::now();
            let answer = client.get(&url).send().await?.error_for_status()?;
            n_bytes = answer.bytes().await?.len();
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        // The first answer makes the numbers that the others have.
        let first = times.remove(0);
        times.sort_by(f64::total_cmp);
        let at = |share: f64| planted::at_share(&times, share);
        rows.push(Row { what, n_bytes, first, p50: at(0.5), p99: at(0.99) });
    }
    Ok(rows)
}

#[expect(clippy::print_stdout, reason = "data goes to standard output")]
fn print(head: &str, rows: &[Row]) {
    println!("{head}\n\n| what | bytes | first | p50 | p99 | bar |\n|---|---|---|---|---|---|");
    for Row { what, n_bytes, first, p50, p99 } in rows {
        let holds = if *p50 < BAR_MS { "holds" } else { "does not hold" };
        println!(
            "| {what} | {n_bytes} | {first:.3} ms | {p50:.3} ms | {p99:.3} ms | {BAR_MS} ms, {holds} |"
        );
    }
}

fn write(args: &Args, head: &str, rows: &[Row]) -> Result<()> {
    std::fs::create_dir_all(&args.out)
        .with_context(|| format!("could not make `{}`", args.out.display()))?;
    let row = |one: &Row| {
        json!({
            "what": one.what, "unit": "ms", "value": one.p50, "first": one.first, "p99": one.p99,
            "bytes": one.n_bytes, "bar": BAR_MS, "holds": one.p50 < BAR_MS,
        })
    };
    let rows: Vec<Value> = rows.iter().map(row).collect();
    let content = json!({ "name": "fit_answers", "notes": [head], "rows": rows });
    let path = args.out.join("fit_answers.json");
    std::fs::write(&path, serde_json::to_vec_pretty(&content)?)
        .with_context(|| format!("could not write `{}`", path.display()))
}
