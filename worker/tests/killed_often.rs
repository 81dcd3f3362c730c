//! A run that is killed again and again, at any instant, ends bit for bit like an undisturbed one.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bench;

use std::time::{Duration, Instant};

use bench::Story;
use bench::work::{Bench, joined, resumed, run};
use domain::recipe::PretrainCell;
use domain::spec::{DecayShape, Precision, ScheduleSpec, WeightAverageSpec};
use proto::v1::{self, event::Kind};

/// How often each architecture is killed; more often with `SLOW_TESTS`.
fn n_kills() -> usize {
    if std::env::var_os("SLOW_TESTS").is_some() { 200 } else { 20 }
}

/// What differs between the runs, by a seed: one bit each.
#[derive(Debug, Clone, Copy)]
struct Variation {
    seed: u32,
    /// With an average of the weights: it remembers every update, so it would show any that was made
    /// twice or not at all. Without it a checkpoint has other files.
    has_average: bool,
    /// With the checkpoints that are written by the clock, and none for its step's sake.
    is_rolling: bool,
    /// Intra-op threads.
    threads: u32,
}

impl Variation {
    fn of(seed: u32) -> Self {
        let bit = |at: u32| (seed >> at) & 1 == 1;
        Self { seed, has_average: !bit(0), is_rolling: bit(1), threads: 1 + u32::from(bit(2)) }
    }

    fn bench(self) -> Bench {
        Bench { threads: self.threads, ..Bench::new() }
    }

    /// Steps of the run. By the clock a checkpoint comes after a second, and hundreds of steps.
    fn steps(self) -> u64 {
        if self.is_rolling { 3000 } else { 10 * n_kills() as u64 }
    }

    /// A checkpoint every third step, so that many are under way when the kill comes, or one a second.
    fn checkpoints(self, train: v1::Train) -> v1::Train {
        if self.is_rolling {
            return v1::Train { rolling_checkpoint_seconds: 1, ..train };
        }
        v1::Train { data_point_steps: (3..self.steps()).step_by(3).collect(), ..train }
    }
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

/// Lets an attempt begin, and kills it somewhat later: while it starts, inside a step, or inside the
/// writing of a checkpoint.
fn killed(
    bench: &Bench,
    train: v1::Train,
    attempt: u32,
    (variation, random): (Variation, &mut Random),
) -> Story {
    let mut trainer = bench.trainer();
    let mut story = Story::default();
    trainer.assign(run(train, attempt));
    if variation.is_rolling {
        // The clock of its checkpoints begins with the steps.
        story = trainer.until(|event| matches!(event, Kind::Point(_)));
        let instant = Instant::now() + Duration::from_millis((900 + random.below(500)).into());
        while Instant::now() < instant && trainer.hear(&mut story) {}
    } else {
        for _ in 0..random.below(8) {
            if !trainer.hear(&mut story) {
                break;
            }
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

/// Everything that the last checkpoint keeps, file by file.
fn end_state(bench: &Bench, story: &Story, cell: &PretrainCell) -> Vec<(String, Vec<u8>)> {
    let manifest = story.checkpoint(cell.steps).manifest.clone().unwrap();
    let folder = bench.site.path(manifest.key.strip_suffix("manifest.json").unwrap());
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| !path.ends_with("manifest.json"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), path))
        .map(|(name, path)| (name, std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    let has_average = files.iter().any(|(name, _)| name == "trained.safetensors");
    assert_eq!(has_average, cell.training.weight_average.is_some());
    assert_eq!(files.len(), 4 + usize::from(has_average));
    files
}

/// A run under kills beside the undisturbed one.
struct Killed<'a> {
    bench: &'a Bench,
    cell: &'a PretrainCell,
    variation: Variation,
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
        let train = resumed(self.train.clone(), &self.known);
        let story = killed(self.bench, train, self.attempt, (self.variation, random));
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
        // An attempt that was killed after its last checkpoint leaves the next one nothing to write.
        let has_end = last.checkpoints().iter().any(|one| one.step == self.cell.steps);
        let ended = if has_end { &last } else { &self.known };
        let [found, expected] =
            [ended, &self.straight].map(|story| end_state(self.bench, story, self.cell));
        assert!(found == expected, "the last checkpoints differ");
        self.known = Story::default();
    }
}

fn check(architecture: &str, seed: u32) {
    let variation = Variation::of(seed);
    let bench = variation.bench();
    let cell = bench.cell(architecture, variation.steps());
    check_cell(&bench, cell, variation, 0);
}

/// Kills a run of the cell until it was killed often enough. A run that comes to its end before is
/// compared, and begins anew: every kill is one that a compared end has behind it.
fn check_cell(
    bench: &Bench,
    mut cell: PretrainCell,
    variation: Variation,
    micro_batch_sequences: u32,
) {
    let average = WeightAverageSpec::Ema { decay: 0.99 };
    cell.training.weight_average = variation.has_average.then_some(average);
    let train = v1::Train { micro_batch_sequences, ..bench.train(&cell, &[]) };
    let train = variation.checkpoints(train);
    let straight = bench.attempt(train.clone(), 1);
    let known = Story::default();
    let mut killed = Killed { bench, cell: &cell, variation, train, straight, known, attempt: 1 };
    let mut random = Random(7 + variation.seed);
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
    check("llama", 0);
}

#[test]
fn tnl_survives_kills_at_any_instant() {
    check("tnl", 1);
}

#[test]
fn hgrn2_survives_kills_at_any_instant() {
    check("hgrn2", 4);
}

#[test]
fn cosformer2_survives_kills_at_any_instant() {
    check("cosformer2", 5);
}

#[test]
fn a_run_with_checkpoints_by_the_clock_alone_survives_kills_at_any_instant() {
    check("llama", 2);
}

#[test]
fn bf16_with_a_decaying_rate_and_uneven_micro_batches_survives_kills_at_any_instant() {
    let variation = Variation::of(1);
    let bench = variation.bench();
    let mut cell = bench.cell("hgrn2", variation.steps());
    cell.training.precision = Precision::Bf16;
    cell.training.z_loss = 1e-4;
    cell.training.schedule =
        ScheduleSpec::Wsd { warmup_steps: 3, decay_share: 0.5, decay: DecayShape::OneMinusSqrt };
    check_cell(&bench, cell, variation, 3);
}
