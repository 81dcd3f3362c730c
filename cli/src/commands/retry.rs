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
    if args.dry_run {
        note(&match &args.class {
            Some(class) => {
                format!(
                    "dry run: of these runs those that failed as `{class}` would be queued again"
                )
            }
            None => "dry run: these runs would be queued again".to_owned(),
        });
        let only_failed = args.failed || args.class.is_some();
        let is_concerned = |state: &str| {
            state == "failed" || (!only_failed && matches!(state, "cancelled" | "backoff"))
        };
        return Ok(form.print(&target.would_change(is_concerned))?);
    }
    let request = RetryRequest { failed: args.failed, class: args.class.clone() };
    form.print(&target.change(&client, "retry", &request).await?)?;
    Ok(())
}
