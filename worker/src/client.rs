//! Typed calls to the coordinator: one method a call, tried once, with the token and a time limit;
//! and the bounded pace of those that are tried again.
//!
//! It does not know what the answers mean, nor what is worth another try.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use proto::v1;
use proto::v1::worker_service_client::WorkerServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// How long an ordinary call may take. A coordinator that answers later is as good as gone.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// What a long poll may take beyond the wait it asked for.
const POLL_MARGIN: Duration = Duration::from_secs(10);

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A silent connection is probed this often, so that a cut cable is noticed during a long poll.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The first pause after a failure; each further failure doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause: a coordinator that is back is found again within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The calls whose size this worker decides.
const SENT_AS_IT_IS: [&str; 2] = ["report", "finish"];

/// Why a call did not work.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not one.
    #[error("the coordinator's address `{address}` is not valid")]
    Address {
        /// The text as given.
        address: String,
        /// What is wrong with it.
        #[source]
        source: tonic::transport::Error,
    },
    /// The coordinator is away, or busy: the same call may work later.
    #[error("the coordinator cannot be reached: {}", status.message())]
    Unreachable {
        /// What the transport says.
        status: Box<Status>,
    },
    /// The coordinator has an error of its own: the same call may work later, or never.
    #[error("the coordinator failed at the call `{call}`: {}", status.message())]
    Broken {
        /// The call.
        call: &'static str,
        /// What it answered.
        status: Box<Status>,
    },
    /// The coordinator does not know this registration: register again.
    #[error("the coordinator does not know this registration: {}", status.message())]
    Unregistered {
        /// What it answered.
        status: Box<Status>,
    },
    /// The coordinator refused, and would refuse the same call again.
    #[error("the coordinator refused the call `{call}`: {}", status.message())]
    Refused {
        /// The call.
        call: &'static str,
        /// What it answered.
        status: Box<Status>,
    },
}

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same call later.
    RetryLater,
    /// The same call later, but not for ever.
    RetryForAWhile,
    /// A new registration, then a new call.
    RegisterAgain,
    /// Nothing helps.
    GiveUp,
}

impl ClientError {
    /// What to do about it.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable { .. } => ErrorClass::RetryLater,
            Self::Broken { .. } => ErrorClass::RetryForAWhile,
            Self::Unregistered { .. } => ErrorClass::RegisterAgain,
            Self::Address { .. } | Self::Refused { .. } => ErrorClass::GiveUp,
        }
    }

    /// The error that a status of the call means.
    pub fn from_status(call: &'static str, status: Status) -> Self {
        let status = Box::new(status);
        match status.code() {
            Code::NotFound => Self::Unregistered { status },
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::InvalidArgument => Self::Refused { call, status },
            // What is too large to be sent stays so; what was too large to be heard is another's.
            Code::OutOfRange if SENT_AS_IT_IS.contains(&call) => Self::Refused { call, status },
            Code::Internal | Code::Unknown | Code::DataLoss => Self::Broken { call, status },
            // Also what a proxy says whose coordinator restarts.
            _ => Self::Unreachable { status },
        }
    }
}

/// Pauses between retries: they double up to a limit.
#[derive(Debug, Clone)]
pub struct Backoff {
    pause: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { pause: FIRST_PAUSE }
    }
}

impl Backoff {
    /// The pause before the next try.
    pub fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// Adds the bearer token to each call.
#[derive(Debug, Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

type Service = WorkerServiceClient<InterceptedService<Channel, Bearer>>;

/// The coordinator, as the worker sees it: of several addresses the one that last answered. Cheap to
/// clone; the clones share the connections and know of each other which address answers.
#[derive(Debug, Clone)]
pub struct Client {
    services: Arc<[Service]>,
    current: Arc<AtomicUsize>,
    is_reachable: Arc<AtomicBool>,
}

/// What stands at one address.
fn service(address: &str, token: Option<&str>) -> Result<Service, ClientError> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|source| ClientError::Address { address: address.to_owned(), source })?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(CONNECT_TIMEOUT)
        .keep_alive_while_idle(true);
    let bearer = token.and_then(|token| format!("Bearer {token}").parse().ok());
    Ok(WorkerServiceClient::with_interceptor(endpoint.connect_lazy(), Bearer(bearer))
        .max_decoding_message_size(proto::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(proto::MAX_MESSAGE_BYTES))
}

macro_rules! call {
    ($self:ident, $method:ident, $request:expr, $limit:expr) => {{
        let asked = $self.current.load(Ordering::Relaxed);
        let mut service = $self.services[asked].clone();
        let answer = tokio::time::timeout($limit, service.$method($request)).await;
        $self.note(stringify!($method), asked, answer)
    }};
}

impl Client {
    /// A client for the coordinators at these addresses, of which one leads. It connects with the
    /// first call, and again whenever the connection is lost. There is at least one address.
    pub fn new(addresses: &[String], token: Option<&str>) -> Result<Self, ClientError> {
        debug_assert!(!addresses.is_empty(), "the arguments ask for one");
        let services =
            addresses.iter().map(|address| service(address, token)).collect::<Result<_, _>>()?;
        let is_reachable = Arc::new(AtomicBool::new(true));
        Ok(Self { services, current: Arc::default(), is_reachable })
    }

    /// After a call that `asked` did not answer the next address has its turn, once for all calls
    /// that were on their way.
    fn try_another(&self, asked: usize) {
        let next = (asked + 1) % self.services.len();
        if next != asked {
            let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
            if self.current.compare_exchange(asked, next, set, fetch).is_ok() {
                tracing::debug!(coordinator.index = next, "asking another coordinator");
            }
        }
    }

    /// Sorts an answer, and says once when the coordinator goes away and when it is back.
    fn note<T>(
        &self,
        call: &'static str,
        asked: usize,
        answer: Result<Result<tonic::Response<T>, Status>, tokio::time::error::Elapsed>,
    ) -> Result<T, ClientError> {
        let outcome = match answer {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(ClientError::from_status(call, status)),
            Err(_) => {
                let status = Status::deadline_exceeded(format!("`{call}` was not answered"));
                Err(ClientError::from_status(call, status))
            }
        };
        let is_reachable = !matches!(outcome, Err(ClientError::Unreachable { .. }));
        if !is_reachable {
            self.try_another(asked);
        }
        let was_reachable = self.is_reachable.swap(is_reachable, Ordering::Relaxed);
        if let Err(error @ ClientError::Unreachable { .. }) = &outcome
            && was_reachable
        {
            tracing::warn!(%error, "the coordinator is away; training goes on");
        } else if is_reachable && !was_reachable {
            tracing::info!("the coordinator is back");
        }
        outcome
    }

    /// Announces the worker.
    pub async fn register(
        &self,
        request: v1::RegisterRequest,
    ) -> Result<v1::RegisterResponse, ClientError> {
        call!(self, register, request, CALL_TIMEOUT)
    }

    /// Shows that the artifact store can be read.
    pub async fn confirm_artifact_store(
        &self,
        request: v1::ConfirmArtifactStoreRequest,
    ) -> Result<(), ClientError> {
        call!(self, confirm_artifact_store, request, CALL_TIMEOUT).map(|_| ())
    }

    /// Asks for directives and, with free slots, assignments. Tries once.
    pub async fn next(&self, request: v1::NextRequest) -> Result<v1::NextResponse, ClientError> {
        let limit = Duration::from_millis(request.max_wait_ms) + POLL_MARGIN;
        call!(self, next, request, limit)
    }

    /// Renews leases. Tries once: the next heartbeat is the retry.
    pub async fn heartbeat(
        &self,
        request: v1::HeartbeatRequest,
        limit: Duration,
    ) -> Result<v1::HeartbeatResponse, ClientError> {
        call!(self, heartbeat, request, limit)
    }

    /// Sends events; whether the lease is stale. Tries once.
    pub async fn report(&self, request: v1::ReportRequest) -> Result<bool, ClientError> {
        call!(self, report, request, CALL_TIMEOUT).map(|response| response.stale)
    }

    /// Ends an attempt; whether the lease is stale. Tries once.
    pub async fn finish(&self, request: v1::FinishRequest) -> Result<bool, ClientError> {
        call!(self, finish, request, CALL_TIMEOUT).map(|response| response.stale)
    }

    /// Leaves. Tries once: a coordinator that is away finds out by itself.
    pub async fn deregister(&self, worker_id: String, limit: Duration) -> Result<(), ClientError> {
        let request = v1::DeregisterRequest { worker_id };
        call!(self, deregister, request, limit).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_class() {
        let class = |code| ClientError::from_status("next", Status::new(code, "why")).class();
        for code in [
            Code::Unavailable,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unimplemented,
            Code::AlreadyExists,
        ] {
            assert_eq!(class(code), ErrorClass::RetryLater, "{code:?}");
        }
        for code in [Code::Internal, Code::Unknown, Code::DataLoss] {
            assert_eq!(class(code), ErrorClass::RetryForAWhile, "{code:?}");
        }
        let too_large = Status::new(Code::OutOfRange, "why");
        assert_eq!(ClientError::from_status("report", too_large).class(), ErrorClass::GiveUp);
        assert_eq!(class(Code::NotFound), ErrorClass::RegisterAgain);
        for code in [Code::InvalidArgument, Code::Unauthenticated, Code::FailedPrecondition] {
            assert_eq!(class(code), ErrorClass::GiveUp, "{code:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_limit() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..7).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
    }
}
