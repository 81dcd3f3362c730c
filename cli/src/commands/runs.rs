//! `gradus runs`: the runs of a study, or of the store.

use api::RunList;

use crate::args::{Global, StudyArgs};
use crate::failure::Failure;
use crate::locate;
use crate::output::Form;

pub(super) async fn run(global: &Global, args: &StudyArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let list: RunList = locate::reading(global, async |client| {
        Ok(match &args.study {
            Some(study) => client.get(&["studies", study, "runs"]).await?,
            None => client.get(&["runs"]).await?,
        })
    })
    .await?;
    form.print(&list)?;
    form.hint("`gradus show RUN` shows one");
    Ok(())
}
