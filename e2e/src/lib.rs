//! Whole clusters made of the real binaries, for the tests in `tests/`: a coordinator, its workers
//! and the command line, each a process that can be killed.
//!
//! It holds no test and knows no rule of the domain.

mod binaries;
mod cluster;
mod process;
mod proxy;
mod small_disk;
mod study;
mod wait;

pub use binaries::{binary, libtorch_is_there};
pub use cluster::{Cluster, ClusterOptions, Endpoint};
pub use process::{Process, Usage};
pub use proxy::{Flow, Proxy, Weather};
pub use small_disk::SmallDisk;
pub use study::{TinyStudy, tiny_study};
pub use wait::{let_pass, wait_for};
