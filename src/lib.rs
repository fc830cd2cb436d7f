//! edgetcd: a small synchronous server for etcd's v2 HTTP API, replicated by its own raft.
//!
//! # Modules
//!
//! A module imports only from layers below its own. A test checks this, and that the table is complete.
//!
//! | layer | module | content |
//! |---|---|---|
//! | 0 | [`auth`] | users, roles and permissions as a pure value |
//! | 0 | [`go`] | values and texts as Go reads and quotes them, and its JSON errors |
//! | 0 | [`guide`] | pages for operators: what to do when something is broken |
//! | 0 | [`histogram`] | histograms of durations |
//! | 0 | [`logging`] | log lines on standard error |
//! | 0 | [`page`] | the page for browsers: one self-contained document |
//! | 0 | [`random`], [`varint`] | seeded random numbers; variable-length numbers |
//! | 0 | [`threads`] | threads whose panic ends the process |
//! | 0 | [`tls`] | files of certificates and keys, and TLS configurations made of them |
//! | 0 | [`process`] | statistics of this process: memory, CPU time, descriptors |
//! | 1 | [`urls`] | `scheme://host:port` |
//! | 2 | [`config`] | flags and environment variables as a checked `Config` |
//! | 2 | [`dial`] | HTTP requests of this process to others |
//! | 2 | [`http1`] | the HTTP/1.1 server, which knows nothing of etcd |
//! | 2 | [`systemd`] | systemd's notification protocol |
//! | 2 | [`raft`] | consensus as a pure value: input in, output out |
//! | 2 | [`tree`] | the key tree as a pure value: commands in, events or API errors out |
//! | 3 | [`engine`] | one member as a pure value: events in, effects out |
//! | 3 | [`wal`] | records, mapped segments, recovery, snapshot files, the `Disk` trait |
//! | 3 | [`watch`] | the newest view of the tree, and the watchers that wait for the next |
//! | 4 | [`identity`] | ids of members and clusters; the cluster and the member that a data directory belongs to |
//! | 4 | [`storage`] | what the WAL and snapshot threads do, without the threads |
//! | 5 | [`replica`] | the raft, WAL and snapshot threads around an engine |
//! | 5 | [`sim`] | whole clusters under a seeded scheduler |
//! | 6 | [`lab`] | runs of a simulated cluster that a person drives |
//! | 6 | [`peer`] | transport between members: messages and snapshots |
//! | 7 | [`api`] | etcd's v2 endpoints |
//! | 8 | [`node`] | a member: all of this put together |
//! | 9 | [`backup`] | a state read from a file or a directory, and written into the directory of a new cluster |
//! | 10 | [`ctl`] | the client `edgetcdctl` |
//!
//! # WebAssembly
//!
//! The simulator and everything that it needs also build for `wasm32-unknown-unknown`, which has no files, sockets,
//! threads or clocks. All other modules are marked below. `make wasm` builds the rest and compares a run with a native
//! one.

#![warn(missing_docs)]

#[cfg(not(target_arch = "wasm32"))]
pub mod api;
pub mod auth;
#[cfg(not(target_arch = "wasm32"))]
pub mod backup;
#[cfg(not(target_arch = "wasm32"))]
pub mod config;
#[cfg(not(target_arch = "wasm32"))]
pub mod ctl;
#[cfg(not(target_arch = "wasm32"))]
pub mod dial;
pub mod engine;
#[cfg(not(target_arch = "wasm32"))]
pub mod go;
#[cfg(not(target_arch = "wasm32"))]
pub mod guide;
pub mod histogram;
#[cfg(not(target_arch = "wasm32"))]
pub mod http1;
#[cfg(not(target_arch = "wasm32"))]
pub mod identity;
pub mod lab;
#[cfg(not(target_arch = "wasm32"))]
pub mod logging;
#[cfg(not(target_arch = "wasm32"))]
pub mod node;
#[cfg(not(target_arch = "wasm32"))]
pub mod page;
#[cfg(not(target_arch = "wasm32"))]
pub mod peer;
#[cfg(not(target_arch = "wasm32"))]
pub mod process;
pub mod raft;
pub mod random;
#[cfg(not(target_arch = "wasm32"))]
pub mod replica;
pub mod sim;
pub mod storage;
#[cfg(not(target_arch = "wasm32"))]
pub mod systemd;
#[cfg(not(target_arch = "wasm32"))]
pub mod threads;
#[cfg(not(target_arch = "wasm32"))]
pub mod tls;
pub mod tree;
#[cfg(not(target_arch = "wasm32"))]
pub mod urls;
pub mod varint;
pub mod wal;
pub mod watch;

/// The version of etcd whose v2 API this is. `/version` returns it, and clients use it to decide which requests they
/// send.
pub const ETCD_VERSION: &str = "3.4.0";
