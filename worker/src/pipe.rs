//! Messages on the pipe between an agent and its trainer child: a length as a varint, then that
//! many bytes of protobuf. Async for the agent, blocking for the child.
//!
//! It does not know what the messages mean.

use std::io::{self, Read, Write};

use bytes::BytesMut;
use prost::Message;
use prost::encoding::decode_varint;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The largest message either side takes, in bytes: the largest gRPC message.
pub const MAX_MESSAGE_BYTES: usize = proto::MAX_MESSAGE_BYTES;

/// A varint is at most this long.
const MAX_VARINT_BYTES: usize = 10;

/// How much is read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum PipeError {
    /// The pipe failed, or ended inside a message.
    #[error("could not read from the pipe")]
    Read(#[source] io::Error),
    /// The message is longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message on the pipe is {n_bytes} bytes long, more than {MAX_MESSAGE_BYTES}")]
    TooLong {
        /// Its length.
        n_bytes: u64,
    },
    /// The bytes are no such message: something else wrote to the pipe.
    #[error("a message on the pipe cannot be understood")]
    Decode(#[source] prost::DecodeError),
}

/// The messages that come over a pipe.
#[derive(Debug)]
pub struct MessageReader<R> {
    pipe: R,
    buffer: BytesMut,
}

impl<R> MessageReader<R> {
    /// Reads from this end.
    pub fn new(pipe: R) -> Self {
        Self { pipe, buffer: BytesMut::new() }
    }
}

impl<R: AsyncRead + Unpin> MessageReader<R> {
    /// The next message; `None` when the pipe ended between two messages. May be dropped and called
    /// again without a loss.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, PipeError> {
        loop {
            if let Some(message) = take(&mut self.buffer)? {
                return Ok(Some(message));
            }
            let n_bytes = self.pipe.read_buf(&mut self.buffer).await.map_err(PipeError::Read)?;
            if n_bytes == 0 {
                return ended(&self.buffer);
            }
        }
    }
}

impl<R: Read> MessageReader<R> {
    /// The next message; `None` when the pipe ended between two messages. Blocks.
    pub fn next_blocking<M: Message + Default>(&mut self) -> Result<Option<M>, PipeError> {
        let mut chunk = vec![0; READ_BYTES];
        loop {
            if let Some(message) = take(&mut self.buffer)? {
                return Ok(Some(message));
            }
            match self.pipe.read(&mut chunk) {
                Ok(0) => return ended(&self.buffer),
                Ok(n_bytes) => self.buffer.extend_from_slice(&chunk[..n_bytes]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PipeError::Read(error)),
            }
        }
    }
}

/// The message at the buffer's start, if all of it is there.
pub(crate) fn take<M: Message + Default>(buffer: &mut BytesMut) -> Result<Option<M>, PipeError> {
    let head = &buffer[..buffer.len().min(MAX_VARINT_BYTES)];
    let is_length_there = head.iter().any(|byte| byte & 0x80 == 0);
    if !is_length_there && head.len() < MAX_VARINT_BYTES {
        return Ok(None);
    }
    let mut rest = head;
    let n_bytes = decode_varint(&mut rest).map_err(PipeError::Decode)?;
    let n_head_bytes = head.len() - rest.len();
    let length = usize::try_from(n_bytes)
        .ok()
        .filter(|length| *length <= MAX_MESSAGE_BYTES)
        .ok_or(PipeError::TooLong { n_bytes })?;
    if buffer.len() < n_head_bytes + length {
        return Ok(None);
    }
    let frame = buffer.split_to(n_head_bytes + length).freeze().split_off(n_head_bytes);
    M::decode(frame).map(Some).map_err(PipeError::Decode)
}

fn ended<M>(buffer: &BytesMut) -> Result<Option<M>, PipeError> {
    if buffer.is_empty() {
        Ok(None)
    } else {
        Err(PipeError::Read(io::ErrorKind::UnexpectedEof.into()))
    }
}

/// A message with its length, as it goes over the pipe.
pub fn encode<M: Message>(message: &M) -> Vec<u8> {
    message.encode_length_delimited_to_vec()
}

/// Writes a message and flushes. Blocks.
pub fn write_blocking<M: Message>(pipe: &mut impl Write, message: &M) -> io::Result<()> {
    pipe.write_all(&encode(message))?;
    pipe.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto::v1;
    use std::collections::VecDeque;

    /// Gives its bytes in pieces of the given sizes.
    struct Dribble {
        bytes: VecDeque<u8>,
        sizes: Vec<usize>,
        at: usize,
    }

    impl Read for Dribble {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            let size = self.sizes[self.at % self.sizes.len()].min(out.len()).min(self.bytes.len());
            self.at += 1;
            for slot in &mut out[..size] {
                *slot = self.bytes.pop_front().unwrap();
            }
            Ok(size)
        }
    }

    fn finish(token: u64, message: &str) -> v1::FinishRequest {
        v1::FinishRequest { lease_token: token, end: "bug".into(), message: message.into() }
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_whatever_the_pieces(
            texts in prop::collection::vec(".{0,300}", 0..8),
            sizes in prop::collection::vec(1usize..200, 1..6),
        ) {
            let sent: Vec<_> = texts.iter().zip(1..).map(|(text, n)| finish(n, text)).collect();
            let bytes = sent.iter().flat_map(encode).collect();
            let mut reader = MessageReader::new(Dribble { bytes, sizes, at: 0 });
            let mut received = Vec::new();
            while let Some(message) = reader.next_blocking::<v1::FinishRequest>().unwrap() {
                received.push(message);
            }
            prop_assert_eq!(received, sent);
        }
    }

    #[tokio::test]
    async fn the_agents_side_reads_what_the_childs_side_writes() {
        let mut bytes = Vec::new();
        write_blocking(&mut bytes, &finish(1, "")).unwrap();
        write_blocking(&mut bytes, &finish(2, &"x".repeat(100_000))).unwrap();
        let mut reader = MessageReader::new(bytes.as_slice());
        assert_eq!(AsyncSide::next(&mut reader).await.unwrap().lease_token, 1);
        assert_eq!(AsyncSide::next(&mut reader).await.unwrap().message.len(), 100_000);
        assert!(AsyncSide::next(&mut reader).await.is_none());
    }

    struct AsyncSide;

    impl AsyncSide {
        async fn next(reader: &mut MessageReader<&[u8]>) -> Option<v1::FinishRequest> {
            reader.next().await.unwrap()
        }
    }

    #[test]
    fn a_pipe_that_ends_inside_a_message_is_an_error() {
        let mut bytes = encode(&finish(1, "text"));
        bytes.pop();
        let error =
            MessageReader::new(bytes.as_slice()).next_blocking::<v1::FinishRequest>().unwrap_err();
        assert!(matches!(error, PipeError::Read(_)), "{error}");
    }

    #[test]
    fn text_on_the_pipe_is_refused_and_not_waited_for() {
        // A library that prints to standard output must not hang the agent.
        let text = "warning: something happened\n".repeat(10);
        let error =
            MessageReader::new(text.as_bytes()).next_blocking::<v1::FinishRequest>().unwrap_err();
        assert!(matches!(error, PipeError::Decode(_)), "{error}");
        let endless = [0xff; 16];
        assert!(MessageReader::new(&endless[..]).next_blocking::<v1::FinishRequest>().is_err());
    }
}
