//! Damaged checkpoints are found by hash, named, and passed over by the second attempt that finds
//! them so; what cannot be reached is no damage.
#![cfg(feature = "torch")]

mod bench;

use std::fs;

use bench::work::{Bench, resumed, resumed_after_doubt, run};

/// Damages the files of steps 9 and 6 of a finished attempt that left checkpoints at 3, 6 and 9, in
/// two ways, and resumes: the next attempt must name both and end, the one after it begin at 3 and
/// end with the same weights.
#[test]
fn truncated_and_bit_flipped_checkpoints_are_refused_and_the_one_before_is_used() {
    let bench = Bench::new();
    let cell = bench.cell("hgrn2", 12);
    let train = bench.train(&cell, &[3, 6, 9]);
    let mut before = bench.attempt(train.clone(), 1);
    let whole = before.losses();
    let weights = before.checkpoint(12).weights.clone();
    // As if the attempt had been lost after step 9.
    before.events.retain(
        |event| !matches!(event, proto::v1::event::Kind::Checkpoint(found) if found.step == 12),
    );

    let flipped = bench.site.path("runs/r_test/1-1/9/model.safetensors");
    let mut bytes = fs::read(&flipped).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&flipped, bytes).unwrap();
    let truncated = bench.site.path("runs/r_test/1-1/6/optimizer.safetensors");
    let bytes = fs::read(&truncated).unwrap();
    fs::write(&truncated, &bytes[..bytes.len() - 1]).unwrap();

    let doubting = bench.attempt(resumed(train.clone(), &before), 2);
    assert_eq!(doubting.end, "worker_lost", "{}", doubting.message);
    assert!(doubting.message.contains("of step 9 cannot be used"), "{}", doubting.message);
    assert_eq!(doubting.refused().len(), 2);
    assert!(doubting.found_start().is_none());

    let after = bench.attempt(resumed_after_doubt(train, &before), 3);
    assert_eq!(after.end, "succeeded", "{}", after.message);
    let refused: Vec<_> =
        after.refused().iter().map(|found| (found.step, &*found.reason)).collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused[0].0 == 9 && refused[0].1.contains("has the hash"), "{refused:?}");
    assert!(refused[1].0 == 6 && refused[1].1.contains("bytes instead of"), "{refused:?}");
    assert_eq!(after.started().resumed_from_step, 3);
    assert_eq!(after.losses(), whole[3..]);
    assert_eq!(after.checkpoint(12).weights.clone().unwrap().hash, weights.unwrap().hash);
}

#[test]
fn a_run_without_a_usable_checkpoint_starts_from_scratch_and_says_so() {
    let bench = Bench::new();
    let cell = bench.cell("llama", 4);
    let train = bench.train(&cell, &[2]);
    let before = bench.attempt(train.clone(), 1);
    for step in [2, 4] {
        fs::remove_file(bench.site.path(&format!("runs/r_test/1-1/{step}/manifest.json"))).unwrap();
    }
    assert_eq!(bench.attempt(resumed(train.clone(), &before), 2).end, "worker_lost");
    let after = bench.attempt(resumed_after_doubt(train, &before), 3);
    assert_eq!((after.end.as_str(), after.started().resumed_from_step), ("succeeded", 0));
    assert_eq!(after.refused().len(), 2);
    assert!(after.logs("warn").iter().any(|text| text.contains("from scratch")), "{after:?}");
    assert_eq!(after.losses(), before.losses());
}

#[test]
fn a_checkpoint_of_another_configuration_is_refused() {
    let bench = Bench::new();
    let other = bench.cell("llama", 4);
    let before = bench.attempt(bench.train(&other, &[]), 1);
    let mut cell = other.clone();
    cell.training.optimizer.learning_rate = Some(0.02);
    let after = bench.attempt(resumed_after_doubt(bench.train(&cell, &[]), &before), 2);
    assert_eq!(after.end, "succeeded", "{}", after.message);
    assert!(after.refused()[0].reason.contains("belongs to the configuration"), "{after:?}");
}

/// Aim: a store that cannot be read makes no run start over and has no checkpoint refused. Method:
/// a file where a folder must be, which reads as an error of the machine, longer than is waited
/// for.
#[test]
fn a_checkpoint_that_cannot_be_reached_is_the_machines_fault() {
    let bench = Bench::new();
    let cell = bench.cell("llama", 4);
    let train = bench.train(&cell, &[2]);
    let before = bench.attempt(train.clone(), 1);
    let (folder, away) = (bench.site.path("runs/r_test/1-1/4"), bench.site.path("away"));
    fs::rename(&folder, &away).unwrap();
    fs::write(&folder, b"no folder").unwrap();
    let mut trainer = bench.site.trainer_with(1, &["--read-patience-ms", "0"]);
    let after = trainer.carry_out(run(resumed(train.clone(), &before), 2));
    assert_eq!(after.end, "worker_lost", "{}", after.message);
    assert!(after.message.contains("4/manifest.json"), "{}", after.message);
    assert_eq!((after.refused().len(), after.found_start().is_none()), (0, true));
    // It is there again, and the same trainer goes on.
    fs::remove_file(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    let after = trainer.carry_out(run(resumed(train, &before), 3));
    assert_eq!((after.end.as_str(), after.started().resumed_from_step), ("succeeded", 4));
}
