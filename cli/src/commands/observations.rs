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
const HEADER: &str = "group,run,step,n,d,c,loss,held_out,trunk";

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
    // A run that shares no trunk has its own.
    let trunk = quoted(one.trunk.as_ref().unwrap_or(name));
    let (group, name) = (quoted(group), quoted(name));
    let held_out = if one.is_held_out { "yes" } else { "no" };
    format!("{group},{name},{step},{parameters},{tokens},{flops},{loss_nats},{held_out},{trunk}\n")
}

/// A cell that may have anything in it.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// Laws from which a best N and D follow.
const LAWS_WITH_OPTIMUM: [&str; 2] = ["chinchilla", "coupled"];

/// The methods of a report that fit a law, the first of the study's first.
fn laws(report: &FitReport) -> impl Iterator<Item = &str> {
    let fits = report.groups.iter().flat_map(|group| &group.fits);
    fits.map(|fit| fit.method.as_str()).filter(|name| !matches!(*name, "envelope" | "isoflop"))
}

/// Fits the study's law that has a best N and D to what it has measured, and saves the fit in this
/// folder; where.
pub(super) fn save_fit(report: &FitReport, folder: &Path) -> Result<PathBuf, Failure> {
    let Some(law) = laws(report).find(|law| LAWS_WITH_OPTIMUM.contains(law)) else {
        let study = &report.study;
        return Err(Failure::wrong(format!(
            "`{study}` is fitted by no law with a best N and D, which are `chinchilla` and \
             `coupled`\n\nhint: `gradus fit {study} --observations FILE` writes its rows, for \
             `gradus fit --csv FILE --law chinchilla --out FIT.json`"
        )));
    };
    let file = folder.join(format!("{}.csv", report.study));
    std::fs::write(&file, csv(report))
        .with_context(|| format!("could not write `{}`", file.display()))
        .map_err(Failure::Failed)?;
    let out = folder.join(format!("{}.json", report.study));
    fit_csv::save(&file, &arguments(report, law, &file, &out)?)?;
    Ok(out)
}

/// The command that fits such a file as the report says that the study was fitted: by its first
/// law, or `chinchilla` where it has none.
pub(super) fn words(report: &FitReport, file: &Path) -> Vec<String> {
    words_of(report, laws(report).next().unwrap_or("chinchilla"), file)
}

fn words_of(report: &FitReport, law: &str, file: &Path) -> Vec<String> {
    let mut words: Vec<String> = ["gradus", "fit", "--csv", &file.display().to_string()]
        .into_iter()
        .chain(["--law", law, "--n", "n", "--d", "d", "--c", "c", "--loss", "loss"])
        .chain(["--run", "run"])
        .chain(["--n-counts", &report.parameter_kind, "--c-counts", &report.flop_kind])
        .map(str::to_owned)
        .collect();
    if report.group_by.is_some() {
        words.extend(["--group-by", "group"].map(str::to_owned));
    }
    // Reports of older builds do not say by what they were made; then it was the default.
    if !report.objective.is_empty() {
        words.extend(["--objective".to_owned(), report.objective.clone()]);
    }
    if report.weights == "seed_noise" {
        words.push("--seed-noise".to_owned());
    }
    words.extend(["--draws".to_owned(), report.draws.to_string()]);
    words.extend(["--seed".to_owned(), report.seed.to_string()]);
    let observations = || report.groups.iter().flat_map(|group| &group.observations);
    if observations().any(|one| one.trunk.is_some()) {
        words.extend(["--trunk", "trunk"].map(str::to_owned));
    }
    if observations().any(|one| one.is_held_out) {
        words.extend(["--hold-out", "held_out=yes"].map(str::to_owned));
    }
    words
}

/// The same as a person would give them, by this law.
fn arguments(report: &FitReport, law: &str, file: &Path, out: &Path) -> Result<FitArgs, Failure> {
    let mut words = words_of(report, law, file);
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

    fn report(methods: &[&str], objective: &str, weights: &str) -> FitReport {
        let fit = |method: &&str| {
            serde_json::json!({"method": method, "formulas": [], "coefficients": {},
                "n_observations": 0, "n_runs": 0, "residual_rms_log": null, "intervals": "",
                "curve": [], "points": [], "dropped": [], "warnings": []})
        };
        let fits: Vec<serde_json::Value> = methods.iter().map(fit).collect();
        let group =
            serde_json::json!({"group": "all", "observations": [], "fits": fits, "held_out": []});
        let report = serde_json::json!({"id": "f_1", "study": "ladder", "is_provisional": false,
            "inputs_hash": "0", "parameter_kind": "total", "flop_kind": "exact", "loss": "l",
            "objective": objective, "weights": weights, "draws": 300, "seed": 7,
            "confidence": 0.95, "group_by": null, "groups": [group], "excluded": [],
            "missing": [], "notes": []});
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn rows_are_fitted_by_the_settings_that_the_report_was_made_by() {
        let said = |report: &FitReport| words(report, Path::new("rows.csv")).join(" ");
        let text = said(&report(&["envelope", "power_floor", "coupled"], "lad", "seed_noise"));
        assert!(text.contains("--law power_floor "), "{text}");
        assert!(text.ends_with("--objective lad --seed-noise --draws 300 --seed 7"), "{text}");
        let older = said(&report(&["envelope"], "", ""));
        assert!(older.contains("--law chinchilla ") && !older.contains("--objective"), "{older}");
        // Every word is one that the command line knows.
        let mut shared = report(&["coupled"], "huber", "equal");
        let observation = serde_json::json!({"run_id": "r_1", "name": "a", "step": 1, "tokens": 1.0,
            "parameters": 1.0, "flops": 6.0, "loss_nats": 3.0, "is_held_out": false, "trunk": "b"});
        shared.groups[0].observations.push(serde_json::from_value(observation).unwrap());
        assert!(said(&shared).ends_with(" --trunk trunk"), "{}", said(&shared));
        for law in ["coupled", "power_floor", "broken_power", "kaplan", "overtraining", "power"] {
            let report = report(&[law], "log-squares", "equal");
            let args =
                arguments(&report, law, Path::new("rows.csv"), Path::new("fit.json")).unwrap();
            assert_eq!((args.law.as_deref(), args.draws), (Some(law), Some(300)));
        }
    }

    #[test]
    fn a_study_without_a_law_that_has_a_best_size_gives_no_next_study() {
        let folder = tempfile::tempdir().unwrap();
        let failure = save_fit(&report(&["isoflop", "power"], "huber", "equal"), folder.path());
        let text = failure.unwrap_err().report();
        assert!(text.contains("`chinchilla` and `coupled`"), "{text}");
    }

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
            trunk: None,
        };
        let own = "\"a \"\"b\"\", c\"";
        let numbers = "5,1000000,25000000,150000000000000,3.125,yes";
        assert_eq!(row("tnl", &one), format!("tnl,{own},{numbers},{own}\n"));
        let shared = ObservationView { trunk: Some("a".to_owned()), ..one };
        assert_eq!(row("tnl", &shared), format!("tnl,{own},{numbers},a\n"));
    }
}
