//! A follower with a line that is much too slow for the writes. The leader must keep its memory bounded and must not
//! lose its term (hazard D22).
//!
//! The full test has `SLOW_MB=100`. With less data, the memory limit leaves room for the server's own needs.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use crate::harness::{Cluster, Connection, setting, wait_for};
use crate::support::{ELECTION_TIMEOUT, alone, own_bar, watch_for};

const WRITERS: u64 = 8;
const VALUE_BYTES: u64 = 4096;
/// A tenth of the write rate or less. An append still takes less than an election timeout on this line.
const NARROW: u64 = 512 << 10;
const SNAPSHOT_WITHIN: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(600);
/// With at least this many bytes, the server's own memory is small compared with the data.
const FULL: u64 = 100_000_000;
const ROOM: u64 = 32 << 20;

#[test]
#[ignore = "needs root and ip, for links that can be cut"]
fn a_slow_follower_costs_the_leader_neither_memory_nor_term() {
    let _alone = alone();
    let writes = setting("SLOW_MB", 8) * 1_000_000 / VALUE_BYTES;
    // At most a dozen snapshots, each twice as large as the previous one.
    let snapshots = format!("--snapshot-count={}", (writes / 12).max(1));
    let cluster = Cluster::linked(3, &[&snapshots]);
    let leader = cluster.wait_leader();
    let follower = cluster.others(leader)[0];
    let term = cluster.term(leader);
    cluster.throttle(follower, NARROW);

    let watch = Watch::default();
    let third = writes / 3;
    scope(|scope| {
        scope.spawn(|| watch.look_at(&cluster, leader));
        let _ends = EndOf(&watch);
        let start = Instant::now();
        // The follower receives the log, and falls behind.
        write(&cluster, leader, 0..third);
        // It is cut off for longer than the leader keeps its log for it.
        cluster.isolate(follower);
        write(&cluster, leader, third..2 * third);
        watch_for(ELECTION_TIMEOUT * 2, || {});
        cluster.heal();
        wait_for("a snapshot for the follower", SNAPSHOT_WITHIN, || {
            let log = cluster.node(leader).log();
            log.contains("sending the snapshot").then_some(())
        });
        println!(
            "a snapshot is on its way after {:?}, the leader had {} at most",
            start.elapsed(),
            megabytes(watch.memory())
        );
        // The rest is written while the snapshot is sent, which takes much longer on that line.
        write(&cluster, leader, 2 * third..writes);
        println!("all was written after {:?}", start.elapsed());
        assert!(
            held_by(&cluster, follower, writes - 1).is_none(),
            "the follower has kept up: its line is not slow enough"
        );
        own_bar(
            cluster.term(leader) == term && cluster.wait_leader() == leader,
            &format!("no election in term {term} while one follower is slow"),
        );

        cluster.unthrottle(follower);
        let wide = Instant::now();
        wait_for("the follower to have the last write", PATIENCE, || {
            held_by(&cluster, follower, writes - 1)
        });
        println!("with a fast line it caught up in {:?}", wide.elapsed());
    });

    let (data, memory) = (writes * VALUE_BYTES, watch.memory());
    println!(
        "{} were written; the leader had {} resident and {} on disk at most",
        megabytes(data),
        megabytes(memory),
        megabytes(watch.disk())
    );
    let room = if data + VALUE_BYTES > FULL { 0 } else { ROOM };
    own_bar(
        memory < 2 * data + room,
        &format!(
            "{} resident, less than twice the data and {}",
            megabytes(memory),
            megabytes(room)
        ),
    );
    let after = cluster.term(leader);
    own_bar(
        after == term,
        &format!("the term stays {term}, it is {after}"),
    );
    compare(&cluster, leader, follower);
}

/// The highest use of resources that was observed on one node.
#[derive(Default)]
struct Watch {
    memory: AtomicU64,
    disk: AtomicU64,
    ended: AtomicBool,
}

impl Watch {
    fn look_at(&self, cluster: &Cluster, node: usize) {
        let (process, data) = (cluster.node(node).process(), cluster.node(node).data());
        while !self.ended.load(Ordering::Relaxed) {
            let memory = process.resident_bytes();
            self.memory.fetch_max(memory, Ordering::Relaxed);
            self.disk.fetch_max(bytes_in(data), Ordering::Relaxed);
            sleep(Duration::from_millis(20));
        }
    }

    fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    fn disk(&self) -> u64 {
        self.disk.load(Ordering::Relaxed)
    }
}

/// Stops the measuring thread even if the test fails. Otherwise its scope would wait for it forever.
struct EndOf<'a>(&'a Watch);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Relaxed);
    }
}

/// The total size of all files below a folder. A file that is deleted meanwhile counts as 0.
fn bytes_in(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = entries.map(|entry| match entry.metadata() {
        Ok(about) if about.is_dir() => bytes_in(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    });
    bytes.sum()
}

/// Each writer has its own folder, so that the contents of two nodes can be compared in parts.
fn key(write: u64) -> String {
    format!("/v2/keys/slow/{}/{write}", write % WRITERS)
}

/// Writes new keys through one node. Every write must succeed.
fn write(cluster: &Cluster, node: usize, numbers: std::ops::Range<u64>) {
    scope(|scope| {
        for writer in 0..WRITERS {
            let own = numbers
                .clone()
                .filter(move |number| number % WRITERS == writer);
            scope.spawn(move || {
                let mut connection = cluster.node(node).connect();
                for number in own {
                    put(&mut connection, number);
                }
            });
        }
    });
}

fn put(connection: &mut Connection, number: u64) {
    let width = VALUE_BYTES as usize;
    let form = format!("value={number:0width$}");
    let answer = connection.ask("PUT", &key(number), Some(&form));
    let answer = answer.unwrap_or_else(|error| panic!("write {number}: {error}"));
    assert_eq!(answer.status, 201, "write {number}: {}", answer.text());
}

/// Whether a local read on this node returns this key.
fn held_by(cluster: &Cluster, node: usize, write: u64) -> Option<()> {
    let within = Duration::from_secs(5);
    let answer = cluster
        .node(node)
        .try_ask("GET", &key(write), None, within)
        .ok()?;
    (answer.status == 200).then_some(())
}

/// Checks that both nodes have the same keys, values and indexes.
fn compare(cluster: &Cluster, one: usize, other: usize) {
    for writer in 0..WRITERS {
        let target = format!("/v2/keys/slow/{writer}?recursive=true&sorted=true");
        let [one, other] = [one, other].map(|node| cluster.node(node).ask("GET", &target, None));
        assert_eq!((one.status, other.status), (200, 200), "{target}");
        // Not `assert_eq`, which would print megabytes of values.
        assert!(
            one.body == other.body,
            "{target} is not the same on both nodes"
        );
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
