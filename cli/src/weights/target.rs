//! The folder that a conversion makes: filled beside its place, moved there as a whole.
//!
//! It does not know what is in it.

use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::WeightsError;

/// A folder in the making. Dropped before it is published, it is deleted.
#[derive(Debug)]
pub(super) struct Target {
    partial: TempDir,
    out: PathBuf,
}

/// Refuses a place that is taken. An empty folder is free.
pub(super) fn check(out: &Path) -> Result<(), WeightsError> {
    let path = || out.to_owned();
    if out.file_name().is_none() {
        return Err(WeightsError::OutName { path: path() });
    }
    let read = |source| WeightsError::Read { path: path(), source };
    match out.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(read(error)),
        Ok(found) if !found.is_dir() => return Err(WeightsError::OutTaken { path: path() }),
        Ok(_) => {}
    }
    let mut entries = std::fs::read_dir(out).map_err(read)?;
    if entries.next().is_some() {
        return Err(WeightsError::OutTaken { path: path() });
    }
    Ok(())
}

impl Target {
    /// An empty folder on the same disk as `out`.
    pub(super) fn beside(out: &Path) -> Result<Self, WeightsError> {
        check(out)?;
        let parent = parent(out);
        let failed = |source| WeightsError::Write { path: out.to_owned(), source };
        std::fs::create_dir_all(parent).map_err(failed)?;
        let name = out.file_name().unwrap_or_default().to_string_lossy();
        let partial = tempfile::Builder::new()
            .prefix(&format!(".{name}.partial-"))
            // As any other folder, by the user's umask.
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .map_err(failed)?;
        Ok(Self { partial, out: out.to_owned() })
    }

    /// Where it lies for now.
    pub(super) fn path(&self) -> &Path {
        self.partial.path()
    }

    /// Writes a small file.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<(), WeightsError> {
        let path = self.path().join(name);
        File::create_new(&path)
            .and_then(|mut file| file.write_all(content).and_then(|()| file.sync_all()))
            .map_err(|source| WeightsError::Write { path, source })
    }

    /// Moves the folder to its place.
    pub(super) fn publish(self) -> Result<(), WeightsError> {
        let Self { partial, out } = self;
        let sync = |folder: &Path| File::open(folder).and_then(|folder| folder.sync_all());
        sync(partial.path())
            // A folder moves onto an empty one only: whatever came meanwhile is not overwritten.
            .and_then(|()| std::fs::rename(partial.path(), &out))
            .and_then(|()| sync(parent(&out)))
            .map_err(|source| WeightsError::Write { path: out, source })?;
        // It is not there any more, so there is nothing to delete.
        drop(partial.keep());
        Ok(())
    }
}

fn parent(out: &Path) -> &Path {
    match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
