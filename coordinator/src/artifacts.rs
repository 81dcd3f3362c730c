//! The one artifact store: sources come in through it, workers prove with it that they see it.
//!
//! Weights never pass through here: trainers write and read them directly. No key comes from a
//! client's string unchecked; keys are made of hashes and identifiers that were parsed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use domain::ids::{ContentHash, RunId, WorkerId};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};

use crate::random::Random;
use crate::store::{Artifact, SupersededCheckpoint};

/// Bytes in one part of an upload: what is held in memory at a time.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// An operation on the artifact store that failed.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The directory cannot be made.
    #[error("could not make the artifact directory `{}`", .path.display())]
    Directory {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error("could not open the artifact store `{}`", .path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// The directory has no `file://` URI.
    #[error("`{}` cannot be written as a `file://` URI", .path.display())]
    Uri {
        /// Its path.
        path: PathBuf,
    },
    /// An object cannot be written.
    #[error("could not write the artifact `{key}`")]
    Write {
        /// Its key.
        key: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// An object cannot be read.
    #[error("could not read the artifact `{key}`")]
    Read {
        /// Its key.
        key: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// An object cannot be removed.
    #[error("could not remove the artifact `{key}`")]
    Remove {
        /// Its key.
        key: String,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// A checkpoint lies where no trainer puts one, and is not touched.
    #[error("`{key}` is not in the folder of a checkpoint of `{run}`; it is left alone")]
    ForeignKey {
        /// The key of its manifest.
        key: String,
        /// The run.
        run: RunId,
    },
    /// The sender broke off.
    #[error("the upload of `{key}` broke off")]
    Upload {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The bytes are not those that were announced; nothing was kept.
    #[error("the bytes sent for `{expected}` have the hash `{found}`")]
    HashMismatch {
        /// As announced.
        expected: ContentHash,
        /// As it is.
        found: ContentHash,
    },
    /// A read-only coordinator keeps nothing.
    #[error("this coordinator is read-only")]
    Closed,
    /// The operating system has no randomness.
    #[error("could not make a nonce")]
    Random(#[source] getrandom::Error),
}

/// The artifact store: a directory, or in a simulation memory.
#[derive(Debug, Clone)]
pub struct Artifacts {
    store: Option<Arc<dyn ObjectStore>>,
    uri: String,
    /// The directory, if it is one.
    directory: Option<PathBuf>,
}

impl Artifacts {
    /// Opens the store below a directory, which is made when it is not there.
    pub fn open(directory: &Path) -> Result<Self, ArtifactError> {
        let made = std::fs::create_dir_all(directory).and_then(|()| directory.canonicalize());
        let path =
            made.map_err(|source| ArtifactError::Directory { path: directory.to_owned(), source })?;
        let uri = url::Url::from_directory_path(&path)
            .map_err(|()| ArtifactError::Uri { path: path.clone() })?;
        // A manifest's row promises that its objects survive the loss of power.
        let store = LocalFileSystem::new_with_prefix(&path)
            .map_err(|source| ArtifactError::Open { path: path.clone(), source })?
            .with_fsync(true);
        Ok(Self { store: Some(Arc::new(store)), uri: uri.into(), directory: Some(path) })
    }

    /// A store in memory, for simulations: all clones are one.
    pub fn in_memory() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    /// The store over these objects, which a simulation has too.
    pub fn over(objects: Arc<dyn ObjectStore>) -> Self {
        Self { store: Some(objects), uri: "memory:///".to_owned(), directory: None }
    }

    /// No store: every call is refused, nothing is made on disk.
    pub fn closed() -> Self {
        Self { store: None, uri: String::new(), directory: None }
    }

    fn store(&self) -> Result<&dyn ObjectStore, ArtifactError> {
        self.store.as_deref().ok_or(ArtifactError::Closed)
    }

    /// What workers are told, such as `file:///…/`.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Keeps a source under its hash. The bytes are hashed as they come; when they are not what
    /// was announced nothing is kept. Repeating it changes nothing.
    pub async fn put_source<S, E>(
        &self,
        hash: &ContentHash,
        bytes: S,
    ) -> Result<Artifact, ArtifactError>
    where
        S: Stream<Item = Result<Bytes, E>>,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let key = format!("sources/{hash}");
        let mut upload = self
            .store()?
            .put_multipart(&Key::from(key.as_str()))
            .await
            .map_err(|source| ArtifactError::Write { key: key.clone(), source })?;
        match receive(upload.as_mut(), &key, hash, bytes).await {
            Ok(n_bytes) => Ok(Artifact { key, hash: hash.clone(), n_bytes }),
            Err(error) => {
                if let Err(source) = upload.abort().await {
                    tracing::warn!(artifact.key = key, error = %source, "could not clean up");
                }
                Err(error)
            }
        }
    }

    /// Writes a nonce for a worker, unless it has one, and returns its key. A worker that registers
    /// again while its first answer is still on its way shows what the first one told it.
    pub async fn ensure_nonce(
        &self,
        worker: &WorkerId,
        random: &Random,
    ) -> Result<String, ArtifactError> {
        let key = nonce_key(worker);
        let nonce = random.bytes().map_err(ArtifactError::Random)?;
        let payload = PutPayload::from(nonce.to_vec());
        match self
            .store()?
            .put_opts(&Key::from(key.as_str()), payload, PutMode::Create.into())
            .await
        {
            Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(key),
            Err(source) => Err(ArtifactError::Write { key, source }),
        }
    }

    /// A worker has left or is lost: its nonce is of no use any more. One that cannot be removed stays,
    /// and harms nobody.
    pub async fn forget(&self, worker: &WorkerId) {
        if let Err(error) = self.remove(&Key::from(nonce_key(worker))).await {
            let error: &dyn Error = &error;
            tracing::warn!(error, worker.id = %worker, "the nonce of a worker that is gone stays");
        }
    }

    /// Removes the files of a checkpoint, its manifest first: half a checkpoint is then none. May be
    /// repeated.
    pub async fn remove_checkpoint(
        &self,
        checkpoint: &SupersededCheckpoint,
    ) -> Result<(), ArtifactError> {
        let folder = folder_of(checkpoint).ok_or_else(|| ArtifactError::ForeignKey {
            key: checkpoint.manifest_key.clone(),
            run: checkpoint.run.clone(),
        })?;
        self.remove(&Key::from(checkpoint.manifest_key.as_str())).await?;
        let read_error = |source| ArtifactError::Read { key: folder.to_owned(), source };
        let prefix = Key::from(folder);
        let files: Vec<_> =
            self.store()?.list(Some(&prefix)).try_collect().await.map_err(read_error)?;
        for file in files {
            self.remove(&file.location).await?;
        }
        if let Some(directory) = &self.directory {
            // Not there, or not empty: neither matters, it is for tidiness.
            if let Err(error) = tokio::fs::remove_dir(directory.join(folder)).await {
                tracing::debug!(error = %error, folder, "the folder of a checkpoint stays");
            }
        }
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), ArtifactError> {
        match self.store()?.delete(key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(ArtifactError::Remove { key: key.to_string(), source }),
        }
    }

    /// A worker's nonce object, as the worker reads it; none when there is none. It stays until the
    /// worker is gone, so that a confirmation may be repeated.
    pub async fn nonce(&self, worker: &WorkerId) -> Result<Option<Bytes>, ArtifactError> {
        let key = nonce_key(worker);
        let read_error = |source| ArtifactError::Read { key: key.clone(), source };
        let object = match self.store()?.get(&Key::from(key.as_str())).await {
            Ok(object) => object,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => return Err(read_error(source)),
        };
        object.bytes().await.map_err(read_error).map(Some)
    }
}

fn nonce_key(worker: &WorkerId) -> String {
    format!("nonces/{worker}")
}

/// The folder of a checkpoint, `runs/RUN/ATTEMPT-TOKEN/STEP`, by the key of its manifest, which came
/// from a worker: none if it is any other.
fn folder_of(checkpoint: &SupersededCheckpoint) -> Option<&str> {
    let (folder, _) = checkpoint.manifest_key.rsplit_once('/')?;
    let parts: Vec<&str> = folder.split('/').collect();
    let ["runs", run, attempt, step] = parts[..] else { return None };
    let (number, token) = attempt.split_once('-').unwrap_or((attempt, "0"));
    let is_own = run == checkpoint.run.as_str()
        && number == checkpoint.attempt.to_string()
        && token.parse::<u64>().is_ok()
        && step == checkpoint.step.to_string();
    is_own.then_some(folder)
}

/// Takes a stream into an upload, part by part, and completes it when the hash is right.
async fn receive<S, E>(
    upload: &mut dyn MultipartUpload,
    key: &str,
    expected: &ContentHash,
    bytes: S,
) -> Result<u64, ArtifactError>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let write_error = |source| ArtifactError::Write { key: key.to_owned(), source };
    let mut bytes = std::pin::pin!(bytes);
    let mut hasher = blake3::Hasher::new();
    let mut n_bytes = 0;
    let mut part = BytesMut::new();
    while let Some(chunk) = bytes.next().await {
        let chunk = chunk.map_err(|source| ArtifactError::Upload {
            key: key.to_owned(),
            source: source.into(),
        })?;
        hasher.update(&chunk);
        n_bytes += chunk.len() as u64;
        part.extend_from_slice(&chunk);
        if part.len() >= PART_BYTES {
            let full = part.split().freeze();
            upload.put_part(PutPayload::from(full)).await.map_err(write_error)?;
        }
    }
    let found = ContentHash::from(hasher.finalize());
    if found != *expected {
        return Err(ArtifactError::HashMismatch { expected: expected.clone(), found });
    }
    // An empty file is an object too, so the last part may be empty.
    upload.put_part(PutPayload::from(part.freeze())).await.map_err(write_error)?;
    upload.complete().await.map_err(write_error)?;
    Ok(n_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(chunks: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
        let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk))).collect();
        futures::stream::iter(chunks)
    }

    #[tokio::test]
    async fn a_source_is_kept_under_its_hash() {
        let directory = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(directory.path()).unwrap();
        let hash = ContentHash::of(b"to be or not");
        let artifact = artifacts.put_source(&hash, stream(&[b"to be ", b"or not"])).await.unwrap();
        assert_eq!(artifact.n_bytes, 12);
        let kept = std::fs::read(directory.path().join(&artifact.key)).unwrap();
        assert_eq!(kept, b"to be or not");
    }

    #[tokio::test]
    async fn an_empty_source_is_kept_too() {
        let directory = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(directory.path()).unwrap();
        let artifact = artifacts.put_source(&ContentHash::of(b""), stream(&[])).await.unwrap();
        assert!(directory.path().join(&artifact.key).exists());
    }

    #[tokio::test]
    async fn bytes_that_are_not_what_was_announced_leave_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(directory.path()).unwrap();
        let hash = ContentHash::of(b"expected");
        let error = artifacts.put_source(&hash, stream(&[b"other"])).await.unwrap_err();
        assert!(matches!(error, ArtifactError::HashMismatch { .. }), "{error}");
        assert!(!directory.path().join(format!("sources/{hash}")).exists());
    }

    #[tokio::test]
    async fn a_worker_reads_its_nonce_as_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(directory.path()).unwrap();
        let worker: WorkerId = "w_1".parse().unwrap();
        assert_eq!(artifacts.nonce(&worker).await.unwrap(), None);
        let key = artifacts.ensure_nonce(&worker, &Random::system()).await.unwrap();
        let nonce = std::fs::read(directory.path().join(key)).unwrap();
        assert_eq!(artifacts.nonce(&worker).await.unwrap().unwrap(), nonce);
    }

    fn superseded(manifest_key: &str) -> SupersededCheckpoint {
        let run = "r_1".parse().unwrap();
        SupersededCheckpoint { run, attempt: 2, step: 40, manifest_key: manifest_key.to_owned() }
    }

    #[tokio::test]
    async fn the_files_of_a_checkpoint_are_removed_and_no_others() {
        let directory = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(directory.path()).unwrap();
        let files = [
            "runs/r_1/2-17/40/manifest.json",
            "runs/r_1/2-17/40/model.safetensors",
            "runs/r_1/2-17/400/manifest.json",
            "runs/r_1/2-17/4/manifest.json",
        ];
        for file in files {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "weights").unwrap();
        }
        for _ in 0..2 {
            artifacts.remove_checkpoint(&superseded(files[0])).await.unwrap();
        }
        let are_there = files.map(|file| directory.path().join(file).exists());
        assert_eq!(are_there, [false, false, true, true]);
        assert!(!directory.path().join("runs/r_1/2-17/40").exists());
    }

    #[tokio::test]
    async fn what_is_no_checkpoint_of_the_run_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(directory.path()).unwrap();
        std::fs::create_dir_all(directory.path().join("sources")).unwrap();
        std::fs::write(directory.path().join("sources/text"), "to be").unwrap();
        let keys = [
            "sources/text",
            "runs/r_1/2-17/40/../../../../sources/text",
            "runs/r_2/2-17/40/manifest.json",
            "runs/r_1/1-17/40/manifest.json",
            "runs/r_1/2-x/40/manifest.json",
            "runs/r_1/2-17/41/manifest.json",
            "manifest.json",
        ];
        for key in keys {
            let error = artifacts.remove_checkpoint(&superseded(key)).await.unwrap_err();
            assert!(matches!(error, ArtifactError::ForeignKey { .. }), "{key}: {error}");
        }
        assert!(directory.path().join("sources/text").exists());
    }

    #[tokio::test]
    async fn the_nonce_of_a_worker_that_left_is_gone() {
        let artifacts = Artifacts::in_memory();
        let worker: WorkerId = "w_1".parse().unwrap();
        artifacts.ensure_nonce(&worker, &Random::seeded(1)).await.unwrap();
        for _ in 0..2 {
            artifacts.forget(&worker).await;
        }
        assert_eq!(artifacts.nonce(&worker).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_worker_that_registers_twice_may_show_what_it_was_told_first() {
        let artifacts = Artifacts::in_memory();
        let worker: WorkerId = "w_1".parse().unwrap();
        artifacts.ensure_nonce(&worker, &Random::seeded(1)).await.unwrap();
        let first = artifacts.nonce(&worker).await.unwrap().unwrap();
        artifacts.ensure_nonce(&worker, &Random::seeded(2)).await.unwrap();
        assert_eq!(artifacts.nonce(&worker).await.unwrap().unwrap(), first);
    }
}
