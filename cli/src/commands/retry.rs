//! `gradus retry`: queues what failed or was cancelled again.

use api::RetryRequest;

use super::target::Target;
use crate::args::{Global, RetryArgs};
use crate::failure::Failure;
use crate::locate;
use crate::output::{Form, note};

pub(super) async fn run(global: &Global, args: &RetryArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let client = locate::for_change(global).await?;
    let target = Target::find(&client, &args.target).await?;
    let request = RetryRequest { failed: args.failed, class: args.class.clone() };
    let changed = target.change(&client, "retry", &request, args.dry_run).await?;
    if args.dry_run {
        note("dry run: these runs would be queued again");
    }
    Ok(form.print(&changed)?)
}
