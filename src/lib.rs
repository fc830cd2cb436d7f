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
//! | 1 | [`urls`], [`ids`] | `scheme://host:port`; member and cluster ids |
//! | 1 | [`logging`] | lines on stderr |
//! | 4 | [`config`] | flags and environment to a checked `Config` |
//! | 5 | [`ctl`] | the client `edgetcdctl` |

pub mod config;
pub mod ctl;
pub mod door;
pub mod ids;
pub mod logging;
pub mod raft;
pub mod tree;
pub mod urls;
pub mod wal;
