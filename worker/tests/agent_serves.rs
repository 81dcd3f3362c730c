//! A real worker process against a coordinator of the test's own, with fake trainers: what it
//! reports, and what it does when something breaks.

#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic as the test may")]

mod support;

use nix::sys::signal::Signal;
use proto::v1::{self, assignment, directive, event};
use support::coordinator::{FakeCoordinator, Seen};
use support::{STEPS, Scene, Worker, cell_json, is_alive};

/// Slow enough that a test can act in the middle of a run.
const SLOWLY: (&str, &str) = ("GRADUS_FAKE_STEP_MS", "20");

fn all_steps() -> Vec<u64> {
    (1..=STEPS).collect()
}

fn has_step(seen: &Seen, token: u64, step: u64) -> Option<()> {
    seen.steps(token).iter().any(|s| *s >= step).then_some(())
}

/// A worker in the middle of a slow run, with the lease token 2.
async fn in_training() -> Scene {
    let scene = Scene::start(&[SLOWLY]).await;
    scene.train(2, 1, Vec::new());
    scene.coordinator.wait_for("the first points", |seen| has_step(seen, 2, 1)).await;
    scene
}

#[tokio::test]
async fn a_run_is_trained_and_its_checkpoint_evaluated() {
    let scene = Scene::start(&[]).await;
    let coordinator = &scene.coordinator;
    scene.train(2, 1, Vec::new());
    assert_eq!(coordinator.wait_for_end(2).await.end, "succeeded");
    assert_eq!(coordinator.with(|seen| seen.steps(2)), all_steps());
    let checkpoints = coordinator.with(|seen| seen.checkpoints(2));
    let steps: Vec<_> = checkpoints.iter().map(|c| c.step).collect();
    assert_eq!(steps, [STEPS, 20, 10], "the data points and the last");
    let numerics = coordinator.with(|seen| match seen.events(2).into_iter().next() {
        Some(event::Kind::Started(started)) => started.numerics,
        other => panic!("the first event is {other:?}"),
    });
    assert_eq!(numerics.unwrap().intra_op_threads, 1);

    let config = serde_json::json!({
        "task": "validation_loss", "task_version": 1, "weights_hash": "0",
        "preparation_hash": "0", "sequence_length": 16, "sequences": null,
    });
    let evaluate = v1::Evaluate {
        config_json: config.to_string(),
        cell_config_json: cell_json(),
        checkpoint_manifest: checkpoints[0].manifest.clone(),
        data_manifest: Some(scene.data.clone()),
    };
    scene.assign(v1::Assignment {
        lease_token: 3,
        work_id: "e_1".into(),
        attempt: 1,
        work: Some(assignment::Work::Evaluate(evaluate)),
        ..v1::Assignment::default()
    });
    assert_eq!(coordinator.wait_for_end(3).await.end, "succeeded");
    let events = coordinator.with(|seen| seen.events(3));
    let [event::Kind::Evaluation(result)] = &events[..] else { panic!("{events:?}") };
    assert!(result.value > 1.69, "{result:?}");
}

#[tokio::test]
async fn a_crash_is_reported_with_its_last_words_and_the_next_attempt_equals_an_undisturbed_run() {
    // One worker whose trainer crashes at step 25 of a first attempt, one undisturbed: the points
    // of the resumed run are the undisturbed run's.
    let crashing = Scene::start(&[("GRADUS_FAKE_CRASH_AT", "25")]).await;
    crashing.train(2, 1, Vec::new());
    let end = crashing.coordinator.wait_for_end(2).await;
    assert_eq!(end.end, "bug");
    assert!(end.message.contains("the test wants a crash at step 25"), "{}", end.message);
    assert!(end.message.contains("exited with status 101"), "{}", end.message);
    let is_error = |event: &event::Kind| match event {
        event::Kind::Log(log) => log.level == "error" && log.text.contains("panicked"),
        _ => false,
    };
    let events = crashing.coordinator.with(|seen| seen.events(2));
    assert!(events.iter().any(is_error), "{events:?}");

    let checkpoints = crashing.coordinator.with(|seen| seen.checkpoints(2));
    assert_eq!(checkpoints[0].step, 20);
    crashing.train(3, 2, checkpoints);
    assert_eq!(crashing.coordinator.wait_for_end(3).await.end, "succeeded");

    let calm = Scene::start(&[]).await;
    calm.train(2, 1, Vec::new());
    assert_eq!(calm.coordinator.wait_for_end(2).await.end, "succeeded");
    let points = |scene: &Scene, token| -> Vec<v1::MetricPoint> {
        let events = scene.coordinator.with(|seen| seen.events(token));
        let point = |event| match event {
            event::Kind::Point(point) => Some(point),
            _ => None,
        };
        events.into_iter().filter_map(point).collect()
    };
    assert_eq!(points(&crashing, 3), points(&calm, 2)[20..]);
}

#[tokio::test]
async fn a_damaged_checkpoint_is_refused_and_the_one_before_it_used() {
    let scene = Scene::start(&[]).await;
    scene.train(2, 1, Vec::new());
    scene.coordinator.wait_for_end(2).await;
    let checkpoints = scene.coordinator.with(|seen| seen.checkpoints(2));
    let weights = scene.artifact("runs/r_1/1-2/40/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    scene.train(3, 2, checkpoints.clone());
    assert_eq!(scene.coordinator.wait_for_end(3).await.end, "worker_lost");
    let doubted = |mut found: v1::CheckpointRef| {
        found.has_failed = true;
        found
    };
    scene.train(4, 3, checkpoints.into_iter().map(doubted).collect());
    assert_eq!(scene.coordinator.wait_for_end(4).await.end, "succeeded");
    let events = scene.coordinator.with(|seen| seen.events(4));
    let refused = events.iter().find_map(|event| match event {
        event::Kind::CheckpointRefused(refused) => Some(refused),
        _ => None,
    });
    let refused = refused.unwrap_or_else(|| panic!("{events:?}"));
    assert_eq!(refused.step, STEPS);
    assert!(refused.reason.contains("hash"), "{}", refused.reason);
    assert_eq!(scene.coordinator.with(|seen| seen.steps(4)), (21..=STEPS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_coordinator_that_was_away_gets_every_point_once() {
    let scene = in_training().await;
    scene.coordinator.with(|seen| seen.is_away = true);
    // The trainer goes on: its last checkpoint appears in the store, not at the coordinator.
    let last = scene.artifact("runs/r_1/1-2/40/manifest.json");
    let written = async {
        while !last.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), written).await.unwrap();
    assert_eq!(scene.coordinator.with(|seen| seen.end(2)), None);
    scene.coordinator.with(|seen| seen.is_away = false);
    assert_eq!(scene.coordinator.wait_for_end(2).await.end, "succeeded");
    assert_eq!(scene.coordinator.with(|seen| seen.steps(2)), all_steps());
}

#[tokio::test]
async fn a_coordinator_that_forgot_the_worker_is_told_again_and_the_attempt_lives() {
    let scene = in_training().await;
    scene.coordinator.with(|seen| seen.forgets_workers = true);
    scene
        .coordinator
        .wait_for("a second registration", |seen| (seen.n_confirmed == 2).then_some(()))
        .await;
    assert_eq!(scene.coordinator.wait_for_end(2).await.end, "succeeded");
    let names: Vec<_> =
        scene.coordinator.with(|seen| seen.registrations.iter().map(|r| r.name.clone()).collect());
    assert_eq!(names, ["one", "one"]);
    assert_eq!(scene.coordinator.with(|seen| seen.steps(2)), all_steps());
}

#[tokio::test]
async fn a_stale_lease_stops_the_attempt_silently_and_frees_the_slot() {
    let scene = in_training().await;
    let n_polls = scene.coordinator.with(|seen| {
        seen.stale_tokens.insert(2);
        seen.polls.len()
    });
    scene
        .coordinator
        .wait_for("a free slot", |seen| seen.polls[n_polls..].contains(&1).then_some(()))
        .await;
    assert_eq!(scene.coordinator.with(|seen| seen.end(2)), None);
    scene.train(3, 2, Vec::new());
    assert_eq!(scene.coordinator.wait_for_end(3).await.end, "succeeded");
}

#[tokio::test]
async fn a_trainer_that_does_not_obey_is_killed_and_replaced() {
    let scene = Scene::start(&[("GRADUS_FAKE_HANG_AT", "5")]).await;
    let before = scene.worker.trainers();
    scene.train(2, 1, Vec::new());
    scene.coordinator.wait_for("the last points", |seen| has_step(seen, 2, 4)).await;
    let n_polls = scene.coordinator.with(|seen| {
        let stop = v1::StopAttempt { lease_token: 2, reason: "cancelled".into() };
        seen.directives.push_back(directive::Kind::Stop(stop));
        seen.polls.len()
    });
    scene
        .coordinator
        .wait_for("a free slot", |seen| seen.polls[n_polls..].contains(&1).then_some(()))
        .await;
    assert_eq!(scene.coordinator.with(|seen| seen.end(2)), None);
    let after = scene.worker.trainers();
    assert_eq!(after.len(), 1);
    assert_ne!(before, after);
}

#[tokio::test]
async fn a_worker_that_loses_its_parent_checkpoints_and_leaves() {
    let mut scene = in_training().await;
    scene.worker.lose_parent();
    let end = scene.coordinator.wait_for_end(2).await;
    assert_eq!(end.end, "preempted", "{}", end.message);
    let (status, said) = scene.worker.wait().await;
    assert!(status.success(), "{said}");
    scene.coordinator.with(|seen| {
        assert_eq!(seen.n_deregistered, 1);
        let last_step = seen.steps(2).last().copied();
        assert_eq!(seen.checkpoints(2).first().map(|c| c.step), last_step);
    });
}

#[tokio::test]
async fn a_terminated_worker_without_work_leaves_at_once() {
    let mut scene = Scene::start(&[]).await;
    scene.worker.signal(Signal::SIGTERM);
    let (status, said) = scene.worker.wait().await;
    assert!(status.success(), "{said}");
    assert_eq!(scene.coordinator.with(|seen| seen.n_deregistered), 1);
}

#[tokio::test]
async fn a_drained_worker_finishes_what_it_has_and_leaves() {
    let mut scene = in_training().await;
    let drain = directive::Kind::Drain(v1::Drain {});
    scene.coordinator.with(|seen| seen.directives.push_back(drain));
    assert_eq!(scene.coordinator.wait_for_end(2).await.end, "succeeded");
    let (status, said) = scene.worker.wait().await;
    assert!(status.success(), "{said}");
    assert_eq!(scene.coordinator.with(|seen| seen.steps(2)), all_steps());
}

#[tokio::test]
async fn no_trainer_outlives_a_killed_agent() {
    let mut scene = in_training().await;
    let trainers = scene.worker.trainers();
    assert_eq!(trainers.len(), 1);
    scene.worker.signal(Signal::SIGKILL);
    let (status, _) = scene.worker.wait().await;
    assert!(!status.success());
    let gone = async {
        while trainers.iter().any(|pid| is_alive(*pid)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), gone).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_cannot_see_the_artifact_store_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let missing = url::Url::from_file_path(folder.path().join("missing")).unwrap().to_string();
    let (address, _coordinator) = FakeCoordinator::start_with_uri(missing).await;
    let mut worker = Worker::start(&address, &folder.path().join("scratch"), &[]);
    let (status, said) = worker.wait().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("cannot see the artifact store"), "{said}");

    // A folder that is there, but is not the coordinator's.
    let other = url::Url::from_file_path(folder.path()).unwrap().to_string();
    let (address, _coordinator) = FakeCoordinator::start_with_uri(other).await;
    let mut worker = Worker::start(&address, &folder.path().join("scratch"), &[]);
    let (status, said) = worker.wait().await;
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("cannot see the artifact store"), "{said}");
}

#[tokio::test]
async fn a_trainer_that_does_not_start_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let (address, coordinator) = FakeCoordinator::start(folder.path()).await;
    let scratch = folder.path().join("scratch");
    for trainer in ["/nonexistent/trainer", "/bin/false"] {
        let mut worker = Worker::start_with_trainer(&address, &scratch, &[], trainer);
        let (status, said) = worker.wait().await;
        assert_eq!(status.code(), Some(1));
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("cannot start a trainer"), "{said}");
    }
    assert_eq!(coordinator.with(|seen| seen.registrations.len()), 0);
}
