//! A rolling restart that clients do not notice, because a leader transfers its leadership before it ends.
//!
//! The full test has `ROLLING_ROUNDS=20`, which are sixty restarts.

use std::time::Duration;

use crate::crowd::Crowd;
use crate::harness::{Cluster, setting};
use crate::support::{alone, check_ledger, own_bar, time_bar};

const CLIENTS: u64 = 64;
const PATIENCE: Duration = Duration::from_secs(30);

/// `CLIENTS` writers use the members that are not being restarted.
#[test]
fn a_rolling_restart_fails_no_write_and_delays_none() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let crowd = Crowd::start(cluster.addresses(), CLIENTS, 1);
    crowd.wait_writes(200, PATIENCE);
    let rounds = setting("ROLLING_ROUNDS", 1);
    for node in (0..rounds).flat_map(|_| 0..3) {
        let led = cluster.wait_leader() == node;
        crowd.leave(node);
        let status = cluster.stop(node);
        println!("node {node}, leader: {led}, ended with {status}");
        crowd.wait_writes(200, PATIENCE);
        cluster.restart(node);
        cluster.wait_leader();
        crowd.come_back(node);
        crowd.wait_writes(200, PATIENCE);
    }
    let mut tally = crowd.finish();
    let slowest = tally.latencies.iter().map(|(_, took)| *took).max();
    let slowest = slowest.expect("writes");
    println!(
        "{} acknowledged, the slowest took {slowest:?}, {} failed",
        tally.ledger.acknowledged,
        tally.failures.len()
    );
    let leader = cluster.wait_leader();
    check_ledger(&cluster, leader, &mut tally.ledger);
    own_bar(
        tally.failures.is_empty(),
        &format!("no write fails: {}", tally.first_failures()),
    );
    let bar = Duration::from_millis(500);
    time_bar(
        slowest <= bar,
        &format!("the slowest write took {slowest:?} of at most {bar:?}"),
    );
}
