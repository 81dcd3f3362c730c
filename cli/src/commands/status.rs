//! `gradus status`: all studies, or one.

use api::{StudyList, StudyView};

use crate::args::{Global, StudyArgs};
use crate::failure::Failure;
use crate::locate;
use crate::output::Form;

pub(super) async fn run(global: &Global, args: &StudyArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let Some(study) = &args.study else {
        let list: StudyList =
            locate::reading(global, async |client| Ok(client.get(&["studies"]).await?)).await?;
        form.print(&list)?;
        form.hint(match list.studies.first() {
            Some(_) => "`gradus status STUDY` shows one, `gradus runs STUDY` its runs",
            None => "`gradus apply FILE` makes one",
        });
        return Ok(());
    };
    let view: StudyView =
        locate::reading(global, async |client| Ok(client.get(&["studies", study]).await?)).await?;
    form.print(&view)?;
    form.hint(&match view.summary.state.as_str() {
        "paused" => format!("`gradus resume {study}` lets it go on"),
        "active" => format!("`gradus watch {study}` follows it"),
        "failed" => format!("`gradus retry {study}` queues what failed again"),
        _ => format!("`gradus fit {study}` shows its scaling laws"),
    });
    Ok(())
}
