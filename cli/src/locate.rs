//! Which coordinator a command talks to: the one that is named, the one that serves this folder,
//! or for reading one that is started for the moment.
//!
//! It starts nothing that could change the store.

use std::path::Path;

use anyhow::Context;
use api::HealthView;
use domain::tokens::Tokens;
use tokio::process::Command;

use crate::args::Global;
use crate::client::Client;
use crate::failure::Failure;
use crate::local::{Endpoint, FOLDER, serving};
use crate::processes::{Process, sibling};

/// A coordinator, and what must be stopped after use.
#[derive(Debug)]
pub(crate) struct Located {
    /// The API.
    pub(crate) client: Client,
    reader: Option<Reader>,
}

/// A read-only coordinator of this process.
#[derive(Debug)]
struct Reader {
    process: Process,
    /// Holds its endpoint file and its log.
    _folder: tempfile::TempDir,
}

impl Located {
    /// Stops what was started for the moment.
    pub(crate) async fn close(self) {
        if let Some(reader) = self.reader {
            reader.process.stop().await;
        }
    }

    /// Whether it can change the store.
    pub(crate) fn is_read_only(&self) -> bool {
        self.reader.is_some()
    }
}

/// A coordinator for a command that changes something.
pub(crate) async fn for_change(global: &Global) -> Result<Client, Failure> {
    if let Some(client) = named(global)? {
        return Ok(client);
    }
    match serving_here(global).await? {
        Some(client) => Ok(client),
        None => Err(nobody(Path::new(FOLDER).is_dir())),
    }
}

/// A coordinator for a command that only reads.
pub(crate) async fn for_reading(global: &Global) -> Result<Located, Failure> {
    if let Some(client) = named(global)? {
        return Ok(Located { client, reader: None });
    }
    if let Some(client) = serving_here(global).await? {
        return Ok(Located { client, reader: None });
    }
    if !Path::new(FOLDER).join("store.db").is_file() {
        return Err(nobody(false));
    }
    Ok(start_reader().await?)
}

/// Runs a reading command against a coordinator and closes what was started for it.
pub(crate) async fn reading<T, F>(global: &Global, ask: F) -> Result<T, Failure>
where
    F: AsyncFnOnce(&Client) -> Result<T, Failure>,
{
    let located = for_reading(global).await?;
    let answer = ask(&located.client).await;
    located.close().await;
    answer
}

fn named(global: &Global) -> Result<Option<Client>, Failure> {
    let Some(address) = &global.coordinator else { return Ok(None) };
    let token = read_token(global.token_file.as_deref())?;
    let client = Client::new(address, token).map_err(|error| Failure::Wrong(error.into()))?;
    Ok(Some(client.used_by(global.user.as_deref())))
}

/// The one that the endpoint file names, if it answers.
async fn serving_here(global: &Global) -> Result<Option<Client>, Failure> {
    let Some(endpoint) = Endpoint::read(&Path::new(FOLDER).join("endpoint")) else {
        return Ok(None);
    };
    let token = read_token(global.token_file.as_deref())?;
    let client = Client::new(&endpoint.http, token)?.used_by(global.user.as_deref());
    match client.get::<HealthView>(&["health"]).await {
        // The file is of a coordinator that died, and another folder's has taken its address.
        Ok(health) if health.pid != endpoint.pid => Ok(None),
        // A refusal is an answer too: somebody is there, and says why not when asked again.
        Ok(_) | Err(crate::client::ClientError::Refused { .. }) => Ok(Some(client)),
        Err(_) => Ok(None),
    }
}

fn nobody(is_store_here: bool) -> Failure {
    let message = if is_store_here {
        "no coordinator serves `./.gradus`\n\nhint: `gradus up` serves it again"
    } else {
        "no coordinator is named, and there is no `./.gradus` here\n\nhint: `gradus up` starts one \
         here; `--coordinator URL` names another"
    };
    Failure::Unreachable(anyhow::Error::msg(message))
}

async fn start_reader() -> anyhow::Result<Located> {
    let folder = tempfile::tempdir().context("could not make a temporary folder")?;
    let endpoint_file = folder.path().join("endpoint");
    let database = format!("sqlite:{}", Path::new(FOLDER).join("store.db").display());
    let mut command = Command::new(sibling("gradus-coordinator")?);
    command
        .args(["--read-only", "--exit-with-parent", "--database", &database])
        .args(["--listen", "127.0.0.1:0", "--endpoint-file"])
        .arg(&endpoint_file);
    let log = folder.path().join("coordinator.log");
    let mut process = Process::start("gradus-coordinator", &mut command, &log)?;
    let endpoint = serving(&mut process, &endpoint_file).await?;
    let client = Client::new(&endpoint.http, None)?;
    Ok(Located { client, reader: Some(Reader { process, _folder: folder }) })
}

/// The token in a file, without the line's end.
pub(crate) fn read_token(file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("could not read the token file `{}`", file.display()))?;
    let token = Tokens::parse(&text)
        .and_then(Tokens::only)
        .map_err(|error| anyhow::anyhow!("the token file `{}` {error}", file.display()))?;
    Ok(Some(token))
}
