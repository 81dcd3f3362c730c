//! The suite on both databases and in memory, and what only one of them has.

mod copy;
mod filled;
mod memory;
mod old_points;
mod postgres;
mod sqlite;
mod through_grpc;
