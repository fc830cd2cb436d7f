//! edgetcd: a small synchronous server for etcd's v2 HTTP API, replicated by its own raft.
//!
//! # The house
//!
//! A room imports only from floors below it.
//!
//! | floor | room | what lives there |
//! |---|---|---|
//! | 0 | [`raft`] | consensus as a pure value: an input in, what to do out |
//! | 0 | [`tree`] | the key tree as a pure value: commands in, events or API errors out |
//! | 1 | [`wal`] | records, mapped segments, recovery, snapshot files, the `Disk` seam |
//! | 1 | [`door`] | HTTP/1.1 over sockets; knows nothing of etcd |

pub mod door;
pub mod raft;
pub mod tree;
pub mod wal;
