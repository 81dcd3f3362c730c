//! How often, and after which pause, work is tried again: one rule for each class of failure.
//!
//! What a class is, is `attempt`'s; what a rule does to a run is `run`'s.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attempt::AttemptEnd;

/// One class of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRule {
    /// So many attempts may end like this; the last of them ends the run. At least 1.
    pub attempts: u32,
    /// Seconds until the second attempt; each further failure doubles them. 0 tries again at once.
    #[serde(default = "default_pause_seconds")]
    pub pause_seconds: u32,
    /// The pause never grows beyond this.
    #[serde(default = "default_longest_pause_seconds")]
    pub longest_pause_seconds: u32,
}

fn default_pause_seconds() -> u32 {
    1
}

fn default_longest_pause_seconds() -> u32 {
    300
}

impl RetryRule {
    /// So many attempts, with the usual pauses.
    pub const fn attempts(attempts: u32) -> Self {
        Self { attempts, pause_seconds: 1, longest_pause_seconds: 300 }
    }

    /// So many attempts, one directly after the other.
    pub const fn at_once(attempts: u32) -> Self {
        Self { attempts, pause_seconds: 0, longest_pause_seconds: 0 }
    }

    /// The pause after the `n`-th failure, `n` from 1: doubled each time, and shortened by up to a
    /// half, so that what failed together does not come back together. `jitter_permille` says by how
    /// much, 0 to 1000.
    pub fn pause_ms(self, n: u32, jitter_permille: u32) -> u64 {
        let doublings = n.saturating_sub(1).min(31);
        let longest_ms = u64::from(self.longest_pause_seconds) * 1000;
        let whole_ms = ((u64::from(self.pause_seconds) * 1000) << doublings).min(longest_ms);
        whole_ms - whole_ms / 2 * u64::from(jitter_permille.min(1000)) / 1000
    }
}

/// The rules that a study file changes; what it leaves out is as usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetriesSpec {
    /// A memory allocation failed, or the system killed the trainer for memory. The next attempt
    /// takes half as many sequences at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_memory: Option<RetryRule>,
    /// The data is not what its hash says, or not what the recipe can use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_data: Option<RetryRule>,
    /// A checkpoint is damaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad_checkpoint: Option<RetryRule>,
    /// Anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bug: Option<RetryRule>,
    /// The worker vanished, its lease expired, or its machine could not reach what it needed.
    /// Counted in a row: an attempt that ends otherwise shows that a worker can live with the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_lost: Option<RetryRule>,
}

/// The rule of each class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryRules {
    /// See [`RetriesSpec`].
    pub out_of_memory: RetryRule,
    /// See [`RetriesSpec`].
    pub bad_data: RetryRule,
    /// See [`RetriesSpec`].
    pub bad_checkpoint: RetryRule,
    /// See [`RetriesSpec`].
    pub bug: RetryRule,
    /// See [`RetriesSpec`].
    pub worker_lost: RetryRule,
}

/// So many lost workers in a row end a run: by then the run is what kills them.
const MAX_LOSSES: u32 = 100;

/// The pause after the first machine that says that it cannot.
const SICK_PAUSE_SECONDS: u32 = 1;

/// With it all losses that a run may have take more than an hour: who has the artifact store may
/// mend it meanwhile.
const LONGEST_SICK_PAUSE_SECONDS: u32 = 60;

impl RetryRules {
    /// The first failure of each class is the last.
    pub const fn never() -> Self {
        let rule = RetryRule::attempts(1);
        Self {
            out_of_memory: rule,
            bad_data: rule,
            bad_checkpoint: rule,
            bug: rule,
            worker_lost: rule,
        }
    }

    /// The rules of a study: `max_failures` attempts for each class that the run is charged with,
    /// unless the study says otherwise.
    pub fn of(max_failures: u32, spec: RetriesSpec) -> Self {
        let usual = RetryRule::attempts(max_failures);
        Self {
            out_of_memory: spec.out_of_memory.unwrap_or(usual),
            // Data that is damaged stays so; but it may be the machine that reads it wrongly, and
            // another one is asked once.
            bad_data: spec.bad_data.unwrap_or(RetryRule::attempts(2)),
            bad_checkpoint: spec.bad_checkpoint.unwrap_or(usual),
            bug: spec.bug.unwrap_or(usual),
            // Losing a machine says nothing about the run: the next worker may have it now.
            worker_lost: spec.worker_lost.unwrap_or(RetryRule::at_once(MAX_LOSSES)),
        }
    }

    /// The rule of an end; none when it is no failure.
    pub fn rule(&self, end: AttemptEnd) -> Option<RetryRule> {
        match end {
            AttemptEnd::OutOfMemory => Some(self.out_of_memory),
            AttemptEnd::BadData => Some(self.bad_data),
            AttemptEnd::BadCheckpoint => Some(self.bad_checkpoint),
            AttemptEnd::Bug => Some(self.bug),
            AttemptEnd::WorkerLost => Some(self.worker_lost),
            AttemptEnd::Succeeded
            | AttemptEnd::Cancelled
            | AttemptEnd::Preempted
            | AttemptEnd::Diverged => None,
        }
    }

    /// The same when a machine is there and says itself that it cannot: another try at once would
    /// find what this one found.
    #[must_use]
    pub fn for_a_sick_machine(mut self) -> Self {
        let rule = &mut self.worker_lost;
        rule.pause_seconds = rule.pause_seconds.max(SICK_PAUSE_SECONDS);
        rule.longest_pause_seconds = rule.longest_pause_seconds.max(LONGEST_SICK_PAUSE_SECONDS);
        self
    }

    /// The rules of a run that two studies have: these pauses, and the larger number of attempts of
    /// each class.
    #[must_use]
    pub fn or_more_attempts(self, other: Self) -> Self {
        let larger =
            |a: RetryRule, b: RetryRule| RetryRule { attempts: a.attempts.max(b.attempts), ..a };
        Self {
            out_of_memory: larger(self.out_of_memory, other.out_of_memory),
            bad_data: larger(self.bad_data, other.bad_data),
            bad_checkpoint: larger(self.bad_checkpoint, other.bad_checkpoint),
            bug: larger(self.bug, other.bug),
            worker_lost: larger(self.worker_lost, other.worker_lost),
        }
    }
}

impl Default for RetryRules {
    fn default() -> Self {
        Self::of(super::study::default_max_failures(), RetriesSpec::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_the_longest_and_loses_at_most_a_half() {
        let rule = RetryRule { attempts: 9, pause_seconds: 2, longest_pause_seconds: 10 };
        let whole: Vec<u64> = (1..=5).map(|n| rule.pause_ms(n, 0)).collect();
        assert_eq!(whole, [2000, 4000, 8000, 10_000, 10_000]);
        assert_eq!(rule.pause_ms(2, 1000), 2000);
        assert_eq!(rule.pause_ms(2, 500), 3000);
        assert_eq!(RetryRule::at_once(3).pause_ms(30, 0), 0);
        assert_eq!(RetryRule::attempts(u32::MAX).pause_ms(u32::MAX, 0), 300_000);
    }

    #[test]
    fn a_study_changes_only_the_classes_that_it_names() {
        let spec = RetriesSpec { bug: Some(RetryRule::attempts(7)), ..RetriesSpec::default() };
        let rules = RetryRules::of(2, spec);
        assert_eq!((rules.bug.attempts, rules.out_of_memory.attempts), (7, 2));
        assert_eq!((rules.bad_data.attempts, rules.worker_lost.attempts), (2, 100));
        let other = RetryRules::of(4, RetriesSpec::default());
        let both = rules.or_more_attempts(other);
        assert_eq!((both.bug.attempts, both.out_of_memory.attempts), (7, 4));
    }

    #[test]
    fn a_machine_that_says_that_it_cannot_is_not_asked_again_at_once() {
        let usual = RetryRules::default();
        assert_eq!(usual.worker_lost.pause_ms(1, 0), 0);
        let sick = usual.for_a_sick_machine();
        let pauses: Vec<u64> = [1, 2, 7].map(|n| sick.worker_lost.pause_ms(n, 0)).into();
        assert_eq!(pauses, [1000, 2000, 60_000]);
        assert_eq!(sick.worker_lost.attempts, usual.worker_lost.attempts);
        // A study that wants longer pauses has them.
        let rule = RetryRule { attempts: 5, pause_seconds: 30, longest_pause_seconds: 900 };
        let spec = RetriesSpec { worker_lost: Some(rule), ..RetriesSpec::default() };
        assert_eq!(RetryRules::of(3, spec).for_a_sick_machine().worker_lost, rule);
    }
}
