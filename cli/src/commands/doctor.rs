//! `gradus doctor`: whether everything that a study needs is there.
//!
//! What only the coordinator can say is asked in `doctor_store`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use serde::Serialize;
use tokio::process::Command;

use super::doctor_store;
use crate::args::{DoctorArgs, Global};
use crate::failure::Failure;
use crate::output::{Form, View, format};
use crate::processes::sibling;

/// Loading libtorch from a cold disk takes a while.
const DEVICES_TIMEOUT: Duration = Duration::from_mins(1);

/// With less than this a study of small models may fill the disk.
const LITTLE_DISK_BYTES: u64 = 2 << 30;

/// With less than this not even the store can grow.
const NO_DISK_BYTES: u64 = 100 << 20;

/// What was looked at. `gradus doctor --json` prints this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Checkup {
    /// The checks in the order in which they were made.
    pub(super) checks: Vec<Check>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// What was looked at.
    pub(super) name: String,
    /// How it stands.
    pub(super) status: Status,
    /// What was found.
    pub(super) message: String,
    /// What to do about it; empty when nothing.
    pub(super) hint: String,
}

/// How a check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// Worth a look.
    Warn,
    /// Something will not work.
    Fail,
}

impl Check {
    pub(super) fn ok(name: &str, message: impl Into<String>) -> Self {
        Self { name: name.into(), status: Status::Ok, message: message.into(), hint: String::new() }
    }

    pub(super) fn warn(name: &str, message: impl Into<String>, hint: &str) -> Self {
        let hint = hint.to_owned();
        Self { name: name.into(), status: Status::Warn, message: message.into(), hint }
    }

    pub(super) fn fail(name: &str, message: impl Into<String>, hint: &str) -> Self {
        Self { status: Status::Fail, ..Self::warn(name, message, hint) }
    }
}

impl View for Checkup {
    fn table(&self) -> String {
        let line = |check: &Check| {
            let status = match check.status {
                Status::Ok => "ok  ",
                Status::Warn => "warn",
                Status::Fail => "fail",
            };
            let hint =
                if check.hint.is_empty() { String::new() } else { format!(" ({})", check.hint) };
            format!("{status}  {}: {}{hint}", check.name, check.message)
        };
        self.checks.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn names(&self) -> Vec<String> {
        let bad = self.checks.iter().filter(|check| check.status != Status::Ok);
        bad.map(|check| check.name.clone()).collect()
    }
}

pub(super) async fn run(global: &Global, args: &DoctorArgs) -> Result<(), Failure> {
    let mut checks: Vec<Check> =
        ["gradus-coordinator", "gradus-worker"].iter().map(|name| program(name)).collect();
    checks.push(libtorch().await);
    checks.push(disk());
    checks.extend(doctor_store::checks(global, args.deep).await);
    let checkup = Checkup { checks };
    Form::of(args.json, global.quiet).print(&checkup)?;
    let n_failed = checkup.checks.iter().filter(|check| check.status == Status::Fail).count();
    match n_failed {
        0 => Ok(()),
        n => Err(Failure::failed(format!("{n} checks failed"))),
    }
}

fn program(name: &str) -> Check {
    match sibling(name) {
        Ok(path) => Check::ok(name, path.display().to_string()),
        Err(_) => Check::fail(name, "is not beside this program", "`make build` puts it there"),
    }
}

/// libtorch is found when the worker can list its devices.
async fn libtorch() -> Check {
    let name = "libtorch";
    let hint = "`make setup` installs it, `make build` links to it";
    let Ok(worker) = sibling("gradus-worker") else {
        return Check::fail(name, "cannot be looked for without `gradus-worker`", hint);
    };
    let mut command = Command::new(worker);
    command.args(["devices", "--json"]).stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(DEVICES_TIMEOUT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Check::ok(name, devices(&output.stdout)),
        Ok(Ok(output)) => {
            let text = String::from_utf8_lossy(&output.stderr);
            Check::fail(name, text.lines().next().unwrap_or("did not load"), hint)
        }
        Ok(Err(error)) => Check::fail(name, error.to_string(), hint),
        Err(_) => Check::fail(name, "did not answer within a minute", hint),
    }
}

/// The version and the devices in one line; nothing of what is in another form.
fn devices(json: &[u8]) -> String {
    let found: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("unknown").to_owned();
    let mut parts = vec![text(&found["libtorch"]["version"])];
    for device in found["devices"].as_array().into_iter().flatten() {
        parts.push(format!("{} ({})", text(&device["kind"]), text(&device["name"])));
    }
    if let Some(message) = found["cuda"]["message"].as_str() {
        parts.push(format!("no CUDA: {message}"));
    }
    parts.join(", ")
}

fn disk() -> Check {
    let name = "disk";
    let Ok(found) = statvfs(Path::new(".")) else {
        return Check::warn(name, "the free space cannot be read", "");
    };
    let free = found.blocks_available().saturating_mul(found.fragment_size());
    let message = format!("{} free here", format::bytes(free));
    match free {
        _ if free < NO_DISK_BYTES => Check::fail(name, message, "free some space"),
        _ if free < LITTLE_DISK_BYTES => Check::warn(name, message, "checkpoints may not fit"),
        _ => Check::ok(name, message),
    }
}
