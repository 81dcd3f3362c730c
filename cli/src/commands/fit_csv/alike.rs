//! Columns in which all rows of a fit, and of groups that are compared, should be alike: the
//! schedule, the tokenizer, the data.
//!
//! The warning itself is `scaling::diagnose`'s.

use std::collections::{BTreeMap, BTreeSet};

use scaling::diagnose::mixed;

use super::read::{Row, Table, position};
use crate::args::ColumnArgs;

/// Columns that are looked at without being asked for, in any case of letters.
const KNOWN: [&str; 12] = [
    "schedule",
    "lr_schedule",
    "scheduler",
    "tokenizer",
    "dataset",
    "corpus",
    "data_mix",
    "eval_set",
    "evaluation_set",
    "eval_dataset",
    "flop_convention",
    "optimizer",
];

/// Values that are named in a warning.
const MOST_NAMED: usize = 3;

/// What follows where two groups differ in a column of this name.
fn consequence(column: &str) -> &'static str {
    match column.to_lowercase().as_str() {
        "tokenizer" => "losses per token cannot be compared",
        "eval_set" | "evaluation_set" | "eval_dataset" => {
            "losses on different texts cannot be compared"
        }
        "flop_convention" => "the same C is not the same compute",
        "dataset" | "corpus" | "data_mix" => "the difference may be that of the data",
        _ => "the difference may be that of this column",
    }
}

/// Columns whose values make losses, or budgets, of two groups incomparable even where they are
/// what the groups are made by.
const NEVER_COMPARED: [&str; 5] =
    ["tokenizer", "eval_set", "evaluation_set", "eval_dataset", "flop_convention"];

/// Positions of the columns that are named by `--same`, or known and not used for anything else.
pub(super) fn columns(headers: &[String], args: &ColumnArgs) -> anyhow::Result<Vec<usize>> {
    let mut found = Vec::new();
    for name in &args.same {
        found.push(position(headers, name)?);
    }
    let ColumnArgs { n, d, c, loss, run, trunk, weight, group_by, .. } = args;
    let used = [n, d, c, loss, run, trunk, weight, group_by];
    let is_used = |header: &String| used.iter().any(|one| one.as_ref() == Some(header));
    let is_known = |header: &String| KNOWN.contains(&header.to_lowercase().as_str());
    let known = (0..headers.len()).filter(|at| is_known(&headers[*at]) && !is_used(&headers[*at]));
    found.extend(known);
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// A warning for each column in which these rows differ.
pub(super) fn warnings<'a>(table: &Table, rows: impl Iterator<Item = &'a Row>) -> Vec<String> {
    let mut counts: Vec<BTreeMap<u32, usize>> = vec![BTreeMap::new(); table.alike.len()];
    for row in rows {
        for (counts, value) in counts.iter_mut().zip(&row.alike) {
            *counts.entry(*value).or_default() += 1;
        }
    }
    let named = table.alike.iter().zip(counts);
    let found = named.filter_map(|((column, names), counts)| {
        let counts: BTreeMap<String, usize> =
            counts.iter().map(|(value, n)| (names[*value as usize].clone(), *n)).collect();
        mixed(&format!("column `{column}`"), "rows", &counts)
    });
    found.map(|finding| finding.to_string()).collect()
}

/// Per column of `Table::alike`, the values that these rows have in it.
pub(super) fn values<'a>(table: &Table, rows: impl Iterator<Item = &'a Row>) -> Vec<BTreeSet<u32>> {
    let mut values = vec![BTreeSet::new(); table.alike.len()];
    for row in rows {
        for (values, value) in values.iter_mut().zip(&row.alike) {
            values.insert(*value);
        }
    }
    values
}

/// A warning for each column in which the fitted rows of two groups differ.
pub(super) fn unlike(
    table: &Table,
    group_by: Option<&str>,
    names: &[String; 2],
    values: [&[BTreeSet<u32>]; 2],
) -> Vec<String> {
    let warning = |column: &str, [one, other]: [String; 2]| {
        let ([first, second], consequence) = (names, consequence(column));
        format!(
            "unlike: column `{column}` is {one} in `{first}` and {other} in `{second}`; \
             {consequence}"
        )
    };
    let mut warnings = Vec::new();
    if let Some(column) =
        group_by.filter(|name| NEVER_COMPARED.contains(&name.to_lowercase().as_str()))
    {
        warnings.push(warning(column, [0, 1].map(|side| format!("`{}`", names[side]))));
    }
    for (index, (column, texts)) in table.alike.iter().enumerate() {
        let of = [0, 1].map(|side| &values[side][index]);
        if of[0] != of[1] && group_by != Some(column.as_str()) {
            warnings.push(warning(column, of.map(|values| listed(values, texts))));
        }
    }
    warnings
}

/// The first few of a column's values.
fn listed(values: &BTreeSet<u32>, texts: &[String]) -> String {
    let mut known: Vec<&str> = values.iter().map(|value| texts[*value as usize].as_str()).collect();
    known.sort_unstable();
    let mut named: Vec<String> =
        known.iter().take(MOST_NAMED).map(|text| format!("`{text}`")).collect();
    if known.len() > MOST_NAMED {
        named.push(format!("{} more", known.len() - MOST_NAMED));
    }
    named.join(", ")
}
