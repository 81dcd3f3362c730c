//! The heartbeat: renews the leases held here, and stops the attempts whose lease is gone.
//!
//! It carries no progress; reports do.

use proto::v1;
use tokio::time::{MissedTickBehavior, interval};

use super::AgentError;
use super::shared::Shared;
use crate::client::ErrorClass;

/// Sends heartbeats for ever; returns only what makes going on useless.
pub(super) async fn run(shared: &Shared) -> AgentError {
    let mut ticks = interval(shared.heartbeat_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = beat(shared).await {
            return error;
        }
    }
}

async fn beat(shared: &Shared) -> Result<(), AgentError> {
    let n_known = shared.n_registrations();
    let lease_tokens = shared.board.borrow().tokens();
    let request = v1::HeartbeatRequest { worker_id: shared.worker_id(), lease_tokens };
    match shared.client.heartbeat(request, shared.heartbeat_timeout()).await {
        // What it says about leases it says about a stranger's: asked again under the new name.
        Ok(response) if response.is_unknown_worker => shared.register_again(n_known).await,
        Ok(response) => {
            for token in response.stale_lease_tokens {
                shared.stop(token, "the lease is gone").await;
            }
            Ok(())
        }
        Err(error) => match error.class() {
            ErrorClass::RetryLater => Ok(()),
            ErrorClass::RegisterAgain => shared.register_again(n_known).await,
            ErrorClass::GiveUp => Err(error.into()),
        },
    }
}
