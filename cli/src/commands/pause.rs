//! `gradus pause` and `gradus resume`: holds a study, and lets it go on.

use api::{ChangeView, PauseRequest, RunList};
use domain::run::TERMINAL;
use serde_json::json;

use crate::args::{Global, PauseArgs, ResumeArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::locate;
use crate::output::{Form, note};

pub(super) async fn pause(global: &Global, args: &PauseArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let client = locate::for_change(global).await?;
    if args.dry_run {
        note("dry run: these runs would be held, unless a study that is not paused has them");
        return Ok(form.print(&open_runs(&client, &args.study).await?)?);
    }
    let request = PauseRequest { reason: args.reason.clone() };
    let changed: ChangeView = client.post(&["studies", &args.study, "pause"], &request).await?;
    form.print(&changed)?;
    form.hint(&format!(
        "runs that a worker has write a checkpoint and leave; `gradus resume {}` lets them go on",
        args.study
    ));
    Ok(())
}

pub(super) async fn resume(global: &Global, args: &ResumeArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let client = locate::for_change(global).await?;
    if args.dry_run {
        note("dry run: these runs would go on");
        return Ok(form.print(&open_runs(&client, &args.study).await?)?);
    }
    let changed: ChangeView = client.post(&["studies", &args.study, "resume"], &json!({})).await?;
    Ok(form.print(&changed)?)
}

/// The runs of a study that are not over.
pub(super) async fn open_runs(client: &Client, study: &str) -> Result<ChangeView, Failure> {
    let list: RunList = client.get(&["studies", study, "runs"]).await?;
    let open = list.runs.into_iter().filter(|run| !TERMINAL.contains(&run.state.as_str()));
    Ok(ChangeView { run_ids: open.map(|run| run.id).collect() })
}
