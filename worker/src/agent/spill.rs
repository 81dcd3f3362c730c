//! What a trainer has said and the agent has no room for yet: in memory first, then in a file, in
//! order.
//!
//! The file has no name, so that it ends with the agent, as the leases do whose words it holds. It
//! does not know what the words mean.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;
use proto::v1::{self, from_trainer};
use tokio::task::spawn_blocking;

use super::trainers::Said;
use crate::pipe;

/// So many messages wait in memory before the file is used; a moment in which the agent is busy
/// costs no write.
const MAX_IN_MEMORY: usize = 1_000;

/// How much is written and read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Where a slot's file goes and how large it may become.
#[derive(Debug, Clone)]
pub(super) struct SpillLimits {
    /// The folder for files that may be lost.
    pub(super) folder: PathBuf,
    /// The slot, for messages.
    pub(super) slot: usize,
    /// The longest file.
    pub(super) max_bytes: u64,
}

/// Why the trainer has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blocked {
    /// The file is as long as it may be.
    Full,
    /// The file cannot be written.
    Unwritable,
}

/// A queue: `memory` holds the oldest, then comes the file from `read_at` to `written`, then
/// `unwritten`.
#[derive(Debug)]
pub(super) struct Spill {
    limits: SpillLimits,
    memory: VecDeque<Said>,
    file: Option<Arc<File>>,
    read_at: u64,
    written: u64,
    unwritten: Vec<u8>,
    /// The last word, which is no message of the pipe.
    last: Option<Said>,
    blocked: Option<Blocked>,
}

impl Spill {
    pub(super) fn new(limits: SpillLimits) -> Self {
        Self {
            limits,
            memory: VecDeque::new(),
            file: None,
            read_at: 0,
            written: 0,
            unwritten: Vec::new(),
            last: None,
            blocked: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && !self.has_spilled() && self.last.is_none()
    }

    /// Whether the trainer is to be listened to. One that is not waits for the pipe.
    pub(super) fn has_room(&self) -> bool {
        self.blocked.is_none() && self.last.is_none()
    }

    fn has_spilled(&self) -> bool {
        self.read_at < self.written || !self.unwritten.is_empty()
    }

    /// Takes in what was said last. What there is no room for in memory goes into the file; when
    /// that cannot be, it stays in memory and [`Self::has_room`] says no.
    pub(super) async fn push(&mut self, said: Said) {
        if !self.has_spilled() && self.memory.len() < MAX_IN_MEMORY {
            return self.memory.push_back(said);
        }
        let kind = match said {
            Said::Event(event) => from_trainer::Kind::Event(event),
            Said::Finished(end) => from_trainer::Kind::Finished(end),
            said => {
                self.last = Some(said);
                return;
            }
        };
        if !self.has_spilled() {
            let slot = self.limits.slot;
            tracing::info!(slot, "what the trainer reports is kept on disk for now");
        }
        self.unwritten.extend(pipe::encode(&v1::FromTrainer { kind: Some(kind) }));
        if self.unwritten.len() >= CHUNK_BYTES {
            self.write().await;
        }
        let n_bytes = self.written + self.unwritten.len() as u64;
        if self.blocked.is_none() && n_bytes >= self.limits.max_bytes {
            let slot = self.limits.slot;
            tracing::warn!(
                slot,
                limit_bytes = self.limits.max_bytes,
                "the buffer on disk is full; the trainer waits until its reports are taken again"
            );
            self.blocked = Some(Blocked::Full);
        }
    }

    /// What was said first of what waits. The error means that some of it is lost.
    pub(super) async fn pop(&mut self) -> io::Result<Option<Said>> {
        if self.memory.is_empty() && self.has_spilled() {
            self.read().await?;
        }
        Ok(self.memory.pop_front().or_else(|| self.last.take()))
    }

    /// Appends what is not written yet. On a disk that is full the trainer waits.
    async fn write(&mut self) {
        let bytes = std::mem::take(&mut self.unwritten);
        let (file, at) = (self.file.clone(), self.written);
        let path = self.limits.folder.join(format!("spill-{}", self.limits.slot));
        let (file, bytes, outcome) = blocking(move || {
            let file = match file.map_or_else(|| unnamed(&path), Ok) {
                Ok(file) => file,
                Err(error) => return (None, bytes, Err(error)),
            };
            let outcome = file.write_all_at(&bytes, at);
            (Some(file), bytes, outcome)
        })
        .await;
        self.file = file;
        match outcome {
            Ok(()) => self.written += bytes.len() as u64,
            Err(error) => {
                let slot = self.limits.slot;
                tracing::warn!(
                    slot,
                    %error,
                    "the buffer on disk cannot be written; the trainer waits until its reports are \
                     taken again"
                );
                // What was half written is overwritten.
                self.unwritten = bytes;
                self.blocked = Some(Blocked::Unwritable);
            }
        }
    }

    /// Takes a piece back into memory, of the file as long as there is one.
    async fn read(&mut self) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        if let Some(file) = self.file.clone().filter(|_| self.read_at < self.written) {
            let (mut at, end) = (self.read_at, self.written);
            // A message may be longer than a piece.
            while self.memory.is_empty() {
                if at == end {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let (file, from) = (Arc::clone(&file), at);
                let piece = blocking(move || read_piece(&file, from, end)).await?;
                at += piece.len() as u64;
                buffer.extend_from_slice(&piece);
                self.take_messages(&mut buffer)?;
            }
            self.read_at = at - buffer.len() as u64;
        } else {
            buffer.extend_from_slice(&std::mem::take(&mut self.unwritten));
            self.take_messages(&mut buffer)?;
        }
        if !self.has_spilled() {
            self.begin_anew();
        }
        Ok(())
    }

    fn take_messages(&mut self, buffer: &mut BytesMut) -> io::Result<()> {
        while let Some(message) = pipe::take::<v1::FromTrainer>(buffer).map_err(io::Error::other)? {
            match message.kind {
                Some(from_trainer::Kind::Event(event)) => self.memory.push_back(Said::Event(event)),
                Some(from_trainer::Kind::Finished(end)) => {
                    self.memory.push_back(Said::Finished(end));
                }
                Some(from_trainer::Kind::Ready(_)) | None => {}
            }
        }
        Ok(())
    }

    /// Everything was taken back: the file's room is given back, and the trainer goes on.
    fn begin_anew(&mut self) {
        let slot = self.limits.slot;
        match self.blocked.take() {
            Some(Blocked::Full | Blocked::Unwritable) => {
                tracing::info!(slot, "the buffer on disk is empty; the trainer goes on");
            }
            None => tracing::info!(slot, "the buffer on disk is empty"),
        }
        (self.file, self.read_at, self.written) = (None, 0, 0);
    }
}

/// A file that only its handle knows: when the agent ends, however that is, it is no more.
fn unnamed(path: &std::path::Path) -> io::Result<Arc<File>> {
    // Who clears temporary files clears the folder too.
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    fs::remove_file(path)?;
    Ok(Arc::new(file))
}

fn read_piece(file: &File, from: u64, end: u64) -> io::Result<Vec<u8>> {
    let n_bytes = usize::try_from(end - from).unwrap_or(usize::MAX).min(CHUNK_BYTES);
    let mut piece = vec![0; n_bytes];
    file.read_exact_at(&mut piece, from)?;
    Ok(piece)
}

/// Does it on a thread that may wait for a disk: the agent's own has heartbeats to send.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The agent is ending, and whoever waits with it.
        Err(Err(_)) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
