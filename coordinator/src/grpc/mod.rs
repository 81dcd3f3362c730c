//! gRPC for workers: decode, call, encode.
//!
//! The rules are the store's and the leader's; whatever a worker may not know stays in the log.

mod decode;
mod encode;
mod next;
mod status;
mod worker_api;

use std::sync::Arc;

use domain::tokens::Tokens;
use proto::v1::worker_service_server::WorkerServiceServer;
use proto::{DESCRIPTORS, MAX_MESSAGE_BYTES};
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Status};

pub use self::next::OpenPoll;
pub use self::worker_api::WorkerApi;
use crate::{App, auth};

/// Why gRPC is not served.
#[derive(Debug, thiserror::Error)]
pub enum GrpcError {
    /// The descriptors of this build are damaged.
    #[error("could not offer gRPC reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server broke.
    #[error("could not serve gRPC")]
    Serve(#[from] tonic::transport::Error),
}

/// Serves workers on a bound socket until the shutdown; requests in flight are finished.
pub async fn serve(app: Arc<App>, incoming: TcpIncoming) -> Result<(), GrpcError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<WorkerServiceServer<WorkerApi>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let workers = WorkerServiceServer::new(WorkerApi::new(app.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let tokens = app.config.tokens.clone();
    let check = move |request: Request<()>| authorize(tokens.as_ref(), request);
    Server::builder()
        .layer(InterceptorLayer::new(check))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(workers)
        .serve_with_incoming_shutdown(incoming, app.shutdown.clone().cancelled_owned())
        .await?;
    Ok(())
}

fn authorize(tokens: Option<&Tokens>, request: Request<()>) -> Result<Request<()>, Status> {
    let header = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
    if auth::bearer(tokens, header).is_some() {
        Ok(request)
    } else {
        Err(Status::unauthenticated("this coordinator needs the token of its `--token-file`"))
    }
}
