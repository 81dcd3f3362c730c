//! Objects of the one artifact store as the trainer sees them: hash-checked reads, cached by hash,
//! and durable writes.
//!
//! It does not know what an object means (`manifest` says how objects belong together) and never
//! chooses a key from what a client sent.

mod error;
pub mod manifest;
mod patience;
pub mod uri;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use domain::ids::ContentHash;
use futures::StreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use proto::v1::ArtifactRef;

pub use error::ArtifactError;
use manifest::Manifest;
pub use patience::Patience;
use patience::patiently;

/// The artifact store for the synchronous trainer, with a cache in the scratch directory.
#[derive(Debug)]
pub struct Artifacts {
    store: Arc<dyn ObjectStore>,
    runtime: tokio::runtime::Runtime,
    cache: PathBuf,
    patience: Patience,
    /// Cached files whose hash this process has already seen to be right.
    verified: Mutex<HashSet<String>>,
}

impl Artifacts {
    /// Opens the store at `uri`, caching below `scratch`.
    pub fn open(uri: &str, scratch: &Path) -> Result<Self, ArtifactError> {
        let cache = scratch.join("cache");
        fs::create_dir_all(&cache)
            .map_err(|source| ArtifactError::Cache { path: cache.clone(), source })?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|source| ArtifactError::Runtime { source })?;
        let patience = Patience::default();
        Ok(Self { store: uri::open(uri)?, runtime, cache, patience, verified: Mutex::default() })
    }

    /// The same, waiting for so long while something cannot be reached.
    #[must_use]
    pub fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Writes an object; when this returns, it is durable. While the disk is full, or the store
    /// away, it waits.
    pub fn put(&self, key: &str, content: Vec<u8>) -> Result<ArtifactRef, ArtifactError> {
        let reference = reference_to(key, &content);
        self.put_with(key, &content.into(), &PutMode::Overwrite)?;
        Ok(reference)
    }

    /// Writes a manifest, after the objects that it lists.
    ///
    /// Only one attempt ever writes under a key, so that a manifest that is already there is a
    /// repetition. Another one is somebody's and stays: an error.
    pub fn put_manifest(
        &self,
        key: &str,
        manifest: &Manifest,
    ) -> Result<ArtifactRef, ArtifactError> {
        let content = Bytes::from(manifest.to_json());
        let reference = reference_to(key, &content);
        match self.put_with(key, &content, &PutMode::Create) {
            Err(ArtifactError::Put {
                source: object_store::Error::AlreadyExists { .. }, ..
            }) => {
                if patiently(&self.runtime, key, self.patience.read, || self.get(key))? != content {
                    return Err(ArtifactError::OtherManifest { key: key.to_owned() });
                }
            }
            other => other?,
        }
        Ok(reference)
    }

    /// The whole object, checked against size and hash.
    pub fn read(&self, reference: &ArtifactRef) -> Result<Bytes, ArtifactError> {
        patiently(&self.runtime, &reference.key, self.patience.read, || {
            let content = self.get(&reference.key)?;
            check_size(reference, content.len() as u64)?;
            check_hash(reference, &blake3::hash(&content))?;
            Ok(content)
        })
    }

    /// A manifest, checked against size and hash.
    pub fn manifest(&self, reference: &ArtifactRef) -> Result<Manifest, ArtifactError> {
        Manifest::from_json(&reference.key, &self.read(reference)?)
    }

    /// A local file with the object's content, checked against size and hash.
    ///
    /// A file that is in the cache is hashed once in each process. While the disk is full, or
    /// something cannot be reached, it waits.
    pub fn fetch(&self, reference: &ArtifactRef) -> Result<PathBuf, ArtifactError> {
        // The hash becomes a file name, so it must be one and nothing else.
        let hash: ContentHash = reference
            .hash
            .parse()
            .map_err(|_| ArtifactError::NoHash { key: reference.key.clone() })?;
        let path = self.cache.join(hash.as_str());
        if !self.is_cached(&path, reference) {
            let download = || self.download(&path, reference);
            patiently(&self.runtime, &reference.key, self.patience.read, download)?;
        }
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.insert(reference.hash.clone());
        Ok(path)
    }

    /// Whether the file is there and right. One that cannot be read is fetched again.
    fn is_cached(&self, path: &Path, reference: &ArtifactRef) -> bool {
        if fs::metadata(path).is_ok_and(|found| found.len() == reference.n_bytes) {
            let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
            verified.contains(&reference.hash) || has_hash(path, reference)
        } else {
            false
        }
    }

    /// Streams the object into the cache and renames it into place once its hash is right.
    fn download(&self, path: &Path, reference: &ArtifactRef) -> Result<(), ArtifactError> {
        // Trainers of other slots share the cache.
        let partial = path.with_extension(format!("{}.part", std::process::id()));
        let result = self.download_to(&partial, reference).and_then(|()| {
            fs::rename(&partial, path)
                .map_err(|source| ArtifactError::Cache { path: path.to_owned(), source })
        });
        if result.is_err() {
            // A leftover is harmless, and the first error is the one to tell.
            drop(fs::remove_file(&partial));
        }
        result
    }

    fn download_to(&self, partial: &Path, reference: &ArtifactRef) -> Result<(), ArtifactError> {
        let cache_error = |source| ArtifactError::Cache { path: partial.to_owned(), source };
        let get_error = |source| ArtifactError::Get { key: reference.key.clone(), source };
        let location = location(&reference.key)?;
        // Who clears temporary files clears the folder too.
        fs::create_dir_all(&self.cache).map_err(cache_error)?;
        let mut file = File::create(partial).map_err(cache_error)?;
        let mut hasher = blake3::Hasher::new();
        let mut n_bytes = 0;
        self.runtime.block_on(async {
            let mut chunks = self.store.get(&location).await.map_err(get_error)?.into_stream();
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(get_error)?;
                n_bytes += chunk.len() as u64;
                hasher.update(&chunk);
                file.write_all(&chunk).map_err(cache_error)?;
            }
            Ok::<(), ArtifactError>(())
        })?;
        check_size(reference, n_bytes)?;
        check_hash(reference, &hasher.finalize())
    }

    fn get(&self, key: &str) -> Result<Bytes, ArtifactError> {
        let location = location(key)?;
        let content =
            self.runtime.block_on(async { self.store.get(&location).await?.bytes().await });
        content.map_err(|source| ArtifactError::Get { key: key.to_owned(), source })
    }

    fn put_with(&self, key: &str, content: &Bytes, mode: &PutMode) -> Result<(), ArtifactError> {
        let location = location(key)?;
        patiently(&self.runtime, key, self.patience.write, || {
            let options = PutOptions { mode: mode.clone(), ..PutOptions::default() };
            let put = self.store.put_opts(&location, PutPayload::from(content.clone()), options);
            self.runtime
                .block_on(put)
                .map(|_| ())
                .map_err(|source| ArtifactError::Put { key: key.to_owned(), source })
        })
    }
}

/// The reference to some content under a key.
pub fn reference_to(key: &str, content: &[u8]) -> ArtifactRef {
    let hash = blake3::hash(content).to_hex().to_string();
    ArtifactRef { key: key.to_owned(), hash, n_bytes: content.len() as u64 }
}

fn location(key: &str) -> Result<ObjectPath, ArtifactError> {
    ObjectPath::parse(key).map_err(|source| ArtifactError::BadKey { key: key.to_owned(), source })
}

fn has_hash(path: &Path, reference: &ArtifactRef) -> bool {
    let mut hasher = blake3::Hasher::new();
    let hashed = File::open(path).and_then(|file| hasher.update_reader(file).map(|_| ()));
    hashed.is_ok() && check_hash(reference, &hasher.finalize()).is_ok()
}

fn check_size(reference: &ArtifactRef, n_bytes: u64) -> Result<(), ArtifactError> {
    if n_bytes == reference.n_bytes {
        return Ok(());
    }
    Err(ArtifactError::WrongSize {
        key: reference.key.clone(),
        expected: reference.n_bytes,
        found: n_bytes,
    })
}

fn check_hash(reference: &ArtifactRef, found: &blake3::Hash) -> Result<(), ArtifactError> {
    let found = found.to_hex();
    if found.as_str() == reference.hash {
        return Ok(());
    }
    Err(ArtifactError::WrongHash {
        key: reference.key.clone(),
        expected: reference.hash.clone(),
        found: found.to_string(),
    })
}

#[cfg(test)]
mod tests;
