//! A coordinator of the simulation: the real store, leader, scheduler, reconcilers and services,
//! whose handlers run side by side. A handler stops before and after each operation on the store, and
//! goes on when the simulation says so: what others do in between is the seed's choice.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use axum::body::Body;
use coordinator::App;
use coordinator::artifacts::Artifacts;
use coordinator::clock::Clock;
use coordinator::config::Config;
use coordinator::grpc::{OpenPoll, WorkerApi};
use coordinator::random::Random;
use coordinator::reconcile;
use coordinator::retention;
use coordinator::scheduler::tick::tick;
use coordinator::serve::{self, Surroundings};
use coordinator::store::memory::{Memory, Session};
use coordinator::store::{Location, StoreError};
use futures::FutureExt as _;
use proto::v1;
use proto::v1::worker_service_server::WorkerService as _;
use tokio::runtime::Runtime;
use tonic::{Request, Status};
use tower::ServiceExt as _;

/// What a worker asks over the network.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    Register(Box<v1::RegisterRequest>),
    Confirm(v1::ConfirmArtifactStoreRequest),
    Heartbeat(v1::HeartbeatRequest),
    Next(v1::NextRequest),
    Report(v1::ReportRequest),
    Finish(v1::FinishRequest),
    Deregister(v1::DeregisterRequest),
}

/// What it is answered.
#[derive(Debug, Clone)]
pub(crate) enum Answered {
    Registered(v1::RegisterResponse),
    Confirmed,
    Heartbeat(v1::HeartbeatResponse),
    Next(v1::NextResponse),
    Reported(v1::ReportResponse),
    Finished(v1::FinishResponse),
    Deregistered,
}

/// To whom an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReplyTo {
    pub(crate) worker: usize,
    pub(crate) life: u64,
    pub(crate) message: u64,
}

/// What a handler came to.
pub(crate) enum Outcome {
    Answered { to: ReplyTo, asked: Asked, answer: Result<Answered, Status> },
    Looked { poll: Waiting, answer: Result<Option<v1::NextResponse>, Status> },
    Ticked(Result<usize, StoreError>),
    Reconciled(Result<(), StoreError>),
    Led(Result<bool, StoreError>),
    Told { deed: u64, status: u16, body: Vec<u8> },
}

/// A long poll that waits at the coordinator.
pub(crate) struct Waiting {
    pub(crate) poll: OpenPoll,
    pub(crate) to: ReplyTo,
    pub(crate) until_ms: u64,
}

type Work = Pin<Box<dyn Future<Output = Outcome>>>;

/// Set when a handler may go on.
#[derive(Default)]
struct Flag {
    is_set: AtomicBool,
    outer: std::sync::Mutex<Option<Waker>>,
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.is_set.store(true, Ordering::SeqCst);
        if let Some(outer) = self.outer.lock().expect("no panic in it").take() {
            outer.wake();
        }
    }
}

struct Task {
    work: Work,
    flag: Arc<Flag>,
}

/// One coordinator: a process that may be there, and its way to the database.
pub(crate) struct Coordinator {
    pub(crate) index: usize,
    /// Grows with each start of the process.
    pub(crate) life: u64,
    pub(crate) session: Session,
    pub(crate) app: Option<Arc<App>>,
    booted_ms: u64,
    clock: Clock,
    /// What the wall clock is wrong by.
    pub(crate) wall_skew_ms: i64,
    tasks: BTreeMap<u64, Task>,
    n_tasks: u64,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) is_ticking: bool,
    pub(crate) is_leading_on: bool,
    n_rounds: u64,
    /// Whether its session is to break at some statement.
    pub(crate) is_to_break: std::cell::Cell<bool>,
}

/// Superseded checkpoints are swept away in one of so many rounds: a little more often than in truth,
/// since checkpoints are too.
const ROUNDS_PER_SWEEP: u64 = 16;

/// The wall clock's time at the start of each simulation: 2026-01-01.
pub(crate) const WALL_START_MS: i64 = 1_767_225_600_000;

impl Coordinator {
    pub(crate) fn new(index: usize, memory: &Memory) -> Self {
        Self {
            index,
            life: 0,
            session: memory.session(),
            app: None,
            booted_ms: 0,
            clock: Clock::by_hand(),
            wall_skew_ms: 0,
            tasks: BTreeMap::new(),
            n_tasks: 0,
            waiting: Vec::new(),
            is_ticking: false,
            is_leading_on: false,
            n_rounds: 0,
            is_to_break: std::cell::Cell::new(false),
        }
    }

    /// Starts the process. Its gRPC and HTTP answer from now on.
    pub(crate) fn start(
        &mut self,
        runtime: &Runtime,
        config: &Config,
        artifacts: &Artifacts,
        (seed, now_ms): (u64, u64),
    ) {
        self.life += 1;
        self.booted_ms = now_ms;
        self.clock = Clock::by_hand();
        self.set_clock(now_ms);
        self.session.restore();
        let mut config = config.clone();
        config.database = Location::Memory(self.session.clone());
        let surroundings = Surroundings {
            clock: self.clock.clone(),
            random: Random::seeded(seed ^ (self.life << 8) ^ (self.index as u64)),
            artifacts: artifacts.clone(),
        };
        let built = runtime.block_on(serve::build_in(config, surroundings));
        self.app = Some(Arc::new(built.expect("a database in memory opens")));
    }

    /// Ends the process without a word: what its handlers were about to do is never done.
    pub(crate) fn kill(&mut self, runtime: &Runtime) {
        let _guard = runtime.enter();
        self.session.cut();
        self.tasks.clear();
        self.waiting.clear();
        self.app = None;
        (self.is_ticking, self.is_leading_on) = (false, false);
    }

    pub(crate) fn is_up(&self) -> bool {
        self.app.is_some()
    }

    /// Opens the way to the database again. A break that was to come and met no statement yet comes
    /// before that.
    pub(crate) fn open_session(&self) {
        if self.session.is_on() && self.is_to_break.replace(false) {
            self.session.cut();
        }
        self.session.restore();
    }

    /// How it is, for people.
    pub(crate) fn describe(&self) -> String {
        let leads =
            self.app.as_ref().map(|app| (app.store.is_leading(), app.leader.has_taken_over()));
        format!(
            "session on {}, leads and has taken over {leads:?}, loops run {}, a tick {}, {} handlers",
            self.session.is_on(),
            self.is_leading_on,
            self.is_ticking,
            self.tasks.len(),
        )
    }

    pub(crate) fn set_clock(&mut self, now_ms: u64) {
        let wall_ms = WALL_START_MS + i64::try_from(now_ms).expect("short") + self.wall_skew_ms;
        self.clock.set(now_ms - self.booted_ms, wall_ms);
    }

    /// Begins a handler; its number.
    fn begin(&mut self, work: Work) -> u64 {
        let flag = Arc::new(Flag::default());
        self.n_tasks += 1;
        self.tasks.insert(self.n_tasks, Task { work, flag });
        self.n_tasks
    }

    /// Runs a handler up to its next stop, between two operations on the store. Gives what it came
    /// to, or nothing when it has to be resumed.
    pub(crate) fn resume(&mut self, runtime: &Runtime, number: u64) -> Option<Outcome> {
        let task = self.tasks.get_mut(&number)?;
        self.session.take_pause();
        loop {
            let _guard = runtime.enter();
            let waker = Waker::from(Arc::clone(&task.flag));
            match task.work.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(outcome) => {
                    self.tasks.remove(&number);
                    return Some(outcome);
                }
                // It stands between two operations on the store.
                Poll::Pending if self.session.take_pause() => return None,
                // An operation takes real time, and no time of the simulation.
                Poll::Pending => wait_for(runtime, &task.flag),
            }
        }
    }

    /// A request comes in. Gives the handler to resume; none when there is no process.
    pub(crate) fn take(&mut self, to: ReplyTo, asked: Asked, now_ms: u64) -> Option<u64> {
        let app = self.app.clone()?;
        if let Asked::Next(request) = asked {
            let until_ms = now_ms + request.max_wait_ms;
            return match OpenPoll::open(app, &request.worker_id, request.n_free_slots) {
                Ok(poll) => Some(self.look(Waiting { poll, to, until_ms })),
                Err(status) => {
                    let asked = Asked::Next(request);
                    let answered = Outcome::Answered { to, asked, answer: Err(status) };
                    Some(self.begin(Box::pin(std::future::ready(answered))))
                }
            };
        }
        Some(self.begin(Box::pin(async move {
            let answer = answer(&WorkerApi::new(app), asked.clone()).await;
            Outcome::Answered { to, asked, answer }
        })))
    }

    /// Looks what there is for a poll.
    pub(crate) fn look(&mut self, waiting: Waiting) -> u64 {
        self.begin(Box::pin(async move {
            let answer = waiting.poll.look().await;
            Outcome::Looked { poll: waiting, answer }
        }))
    }

    /// The polls that were woken.
    pub(crate) fn woken(&mut self) -> Vec<Waiting> {
        let (woken, rest) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|waiting| waiting.poll.woken().now_or_never().is_some());
        self.waiting = rest;
        woken
    }

    /// Whether the dispatcher was nudged.
    pub(crate) fn is_nudged(&self) -> bool {
        self.app.as_ref().is_some_and(|app| app.nudge.notified().now_or_never().is_some())
    }

    pub(crate) fn tick(&mut self) -> Option<u64> {
        let app = self.app.clone()?;
        Some(self.begin(Box::pin(async move { Outcome::Ticked(tick(&app).await) })))
    }

    pub(crate) fn reconcile(&mut self) -> Option<u64> {
        let app = self.app.clone()?;
        self.n_rounds += 1;
        let sweeps = self.n_rounds.is_multiple_of(ROUNDS_PER_SWEEP);
        Some(self.begin(Box::pin(async move {
            let mut outcome = reconcile::round(&app).await;
            if outcome.is_ok() && sweeps {
                outcome = retention::sweep(&app).await;
            }
            Outcome::Reconciled(outcome)
        })))
    }

    pub(crate) fn lead(&mut self) -> Option<u64> {
        let app = self.app.clone()?;
        Some(self.begin(Box::pin(async move { Outcome::Led(serve::ensure_lead(&app).await) })))
    }

    /// A user's request over HTTP.
    pub(crate) fn tell(
        &mut self,
        deed: u64,
        (method, path): (&str, &str),
        body: Vec<u8>,
    ) -> Option<u64> {
        let app = self.app.clone()?;
        let kind = if method == "PUT" { "application/octet-stream" } else { "application/json" };
        let request = axum::http::Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("content-type", kind)
            .body(Body::from(body))
            .expect("a valid request");
        Some(self.begin(Box::pin(async move {
            let response = coordinator::http::router(app).oneshot(request).await;
            let (parts, body) = response.expect("handlers answer").into_parts();
            let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
            Outcome::Told { deed, status: parts.status.as_u16(), body: bytes.to_vec() }
        })))
    }
}

fn wait_for(runtime: &Runtime, flag: &Flag) {
    runtime.block_on(std::future::poll_fn(|context| {
        *flag.outer.lock().expect("no panic in it") = Some(context.waker().clone());
        if flag.is_set.swap(false, Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending }
    }));
}

async fn answer(api: &WorkerApi, asked: Asked) -> Result<Answered, Status> {
    Ok(match asked {
        Asked::Register(request) => {
            Answered::Registered(api.register(Request::new(*request)).await?.into_inner())
        }
        Asked::Confirm(request) => {
            api.confirm_artifact_store(Request::new(request)).await?;
            Answered::Confirmed
        }
        Asked::Heartbeat(request) => {
            Answered::Heartbeat(api.heartbeat(Request::new(request)).await?.into_inner())
        }
        Asked::Next(request) => Answered::Next(api.next(Request::new(request)).await?.into_inner()),
        Asked::Report(request) => {
            Answered::Reported(api.report(Request::new(request)).await?.into_inner())
        }
        Asked::Finish(request) => {
            Answered::Finished(api.finish(Request::new(request)).await?.into_inner())
        }
        Asked::Deregister(request) => {
            api.deregister(Request::new(request)).await?;
            Answered::Deregistered
        }
    })
}
