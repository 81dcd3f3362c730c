//! `gradus workers`: who is there and what they do.

use api::WorkerList;

use crate::args::{Global, JsonArgs};
use crate::failure::Failure;
use crate::locate;
use crate::output::Form;

pub(super) async fn run(global: &Global, args: &JsonArgs) -> Result<(), Failure> {
    let list: WorkerList =
        locate::reading(global, async |client| Ok(client.get(&["workers"]).await?)).await?;
    Form::of(args.json, global.quiet).print(&list)?;
    Ok(())
}
