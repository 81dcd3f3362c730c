//! What the core's effects are in this program: calls over gRPC, trainer children, the clock.
//!
//! It decides nothing.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use proto::v1;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep_until;

use super::core::{Answer, CallId, Core, Effect, Input, Request, Settings};
use super::registration::{Announcement, register};
use super::spill::SpillLimits;
use super::trainers::{Keeper, Said};
use super::{AgentError, StopReason, trainer_command};
use crate::client::Client;
use crate::clock::Monotonic;
use crate::config::Config;

/// How long leaving may take when the coordinator does not answer.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The agent's way to the world.
pub(super) struct Shell {
    config: Config,
    announcement: Announcement,
    client: Client,
    clock: Monotonic,
    core: Core,
    calls: JoinSet<(CallId, Result<Answer, AgentError>)>,
    on_their_way: BTreeMap<CallId, AbortHandle>,
    keepers: Vec<Option<Keeper>>,
    /// The slot that is listened to first the next time, so that a talkative one silences no other.
    first_slot: usize,
}

impl Shell {
    pub(super) fn new(
        config: Config,
        client: Client,
        capabilities: v1::Capabilities,
        instance: String,
    ) -> Self {
        let n_slots = usize::try_from(config.n_slots.get()).unwrap_or(usize::MAX);
        let settings = Settings {
            n_slots,
            preempt_deadline_ms: millis(config.preempt_deadline),
            stop_grace_ms: millis(config.stop_grace),
            leave_timeout_ms: millis(LEAVE_TIMEOUT),
        };
        let clock = Monotonic::start();
        Self {
            announcement: Announcement::new(&config, capabilities, instance),
            config,
            client,
            core: Core::new(settings, clock.now_ms()),
            clock,
            calls: JoinSet::new(),
            on_their_way: BTreeMap::new(),
            keepers: (0..n_slots).map(|_| None).collect(),
            first_slot: 0,
        }
    }

    /// Serves until the agent is over.
    pub(super) async fn run(
        mut self,
        mut stop: mpsc::Receiver<StopReason>,
    ) -> Result<(), AgentError> {
        let mut input = Input::Tick;
        loop {
            for effect in self.core.handle(input, self.clock.now_ms()) {
                if let Effect::Exit(outcome) = effect {
                    for keeper in self.keepers.into_iter().flatten() {
                        keeper.end().await;
                    }
                    return outcome;
                }
                self.carry_out(effect);
            }
            input = self.next_input(&mut stop).await;
        }
    }

    async fn next_input(&mut self, stop: &mut mpsc::Receiver<StopReason>) -> Input {
        let deadline = self.core.deadline_ms().map(|at_ms| self.clock.instant(at_ms));
        let due = async {
            match deadline {
                Some(deadline) => sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            reason = super::next_stop(stop) => {
                tracing::info!(%reason, "stopping");
                Input::Stop
            }
            Some(answered) = self.calls.join_next() => match answered {
                Ok((call, answer)) if self.on_their_way.remove(&call).is_some() => {
                    Input::Answered { call, answer }
                }
                // A call that was given up ends without an answer that counts.
                Ok(_) | Err(_) => Input::Tick,
            },
            () = due => Input::Tick,
            (slot, said) = heard(&mut self.keepers, &self.core, self.first_slot) => {
                self.first_slot = slot + 1;
                input_of(slot, said)
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Call { call, request } => {
                let (client, announcement) = (self.client.clone(), self.announcement.clone());
                let calling = async move { (call, ask(&client, announcement, request).await) };
                self.on_their_way.insert(call, self.calls.spawn(calling));
            }
            Effect::GiveUp { call } => {
                if let Some(calling) = self.on_their_way.remove(&call) {
                    calling.abort();
                }
            }
            Effect::StartTrainer { slot, artifact_store_uri } => {
                let command = trainer_command(&self.config, Some(artifact_store_uri), slot);
                let folder = self.config.scratch.clone();
                let limits = SpillLimits { folder, slot, max_bytes: self.config.spill_bytes };
                self.keepers[slot] = Some(Keeper::start(command, limits));
            }
            Effect::Tell { slot, kind } => {
                if let Some(keeper) = &self.keepers[slot] {
                    keeper.tell(kind);
                }
            }
            Effect::KillTrainer { slot } => {
                if let Some(keeper) = &self.keepers[slot] {
                    keeper.kill();
                }
            }
            Effect::Exit(_) => {}
        }
    }
}

/// What some trainer has to say, of those that are listened to now.
async fn heard(keepers: &mut [Option<Keeper>], core: &Core, first_slot: usize) -> (usize, Said) {
    let n_slots = keepers.len();
    poll_fn(|context| {
        for slot in (0..n_slots).map(|index| (first_slot + index) % n_slots) {
            if let Some(keeper) = keepers[slot].as_mut().filter(|_| core.wants_messages(slot))
                && let Poll::Ready(said) = keeper.poll_said(context)
            {
                return Poll::Ready((slot, said));
            }
        }
        Poll::Pending
    })
    .await
}

fn input_of(slot: usize, said: Said) -> Input {
    match said {
        Said::Ready => Input::TrainerReady { slot },
        Said::Failed { message } => Input::TrainerFailed { slot, message },
        Said::Event(event) => Input::TrainerSaid { slot, event },
        Said::Finished(end) => Input::TrainerFinished { slot, end },
        Said::Gone { last_token, end, message } => {
            Input::TrainerGone { slot, last_token, end, message }
        }
    }
}

/// One call, once.
async fn ask(
    client: &Client,
    announcement: Announcement,
    request: Request,
) -> Result<Answer, AgentError> {
    Ok(match request {
        Request::Register => Answer::Registered(register(client, announcement).await?),
        Request::Heartbeat { request, limit_ms } => {
            Answer::Heartbeat(client.heartbeat(request, Duration::from_millis(limit_ms)).await?)
        }
        Request::Next(request) => Answer::Next(client.next(request).await?),
        Request::Report(request) => Answer::Reported { is_stale: client.report(request).await? },
        Request::Finish(request) => {
            client.finish(request).await?;
            Answer::Finished
        }
        Request::Deregister { request, limit_ms } => {
            client.deregister(request.worker_id, Duration::from_millis(limit_ms)).await?;
            Answer::Deregistered
        }
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
