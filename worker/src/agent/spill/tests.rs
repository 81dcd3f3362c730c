use std::path::Path;

use proptest::prelude::*;
use proto::to_wire;
use proto::v1::event;

use super::*;

fn spill(folder: &Path, max_bytes: u64) -> Spill {
    Spill::new(SpillLimits { folder: folder.to_owned(), slot: 0, max_bytes })
}

fn point(step: u64) -> Said {
    let values = [("train_loss_nats".to_owned(), 0.1)].into();
    Said::Event(to_wire::event(event::Kind::Point(v1::MetricPoint { step, values })))
}

/// What was said, in short: the step of a point, or the word.
fn short(said: &Said) -> String {
    match said {
        Said::Event(event) => match &event.kind {
            Some(event::Kind::Point(point)) => point.step.to_string(),
            other => format!("{other:?}"),
        },
        Said::Finished(end) => end.end.clone(),
        Said::Gone { message, .. } => message.clone(),
        other => format!("{other:?}"),
    }
}

async fn push_all(spill: &mut Spill, steps: std::ops::RangeInclusive<u64>) {
    for step in steps {
        spill.push(point(step)).await;
    }
}

async fn drained(spill: &mut Spill) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(said) = spill.pop().await.unwrap() {
        all.push(short(&said));
    }
    all
}

fn steps(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|step| step.to_string()).collect()
}

/// Far beyond memory and one piece of the file.
const MANY: u64 = 40_000;

#[tokio::test]
async fn what_does_not_fit_into_memory_comes_back_from_disk_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut spill = spill(folder.path(), u64::MAX);
    push_all(&mut spill, 1..=MANY).await;
    assert!(spill.has_room());
    assert!(spill.memory.len() <= MAX_IN_MEMORY && spill.unwritten.len() < CHUNK_BYTES);
    assert!(spill.written > 2 * CHUNK_BYTES as u64);
    let end = to_wire::finish(domain::ids::LeaseToken(1), domain::attempt::AttemptEnd::Bug, "");
    spill.push(Said::Finished(end)).await;
    let death = domain::attempt::AttemptEnd::WorkerLost;
    spill.push(Said::Gone { last_token: Some(1), end: death, message: "gone".into() }).await;
    let mut expected = steps(1..=MANY);
    expected.extend(["bug".to_owned(), "gone".to_owned()]);
    assert_eq!(drained(&mut spill).await, expected);
    assert!(spill.is_empty() && spill.file.is_none(), "the file's room is given back");
}

#[tokio::test]
async fn a_file_that_is_full_lets_the_trainer_wait_until_it_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let mut spill = spill(folder.path(), 1 << 20);
    let mut n_steps = 0;
    while spill.has_room() {
        n_steps += 1;
        spill.push(point(n_steps)).await;
    }
    assert!(n_steps > MAX_IN_MEMORY as u64);
    for step in 1..n_steps {
        assert_eq!(short(&spill.pop().await.unwrap().unwrap()), step.to_string());
        if spill.has_spilled() {
            assert!(!spill.has_room(), "the file is taken back as a whole");
        }
    }
    assert!(spill.has_room());
    assert_eq!(drained(&mut spill).await, steps(n_steps..=n_steps));
}

#[tokio::test]
async fn without_a_file_the_trainer_waits_at_the_bound_of_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut spill = spill(folder.path(), 0);
    push_all(&mut spill, 1..=MAX_IN_MEMORY as u64).await;
    assert!(spill.has_room());
    spill.push(point(MAX_IN_MEMORY as u64 + 1)).await;
    assert!(!spill.has_room());
    assert_eq!(drained(&mut spill).await, steps(1..=MAX_IN_MEMORY as u64 + 1));
    assert!(spill.has_room());
}

#[tokio::test]
async fn a_disk_that_cannot_be_written_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), b"no folder").unwrap();
    let mut spill = spill(&folder.path().join("file"), u64::MAX);
    let mut n_steps = 0;
    while spill.has_room() {
        n_steps += 1;
        spill.push(point(n_steps)).await;
    }
    assert_eq!(spill.blocked, Some(Blocked::Unwritable));
    assert_eq!(drained(&mut spill).await, steps(1..=n_steps));
    assert!(spill.has_room(), "and the trainer goes on");
}

#[tokio::test]
async fn a_scratch_folder_that_was_cleared_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut spill = spill(&folder.path().join("cleared"), u64::MAX);
    push_all(&mut spill, 1..=MANY).await;
    assert_eq!(spill.blocked, None);
    assert_eq!(drained(&mut spill).await, steps(1..=MANY));
}

#[tokio::test]
async fn the_file_has_no_name_that_could_outlive_the_agent() {
    let folder = tempfile::tempdir().unwrap();
    let mut spill = spill(folder.path(), u64::MAX);
    push_all(&mut spill, 1..=MANY).await;
    assert!(spill.file.is_some());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_file_that_is_damaged_is_an_error_and_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let mut spill = spill(folder.path(), u64::MAX);
    push_all(&mut spill, 1..=MANY).await;
    spill.file.as_ref().unwrap().set_len(100).unwrap();
    let mut n_read = 0;
    let error = loop {
        match spill.pop().await {
            Ok(Some(_)) => n_read += 1,
            Ok(None) => panic!("the end came without the rest"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(n_read, MAX_IN_MEMORY);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However bursts of words and of room follow each other.
    #[test]
    fn nothing_is_lost_doubled_or_overtaken(
        bursts in prop::collection::vec((0u64..6_000, 0usize..6_000), 1..8),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut spill = spill(folder.path(), u64::MAX);
            let (mut n_said, mut heard) = (0, Vec::new());
            for (n_in, n_out) in bursts {
                push_all(&mut spill, n_said + 1..=n_said + n_in).await;
                n_said += n_in;
                for _ in 0..n_out {
                    heard.extend(spill.pop().await.unwrap().map(|said| short(&said)));
                }
            }
            heard.extend(drained(&mut spill).await);
            assert_eq!(heard, steps(1..=n_said));
        });
    }
}
