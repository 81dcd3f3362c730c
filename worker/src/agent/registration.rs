//! Registering: announcing the worker, and showing that it sees the artifact store.
//!
//! It does not decide when to register, nor how often to try.

use object_store::ObjectStoreExt as _;
use object_store::path::Path;
use proto::v1;

use super::AgentError;
use crate::artifacts::uri;
use crate::client::{Client, ClientError};
use crate::config::Config;
use crate::device;

/// A heartbeat more often than this is a mistake of the coordinator's configuration.
const SHORTEST_HEARTBEAT_MS: u64 = 10;

/// What the coordinator said when it took this worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The worker's identifier.
    pub worker_id: String,
    /// How long a lease lives without a renewal.
    pub lease_term_ms: u64,
    /// How often heartbeats are to come.
    pub heartbeat_interval_ms: u64,
    /// The one artifact store.
    pub artifact_store_uri: String,
}

impl Registration {
    /// What a coordinator's answer says.
    pub fn from_response(response: v1::RegisterResponse) -> Self {
        Self {
            worker_id: response.worker_id,
            lease_term_ms: response.lease_term_ms,
            heartbeat_interval_ms: response.heartbeat_interval_ms.max(SHORTEST_HEARTBEAT_MS),
            artifact_store_uri: response.artifact_store_uri,
        }
    }
}

/// How this worker announces itself.
#[derive(Debug, Clone)]
pub(super) struct Announcement(v1::RegisterRequest);

impl Announcement {
    pub(super) fn new(config: &Config, capabilities: v1::Capabilities, instance: String) -> Self {
        Self(v1::RegisterRequest {
            name: config.name.clone(),
            hostname: device::hostname(),
            pid: std::process::id(),
            n_slots: config.n_slots.get(),
            capabilities: Some(v1::Capabilities {
                labels: config.labels.clone().into_iter().collect(),
                ..capabilities
            }),
            protocol_version: proto::PROTOCOL_VERSION,
            instance,
        })
    }
}

/// Registers and confirms the artifact store.
pub(super) async fn register(
    client: &Client,
    announcement: Announcement,
) -> Result<Registration, AgentError> {
    let asked = announcement.0.name.clone();
    let response = client.register(announcement.0).await?;
    // An older coordinator does not say.
    if !response.name.is_empty() && response.name != asked {
        tracing::warn!(
            worker.name = response.name,
            "another worker `{asked}` of this host is connected, so this one has another name"
        );
    }
    let nonce = read_nonce(&response.artifact_store_uri, &response.nonce_key).await?;
    let registration = Registration::from_response(response);
    let worker_id = registration.worker_id.clone();
    let confirm = v1::ConfirmArtifactStoreRequest { worker_id, nonce };
    match client.confirm_artifact_store(confirm).await {
        Ok(()) => Ok(registration),
        Err(source @ ClientError::Refused { .. }) => {
            let uri = registration.artifact_store_uri;
            Err(AgentError::OtherArtifactStore { uri, source })
        }
        Err(error) => Err(error.into()),
    }
}

async fn read_nonce(uri: &str, key: &str) -> Result<Vec<u8>, AgentError> {
    let store = uri::open(uri).map_err(AgentError::ArtifactStoreUri)?;
    let read = async { store.get(&Path::parse(key)?).await?.bytes().await };
    let nonce =
        read.await.map_err(|source| AgentError::ArtifactStore { uri: uri.to_owned(), source })?;
    Ok(nonce.to_vec())
}
