//! A study's fits for people: exponents with intervals, predicted against measured, and the plot.
//!
//! Where the data do not identify a number it says so; it never prints one instead.

use api::{EstimateView, FitReport, GroupFit, HeldOutView, MethodFit};

use super::comparison;
use super::fit_parts::{Footnotes, cell, conventions, number};
use super::{View, format, sections, table};
use crate::plot::{Labels, Mark, Series, render};

/// Groups in one table: more do not fit into 80 columns.
const GROUPS_A_TABLE: usize = 4;

/// The order of coefficients: what a reader looks for first. Others follow by name.
const ORDER: [&str; 11] = [
    "loss_exponent",
    "loss_coefficient",
    "E",
    "A",
    "B",
    "alpha",
    "beta",
    "parameters_exponent",
    "tokens_exponent",
    "parameters_coefficient",
    "tokens_coefficient",
];

/// The letters of the science for the long names of the JSON, so that four groups fit side by side.
const LETTERS: [(&str, &str); 3] = [("loss_", "L_"), ("parameters_", "N_"), ("tokens_", "D_")];

/// So many cells of those that are missing are named.
const MOST_NAMED: usize = 10;

/// Above this C a study is no longer a demonstration: a day of one accelerator.
const SMALL_FLOPS: f64 = 1e18;

impl View for FitReport {
    fn table(&self) -> String {
        let mut notes = Footnotes::default();
        let mut parts = vec![conventions(self)];
        for method in methods(self) {
            parts.push(method_part(self, &method, &mut notes));
        }
        parts.push(held_out(&self.groups, &mut notes));
        parts.push(comparison::table_of(&self.comparisons, &mut notes));
        parts.push(notes.text());
        parts.push(plot(&self.groups));
        parts.push(excluded(self));
        parts.push(missing(self));
        parts.push(remarks(self));
        sections(&parts)
    }

    fn names(&self) -> Vec<String> {
        self.groups.iter().map(|group| group.group.clone()).collect()
    }
}

/// The cells that a provisional fit misses, the first of many.
fn missing(report: &FitReport) -> String {
    if report.missing.is_empty() {
        return String::new();
    }
    let named: Vec<&str> =
        report.missing.iter().take(MOST_NAMED).map(|run| run.name.as_str()).collect();
    let more = match report.missing.len().saturating_sub(MOST_NAMED) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    format!("not over yet: {}{more}", named.join(", "))
}

/// The methods in the order in which they first appear.
fn methods(report: &FitReport) -> Vec<String> {
    let mut methods: Vec<String> = Vec::new();
    for fit in report.groups.iter().flat_map(|group| &group.fits) {
        if !methods.contains(&fit.method) {
            methods.push(fit.method.clone());
        }
    }
    methods
}

fn method_part(report: &FitReport, method: &str, notes: &mut Footnotes) -> String {
    let fits: Vec<(&str, &MethodFit)> = report
        .groups
        .iter()
        .filter_map(|group| {
            let fit = group.fits.iter().find(|fit| fit.method == method)?;
            Some((group.group.as_str(), fit))
        })
        .collect();
    let mut parts = vec![method.to_owned()];
    for formula in fits.iter().flat_map(|(_, fit)| &fit.formulas) {
        let formula = format!("  {}", lettered(formula));
        if !parts.contains(&formula) {
            parts.push(formula);
        }
    }
    let objectives = fits.iter().filter(|(_, fit)| !fit.objective.is_empty());
    for (_, text) in merged(objectives.map(|(group, fit)| (*group, fit.objective.clone()))) {
        parts.push(format!("  minimised: {}", lettered(&text)));
    }
    for chunk in fits.chunks(GROUPS_A_TABLE) {
        parts.push(coefficient_table(chunk, notes));
    }
    let made = fits.iter().filter(|(_, fit)| !fit.intervals.is_empty());
    let made = merged(made.map(|(group, fit)| (*group, fit.intervals.clone())));
    match made.as_slice() {
        // What holds for every group needs no names.
        [(groups, text)] if groups.len() == fits.len() => parts.push(format!("intervals: {text}")),
        made => parts.extend(
            made.iter().map(|(groups, text)| format!("intervals of {}: {text}", groups.join(", "))),
        ),
    }
    parts.join("\n")
}

/// Equal texts once, each with the groups that it is said of, in the order of the first ones.
fn merged<'a>(said: impl Iterator<Item = (&'a str, String)>) -> Vec<(Vec<&'a str>, String)> {
    let mut merged: Vec<(Vec<&str>, String)> = Vec::new();
    for (group, text) in said {
        match merged.iter_mut().find(|(_, known)| *known == text) {
            Some((groups, _)) if groups.contains(&group) => {}
            Some((groups, _)) => groups.push(group),
            None => merged.push((vec![group], text)),
        }
    }
    merged
}

/// What the methods' fits say, equal texts of several groups in one line.
fn lines_by_group(groups: &[GroupFit], of: impl Fn(&MethodFit) -> Vec<String>) -> Vec<String> {
    let said = groups.iter().flat_map(|group| {
        let of_group = group.fits.iter().flat_map(|fit| {
            let texts = of(fit);
            texts.into_iter().map(|text| format!("{}: {text}", fit.method)).collect::<Vec<_>>()
        });
        of_group.map(|text| (group.group.as_str(), text)).collect::<Vec<_>>()
    });
    let merged = merged(said);
    merged.iter().map(|(groups, text)| format!("{} {text}", groups.join(", "))).collect()
}

fn lettered(text: &str) -> String {
    LETTERS.iter().fold(text.to_owned(), |text, (name, letter)| text.replace(name, letter))
}

/// A column for each group, a row for each coefficient, the interval below the value.
fn coefficient_table(fits: &[(&str, &MethodFit)], notes: &mut Footnotes) -> String {
    let mut names: Vec<&String> =
        fits.iter().flat_map(|(_, fit)| fit.coefficients.keys()).collect();
    let rank = |name: &str| ORDER.iter().position(|known| *known == name).unwrap_or(ORDER.len());
    names.sort_by_key(|name| (rank(name), (*name).clone()));
    names.dedup();
    let mut columns = vec![""];
    columns.extend(fits.iter().map(|(group, _)| *group));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for name in names {
        let mut row = vec![lettered(name)];
        row.extend(fits.iter().map(|(_, fit)| cell(fit.coefficients.get(name), notes)));
        rows.push(row);
    }
    let fact = |name: &str, of: &dyn Fn(&MethodFit) -> String| {
        let mut row = vec![name.to_owned()];
        row.extend(fits.iter().map(|(_, fit)| of(fit)));
        row
    };
    rows.push(fact("runs, points", &|fit| format!("{}, {}", fit.n_runs, fit.n_observations)));
    rows.push(fact("rms of ln L", &|fit| format::optional(fit.residual_rms_log, number)));
    table(&columns, rows)
}

/// Predicted against measured.
fn held_out(groups: &[GroupFit], notes: &mut Footnotes) -> String {
    let row = |held: &HeldOutView, notes: &mut Footnotes| {
        let predicted = match &held.predicted_loss_nats {
            EstimateView::Identified { value, low, high } => {
                format!("{value:.3} [{low:.3}, {high:.3}]")
            }
            EstimateView::NotIdentified { reason } => {
                format!("not identified {}", notes.mark(reason))
            }
        };
        vec![
            held.name.clone(),
            held.method.clone(),
            format::flops(held.flops),
            predicted,
            format!("{:.3}", held.measured_loss_nats),
            format::optional(held.relative_error, |error| format!("{:+.1} %", 100.0 * error)),
        ]
    };
    let rows: Vec<Vec<String>> =
        groups.iter().flat_map(|group| &group.held_out).map(|held| row(held, notes)).collect();
    if rows.is_empty() {
        return String::new();
    }
    let columns = ["RUN", "METHOD", ">FLOPS", "PREDICTED", ">MEASURED", ">ERROR"];
    format!("held out, predicted only\n{}", table(&columns, rows))
}

/// Loss against C with the first method's curve that has one.
fn plot(groups: &[GroupFit]) -> String {
    let series: Vec<Series> = groups
        .iter()
        .map(|group| Series {
            name: group.group.clone(),
            marks: group
                .observations
                .iter()
                .map(|one| Mark { x: one.flops, y: one.loss_nats, is_held_out: one.is_held_out })
                .collect(),
            curve: group
                .fits
                .iter()
                .map(|fit| &fit.curve)
                .find(|curve| !curve.is_empty())
                .map(|curve| curve.iter().map(|point| (point.flops, point.loss_nats)).collect())
                .unwrap_or_default(),
        })
        .collect();
    render(&series, Labels { x: "C, FLOPs", y: "L, nats per token" })
}

fn excluded(report: &FitReport) -> String {
    let mut lines: Vec<String> = report
        .excluded
        .iter()
        .map(|run| format!("excluded `{}`: {}", run.name, run.reason))
        .collect();
    lines.extend(lines_by_group(&report.groups, |fit| {
        let left_out =
            fit.dropped.iter().map(|one| format!("{} left out: {}", one.what, one.reason));
        left_out.collect()
    }));
    shortened(lines)
}

/// A long list says how long it is; `--json` has all of it.
fn shortened(lines: Vec<String>) -> String {
    const MOST: usize = 12;
    let n = lines.len();
    let mut shown: Vec<String> = lines.into_iter().take(MOST).collect();
    if n > MOST {
        shown.push(format!("… and {} more, see `--json`", n - MOST));
    }
    shown.join("\n")
}

fn remarks(report: &FitReport) -> String {
    let warnings = lines_by_group(&report.groups, |fit| fit.warnings.clone());
    let mut lines: Vec<String> =
        warnings.iter().map(|warning| format!("warning: {warning}")).collect();
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    let is_said = report.notes.iter().any(|note| note.contains("demonstration"));
    let most = report
        .groups
        .iter()
        .flat_map(|group| &group.observations)
        .map(|one| one.flops)
        .fold(0.0, f64::max);
    if !is_said && most > 0.0 && most < SMALL_FLOPS {
        lines.push(format!(
            "note: the largest run took {} FLOPs; a study this small is a demonstration of the \
             method and no evidence for decisions about larger models",
            format::flops(most)
        ));
    }
    lines.join("\n")
}
