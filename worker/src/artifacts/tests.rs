//! Reads are checked, writes are found again, a damaged cache is repaired.

use std::time::Duration;

use super::manifest::{CheckpointContent, Content, DataContent, ManifestFile};
use super::*;

fn artifacts(directory: &Path) -> Artifacts {
    fs::create_dir_all(directory.join("store")).unwrap();
    let uri = format!("file://{}", directory.join("store").display());
    let shortly = Duration::from_millis(300);
    let artifacts = Artifacts::open(&uri, &directory.join("scratch")).unwrap();
    artifacts.with_patience(Patience { read: shortly, write: shortly })
}

fn manifest() -> Manifest {
    let content = CheckpointContent { step: 7, config_hash: "abc".into(), trunk_hash: None };
    let file = ManifestFile::new("model.safetensors", reference_to("a/b", b"weights"));
    Manifest::new(Content::Checkpoint(content), vec![file])
}

#[test]
fn what_is_put_is_read_and_fetched() {
    let directory = tempfile::tempdir().unwrap();
    let artifacts = artifacts(directory.path());
    let reference = artifacts.put("runs/r_1/1/7/x", b"content".to_vec()).unwrap();
    assert_eq!(reference.n_bytes, 7);
    assert_eq!(&artifacts.read(&reference).unwrap()[..], b"content");
    let path = artifacts.fetch(&reference).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"content");
    // The cache serves it without the store.
    fs::remove_dir_all(directory.path().join("store")).unwrap();
    assert_eq!(artifacts.fetch(&reference).unwrap(), path);
}

#[test]
fn a_truncated_and_a_flipped_object_are_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let artifacts = artifacts(directory.path());
    let reference = artifacts.put("x", b"content".to_vec()).unwrap();
    fs::write(directory.path().join("store/x"), b"conten").unwrap();
    let truncated = artifacts.read(&reference).unwrap_err();
    assert_eq!(truncated.to_string(), "`x` has 6 bytes instead of 7");
    fs::write(directory.path().join("store/x"), b"Content").unwrap();
    assert!(matches!(artifacts.read(&reference), Err(ArtifactError::WrongHash { .. })));
    assert!(matches!(artifacts.fetch(&reference), Err(ArtifactError::WrongHash { .. })));
    assert_eq!(fs::read_dir(directory.path().join("scratch/cache")).unwrap().count(), 0);
}

#[test]
fn a_damaged_cached_file_is_fetched_again() {
    let directory = tempfile::tempdir().unwrap();
    let first = artifacts(directory.path());
    let reference = first.put("x", b"content".to_vec()).unwrap();
    let path = first.fetch(&reference).unwrap();
    fs::write(&path, b"Content").unwrap();
    let next_process = artifacts(directory.path());
    assert_eq!(fs::read(next_process.fetch(&reference).unwrap()).unwrap(), b"content");
}

#[test]
fn a_scratch_folder_that_was_cleared_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let artifacts = artifacts(directory.path());
    let reference = artifacts.put("x", b"content".to_vec()).unwrap();
    artifacts.fetch(&reference).unwrap();
    fs::remove_dir_all(directory.path().join("scratch")).unwrap();
    assert_eq!(fs::read(artifacts.fetch(&reference).unwrap()).unwrap(), b"content");
}

/// Aim: what cannot be reached is told from what is damaged. Method: a file where a folder must be,
/// for the store and for the cache; a missing object; a flipped one.
#[test]
fn what_cannot_be_reached_is_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let artifacts = artifacts(directory.path());
    let reference = artifacts.put("runs/x", b"content".to_vec()).unwrap();
    let missing = reference_to("runs/y", b"content");
    let error = artifacts.read(&missing).unwrap_err();
    assert!(error.is_missing() && !error.is_damage(), "{error}");
    fs::write(directory.path().join("store/runs/x"), b"Content").unwrap();
    assert!(artifacts.read(&reference).unwrap_err().is_damage());

    let runs = directory.path().join("store/runs");
    fs::remove_dir_all(&runs).unwrap();
    fs::write(&runs, b"no folder").unwrap();
    let away = artifacts.put("runs/z", b"content".to_vec()).unwrap_err();
    assert!(!away.is_damage() && !away.is_missing(), "{away}");
    fs::remove_file(&runs).unwrap();
    artifacts.put("runs/x", b"content".to_vec()).unwrap();

    let scratch = directory.path().join("scratch");
    fs::remove_dir_all(&scratch).unwrap();
    fs::write(&scratch, b"no folder").unwrap();
    let error = artifacts.fetch(&reference).unwrap_err();
    assert!(matches!(error, ArtifactError::Cache { .. }) && !error.is_damage(), "{error}");
}

/// Aim: a store that is away for a moment ends no attempt. Method: another thread brings it back.
#[test]
fn a_store_that_comes_back_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let minute = Duration::from_mins(1);
    let artifacts =
        artifacts(directory.path()).with_patience(Patience { read: minute, write: minute });
    let (store, away) = (directory.path().join("store"), directory.path().join("away"));
    let reference = artifacts.put("runs/x", b"content".to_vec()).unwrap();
    fs::rename(&store, &away).unwrap();
    fs::write(&store, b"no folder").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| artifacts.read(&reference));
        std::thread::park_timeout(Duration::from_millis(100));
        fs::remove_file(&store).unwrap();
        fs::rename(&away, &store).unwrap();
        assert_eq!(&waiting.join().unwrap().unwrap()[..], b"content");
    });
}

#[test]
fn a_manifest_that_differs_is_an_error_and_stays() {
    let directory = tempfile::tempdir().unwrap();
    let artifacts = artifacts(directory.path());
    let first = artifacts.put_manifest("m", &manifest()).unwrap();
    let other = Manifest::new(manifest().content, vec![]);
    let error = artifacts.put_manifest("m", &other).unwrap_err();
    assert!(matches!(error, ArtifactError::OtherManifest { .. }), "{error}");
    assert_eq!(artifacts.manifest(&first).unwrap(), manifest());
}

#[test]
fn a_hash_that_would_leave_the_cache_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let reference = ArtifactRef { key: "x".into(), hash: "../x".into(), n_bytes: 0 };
    let error = artifacts(directory.path()).fetch(&reference).unwrap_err();
    assert!(matches!(error, ArtifactError::NoHash { .. }));
}

#[test]
fn a_manifest_may_be_written_twice_and_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let artifacts = artifacts(directory.path());
    let first = artifacts.put_manifest("m", &manifest()).unwrap();
    assert_eq!(artifacts.put_manifest("m", &manifest()).unwrap(), first);
    let read = artifacts.manifest(&first).unwrap();
    assert_eq!(read, manifest());
    assert_eq!(read.file("model.safetensors").unwrap().key, "a/b");
    assert_eq!(read.file("x").unwrap_err().to_string(), "the manifest lacks the file `x`");
    assert!(read.data("m").is_err());
}

#[test]
fn a_manifest_has_the_documented_form() {
    let content = DataContent {
        preparation_hash: "abc".into(),
        n_training_tokens: 5,
        n_validation_tokens: 6,
        vocab_size: 257,
    };
    let manifest = Manifest::new(Content::Data(content), vec![]);
    let value: serde_json::Value = serde_json::from_slice(&manifest.to_json()).unwrap();
    let expected = serde_json::json!({
        "kind": "data", "version": 1, "files": [], "preparation_hash": "abc",
        "n_training_tokens": 5, "n_validation_tokens": 6, "vocab_size": 257,
    });
    assert_eq!(value, expected);
}

#[test]
fn a_manifest_of_another_version_is_refused_with_both_versions() {
    let error = Manifest::from_json("m", br#"{"version": 2, "anything": 1}"#).unwrap_err();
    assert_eq!(error.to_string(), "the manifest `m` has version 2; this build reads version 1");
}
