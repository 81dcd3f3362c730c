//! What a seed means: how large the cluster is, what the study asks for, and what goes wrong when.

use coordinator::store::memory::Moment;

use crate::chance::Chance;
use crate::network::Quality;
use crate::trainer::Weakness;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// A worker's agent and its trainers are killed, and come back.
    KillWorker { worker: usize, away_ms: u64 },
    /// The power of a worker's machine fails: what was not synced is lost or torn.
    LosePower { worker: usize, away_ms: u64 },
    /// A worker's machine stands still.
    Freeze { worker: usize, for_ms: u64 },
    /// A worker is told to terminate in order, and comes back.
    Terminate { worker: usize },
    /// The coordinator is killed between two statements of the store, or at a commit.
    KillCoordinator { coordinator: usize, at: Moment, keeps_last: bool, away_ms: u64 },
    /// The way from a coordinator to its database breaks; the coordinator lives on.
    BreakSession { coordinator: usize, at: Moment, keeps_last: bool, away_ms: u64 },
    /// The ways between a worker and a coordinator are cut.
    Cut { worker: usize, coordinator: usize, is_to: bool, is_from: bool, for_ms: u64 },
    /// What a worker sends is held up, and arrives all at once.
    Stall { worker: usize, coordinator: usize, for_ms: u64 },
    /// The whole network is bad for a while.
    Degrade { quality: Quality, for_ms: u64 },
    /// A rolling checkpoint is damaged where it lies.
    Damage,
    /// The wall clock of a coordinator is set forward or back.
    JumpClock { coordinator: usize, by_ms: i64 },
    /// A trainer is killed by somebody.
    KillTrainer { worker: usize },
}

/// What a user does meanwhile.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
    CancelSomeRun,
    PauseThenResume { after_ms: u64 },
    Priority { priority: i32 },
    RetryFailed,
    DrainSomeWorker,
    ApplyAgain,
}

/// A whole simulation, before it begins.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) n_coordinators: usize,
    /// The slots of each worker.
    pub(crate) slots: Vec<usize>,
    pub(crate) lease_term_ms: u64,
    pub(crate) weakness: Weakness,
    pub(crate) faults: Vec<(u64, Fault)>,
    pub(crate) deeds: Vec<(u64, Deed)>,
    /// From here nothing goes wrong any more.
    pub(crate) calm_ms: u64,
    pub(crate) widths: Vec<u32>,
    pub(crate) n_steps: u64,
    /// Of the study among others, in tenths.
    pub(crate) weight: u64,
    /// How many slots a run takes at a time.
    pub(crate) gang: usize,
    /// Whether runs of three lengths share their trunk.
    pub(crate) shares_trunks: bool,
}

/// How long things go wrong.
const STORM_MS: (u64, u64) = (60_000, 360_000);

impl Scenario {
    pub(crate) fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed, 0);
        let n_coordinators = if chance.permille(400) { 2 } else { 1 };
        let slots: Vec<usize> = (0..chance.between(1, 4)).map(|_| 1 + chance.index(2)).collect();
        let calm_ms = chance.between(STORM_MS.0, STORM_MS.1);
        let lease_term_ms = *chance.one_of(&[2_000, 6_000, 15_000]);
        let is_weak = chance.permille(400);
        let weakness = Weakness {
            crash_permille: if is_weak { chance.between(1, 30) } else { 0 },
            failed_start_permille: if is_weak { chance.between(0, 200) } else { 0 },
        };
        let n_sizes = chance.between(1, 4);
        let widths = (1..=n_sizes).map(|size| 16 * u32::try_from(size).expect("small")).collect();
        // Of its own, so that all else of a seed is what it was without gangs.
        let mut of_gangs = Chance::new(seed, 7);
        let most = slots.iter().sum::<usize>();
        let gang =
            if most > 1 && of_gangs.permille(350) { 2 + of_gangs.index(most - 1) } else { 1 };
        let shares_trunks = Chance::new(seed, 8).permille(250);
        let mut scenario = Self {
            seed,
            n_coordinators,
            slots,
            lease_term_ms,
            weakness,
            faults: Vec::new(),
            deeds: Vec::new(),
            calm_ms,
            widths,
            n_steps: chance.between(4, 40),
            weight: chance.between(1, 40),
            gang,
            shares_trunks,
        };
        // Some seeds are quiet: what must hold in a storm must hold in the sun.
        let mean_gap_ms = *chance.one_of(&[4_000, 10_000, 30_000, 1_000_000]);
        let mut at_ms = chance.waiting(mean_gap_ms);
        while at_ms < calm_ms {
            let fault = scenario.some_fault(&mut chance);
            scenario.faults.push((at_ms, fault));
            at_ms += chance.waiting(mean_gap_ms);
        }
        let mean_deed_ms = *chance.one_of(&[20_000, 100_000, 1_000_000]);
        let mut at_ms = chance.waiting(mean_deed_ms);
        while at_ms < calm_ms {
            scenario.deeds.push((at_ms, some_deed(&mut chance)));
            at_ms += chance.waiting(mean_deed_ms);
        }
        scenario
    }

    fn some_fault(&self, chance: &mut Chance) -> Fault {
        let worker = chance.index(self.slots.len());
        let coordinator = chance.index(self.n_coordinators);
        let away_ms = chance.between(100, 3 * self.lease_term_ms);
        // What is acknowledged too early is lost at a commit alone.
        let at = if chance.permille(400) {
            Moment::Commit(chance.between(1, 8))
        } else {
            Moment::Statement(chance.between(1, 40))
        };
        let keeps_last = chance.permille(500);
        match chance.below(16) {
            0 | 1 => Fault::KillWorker { worker, away_ms },
            2 => Fault::LosePower { worker, away_ms },
            3 => Fault::Freeze { worker, for_ms: away_ms },
            4 => Fault::Terminate { worker },
            5 | 6 => Fault::KillCoordinator { coordinator, at, keeps_last, away_ms },
            7 if self.n_coordinators > 1 => {
                Fault::BreakSession { coordinator, at, keeps_last, away_ms }
            }
            7..=9 => {
                let (is_to, is_from) =
                    *chance.one_of(&[(true, true), (true, false), (false, true)]);
                Fault::Cut { worker, coordinator, is_to, is_from, for_ms: away_ms }
            }
            10 | 11 => {
                let quality = Quality {
                    longest_delay_ms: *chance.one_of(&[20, 500, 4_000]),
                    lost_permille: chance.between(0, 300),
                    doubled_permille: chance.between(0, 300),
                };
                Fault::Degrade { quality, for_ms: away_ms }
            }
            12 => *chance.one_of(&[Fault::Damage, Fault::KillTrainer { worker }]),
            13 | 14 => Fault::Stall { worker, coordinator, for_ms: away_ms },
            _ => {
                let by_ms = *chance.one_of(&[3_600_000, -3_600_000]);
                Fault::JumpClock { coordinator, by_ms }
            }
        }
    }

    /// The study file.
    pub(crate) fn study(&self) -> String {
        let sizes: Vec<String> = self
            .widths
            .iter()
            .map(|width| format!("              - {{label: s{width}, model.d_model: {width}}}"))
            .collect();
        let tokens = self.n_steps * 32;
        let weight = self.weight as f64 / 10.0;
        let gang = self.gang;
        let [schedule, design, checkpoints] = if self.shares_trunks {
            // Some 30 to 80 steps of the smallest network, which a budget must buy 20 of.
            let budgets = [1.0, 1.3, 1.7].map(|times| times * (4e7 + self.n_steps as f64 * 1e6));
            [
                "wsd: {warmup_steps: 0, decay_share: 0.4}".to_owned(),
                format!("isoflop: {{budgets: {budgets:?}}}"),
                "final".to_owned(),
            ]
        } else {
            [
                "constant: {warmup_steps: 0}".to_owned(),
                format!("fixed_tokens: {{tokens: {tokens}}}"),
                "{log_spaced: {count: 2, first_step: 2}}".to_owned(),
            ]
        };
        let share_trunks = self.shares_trunks;
        format!(
            "version: 1
name: storm
data:
  corpora:
    - {{name: plays, files: ['*.txt']}}
stages:
  - name: pretrain
    recipe:
      pretrain:
        model: {{preset: llama_study, n_layers: 1, n_heads: 2, ffn_hidden: 32}}
        training:
          sequence_length: 8
          batch_sequences: 4
          optimizer: {{learning_rate: 1e-3}}
          schedule: {{{schedule}}}
        axes:
          - name: size
            values:
{}
        design: {{{design}}}
        checkpoints: {checkpoints}
        evaluate: [{{task: validation_loss, sequences: 8}}]
runtime:
  weight: {weight}
  share_trunks: {share_trunks}
  placement: {{slots: {gang}}}
  retries:
    out_of_memory: {{attempts: 1000, longest_pause_seconds: 8}}
    bug: {{attempts: 1000, longest_pause_seconds: 8}}
    bad_checkpoint: {{attempts: 1000, longest_pause_seconds: 8}}
    worker_lost: {{attempts: 1000, pause_seconds: 0}}
",
            sizes.join("\n")
        )
    }
}

fn some_deed(chance: &mut Chance) -> Deed {
    match chance.below(8) {
        0 => Deed::CancelSomeRun,
        1 | 2 => Deed::PauseThenResume { after_ms: chance.between(1_000, 40_000) },
        3 => Deed::Priority { priority: *chance.one_of(&[-5, 0, 7]) },
        4 | 5 => Deed::RetryFailed,
        6 => Deed::DrainSomeWorker,
        _ => Deed::ApplyAgain,
    }
}
