//! Reads are checked, writes are found again, a damaged cache is repaired.

use super::manifest::{CheckpointContent, Content, DataContent, ManifestFile};
use super::*;

fn artifacts(directory: &Path) -> Artifacts {
    fs::create_dir_all(directory.join("store")).unwrap();
    let uri = format!("file://{}", directory.join("store").display());
    Artifacts::open(&uri, &directory.join("scratch")).unwrap()
}

fn manifest() -> Manifest {
    let content = CheckpointContent { step: 7, config_hash: "abc".into() };
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
