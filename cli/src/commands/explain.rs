//! `gradus explain`: why a run, a worker or a planned cell is not running.

use api::ExplainView;

use crate::args::{ExplainArgs, Global};
use crate::failure::Failure;
use crate::locate;
use crate::output::Form;

pub(super) async fn run(global: &Global, args: &ExplainArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let view: ExplainView =
        locate::reading(global, async |client| Ok(client.get(&["explain", &args.target]).await?))
            .await?;
    Ok(form.print(&view)?)
}
