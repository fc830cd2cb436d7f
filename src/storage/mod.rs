//! What the WAL and snapshot threads do, and what a start reads, as values without threads.
//!
//! The server's threads ([`replica`](crate::replica)) and the simulator run this code, each over a disk of its own.

pub mod clock;
pub mod jobs;
pub mod members;
pub mod snapshot;
