//! `gradus show`: one run with everything that belongs to it.

use api::RunView;

use crate::args::{Global, RunArgs};
use crate::failure::Failure;
use crate::locate;
use crate::output::Form;

pub(super) async fn run(global: &Global, args: &RunArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let view: RunView =
        locate::reading(global, async |client| Ok(client.get(&["runs", &args.run]).await?)).await?;
    form.print(&view)?;
    form.hint(&format!("`gradus logs {}` shows its log", args.run));
    Ok(())
}
