//! How results are shown: tables for people, JSON for programs, names only when quiet.
//!
//! It asks nobody for anything: views are functions of the API's types.

use std::io::Write;

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

pub mod approach;
mod change;
pub mod comparison;
mod explain;
pub mod file_fit;
pub mod fit;
pub mod fit_parts;
mod fits;
pub mod format;
mod history;
pub mod ladder;
mod plan;
pub mod predict;
pub(crate) mod run;
mod store;
pub(crate) mod study;
pub mod suggest;
pub(crate) mod worker;

/// The widest table, where its words allow: the width that every terminal has.
const WIDTH: usize = 80;

/// Something that can be shown to people.
pub trait View: Serialize {
    /// A table, readable without colour and at 80 columns; ends without a newline.
    fn table(&self) -> String;

    /// What `--quiet` prints, one a line.
    fn names(&self) -> Vec<String>;
}

/// Which of the forms is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A table and hints.
    Table,
    /// JSON, pretty-printed.
    Json,
    /// Names only.
    Quiet,
}

impl Form {
    /// From the flags; `--json` wins.
    pub fn of(is_json: bool, is_quiet: bool) -> Self {
        match (is_json, is_quiet) {
            (true, _) => Self::Json,
            (false, true) => Self::Quiet,
            (false, false) => Self::Table,
        }
    }

    /// Prints a view on standard output.
    pub fn print(self, view: &impl View) -> anyhow::Result<()> {
        match self {
            Self::Table => data(&view.table()),
            Self::Json => data(&serde_json::to_string_pretty(view)?),
            Self::Quiet => view.names().iter().for_each(|name| data(name)),
        }
        Ok(())
    }

    /// Says on standard error what could come next; people only.
    pub fn hint(self, text: &str) {
        if self == Self::Table {
            note(&format!("\nhint: {text}"));
        }
    }
}

/// Writes text and a newline to standard output.
pub fn data(text: &str) {
    write_line(&mut std::io::stdout().lock(), text);
}

/// Writes text and a newline to standard error.
pub fn note(text: &str) {
    write_line(&mut std::io::stderr().lock(), text);
}

/// A reader that has gone away, as in `gradus runs | head`, is no error of ours.
fn write_line(stream: &mut impl Write, text: &str) {
    if writeln!(stream, "{text}").is_ok() {
        drop(stream.flush());
    }
}

/// The same, or nothing where it has no rows.
pub(crate) fn rows_or_nothing(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() { String::new() } else { table(columns, rows) }
}

/// A table without lines: columns two spaces apart, numbers to the right.
///
/// `columns` are headings; one that starts with `>` is aligned to the right.
pub(crate) fn table(columns: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let width = u16::try_from(width(columns, &rows)).unwrap_or(u16::MAX);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width).force_no_tty();
    table.set_header(columns.iter().map(|column| column.trim_start_matches('>')));
    table.add_rows(rows);
    let last = columns.len().saturating_sub(1);
    for (index, heading) in columns.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            if index == 0 {
                // A name that is broken over two lines cannot be copied.
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
            column.set_padding((0, if index == last { 0 } else { 2 }));
            if heading.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    trimmed(&table.to_string())
}

/// As wide as [`WIDTH`], or as the first column and the longest word of each other one need: a number
/// that is broken over lines cannot be read.
fn width(columns: &[&str], rows: &[Vec<String>]) -> usize {
    let letters = |text: &str| text.chars().count();
    let longest_word = |text: &str| text.split_whitespace().map(letters).max().unwrap_or(0);
    let longest_line = |text: &str| text.lines().map(letters).max().unwrap_or(0);
    let needed = (0..columns.len()).map(|at| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(String::as_str);
        let all = cells.chain([columns[at].trim_start_matches('>')]);
        let most = if at == 0 { all.map(longest_line).max() } else { all.map(longest_word).max() };
        most.unwrap_or(0) + 2
    });
    needed.sum::<usize>().saturating_sub(2).max(WIDTH)
}

/// Pairs of a name and a value below each other, without the pairs whose value is empty.
pub(crate) fn pairs(pairs: &[(&str, String)]) -> String {
    let shown: Vec<_> = pairs.iter().filter(|(_, value)| !value.is_empty()).collect();
    let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: Vec<String> =
        shown.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect();
    lines.join("\n")
}

/// Without spaces at the lines' ends, so that output can be compared and pasted.
fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Parts with an empty line between them; empty parts are left out.
pub(crate) fn sections(parts: &[String]) -> String {
    let parts: Vec<&str> =
        parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join("\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: a long name leaves the numbers beside it whole. Method: names that take nearly a line.
    #[test]
    fn a_long_name_widens_the_table_and_breaks_no_number() {
        let name = "loss of `marin_202603_comma_llama_2` - `marin_202603_dclm_llama_2`, nats";
        let cells = [name, "+0.2365", "[+0.1596, +0.3133]"].map(str::to_owned);
        let shown = table(&["AT C = 1.00e20", ">VALUE", "INTERVAL"], vec![cells.to_vec()]);
        assert!(shown.contains(&format!("{name}  +0.2365  [+0.1596,")), "{shown}");
        let short = table(&["NAME", ">VALUE"], vec![vec!["a".to_owned(), "1".to_owned()]]);
        assert!(short.lines().all(|line| line.chars().count() <= WIDTH), "{short}");
    }
}
