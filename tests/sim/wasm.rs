//! The same seeds in WebAssembly: the code must not depend on the machine, nor on the size of its words.

use super::{broken, number, sound};
use edgetcd::sim::{Cluster, Settings};
use std::path::Path;
use std::process::Command;

/// One run, as `wasm.mjs` prints it.
fn native(seed: u64, nodes: u64) -> String {
    let mut cluster = Cluster::new(Settings {
        tracing: true,
        ..sound(seed, nodes)
    });
    if let Some(broken) = broken(&mut cluster) {
        panic!("BROKEN: {broken}\nagain: make sim SEED={seed} NODES={nodes}");
    }
    let (events, hash) = (cluster.events(), cluster.state_hash());
    format!("{seed}/{nodes} events={events} state={hash:016x}")
}

/// Runs `SEEDS` seeds from `FROM` on, on 3 and on 5 nodes. `WASM` is the library.
#[test]
#[ignore = "needs Node and a build for WebAssembly: make wasm"]
fn a_run_in_webassembly_ends_in_the_same_state() {
    let library = std::env::var("WASM").expect("WASM is the library that `make wasm` builds");
    let (from, seeds) = (number("FROM", 0), number("SEEDS", 20));
    let runs = || (from..from + seeds).flat_map(|seed| [(seed, 3), (seed, 5)]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sim/wasm.mjs");
    let mut node = Command::new("node");
    node.arg(script).arg(library);
    node.args(runs().map(|(seed, nodes)| format!("{seed}/{nodes}")));
    let output = node.output().expect("node runs: is Node installed?");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "in WebAssembly: {printed}{errors}");
    let native: Vec<String> = runs().map(|(seed, nodes)| native(seed, nodes)).collect();
    let other: Vec<&str> = printed.lines().collect();
    assert_eq!(other.len(), native.len(), "{printed}");
    let differs: Vec<_> = (native.iter().zip(other))
        .filter(|(native, other)| native != other)
        .collect();
    assert!(
        differs.is_empty(),
        "native runs, and the same in WebAssembly:\n{differs:#?}"
    );
    println!("{} runs end in the same state: {}", native.len(), native[0]);
}
