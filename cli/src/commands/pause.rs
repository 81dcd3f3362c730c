//! `gradus pause` and `gradus resume`: holds a study, and lets it go on.

use api::PauseRequest;
use serde_json::json;

use crate::args::{Global, PauseArgs, ResumeArgs};
use crate::failure::Failure;
use crate::locate;
use crate::output::{Form, note};

pub(super) async fn pause(global: &Global, args: &PauseArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let client = locate::for_change(global).await?;
    let request = PauseRequest { reason: args.reason.clone() };
    let path = ["studies", &args.study, "pause"];
    let changed = client.change(&path, &request, args.dry_run).await?;
    if args.dry_run {
        note("dry run: these runs would be held");
        return Ok(form.print(&changed)?);
    }
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
    let path = ["studies", &args.study, "resume"];
    let changed = client.change(&path, &json!({}), args.dry_run).await?;
    if args.dry_run {
        note("dry run: these runs would go on");
    }
    Ok(form.print(&changed)?)
}
