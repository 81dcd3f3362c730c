//! A real cluster under faults that never end: `make soak MINUTES=10`, or `SOAK_SEED=7` to see the
//! same faults again. How they meet the cluster is the machine's; what must hold is not.

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::{
    Cluster, ClusterOptions, Flow, Process, TinyStudy, Usage, Weather, let_pass, tiny_study,
    wait_for,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use test_postgres::{Disk, Server};

use support::{check_every_point, check_store, runs};

/// How long it lasts on each database where nobody says.
const SECONDS_IN_CI: u64 = 20;

/// So short that freezes and partitions end some leases and not others.
const LEASE_TERM_MS: u64 = 1_000;

const STEP_MS: u64 = 3;

const N_STEPS: u64 = 800;

const N_WORKERS: usize = 4;

/// This worker's agent is frozen and cut off, but never killed, so that what it keeps is seen.
const STEADY: usize = 1;

/// Memory may grow by so many percent after the first third.
const MOST_GROWTH_PERCENT: f64 = 5.0;

/// The longest pause between two faults, and the longest that something stands still.
const LONGEST_MS: u64 = 2_000;

/// What can happen to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillWorker,
    KillTrainer,
    KillCoordinator,
    FreezeWorker,
    FreezeCoordinator,
    CutConnections,
    Weather,
    RestartDatabase,
    PauseStudy,
}

const FAULTS: [Fault; 9] = [
    Fault::KillWorker,
    Fault::KillTrainer,
    Fault::KillCoordinator,
    Fault::FreezeWorker,
    Fault::FreezeCoordinator,
    Fault::CutConnections,
    Fault::Weather,
    Fault::RestartDatabase,
    Fault::PauseStudy,
];

/// A seeded source of choices.
struct Chance(ChaCha8Rng);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0.next_u64() % n
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).expect("an index")]
    }

    fn a_while(&mut self) -> Duration {
        Duration::from_millis(self.below(LONGEST_MS))
    }
}

struct Soak {
    cluster: Cluster,
    server: Option<Server>,
    chance: Chance,
    n_faults: BTreeMap<Fault, u32>,
    /// Whether the coordinator may still be killed: it is not while its memory is watched.
    is_warming_up: bool,
    studies: Vec<TinyStudy>,
    samples: Vec<Sample>,
}

/// What the processes that live through everything have when nothing is going on.
#[derive(Debug, Clone, Copy)]
struct Sample {
    coordinator: Usage,
    agent: Usage,
}

impl Soak {
    fn start(server: Option<Server>, seed: u64) -> Result<Self> {
        let options = ClusterOptions {
            lease_term_ms: LEASE_TERM_MS,
            database: server.as_ref().map(Server::url),
            fake_step_ms: Some(STEP_MS),
            has_proxies: true,
            ..ClusterOptions::default()
        };
        let mut cluster = Cluster::start(options)?;
        for _ in 0..N_WORKERS {
            cluster.start_worker();
        }
        let soak = Self {
            cluster,
            server,
            chance: Chance(ChaCha8Rng::seed_from_u64(seed)),
            n_faults: BTreeMap::new(),
            is_warming_up: true,
            studies: Vec::new(),
            samples: Vec::new(),
        };
        for worker in 1..=N_WORKERS {
            soak.wait_until_registered(worker, 0);
        }
        Ok(soak)
    }

    /// One study from its file to its end, with faults all the way.
    fn study(&mut self) -> Result<()> {
        let number = u32::try_from(self.studies.len())?;
        let study = TinyStudy {
            // Names and identities of their own, for as long as the process lives.
            name: Box::leak(format!("soak-{number}").into_boxed_str()),
            widths: &[16, 32, 48, 64],
            tokens: 128 * N_STEPS,
            learning_rate: 1e-3 + 1e-7 * f64::from(number),
            ..TinyStudy::default()
        };
        let file = tiny_study(self.cluster.path(), &study);
        self.cluster.apply(&file);
        self.studies.push(study.clone());
        while self.is_active(&study) {
            self.something_goes_wrong(&study)?;
            let_pass(self.chance.a_while());
        }
        self.wait_until_quiet();
        self.look();
        Ok(())
    }

    /// Whether the study goes on. A coordinator that has no database at the moment says so.
    fn is_active(&self, study: &TinyStudy) -> bool {
        wait_for("an answer", 60, || {
            let output = self.cluster.gradus(&["status", study.name, "--json"]);
            let view: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            Some(view["summary"]["state"].as_str()? == "active")
        })
    }

    fn something_goes_wrong(&mut self, study: &TinyStudy) -> Result<()> {
        let fault = self.chance.of(&FAULTS);
        let worker = usize::try_from(self.chance.below(N_WORKERS as u64))? + 1;
        match fault {
            Fault::KillWorker if worker == STEADY => return Ok(()),
            Fault::KillCoordinator if !self.is_warming_up => return Ok(()),
            Fault::RestartDatabase if self.server.is_none() => return Ok(()),
            _ => *self.n_faults.entry(fault).or_default() += 1,
        }
        let time = self.chance.a_while();
        match fault {
            Fault::KillWorker => {
                let n_before = self.n_registered(worker);
                self.cluster.kill_worker_number(worker);
                let_pass(time);
                self.cluster.start_worker_again(worker);
                self.wait_until_registered(worker, n_before);
            }
            Fault::KillTrainer => {
                let trainers = self.cluster.worker(worker).children();
                if !trainers.is_empty() {
                    let trainer = self.chance.of(&trainers);
                    self.cluster.worker(worker).kill_child(trainer);
                }
            }
            Fault::KillCoordinator => {
                self.cluster.kill_coordinator();
                let_pass(time);
                self.cluster.start_coordinator()?;
            }
            Fault::FreezeWorker => stand_still(self.cluster.worker(worker), time),
            Fault::FreezeCoordinator => stand_still(self.cluster.coordinator(), time),
            Fault::CutConnections => self.cluster.proxy(worker).cut(),
            Fault::Weather => {
                let flows = [Flow::Open, Flow::Held, Flow::Lost];
                let weather = Weather {
                    to_coordinator: self.chance.of(&flows),
                    to_worker: self.chance.of(&flows),
                };
                self.cluster.proxy(worker).set(weather);
                let_pass(time);
                self.cluster.proxy(worker).set(Weather::CLEAR);
            }
            Fault::RestartDatabase => {
                if let Some(server) = &mut self.server {
                    if self.chance.below(2) == 0 {
                        server.crash();
                    } else {
                        server.stop();
                    }
                    let_pass(time);
                    server.start_again();
                }
            }
            Fault::PauseStudy => {
                self.cluster.gradus(&["pause", study.name]);
                let_pass(time);
                wait_for("the study to be resumed", 60, || {
                    self.cluster.gradus(&["resume", study.name]).status.success().then_some(())
                });
            }
        }
        Ok(())
    }

    /// Waits until every worker is there with nothing to do.
    fn wait_until_quiet(&self) {
        let look = || {
            let output = self.cluster.gradus(&["workers", "--json"]);
            let view: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
            let workers = view["workers"].as_array()?;
            let is_idle = |worker: &&serde_json::Value| {
                worker["state"] == "active"
                    && worker["assignments"].as_array().is_some_and(Vec::is_empty)
            };
            (workers.iter().filter(is_idle).count() == N_WORKERS).then_some(())
        };
        self.wait_or_say("every worker to be idle", look);
    }

    /// Waits for a condition; the logs are said where it does not come, for they go with the cluster's
    /// folder.
    fn wait_or_say(&self, what: &str, condition: impl FnMut() -> Option<()>) {
        let waiting = std::panic::AssertUnwindSafe(|| wait_for(what, 60, condition));
        if let Err(panic) = std::panic::catch_unwind(waiting) {
            say(&self.cluster.logs());
            std::panic::resume_unwind(panic);
        }
    }

    /// Waits until a worker has been taken in more than so often. An agent whose first trainer is
    /// killed, which it asks what the machine can do, says so and ends: no fault to survive.
    fn wait_until_registered(&self, worker: usize, n_before: usize) {
        self.wait_or_say("a worker to register", || {
            (self.n_registered(worker) > n_before).then_some(())
        });
    }

    /// How often a worker has been taken in.
    fn n_registered(&self, worker: usize) -> usize {
        self.cluster.worker(worker).log().matches("INFO registered").count()
    }

    fn look(&mut self) {
        let coordinator = self.cluster.coordinator().usage().expect("a running coordinator");
        let agent = self.cluster.worker(STEADY).usage().expect("a running agent");
        self.samples.push(Sample { coordinator, agent });
    }

    /// Every run is over in one way, its points are whole, and the store keeps its promises.
    fn check_studies(&self) -> BTreeMap<String, usize> {
        let mut ends = BTreeMap::new();
        for study in &self.studies {
            let runs = runs(&self.cluster, study.name);
            assert_eq!(runs.len(), study.widths.len());
            for run in runs {
                let is_over = run.state == "succeeded" || run.state == "failed";
                assert!(is_over, "{run:?}: {}", self.cluster.logs());
                if run.state == "succeeded" {
                    check_every_point(&self.cluster, &run, N_STEPS);
                }
                *ends.entry(run.state).or_default() += 1;
            }
        }
        check_store(&self.cluster);
        ends
    }
}

fn stand_still(process: &Process, time: Duration) {
    process.freeze();
    let_pass(time);
    process.thaw();
}

/// The middle one of some numbers.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Compares the middle third of the samples, which follows the warm-up, with the last; and says so.
fn check_leaks(what: &str, samples: &[Sample], of: fn(&Sample) -> Usage) {
    let third = samples.len() / 3;
    let (middle, last) = (&samples[third..2 * third], &samples[2 * third..]);
    let number = |samples: &[Sample], of_usage: fn(Usage) -> f64| {
        median(samples.iter().map(|sample| of_usage(of(sample))).collect())
    };
    let mib = |usage: Usage| usage.resident_bytes as f64 / f64::from(1 << 20);
    let (memory, later_memory) = (number(middle, mib), number(last, mib));
    let handles = |usage: Usage| usage.n_handles as f64;
    let (handles, later_handles) = (number(middle, handles), number(last, handles));
    let growth = 100.0 * (later_memory / memory - 1.0);
    say(&format!(
        "{what}: {memory:.1} MiB, then {later_memory:.1} MiB ({growth:+.1} %); {handles} handles, \
         then {later_handles}"
    ));
    assert!(growth <= MOST_GROWTH_PERCENT, "{what}: memory grows by {growth:.1} %");
    assert!(later_handles <= handles, "{what}: handles grow");
}

#[expect(clippy::print_stdout, reason = "a soak says what it came to")]
fn say(text: &str) {
    println!("{text}");
}

/// So few studies say nothing about leaks.
const FEWEST_SAMPLES: usize = 12;

/// Aim: whatever happens, every run ends in one way, the store keeps its promises, and nothing grows.
/// Method: studies one after the other under faults that a seed chooses; the coordinator is killed in
/// the first third only, so that its memory can be compared between the other two.
fn soak(server: Option<Server>) -> Result<()> {
    let from_environment =
        |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = from_environment("SOAK_MINUTES").map_or(SECONDS_IN_CI, |minutes| 60 * minutes);
    let seed = from_environment("SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let database = if server.is_some() { "PostgreSQL" } else { "SQLite" };
    say(&format!("{database}: {seconds} s of faults with SOAK_SEED={seed}"));
    let mut soak = Soak::start(server, seed)?;
    let begun = Instant::now();
    let length = Duration::from_secs(seconds);
    while begun.elapsed() < length {
        soak.is_warming_up = begun.elapsed() < length / 3;
        soak.study()?;
    }
    let ends = soak.check_studies();
    say(&format!("{database}: {} studies, runs {ends:?}", soak.studies.len()));
    say(&format!("{database}: faults {:?}", soak.n_faults));
    if soak.samples.len() >= FEWEST_SAMPLES {
        check_leaks(&format!("{database}, coordinator"), &soak.samples, |sample| {
            sample.coordinator
        });
        check_leaks(&format!("{database}, agent"), &soak.samples, |sample| sample.agent);
    }
    soak.cluster.kill_coordinator();
    soak.cluster.start_coordinator()?;
    assert_eq!(soak.check_studies(), ends, "a restart changes no end");
    soak.cluster.stop();
    Ok(())
}

#[test]
fn whatever_happens_every_run_ends_in_one_way_and_nothing_grows() -> Result<()> {
    soak(None)
}

#[test]
fn whatever_happens_every_run_ends_in_one_way_and_nothing_grows_on_postgresql() -> Result<()> {
    let Some(server) = Server::start(Disk::Unsynced) else { return Ok(()) };
    soak(Some(server))
}
