//! A trainer of the simulation: it speaks the pipe's protocol, takes its time, writes checkpoints,
//! and can be killed at any moment. What it computes is a chain of numbers.

use std::collections::{HashMap, VecDeque};

use domain::attempt::AttemptEnd;
use domain::ids::LeaseToken;
use proto::to_wire;
use proto::v1::{self, assignment, event, to_trainer};

use crate::chance::Chance;
use crate::disk::{Chain, Course, Disk};

/// What a trainer says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Said {
    Ready,
    Failed,
    Event(v1::Event),
    Finished(v1::FinishRequest),
    Gone { end: AttemptEnd, last_token: Option<u64> },
}

/// How often trainers go wrong by themselves.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Weakness {
    /// In so many of a thousand steps the process dies.
    pub(crate) crash_permille: u64,
    /// In so many of a thousand starts it does not come up.
    pub(crate) failed_start_permille: u64,
}

/// One trainer process.
#[derive(Debug)]
pub(crate) struct Trainer {
    machine: usize,
    state: State,
    pub(crate) last_token: Option<u64>,
    /// What was said and not yet taken by the agent.
    pub(crate) out: VecDeque<Said>,
    is_over: bool,
}

#[derive(Debug)]
enum State {
    Starting,
    Idle,
    Busy(Box<Job>),
}

#[derive(Debug)]
struct Job {
    token: LeaseToken,
    attempt: u32,
    work_id: String,
    phase: Phase,
    is_preempted: bool,
    is_stopped: bool,
}

#[derive(Debug)]
enum Phase {
    Begin(assignment::Work),
    Train(Box<Training>),
    /// A checkpoint is written and not yet synced.
    Syncing {
        training: Box<Training>,
        manifest_key: String,
        is_data_point: bool,
    },
    Evaluate(v1::Evaluate),
    Prepare,
    /// A gang's other member keeps its slot.
    Hold,
}

#[derive(Debug)]
struct Training {
    chain: Chain,
    course: Course,
    branch_step: u64,
    n_steps: u64,
    data_point_steps: Vec<u64>,
    last_rolling: u64,
}

/// Steps between rolling checkpoints.
const ROLLING_STEPS: u64 = 5;

/// How long a step takes, at least and at most, in milliseconds.
const STEP_MS: (u64, u64) = (300, 1_500);

impl Trainer {
    pub(crate) fn new(machine: usize) -> Self {
        let (out, last_token) = (VecDeque::new(), None);
        Self { machine, state: State::Starting, last_token, out, is_over: false }
    }

    /// Hears something from its agent; whether it has something to do now.
    pub(crate) fn tell(&mut self, kind: to_trainer::Kind) -> bool {
        match (kind, &mut self.state) {
            (to_trainer::Kind::Assignment(given), State::Idle) => {
                self.last_token = Some(given.lease_token);
                let Some(work) = given.work else { return false };
                self.state = State::Busy(Box::new(Job {
                    token: LeaseToken(given.lease_token),
                    attempt: given.attempt,
                    work_id: given.work_id,
                    phase: if given.rank == 0 { Phase::Begin(work) } else { Phase::Hold },
                    is_preempted: false,
                    is_stopped: false,
                }));
                true
            }
            (to_trainer::Kind::Stop(stop), State::Busy(job)) => {
                job.is_stopped |= stop.lease_token == job.token.0;
                false
            }
            (to_trainer::Kind::Preempt(preempt), State::Busy(job)) => {
                job.is_preempted |= preempt.lease_token == job.token.0;
                false
            }
            _ => false,
        }
    }

    /// It is killed, or dies.
    pub(crate) fn die(&mut self, end: AttemptEnd) {
        if !self.is_over {
            self.is_over = true;
            self.out.push_back(Said::Gone { end, last_token: self.last_token });
        }
    }

    /// Does the next thing; how long the one after it takes, if there is one.
    pub(crate) fn step(
        &mut self,
        disk: &mut Disk,
        weakness: Weakness,
        chance: &mut Chance,
    ) -> Option<u64> {
        if self.is_over {
            return None;
        }
        match &mut self.state {
            State::Starting if chance.permille(weakness.failed_start_permille) => {
                self.is_over = true;
                self.out.push_back(Said::Failed);
                None
            }
            State::Starting => {
                self.state = State::Idle;
                self.out.push_back(Said::Ready);
                None
            }
            State::Idle => None,
            State::Busy(_) if chance.permille(weakness.crash_permille) => {
                let ends = [AttemptEnd::Bug, AttemptEnd::OutOfMemory];
                self.die(*chance.one_of(&ends));
                None
            }
            State::Busy(job) => {
                let end = job.step(self.machine, disk, &mut self.out);
                if let Some((end, message)) = end {
                    let finished = to_wire::finish(job.token, end, &message);
                    self.out.push_back(Said::Finished(finished));
                    self.state = State::Idle;
                    return None;
                }
                Some(chance.between(STEP_MS.0, STEP_MS.1))
            }
        }
    }
}

type End = Option<(AttemptEnd, String)>;

impl Job {
    fn step(&mut self, machine: usize, disk: &mut Disk, out: &mut VecDeque<Said>) -> End {
        if self.is_stopped {
            return Some((AttemptEnd::Cancelled, "stopped".to_owned()));
        }
        let phase = std::mem::replace(&mut self.phase, Phase::Prepare);
        match phase {
            Phase::Begin(assignment::Work::Train(train)) => self.begin(&train, disk, out),
            Phase::Begin(assignment::Work::Evaluate(evaluate)) => {
                self.phase = Phase::Evaluate(evaluate);
                started(0, out);
                None
            }
            Phase::Begin(assignment::Work::PrepareData(_)) => {
                started(0, out);
                None
            }
            Phase::Train(training) => self.train(machine, training, disk, out),
            Phase::Syncing { training, manifest_key, is_data_point } => {
                disk.sync(&manifest_key);
                self.synced(training, &manifest_key, is_data_point, out)
            }
            Phase::Evaluate(evaluate) => Some(evaluated(&evaluate, disk, out)),
            Phase::Hold if self.is_preempted => {
                Some((AttemptEnd::Preempted, "asked to leave".to_owned()))
            }
            Phase::Hold => {
                self.phase = Phase::Hold;
                None
            }
            Phase::Prepare => {
                let manifest = reference(&format!("data/{}", self.work_id), &self.work_id);
                let result = v1::PreparationResult {
                    manifest: Some(manifest),
                    n_training_tokens: 1 << 20,
                    n_validation_tokens: 1 << 16,
                    vocab_size: 256,
                };
                say(out, event::Kind::Preparation(result));
                Some((AttemptEnd::Succeeded, String::new()))
            }
        }
    }

    /// Continues from the newest checkpoint that is what it says; says which are not, and ends when
    /// no attempt has said so before.
    fn begin(&mut self, train: &v1::Train, disk: &Disk, out: &mut VecDeque<Said>) -> End {
        let course = Course::of(&train.config_json);
        let mut chain = course.start();
        let mut is_doubtful = false;
        for checkpoint in &train.checkpoints {
            let manifest = checkpoint.manifest.as_ref().expect("a checkpoint has a manifest");
            match disk.read(manifest) {
                Ok(read) => {
                    chain = read;
                    break;
                }
                Err(reason) => {
                    let refused = v1::CheckpointRefused {
                        step: checkpoint.step,
                        manifest_key: manifest.key.clone(),
                        reason,
                    };
                    say(out, event::Kind::CheckpointRefused(refused));
                    is_doubtful |= !checkpoint.has_failed;
                }
            }
        }
        if is_doubtful {
            return Some((AttemptEnd::WorkerLost, "a checkpoint is damaged".to_owned()));
        }
        started(chain.step, out);
        self.phase = Phase::Train(Box::new(Training {
            chain,
            course,
            branch_step: train.branch_step,
            n_steps: train.data_point_steps.last().copied().expect("the last step is a data point"),
            data_point_steps: train.data_point_steps.clone(),
            last_rolling: chain.step,
        }));
        None
    }

    fn train(
        &mut self,
        machine: usize,
        mut training: Box<Training>,
        disk: &mut Disk,
        out: &mut VecDeque<Said>,
    ) -> End {
        if training.chain.step < training.n_steps && !self.is_preempted {
            training.chain = training.course.next(training.chain);
            let Chain { step, .. } = training.chain;
            let values = [("train_loss_nats".to_owned(), training.chain.loss())].into();
            say(out, event::Kind::Point(v1::MetricPoint { step, values }));
        }
        let step = training.chain.step;
        let is_data_point = training.data_point_steps.contains(&step);
        let is_rolling = self.is_preempted
            || step == training.branch_step
            || step >= training.last_rolling + ROLLING_STEPS;
        if !is_data_point && !is_rolling {
            self.phase = Phase::Train(training);
            return None;
        }
        let what = if is_data_point { "point" } else { "rolling" };
        let manifest_key = format!("runs/{}/{}/{step}/{what}", self.work_id, self.attempt);
        training.last_rolling = step;
        disk.write(machine, &manifest_key, training.chain);
        self.phase = Phase::Syncing { training, manifest_key, is_data_point };
        None
    }

    fn synced(
        &mut self,
        training: Box<Training>,
        manifest_key: &str,
        is_data_point: bool,
        out: &mut VecDeque<Said>,
    ) -> End {
        let Chain { step, .. } = training.chain;
        let hash = training.chain.hash();
        let manifest = reference(manifest_key, hash.as_str());
        let weights = v1::ArtifactRef {
            key: format!("{manifest_key}.weights"),
            hash: hash.to_string(),
            n_bytes: 16,
        };
        let (manifest, weights) = (Some(manifest), Some(weights));
        let checkpoint = v1::Checkpoint { step, manifest, weights, is_data_point, n_bytes: 32 };
        say(out, event::Kind::Checkpoint(checkpoint));
        if step == training.n_steps {
            return Some((AttemptEnd::Succeeded, String::new()));
        }
        if self.is_preempted {
            return Some((AttemptEnd::Preempted, "asked to leave".to_owned()));
        }
        self.phase = Phase::Train(training);
        None
    }
}

fn evaluated(
    evaluate: &v1::Evaluate,
    disk: &Disk,
    out: &mut VecDeque<Said>,
) -> (AttemptEnd, String) {
    let manifest = evaluate.checkpoint_manifest.as_ref().expect("an evaluation has a checkpoint");
    match disk.read(manifest) {
        Ok(chain) => {
            let result = v1::EvaluationResult {
                name: "validation_loss".to_owned(),
                value: chain.measured(),
                standard_error: Some(0.5),
                n_tokens: 64,
            };
            say(out, event::Kind::Evaluation(result));
            (AttemptEnd::Succeeded, String::new())
        }
        Err(message) => (AttemptEnd::BadCheckpoint, message),
    }
}

fn say(out: &mut VecDeque<Said>, kind: event::Kind) {
    out.push_back(Said::Event(to_wire::event(kind)));
}

fn started(resumed_from_step: u64, out: &mut VecDeque<Said>) {
    let numerics = Some(v1::Numerics {
        device_kind: "cpu".to_owned(),
        intra_op_threads: 1,
        micro_batch_sequences: 0,
        cpu_capability: "AVX2".to_owned(),
        libtorch_version: "2.11.0".to_owned(),
    });
    say(out, event::Kind::Started(v1::Started { numerics, resumed_from_step }));
}

/// An object of which only the name counts.
fn reference(key: &str, of: &str) -> v1::ArtifactRef {
    let hash = domain::ids::ContentHash::of(of.as_bytes()).to_string();
    v1::ArtifactRef { key: key.to_owned(), hash, n_bytes: 16 }
}

/// What machines of the simulation can do.
pub(crate) fn capabilities() -> v1::Capabilities {
    v1::Capabilities {
        device_kind: "cpu".to_owned(),
        device_name: "a simulated CPU".to_owned(),
        threads_per_slot: 1,
        cpu_capability: "AVX2".to_owned(),
        libtorch_version: "2.11.0".to_owned(),
        memory_bytes: 1 << 34,
        recipes: vec!["pretrain".to_owned()],
        labels: HashMap::new(),
    }
}
