//! `gradus priority`: puts a study before or behind others.

use api::{ChangeView, PriorityRequest};

use super::pause::open_runs;
use crate::args::{Global, PriorityArgs};
use crate::failure::Failure;
use crate::locate;
use crate::output::{Form, note};

pub(super) async fn run(global: &Global, args: &PriorityArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let client = locate::for_change(global).await?;
    if args.dry_run {
        note(&format!(
            "dry run: these runs would have the priority {}, unless another study wants more",
            args.priority
        ));
        return Ok(form.print(&open_runs(&client, &args.study).await?)?);
    }
    let request = PriorityRequest { priority: args.priority };
    let changed: ChangeView = client.post(&["studies", &args.study, "priority"], &request).await?;
    form.print(&changed)?;
    form.hint("the study file's own priority counts again when it is applied again");
    Ok(())
}
