//! `gradus priority`: puts a study before or behind others.

use api::PriorityRequest;

use crate::args::{Global, PriorityArgs};
use crate::failure::Failure;
use crate::locate;
use crate::output::{Form, note};

pub(super) async fn run(global: &Global, args: &PriorityArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let client = locate::for_change(global).await?;
    let request = PriorityRequest { priority: args.priority };
    let path = ["studies", &args.study, "priority"];
    let changed = client.change(&path, &request, args.dry_run).await?;
    if args.dry_run {
        note(&format!("dry run: these runs would have the priority {}", args.priority));
        return Ok(form.print(&changed)?);
    }
    form.print(&changed)?;
    form.hint("the study file's own priority counts again when it is applied again");
    Ok(())
}
