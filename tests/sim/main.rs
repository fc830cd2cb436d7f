//! Tests of the simulator: seeds in which nothing may break, and rules without which a check must fail.
//!
//! `make sim` runs many seeds. `make sim SEED=8814` runs one of them and prints its trace. `make wasm` compares runs with
//! those in WebAssembly.

mod handovers;
mod records;
mod rules;
mod wasm;

use edgetcd::engine::rules::Rule;
use edgetcd::sim::{Cluster, Keeping, Kind, Scenario, Settings};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

/// A number from the environment.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number"))
    })
}

/// Whether its scenario is of the kind given in `KIND`. True if `KIND` is not set.
pub fn is_wanted(cluster: &Cluster) -> bool {
    let kind = std::env::var("KIND").unwrap_or_default();
    format!("{:?}", cluster.kind()).contains(&kind)
}

/// A whole cluster that keeps all rules.
pub fn sound(seed: u64, nodes: u64) -> Settings {
    Settings {
        seed,
        nodes,
        kind: None,
        keeping: Keeping::all(),
        without: None,
        tracing: false,
    }
}

/// Runs the cluster to the end. Returns one line about a violation, found by the simulator or by an assertion of a
/// node.
pub fn broken(cluster: &mut Cluster) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| cluster.run())) {
        Ok(ended) => ended.err(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| text.to_string()));
            Some(format!("assertion: {}", text.unwrap_or_default()))
        }
    }
}

/// Runs `SEEDS` seeds from `FROM` on, on `NODES` nodes each. `KIND` selects those of one kind.
#[test]
fn no_promise_breaks() {
    let (from, seeds) = (number("FROM", 0), number("SEEDS", 20));
    let both = [3, 5];
    let wanted = number("NODES", 0);
    let mut all = Vec::new();
    for nodes in both
        .into_iter()
        .filter(|nodes| wanted == 0 || *nodes == wanted)
    {
        let begin = Instant::now();
        let (mut events, mut committed) = (0, 0);
        for seed in from..from + seeds {
            let mut cluster = Cluster::new(sound(seed, nodes));
            if !is_wanted(&cluster) {
                continue;
            }
            if let Some(broken) = broken(&mut cluster) {
                println!("BROKEN: {broken}\nagain: make sim SEED={seed} NODES={nodes}");
                all.push((seed, nodes));
            }
            events += cluster.events();
            committed += cluster.committed();
        }
        let each = begin.elapsed().as_secs_f64() * 1000.0 / seeds as f64;
        println!(
            "{nodes} nodes: {seeds} seeds, {events} events, {committed} entries, {each:.1} ms a seed, broken so far: {}",
            all.len()
        );
    }
    assert!(all.is_empty(), "seeds and nodes: {all:?}");
}

/// The scenarios that no seed selects.
#[test]
fn requested_scenarios_hold() {
    for scenario in [Scenario::Moved, Scenario::HungUnderLoad] {
        for (seed, nodes) in (0..5).flat_map(|seed| [(seed, 3), (seed, 5)]) {
            let mut cluster = Cluster::new(Settings {
                kind: Some(Kind::Scenario(scenario)),
                ..sound(seed, nodes)
            });
            let broken = broken(&mut cluster);
            assert_eq!(broken, None, "{scenario:?}, seed {seed}, {nodes} nodes");
        }
    }
}

/// Runs `SEED` and prints its trace. `WITHOUT` switches a rule of the engine off.
#[test]
#[ignore = "shows one seed: make sim SEED=8814 NODES=5"]
fn one_seed() {
    let seed = std::env::var("SEED").expect("SEED is the seed to show");
    let without = std::env::var("WITHOUT").ok().map(|name| {
        let mut all = Rule::ALL.iter();
        let named = all.find(|rule| format!("{rule:?}") == name);
        *named.unwrap_or_else(|| panic!("no rule {name}"))
    });
    let (seed, nodes) = (seed.parse().expect("SEED is a number"), number("NODES", 3));
    let mut cluster = Cluster::new(Settings {
        without,
        tracing: true,
        ..sound(seed, nodes)
    });
    let broken = broken(&mut cluster);
    cluster.trace().iter().for_each(|line| println!("{line}"));
    match broken {
        None => println!("seed {seed}: nothing broke in {} events", cluster.events()),
        Some(broken) => {
            let at = cluster.now() as f64 / 1000.0;
            panic!("BROKEN at {at:.3} ms: {broken}\nagain: make sim SEED={seed} NODES={nodes}");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let traced = |seed| {
        let mut cluster = Cluster::new(Settings {
            tracing: true,
            ..sound(seed, 3)
        });
        broken(&mut cluster);
        let lines = cluster.trace().iter().map(|line| format!("{line}\n"));
        (lines.collect::<String>(), cluster.state_hash())
    };
    assert_eq!(traced(3), traced(3));
    assert_ne!(traced(3), traced(4));
}
