//! The protocol between coordinator, workers and their trainer children: generated types, and the
//! conversions between them and `domain`'s.
//!
//! It opens no connection.

pub mod from_wire;
pub mod to_wire;

/// Version 1 of the worker protocol. Generated; the comments are the `.proto` file's.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::pedantic,
    clippy::all,
    rustdoc::all,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("gradus.worker.v1");
}

/// The compiled descriptors, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The version of the protocol that this build speaks.
pub const PROTOCOL_VERSION: u32 = 4;

/// The largest message either side accepts, in bytes: a preparation of the most source files
/// (`domain::recipe::MAX_SOURCE_FILES`) fits. A report with the most events allowed stays below it
/// by a factor of ten.
pub const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// The size of a message on its way, in bytes.
pub fn n_bytes(message: &impl prost::Message) -> usize {
    message.encoded_len()
}

/// The most events one report may hold.
pub const MAX_EVENTS_PER_REPORT: usize = 10_000;
