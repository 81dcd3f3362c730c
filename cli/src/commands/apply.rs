//! `gradus apply`: uploads the sources that the store lacks and hands the study file over.

use std::collections::BTreeSet;

use anyhow::Context;
use api::{ApplyRequest, ApplyView, RunList, SourceHashes, StudyList};
use planner::plan_view;

use crate::args::{ApplyArgs, Global};
use crate::client::Client;
use crate::failure::Failure;
use crate::locate;
use crate::output::{Form, data, format};
use crate::sources::{Study, read_study};

pub(super) async fn run(global: &Global, args: &ApplyArgs) -> Result<(), Failure> {
    // Everything that is wrong with the file is found before anybody is asked.
    let study = read_study(&args.file)?;
    let form = Form::of(args.json, global.quiet);
    if args.dry_run {
        return dry_run(global, &study, form).await;
    }
    let client = locate::for_change(global).await?;
    let view = apply(&client, study).await?;
    form.print(&view)?;
    form.hint(&format!("`gradus watch {}` follows it", view.study));
    Ok(())
}

/// Uploads what is missing and applies the study.
pub(super) async fn apply(client: &Client, study: Study) -> Result<ApplyView, Failure> {
    let hashes: BTreeSet<String> = study.paths.keys().cloned().collect();
    let asked = SourceHashes { hashes: hashes.into_iter().collect() };
    let missing: SourceHashes = client.post(&["sources", "missing"], &asked).await?;
    for hash in &missing.hashes {
        let path = study
            .paths
            .get(hash)
            .with_context(|| format!("the coordinator asks for `{hash}`, which is no source"))?;
        let file = tokio::fs::File::open(path)
            .await
            .with_context(|| format!("could not read `{}`", path.display()))?;
        client.put_source(hash, path, file).await?;
    }
    let request =
        ApplyRequest { spec_text: study.text, spec_file: study.file, sources: study.sources };
    Ok(client.post(&["studies"], &request).await?)
}

/// The plan, and against a coordinator how many of its runs are there already.
async fn dry_run(global: &Global, study: &Study, form: Form) -> Result<(), Failure> {
    let plan = plan_view(&study.plan);
    form.print(&plan)?;
    if form != Form::Table {
        return Ok(());
    }
    let known = locate::reading(global, async |client| {
        let studies: StudyList = client.get(&["studies"]).await?;
        let runs: RunList = client.get(&["runs"]).await?;
        Ok((studies, runs))
    });
    let text = match known.await {
        Err(Failure::Unreachable(_)) => {
            format!("dry run: would make the study `{}`; no coordinator was asked", plan.study)
        }
        Err(failure) => return Err(failure),
        Ok((studies, runs)) => {
            let there: BTreeSet<&str> = runs.runs.iter().map(|run| run.id.as_str()).collect();
            let planned: BTreeSet<&str> =
                plan.cells.iter().map(|cell| cell.run_id.as_str()).collect();
            let is_update = studies.studies.iter().any(|other| other.name == plan.study);
            let n_bytes: u64 =
                study.sources.iter().flat_map(|one| &one.files).map(|file| file.n_bytes).sum();
            format!(
                "dry run: would {} the study `{}`: {} new runs, {} that are there; its sources are \
                 {}",
                if is_update { "update" } else { "make" },
                plan.study,
                planned.difference(&there).count(),
                planned.intersection(&there).count(),
                format::bytes(n_bytes)
            )
        }
    };
    data(&format!("\n{text}"));
    Ok(())
}
