//! `gradus watch`: follows a study until it is over.

use api::StudyList;

use crate::args::{Global, WatchArgs};
use crate::client::Client;
use crate::failure::Failure;
use crate::locate;
use crate::output::{Form, data};
use crate::progress::{follow, verdict};

pub(super) async fn run(global: &Global, args: &WatchArgs) -> Result<(), Failure> {
    let located = locate::for_reading(global).await?;
    let watched = watch(&located, args.study.as_deref(), global.quiet).await;
    located.close().await;
    watched
}

async fn watch(
    located: &locate::Located,
    study: Option<&str>,
    is_quiet: bool,
) -> Result<(), Failure> {
    let client = &located.client;
    let study = match study {
        Some(study) => study.to_owned(),
        None => newest_active(client).await?,
    };
    if located.is_read_only() {
        let view: api::StudyView = client.get(&["studies", &study]).await?;
        if matches!(view.summary.state.as_str(), "active" | "paused") {
            return Err(Failure::wrong(format!(
                "study `{study}` is not over, but nobody works on it\n\nhint: `gradus up` goes on"
            )));
        }
    }
    let view = follow(client, &study, is_quiet).await?;
    let form = Form::of(false, is_quiet);
    if form == Form::Table {
        data(&format!(
            "study `{}` is {}: runs {}",
            view.summary.name,
            view.summary.state,
            crate::output::study::counts(&view.summary.runs)
        ));
    }
    verdict(&view)?;
    form.hint(&format!("`gradus fit {study}` shows its scaling laws"));
    Ok(())
}

async fn newest_active(client: &Client) -> Result<String, Failure> {
    let list: StudyList = client.get(&["studies"]).await?;
    let active = list.studies.iter().find(|study| study.state == "active");
    let study = active.or_else(|| list.studies.first());
    study.map(|study| study.name.clone()).ok_or_else(|| {
        Failure::wrong("there is no study yet\n\nhint: `gradus apply FILE` makes one")
    })
}
