//! The disk of the member that leads is full, and those of the others are not: the cluster goes on.

use std::time::{Duration, Instant};

use crate::harness::Cluster;
use crate::harness::client::PATIENCE;
use crate::harness::mount::{Mount, fill};
use crate::support::alone;

/// A log of this takes up what the leader has got ready, and more.
const WRITES: usize = 400;
const VALUE_BYTES: usize = 20_000;
/// An election timeout, and some time for a busy machine.
const SLOWEST: Duration = Duration::from_secs(3);

#[test]
fn a_leader_with_a_full_disk_lets_another_lead() {
    let _alone = alone();
    let mounts: Vec<Mount> = (0..3).map_while(|_| Mount::tmpfs(64)).collect();
    if mounts.len() < 3 {
        return;
    }
    let mut cluster = Cluster::prepare(3, &[]);
    for (node, mount) in mounts.iter().enumerate() {
        cluster
            .node_mut(node)
            .keep_data_in(&mount.path().join("data"));
    }
    cluster.launch();
    let leader = cluster.wait_leader();
    let others = cluster.others(leader);
    let filler = mounts[leader].path().join("filler");
    fill(&filler);

    let value = "x".repeat(VALUE_BYTES);
    let mut connection = cluster.node(others[0]).connect();
    let mut slowest = Duration::ZERO;
    for number in 0..WRITES {
        let form = format!("value={number}{value}");
        let start = Instant::now();
        let answer = connection.ask("PUT", "/v2/keys/k", Some(&form));
        let answer = answer.expect("an answer");
        slowest = slowest.max(start.elapsed());
        assert!(answer.status < 300, "write {number}: {}", answer.text());
    }
    println!("{WRITES} writes, the slowest took {slowest:?}");
    assert!(slowest < SLOWEST, "one took {slowest:?}");
    let next = cluster.wait_leader_among(&others);
    assert_ne!(next, leader, "it still leads");

    std::fs::remove_file(&filler).expect("it is there");
    cluster.put(others[1], "/last", "1");
    cluster.wait_value(leader, "/last", "1", PATIENCE);
}
