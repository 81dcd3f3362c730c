//! A run that is killed again and again, at any instant, ends bit for bit like an undisturbed one.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bench;

use std::time::{Duration, Instant};

use bench::Story;
use bench::work::{Bench, joined, resumed, run};
use domain::recipe::PretrainCell;
use proto::v1;

/// How often each architecture is killed; more often with `SLOW_TESTS`.
fn n_kills() -> usize {
    if std::env::var_os("SLOW_TESTS").is_some() { 200 } else { 20 }
}

/// Steps of the run; a checkpoint every third, so that many are under way when the kill comes.
fn steps() -> u64 {
    3 * n_kills() as u64
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

fn weights_hash(story: &Story, cell: &PretrainCell) -> String {
    story.checkpoint(cell.steps).weights.clone().unwrap().hash
}

fn check(architecture: &str) {
    let bench = Bench::new();
    let cell = bench.cell(architecture, steps());
    let data_points: Vec<u64> = (3..steps()).step_by(3).collect();
    let train = bench.train(&cell, &data_points);
    let straight = bench.attempt(train.clone(), 1);

    let mut random = Random(7);
    // Everything that the coordinator would know of the attempts so far.
    let mut known = Story::default();
    let mut n_resumed = 0;
    for attempt in (2..).take(n_kills()) {
        let story = killed(&bench, resumed(train.clone(), &known), attempt, &mut random);
        assert!(story.refused().is_empty(), "{story:?}");
        n_resumed += story.found_start().map_or(0, |start| u64::from(start.resumed_from_step > 0));
        known.events.extend(story.events);
    }
    // Else the kills came before anything was there to resume from, and nothing was tested.
    assert!(n_resumed >= n_kills() as u64 / 4, "{n_resumed} attempts went on from a checkpoint");
    let last = bench.attempt(resumed(train, &known), 9_999);
    assert_eq!(last.end, "succeeded", "{}", last.message);
    assert_eq!(joined(&[&known, &last]), straight.losses());
    let end = if last.checkpoints().is_empty() { &known } else { &last };
    assert_eq!(weights_hash(end, &cell), weights_hash(&straight, &cell));
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
