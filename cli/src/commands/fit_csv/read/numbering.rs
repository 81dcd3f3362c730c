//! Numbers for the names in a file: of runs, and of the strata and trunks that these belong to.
//! It reads no cell that is not asked for.

use std::collections::BTreeMap;

use anyhow::Context;

use super::{Cells, Columns};

/// Consecutive numbers for texts, in the order of their first appearance.
#[derive(Default)]
pub(super) struct Numbers(BTreeMap<String, u32>);

impl Numbers {
    pub(super) fn of(&mut self, text: &str) -> anyhow::Result<u32> {
        if let Some(known) = self.0.get(text) {
            return Ok(*known);
        }
        let next = u32::try_from(self.0.len()).context("there are too many runs")?;
        self.0.insert(text.to_owned(), next);
        Ok(next)
    }

    /// The texts, in the order of their numbers.
    pub(super) fn names(self) -> Vec<String> {
        let mut pairs: Vec<(u32, String)> =
            self.0.into_iter().map(|(text, number)| (number, text)).collect();
        pairs.sort_unstable();
        pairs.into_iter().map(|(_, text)| text).collect()
    }
}

/// What each run belongs to, with the line that said so first.
#[derive(Default)]
struct OfRuns {
    numbers: Numbers,
    known: BTreeMap<u32, (u32, u64)>,
}

impl OfRuns {
    /// The number of what the run belongs to, the same in all its rows; `rule` says so in words.
    fn of(
        &mut self,
        run: u32,
        column: Option<usize>,
        cells: &Cells<'_>,
        rule: &str,
    ) -> anyhow::Result<u32> {
        let Some(column) = column else { return Ok(0) };
        let found = self.numbers.of(cells.named(column)?)?;
        let (known, line) = *self.known.entry(run).or_insert((found, cells.line));
        anyhow::ensure!(
            known == found,
            "{}:{}: column `{}` is `{}`, and another value for the same run in line {line}; {rule}",
            cells.file.display(),
            cells.line,
            cells.headers[column],
            cells.text(column)
        );
        Ok(found)
    }
}

/// The numbers of runs, strata and trunks until now.
#[derive(Default)]
pub(super) struct Numbering {
    pub(super) runs: Numbers,
    /// Rows until now, where each is a run.
    n_rows: u32,
    strata: OfRuns,
    trunks: OfRuns,
}

impl Numbering {
    pub(super) fn run(&mut self, cells: &Cells<'_>, columns: &Columns) -> anyhow::Result<u32> {
        if let Some(column) = columns.run {
            return self.runs.of(cells.named(column)?);
        }
        let run = self.n_rows;
        self.n_rows = run.checked_add(1).context("there are too many rows")?;
        Ok(run)
    }

    pub(super) fn stratum(
        &mut self,
        run: u32,
        cells: &Cells<'_>,
        columns: &Columns,
    ) -> anyhow::Result<u32> {
        self.strata.of(run, columns.stratify, cells, "a run must lie in one stratum")
    }

    pub(super) fn trunk(
        &mut self,
        run: u32,
        cells: &Cells<'_>,
        columns: &Columns,
    ) -> anyhow::Result<u32> {
        self.trunks.of(run, columns.trunk, cells, "a run has one trunk")
    }
}
