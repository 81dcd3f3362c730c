//! `gradus suggest`: from a saved fit to the next study, or to the cells that would narrow it most.

use std::path::Path;

use anyhow::Context;

use super::{fit, observations};
use crate::args::{Global, SuggestArgs};
use crate::failure::Failure;
use crate::fit_document::{FitDocument, Restored};
use crate::locate;
use crate::output::{Form, data, note};

mod refine;
mod study;

pub(super) async fn run(global: &Global, args: &SuggestArgs) -> Result<(), Failure> {
    let budget = args.budget;
    if !(budget.is_finite() && budget > 0.0) {
        let text = format!("`--budget` must be finite and above zero, found {budget}");
        return Err(Failure::wrong(text));
    }
    let fit = if args.file.is_file() {
        the_fit(args, &args.file)?
    } else {
        of_study(global, args).await?
    };
    let form = Form::of(args.json, global.quiet);
    if args.refine {
        form.print(&refine::refine(args, &fit).map_err(Failure::Wrong)?)?;
        return Ok(());
    }
    let suggestion = study::suggest(args, &fit).map_err(Failure::Wrong)?;
    match &args.out {
        Some(path) => {
            if path.exists() {
                let text = format!("`{}` is there already; give another `--out`", path.display());
                return Err(Failure::wrong(text));
            }
            crate::fit_document::replace(path, suggestion.text.as_bytes()).map_err(|error| {
                let context = format!("could not write `{}`", path.display());
                Failure::Failed(anyhow::Error::new(error).context(context))
            })?;
            form.print(&suggestion.view)?;
            form.hint(&format!("look at `data`, then `gradus plan {}`", path.display()));
        }
        None if form == Form::Table => {
            for text in &suggestion.view.warnings {
                note(&format!("warning: {text}"));
            }
            data(suggestion.text.trim_end());
        }
        None => form.print(&suggestion.view)?,
    }
    Ok(())
}

/// The parametric law fitted to what a study has measured.
async fn of_study(global: &Global, args: &SuggestArgs) -> Result<Restored, Failure> {
    let name = args.file.to_string_lossy();
    if name.contains(['/', '\\']) || name.ends_with(".json") {
        return Err(Failure::wrong(format!("there is no saved fit `{name}`")));
    }
    let report = locate::reading(global, async |client| fit::report(client, &name).await).await?;
    let folder = tempfile::tempdir().context("could not make a folder").map_err(Failure::Failed)?;
    let mut fit = the_fit(args, &observations::save_fit(&report, folder.path())?)?;
    // What the rows of the file cannot say: how far the study is, and how its runs were trained.
    let name = |text: &String| text.split(": ").next().unwrap_or_default().to_owned();
    let known: Vec<String> = fit.saved.warnings.iter().map(name).collect();
    let mut said = observations::notes_of(&report, fit.saved.group.as_deref());
    said.retain(|text| !known.contains(&name(text)));
    fit.saved.warnings.splice(0..0, said);
    Ok(fit)
}

/// The fit that is meant: the only one, or the one of `--group`.
fn the_fit(args: &SuggestArgs, file: &Path) -> Result<Restored, Failure> {
    let document = FitDocument::read(file)?;
    let mut fits = document.restore(file, args.group.as_deref())?;
    if let (Some(fit), true) = (fits.pop(), fits.is_empty()) {
        return Ok(fit);
    }
    let names = document.fits.iter().filter_map(|one| one.group.as_deref());
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    let text = format!(
        "`{}` has several groups; give `--group` one of {}",
        args.file.display(),
        names.join(", ")
    );
    Err(Failure::wrong(text))
}
