//! `gradus cancel`: stops a study or a run.

use api::CancelRequest;

use super::target::Target;
use crate::args::{CancelArgs, Global};
use crate::failure::Failure;
use crate::locate;
use crate::output::{Form, note};

pub(super) async fn run(global: &Global, args: &CancelArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    if args.reason.trim().is_empty() {
        return Err(Failure::wrong("`--reason` is empty; say why, for the record"));
    }
    let client = locate::for_change(global).await?;
    let target = Target::find(&client, &args.target).await?;
    let request = CancelRequest { reason: args.reason.clone() };
    let changed = target.change(&client, "cancel", &request, args.dry_run).await?;
    if args.dry_run {
        note("dry run: these runs would be cancelled");
    }
    form.print(&changed)?;
    if !args.dry_run {
        form.hint(&format!("`gradus retry {}` queues what was cancelled again", args.target));
    }
    Ok(())
}
