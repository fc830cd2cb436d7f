//! A follower that was down for a long time catches up by snapshot and log, without an effect on clients.
//!
//! The full test has `CATCH_UP_WRITES=200000`. With fewer writes, the nodes make snapshots earlier, so that the
//! follower also needs a snapshot, and the limits are only printed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::harness::{Cluster, setting, wait_for};
use crate::support::{alone, check_ledger, own_bar, time_bar};

const CLIENTS: u64 = 32;
const PATIENCE: Duration = Duration::from_secs(600);
const VALUE_BYTES: u64 = 256;
/// With at least this many writes the measurements are meaningful.
const FULL: u64 = 100_000;

#[test]
fn a_follower_that_was_away_comes_back_unnoticed() {
    let _alone = alone();
    let writes = setting("CATCH_UP_WRITES", 12_000);
    let snapshots = format!("--snapshot-count={}", (writes / 6).min(100_000));
    let mut cluster = Cluster::start(3, &[&snapshots]);
    let leader = cluster.wait_leader();
    let follower = cluster.others(leader)[0];
    let crowd = Crowd::start_padded(cluster.addresses(), CLIENTS, 1, VALUE_BYTES as usize);
    crowd.leave(follower);
    let start = Instant::now();
    crowd.wait_writes(writes / 5, PATIENCE);
    let (term, memory) = (cluster.term(leader), resident(&cluster, leader));

    cluster.kill(follower);
    let gone = Instant::now();
    crowd.wait_writes(writes, PATIENCE);
    let growth = resident(&cluster, leader).saturating_sub(memory);

    let returning = Instant::now();
    cluster.restart(follower);
    let marker = format!("{}", crowd.acknowledged());
    cluster.put(leader, "/caught-up", &marker);
    cluster.wait_value(follower, "/caught-up", &marker, PATIENCE);
    let back = Instant::now();
    println!("it caught up within {:?}", back - returning);
    // Some writes after the cluster is complete again.
    crowd.wait_writes(writes / 10, PATIENCE);
    let mut tally = crowd.finish();

    let whole = tally.percentile(0.99, start, gone);
    let away = tally.percentile(0.99, gone, returning);
    let catching_up = tally.percentile(0.99, returning, Instant::now());
    println!(
        "p99 of {CLIENTS} writers: {whole:?} with three, {away:?} with two, {catching_up:?} while it caught up"
    );
    let data = writes * VALUE_BYTES;
    println!(
        "memory of the leader: {memory} bytes, grown by {growth} while {data} bytes were written"
    );
    assert!(
        tally.failures.is_empty(),
        "a write failed: {}",
        tally.first_failures()
    );
    assert_eq!(cluster.term(leader), term, "there was an election");
    check_ledger(&cluster, follower, &mut tally.ledger);
    if writes >= FULL {
        own_bar(
            growth < data,
            "the leader's memory grows by less than the data",
        );
        let slow = away.max(catching_up);
        time_bar(slow <= whole * 2, "p99 at most doubles");
    }
}

fn resident(cluster: &Cluster, node: usize) -> u64 {
    cluster.node(node).process().resident_bytes()
}

/// A node does nothing if it gets no requests.
#[test]
fn idle_nodes_need_little_and_write_nothing() {
    let _alone = alone();
    let cluster = Cluster::start(3, &[]);
    cluster.put(0, "/idle", "1");
    let written = |node: usize| cluster.node(node).process().written_bytes();
    let all_written = || (0..3).map(written).collect::<Vec<u64>>();
    let mut last = (all_written(), Instant::now());
    wait_for("the start's writes to end", Duration::from_secs(30), || {
        let now = all_written();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() > Duration::from_secs(1)).then_some(())
    });
    let time = Duration::from_secs(setting("IDLE_SECONDS", 5));
    let cpu: Vec<Duration> = (0..3)
        .map(|node| cluster.node(node).process().cpu())
        .collect();
    let (settled, term) = (all_written(), cluster.term(0));
    sleep(time);
    for node in 0..3 {
        let process = cluster.node(node).process();
        let (cpu, memory) = (process.cpu() - cpu[node], process.resident_bytes());
        let bytes = written(node) - settled[node];
        let line = format!(
            "node {node}, idle {time:?}: {cpu:?} of CPU, {memory} bytes resident, {bytes} written"
        );
        let release = crate::harness::server::is_release();
        let (cores, memory_bar) = if release {
            (100, 8 << 20)
        } else {
            (20, 16 << 20)
        };
        // The kernel counts user time and system time in hundredths of a second.
        let bar = time / cores + Duration::from_millis(20);
        own_bar(memory < memory_bar && bytes == 0, &line);
        time_bar(cpu < bar, &line);
    }
    assert_eq!(cluster.term(0), term, "an election in idleness");
}
