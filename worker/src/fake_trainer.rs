//! A trainer that trains nothing: it speaks the pipe's protocol, walks a known curve, and writes
//! real checkpoints and data with real hashes, so that clusters and their faults are tested
//! without libtorch.
//!
//! It is no part of a study: its losses are a formula's.

use std::collections::HashMap;
use std::io::{self, Stdout};
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use clap::Parser;
use domain::attempt::AttemptEnd;
use domain::ids::LeaseToken;
use proto::to_wire;
use proto::v1::{self, assignment, event, from_trainer, to_trainer};

use crate::artifacts::Artifacts;
use crate::cli::{TrainerArgs, start_log};
use crate::pipe::{self, MessageReader};
use crate::signals;
use faults::Faults;

pub mod faults;

mod curve;
mod prepare;
mod state;
mod train;

/// The program's arguments: `trainer` and what the agent passes to it.
#[derive(Debug, Parser)]
enum FakeCli {
    /// Carry out assignments that come on standard input
    Trainer(TrainerArgs),
}

/// A member of a gang that has nothing to do looks this often whether it may go.
const MEMBER_PAUSE: Duration = Duration::from_secs(1);

/// Why an assignment did not succeed.
#[derive(Debug)]
struct Failure {
    end: AttemptEnd,
    message: String,
}

impl Failure {
    fn new(end: AttemptEnd, message: impl Into<String>) -> Self {
        Self { end, message: message.into() }
    }

    /// With the causes of an error.
    fn because(end: AttemptEnd, error: &dyn std::error::Error) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        Self { end, message: text }
    }
}

/// What the agent wants of the attempt at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// Nothing: go on.
    GoOn,
    /// Give up.
    Stop,
    /// Checkpoint and end.
    Preempt,
}

/// The fake trainer's program.
pub fn main() -> ExitCode {
    let FakeCli::Trainer(args) = FakeCli::parse();
    start_log();
    match Trainer::start(&args).and_then(Trainer::serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

#[expect(clippy::print_stderr, reason = "the agent takes standard error for the message")]
fn fail(failure: &Failure) -> ExitCode {
    eprintln!("error: {}", failure.message);
    ExitCode::FAILURE
}

/// The trainer's side of the pipe.
struct Trainer {
    inbox: Receiver<to_trainer::Kind>,
    out: Stdout,
    artifacts: Option<Artifacts>,
    n_threads: u32,
    faults: Faults,
}

impl Trainer {
    fn start(args: &TrainerArgs) -> Result<Self, Failure> {
        let bug = |error: &dyn std::error::Error| Failure::because(AttemptEnd::Bug, error);
        signals::leave_to_agent().map_err(|e| bug(&e))?;
        let artifacts = match &args.artifact_store {
            Some(uri) => {
                let artifacts = Artifacts::open(uri, &args.scratch).map_err(|e| bug(&e))?;
                Some(artifacts.with_patience(args.patience()))
            }
            None => None,
        };
        Ok(Self {
            inbox: listen().map_err(|e| bug(&e))?,
            out: io::stdout(),
            artifacts,
            n_threads: args.threads,
            faults: Faults::from_environment(),
        })
    }

    fn serve(mut self) -> Result<(), Failure> {
        self.say(from_trainer::Kind::Ready(capabilities(self.n_threads)))?;
        if self.artifacts.is_none() {
            return Ok(());
        }
        while let Ok(kind) = self.inbox.recv() {
            // Stops and preemptions between two attempts are late: they crossed with an end.
            if let to_trainer::Kind::Assignment(assignment) = kind {
                self.carry_out(&assignment)?;
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, assignment: &v1::Assignment) -> Result<(), Failure> {
        let token = LeaseToken(assignment.lease_token);
        let outcome = match &assignment.work {
            _ if assignment.rank > 0 => Ok(self.hold(assignment.lease_token)),
            Some(assignment::Work::Train(work)) => train::train(self, assignment, work),
            Some(assignment::Work::Evaluate(work)) => train::evaluate(self, work),
            Some(assignment::Work::PrepareData(work)) => prepare::prepare(self, assignment, work),
            None => Err(Failure::new(AttemptEnd::Bug, "the assignment says nothing to do")),
        };
        let finished = match outcome {
            Ok(end) => to_wire::finish(token, end, ""),
            Err(failure) => to_wire::finish(token, failure.end, &failure.message),
        };
        self.say(from_trainer::Kind::Finished(finished))
    }

    /// A gang's other members keep their slots until they are asked to let go.
    fn hold(&self, token: u64) -> AttemptEnd {
        loop {
            match self.wish(token, MEMBER_PAUSE) {
                Wish::GoOn => {}
                Wish::Stop => return AttemptEnd::Cancelled,
                Wish::Preempt => return AttemptEnd::Preempted,
            }
        }
    }

    fn artifacts(&self) -> Result<&Artifacts, Failure> {
        let missing = || Failure::new(AttemptEnd::Bug, "no artifact store was given");
        self.artifacts.as_ref().ok_or_else(missing)
    }

    fn report(&mut self, kind: event::Kind) -> Result<(), Failure> {
        self.say(from_trainer::Kind::Event(to_wire::event(kind)))
    }

    fn say(&mut self, kind: from_trainer::Kind) -> Result<(), Failure> {
        let message = v1::FromTrainer { kind: Some(kind) };
        pipe::write_blocking(&mut self.out, &message)
            .map_err(|error| Failure::because(AttemptEnd::Bug, &error))
    }

    /// Waits for `pause`, or until the agent wants something of the attempt with this token.
    fn wish(&self, token: u64, pause: Duration) -> Wish {
        match self.inbox.recv_timeout(pause) {
            Ok(to_trainer::Kind::Stop(stop)) if stop.lease_token == token => Wish::Stop,
            Ok(to_trainer::Kind::Preempt(preempt)) if preempt.lease_token == token => Wish::Preempt,
            Ok(_) | Err(RecvTimeoutError::Timeout) => Wish::GoOn,
            Err(RecvTimeoutError::Disconnected) => Wish::Stop,
        }
    }
}

/// Reads standard input on a thread of its own; when it ends, so does the program, whatever it is
/// doing: no trainer outlives its agent.
fn listen() -> io::Result<Receiver<to_trainer::Kind>> {
    let (sender, inbox) = mpsc::channel();
    thread::Builder::new().name("agent".to_owned()).spawn(move || {
        let mut reader = MessageReader::new(io::stdin().lock());
        while let Ok(Some(message)) = reader.next_blocking::<v1::ToTrainer>() {
            let Some(kind) = message.kind else { continue };
            if sender.send(kind).is_err() {
                break;
            }
        }
        std::process::exit(0);
    })?;
    Ok(inbox)
}

fn capabilities(n_threads: u32) -> v1::Capabilities {
    v1::Capabilities {
        device_kind: "cpu".to_owned(),
        device_name: "fake".to_owned(),
        threads_per_slot: n_threads,
        cpu_capability: "FAKE".to_owned(),
        libtorch_version: "fake".to_owned(),
        memory_bytes: 0,
        recipes: vec!["pretrain".to_owned()],
        labels: HashMap::new(),
    }
}
