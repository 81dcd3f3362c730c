//! What was measured, as a Markdown table and as JSON. It measures nothing.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Measured;

/// One thing on both sides, with the range over the rounds.
#[derive(Debug)]
struct Row {
    what: String,
    unit: &'static str,
    ours: Spread,
    naive: Spread,
    ratio: Spread,
}

/// Median, least and greatest.
#[derive(Debug, Clone, Copy)]
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

/// All rows.
#[derive(Debug)]
pub(super) struct Rows {
    head: String,
    rows: Vec<Row>,
}

impl Rows {
    pub(super) fn new(head: String) -> Self {
        Self { head, rows: Vec::new() }
    }

    /// What the rounds measured on one database.
    pub(super) fn add(&mut self, database: &str, ours: &[Measured], naive: &[Measured]) {
        let mut add = |what: &str, unit, of: fn(&Measured) -> f64| {
            let (ours, naive): (Vec<f64>, Vec<f64>) =
                (ours.iter().map(of).collect(), naive.iter().map(of).collect());
            let ratios: Vec<f64> =
                ours.iter().zip(&naive).map(|(ours, naive)| ours / naive).collect();
            self.rows.push(Row {
                what: format!("{database}, {what}"),
                unit,
                ours: Spread::of(ours),
                naive: Spread::of(naive),
                ratio: Spread::of(ratios),
            });
        };
        add("durable points", "points/s", |measured| measured.points_per_second);
        add("on disk", "bytes/point", |measured| measured.bytes_per_point);
        if ours.iter().chain(naive).all(|measured| measured.vacuumed_bytes_per_point.is_some()) {
            add("on disk after VACUUM FULL", "bytes/point", |measured| {
                measured.vacuumed_bytes_per_point.unwrap_or(f64::NAN)
            });
        }
        add("chart, p95", "ms", |measured| measured.chart_p95_ms);
    }

    #[expect(clippy::print_stdout, reason = "data goes to standard output")]
    pub(super) fn print(&self) {
        println!("{}", self.to_markdown());
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("metrics.json");
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        let content = json!({ "name": "metrics", "notes": [self.head], "rows": rows });
        std::fs::write(&path, serde_json::to_vec_pretty(&content)?)
            .with_context(|| format!("could not write `{}`", path.display()))
    }

    fn to_markdown(&self) -> String {
        let mut text = format!(
            "{}\n\n| what | median | unit | range | peer | peer's median | ratio | range of ratios |\n\
             |---|---|---|---|---|---|---|---|\n",
            self.head
        );
        for Row { what, unit, ours, naive, ratio } in &self.rows {
            writeln!(
                text,
                "| {what} | {} | {unit} | {} | one row a point | {} | {} | {} |",
                number(ours.median),
                ours.range(),
                number(naive.median),
                number(ratio.median),
                ratio.range()
            )
            .expect("a string takes what it is given");
        }
        text
    }
}

impl Row {
    fn to_json(&self) -> Value {
        let Self { what, unit, ours, naive, ratio } = self;
        json!({
            "what": what, "unit": unit,
            "value": ours.median, "low": ours.low, "high": ours.high,
            "peer": "one row a point",
            "peer_value": naive.median, "peer_low": naive.low, "peer_high": naive.high,
            "ratio": ratio.median, "ratio_low": ratio.low, "ratio_high": ratio.high,
        })
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self {
            median: f64::midpoint(at(last / 2), at(last.div_ceil(2))),
            low: at(0),
            high: at(last),
        }
    }

    fn range(self) -> String {
        format!("{} … {}", number(self.low), number(self.high))
    }
}

/// Four digits that count.
fn number(value: f64) -> String {
    if value >= 1000.0 {
        return format!("{value:.0}");
    }
    let n_decimals = if value >= 100.0 {
        1
    } else if value >= 10.0 {
        2
    } else {
        3
    };
    format!("{value:.n_decimals$}")
}
