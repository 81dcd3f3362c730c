//! Columns in which all rows of a fit should be alike: the schedule, the tokenizer, the data.
//!
//! The warning itself is `scaling::diagnose`'s.

use std::collections::BTreeMap;

use anyhow::Context;
use scaling::diagnose::mixed;

use super::read::{Row, Table};
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

/// Positions of the columns that are named by `--same`, or known and not used for anything else.
pub(super) fn columns(headers: &[String], args: &ColumnArgs) -> anyhow::Result<Vec<usize>> {
    let mut found = Vec::new();
    for name in &args.same {
        let index = headers.iter().position(|header| header == name).with_context(|| {
            let names: Vec<String> = headers.iter().map(|one| format!("`{one}`")).collect();
            format!("there is no column `{name}`; the columns are {}", names.join(", "))
        })?;
        found.push(index);
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
