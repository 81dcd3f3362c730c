//! One slot: keeps a trainer warm and carries out one attempt at a time with it.
//!
//! What an attempt needs next is `attempt`'s to say; this moves the messages.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use domain::ids::LeaseToken;
use proto::to_wire;
use proto::v1::{self, event, from_trainer, to_trainer};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use super::shared::{Shared, SlotCommand};
use super::trainer_command;
use crate::attempt::{Attempt, ChildFate, Effect, Input};
use crate::child::{FromChild, Trainer, level_of};
use crate::client::{Client, ErrorClass};
use crate::clock;

/// A trainer that does not start is tried again after this pause, doubled each time up to
/// [`LONGEST_RESTART_PAUSE`]: what it lacks may come back.
const FIRST_RESTART_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two starts.
const LONGEST_RESTART_PAUSE: Duration = Duration::from_mins(1);

/// A call that is on its way, and becomes what it was answered.
type Sending = Pin<Box<dyn Future<Output = Input> + Send>>;

/// One slot.
pub(super) struct Slot {
    index: usize,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<SlotCommand>,
}

impl Slot {
    pub(super) fn new(
        index: usize,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<SlotCommand>,
    ) -> Self {
        Self { index, shared, commands }
    }

    /// Serves until the agent ends.
    pub(super) async fn run(mut self) {
        let mut pause = FIRST_RESTART_PAUSE;
        loop {
            let uri = self.shared.artifact_store_uri();
            let command = trainer_command(&self.shared.config, Some(uri), self.index);
            match Trainer::start(&command).await {
                Ok((mut trainer, _)) => {
                    pause = FIRST_RESTART_PAUSE;
                    if self.serve(&mut trainer).await.is_break() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(slot = self.index, %error, "cannot start a trainer");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_RESTART_PAUSE);
                }
            }
        }
    }

    /// Gives assignments to the trainer until it must be replaced.
    async fn serve(&mut self, trainer: &mut Trainer) -> ControlFlow<()> {
        loop {
            self.shared.board.send_modify(|board| board.ready(self.index));
            let assignment = tokio::select! {
                command = self.commands.recv() => match command {
                    None => return ControlFlow::Break(()),
                    Some(SlotCommand::Start(assignment)) => assignment,
                    // For an attempt that is over.
                    Some(SlotCommand::Stop { .. } | SlotCommand::Preempt { .. }) => continue,
                },
                said = trainer.next() => {
                    if let FromChild::Gone(death) = said {
                        let end = death.describe();
                        tracing::warn!(slot = self.index, end, "an idle trainer ended");
                        self.shared.board.send_modify(|board| board.not_ready(self.index));
                        return ControlFlow::Continue(());
                    }
                    continue;
                }
            };
            let fate = self.carry_out(trainer, *assignment).await;
            self.shared.board.send_modify(|board| board.over(self.index));
            if fate == ChildFate::Replace {
                return ControlFlow::Continue(());
            }
        }
    }

    /// Carries out one attempt to its end.
    async fn carry_out(&mut self, trainer: &mut Trainer, assignment: v1::Assignment) -> ChildFate {
        let clock = self.shared.clock;
        let token = LeaseToken(assignment.lease_token);
        let stop_grace_ms =
            u64::try_from(self.shared.config.stop_grace.as_millis()).unwrap_or(u64::MAX);
        let mut attempt = Attempt::new(token, stop_grace_ms);
        let mut sending: Option<Sending> = None;
        trainer.tell(to_trainer::Kind::Assignment(assignment));
        loop {
            let deadline = attempt.deadline_ms().map(|at_ms| clock.instant(at_ms));
            let input = tokio::select! {
                biased;
                command = self.commands.recv() => match to_input(command, token) {
                    Some(input) => input,
                    None => continue,
                },
                answer = wait_for(&mut sending) => {
                    sending = None;
                    answer
                }
                () = wait_until(deadline) => Input::Tick,
                said = trainer.next(), if attempt.wants_messages() => match heard(said) {
                    Some(input) => input,
                    None => continue,
                },
            };
            if matches!(input, Input::Stop { .. }) {
                // Nothing is reported without a lease, not even again.
                sending = None;
            }
            for effect in attempt.handle(input, clock.now_ms()) {
                match effect {
                    Effect::Tell(kind) => trainer.tell(kind),
                    Effect::KillChild => trainer.kill(),
                    Effect::Report(events) => {
                        sending = Some(report(self.shared.client.clone(), token, events));
                    }
                    Effect::Finish(end) => {
                        tracing::info!(lease.token = token.0, end = end.end, "attempt ended");
                        sending = Some(finish(self.shared.client.clone(), end));
                    }
                    Effect::Over(fate) => return fate,
                }
            }
        }
    }
}

/// What a command means for the attempt with this token.
fn to_input(command: Option<SlotCommand>, held: LeaseToken) -> Option<Input> {
    match command {
        Some(SlotCommand::Stop { token, reason }) if token == held.0 => {
            tracing::info!(lease.token = token, reason, "stopping an attempt");
            Some(Input::Stop { reason })
        }
        Some(SlotCommand::Preempt { token, deadline_ms }) if token == held.0 => {
            Some(Input::Preempt { deadline_ms })
        }
        // For an attempt that is over; the board gives a busy slot nothing to start.
        Some(SlotCommand::Stop { .. } | SlotCommand::Preempt { .. } | SlotCommand::Start(_)) => {
            None
        }
        None => Some(Input::Stop { reason: "the agent ends".to_owned() }),
    }
}

/// What the trainer's words mean for its attempt.
fn heard(said: FromChild) -> Option<Input> {
    match said {
        FromChild::Message(from_trainer::Kind::Event(event)) => Some(Input::Event(event)),
        FromChild::Message(from_trainer::Kind::Finished(end)) => Some(Input::Finished(end)),
        FromChild::Message(from_trainer::Kind::Ready(_)) => None,
        FromChild::Line(line) => {
            tracing::debug!(line, "trainer");
            let level = level_of(&line).label().to_owned();
            let log = v1::LogLine { at_ms: clock::wall_ms(), level, text: line };
            Some(Input::Event(to_wire::event(event::Kind::Log(log))))
        }
        FromChild::Gone(death) => {
            let message = death.describe();
            tracing::warn!(message, "a trainer died in its attempt");
            Some(Input::ChildGone { end: death.end(), message })
        }
    }
}

/// Sends events until they are answered.
fn report(client: Client, token: LeaseToken, events: Vec<v1::Event>) -> Sending {
    Box::pin(async move {
        let request = v1::ReportRequest { lease_token: token.0, events };
        match client.report(request).await {
            Ok(false) => Input::Reported,
            Ok(true) => stale(),
            Err(error) if error.class() == ErrorClass::RegisterAgain => stale(),
            Err(error) => {
                tracing::error!(lease.token = token.0, %error, "a report was refused");
                Input::Refused { message: error.to_string() }
            }
        }
    })
}

/// Sends the end until it is answered.
fn finish(client: Client, end: v1::FinishRequest) -> Sending {
    Box::pin(async move {
        let token = end.lease_token;
        match client.finish(end).await {
            Ok(_) => {}
            // The lease expires, and the work goes to another.
            Err(error) => tracing::error!(lease.token = token, %error, "an end was refused"),
        }
        Input::FinishAnswered
    })
}

fn stale() -> Input {
    Input::Stop { reason: "the lease is gone".to_owned() }
}

/// The answer of what is being sent; waits for ever when nothing is.
async fn wait_for(sending: &mut Option<Sending>) -> Input {
    match sending {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}

/// Waits for the deadline; for ever when there is none.
async fn wait_until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
