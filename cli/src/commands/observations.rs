//! What a study has measured, as a file of rows that `gradus fit --csv` takes.
//!
//! It fits nothing.

use std::path::{Path, PathBuf};

use anyhow::Context;
use api::{FitReport, ObservationView};
use clap::Parser as _;

use super::fit_csv;
use crate::args::{Args, Command, FitArgs};
use crate::failure::Failure;

/// The columns, in this order. Numbers have as many digits as it takes to read them back.
const HEADER: &str = "group,run,step,n,d,c,loss,held_out";

/// Every observation of a report, a row each.
pub(super) fn csv(report: &FitReport) -> String {
    let mut text = format!("{HEADER}\n");
    for group in &report.groups {
        for one in &group.observations {
            text += &row(&group.group, one);
        }
    }
    text
}

fn row(group: &str, one: &ObservationView) -> String {
    let ObservationView { name, step, parameters, tokens, flops, loss_nats, .. } = one;
    let (group, name) = (quoted(group), quoted(name));
    let held_out = if one.is_held_out { "yes" } else { "no" };
    format!("{group},{name},{step},{parameters},{tokens},{flops},{loss_nats},{held_out}\n")
}

/// A cell that may have anything in it.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Fits the parametric law to what a study has measured, and saves the fit in this folder; where.
pub(super) fn save_fit(report: &FitReport, folder: &Path) -> Result<PathBuf, Failure> {
    let file = folder.join(format!("{}.csv", report.study));
    std::fs::write(&file, csv(report))
        .with_context(|| format!("could not write `{}`", file.display()))
        .map_err(Failure::Failed)?;
    let out = folder.join(format!("{}.json", report.study));
    fit_csv::save(&file, &arguments(report, &file, &out)?)?;
    Ok(out)
}

/// The command that fits such a file as the study's own fit would be.
pub(super) fn words(report: &FitReport, file: &Path) -> Vec<String> {
    let mut words: Vec<String> = ["gradus", "fit", "--csv", &file.display().to_string()]
        .into_iter()
        .chain(["--law", "chinchilla", "--n", "n", "--d", "d", "--c", "c", "--loss", "loss"])
        .chain(["--run", "run"])
        .chain(["--n-counts", &report.parameter_kind, "--c-counts", &report.flop_kind])
        .map(str::to_owned)
        .collect();
    if report.group_by.is_some() {
        words.extend(["--group-by", "group"].map(str::to_owned));
    }
    let mut observations = report.groups.iter().flat_map(|group| &group.observations);
    if observations.any(|one| one.is_held_out) {
        words.extend(["--hold-out", "held_out=yes"].map(str::to_owned));
    }
    words
}

/// The same as a person would give them, with the draws of the study.
fn arguments(report: &FitReport, file: &Path, out: &Path) -> Result<FitArgs, Failure> {
    let (draws, seed) = (report.draws.to_string(), report.seed.to_string());
    let mut words = words(report, file);
    words.extend(["--draws", &draws, "--seed", &seed].map(str::to_owned));
    words.extend(["--out".to_owned(), out.display().to_string()]);
    let parsed = Args::try_parse_from(words).context("these are arguments of `gradus fit`");
    match parsed.map_err(Failure::Failed)?.command {
        Command::Fit(args) => Ok(*args),
        _ => Err(Failure::wrong("`gradus fit` is the command")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_commas_and_quotes_stay_one_cell() {
        let one = ObservationView {
            run_id: "r_1".into(),
            name: "a \"b\", c".into(),
            step: 5,
            parameters: 1e6,
            tokens: 2.5e7,
            flops: 1.5e14,
            loss_nats: 3.125,
            is_held_out: true,
        };
        let text = row("tnl", &one);
        assert_eq!(text, "tnl,\"a \"\"b\"\", c\",5,1000000,25000000,150000000000000,3.125,yes\n");
    }
}
