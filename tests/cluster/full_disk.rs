//! The disk of one member is full, those of the others are not: the cluster continues.

use std::time::{Duration, Instant};

use crate::harness::client::PATIENCE;
use crate::harness::mount::{Mount, fill};
use crate::harness::{Cluster, wait_for};
use crate::support::alone;

/// The log of this many writes uses the space that the leader has reserved, and more.
const WRITES: usize = 400;
const VALUE_BYTES: usize = 20_000;
/// An election timeout, and some time for a busy machine.
const SLOWEST: Duration = Duration::from_secs(3);

#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_leader_with_a_full_disk_lets_another_lead() {
    let _alone = alone();
    let mounts: Vec<Mount> = (0..3).map(|_| Mount::tmpfs(64)).collect();
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

/// The value of a metric of a node, summed over all labels.
pub fn number(cluster: &Cluster, node: usize, name: &str) -> f64 {
    let page = cluster.node(node).ask("GET", "/metrics", None).text();
    let lines = page.lines().filter(|line| line.starts_with(name));
    let values = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    values.sum()
}

/// Without a backoff, a failing snapshot would load the leader's disk and the link ten times a second.
#[test]
#[ignore = "needs root, to mount a small file system"]
fn a_snapshot_that_a_follower_cannot_store_is_sent_ever_more_rarely() {
    let _alone = alone();
    let mount = Mount::tmpfs(16);
    // Snapshots contain the events too. Keep few of them, so that everything still fits on that disk at the end.
    let mut cluster = Cluster::prepare(3, &["--snapshot-count=10", "--watch-history=10"]);
    cluster.node_mut(2).keep_data_in(&mount.path().join("data"));
    cluster.launch();
    cluster.kill(2);
    let leader = cluster.wait_leader();
    // While the leader counts the follower as alive (an election timeout), it keeps the entries that the follower
    // lacks.
    let value = "x".repeat(VALUE_BYTES);
    let (begun, mut written) = (Instant::now(), 0);
    while begun.elapsed() < SLOWEST || written < 50 {
        cluster.put(leader, &format!("/k{}", written % 50), &value);
        written += 1;
    }
    let filler = mount.path().join("filler");
    fill(&filler);
    cluster.node_mut(2).spawn();

    let failures = |least: f64| {
        let name = "edgetcd_snapshots_send_failures_total{";
        let failed = || Some(()).filter(|()| number(&cluster, leader, name) >= least);
        wait_for("a snapshot to fail", PATIENCE, failed);
        Instant::now()
    };
    let first = failures(1.0);
    let last = failures(6.0);
    let took = last - first;
    println!("five more tries in {took:?}");
    // 100, 200, 400, 800 and 1600 ms. A retry may be one tick early, and the first was observed late.
    assert!(took > Duration::from_millis(2500), "{took:?}");
    assert_eq!(
        number(&cluster, leader, "edgetcd_snapshots_sent_total{"),
        0.0
    );

    std::fs::remove_file(&filler).expect("it is there");
    let installed = || {
        let sent = number(&cluster, leader, "edgetcd_snapshots_sent_total{");
        Some(()).filter(|()| sent > 0.0)
    };
    wait_for("the snapshot to be installed", PATIENCE, installed);
    cluster.put(leader, "/last", "1");
    cluster.wait_value(2, "/last", "1", PATIENCE);
}
