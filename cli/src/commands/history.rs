//! `gradus history`: what has happened to a study, a run or a worker, and who did it.

use api::{HistoryEvent, HistoryPage};

use crate::args::{Global, HistoryArgs};
use crate::client::{Client, ClientError};
use crate::failure::Failure;
use crate::locate;
use crate::output::Form;

/// Events in one answer.
const PAGE: usize = 1000;

/// What a name may mean, in the order in which it is tried.
const COLLECTIONS: [&str; 3] = ["studies", "runs", "workers"];

pub(super) async fn run(global: &Global, args: &HistoryArgs) -> Result<(), Failure> {
    let form = Form::of(args.json, global.quiet);
    let events = locate::reading(global, async |client| find(client, &args.target).await).await?;
    Ok(form.print(&HistoryPage { events })?)
}

async fn find(client: &Client, name: &str) -> Result<Vec<HistoryEvent>, Failure> {
    for collection in COLLECTIONS {
        match all(client, collection, name).await {
            Err(error) if error.is_not_found() => {}
            found => return Ok(found?),
        }
    }
    Err(Failure::wrong(format!(
        "there is no study, run or worker called `{name}`\n\nhint: `gradus status` lists the studies, \
         `gradus runs` the runs, `gradus workers` the workers"
    )))
}

async fn all(
    client: &Client,
    collection: &str,
    name: &str,
) -> Result<Vec<HistoryEvent>, ClientError> {
    let mut events: Vec<HistoryEvent> = Vec::new();
    loop {
        let after = events.last().map_or(0, |event| event.id);
        let query = [("after", after.to_string()), ("limit", PAGE.to_string())];
        let page: HistoryPage = client.get_with(&[collection, name, "history"], &query).await?;
        let is_last = page.events.len() < PAGE;
        events.extend(page.events);
        if is_last {
            return Ok(events);
        }
    }
}
