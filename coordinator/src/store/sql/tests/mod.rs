//! The suite on both databases, and what only one of them has.

mod postgres;
mod sqlite;
