//! What every black-box test stands on: a server started as a user would start it, and an HTTP
//! client that shows each byte.
//!
//! Nothing here imports the library: a test sees only what crosses a socket, a signal, a file, or
//! `/proc`. So the same tests run against another server of the same API, which is how they are
//! tested themselves:
//!
//! ```text
//! EDGETCD_SERVER="etcd --enable-v2=true" cargo test --test golden
//! ```
//!
//! | file        | what it gives                                                              |
//! |-------------|----------------------------------------------------------------------------|
//! | `server.rs` | start, stop, kill, restart on the same data; logs shown when a test fails   |
//! | `client.rs` | HTTP/1.1 over one socket, long polls and half requests included            |
//! | `json.rs`   | JSON that remembers the order of its fields                                |
//! | `process.rs`| memory, threads, descriptors, processor time and writes of a process       |
//! | `ledger.rs` | writers that note what was acknowledged, and the check afterwards          |
//! | `cluster.rs`| several servers as one cluster: who leads, kill, pause, members, cut links |
//! | `network.rs`| network namespaces whose links are cut one way or both                     |
//! | `mount.rs`  | small file systems, to be filled up                                        |
//! | `makes.rs`  | `make cluster` and its like, with a folder and ports of the test's own      |
//!
//! `transcript.rs` stands by itself, for tests that need no server of ours: those that speak in
//! transcripts of command lines include that file alone.
//!
//! Every wait has a deadline and names what it waited for.
// Each test program includes the whole harness and uses a part of it.
#![allow(dead_code, unused_imports)]

pub mod client;
pub mod cluster;
pub mod json;
pub mod ledger;
pub mod makes;
pub mod mount;
pub mod network;
pub mod process;
pub mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use client::{Answer, Connection, Line};
pub use cluster::{Client, Cluster};
pub use json::Json;
pub use makes::{Makes, Terminal};
pub use server::Server;

/// Asks `condition` again and again until it gives a value; panics with `what` after `within`.
pub fn wait_for<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "waited {within:?} in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A number from the environment, so that the same test can run longer elsewhere.
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

/// A small generator of reproducible noise (SplitMix64); tests print its seed.
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
