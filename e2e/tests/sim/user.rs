//! Somebody who applies the study and meddles with it over HTTP, and repeats what was not answered.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::ContentHash;
use serde_json::json;

use crate::chance::Chance;
use crate::scenario::{Deed, Scenario};

/// The one source of every study here.
const SOURCE: &[u8] = b"to be or not to be";

/// The pause before an unanswered request is repeated.
const REPEAT_MS: u64 = 1_000;

/// A request to a coordinator.
pub(crate) struct HttpRequest {
    pub(crate) deed: u64,
    pub(crate) coordinator: usize,
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Wish {
    Upload,
    Apply,
    ListRuns,
    Cancel,
    CancelThis { run: String },
    Pause { after_ms: u64 },
    Resume,
    Priority(i32),
    Retry,
    FindWorker,
    Drain { worker: String },
}

#[derive(Debug)]
struct Wanted {
    wish: Wish,
    due_ms: u64,
    is_asked: bool,
    coordinator: usize,
}

/// The user.
#[derive(Debug)]
pub(crate) struct User {
    study: String,
    n_coordinators: usize,
    chance: Chance,
    wanted: BTreeMap<u64, Wanted>,
    n_wanted: u64,
    runs: Vec<String>,
    /// Runs that were to be cancelled at some time.
    pub(crate) cancelled: BTreeSet<String>,
    is_calm: bool,
}

impl User {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let mut user = Self {
            study: scenario.study(),
            n_coordinators: scenario.n_coordinators,
            chance: Chance::new(scenario.seed, 3),
            wanted: BTreeMap::new(),
            n_wanted: 0,
            runs: Vec::new(),
            cancelled: BTreeSet::new(),
            is_calm: false,
        };
        user.want(Wish::Upload, 10);
        for (at_ms, deed) in &scenario.deeds {
            let wish = match *deed {
                Deed::CancelSomeRun => Wish::Cancel,
                Deed::PauseThenResume { after_ms } => Wish::Pause { after_ms },
                Deed::Priority { priority } => Wish::Priority(priority),
                Deed::RetryFailed => Wish::Retry,
                Deed::DrainSomeWorker => Wish::FindWorker,
                Deed::ApplyAgain => Wish::Apply,
            };
            user.want(wish, *at_ms);
        }
        user
    }

    fn want(&mut self, wish: Wish, due_ms: u64) {
        self.n_wanted += 1;
        let wanted = Wanted { wish, due_ms, is_asked: false, coordinator: 0 };
        self.wanted.insert(self.n_wanted, wanted);
    }

    /// Does not want a run any more, this very moment.
    pub(crate) fn cancel(&mut self, run: &str, now_ms: u64) {
        self.cancelled.insert(run.to_owned());
        self.want(Wish::CancelThis { run: run.to_owned() }, now_ms);
    }

    /// When the next request is due.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        self.wanted.values().filter(|w| !w.is_asked).map(|w| w.due_ms).min()
    }

    /// Whether nothing is wanted any more.
    pub(crate) fn is_content(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Nothing new is wanted; what was begun is brought to its end.
    pub(crate) fn calm(&mut self) {
        self.is_calm = true;
    }

    pub(crate) fn describe(&self) -> String {
        format!("wants {:?}", self.wanted)
    }

    /// What was asked of this coordinator will not be answered.
    pub(crate) fn coordinator_died(&mut self, coordinator: usize) {
        for wanted in self.wanted.values_mut() {
            if wanted.coordinator == coordinator {
                wanted.is_asked = false;
                wanted.due_ms += REPEAT_MS;
            }
        }
    }

    /// The next request that is due.
    pub(crate) fn next(&mut self, now_ms: u64) -> Option<HttpRequest> {
        let is_due = |wanted: &Wanted| !wanted.is_asked && wanted.due_ms <= now_ms;
        let (&deed, _) = self.wanted.iter().find(|(_, wanted)| is_due(wanted))?;
        let (wish, coordinator) = {
            let wanted = self.wanted.get_mut(&deed)?;
            wanted.is_asked = true;
            (wanted.wish.clone(), wanted.coordinator)
        };
        let (method, path, body) = self.request(&wish);
        Some(HttpRequest { deed, coordinator, method, path, body })
    }

    fn request(&mut self, wish: &Wish) -> (&'static str, String, Vec<u8>) {
        let study = |verb: &str| format!("/api/v1/studies/storm/{verb}");
        let hash = ContentHash::of(SOURCE);
        match wish {
            Wish::Upload => ("PUT", format!("/api/v1/sources/{hash}"), SOURCE.to_vec()),
            Wish::Apply => {
                let file =
                    json!({ "name": "a.txt", "hash": hash.as_str(), "n_bytes": SOURCE.len() });
                let sources = json!([{ "corpus": "plays", "files": [file] }]);
                let body = json!({ "spec_text": self.study, "spec_file": "storm.yaml", "sources": sources });
                ("POST", "/api/v1/studies".to_owned(), text(&body))
            }
            Wish::ListRuns => ("GET", study("runs"), Vec::new()),
            Wish::Cancel => {
                let run = if self.runs.is_empty() {
                    "none".to_owned()
                } else {
                    self.chance.one_of(&self.runs).clone()
                };
                self.cancelled.insert(run.clone());
                let body = json!({ "reason": "not needed" });
                ("POST", format!("/api/v1/runs/{run}/cancel"), text(&body))
            }
            Wish::CancelThis { run } => {
                let body = json!({ "reason": "not needed" });
                ("POST", format!("/api/v1/runs/{run}/cancel"), text(&body))
            }
            Wish::Pause { .. } => ("POST", study("pause"), text(&json!({ "reason": "lunch" }))),
            Wish::Resume => ("POST", study("resume"), text(&json!({}))),
            Wish::Priority(priority) => {
                ("POST", study("priority"), text(&json!({ "priority": priority })))
            }
            Wish::Retry => ("POST", study("retry"), text(&json!({ "failed": true }))),
            Wish::FindWorker => ("GET", "/api/v1/workers".to_owned(), Vec::new()),
            Wish::Drain { worker } => {
                ("POST", format!("/api/v1/workers/{worker}/drain"), text(&json!({})))
            }
        }
    }

    /// A request was answered, or not.
    pub(crate) fn answered(&mut self, deed: u64, status: u16, body: &[u8], now_ms: u64) {
        let Some(mut wanted) = self.wanted.remove(&deed) else { return };
        if status >= 500 {
            wanted.is_asked = false;
            wanted.coordinator = (wanted.coordinator + 1) % self.n_coordinators;
            wanted.due_ms = now_ms + REPEAT_MS;
            self.wanted.insert(deed, wanted);
            return;
        }
        let answer: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        match wanted.wish {
            Wish::Upload => self.want(Wish::Apply, now_ms),
            Wish::Apply => {
                assert_eq!(status, 200, "the study is refused: {answer}");
                self.want(Wish::ListRuns, now_ms);
            }
            Wish::ListRuns => {
                let runs = answer["runs"].as_array().cloned().unwrap_or_default();
                let id = |run: &serde_json::Value| run["id"].as_str().map(str::to_owned);
                self.runs = runs.iter().filter_map(id).collect();
            }
            Wish::Pause { after_ms } => {
                let after_ms = if self.is_calm { 1_000 } else { after_ms };
                self.want(Wish::Resume, now_ms + after_ms);
            }
            Wish::FindWorker => {
                let workers = answer["workers"].as_array().cloned().unwrap_or_default();
                if !workers.is_empty() {
                    let worker = self.chance.one_of(&workers);
                    let worker = worker["id"].as_str().unwrap_or_default().to_owned();
                    self.want(Wish::Drain { worker }, now_ms);
                }
            }
            Wish::Cancel
            | Wish::CancelThis { .. }
            | Wish::Resume
            | Wish::Priority(_)
            | Wish::Retry
            | Wish::Drain { .. } => {}
        }
    }
}

fn text(body: &serde_json::Value) -> Vec<u8> {
    body.to_string().into_bytes()
}
