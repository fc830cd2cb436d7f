//! The simulator for a host of WebAssembly, for example Node or a browser: functions that take and return numbers.
//!
//! A text is the position and the number of its bytes (UTF-8) in the instance's memory. It stays until the next run.
//! If a node finds a violation by an assertion, `simulate` does not return: it traps, and `violation` and
//! `violation_bytes` return the message.
//!
//! `tests/sim/wasm.mjs` calls these functions.

use super::any_engine::Keeping;
use super::cluster::{Cluster, Settings};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The results of the last run.
struct Ended {
    events: u64,
    state_hash: u64,
    /// Empty if nothing broke.
    violation: String,
}

static ENDED: Mutex<Ended> = Mutex::new(Ended {
    events: 0,
    state_hash: 0,
    violation: String::new(),
});

fn ended() -> MutexGuard<'static, Ended> {
    ENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

// SAFETY of all functions below: an exported name is unsafe because two libraries may export it. This module is built
// only when the crate is the one library of an instance.

/// Runs a seed to its end, on this many nodes, with a trace. Returns 0 if nothing broke, otherwise 1.
#[unsafe(no_mangle)]
pub extern "C" fn simulate(seed: u64, nodes: u64) -> u32 {
    std::panic::set_hook(Box::new(|panic| ended().violation = panic.to_string()));
    let mut cluster = Cluster::new(Settings {
        seed,
        nodes,
        kind: None,
        keeping: Keeping::all(),
        without: None,
        tracing: true,
    });
    let violation = cluster.run().err().unwrap_or_default();
    let broken = !violation.is_empty();
    *ended() = Ended {
        events: cluster.events(),
        state_hash: cluster.state_hash(),
        violation,
    };
    u32::from(broken)
}

/// Events of the last run.
#[unsafe(no_mangle)]
pub extern "C" fn events() -> u64 {
    ended().events
}

/// [`Cluster::state_hash`] at the end of the last run.
#[unsafe(no_mangle)]
pub extern "C" fn state_hash() -> u64 {
    ended().state_hash
}

/// Where the line about the violation is.
#[unsafe(no_mangle)]
pub extern "C" fn violation() -> *const u8 {
    ended().violation.as_ptr()
}

/// Bytes of that line; 0 if nothing broke.
#[unsafe(no_mangle)]
pub extern "C" fn violation_bytes() -> usize {
    ended().violation.len()
}
