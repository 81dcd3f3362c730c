//! `gradus fit`: the scaling laws of a study.

use anyhow::Context;
use api::{FitReport, StudyList};

use super::{fit_csv, observations};
use crate::args::{FitArgs, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::locate;
use crate::output::Form;

pub(super) async fn run(global: &Global, args: &FitArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    if let Some(saved) = &args.again {
        return fit_csv::again(saved, args, form);
    }
    if let Some(file) = &args.csv {
        return fit_csv::run(file, args, form);
    }
    if args.observations.is_some() && args.is_full() {
        let text = "`--observations` writes rows and fits nothing; give it alone";
        return Err(Failure::wrong(text));
    }
    let query = query(args)?;
    let report: FitReport = locate::reading(global, async |client| {
        let study = match &args.study {
            Some(study) => study.clone(),
            None => newest(client).await?,
        };
        Ok(client.get_with(&["studies", &study, "fit"], &query).await?)
    })
    .await?;
    if let Some(path) = &args.observations {
        let text = observations::csv(&report);
        crate::fit_document::replace(path, text.as_bytes()).map_err(|error| {
            let context = format!("could not write `{}`", path.display());
            Failure::Failed(anyhow::Error::new(error).context(context))
        })?;
        let command = observations::words(&report, path).join(" ");
        form.hint(&format!("`{command}` fits them as the study is fitted"));
        return Ok(());
    }
    if args.is_full() {
        return full(&report, args, form);
    }
    form.print(&report)?;
    Ok(())
}

/// Fits the study's rows by the study's settings, as those of a file.
fn full(report: &FitReport, args: &FitArgs, form: Form) -> Result<(), Failure> {
    let folder = tempfile::tempdir().context("could not make a folder").map_err(Failure::Failed)?;
    // With the fit its rows are kept, by which `--again` makes it again.
    let file = match &args.out {
        Some(out) => out.with_extension("csv"),
        None => folder.path().join(format!("{}.csv", report.study)),
    };
    if args.out.as_ref() == Some(&file) {
        let text = format!(
            "`--out {}` is for the fit; its rows go into a `.csv` beside it",
            file.display()
        );
        return Err(Failure::wrong(text));
    }
    let asked = observations::arguments_in_full(report, &file, args)?;
    crate::fit_document::replace(&file, observations::csv(report).as_bytes())
        .with_context(|| format!("could not write `{}`", file.display()))
        .map_err(Failure::Failed)?;
    let notes = |group: Option<&str>| observations::notes_of(report, group);
    fit_csv::run_study(&file, &report.study, &asked, form, &notes)
}

/// The settings in place of the study's own, as the coordinator takes them.
fn query(args: &FitArgs) -> Result<Vec<(&'static str, String)>, Failure> {
    let hold_out = match args.hold_out.as_slice() {
        [] => None,
        [one] => Some(match one.as_str() {
            "none" => "none",
            "largest" => "largest_compute",
            "largest-size" => "largest_size",
            other => {
                return Err(Failure::wrong(format!(
                    "`--hold-out {other}` is no rule for a study; rules are `none`, `largest`, \
                     `largest-size`\n\nhint: `--observations FILE` writes its rows, for which \
                     `fit --csv` knows more rules"
                )));
            }
        }),
        [_, other, ..] => {
            let text = format!("`--hold-out {other}` is one too many: a study takes one rule");
            return Err(Failure::wrong(text));
        }
    };
    let axis = args.columns.group_by.as_deref();
    let settings = [
        ("law", args.law.clone()),
        ("objective", args.objective.clone()),
        ("weights", args.seed_noise.then(|| "seed_noise".to_owned())),
        ("group_by", axis.map(|axis| if axis == "none" { "" } else { axis }.to_owned())),
        ("hold_out", hold_out.map(str::to_owned)),
        ("draws", args.draws.map(|draws| draws.to_string())),
        ("seed", args.seed.map(|seed| seed.to_string())),
    ];
    Ok(settings.into_iter().filter_map(|(name, value)| Some((name, value?))).collect())
}

/// The fits of a study, made from what is there now.
pub(super) async fn report(client: &Client, study: &str) -> Result<FitReport, Failure> {
    Ok(client.get(&["studies", study, "fit"]).await?)
}

async fn newest(client: &Client) -> Result<String, Failure> {
    let list: StudyList = client.get(&["studies"]).await?;
    let newest = list.studies.into_iter().next();
    newest.map(|study| study.name).ok_or_else(|| {
        Failure::wrong("there is no study yet\n\nhint: `gradus apply FILE` makes one")
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Args, Command};

    fn asked(line: &str) -> Result<Vec<(&'static str, String)>, String> {
        let parsed = Args::try_parse_from(line.split_whitespace()).map_err(|e| e.to_string())?;
        let Command::Fit(args) = parsed.command else { panic!("{line} is `gradus fit`") };
        query(&args).map_err(|failure| failure.report())
    }

    #[test]
    fn settings_of_a_study_are_asked_for_by_the_names_of_the_coordinator() {
        assert_eq!(asked("gradus fit ladder"), Ok(Vec::new()));
        let line = "gradus fit ladder --law coupled --objective lad --seed-noise --group-by arch \
                    --hold-out largest --bootstrap 200 --seed 7";
        let expected = [
            ("law", "coupled"),
            ("objective", "lad"),
            ("weights", "seed_noise"),
            ("group_by", "arch"),
            ("hold_out", "largest_compute"),
            ("draws", "200"),
            ("seed", "7"),
        ];
        assert_eq!(asked(line), Ok(expected.map(|(name, value)| (name, value.to_owned())).into()));
        let all = asked("gradus fit --group-by none --hold-out none").unwrap();
        assert_eq!(all, [("group_by", String::new()), ("hold_out", "none".to_owned())]);
    }

    #[test]
    fn rules_that_only_a_file_knows_are_refused_with_those_of_a_study() {
        let said = asked("gradus fit ladder --hold-out c>1e21").unwrap_err();
        assert!(said.contains("`none`, `largest`, `largest-size`"), "{said}");
        assert!(said.contains("--observations FILE"), "{said}");
        let said = asked("gradus fit ladder --hold-out none --hold-out largest").unwrap_err();
        assert!(said.contains("one too many"), "{said}");
        // What has no meaning for a study is an error of the command line.
        assert!(asked("gradus fit ladder --n n").unwrap_err().contains("--csv"));
    }
}
