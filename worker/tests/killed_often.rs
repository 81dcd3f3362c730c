//! A run that is killed again and again, at any instant, ends bit for bit like an undisturbed one.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bench;

use std::time::{Duration, Instant};

use bench::Story;
use bench::work::{Bench, joined, resumed, run};
use domain::recipe::PretrainCell;
use domain::spec::WeightAverageSpec;
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

fn check(architecture: &str) {
    let bench = Bench::new();
    let mut cell = bench.cell(architecture, steps());
    // It remembers every update, so it would show any that was made twice or not at all.
    cell.training.weight_average = Some(WeightAverageSpec::Ema { decay: 0.99 });
    let data_points: Vec<u64> = (3..steps()).step_by(3).collect();
    let train = bench.train(&cell, &data_points);
    let straight = bench.attempt(train.clone(), 1);

    let mut random = Random(7);
    // Everything that the coordinator would know of the attempts so far.
    let mut known = Story::default();
    let (mut attempt, mut n_killed, mut n_resumed) = (1, 0, 0);
    while n_killed < n_kills() {
        attempt += 1;
        let story = killed(&bench, resumed(train.clone(), &known), attempt, &mut random);
        assert!(story.refused().is_empty(), "{story:?}");
        // A kill before the first step or after the last is welcome, but does not count.
        if was_in_the_middle(&story, &cell) {
            n_killed += 1;
            n_resumed += usize::from(story.started().resumed_from_step > 0);
        }
        known.events.extend(story.events);
        if known.losses().iter().any(|(step, _)| *step == cell.steps) {
            known = Story::default();
        }
    }
    // Else the kills came before anything was there to resume from, and nothing was tested.
    assert!(n_resumed >= n_kills() / 2, "{n_resumed} attempts went on from a checkpoint");
    let last = bench.attempt(resumed(train, &known), attempt + 1);
    assert_eq!(last.end, "succeeded", "{}", last.message);
    assert_eq!(joined(&[&known, &last]), straight.losses());
    assert_eq!(end_state(&bench, &last, &cell), end_state(&bench, &straight, &cell));
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
