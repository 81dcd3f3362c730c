//! `gradus fit`: the scaling laws of a study.

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
    let report = locate::reading(global, async |client| {
        let study = match &args.study {
            Some(study) => study.clone(),
            None => newest(client).await?,
        };
        report(client, &study).await
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
    form.print(&report)?;
    Ok(())
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
