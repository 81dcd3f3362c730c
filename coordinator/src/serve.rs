//! Brings a coordinator up and down: store, artifacts, sockets, loops, endpoint file.
//!
//! It decides nothing about studies.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use crate::artifacts::{ArtifactError, Artifacts};
use crate::clock::Clock;
use crate::config::Config;
use crate::leader::Leader;
use crate::random::Random;
use crate::scheduler::tick::dispatch;
use crate::store::{SqlStore, StoreError};
use crate::{App, changes_channel, grpc, http, reconcile, retention};

/// What is still in flight after so long is dropped: a client that never reads its answer must not
/// keep the coordinator.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// How often a standby looks whether there still is a leader, when nobody told it.
const STANDBY_INTERVAL: Duration = Duration::from_secs(1);

/// The pause before a take-over that failed is tried again.
const TAKE_OVER_PAUSE: Duration = Duration::from_secs(1);

/// An assignment that its worker did not mention in so many heartbeats was lost on its way.
const HEARTBEATS_UNTIL_REDELIVERY: u32 = 2;

/// Why a coordinator does not come up, or broke. The exit status is 1.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A socket cannot be bound.
    #[error("could not listen on `{address}` for {what}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// `HTTP` or `gRPC`.
        what: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The endpoint file cannot be written.
    #[error("could not write the endpoint file `{}`", .path.display())]
    EndpointFile {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The store does not open, or its leases cannot be taken over.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The artifact store does not open.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// A signal cannot be waited for.
    #[error("could not wait for signals")]
    Signals(#[source] io::Error),
}

/// A coordinator that serves.
#[derive(Debug)]
pub struct Running {
    /// What its parts share.
    pub app: Arc<App>,
    /// Where HTTP is.
    pub http: SocketAddr,
    /// Where gRPC is; none when it is read-only.
    pub grpc: Option<SocketAddr>,
    endpoint_file: Option<PathBuf>,
    servers: Vec<JoinHandle<()>>,
    loops: Vec<JoinHandle<()>>,
}

/// Brings a coordinator up. When it returns, both sockets accept.
pub async fn start(config: Config) -> Result<Running, ServeError> {
    // The sockets first: a port in use is said before anything is made on disk.
    let http_listener = bind(config.listen, "HTTP").await?;
    let grpc_listener =
        if config.is_read_only { None } else { Some(bind(config.grpc_listen, "gRPC").await?) };
    let app = Arc::new(build(config).await?);
    let http_address = local_address(&http_listener, &app.config.listen, "HTTP")?;
    let grpc_address = grpc_listener
        .as_ref()
        .map(|listener| local_address(listener, &app.config.grpc_listen, "gRPC"))
        .transpose()?;
    let mut running = Running {
        app: app.clone(),
        http: http_address,
        grpc: grpc_address,
        endpoint_file: app.config.endpoint_file.clone(),
        servers: vec![tokio::spawn(serve_http(app.clone(), http_listener))],
        loops: Vec::new(),
    };
    if let Some(listener) = grpc_listener {
        if app.store.is_leading() {
            ensure_lead(&app).await?;
        }
        running.servers.push(tokio::spawn(serve_grpc(app.clone(), listener)));
        running.loops.push(tokio::spawn(lead(app.clone())));
    }
    if let Some(path) = &running.endpoint_file {
        write_endpoint_file(path, &running)?;
    }
    tracing::info!(
        http.url = running.http_url(),
        grpc.url = running.grpc_url(),
        "the coordinator serves"
    );
    Ok(running)
}

/// Leads whenever no other coordinator does, until the shutdown: takes over what there is, then
/// dispatches and reconciles for as long as the store can be written.
async fn lead(app: Arc<App>) {
    while !app.shutdown.is_cancelled() {
        let taken = tokio::select! {
            () = app.shutdown.cancelled() => return,
            taken = ensure_lead(&app) => taken,
        };
        match taken {
            Ok(true) => lead_on(&app).await,
            Ok(false) => tokio::select! {
                () = app.shutdown.cancelled() => return,
                () = app.store.wait_to_lead(STANDBY_INTERVAL) => {}
            },
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "could not take the lead; again soon"
                );
                tokio::select! {
                    () = app.shutdown.cancelled() => return,
                    () = tokio::time::sleep(TAKE_OVER_PAUSE) => {}
                }
            }
        }
    }
}

/// Takes the lead if no other coordinator has it, and what an earlier leader left; whether this
/// coordinator leads now. May be repeated. Nothing of an earlier lead may still run beside it but
/// handlers.
pub async fn ensure_lead(app: &App) -> Result<bool, StoreError> {
    if !app.store.is_leading() {
        // A standby answers nobody from what it remembers of an earlier lead.
        app.leader.step_down();
        if !app.store.try_to_lead().await? {
            return Ok(false);
        }
        // Who listened while another led has heard nothing of what that one did.
        if app.changes.send(crate::resync()).is_err() {
            tracing::debug!("nobody listens");
        }
    }
    if !app.leader.has_taken_over() {
        // Its reads may wait for a server that is gone without a word.
        tokio::select! {
            taken_over = reconcile::take_over(app) => taken_over?,
            () = app.store.right_is_lost() => {
                app.store.give_up_lead();
                return Err(StoreError::ConnectionLost("the server does not answer".into()));
            }
        }
    }
    Ok(true)
}

/// Why a lead is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The coordinator stops.
    Shutdown,
    /// The store is another coordinator's, or nobody's.
    Deposed,
    /// A part of the leader ended by itself.
    Broken,
}

/// Leads for as long as it may. A part that breaks takes the others down with it: a leader without a
/// dispatcher, or one that ends no lease, would go on as if nothing was. Then the lead begins anew,
/// from what the store has.
async fn lead_on(app: &Arc<App>) {
    let term = app.shutdown.child_token();
    let mut parts = JoinSet::new();
    parts.spawn(dispatch(app.clone(), term.clone()));
    parts.spawn(reconcile::reconcile(app.clone(), term.clone()));
    parts.spawn(retention::retain(app.clone(), term.clone()));
    let ending = tokio::select! {
        // The parts end with a shutdown: no part is broken that was told to end.
        biased;
        () = app.shutdown.cancelled() => Ending::Shutdown,
        () = app.store.lead_is_over() => {
            tracing::warn!("this coordinator leads no longer");
            if !app.store.may_lead_again() {
                tracing::error!("the store's file can be written no longer; stopping");
                app.shutdown.cancel();
            }
            Ending::Deposed
        }
        () = app.store.right_is_lost() => {
            tracing::error!("the database no longer answers, or has given the lead away");
            app.store.give_up_lead();
            Ending::Deposed
        }
        Some(ended) = parts.join_next() => {
            tracing::error!(?ended, "a part of the leader broke; it begins anew");
            Ending::Broken
        }
    };
    term.cancel();
    if ending != Ending::Shutdown {
        // Workers are to go to the next leader at once.
        app.leader.step_down();
    }
    if ending == Ending::Deposed {
        // A part may wait for ever for a database that is no more, and nothing that it asks for can be
        // written: whoever leads next goes by what the store has.
        parts.abort_all();
    }
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = ended
            && !error.is_cancelled()
        {
            tracing::error!(error = %error, "a part of the leader ended badly");
        }
    }
    if ending == Ending::Broken {
        tokio::time::sleep(TAKE_OVER_PAUSE).await;
    }
}

/// What a coordinator is put into: the machine, or a simulation of one.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The clocks.
    pub clock: Clock,
    /// The source of identifiers and nonces.
    pub random: Random,
    /// The artifact store.
    pub artifacts: Artifacts,
}

/// Opens what the parts of a coordinator share; nothing is served and nothing runs yet.
pub async fn build(config: Config) -> Result<App, ServeError> {
    let artifacts =
        if config.is_read_only { Artifacts::closed() } else { Artifacts::open(&config.artifacts)? };
    let (clock, random) = (Clock::system(), Random::system());
    build_in(config, Surroundings { clock, random, artifacts }).await
}

/// The same in given surroundings.
pub async fn build_in(config: Config, surroundings: Surroundings) -> Result<App, ServeError> {
    let Surroundings { clock, random, artifacts } = surroundings;
    let changes = changes_channel();
    let store = if config.is_read_only {
        SqlStore::open_read_only(&config.database).await?
    } else {
        SqlStore::open(&config.database, clock.clone(), changes.clone()).await?
    };
    let redeliver_after = config.heartbeat_interval() * HEARTBEATS_UNTIL_REDELIVERY;
    let redeliver_after_ms = u64::try_from(redeliver_after.as_millis()).unwrap_or(u64::MAX);
    Ok(App {
        store: Arc::new(store),
        leader: Leader::new(clock.clone(), config.lease_term_ms, redeliver_after_ms),
        nudge: Arc::new(Notify::new()),
        changes,
        clock,
        random,
        artifacts,
        is_read_only: config.is_read_only,
        config,
        shutdown: CancellationToken::new(),
    })
}

async fn bind(address: SocketAddr, what: &'static str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, what, source })
}

fn local_address(
    listener: &TcpListener,
    asked: &SocketAddr,
    what: &'static str,
) -> Result<SocketAddr, ServeError> {
    listener.local_addr().map_err(|source| ServeError::Listen { address: *asked, what, source })
}

async fn serve_http(app: Arc<App>, listener: TcpListener) {
    let shutdown = app.shutdown.clone();
    let served = axum::serve(listener, http::router(app.clone()))
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(error = &error as &dyn std::error::Error, "HTTP broke");
        app.shutdown.cancel();
    }
}

async fn serve_grpc(app: Arc<App>, listener: TcpListener) {
    // Small messages that somebody waits for: none of them should wait for company.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    if let Err(error) = grpc::serve(app.clone(), incoming).await {
        tracing::error!(error = &error as &dyn std::error::Error, "gRPC broke");
        app.shutdown.cancel();
    }
}

impl Running {
    /// Where HTTP is, as a URL.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.http)
    }

    /// Where gRPC is, as a URL; empty when it is read-only.
    pub fn grpc_url(&self) -> String {
        self.grpc.map_or_else(String::new, |address| format!("http://{address}"))
    }

    /// Stops: nothing more is granted, requests in flight are finished, the store is closed, the
    /// endpoint file is removed.
    pub async fn stop(self) {
        self.app.shutdown.cancel();
        for task in self.servers.into_iter().chain(self.loops) {
            let abort = task.abort_handle();
            match tokio::time::timeout(STOP_DEADLINE, task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(error = %error, "a part ended badly"),
                Err(_) => {
                    tracing::warn!("dropped requests that did not end");
                    abort.abort();
                }
            }
        }
        self.app.store.close().await;
        if let Some(path) = &self.endpoint_file {
            remove_endpoint_file(path);
        }
        tracing::info!("the coordinator has stopped");
    }
}

/// Serves until a signal comes, standard input closes (when that was asked for), or a part breaks.
pub async fn run(config: Config) -> Result<(), ServeError> {
    let exits_with_parent = config.exits_with_parent;
    let mut signals = Signals::new().map_err(ServeError::Signals)?;
    let running = start(config).await?;
    if exits_with_parent {
        stop_with_standard_input(running.app.shutdown.clone());
    }
    tokio::select! {
        () = signals.any() => {}
        () = running.app.shutdown.cancelled() => {}
    }
    running.stop().await;
    Ok(())
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, io::Error> {
        use tokio::signal::unix::{SignalKind, signal};
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A thread of its own: a read of standard input cannot be cancelled, and a task of the runtime
/// that is blocked in one would keep the process.
fn stop_with_standard_input(shutdown: CancellationToken) {
    std::thread::spawn(move || {
        let copied = io::copy(&mut io::stdin().lock(), &mut io::sink());
        tracing::info!(is_error = copied.is_err(), "standard input closed");
        shutdown.cancel();
    });
}

/// Readers see the whole file or none: it is written beside its place and renamed.
fn write_endpoint_file(path: &Path, running: &Running) -> Result<(), ServeError> {
    let error = |source| ServeError::EndpointFile { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(error)?;
    }
    let pid = std::process::id();
    let content = json!({ "http": running.http_url(), "grpc": running.grpc_url(), "pid": pid });
    let temporary = PathBuf::from(format!("{}.{pid}.tmp", path.display()));
    std::fs::write(&temporary, format!("{content}\n")).map_err(error)?;
    std::fs::rename(&temporary, path).map_err(error)
}

/// Removes the file when it is still ours: a coordinator that came after may have replaced it.
fn remove_endpoint_file(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let content: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    if content["pid"] == std::process::id()
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::warn!(error = %error, "could not remove the endpoint file");
    }
}
