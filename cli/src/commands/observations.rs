//! What a study has measured, as a file of rows that `gradus fit --csv` takes.
//!
//! It fits nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Context;
use api::{FitReport, ObservationView};
use clap::Parser as _;
use scaling::ladder::{Ladder, Rung};

use super::fit_csv;
use crate::args::{Args, Command, FitArgs};
use crate::failure::Failure;

/// The columns, in this order. Numbers have as many digits as it takes to read them back.
const HEADER: &str = "group,run,step,n,d,c,loss,held_out,trunk,flops_per_token";

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
    let rest = format!("{held_out},{trunk},{}", flops / tokens);
    format!("{group},{name},{step},{parameters},{tokens},{flops},{loss_nats},{rest}\n")
}

/// A cell that may have anything in it.
fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// What the rows cannot say: how far the study is, and the report's named warnings about this group,
/// or about the whole study.
pub(super) fn notes_of(report: &FitReport, group: Option<&str>) -> Vec<String> {
    let is_another = |name: &str| {
        let mut others = report.groups.iter().filter(|one| group != Some(one.group.as_str()));
        others.any(|one| one.group == name)
    };
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let own = report.notes.iter().filter_map(|note| {
        let (first, rest) = note.split_once(": ")?;
        match group {
            Some(own) if own == first => Some(rest),
            _ if is_another(first) => None,
            _ => Some(note.as_str()),
        }
    });
    let named = own.filter(|text| text.split_once(": ").is_some_and(|(name, _)| is_name(name)));
    named.map(str::to_owned).collect()
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
    if has_ladder(report) {
        words.extend(["--flops-per-token", "flops_per_token"].map(str::to_owned));
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

/// Whether the models of every group are a ladder, along which the best N and D can be looked for.
fn has_ladder(report: &FitReport) -> bool {
    report.groups.iter().all(|group| {
        let rung = |one: &ObservationView| Rung {
            parameters: one.parameters,
            flops_per_token: one.flops / one.tokens,
        };
        Ladder::new(&group.observations.iter().map(rung).collect::<Vec<_>>()).is_ok()
    })
}

/// The same as a person would give them, by this law.
fn arguments(report: &FitReport, law: &str, file: &Path, out: &Path) -> Result<FitArgs, Failure> {
    let mut words = words_of(report, law, file);
    words.extend(["--out".to_owned(), out.display().to_string()]);
    parsed(words)
}

/// The arguments by which the study's first law, or the one asked for, is fitted to its rows, with
/// what else was asked for.
pub(super) fn arguments_in_full(
    report: &FitReport,
    file: &Path,
    asked: &FitArgs,
) -> Result<FitArgs, Failure> {
    let Some(law) = laws(report).next() else {
        let methods: BTreeSet<&str> = report
            .groups
            .iter()
            .flat_map(|group| &group.fits)
            .map(|fit| fit.method.as_str())
            .collect();
        let methods: Vec<&str> = methods.into_iter().collect();
        return Err(Failure::wrong(format!(
            "the rows of `{}` are fitted here by a law, and it has none among its methods ({}); \
             `--law` takes one",
            report.study,
            methods.join(", ")
        )));
    };
    Ok(FitArgs {
        of: asked.of.clone(),
        breaks: asked.breaks,
        delta: asked.delta,
        against: asked.against.clone(),
        threads: asked.threads,
        compare_at: asked.compare_at.clone(),
        audit: asked.audit,
        plot: asked.plot.clone(),
        out: asked.out.clone(),
        json: asked.json,
        ..parsed(words_of(report, law, file))?
    })
}

fn parsed(words: Vec<String>) -> Result<FitArgs, Failure> {
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
        assert!(!said(&shared).contains("--flops-per-token"), "one size is no ladder");
        let larger = serde_json::json!({"run_id": "r_2", "name": "c", "step": 1, "tokens": 1.0,
            "parameters": 2.0, "flops": 12.0, "loss_nats": 3.0, "is_held_out": false, "trunk": "c"});
        shared.groups[0].observations.push(serde_json::from_value(larger).unwrap());
        assert!(said(&shared).contains(" --flops-per-token flops_per_token "), "{}", said(&shared));
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
        assert_eq!(row("tnl", &one), format!("tnl,{own},{numbers},{own},6000000\n"));
        let shared = ObservationView { trunk: Some("a".to_owned()), ..one };
        assert_eq!(row("tnl", &shared), format!("tnl,{own},{numbers},a,6000000\n"));
    }
}
