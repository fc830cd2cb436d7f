//! A server without TLS, and its limits.

use std::time::Duration;

use crate::harness::Server;

/// How much the memory of the server may grow during an attack, in bytes.
pub const MEMORY_BAR: u64 = 16 << 20;

/// Memory of an idle connection, in bytes.
pub const IDLE_BAR: u64 = 2048;

/// Memory of a parked watch, in bytes.
pub const WATCH_BAR: u64 = 4096;

/// How long it may take until each of 200 watches has begun.
pub const CROWD_WITHIN: Duration = Duration::from_secs(1);

/// The default number of connections in the tests of memory.
pub const CONNECTIONS: u64 = 10_000;

pub fn start() -> Server {
    Server::start(&[])
}
