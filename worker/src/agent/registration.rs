//! Registering: announcing the worker, and showing that it sees the artifact store.
//!
//! It does not decide when to register again.

use std::time::Duration;

use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use proto::v1;

use super::AgentError;
use crate::artifacts::uri;
use crate::client::{Backoff, Client, ClientError, ErrorClass};
use crate::config::Config;
use crate::device;

/// A heartbeat more often than this is a mistake of the coordinator's configuration.
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(10);

/// What the coordinator said when it took this worker.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    pub(super) worker_id: String,
    pub(super) lease_term: Duration,
    pub(super) heartbeat_interval: Duration,
    pub(super) artifact_store_uri: String,
}

/// Registers and confirms the artifact store. Waits for a coordinator that is away.
pub(super) async fn register(
    client: &Client,
    config: &Config,
    capabilities: &v1::Capabilities,
) -> Result<Registration, AgentError> {
    let request = v1::RegisterRequest {
        name: config.name.clone(),
        hostname: device::hostname(),
        pid: std::process::id(),
        n_slots: config.n_slots.get(),
        capabilities: Some(capabilities.clone()),
        protocol_version: proto::PROTOCOL_VERSION,
    };
    let mut backoff = Backoff::default();
    loop {
        let error = match try_register(client, request.clone()).await {
            Ok(registration) => {
                tracing::info!(worker.id = registration.worker_id, "registered");
                return Ok(registration);
            }
            Err(error) => error,
        };
        match &error {
            // A coordinator that restarts between the two calls has forgotten the first.
            AgentError::Coordinator(cause) if cause.class() != ErrorClass::GiveUp => {
                backoff.wait().await;
            }
            _ => return Err(error),
        }
    }
}

async fn try_register(
    client: &Client,
    request: v1::RegisterRequest,
) -> Result<Registration, AgentError> {
    let response = client.register(request).await?;
    let uri = response.artifact_store_uri;
    let nonce = read_nonce(&uri, &response.nonce_key).await?;
    let worker_id = response.worker_id;
    let confirm = v1::ConfirmArtifactStoreRequest { worker_id: worker_id.clone(), nonce };
    match client.confirm_artifact_store(confirm).await {
        Ok(()) => {}
        Err(source @ ClientError::Refused { .. }) => {
            return Err(AgentError::OtherArtifactStore { uri, source });
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Registration {
        worker_id,
        lease_term: Duration::from_millis(response.lease_term_ms),
        heartbeat_interval: Duration::from_millis(response.heartbeat_interval_ms)
            .max(SHORTEST_HEARTBEAT),
        artifact_store_uri: uri,
    })
}

async fn read_nonce(uri: &str, key: &str) -> Result<Vec<u8>, AgentError> {
    let store = uri::open(uri).map_err(AgentError::ArtifactStoreUri)?;
    let read = async { store.get(&Path::parse(key)?).await?.bytes().await };
    let nonce =
        read.await.map_err(|source| AgentError::ArtifactStore { uri: uri.to_owned(), source })?;
    Ok(nonce.to_vec())
}
