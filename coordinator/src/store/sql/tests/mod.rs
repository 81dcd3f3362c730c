//! The suite on both databases, and what only one of them has.

mod copy;
mod old_points;
mod postgres;
mod sqlite;
