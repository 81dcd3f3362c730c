//! The store itself, through its verbs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use coordinator::clock::Clock;
use coordinator::scheduler::fit::Machine;
use coordinator::scheduler::policy::Placement;
use coordinator::store::read::{ALL_STEPS, CurveQuery, CurveScope, ReadStore};
use coordinator::store::{
    ApplyOutcome, Artifact, Capabilities, Location, Numerics, ReportEvent, SqlStore, Store,
    StudyToApply, WorkerToRegister,
};
use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, LeaseToken, StudyId, WorkerId};
use planner::CorpusHashes;
use sqlx::{Connection as _, PgConnection};
use test_postgres::Server;

use super::{Args, Measured, series};

/// How often the chart is read.
const N_CHARTS: usize = 20;

pub(super) async fn on_sqlite(args: &Args) -> Result<Measured> {
    let folder = tempfile::Builder::new().prefix("metrics-").tempdir_in(&args.out)?;
    let path = folder.path().join("store.db");
    let location = Location::Sqlite(path.clone());
    let store = open(&location).await?;
    let (study, tokens) = prepare(&store, args).await?;
    store.close().await;
    let empty = file_bytes(&path)?;
    let store = reopen(&location).await?;
    let points_per_second = fill(&store, args, &tokens).await?;
    let chart_p95_ms = chart(&store, &study, args).await?;
    end(&store, &tokens).await?;
    store.close().await;
    let bytes_per_point = (file_bytes(&path)? - empty) / n_points(args);
    Ok(Measured {
        points_per_second,
        bytes_per_point,
        vacuumed_bytes_per_point: None,
        chart_p95_ms,
    })
}

pub(super) async fn on_postgres(args: &Args, server: &Server) -> Result<Measured> {
    let store = open(&Location::Postgres(server.url())).await?;
    let (study, tokens) = prepare(&store, args).await?;
    let points_per_second = fill(&store, args, &tokens).await?;
    let chart_p95_ms = chart(&store, &study, args).await?;
    end(&store, &tokens).await?;
    store.close().await;
    let mut conn = PgConnection::connect(&server.url()).await?;
    let size =
        "SELECT pg_total_relation_size('point_series') + pg_total_relation_size('point_chunks')";
    let vacuum = "VACUUM FULL point_series, point_chunks";
    let (bytes, vacuumed) = table_bytes(&mut conn, size, vacuum).await?;
    Ok(Measured {
        points_per_second,
        bytes_per_point: bytes / n_points(args),
        vacuumed_bytes_per_point: Some(vacuumed / n_points(args)),
        chart_p95_ms,
    })
}

/// What `size` says before and after `vacuum`, which frees the old versions of rows.
pub(super) async fn table_bytes(
    conn: &mut PgConnection,
    size: &'static str,
    vacuum: &'static str,
) -> Result<(f64, f64)> {
    let before: i64 = sqlx::query_scalar(size).fetch_one(&mut *conn).await?;
    sqlx::query(vacuum).execute(&mut *conn).await?;
    let after: i64 = sqlx::query_scalar(size).fetch_one(conn).await?;
    Ok((before as f64, after as f64))
}

pub(super) fn n_points(args: &Args) -> f64 {
    f64::from(args.runs * args.series) * (args.steps * args.reports) as f64
}

pub(super) fn file_bytes(path: &Path) -> Result<f64> {
    Ok(std::fs::metadata(path).with_context(|| path.display().to_string())?.len() as f64)
}

async fn open(location: &Location) -> Result<SqlStore> {
    Ok(SqlStore::open(location, Clock::system(), coordinator::changes_channel()).await?)
}

/// The lock of a store that was closed goes a moment later.
async fn reopen(location: &Location) -> Result<SqlStore> {
    for _ in 0..1000 {
        if let Ok(store) = open(location).await {
            return Ok(store);
        }
        tokio::task::yield_now().await;
    }
    open(location).await
}

/// A study whose runs have all begun.
async fn prepare(store: &SqlStore, args: &Args) -> Result<(StudyId, Vec<LeaseToken>)> {
    let hash = ContentHash::of(b"to be or not to be");
    let source = Artifact { key: format!("sources/{hash}"), hash, n_bytes: 18 };
    store.record_source(&source).await?;
    let ApplyOutcome::Applied(applied) = store.apply_study(study(args, &source)?).await? else {
        bail!("the source is missing");
    };
    let worker = store.register_worker(worker(args)?).await?.worker;
    ensure!(store.confirm_worker(&worker).await?, "the worker is gone");
    let preparation = grant(store, &worker).await?;
    let manifest = Artifact { key: "data/manifest.json".to_owned(), ..source };
    let prepared = ReportEvent::Preparation {
        manifest,
        n_training_tokens: 100_000,
        n_validation_tokens: 1000,
        vocab_size: 257,
    };
    store.report(preparation[0], vec![prepared]).await?;
    store.finish_attempt(preparation[0], AttemptEnd::Succeeded, "").await?;
    let tokens = grant(store, &worker).await?;
    ensure!(tokens.len() == args.runs as usize, "{} runs were granted", tokens.len());
    for token in &tokens {
        let started = ReportEvent::Started { numerics: numerics(), resumed_from_step: 0 };
        store.report(*token, vec![started]).await?;
    }
    Ok((applied.study_id, tokens))
}

fn study(args: &Args, source: &Artifact) -> Result<StudyToApply> {
    let rates: Vec<String> = (1..=args.runs).map(|number| format!("{number}e-4")).collect();
    let spec_text = include_str!("study.yaml").replace("RATES", &rates.join(", "));
    let parsed = domain::spec::parse(&spec_text, "study.yaml")?;
    let hashes =
        [CorpusHashes { corpus: "plays".to_owned(), file_hashes: vec![source.hash.clone()] }];
    let plan = planner::plan(&parsed, &hashes)?.into();
    Ok(StudyToApply { spec: parsed.spec, spec_text, spec_file: "study.yaml".into(), plan })
}

fn worker(args: &Args) -> Result<WorkerToRegister> {
    Ok(WorkerToRegister {
        proposed_id: "w_1".parse()?,
        name: "worker".into(),
        hostname: "here".into(),
        pid: 1,
        instance: "here-1".into(),
        connected: Vec::new(),
        machine: Machine {
            n_slots: args.runs,
            capabilities: Capabilities {
                device_kind: "cpu".into(),
                device_name: "a CPU".into(),
                threads_per_slot: 1,
                cpu_capability: "AVX2".into(),
                libtorch_version: "2.11.0".into(),
                memory_bytes: 1 << 30,
                recipes: vec!["pretrain".into()],
                labels: BTreeMap::new(),
            },
        },
    })
}

fn numerics() -> Numerics {
    Numerics {
        device_kind: "cpu".into(),
        intra_op_threads: 1,
        micro_batch_sequences: 0,
        cpu_capability: "AVX2".into(),
        libtorch_version: "2.11.0".into(),
    }
}

/// Grants all that is queued.
async fn grant(store: &SqlStore, worker: &WorkerId) -> Result<Vec<LeaseToken>> {
    let queue = store.queue_head(10_000, None).await?.work;
    let placements: Vec<Placement> =
        queue.into_iter().map(|queued| Placement::of_one(queued.work, worker.clone())).collect();
    let granted = store.grant(&placements).await?;
    Ok(granted.into_iter().map(|granted| granted.token).collect())
}

/// Every run reports at the same time; points a second, each acknowledged.
async fn fill(store: &SqlStore, args: &Args, tokens: &[LeaseToken]) -> Result<f64> {
    // What is measured is the store, not the making of the points.
    let reports: Vec<Vec<ReportEvent>> = (0..args.reports)
        .map(|report| {
            (1..=args.steps)
                .map(|step| report * args.steps + step)
                .map(|step| ReportEvent::Point { step, values: series::values(args.series, step) })
                .collect()
        })
        .collect();
    let begun = Instant::now();
    let reporting = tokens.iter().map(async |token| {
        for report in &reports {
            store.report(*token, report.clone()).await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(reporting).await?;
    Ok(n_points(args) / begun.elapsed().as_secs_f64())
}

/// One series of every run.
async fn chart(store: &SqlStore, study: &StudyId, args: &Args) -> Result<f64> {
    let scope = CurveScope::Study(study.clone());
    let query = CurveQuery { scope, series: series::name(0), max_points: 400, steps: ALL_STEPS };
    let mut times = Vec::new();
    for _ in 0..N_CHARTS {
        let begun = Instant::now();
        let curves = store.curves(&query).await?.curves;
        times.push(begun.elapsed().as_secs_f64() * 1e3);
        ensure!(curves.len() == args.runs as usize, "{} runs have a curve", curves.len());
    }
    Ok(series::p95(times))
}

async fn end(store: &SqlStore, tokens: &[LeaseToken]) -> Result<()> {
    for token in tokens {
        store.finish_attempt(*token, AttemptEnd::Diverged, "").await?;
    }
    Ok(())
}
