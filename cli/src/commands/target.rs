//! What `cancel` and `retry` are aimed at: a study or a run.

use api::{ChangeView, RunList, RunSummary, RunView};
use domain::ids::RunId;
use serde::Serialize;

use crate::client::Client;
use crate::failure::Failure;

/// A study or a run that exists, with the runs that a change could concern.
#[derive(Debug)]
pub(super) struct Target {
    /// `studies` or `runs`.
    pub(super) collection: &'static str,
    /// Its name or identifier.
    pub(super) name: String,
    /// Its runs.
    pub(super) runs: Vec<RunSummary>,
}

impl Target {
    /// Finds it: a study by that name first, then a run.
    pub(super) async fn find(client: &Client, name: &str) -> Result<Self, Failure> {
        if !name.starts_with(RunId::PREFIX) {
            match client.get::<RunList>(&["studies", name, "runs"]).await {
                Ok(list) => {
                    let name = name.to_owned();
                    return Ok(Self { collection: "studies", name, runs: list.runs });
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let found = client.get::<RunView>(&["runs", name]).await;
        let view = found.map_err(|error| {
            if error.is_not_found() {
                Failure::wrong(format!(
                    "there is no study and no run called `{name}`\n\nhint: `gradus status` lists \
                     the studies, `gradus runs` the runs"
                ))
            } else {
                error.into()
            }
        })?;
        Ok(Self { collection: "runs", name: name.to_owned(), runs: vec![view.summary] })
    }

    /// Asks for the change.
    pub(super) async fn change(
        &self,
        client: &Client,
        verb: &str,
        body: &impl Serialize,
    ) -> Result<ChangeView, Failure> {
        Ok(client.post(&[self.collection, &self.name, verb], body).await?)
    }

    /// The runs whose state a change would concern.
    pub(super) fn would_change(&self, is_concerned: impl Fn(&str) -> bool) -> ChangeView {
        let concerned = self.runs.iter().filter(|run| is_concerned(&run.state));
        ChangeView { run_ids: concerned.map(|run| run.id.clone()).collect() }
    }
}
