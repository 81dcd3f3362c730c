//! The keeper of one slot's trainer: starts it, passes messages both ways, says how it ended.
//!
//! What the messages mean is the core's.

use std::task::{Context, Poll};

use domain::attempt::AttemptEnd;
use proto::to_wire;
use proto::v1::{self, event, from_trainer, to_trainer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::spill::{Spill, SpillLimits};
use crate::child::{FromChild, Trainer, TrainerCommand, level_of};
use crate::clock;

/// Messages on their way to the agent; what it does not take waits in the spill.
const SAID_CAPACITY: usize = 16;

/// What a keeper is told.
#[derive(Debug)]
enum Order {
    Tell(Box<to_trainer::Kind>),
    Kill,
}

/// What a keeper has to say.
#[derive(Debug)]
pub(super) enum Said {
    /// The trainer is warm.
    Ready,
    /// There is none.
    Failed { message: String },
    /// It reports something.
    Event(v1::Event),
    /// Its attempt is over.
    Finished(v1::FinishRequest),
    /// It is no more; nothing comes after it.
    Gone { last_token: Option<u64>, end: AttemptEnd, message: String },
}

/// One trainer and the task that minds it. Dropping it kills the trainer.
#[derive(Debug)]
pub(super) struct Keeper {
    orders: mpsc::UnboundedSender<Order>,
    said: mpsc::Receiver<Said>,
    task: JoinHandle<()>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Keeper {
    /// Starts a trainer.
    pub(super) fn start(command: TrainerCommand, limits: SpillLimits) -> Self {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (out, said) = mpsc::channel(SAID_CAPACITY);
        let task = tokio::spawn(async move { mind(&command, limits, ordered, &out).await });
        Self { orders, said, task }
    }

    /// Tells the trainer something; one that is gone does not hear it.
    pub(super) fn tell(&self, kind: to_trainer::Kind) {
        self.order(Order::Tell(Box::new(kind)));
    }

    /// Kills the trainer.
    pub(super) fn kill(&self) {
        self.order(Order::Kill);
    }

    fn order(&self, order: Order) {
        if self.orders.send(order).is_err() {
            tracing::debug!("the trainer is gone already");
        }
    }

    /// What it has to say next.
    pub(super) fn poll_said(&mut self, context: &mut Context<'_>) -> Poll<Said> {
        match self.said.poll_recv(context) {
            Poll::Ready(Some(said)) => Poll::Ready(said),
            // Nothing comes after the last word.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// Ends the trainer and waits until nobody minds it.
    pub(super) async fn end(mut self) {
        self.task.abort();
        if let Err(error) = (&mut self.task).await
            && error.is_panic()
        {
            tracing::error!(%error, "a keeper ended badly");
        }
    }
}

/// Minds one trainer to its end.
async fn mind(
    command: &TrainerCommand,
    limits: SpillLimits,
    mut orders: mpsc::UnboundedReceiver<Order>,
    out: &mpsc::Sender<Said>,
) {
    let mut trainer = match Trainer::start(command).await {
        Ok((trainer, _)) => trainer,
        Err(error) => return say(out, Said::Failed { message: error.to_string() }).await,
    };
    say(out, Said::Ready).await;
    let mut last_token = None;
    let mut spill = Spill::new(limits);
    let mut is_gone = false;
    while !(is_gone && spill.is_empty()) {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Tell(kind)) => {
                    if let to_trainer::Kind::Assignment(assignment) = &*kind {
                        last_token = Some(assignment.lease_token);
                    }
                    trainer.tell(*kind);
                }
                Some(Order::Kill) => trainer.kill(),
                None => return,
            },
            room = out.reserve(), if !spill.is_empty() => {
                let Ok(room) = room else { return };
                match spill.pop().await {
                    Ok(Some(said)) => room.send(said),
                    Ok(None) => {}
                    Err(error) => return room.send(lost(last_token, &error)),
                }
            }
            // A trainer that says more than there is room for waits.
            heard = trainer.next(), if spill.has_room() => {
                if let Some(said) = understood(heard, last_token) {
                    is_gone = matches!(said, Said::Gone { .. });
                    spill.push(said).await;
                }
            }
        }
    }
}

/// Some of what the trainer said is no more, so that nothing after it may be told. The trainer ends
/// with its keeper.
fn lost(last_token: Option<u64>, error: &std::io::Error) -> Said {
    let message = format!("the worker could not read its buffer on disk: {error}");
    Said::Gone { last_token, end: AttemptEnd::Bug, message }
}

async fn say(out: &mpsc::Sender<Said>, said: Said) {
    if out.send(said).await.is_err() {
        tracing::debug!("the agent is over");
    }
}

/// What a trainer's words mean.
fn understood(heard: FromChild, last_token: Option<u64>) -> Option<Said> {
    match heard {
        FromChild::Message(from_trainer::Kind::Event(event)) => Some(Said::Event(event)),
        FromChild::Message(from_trainer::Kind::Finished(end)) => Some(Said::Finished(end)),
        FromChild::Message(from_trainer::Kind::Ready(_)) => None,
        FromChild::Line(line) => {
            tracing::debug!(line, "trainer");
            let level = level_of(&line).label().to_owned();
            let log = v1::LogLine { at_ms: clock::wall_ms(), level, text: line };
            Some(Said::Event(to_wire::event(event::Kind::Log(log))))
        }
        FromChild::Gone(death) => {
            Some(Said::Gone { last_token, end: death.end(), message: death.describe() })
        }
    }
}
