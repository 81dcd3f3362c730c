//! A disk so small that a test can fill it: a tmpfs of its own.
//!
//! Mounting one is root's; where it is not permitted, the tests are skipped visibly.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// How much is written at a time while the disk is filled.
const CHUNK_BYTES: usize = 4096;

/// A mounted disk. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts a disk of so many bytes; none, said on standard error, where that is not permitted.
    ///
    /// # Panics
    /// If there is no temporary folder.
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    pub fn mount(n_bytes: u64) -> Option<Self> {
        let folder =
            tempfile::Builder::new().prefix("gradus-disk-").tempdir().expect("a temporary folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={n_bytes}"), "tmpfs"])
            .arg(folder.path())
            .output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Some(Self { folder }),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("SKIPPED: no small disk can be mounted here: {why}");
        None
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills it to the last byte.
    ///
    /// # Panics
    /// If something else than its end stops the writing.
    pub fn fill(&self) {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .expect("a file on the small disk");
        loop {
            match ballast.write(&[0; CHUNK_BYTES]) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::StorageFull => return,
                Err(error) => panic!("could not fill the small disk: {error}"),
            }
        }
    }

    /// Makes room again.
    ///
    /// # Panics
    /// If it was not filled.
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("the ballast of a filled disk");
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have a file open.
        Command::new("umount").arg("-l").arg(self.folder.path()).status().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_there_is_room() {
        let Some(disk) = SmallDisk::mount(1 << 20) else { return };
        let file = disk.path().join("file");
        std::fs::write(&file, "before").unwrap();
        disk.fill();
        let error = std::fs::write(disk.path().join("other"), [1; 10_000]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        disk.make_room();
        std::fs::write(disk.path().join("other"), [1; 10_000]).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"before");
    }
}
