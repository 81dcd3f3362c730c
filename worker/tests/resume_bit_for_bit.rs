//! A run that is killed goes on in another process and ends bit for bit like an undisturbed one.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bench;

use bench::Story;
use bench::work::{ARCHITECTURES, Bench, joined, resumed, resumed_after_doubt, run};
use domain::recipe::PretrainCell;
use domain::spec::{
    DecayShape, LossSpikeSpec, Precision, ScheduleSpec, UnstableStep, WeightAverageSpec,
};
use proto::v1::{self, event::Kind};

const STEPS: u64 = 12;

fn weights_hash(story: &Story) -> String {
    story.checkpoint(STEPS).weights.clone().unwrap().hash
}

/// Trains to the end in one process and, in others, with `kill -9` after the checkpoint of step 5;
/// compares every loss and the bytes of the weights.
fn check_killed(bench: &Bench, cell: &PretrainCell, train: &v1::Train) {
    let straight = bench.attempt(train.clone(), 1);
    assert_eq!(straight.end, "succeeded", "{}", straight.message);
    assert_eq!(straight.losses().len() as u64, STEPS);

    let mut first = bench.trainer();
    first.assign(run(train.clone(), 2));
    let before = first.until(|event| matches!(event, Kind::Checkpoint(found) if found.step == 5));
    first.kill();
    let after = bench.attempt(resumed(train.clone(), &before), 3);
    assert_eq!(after.end, "succeeded", "{}", after.message);
    assert_eq!(after.started().resumed_from_step, 5);
    assert_eq!(joined(&[&before, &after]), straight.losses(), "{:?}", cell.model);
    assert_eq!(weights_hash(&after), weights_hash(&straight), "{:?}", cell.model);
}

#[test]
fn every_architecture_survives_a_kill_bit_for_bit() {
    for architecture in ARCHITECTURES {
        // One run has one architecture, and no attempt writes over what is another's.
        let bench = Bench::new();
        let cell = bench.cell(architecture, STEPS);
        check_killed(&bench, &cell, &bench.train(&cell, &[5]));
    }
}

#[test]
fn micro_batches_and_bfloat16_survive_a_kill_bit_for_bit() {
    let bench = Bench::new();
    let mut cell = bench.cell("llama", STEPS);
    cell.training.precision = Precision::Bf16;
    let train = v1::Train { micro_batch_sequences: 3, ..bench.train(&cell, &[5]) };
    check_killed(&bench, &cell, &train);
}

#[test]
fn two_threads_survive_a_kill_bit_for_bit() {
    let bench = Bench { threads: 2, ..Bench::new() };
    let cell = bench.cell("tnl", STEPS);
    check_killed(&bench, &cell, &bench.train(&cell, &[5]));
}

#[test]
fn what_was_seen_of_the_losses_survives_a_kill_bit_for_bit() {
    let bench = Bench::new();
    let mut cell = bench.cell("llama", STEPS);
    // A rate that lets the loss jump, and a rule that passes every loss over that is above the mean.
    cell.training.optimizer.learning_rate = Some(3.0);
    let then = UnstableStep::Skip { at_most_in_a_row: 100 };
    let spike = LossSpikeSpec { above_nats: 1e-9, window_steps: 3, then };
    cell.training.stability.loss_spike = Some(spike);
    let train = bench.train(&cell, &[5]);
    check_killed(&bench, &cell, &train);
    let skipped = bench.attempt(train, 4).values("skipped_steps");
    let at = |step: u64| skipped.iter().find(|found| found.0 == step).unwrap().1;
    assert!(at(5) > 0.0 && at(STEPS) > at(5), "{skipped:?}");
}

#[test]
fn an_average_of_the_weights_survives_a_kill_bit_for_bit() {
    let bench = Bench::new();
    let mut cell = bench.cell("hgrn2", STEPS);
    cell.training.weight_average = Some(WeightAverageSpec::Ema { decay: 0.9 });
    check_killed(&bench, &cell, &bench.train(&cell, &[5]));
}

fn read_json(bench: &Bench, key: &str) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(bench.site.path(key)).unwrap()).unwrap()
}

#[test]
fn a_resumed_run_takes_over_the_state_of_the_generator() {
    // Aim: it is restored, although no layer draws yet, so that no loss tells. Method: another state in
    // the checkpoint, which every later checkpoint must carry on.
    let bench = Bench::new();
    let cell = bench.cell("llama", STEPS);
    let train = bench.train(&cell, &[5, 8]);
    let before = bench.attempt(train.clone(), 1);
    let kept = |story: &Story, step| {
        let manifest = story.checkpoint(step).manifest.clone().unwrap();
        let folder = manifest.key.strip_suffix("manifest.json").unwrap().to_owned();
        read_json(&bench, &format!("{folder}state.json"))["generator_state"].clone()
    };
    tch::manual_seed(987);
    let other = torch_ext::generator_state().unwrap();
    let digits: Vec<String> = other.iter().map(|byte| format!("{byte:02x}")).collect();
    let other = digits.concat();
    assert_ne!(kept(&before, 5), *other);

    let mut resumed = resumed(train, &before);
    resumed.checkpoints.retain(|found| found.step == 5);
    let manifest_key = resumed.checkpoints[0].manifest.clone().unwrap().key;
    let mut manifest = read_json(&bench, &manifest_key);
    let files = manifest["files"].as_array_mut().unwrap();
    let file = files.iter_mut().find(|file| file["name"] == "state.json").unwrap();
    let key = file["key"].as_str().unwrap().to_owned();
    let mut state = read_json(&bench, &key);
    state["generator_state"] = other.clone().into();
    let reference = bench.site.put(&key, &serde_json::to_vec(&state).unwrap());
    (file["hash"], file["n_bytes"]) = (reference.hash.into(), reference.n_bytes.into());
    let manifest = bench.site.put(&manifest_key, &serde_json::to_vec(&manifest).unwrap());
    resumed.checkpoints[0].manifest = Some(manifest);

    let after = bench.attempt(resumed, 2);
    assert_eq!((after.end.as_str(), after.started().resumed_from_step), ("succeeded", 5));
    for step in [8, STEPS] {
        assert_eq!(kept(&after, step), *other, "after step {step}");
    }
}

#[test]
fn a_preempted_run_leaves_a_checkpoint_and_goes_on_bit_for_bit() {
    let bench = Bench::new();
    let cell = bench.cell("tnl", 400);
    let train = bench.train(&cell, &[]);
    let straight = bench.attempt(train.clone(), 1);
    let mut trainer = bench.trainer();
    trainer.assign(run(train.clone(), 2));
    let story = trainer.until(|event| matches!(event, Kind::Point(_)));
    let preempt = v1::PreemptAttempt { lease_token: 2, deadline_ms: 1000 };
    trainer.send(v1::to_trainer::Kind::Preempt(preempt));
    let before = trainer.rest(story);
    assert_eq!(before.end, "preempted");
    let step = before.checkpoints()[0].step;
    assert_eq!(before.losses().last().unwrap().0, step);
    // The same process takes the run up again.
    let after = trainer.carry_out(run(resumed(train, &before), 3));
    assert_eq!(after.started().resumed_from_step, step);
    assert_eq!([before.losses(), after.losses()].concat(), straight.losses());
}

#[test]
fn what_the_first_attempt_fixed_is_kept_by_the_next() {
    let bench = Bench::new();
    let cell = bench.cell("llama", 4);
    let numerics = v1::Numerics {
        device_kind: "cpu".into(),
        intra_op_threads: 1,
        micro_batch_sequences: 2,
        cpu_capability: "of another machine".into(),
        libtorch_version: "2.11.0".into(),
    };
    let train = v1::Train { numerics: Some(numerics), ..bench.train(&cell, &[]) };
    let story = bench.site.trainer(2).carry_out(run(train, 2));
    let numerics = story.started().numerics.clone().unwrap();
    assert_eq!((numerics.intra_op_threads, numerics.micro_batch_sequences), (1, 2));
    let warning = story.logs("warn")[0];
    assert!(warning.contains("equal to rounding only"), "{warning}");
    // What differs is named, and what does not is not.
    assert!(warning.contains("instead of of another machine"), "{warning}");
    assert!(!warning.contains("libtorch") && !warning.contains("threads"), "{warning}");
}

/// Two lengths of one configuration, the shorter with a trunk of `branch` steps.
fn two_lengths(bench: &Bench, architecture: &str) -> ([PretrainCell; 2], u64) {
    let schedule =
        ScheduleSpec::Wsd { warmup_steps: 2, decay_share: 0.4, decay: DecayShape::Linear };
    let cells = [8, STEPS].map(|steps| {
        let mut cell = bench.cell(architecture, steps);
        cell.training.schedule = schedule.clone();
        cell
    });
    let branch = cells[0].trunk().unwrap().unwrap().steps;
    (cells, branch)
}

#[test]
fn a_run_that_goes_on_from_a_shorter_one_equals_one_from_scratch_bit_for_bit() {
    for architecture in ARCHITECTURES {
        let bench = Bench::new();
        let ([short, long], branch) = two_lengths(&bench, architecture);
        let straight = bench.attempt(bench.train(&long, &[]), 1);
        let of_short = v1::Train { branch_step: branch, ..bench.train(&short, &[]) };
        let trunk = bench.attempt(of_short, 2);
        assert_eq!(trunk.end, "succeeded", "{}", trunk.message);
        let kept = trunk.checkpoint(branch);
        assert!(!kept.is_data_point, "a rate that has not decayed is no result");
        // All that the shorter run left is offered; what lies behind its branch is refused.
        let resumed = resumed(bench.train(&long, &[]), &trunk);
        let branched = bench.attempt(resumed.clone(), 3);
        assert_eq!(branched.end, "worker_lost", "{}", branched.message);
        let of_trunk: Vec<_> =
            resumed.checkpoints.into_iter().filter(|found| found.step <= branch).collect();
        let numerics = resumed.numerics;
        let train = v1::Train { checkpoints: of_trunk, numerics, ..bench.train(&long, &[]) };
        let branched = bench.attempt(train, 4);
        assert_eq!(branched.end, "succeeded", "{}", branched.message);
        assert_eq!(branched.started().resumed_from_step, branch);
        let before = usize::try_from(branch).unwrap();
        assert_eq!(branched.losses(), straight.losses()[before..], "{architecture}");
        assert_eq!(weights_hash(&branched), weights_hash(&straight), "{architecture}");
        assert_ne!(trunk.losses()[before + 1..], straight.losses()[before + 1..8]);
    }
}

#[test]
fn a_checkpoint_of_another_trunk_is_refused() {
    let bench = Bench::new();
    let ([short, mut long], branch) = two_lengths(&bench, "llama");
    long.training.seed += 1;
    let of_short = v1::Train { branch_step: branch, ..bench.train(&short, &[]) };
    let trunk = bench.attempt(of_short, 1);
    // As its own it is damaged: an earlier attempt has said so too.
    let story = bench.attempt(resumed_after_doubt(bench.train(&long, &[]), &trunk), 2);
    assert_eq!((story.end.as_str(), story.started().resumed_from_step), ("succeeded", 0));
    let warnings = story.logs("warn").join("\n");
    assert!(warnings.contains("it belongs to the configuration"), "{warnings}");
    // As another run's it is no worse for that, and nobody is told that it is.
    let train = resumed(bench.train(&long, &[]), &trunk);
    let other = v1::Assignment { work_id: "r_other".into(), ..run(train, 3) };
    let story = bench.trainer().carry_out(other);
    assert_eq!((story.end.as_str(), story.started().resumed_from_step), ("succeeded", 0));
    assert!(!story.events.iter().any(|event| matches!(event, Kind::CheckpointRefused(_))));
    assert!(story.logs("warn").join("\n").contains("not of this trunk"));
}
