//! The basis of all black-box tests: starts a server as a user would, and has an HTTP client that shows each byte.
//!
//! The harness does not import the library. A test observes only sockets, signals, files and `/proc`. So the same
//! tests can run against another server with the same API. This is also how the tests themselves are tested:
//!
//! ```text
//! EDGETCD_SERVER="etcd --enable-v2=true" cargo test --test golden
//! ```
//!
//! | file        | contents                                                                   |
//! |-------------|----------------------------------------------------------------------------|
//! | `server.rs` | start, stop, kill, restart on the same data; prints logs if a test fails    |
//! | `client.rs` | HTTP/1.1 over one socket, including long polls and half requests           |
//! | `secure.rs` | TLS for this client (`secure_absent.rs`: in a build without TLS)           |
//! | `certificates.rs` | CAs and certificates as files                                        |
//! | `closed.rs` | a cluster with TLS and certificates, for its clients and between members   |
//! | `json.rs`   | JSON that keeps the order of its fields                                    |
//! | `process.rs`| memory, threads, descriptors, CPU time and writes of a process             |
//! | `acknowledged.rs` | writers that record acknowledged writes, and the check afterwards    |
//! | `cluster.rs`| several servers as one cluster: leader, kill, pause, members, cut links    |
//! | `network.rs`| network namespaces with links that can be cut in one or both directions    |
//! | `mount.rs`  | small file systems for tests of full disks                                 |
//! | `makes.rs`  | `make cluster` and similar targets, with a folder and ports of the test    |
//!
//! `transcript.rs`, `lesson.rs` and `raft_text.rs` are independent of the rest. Tests with transcripts that need no
//! server include only these files.
//!
//! Every wait has a deadline and an error message that names what it waited for.
// Each test program includes the whole harness and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod acknowledged;
#[cfg(feature = "tls")]
pub mod certificates;
pub mod client;
#[cfg(feature = "tls")]
pub mod closed;
pub mod cluster;
pub mod json;
pub mod makes;
pub mod mount;
pub mod network;
pub mod process;
#[cfg(feature = "tls")]
pub mod secure;
#[cfg(not(feature = "tls"))]
#[path = "secure_absent.rs"]
pub mod secure;
pub mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use client::{Answer, Connection, Line};
pub use cluster::{Client, Cluster};
pub use json::Json;
pub use makes::{Makes, Terminal};
pub use server::Server;

/// Polls `condition` until it returns a value. Panics with `what` after `within`.
pub fn wait_for<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "timed out after {within:?} waiting for {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A number from the environment, so that a test can run longer in other places.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// The value below which `share` (0 to 1) of the samples lie.
pub fn percentile(samples: &mut [Duration], share: f64) -> Duration {
    assert!(!samples.is_empty(), "no samples were taken");
    samples.sort();
    let last = samples.len() - 1;
    samples[(last as f64 * share).round() as usize]
}

/// A small reproducible random generator (SplitMix64). Tests print its seed.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
