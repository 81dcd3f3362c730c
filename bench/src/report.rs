//! A benchmark's result: rows, printed as a Markdown table and written as JSON.
//!
//! It measures nothing; who measures says what has failed, and what a ratio must be.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::args::Common;
use crate::machine::Machine;
use crate::spread::Spread;

/// One measured thing, and what it is compared with.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) value: Spread,
    pub(crate) peer: Option<Peer>,
    /// What the ratio's median must be.
    bar: Option<Bar>,
}

/// What a ratio must be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bar {
    AtLeast(f64),
    AtMost(f64),
}

impl Bar {
    fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(bar) => ratio >= bar,
            Self::AtMost(bar) => ratio <= bar,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, "at least {bar}"),
            Self::AtMost(bar) => write!(f, "at most {bar}"),
        }
    }
}

/// What a row is compared with; the ratio is value over peer.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) value: Spread,
    pub(crate) ratio: Spread,
}

impl Row {
    /// A row without a peer, from what each round measured.
    pub(crate) fn alone(what: impl Into<String>, unit: &'static str, values: &[f64]) -> Self {
        Self { what: what.into(), unit, value: Spread::of(values), peer: None, bar: None }
    }

    /// A row with a peer that was measured in the same rounds.
    pub(crate) fn beside(self, values: &[f64], peer: impl Into<String>, peers: &[f64]) -> Self {
        let ratio = Spread::of_ratios(values, peers);
        let peer = Peer { name: peer.into(), value: Spread::of(peers), ratio };
        Self { peer: Some(peer), ..self }
    }

    /// Says what the ratio must be.
    pub(crate) fn bar(self, bar: Bar) -> Self {
        Self { bar: Some(bar), ..self }
    }

    /// The bar and whether it holds, where there is one.
    fn judged(&self) -> Option<(Bar, bool)> {
        let (bar, peer) = self.bar.zip(self.peer.as_ref())?;
        Some((bar, bar.holds(peer.ratio.median)))
    }

    fn to_json(&self) -> Value {
        let mut keys = Map::new();
        keys.insert("what".into(), json!(self.what));
        keys.insert("unit".into(), json!(self.unit));
        insert(&mut keys, "value", "", self.value);
        keys.insert("n".into(), json!(self.value.n));
        if let Some(peer) = &self.peer {
            keys.insert("peer".into(), json!(peer.name));
            insert(&mut keys, "peer_value", "peer_", peer.value);
            insert(&mut keys, "ratio", "ratio_", peer.ratio);
        }
        if let Some((bar, holds)) = self.judged() {
            keys.insert("bar".into(), json!(format!("ratio {bar}")));
            keys.insert("holds".into(), json!(holds));
        }
        Value::Object(keys)
    }

    fn to_markdown(&self) -> String {
        let Self { what, unit, value, peer, .. } = self;
        let values = range(*value, number);
        let first = format!("| {what} | {} | {unit} | {values} |", number(value.median));
        let Some(Peer { name, value, ratio }) = peer else { return format!("{first} | | | | |") };
        let (middle, ratios) = (quotient(ratio.median), range(*ratio, quotient));
        let bar = self.judged().map(|(bar, holds)| format!("{bar}: {} ", answer(holds)));
        let bar = bar.unwrap_or_default();
        format!("{first} {name} | {} | {middle} | {ratios} | {bar}|", number(value.median))
    }
}

fn answer(holds: bool) -> &'static str {
    if holds { "holds" } else { "DOES NOT HOLD" }
}

fn insert(keys: &mut Map<String, Value>, name: &str, prefix: &str, spread: Spread) {
    keys.insert(name.to_owned(), json!(spread.median));
    keys.insert(format!("{prefix}low"), json!(spread.low));
    keys.insert(format!("{prefix}high"), json!(spread.high));
}

/// Four significant digits, without an exponent.
fn number(value: f64) -> String {
    let has_enough = |n_decimals: &u8| value.abs() * 10_f64.powi((*n_decimals).into()) >= 1000.0;
    let n_decimals = (0..9).find(has_enough).unwrap_or(9);
    if value == 0.0 { "0".to_owned() } else { format!("{value:.*}", usize::from(n_decimals)) }
}

/// Four digits, but no ratio that is not 1 looks like it.
fn quotient(value: f64) -> String {
    let difference = value - 1.0;
    let is_hidden = difference != 0.0 && difference.abs() < 5e-4;
    if is_hidden { format!("1 {difference:+.0e}") } else { number(value) }
}

/// Where the rounds lay; nothing when there was one.
fn range(spread: Spread, text: fn(f64) -> String) -> String {
    let Spread { low, high, n, .. } = spread;
    if n == 1 { String::new() } else { format!("{} … {}", text(low), text(high)) }
}

/// The rows of one benchmark, with what their reader must know.
#[derive(Debug)]
pub(crate) struct Report {
    name: &'static str,
    machine: Machine,
    threads: u32,
    is_quick: bool,
    rows: Vec<Row>,
    notes: Vec<String>,
    failures: Vec<String>,
}

impl Report {
    /// A report without rows. Made before the first measurement, because it looks at the load.
    pub(crate) fn new(name: &'static str, common: &Common) -> Result<Self> {
        Ok(Self {
            name,
            machine: Machine::look()?,
            threads: common.threads,
            is_quick: common.quick,
            rows: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
        })
    }

    /// Adds a row. A quick run judges no bar.
    pub(crate) fn add(&mut self, row: Row) {
        let row = Row { bar: row.bar.filter(|_| !self.is_quick), ..row };
        crate::say(&row.to_markdown());
        self.rows.push(row);
    }

    /// Something that a reader of the table must know.
    pub(crate) fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Something that must not be: the numbers are not to be believed.
    pub(crate) fn fail(&mut self, text: String) {
        self.failures.push(text);
    }

    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }

    /// A line for each bar.
    pub(crate) fn bars(&self) -> Vec<String> {
        let line = |row: &Row| {
            let (bar, holds) = row.judged()?;
            Some(format!("bar: {}, ratio {bar}: {}", row.what, answer(holds)))
        };
        self.rows.iter().filter_map(line).collect()
    }

    pub(crate) fn to_markdown(&self) -> String {
        let Self { name, machine, threads, .. } = self;
        let mut text = format!("`{name}`: {}; {threads} threads.\n", machine.to_text());
        let mut line = |line: &str| writeln!(text, "{line}").expect("a string grows");
        if self.is_quick {
            line("A quick run: it shows that everything works, not how fast it is.");
        }
        for note in &self.notes {
            line(note);
        }
        for failure in &self.failures {
            line(&format!("**Failed**: {failure}"));
        }
        line("");
        line(
            "| what | median | unit | range | peer | peer's median | ratio | range of ratios | bar |",
        );
        line("|---|---|---|---|---|---|---|---|---|");
        for row in &self.rows {
            line(&row.to_markdown());
        }
        text
    }

    /// Writes `NAME.json` into a folder that is there, and gives its path.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf> {
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        let content = json!({
            "name": self.name, "machine": self.machine, "threads": self.threads,
            "is_quick": self.is_quick, "notes": self.notes, "failures": self.failures,
            "rows": rows,
        });
        let path = folder.join(format!("{}.json", self.name));
        std::fs::write(&path, serde_json::to_vec_pretty(&content)?)
            .with_context(|| format!("could not write `{}`", path.display()))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits_that_count() {
        let check = |value: f64, text: &str| assert_eq!(number(value), text);
        check(35_912.4, "35912");
        check(3_123.4, "3123");
        check(12.345_6, "12.35");
        check(0.001_234_56, "0.001235");
        check(0.0, "0");
    }

    #[test]
    fn a_ratio_near_one_says_how_near() {
        assert_eq!(quotient(1.0), "1.000");
        assert_eq!(quotient(0.99), "0.9900");
        assert_eq!(quotient(1.000_000_2), "1 +2e-7");
        assert_eq!(quotient(0.999_7), "1 -3e-4");
        assert_eq!(quotient(22.805), "22.80");
    }

    #[test]
    fn a_row_says_the_same_as_text_and_as_json() {
        let (ours, theirs) = ([20.0, 30.0], [10.0, 20.0]);
        let row = Row::alone("llama", "tokens/s", &ours).beside(&ours, "PyTorch", &theirs);
        assert_eq!(
            row.to_markdown(),
            "| llama | 25.00 | tokens/s | 20.00 … 30.00 | PyTorch | 15.00 | 1.750 | 1.500 … 2.000 | |"
        );
        assert_eq!(
            row.to_json(),
            json!({
                "what": "llama", "unit": "tokens/s", "value": 25.0, "low": 20.0, "high": 30.0,
                "n": 2, "peer": "PyTorch", "peer_value": 15.0, "peer_low": 10.0, "peer_high": 20.0,
                "ratio": 1.75, "ratio_low": 1.5, "ratio_high": 2.0,
            })
        );
        let alone = Row::alone("tnl", "tokens/s", &[5.0]);
        assert_eq!(alone.to_markdown(), "| tnl | 5.000 | tokens/s |  | | | | | |");
    }

    #[test]
    fn a_bar_is_judged_by_the_median_of_the_ratios() {
        let row = |bar| Row::alone("a", "s", &[3.0]).beside(&[3.0], "b", &[2.0]).bar(bar);
        for (bar, text, holds) in [
            (Bar::AtLeast(1.5), "at least 1.5", true),
            (Bar::AtLeast(1.51), "at least 1.51", false),
            (Bar::AtMost(1.5), "at most 1.5", true),
            (Bar::AtMost(1.49), "at most 1.49", false),
        ] {
            let (found, answer) = (row(bar), if holds { "holds" } else { "DOES NOT HOLD" });
            assert_eq!(found.to_json()["bar"], format!("ratio {text}"));
            assert_eq!(found.to_json()["holds"], holds);
            assert!(found.to_markdown().ends_with(&format!("| {text}: {answer} |")));
        }
        // Without a peer there is nothing to judge.
        assert_eq!(Row::alone("a", "s", &[3.0]).bar(Bar::AtMost(1.0)).judged(), None);
    }
}
