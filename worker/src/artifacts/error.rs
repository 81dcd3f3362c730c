//! Why an object of the artifact store could not be read or written.
//!
//! What follows for the attempt is decided by the recipe that needed it.

use std::path::PathBuf;

/// An operation on the artifact store failed.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// The URI leads to no store.
    #[error(transparent)]
    Uri(#[from] super::uri::UriError),
    /// No runtime for the store's calls.
    #[error("could not start the runtime of the artifact store")]
    Runtime {
        /// What the system said.
        source: std::io::Error,
    },
    /// The key is not one.
    #[error("`{key}` is no key of an artifact")]
    BadKey {
        /// The key.
        key: String,
        /// What is wrong with it.
        source: object_store::path::Error,
    },
    /// The hash in a reference is none.
    #[error("the reference to `{key}` has no valid hash")]
    NoHash {
        /// The object's key.
        key: String,
    },
    /// An object could not be read.
    #[error("could not read `{key}` from the artifact store")]
    Get {
        /// The object's key.
        key: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// An object could not be written.
    #[error("could not write `{key}` to the artifact store")]
    Put {
        /// The object's key.
        key: String,
        /// What the store said.
        source: object_store::Error,
    },
    /// An object is longer or shorter than its reference says.
    #[error("`{key}` has {found} bytes instead of {expected}")]
    WrongSize {
        /// The object's key.
        key: String,
        /// The size in the reference.
        expected: u64,
        /// The size found.
        found: u64,
    },
    /// An object is not what its hash says.
    #[error("`{key}` has the hash {found} instead of {expected}")]
    WrongHash {
        /// The object's key.
        key: String,
        /// The hash in the reference.
        expected: String,
        /// The hash found.
        found: String,
    },
    /// The local cache could not be used.
    #[error("could not use the cached file `{}`", path.display())]
    Cache {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A manifest is not of this build's form.
    #[error("`{key}` is no manifest of version {version}", version = super::manifest::VERSION)]
    Manifest {
        /// The manifest's key.
        key: String,
        /// Where it departs from the form.
        source: serde_json::Error,
    },
    /// A manifest is of another version.
    #[error(
        "the manifest `{key}` has version {found}; this build reads version {}",
        super::manifest::VERSION
    )]
    ManifestVersion {
        /// The manifest's key.
        key: String,
        /// Its version.
        found: u32,
    },
    /// There is another manifest under the key.
    #[error("there is another manifest under `{key}`, which is not overwritten")]
    OtherManifest {
        /// The manifest's key.
        key: String,
    },
    /// A manifest lists no file of this name.
    #[error("the manifest lacks the file `{name}`")]
    NoFile {
        /// The file's name.
        name: String,
    },
    /// The manifest describes something else than what was asked for.
    #[error("the manifest `{key}` is not of kind `{expected}`")]
    WrongKind {
        /// The manifest's key.
        key: String,
        /// The kind that is needed.
        expected: &'static str,
    },
}

impl ArtifactError {
    /// Whether an object is not what it should be, wherever it is read. Otherwise it could not be
    /// reached from here, and says nothing about the object.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::BadKey { .. }
            | Self::NoHash { .. }
            | Self::WrongSize { .. }
            | Self::WrongHash { .. }
            | Self::Manifest { .. }
            | Self::ManifestVersion { .. }
            | Self::OtherManifest { .. }
            | Self::NoFile { .. }
            | Self::WrongKind { .. } => true,
            Self::Uri(_)
            | Self::Runtime { .. }
            | Self::Get { .. }
            | Self::Put { .. }
            | Self::Cache { .. } => false,
        }
    }

    /// Whether the store says that there is no such object. Where others can be read that is
    /// damage; a folder that is not mounted says it of everything.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Get { source: object_store::Error::NotFound { .. }, .. })
    }
}
