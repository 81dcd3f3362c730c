//! A trainer child at the end of a pipe, and the assignments to give it.
//!
//! It plays the agent's part and nothing else: what is tested is the program itself.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    clippy::unwrap_used,
    reason = "each test binary uses its part of this module, and fails where it unwraps"
)]

pub mod work;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use proto::v1::{self, event::Kind, from_trainer, to_trainer};
use worker::pipe::{self, MessageReader};

/// Two directories that live as long as a test: the artifact store and the scratch space.
pub struct Site {
    directory: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["store", "scratch"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self { directory }
    }

    pub fn path(&self, key: &str) -> PathBuf {
        self.directory.path().join("store").join(key)
    }

    /// Puts an object where the coordinator would have put it.
    pub fn put(&self, key: &str, content: &[u8]) -> v1::ArtifactRef {
        let path = self.path(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        worker::artifacts::reference_to(key, content)
    }

    /// A new process, whose first message has been read.
    pub fn trainer(&self, threads: u32) -> Trainer {
        self.trainer_with(threads, &[])
    }

    /// The same with more arguments.
    pub fn trainer_with(&self, threads: u32, more: &[&str]) -> Trainer {
        Trainer::start(self.directory.path(), threads, more)
    }
}

/// A running trainer child.
pub struct Trainer {
    child: Child,
    stdin: Option<ChildStdin>,
    reader: MessageReader<ChildStdout>,
    pub capabilities: v1::Capabilities,
}

/// Everything that one assignment said.
#[derive(Debug, Default)]
pub struct Story {
    pub events: Vec<Kind>,
    pub end: String,
    pub message: String,
}

impl Trainer {
    fn start(directory: &Path, threads: u32, more: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gradus-worker"))
            .args(["trainer", "--threads", &threads.to_string(), "--artifact-store"])
            .arg(format!("file://{}", directory.join("store").display()))
            .arg("--scratch")
            .arg(directory.join("scratch"))
            .args(more)
            .env("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take();
        let mut reader = MessageReader::new(child.stdout.take().unwrap());
        let first = reader.next_blocking::<v1::FromTrainer>().unwrap().unwrap();
        let Some(from_trainer::Kind::Ready(capabilities)) = first.kind else {
            panic!("the first message is {first:?}")
        };
        Self { child, stdin, reader, capabilities }
    }

    pub fn send(&mut self, kind: to_trainer::Kind) {
        let message = v1::ToTrainer { kind: Some(kind) };
        pipe::write_blocking(self.stdin.as_mut().unwrap(), &message).unwrap();
    }

    pub fn assign(&mut self, assignment: v1::Assignment) {
        self.send(to_trainer::Kind::Assignment(assignment));
    }

    /// The next message; `None` when the child has ended.
    pub fn next(&mut self) -> Option<from_trainer::Kind> {
        // A child that was killed may have died inside a message.
        self.reader.next_blocking::<v1::FromTrainer>().ok().flatten()?.kind
    }

    /// Carries an assignment out.
    pub fn carry_out(&mut self, assignment: v1::Assignment) -> Story {
        self.assign(assignment);
        self.rest(Story::default())
    }

    /// The rest of an assignment's story.
    pub fn rest(&mut self, mut story: Story) -> Story {
        loop {
            match self.next().expect("the child lives until the assignment is over") {
                from_trainer::Kind::Event(event) => story.events.push(event.kind.unwrap()),
                from_trainer::Kind::Finished(finish) => {
                    story.end = finish.end;
                    story.message = finish.message;
                    return story;
                }
                from_trainer::Kind::Ready(_) => panic!("ready is said once"),
            }
        }
    }

    /// The story up to and with the first event of which `is_last` is true.
    pub fn until(&mut self, is_last: impl Fn(&Kind) -> bool) -> Story {
        let mut story = Story::default();
        loop {
            match self.next().expect("the child lives") {
                from_trainer::Kind::Event(event) => {
                    let kind = event.kind.unwrap();
                    let is_over = is_last(&kind);
                    story.events.push(kind);
                    if is_over {
                        return story;
                    }
                }
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// Kills it as `kill -9` does.
    pub fn kill(self) {
        self.kill_and_read(&mut Story::default());
    }

    /// Kills it as `kill -9` does, and adds what it had said before it died.
    pub fn kill_and_read(mut self, story: &mut Story) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        while let Some(kind) = self.next() {
            if let from_trainer::Kind::Event(event) = kind {
                story.events.push(event.kind.unwrap());
            }
        }
    }

    /// Adds the next event to the story; false when the assignment is over.
    pub fn hear(&mut self, story: &mut Story) -> bool {
        match self.next().expect("the child lives") {
            from_trainer::Kind::Event(event) => story.events.push(event.kind.unwrap()),
            from_trainer::Kind::Finished(finish) => {
                story.end = finish.end;
                return false;
            }
            from_trainer::Kind::Ready(_) => panic!("ready is said once"),
        }
        true
    }

    /// A line of its `/proc/…/status` that is in kibibytes, such as `VmHWM`, in bytes.
    pub fn memory_bytes(&self, name: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
        1024 * line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
    }

    /// Pages of memory that the kernel has given it so far without reading a disk (`minflt`).
    pub fn n_page_faults(&self) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // After the program's name, which may hold spaces, come state, five ids and flags.
        let (_, fields) = text.rsplit_once(')').unwrap();
        fields.split_whitespace().nth(7).unwrap().parse().unwrap()
    }

    /// Closes its standard input and waits for its end.
    pub fn hang_up(mut self) -> ExitStatus {
        drop(self.stdin.take());
        // Draining, so that it never waits for a reader.
        while self.next().is_some() {}
        self.child.wait().unwrap()
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        // Fails when it has ended already, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Story {
    /// What `pick` finds among the events.
    fn all<'a, T>(&'a self, pick: impl Fn(&'a Kind) -> Option<T>) -> Vec<T> {
        self.events.iter().filter_map(pick).collect()
    }

    fn only<'a, T>(&'a self, pick: impl Fn(&'a Kind) -> Option<T>) -> T {
        let found = self.events.iter().find_map(pick);
        found.unwrap_or_else(|| panic!("the event is missing: {self:?}"))
    }

    pub fn points(&self) -> Vec<&v1::MetricPoint> {
        self.all(|event| if let Kind::Point(point) = event { Some(point) } else { None })
    }

    /// Steps with their losses.
    pub fn losses(&self) -> Vec<(u64, f64)> {
        self.values("train_loss_nats")
    }

    pub fn values(&self, name: &str) -> Vec<(u64, f64)> {
        let points = self.points().into_iter();
        points.filter_map(|point| Some((point.step, *point.values.get(name)?))).collect()
    }

    pub fn checkpoints(&self) -> Vec<&v1::Checkpoint> {
        self.all(|event| if let Kind::Checkpoint(found) = event { Some(found) } else { None })
    }

    pub fn checkpoint(&self, step: u64) -> &v1::Checkpoint {
        let found = self.checkpoints().into_iter().find(|checkpoint| checkpoint.step == step);
        found.unwrap_or_else(|| panic!("no checkpoint of step {step}: {self:?}"))
    }

    pub fn refused(&self) -> Vec<&v1::CheckpointRefused> {
        self.all(
            |event| if let Kind::CheckpointRefused(found) = event { Some(found) } else { None },
        )
    }

    pub fn logs(&self, level: &str) -> Vec<&str> {
        self.all(|event| match event {
            Kind::Log(line) if line.level == level => Some(line.text.as_str()),
            _ => None,
        })
    }

    pub fn started(&self) -> &v1::Started {
        self.only(|event| if let Kind::Started(found) = event { Some(found) } else { None })
    }

    /// The start, if the attempt came so far.
    pub fn found_start(&self) -> Option<&v1::Started> {
        self.all(|event| if let Kind::Started(found) = event { Some(found) } else { None })
            .into_iter()
            .next()
    }

    pub fn evaluation(&self) -> &v1::EvaluationResult {
        self.only(|event| if let Kind::Evaluation(found) = event { Some(found) } else { None })
    }

    pub fn preparation(&self) -> &v1::PreparationResult {
        self.only(|event| if let Kind::Preparation(found) = event { Some(found) } else { None })
    }
}
