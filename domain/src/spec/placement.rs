//! Which machines may carry out a study's work, and what its log lines decide.
//!
//! What a machine is, and which one is chosen, is the scheduler's.

use std::collections::BTreeMap;

use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{Complaint, is_name, require};

/// What a machine must have; what is left out may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlacementSpec {
    /// The kind of device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceKind>,
    /// Labels that the worker was started with (`gradus-worker run --label KEY=VALUE`), all of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Memory that one slot must have for a run, in bytes; by default the estimate of the plan. 0
    /// takes any machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Slots that one run takes at a time, all or none, on machines that round alike; by default 1.
    /// The first of them trains, and the others are held for it: training itself is not spread over
    /// slots yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub slots: Option<u32>,
}

/// The largest gang.
const MAX_SLOTS: u32 = 1024;

/// What a worker computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    /// A CPU.
    Cpu,
    /// A CUDA device.
    Cuda,
}

impl DeviceKind {
    /// The text in the store and on the wire.
    pub fn label(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

impl PlacementSpec {
    /// How many slots one run takes at a time.
    pub fn n_slots(&self) -> u32 {
        self.slots.unwrap_or(1).max(1)
    }

    pub(super) fn check(&self) -> Result<(), Complaint> {
        if let Some(slots) = self.slots {
            require((1..=MAX_SLOTS).contains(&slots), "runtime.placement.slots", || {
                format!("{slots} slots; a run takes 1 to {MAX_SLOTS} at a time")
            })?;
        }
        for (key, value) in &self.labels {
            let is_label = is_name(key) && is_name(value);
            require(is_label, "runtime.placement.labels", || {
                format!("`{key}: {value}` is no label; letters, digits, `.`, `_` and `-`")
            })?;
        }
        Ok(())
    }
}

/// What follows when an attempt that failed had said something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogRule {
    /// A regular expression, looked for in every log line of the attempt and in how it ended.
    pub pattern: String,
    /// What follows.
    pub action: LogAction,
}

/// What a log rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogAction {
    /// The work is not given to this worker again, until its agent is started anew.
    ExcludeWorker,
    /// The work has failed for good.
    StopRetries,
}

impl LogAction {
    /// The text in study files and events.
    pub fn label(self) -> &'static str {
        match self {
            Self::ExcludeWorker => "exclude_worker",
            Self::StopRetries => "stop_retries",
        }
    }
}

impl LogRule {
    pub(super) fn check(&self, at: &str) -> Result<(), Complaint> {
        match Regex::new(&self.pattern) {
            Ok(_) if !self.pattern.is_empty() => Ok(()),
            Ok(_) => require(false, &format!("{at}.pattern"), || {
                "the pattern is empty, which every line has; say what the line must contain".into()
            }),
            Err(error) => require(false, &format!("{at}.pattern"), || {
                // The message draws the place over several lines; its last one is the reason.
                let text = error.to_string();
                let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("`{}` is no regular expression: {why}", self.pattern)
            }),
        }
    }
}

/// The rules whose pattern is in one of these lines, in their order.
pub fn matching_log_rules<'a>(rules: &'a [LogRule], lines: &[&str]) -> Vec<&'a LogRule> {
    let is_in_a_line = |rule: &&LogRule| {
        // One that is none was refused with the study file.
        Regex::new(&rule.pattern).is_ok_and(|pattern| lines.iter().any(|l| pattern.is_match(l)))
    };
    rules.iter().filter(is_in_a_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_matches_a_line_that_has_its_pattern() {
        let rule = |pattern: &str, action| LogRule { pattern: pattern.into(), action };
        let rules = [
            rule("Xid [0-9]+", LogAction::ExcludeWorker),
            rule("^assertion", LogAction::StopRetries),
        ];
        let matching = |lines: &[&str]| -> Vec<LogAction> {
            matching_log_rules(&rules, lines).iter().map(|rule| rule.action).collect()
        };
        assert_eq!(matching(&["NVRM: Xid 79, off the bus"]), [LogAction::ExcludeWorker]);
        assert_eq!(matching(&["an assertion", "no Xid"]), []);
        assert_eq!(
            matching(&["step 1", "assertion failed", "Xid 1"]),
            [LogAction::ExcludeWorker, LogAction::StopRetries]
        );
    }
}
