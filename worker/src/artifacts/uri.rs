//! From the artifact store's URI, as the coordinator hands it out, to the store itself.
//!
//! It reads and writes no artifact.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use url::Url;

/// Why a URI leads to no artifact store.
#[derive(Debug, thiserror::Error)]
pub enum UriError {
    /// It is no URI.
    #[error("the artifact store's URI `{uri}` is not valid")]
    Parse {
        /// The text as given.
        uri: String,
        /// What is wrong with it.
        #[source]
        source: url::ParseError,
    },
    /// This build has no store of this kind.
    #[error("this build reads no artifact store of the kind `{scheme}:`; it knows `file:`")]
    Scheme {
        /// The URI's scheme.
        scheme: String,
    },
    /// A `file:` URI names no folder of this machine.
    #[error("the artifact store's URI `{uri}` names no local folder")]
    NotLocal {
        /// The text as given.
        uri: String,
    },
    /// The folder cannot be opened.
    #[error("the artifact store's folder `{path}` cannot be opened", path = path.display())]
    Open {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: object_store::Error,
    },
}

/// Opens the store behind a URI such as `file:///srv/gradus/artifacts`. The folder must exist: a
/// worker that would make it is one that cannot see the real one.
pub fn open(uri: &str) -> Result<Arc<dyn ObjectStore>, UriError> {
    let parsed =
        Url::parse(uri).map_err(|source| UriError::Parse { uri: uri.to_owned(), source })?;
    if parsed.scheme() != "file" {
        return Err(UriError::Scheme { scheme: parsed.scheme().to_owned() });
    }
    let path = parsed.to_file_path().map_err(|()| UriError::NotLocal { uri: uri.to_owned() })?;
    let store = LocalFileSystem::new_with_prefix(&path)
        .map_err(|source| UriError::Open { path, source })?
        // A row may name an object only when the object survives a power cut.
        .with_fsync(true);
    Ok(Arc::new(store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_with_a_space_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let spaced = folder.path().join("a b");
        std::fs::create_dir(&spaced).unwrap();
        assert!(open(Url::from_file_path(&spaced).unwrap().as_str()).is_ok());
        assert!(open(&format!("file://{}", spaced.display())).is_ok());
    }

    #[test]
    fn a_missing_folder_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        let error = open(Url::from_file_path(&missing).unwrap().as_str()).unwrap_err();
        assert!(matches!(error, UriError::Open { .. }), "{error}");
        assert!(!missing.exists());
    }

    #[test]
    fn an_unknown_kind_of_store_is_named() {
        let error = open("s3://bucket/x").unwrap_err();
        assert!(error.to_string().contains("`s3:`"), "{error}");
    }
}
