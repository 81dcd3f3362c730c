//! What `cancel`, `retry` and `export` are aimed at: a study or a run.

use api::{ChangeView, RunList, RunSummary, RunView, StudyView};
use domain::ids::RunId;
use serde::Serialize;

use crate::client::Client;
use crate::failure::Failure;

/// A study or a run that exists.
#[derive(Debug)]
pub(super) struct Target {
    /// `studies` or `runs`.
    collection: &'static str,
    /// Its name or identifier.
    name: String,
}

impl Target {
    /// Finds it: a study by that name first, then a run.
    pub(super) async fn find(client: &Client, name: &str) -> Result<Self, Failure> {
        if !name.starts_with(RunId::PREFIX) {
            match client.get::<StudyView>(&["studies", name]).await {
                Ok(_) => return Ok(Self { collection: "studies", name: name.to_owned() }),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error.into()),
            }
        }
        client.get::<RunView>(&["runs", name]).await.map_err(|error| {
            if error.is_not_found() {
                Failure::wrong(format!(
                    "there is no study and no run called `{name}`\n\nhint: `gradus status` lists \
                     the studies, `gradus runs` the runs"
                ))
            } else {
                error.into()
            }
        })?;
        Ok(Self { collection: "runs", name: name.to_owned() })
    }

    /// Its runs.
    pub(super) async fn runs(&self, client: &Client) -> Result<Vec<RunSummary>, Failure> {
        let name = self.name.as_str();
        if self.collection == "studies" {
            return Ok(client.get::<RunList>(&["studies", name, "runs"]).await?.runs);
        }
        Ok(vec![client.get::<RunView>(&["runs", name]).await?.summary])
    }

    /// Asks for the change, or only what it would change.
    pub(super) async fn change(
        &self,
        client: &Client,
        verb: &str,
        body: &impl Serialize,
        is_dry_run: bool,
    ) -> Result<ChangeView, Failure> {
        Ok(client.change(&[self.collection, &self.name, verb], body, is_dry_run).await?)
    }
}
