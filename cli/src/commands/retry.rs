//! `gradus retry`: queues what failed or was cancelled again.

use serde_json::json;

use super::target::Target;
use crate::args::{Global, RetryArgs};
use crate::failure::Failure;
use crate::locate;
use crate::output::{Form, note};

pub(super) async fn run(global: &Global, args: &RetryArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let client = locate::for_change(global).await?;
    let target = Target::find(&client, &args.target).await?;
    if args.dry_run {
        note("dry run: these runs would be queued again");
        let is_concerned = |state: &str| matches!(state, "failed" | "cancelled" | "backoff");
        return Ok(form.print(&target.would_change(is_concerned))?);
    }
    form.print(&target.change(&client, "retry", &json!({})).await?)?;
    Ok(())
}
