//! A run that is killed again and again, at any instant, ends bit for bit like an undisturbed one.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bench;

use std::time::{Duration, Instant};

use bench::Story;
use bench::work::{Bench, joined, resumed, run};
use domain::recipe::PretrainCell;
use domain::spec::{DecayShape, Precision, ScheduleSpec, WeightAverageSpec};
use proto::v1;

/// How often each architecture is killed; more often with `SLOW_TESTS`.
fn n_kills() -> usize {
    if std::env::var_os("SLOW_TESTS").is_some() { 200 } else { 20 }
}

/// Steps of the run; a checkpoint every third, so that many are under way when the kill comes.
fn steps() -> u64 {
    10 * n_kills() as u64
}

/// A linear congruential generator (Knuth's constants): the same instants, as far as a machine has
/// any, in every run of the test.
struct Random(u32);

impl Random {
    fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) % limit
    }
}

/// Lets an attempt begin, hears a few of its events, and kills it somewhat later: while it starts,
/// inside a step, or inside the writing of a checkpoint.
fn killed(bench: &Bench, train: v1::Train, attempt: u32, random: &mut Random) -> Story {
    let mut trainer = bench.trainer();
    let mut story = Story::default();
    trainer.assign(run(train, attempt));
    for _ in 0..random.below(8) {
        if !trainer.hear(&mut story) {
            break;
        }
    }
    let instant = Instant::now() + Duration::from_micros(random.below(20_000).into());
    while Instant::now() < instant {
        std::hint::spin_loop();
    }
    trainer.kill_and_read(&mut story);
    story
}

/// Whether the attempt had made steps and had some left.
fn was_in_the_middle(story: &Story, cell: &PretrainCell) -> bool {
    story.losses().last().is_some_and(|(step, _)| *step < cell.steps)
}

/// Everything that the last checkpoint keeps.
fn end_state(bench: &Bench, story: &Story, cell: &PretrainCell) -> Vec<Vec<u8>> {
    let manifest = story.checkpoint(cell.steps).manifest.clone().unwrap();
    let prefix = manifest.key.strip_suffix("manifest.json").unwrap().to_owned();
    ["model.safetensors", "trained.safetensors", "optimizer.safetensors", "state.json"]
        .map(|name| std::fs::read(bench.site.path(&format!("{prefix}{name}"))).unwrap())
        .to_vec()
}

/// A run under kills beside the undisturbed one.
struct Killed<'a> {
    bench: &'a Bench,
    cell: &'a PretrainCell,
    train: v1::Train,
    straight: Story,
    /// Everything that the coordinator would know of the attempts so far.
    known: Story,
    attempt: u32,
}

impl Killed<'_> {
    /// One attempt that is killed; what it said.
    fn attempt(&mut self, random: &mut Random) -> Story {
        self.attempt += 1;
        let story =
            killed(self.bench, resumed(self.train.clone(), &self.known), self.attempt, random);
        assert!(story.refused().is_empty(), "{story:?}");
        story
    }

    fn has_come_to_the_end(&self) -> bool {
        self.known.losses().iter().any(|(step, _)| *step == self.cell.steps)
    }

    /// Lets a last attempt finish the run, compares all of it, and begins anew from nothing.
    fn finish_and_compare(&mut self) {
        self.attempt += 1;
        let last = self.bench.attempt(resumed(self.train.clone(), &self.known), self.attempt);
        assert_eq!(last.end, "succeeded", "{}", last.message);
        assert_eq!(joined(&[&self.known, &last]), self.straight.losses());
        let [found, expected] =
            [&last, &self.straight].map(|story| end_state(self.bench, story, self.cell));
        assert!(found == expected, "the last checkpoints differ");
        self.known = Story::default();
    }
}

fn check(architecture: &str) {
    let bench = Bench::new();
    let cell = bench.cell(architecture, steps());
    check_cell(&bench, cell, 0);
}

/// Kills a run of the cell until it was killed often enough. A run that comes to its end before is
/// compared, and begins anew: every kill is one that a compared end has behind it.
fn check_cell(bench: &Bench, mut cell: PretrainCell, micro_batch_sequences: u32) {
    // It remembers every update, so it would show any that was made twice or not at all.
    cell.training.weight_average = Some(WeightAverageSpec::Ema { decay: 0.99 });
    let data_points: Vec<u64> = (3..steps()).step_by(3).collect();
    let train = v1::Train { micro_batch_sequences, ..bench.train(&cell, &data_points) };
    let straight = bench.attempt(train.clone(), 1);
    let known = Story::default();
    let mut killed = Killed { bench, cell: &cell, train, straight, known, attempt: 1 };
    let mut random = Random(7);
    let (mut n_killed, mut n_resumed) = (0, 0);
    while n_killed < n_kills() {
        let story = killed.attempt(&mut random);
        // A kill before the first step or after the last is welcome, but does not count.
        if was_in_the_middle(&story, &cell) {
            n_killed += 1;
            n_resumed += usize::from(story.started().resumed_from_step > 0);
        }
        killed.known.events.extend(story.events);
        if killed.has_come_to_the_end() {
            killed.finish_and_compare();
        }
    }
    // Else the kills came before anything was there to resume from, and nothing was tested.
    assert!(n_resumed >= n_kills() / 2, "{n_resumed} attempts went on from a checkpoint");
    killed.finish_and_compare();
}

#[test]
fn llama_survives_kills_at_any_instant() {
    check("llama");
}

#[test]
fn tnl_survives_kills_at_any_instant() {
    check("tnl");
}

#[test]
fn hgrn2_survives_kills_at_any_instant() {
    check("hgrn2");
}

#[test]
fn cosformer2_survives_kills_at_any_instant() {
    check("cosformer2");
}

#[test]
fn bf16_with_a_decaying_rate_and_uneven_micro_batches_survives_kills_at_any_instant() {
    let bench = Bench::new();
    let mut cell = bench.cell("hgrn2", steps());
    cell.training.precision = Precision::Bf16;
    cell.training.z_loss = 1e-4;
    cell.training.schedule =
        ScheduleSpec::Wsd { warmup_steps: 3, decay_share: 0.5, decay: DecayShape::OneMinusSqrt };
    check_cell(&bench, cell, 3);
}
