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
//! | 1 | [`engine`] | one member as a pure value: events in, effects out |
//! | 1 | [`wal`] | records, mapped segments, recovery, snapshot files, the `Disk` seam |
//! | 1 | [`door`] | HTTP/1.1 over sockets; knows nothing of etcd |
//! | 1 | [`urls`], [`ids`], [`allowed`] | `scheme://host:port`; member and cluster ids; admitted names |
//! | 2 | [`dial`] | HTTP requests of this process to others |
//! | 1 | [`logging`], [`notify`] | lines on stderr; words to whoever supervises the process |
//! | 1 | [`threads`], [`usage`], [`histogram`] | threads that must not end; what the process uses; how long things take |
//! | 2 | [`watch`] | the newest view of the tree, and the long polls that wait for the next |
//! | 2 | [`replica`] | the raft, WAL and snapshot threads around an engine |
//! | 3 | [`http`] | what etcd says over HTTP |
//! | 3 | [`peer`] | what goes between members: letters and snapshots |
//! | 4 | [`config`], [`identity`] | flags and environment to a checked `Config`; whose directory it is |
//! | 4 | [`backup`] | a state out of a file or a directory, and into the directory of a new cluster |
//! | 4 | [`node`] | all of it wired together |
//! | 5 | [`ctl`] | the client `edgetcdctl` |
//!
//! [`guide`] is for who runs a cluster: what to do when something is broken.

#![warn(missing_docs)]

pub mod allowed;
pub mod backup;
pub mod config;
pub mod ctl;
pub mod dial;
pub mod door;
pub mod engine;
pub mod guide;
pub mod histogram;
pub mod http;
pub mod identity;
pub mod ids;
pub mod logging;
pub mod node;
pub mod notify;
pub mod peer;
pub mod raft;
pub mod replica;
pub mod sim;
pub mod threads;
pub mod tree;
pub mod urls;
pub mod usage;
pub mod wal;
pub mod watch;

/// The version of etcd whose v2 API this is: `/version` tells it, and clients decide by it what to ask.
pub const ETCD_VERSION: &str = "3.4.0";
