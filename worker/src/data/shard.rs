//! A file of token ids, 16 bits little endian each, read by position.
//!
//! It does not know what the tokens mean, and its hash was checked when it was fetched.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::DataError;

const TOKEN_BYTES: u64 = 2;

/// An open shard.
#[derive(Debug)]
pub struct Shard {
    file: File,
    path: PathBuf,
    n_tokens: u64,
}

impl Shard {
    /// Opens a shard.
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let read_error = |source| DataError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read_error)?;
        let n_bytes = file.metadata().map_err(read_error)?.len();
        if n_bytes % TOKEN_BYTES != 0 {
            return Err(DataError::OddShard { path: path.to_owned(), n_bytes });
        }
        Ok(Self { file, path: path.to_owned(), n_tokens: n_bytes / TOKEN_BYTES })
    }

    /// How many tokens it holds.
    pub fn n_tokens(&self) -> u64 {
        self.n_tokens
    }

    /// How many sequences with their last targets it holds, at stride `sequence_length`: window w is
    /// the `sequence_length` + 1 tokens from w · `sequence_length` on.
    pub fn n_windows(&self, sequence_length: u32) -> u64 {
        self.n_tokens.saturating_sub(1) / u64::from(sequence_length.max(1))
    }

    /// Appends the tokens of window `window` to `ids`, which has `sequence_length` + 1 of them.
    pub fn read_window(
        &self,
        window: u64,
        sequence_length: u32,
        ids: &mut Vec<i64>,
    ) -> Result<(), DataError> {
        let n_bytes = (sequence_length as usize + 1) * 2;
        let mut bytes = vec![0; n_bytes];
        let offset = window * u64::from(sequence_length) * TOKEN_BYTES;
        self.file
            .read_exact_at(&mut bytes, offset)
            .map_err(|source| DataError::Read { path: self.path.clone(), source })?;
        let pairs = bytes.chunks_exact(2);
        ids.extend(pairs.map(|pair| i64::from(u16::from_le_bytes([pair[0], pair[1]]))));
        Ok(())
    }
}

/// Token ids as a shard's bytes.
pub fn to_bytes(ids: &[u16]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A shard with the ids 0, 1, 2, ….
    pub(crate) fn counting(directory: &Path, n_tokens: u16) -> Shard {
        let path = directory.join("shard.bin");
        std::fs::write(&path, to_bytes(&(0..n_tokens).collect::<Vec<_>>())).unwrap();
        Shard::open(&path).unwrap()
    }

    #[test]
    fn windows_overlap_by_their_last_target() {
        let directory = tempfile::tempdir().unwrap();
        let shard = counting(directory.path(), 601);
        assert_eq!((shard.n_tokens(), shard.n_windows(300)), (601, 2));
        let mut ids = Vec::new();
        shard.read_window(1, 300, &mut ids).unwrap();
        assert_eq!(ids, (300..=600).collect::<Vec<i64>>());
        assert!(matches!(shard.read_window(2, 300, &mut ids), Err(DataError::Read { .. })));
    }

    #[test]
    fn a_shard_without_a_last_target_has_one_window_less() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(counting(directory.path(), 600).n_windows(300), 1);
        assert_eq!(counting(directory.path(), 0).n_windows(300), 0);
    }

    #[test]
    fn an_odd_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("odd");
        std::fs::write(&path, [1, 2, 3]).unwrap();
        assert!(matches!(Shard::open(&path), Err(DataError::OddShard { n_bytes: 3, .. })));
    }
}
