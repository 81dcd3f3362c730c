//! A worker of the simulation: the agent's real core, over a simulated network, with simulated
//! trainers.

use std::collections::BTreeMap;

use domain::attempt::AttemptEnd;
use proto::v1;
use tonic::Status;
use worker::agent::core::{Answer, CallId, Core, Effect, Input, Request, Settings};
use worker::agent::{AgentError, Registration};
use worker::client::ClientError;

use crate::coordinator::{Answered, Asked};
use crate::trainer::{Said, Trainer, capabilities};

/// How long an ordinary call may take, as the real client has it.
const CALL_TIMEOUT_MS: u64 = 10_000;

/// A call on its way.
#[derive(Debug)]
pub(crate) struct Calling {
    pub(crate) call: CallId,
    pub(crate) coordinator: usize,
    pub(crate) what: &'static str,
    /// What the handshake was told in its first half.
    registered: Option<v1::RegisterResponse>,
}

/// What a worker does to the world.
#[derive(Debug)]
pub(crate) enum Doing {
    /// It sends this; without an answer for so long it gives up.
    Send { message: u64, coordinator: usize, asked: Box<Asked>, limit_ms: u64 },
    /// Nobody waits for the answer of this any more.
    Hang { message: u64, coordinator: usize },
    /// The trainer of a slot has something to do.
    Drive { slot: usize, after_ms: u64 },
    /// The agent is over.
    Exit,
}

/// One worker: a process that may be there, on a machine that always is.
pub(crate) struct Worker {
    pub(crate) index: usize,
    /// Grows with each start of the process.
    pub(crate) life: u64,
    n_slots: usize,
    n_coordinators: usize,
    pub(crate) core: Option<Core>,
    booted_ms: u64,
    pub(crate) calls: BTreeMap<u64, Calling>,
    n_messages: u64,
    /// The coordinator that last answered.
    current: usize,
    pub(crate) trainers: Vec<Option<Trainer>>,
    /// Grows with each trainer of a slot.
    pub(crate) trainer_lives: Vec<u64>,
    /// Nothing happens to it before.
    pub(crate) frozen_until_ms: u64,
}

impl Worker {
    pub(crate) fn new(index: usize, n_slots: usize, n_coordinators: usize) -> Self {
        Self {
            index,
            life: 0,
            n_slots,
            n_coordinators,
            core: None,
            booted_ms: 0,
            calls: BTreeMap::new(),
            n_messages: 0,
            current: 0,
            trainers: (0..n_slots).map(|_| None).collect(),
            trainer_lives: vec![0; n_slots],
            frozen_until_ms: 0,
        }
    }

    /// Starts the process.
    pub(crate) fn start(&mut self, now_ms: u64) -> Vec<Doing> {
        self.life += 1;
        self.booted_ms = now_ms;
        let settings = Settings {
            n_slots: self.n_slots,
            preempt_deadline_ms: 20_000,
            stop_grace_ms: 3_000,
            leave_timeout_ms: 2_000,
        };
        self.core = Some(Core::new(settings, 0));
        self.feed(Input::Tick, now_ms)
    }

    /// Ends the process and its trainers without a word.
    pub(crate) fn kill(&mut self) {
        self.core = None;
        self.calls.clear();
        self.trainers.iter_mut().for_each(|trainer| *trainer = None);
    }

    pub(crate) fn n_slots(&self) -> usize {
        self.n_slots
    }

    /// When the core is due, on the simulation's clock.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        Some(self.core.as_ref()?.deadline_ms()? + self.booted_ms)
    }

    /// Feeds the core and says what comes of it.
    pub(crate) fn feed(&mut self, input: Input, now_ms: u64) -> Vec<Doing> {
        let mut doings = Vec::new();
        let since_boot_ms = now_ms - self.booted_ms;
        let Some(core) = &mut self.core else { return doings };
        for effect in core.handle(input, since_boot_ms) {
            match effect {
                Effect::Call { call, request } => doings.push(self.send(call, request)),
                Effect::GiveUp { call } => {
                    let given_up = self.calls.iter().find(|(_, calling)| calling.call == call);
                    if let Some((&message, &Calling { coordinator, .. })) = given_up {
                        self.calls.remove(&message);
                        doings.push(Doing::Hang { message, coordinator });
                    }
                }
                Effect::StartTrainer { slot, .. } => {
                    self.trainers[slot] = Some(Trainer::new(self.index));
                    self.trainer_lives[slot] += 1;
                    doings.push(Doing::Drive { slot, after_ms: 200 });
                }
                Effect::Tell { slot, kind } => {
                    if let Some(trainer) = &mut self.trainers[slot]
                        && trainer.tell(kind)
                    {
                        doings.push(Doing::Drive { slot, after_ms: 1 });
                    }
                }
                Effect::KillTrainer { slot } => {
                    if let Some(trainer) = &mut self.trainers[slot] {
                        trainer.die(AttemptEnd::Bug);
                        doings.push(Doing::Drive { slot, after_ms: 10 });
                    }
                }
                Effect::Exit(outcome) => {
                    if let Err(error) = outcome {
                        panic!("an agent gave up: {error:?}");
                    }
                    doings.push(Doing::Exit);
                }
            }
        }
        doings
    }

    fn send(&mut self, call: CallId, request: Request) -> Doing {
        let (what, asked, limit_ms) = match request {
            Request::Register => {
                let register = v1::RegisterRequest {
                    name: format!("worker-{}", self.index),
                    hostname: format!("machine-{}", self.index),
                    pid: u32::try_from(self.life).expect("few"),
                    n_slots: u32::try_from(self.n_slots).expect("few"),
                    capabilities: Some(capabilities()),
                    protocol_version: proto::PROTOCOL_VERSION,
                    instance: format!("{}-{}", self.index, self.life),
                };
                ("register", Asked::Register(Box::new(register)), CALL_TIMEOUT_MS)
            }
            Request::Heartbeat { request, limit_ms } => {
                ("heartbeat", Asked::Heartbeat(request), limit_ms)
            }
            Request::Next(request) => {
                let limit_ms = request.max_wait_ms + CALL_TIMEOUT_MS;
                ("next", Asked::Next(request), limit_ms)
            }
            Request::Report(request) => ("report", Asked::Report(request), CALL_TIMEOUT_MS),
            Request::Finish(request) => ("finish", Asked::Finish(request), CALL_TIMEOUT_MS),
            Request::Deregister { request, limit_ms } => {
                ("deregister", Asked::Deregister(request), limit_ms)
            }
        };
        self.send_message(call, what, asked, limit_ms, None)
    }

    fn send_message(
        &mut self,
        call: CallId,
        what: &'static str,
        asked: Asked,
        limit_ms: u64,
        registered: Option<v1::RegisterResponse>,
    ) -> Doing {
        self.n_messages += 1;
        let (message, coordinator) = (self.n_messages, self.current);
        self.calls.insert(message, Calling { call, coordinator, what, registered });
        Doing::Send { message, coordinator, asked: Box::new(asked), limit_ms }
    }

    /// An answer came, or will not come any more. `nonce` reads a nonce object.
    pub(crate) fn answered(
        &mut self,
        message: u64,
        answer: Result<Answered, Status>,
        nonce: impl FnOnce(&str) -> Vec<u8>,
        now_ms: u64,
    ) -> Vec<Doing> {
        // Given up, or answered already: the answer to a doubled request.
        let Some(calling) = self.calls.remove(&message) else { return Vec::new() };
        let answer = match answer {
            Ok(Answered::Registered(response)) => {
                let request = v1::ConfirmArtifactStoreRequest {
                    worker_id: response.worker_id.clone(),
                    nonce: nonce(&response.nonce_key),
                };
                let asked = Asked::Confirm(request);
                let (call, what) = (calling.call, calling.what);
                return vec![self.send_message(call, what, asked, CALL_TIMEOUT_MS, Some(response))];
            }
            Ok(Answered::Confirmed) => {
                let response = calling.registered.expect("confirmed after it registered");
                Ok(Answer::Registered(Registration::from_response(response)))
            }
            Ok(Answered::Heartbeat(response)) => Ok(Answer::Heartbeat(response)),
            Ok(Answered::Next(response)) => Ok(Answer::Next(response)),
            Ok(Answered::Reported(response)) => Ok(Answer::Reported { is_stale: response.stale }),
            Ok(Answered::Finished(_)) => Ok(Answer::Finished),
            Ok(Answered::Deregistered) => Ok(Answer::Deregistered),
            Err(status) => {
                let error = ClientError::from_status(calling.what, status);
                if matches!(error, ClientError::Unreachable { .. })
                    && self.current == calling.coordinator
                {
                    self.current = (self.current + 1) % self.n_coordinators;
                }
                Err(AgentError::from(error))
            }
        };
        self.feed(Input::Answered { call: calling.call, answer }, now_ms)
    }

    /// The next word of a slot's trainer, if the agent listens.
    pub(crate) fn hear(&mut self, slot: usize, now_ms: u64) -> Option<Vec<Doing>> {
        let core = self.core.as_ref()?;
        let trainer = self.trainers[slot].as_mut()?;
        if !core.wants_messages(slot) {
            return None;
        }
        let input = match trainer.out.pop_front()? {
            Said::Ready => Input::TrainerReady { slot },
            Said::Failed => Input::TrainerFailed { slot, message: "it does not start".to_owned() },
            Said::Event(event) => Input::TrainerSaid { slot, event },
            Said::Finished(end) => Input::TrainerFinished { slot, end },
            Said::Gone { end, last_token } => {
                let message = "it died".to_owned();
                Input::TrainerGone { slot, last_token, end, message }
            }
        };
        Some(self.feed(input, now_ms))
    }

    /// Whether a trainer has something to say that the agent does not listen to now.
    pub(crate) fn has_unheard(&self, slot: usize) -> bool {
        self.trainers[slot].as_ref().is_some_and(|trainer| !trainer.out.is_empty())
    }
}
