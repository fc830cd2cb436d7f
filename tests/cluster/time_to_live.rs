//! Keys with a time to live, while leaders die and leaders are paused (hazard D15). No key expires early, and every
//! key expires in the end.

use std::time::{Duration, Instant};

use crate::harness::client::PATIENCE;
use crate::harness::{Cluster, wait_for};
use crate::support::{alone, watch_for};

const TTL: Duration = Duration::from_secs(4);
/// How late a key may expire, because of elections and a busy machine.
const LATE: Duration = Duration::from_secs(15);

#[test]
fn a_new_leader_expires_nothing_early_and_everything_in_the_end() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let witness = cluster.others(leader)[0];
    let set = put_with_ttl(&cluster, leader);
    cluster.wait_value(witness, "/mortal", "1", PATIENCE);
    stays_until(&cluster, witness, set + TTL - Duration::from_secs(1));
    cluster.kill(leader);
    stays_until(&cluster, witness, set + TTL - Duration::from_millis(100));
    goes(&cluster, witness, set);
    cluster.restart(leader);
    goes(&cluster, leader, set);
}

#[test]
fn a_leader_that_stands_still_past_the_end_expires_nothing_early() {
    let _alone = alone();
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.wait_leader();
    let witness = cluster.others(leader)[0];
    let set = put_with_ttl(&cluster, leader);
    cluster.wait_value(witness, "/mortal", "1", PATIENCE);
    cluster.pause(leader);
    let next = cluster.wait_leader_among(&cluster.running());
    let second = put_with_ttl(&cluster, next);
    println!("set again {:?} after it was set first", second - set);
    // When the leader continues, the time to live that it knows is over, but the new one is not.
    stays_until(&cluster, witness, set + TTL + Duration::from_millis(200));
    cluster.resume(leader);
    stays_until(&cluster, witness, second + TTL - Duration::from_millis(100));
    for node in 0..3 {
        goes(&cluster, node, second);
    }
}

/// Returns the send time of the write. The key lives at least this long from then on.
fn put_with_ttl(cluster: &Cluster, node: usize) -> Instant {
    let target = format!("/v2/keys/mortal?value=1&ttl={}", TTL.as_secs());
    wait_for("the key to be set", LATE, || {
        let sent = Instant::now();
        let answer = cluster.node(node).try_ask("PUT", &target, None, LATE);
        (answer.ok()?.status < 300).then_some(sent)
    })
}

fn stays_until(cluster: &Cluster, node: usize, end: Instant) {
    watch_for(end.saturating_duration_since(Instant::now()), || {
        let answer = cluster.node(node).ask("GET", "/v2/keys/mortal", None);
        // A response that arrives after the end proves nothing.
        let early = answer.status == 404 && Instant::now() < end;
        assert!(!early, "expired early: {answer:?}");
    });
}

fn goes(cluster: &Cluster, node: usize, set: Instant) {
    wait_for("the key to expire", TTL + LATE, || {
        let answer = cluster
            .node(node)
            .try_ask("GET", "/v2/keys/mortal", None, PATIENCE);
        (answer.ok()?.status == 404).then_some(())
    });
    println!("gone from node {node} {:?} after it was set", set.elapsed());
}
