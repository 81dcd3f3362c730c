//! The naive twin: a table with one row a point, filled by statements of many rows, with a
//! transaction for each round of reports.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Result, ensure};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqlSafeStr as _};
use test_postgres::Server;

use super::ours::{file_bytes, n_points, table_bytes};
use super::{Args, Measured, series};

/// Rows in one statement.
const ROWS_PER_STATEMENT: usize = 128;

/// How often the chart is read.
const N_CHARTS: usize = 5;

const TABLE_OF_SQLITE: &str = "CREATE TABLE points (
    run_id TEXT NOT NULL,
    name TEXT NOT NULL,
    step INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    value REAL,
    PRIMARY KEY (run_id, name, step, attempt)
) WITHOUT ROWID";

const TABLE_OF_POSTGRES: &str = "CREATE TABLE points (
    run_id TEXT COLLATE \"C\" NOT NULL,
    name TEXT COLLATE \"C\" NOT NULL,
    step BIGINT NOT NULL,
    attempt BIGINT NOT NULL,
    value DOUBLE PRECISION,
    PRIMARY KEY (run_id, name, step, attempt)
)";

/// Of each run, as the store finds them by a study.
const CHART: &str = "SELECT run_id, step, value
FROM points
WHERE run_id IN (SELECT id FROM runs) AND name = 'train_loss_nats'
ORDER BY run_id, step, attempt";

pub(super) async fn on_sqlite(args: &Args) -> Result<Measured> {
    let folder = tempfile::Builder::new().prefix("metrics-").tempdir_in(&args.out)?;
    let path = folder.path().join("naive.db");
    let mut conn: SqliteConnection = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
        .connect()
        .await?;
    sqlx::query(TABLE_OF_SQLITE).execute(&mut conn).await?;
    let points_per_second = fill_sqlite(&mut conn, args).await?;
    let chart_p95_ms = chart_sqlite(&mut conn, args).await?;
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut conn).await?;
    conn.close().await?;
    let bytes_per_point = file_bytes(&path)? / n_points(args);
    Ok(Measured {
        points_per_second,
        bytes_per_point,
        vacuumed_bytes_per_point: None,
        chart_p95_ms,
    })
}

pub(super) async fn on_postgres(args: &Args, server: &Server) -> Result<Measured> {
    let mut conn = PgConnection::connect(&server.url()).await?;
    sqlx::query(TABLE_OF_POSTGRES).execute(&mut conn).await?;
    let points_per_second = fill_postgres(&mut conn, args).await?;
    let chart_p95_ms = chart_postgres(&mut conn, args).await?;
    let size = "SELECT pg_total_relation_size('points')";
    let (bytes, vacuumed) = table_bytes(&mut conn, size, "VACUUM FULL points").await?;
    Ok(Measured {
        points_per_second,
        bytes_per_point: bytes / n_points(args),
        vacuumed_bytes_per_point: Some(vacuumed / n_points(args)),
        chart_p95_ms,
    })
}

/// One report of every run, in the order in which the store would get them.
fn rows_of(args: &Args, report: u64) -> Vec<(u32, u32, i64, f64)> {
    let mut rows = Vec::new();
    for run in 0..args.runs {
        for step in (1..=args.steps).map(|step| report * args.steps + step) {
            for series in 0..args.series {
                rows.push((run, series, step.cast_signed(), series::loss(series, step)));
            }
        }
    }
    rows
}

fn statement(n_rows: usize) -> String {
    let mut sql = "INSERT INTO points (run_id, name, step, attempt, value) VALUES ".to_owned();
    for row in 0..n_rows {
        let first = row * 5;
        let comma = if row == 0 { "" } else { ", " };
        write!(
            sql,
            "{comma}(${}, ${}, ${}, ${}, ${})",
            first + 1,
            first + 2,
            first + 3,
            first + 4,
            first + 5
        )
        .expect("a string takes what it is given");
    }
    sql + " ON CONFLICT DO NOTHING"
}

/// As long as a run's identifier.
fn run_id(run: u32) -> String {
    format!("r_{run:016x}")
}

macro_rules! twin {
    ($fill:ident, $chart:ident, $connection:ty) => {
        async fn $fill(conn: &mut $connection, args: &Args) -> Result<f64> {
            sqlx::query("CREATE TABLE runs (id TEXT PRIMARY KEY)").execute(&mut *conn).await?;
            for run in 0..args.runs {
                sqlx::query("INSERT INTO runs (id) VALUES ($1)")
                    .bind(run_id(run))
                    .execute(&mut *conn)
                    .await?;
            }
            let mut seconds = 0.0;
            for report in 0..args.reports {
                let rows = rows_of(args, report);
                let begun = Instant::now();
                sqlx::query("BEGIN").execute(&mut *conn).await?;
                for some in rows.chunks(ROWS_PER_STATEMENT) {
                    let sql = AssertSqlSafe(statement(some.len())).into_sql_str();
                    let mut insert = sqlx::query(sql);
                    for (run, series, step, value) in some {
                        insert = insert
                            .bind(run_id(*run))
                            .bind(series::name(*series))
                            .bind(*step)
                            .bind(1_i64)
                            .bind(*value);
                    }
                    insert.execute(&mut *conn).await?;
                }
                sqlx::query("COMMIT").execute(&mut *conn).await?;
                seconds += begun.elapsed().as_secs_f64();
            }
            Ok(n_points(args) / seconds)
        }

        async fn $chart(conn: &mut $connection, args: &Args) -> Result<f64> {
            let mut times = Vec::new();
            for _ in 0..N_CHARTS {
                let begun = Instant::now();
                let rows: Vec<(String, i64, Option<f64>)> =
                    sqlx::query_as(CHART).fetch_all(&mut *conn).await?;
                times.push(begun.elapsed().as_secs_f64() * 1e3);
                let n_found = rows.len() as f64 * f64::from(args.series);
                ensure!(n_found == n_points(args), "points are missing");
            }
            Ok(series::p95(times))
        }
    };
}

twin!(fill_sqlite, chart_sqlite, SqliteConnection);
twin!(fill_postgres, chart_postgres, PgConnection);
