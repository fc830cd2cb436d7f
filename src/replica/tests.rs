//! Tests of a whole replica in a cluster of one, on a disk that can be slow, full, or without power.

use super::clock::SharedEstimate;
use super::peers::NoPeers;
use super::{Done, Effect, Failure, Parts, QUEUED_MAX, Reader, Settings, Threads, Waiter};
use crate::api::{Replica, WatchHub};
use crate::engine::REQUESTS_MAX;
use crate::engine::members::{Member, MemberError, Members};
use crate::engine::state::{Loader, State};
use crate::http1::Outbox;
use crate::raft::{Core, Membership, NodeId, SnapshotMetadata, Start};
use crate::storage::clock::Clock;
use crate::threads::Reserved;
use crate::tree::{Action, Command, EXPIRED_AT_ONCE, Key, TreeIndex, WallTime};
use crate::wal::{DataDir, FaultyDisk, Options, recover};
use crate::watch::View;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ME: NodeId = NodeId(7);
const PATIENCE: Duration = Duration::from_secs(20);
const SECOND: u64 = 1_000_000_000;

/// A clock that tests can advance. Its wall clock shows what a test sets.
struct Hand(AtomicU64, AtomicI64, Instant);

impl Default for Hand {
    fn default() -> Hand {
        Hand(AtomicU64::new(0), AtomicI64::new(0), Instant::now())
    }
}

impl Clock for Hand {
    fn since_boot(&self) -> u64 {
        self.0.load(Ordering::Relaxed) + self.2.elapsed().as_nanos() as u64
    }
    fn wall(&self) -> WallTime {
        WallTime(self.1.load(Ordering::Relaxed))
    }
    fn boot_id(&self) -> [u8; 16] {
        [1; 16]
    }
}

/// A running replica, and the channel of its replies.
struct Node {
    replica: Replica,
    threads: Threads,
    hub: Arc<WatchHub>,
    clock: Arc<Hand>,
    said: Sender<Said>,
    answers: Receiver<Said>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Said {
    Done(TreeIndex),
    Refused(u16),
    Members(Result<(), MemberError>),
    /// A quorum read, with the tree's index that it saw.
    Read(TreeIndex),
    Failed(Failure),
}

struct Client(Sender<Said>);

impl Waiter<Outbox> for Client {
    fn done(self: Box<Self>, done: &Done, _: &mut Outbox) {
        let said = match &done.effect {
            Effect::Event(applied) => Said::Done(applied.event.index),
            Effect::Refused(error) => Said::Refused(error.status()),
            Effect::Members(result) => Said::Members(*result),
            Effect::Auth(_) => unreachable!("nothing here changes users"),
        };
        let _ = self.0.send(said);
    }

    fn failed(self: Box<Self>, failure: Failure, _: &mut Outbox) {
        let _ = self.0.send(Said::Failed(failure));
    }
}

impl Reader<Outbox> for Client {
    fn ready(self: Box<Self>, view: &Arc<View>, _: &mut Outbox) {
        let _ = self.0.send(Said::Read(view.tree.index()));
    }

    fn failed(self: Box<Self>, failure: Failure, _: &mut Outbox) {
        let _ = self.0.send(Said::Failed(failure));
    }
}

fn settings() -> Settings {
    Settings {
        tick: Duration::from_millis(10),
        request_timeout: PATIENCE,
        leader_timeout: Duration::from_secs(1),
        snapshot_count: u64::MAX,
        snapshot_bytes: 0,
        log_bytes_max: u64::MAX,
        batch_bytes_max: usize::MAX,
        history_bytes: usize::MAX,
        stall: Duration::from_millis(10),
        keep_tail: Duration::from_secs(30),
        election_ticks: 100,
        strict_changes: true,
        first_tag: 7,
    }
}

impl Node {
    /// Starts with the content of the disk, and waits until it serves.
    fn start(disk: &FaultyDisk, settings: Settings) -> Node {
        let node = Node::launch(disk, settings);
        node.read();
        assert!(matches!(node.next(), Said::Read(_)), "it serves");
        node
    }

    fn launch(disk: &FaultyDisk, settings: Settings) -> Node {
        let options = Options {
            segment_bytes: 64 << 10,
            segment_bytes_max: 64 << 10,
            ..Options::new("/data")
        };
        let data_dir = DataDir::open(disk.clone(), options).expect("the directory is free");
        let (wal, found) = recover(&data_dir).expect("the log is sound");
        let bootstrap = SnapshotMetadata {
            membership: Membership {
                voters: [ME].into(),
                ..Membership::default()
            },
            ..SnapshotMetadata::default()
        };
        let (metadata, state) = match found.snapshot {
            None => (bootstrap, State::new(members(), 1000)),
            Some(mut reader) => {
                let (metadata, mut loader) = (reader.metadata().clone(), Loader::new(1000));
                let mut slice = Vec::new();
                while reader.next(&mut slice).expect("the snapshot is sound") {
                    loader.push(&slice).expect("a state's bytes");
                    slice.clear();
                }
                let state = loader
                    .finish(metadata.position.index)
                    .expect("a whole state");
                (metadata, state)
            }
        };
        let hub = Arc::new(WatchHub::new(View {
            tree: state.tree.clone(),
            applied: state.applied,
            term: found.hard_state.term,
        }));
        let clock = Arc::new(Hand::default());
        let start = Start {
            hard_state: found.hard_state,
            snapshot: metadata,
            log: found.log,
        };
        let (replica, threads) = Replica::start(Parts {
            core: Core::new(crate::raft::Settings::new(ME, 1), start),
            state,
            wal,
            views: hub.clone(),
            clock: clock.clone(),
            estimate: Arc::new(SharedEstimate::default()),
            settings,
            peers: Arc::new(NoPeers),
            from_peers: crossbeam_channel::never(),
            removed: crossbeam_channel::bounded(1).0,
            thread: Reserved::start("raft").expect("a thread"),
        })
        .expect("threads");
        let (said, answers) = unbounded();
        Node {
            replica,
            threads,
            hub,
            clock,
            said,
            answers,
        }
    }

    fn put(&self, key: &str, value: &[u8]) {
        self.propose(&set(key, value));
    }

    fn propose(&self, command: &Command) {
        let client = Client(self.said.clone());
        self.replica.propose(command, Box::new(client));
    }

    fn read(&self) {
        self.replica.read(Box::new(Client(self.said.clone())));
    }

    fn next(&self) -> Said {
        self.answers.recv_timeout(PATIENCE).expect("an answer")
    }

    fn silent(&self) -> bool {
        self.answers.is_empty()
    }

    fn has(&self, key: &str) -> bool {
        self.hub.view().tree.get(&Key::new(key.as_bytes())).is_ok()
    }

    /// Stops it; returns how long that took.
    fn stop(self) -> Duration {
        let begin = Instant::now();
        self.replica.stop();
        assert!(self.threads.join(PATIENCE), "all threads end");
        begin.elapsed()
    }
}

fn members() -> Members {
    Members::new(1, [member(ME.0, &[])])
}

fn member(id: u64, peer_urls: &[&str]) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        peer_urls: peer_urls.iter().map(|url| (*url).to_owned()).collect(),
        client_urls: Vec::new(),
    }
}

fn set(key: &str, value: &[u8]) -> Command {
    Command {
        action: Action::Set,
        key: Key::new(key.as_bytes()),
        value: value.into(),
        dir: false,
        recursive: false,
        ttl: None,
        refresh: false,
        prev_value: None,
        prev_index: None,
    }
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn an_answer_comes_after_the_sync_and_survives_a_power_cut() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(&disk, settings());
    disk.hold_syncs();
    node.put("/a", b"1");
    eventually("its sync has begun", || disk.held_syncs() == 1);
    // A read passes the raft thread after the write. If the write could be answered already, its answer would be here.
    node.read();
    assert_eq!(node.next(), Said::Read(TreeIndex(0)));
    assert!(node.silent() && !node.has("/a"), "its sync is not over");
    disk.release_syncs();
    assert_eq!(node.next(), Said::Done(TreeIndex(1)));
    assert!(
        node.has("/a"),
        "a client that has a reply can read its write"
    );
    // The disk's content at the moment of the answer, after a power cut.
    let after = disk.fork(2);
    after.crash();
    let again = Node::start(&after, settings());
    assert!(again.has("/a"));
    again.stop();
    node.stop();
}

#[test]
fn refusals_of_the_tree_are_answers() {
    let node = Node::start(&FaultyDisk::new(1), settings());
    node.put("/", b"1");
    assert_eq!(node.next(), Said::Refused(400));
    node.put("/a", b"1");
    assert_eq!(node.next(), Said::Done(TreeIndex(1)));
    node.stop();
}

#[test]
fn a_full_disk_refuses_writes_serves_quorum_reads_and_recovers() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(&disk, settings());
    disk.set_capacity(disk.used());
    let value = vec![b'x'; 8 << 10];
    let mut written = 0;
    loop {
        node.put("/a", &value);
        match node.next() {
            Said::Done(_) => written += 1,
            Said::Failed(Failure::DiskFull) => break,
            other => panic!("{other:?}"),
        }
        assert!(written < 1000, "the disk never fills");
    }
    assert!(node.replica.status().disk_full());
    node.put("/b", b"1");
    assert_eq!(node.next(), Said::Failed(Failure::DiskFull));
    node.read();
    assert_eq!(node.next(), Said::Read(TreeIndex(written)), "reads go on");
    disk.set_capacity(u64::MAX);
    eventually("there is space again", || {
        !node.replica.status().disk_full()
    });
    node.put("/b", b"1");
    // The write that met the full disk was not lost. It may be applied, and here it is.
    assert_eq!(node.next(), Said::Done(TreeIndex(written + 2)));
    node.stop();
}

#[test]
fn a_start_with_a_full_disk_says_so_at_once() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(&disk, settings());
    disk.set_capacity(disk.used());
    let value = vec![b'x'; 100];
    let mut failed = false;
    while !failed {
        node.put("/a", &value);
        failed = node.next() == Said::Failed(Failure::DiskFull);
    }
    node.stop();
    // The rest of the segment has space for some more starts.
    let again = (0..20).find_map(|_| {
        let again = Node::launch(&disk, settings());
        again.read();
        if again.next() == Said::Failed(Failure::DiskFull) {
            return Some(again);
        }
        again.stop();
        None
    });
    let again = again.expect("no room for the entry of a new term");
    again.read();
    assert_eq!(again.next(), Said::Failed(Failure::DiskFull));
    disk.set_capacity(u64::MAX);
    eventually("there is space again", || {
        again.read();
        matches!(again.next(), Said::Read(_))
    });
    again.stop();
}

#[test]
fn a_stop_with_a_full_disk_is_quick() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(&disk, settings());
    disk.set_capacity(0);
    node.put("/a", &vec![b'x'; 128 << 10]);
    assert_eq!(node.next(), Said::Failed(Failure::DiskFull));
    let took = node.stop();
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[test]
fn a_stop_finishes_what_was_handed_over() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(&disk, settings());
    disk.set_sync_delay(Duration::from_millis(50));
    for number in 0..200 {
        node.put(&format!("/k{number}"), b"1");
    }
    let answers = node.answers.clone();
    node.stop();
    let said: Vec<Said> = answers.try_iter().collect();
    assert_eq!(said.len(), 200, "each request is answered once");
    assert!(said.iter().all(|said| matches!(said, Said::Done(_))));
    disk.kill();
    disk.set_sync_delay(Duration::ZERO);
    let again = Node::start(&disk, settings());
    assert!((0..200).all(|number| again.has(&format!("/k{number}"))));
    again.stop();
}

/// A client that writes again at each answer, until it is stopped or refused.
struct Eager {
    replica: Replica,
    going: Arc<AtomicBool>,
    refused: Sender<Failure>,
}

impl Waiter<Outbox> for Eager {
    fn done(self: Box<Self>, _: &Done, _: &mut Outbox) {
        if self.going.load(Ordering::Relaxed) {
            let replica = self.replica.clone();
            replica.propose(&set("/busy", b"1"), self);
        }
    }

    fn failed(self: Box<Self>, failure: Failure, _: &mut Outbox) {
        let _ = self.refused.send(failure);
    }
}

impl Node {
    /// Starts this many writers that never pause.
    fn load(&self, writers: usize) -> (Arc<AtomicBool>, Receiver<Failure>) {
        let going = Arc::new(AtomicBool::new(true));
        let (refused, refusals) = unbounded();
        for _ in 0..writers {
            let eager = Eager {
                replica: self.replica.clone(),
                going: going.clone(),
                refused: refused.clone(),
            };
            self.replica.propose(&set("/busy", b"1"), Box::new(eager));
        }
        (going, refusals)
    }
}

#[test]
fn a_stop_under_load_does_not_wait_for_the_load_to_end() {
    let node = Node::start(&FaultyDisk::new(1), settings());
    let (_going, refusals) = node.load(64);
    std::thread::sleep(Duration::from_millis(100));
    let took = node.stop();
    assert!(took < Duration::from_millis(500), "{took:?}");
    let refusals: Vec<Failure> = refusals.try_iter().collect();
    assert_eq!(refusals.len(), 64, "each writer gets a refusal");
    assert!(refusals.iter().all(|refusal| *refusal == Failure::Stopped));
}

#[test]
fn who_asks_while_it_ends_is_told() {
    const ASKERS: usize = 4;
    for round in 0..20 {
        let node = Node::start(&FaultyDisk::new(round), settings());
        let asked: Vec<_> = (0..ASKERS)
            .map(|_| {
                let (replica, said) = (node.replica.clone(), node.said.clone());
                std::thread::spawn(move || {
                    let ended = || replica.ended.load(Ordering::SeqCst);
                    let (mut asked, mut after) = (0, 0);
                    while after < 10 {
                        replica.propose(&set("/a", b"1"), Box::new(Client(said.clone())));
                        asked += 1;
                        after += usize::from(ended());
                    }
                    asked
                })
            })
            .collect();
        let answers = node.answers.clone();
        std::thread::sleep(Duration::from_millis(5));
        node.stop();
        let asked: usize = asked.into_iter().map(|a| a.join().expect("no panic")).sum();
        assert_eq!(
            answers.try_iter().count(),
            asked,
            "each request is answered once"
        );
    }
}

/// Its next tick is far away, so nothing but the bell wakes the raft thread.
#[test]
fn one_bell_hands_over_all_queued_requests() {
    let settings = Settings {
        tick: Duration::from_secs(3600),
        ..settings()
    };
    let node = Node::start(&FaultyDisk::new(1), settings);
    let client = || Box::new(Client(node.said.clone()));
    for _ in 0..3 {
        node.replica.queue_write(&set("/a", b"1"), client());
    }
    node.replica.wake();
    for index in 1..=3 {
        assert_eq!(node.next(), Said::Done(TreeIndex(index)));
    }
    node.replica.queue_read(client());
    node.replica.wake();
    assert_eq!(node.next(), Said::Read(TreeIndex(3)));
    // So many requests do not wait for the end of a round.
    for _ in 0..QUEUED_MAX {
        node.replica.queue_write(&set("/a", b"1"), client());
    }
    assert_eq!(node.next(), Said::Done(TreeIndex(4)));
    node.stop();
}

#[test]
fn the_view_of_a_sole_voter_is_linearizable() {
    let node = Node::start(&FaultyDisk::new(1), settings());
    let status = node.replica.status();
    eventually("it decides alone", || status.is_view_linearizable());
    for index in 1..=100 {
        node.put("/a", b"1");
        assert_eq!(node.next(), Said::Done(TreeIndex(index)));
        assert!(status.is_view_linearizable());
        assert_eq!(node.hub.view().tree.index(), TreeIndex(index));
    }
    node.replica.stop();
    eventually("it stops", || !status.is_view_linearizable());
    node.stop();
}

#[test]
fn keys_expire_under_load_too() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(&disk, settings());
    node.propose(&Command {
        ttl: Some(5),
        ..set("/short", b"1")
    });
    assert!(matches!(node.next(), Said::Done(_)));
    // Slow enough that the WAL almost always has a batch.
    disk.set_sync_delay(Duration::from_millis(30));
    let (going, _refusals) = node.load(16);
    node.clock.0.store(6 * SECOND, Ordering::Relaxed);
    let begin = Instant::now();
    eventually("the key expires", || !node.has("/short"));
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    going.store(false, Ordering::Relaxed);
    disk.set_sync_delay(Duration::ZERO);
    node.stop();
}

/// More keys expire than one entry may remove. Ticks are so rare that a wait for the next one would be noticed.
#[test]
fn what_one_expiry_leaves_over_goes_at_once() {
    let tick = Duration::from_secs(3);
    let node = Node::start(&FaultyDisk::new(1), Settings { tick, ..settings() });
    for thousand in 0..=2 * EXPIRED_AT_ONCE / 1000 {
        for key in 0..1000 {
            node.propose(&Command {
                ttl: Some(5),
                ..set(&format!("/{thousand}/{key}"), b"1")
            });
        }
        (0..1000).for_each(|_| assert!(matches!(node.next(), Said::Done(_))));
    }
    node.clock.0.store(6 * SECOND, Ordering::Relaxed);
    eventually("the first key expires", || !node.has("/0/0"));
    let begin = Instant::now();
    eventually("the last key expires", || !node.hub.view().tree.has_ttl());
    assert!(begin.elapsed() < tick, "{:?}", begin.elapsed());
    node.stop();
}

#[test]
fn a_wall_clock_that_is_set_expires_nothing() {
    let node = Node::start(&FaultyDisk::new(1), settings());
    let day = 86_400 * SECOND as i64;
    for (step, key) in [(day, "/before"), (-day, "/after"), (0, "/now")] {
        node.propose(&Command {
            ttl: Some(100),
            ..set(key, b"1")
        });
        assert!(matches!(node.next(), Said::Done(_)));
        node.clock.1.store(step, Ordering::Relaxed);
    }
    // The cluster time advances, then past the deadline. Expiry runs on the way.
    node.clock.0.store(50 * SECOND, Ordering::Relaxed);
    node.propose(&Command {
        ttl: Some(0),
        ..set("/canary", b"1")
    });
    assert!(matches!(node.next(), Said::Done(_)));
    eventually("expiry has run", || !node.has("/canary"));
    assert!(node.has("/before") && node.has("/after") && node.has("/now"));
    node.clock.0.store(101 * SECOND, Ordering::Relaxed);
    eventually("all are gone", || {
        !node.has("/before") && !node.has("/after") && !node.has("/now")
    });
    node.stop();
}

#[test]
fn a_stalled_disk_holds_up_no_quorum_read_and_no_time_limit() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(
        &disk,
        Settings {
            request_timeout: Duration::from_millis(400),
            ..settings()
        },
    );
    disk.hold_syncs();
    let stuck = node
        .replica
        .status()
        .is_disk_stuck(node.clock.now().monotonic);
    assert!(!stuck, "it has nothing to do");
    node.put("/a", b"1");
    eventually("its sync has begun", || disk.held_syncs() == 1);
    node.read();
    node.put("/b", b"1");
    assert_eq!(node.next(), Said::Read(TreeIndex(0)));
    for _ in 0..2 {
        assert_eq!(node.next(), Said::Failed(Failure::TimedOut));
    }
    assert_eq!(disk.held_syncs(), 1, "the disk still hangs");
    let is_stuck = || {
        node.replica
            .status()
            .is_disk_stuck(node.clock.now().monotonic)
    };
    assert!(is_stuck(), "no write could be acknowledged in time");
    disk.release_syncs();
    eventually("the disk is well again", || !is_stuck());
    eventually("both are applied in the end", || {
        node.has("/a") && node.has("/b")
    });
    node.stop();
}

#[test]
fn a_probe_tells_whether_an_idle_disk_syncs() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(
        &disk,
        Settings {
            request_timeout: Duration::from_millis(400),
            ..settings()
        },
    );
    let probe = || node.replica.probe(Box::new(Client(node.said.clone())));
    let changes = disk.changes();
    probe();
    assert_eq!(node.next(), Said::Read(TreeIndex(0)));
    assert!(disk.changes() > changes, "it was written");
    disk.hold_syncs();
    // The second probe needs a batch after the one that hangs.
    probe();
    eventually("its sync has begun", || disk.held_syncs() == 1);
    probe();
    for _ in 0..2 {
        assert_eq!(node.next(), Said::Failed(Failure::TimedOut));
    }
    assert_eq!(disk.held_syncs(), 1, "the disk still hangs");
    disk.release_syncs();
    let now = || node.clock.now().monotonic;
    eventually("the disk is well again", || {
        !node.replica.status().is_disk_stuck(now())
    });
    probe();
    assert_eq!(node.next(), Said::Read(TreeIndex(0)));
    disk.set_capacity(disk.used());
    let value = vec![b'x'; 8 << 10];
    let mut failed = false;
    while !failed {
        node.put("/a", &value);
        failed = node.next() == Said::Failed(Failure::DiskFull);
    }
    probe();
    assert_eq!(node.next(), Said::Failed(Failure::DiskFull));
    disk.set_capacity(u64::MAX);
    node.stop();
    // Only records of the time were added.
    let again = Node::start(&disk, settings());
    assert!(again.has("/a"));
    again.stop();
}

#[test]
fn a_member_gets_no_url_that_another_is_about_to_get() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(&disk, settings());
    disk.hold_syncs();
    let client = || Box::new(Client(node.said.clone()));
    let (mine, theirs) = (member(ME.0, &["http://a:1"]), member(8, &["http://a:1"]));
    // The first change is not on disk yet when the second is decided.
    node.replica.update_member(&mine, client());
    eventually("its sync has begun", || disk.held_syncs() == 1);
    node.replica.add_member(&theirs, client());
    disk.release_syncs();
    assert_eq!(node.next(), Said::Members(Ok(())));
    assert_eq!(node.next(), Said::Members(Err(MemberError::UrlExists)));
    node.replica.update_member(&theirs, client());
    assert_eq!(node.next(), Said::Members(Err(MemberError::NotFound)));
    node.stop();
}

#[test]
fn a_new_leader_denies_no_member_that_was_acknowledged() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(&disk, settings());
    let client = |node: &Node| Box::new(Client(node.said.clone()));
    let newcomer = member(8, &["http://b:1"]);
    node.replica.add_member(&newcomer, client(&node));
    assert_eq!(node.next(), Said::Members(Ok(())));
    node.stop();
    // It leads before its first entry is on disk. Until that entry is applied, it does not know the members in its log.
    disk.set_sync_delay(Duration::from_millis(300));
    let node = Node::launch(&disk, settings());
    node.replica.remove_member(NodeId(8), client(&node));
    assert_eq!(node.next(), Said::Members(Ok(())));
    node.stop();
}

#[test]
fn what_waits_for_a_stalled_disk_is_bounded() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(&disk, settings());
    disk.hold_syncs();
    node.put("/a", b"1");
    eventually("its sync has begun", || disk.held_syncs() == 1);
    for _ in 0..20_000 {
        node.put("/small", b"1");
    }
    let value = vec![b'x'; 1 << 20];
    for _ in 0..300 {
        node.put("/large", &value);
    }
    // A read reaches the raft thread after all of them, and is answered while the disk hangs. It may be refused too
    // until the raft thread has taken enough of them.
    let (said, answers) = unbounded();
    eventually("a read is served", || {
        node.replica.read(Box::new(Client(said.clone())));
        let answer = answers.recv_timeout(PATIENCE).expect("an answer");
        answer == Said::Read(TreeIndex(0))
    });
    let mut refused = 0;
    for answer in node.answers.try_iter() {
        assert_eq!(answer, Said::Failed(Failure::Overloaded));
        refused += 1;
    }
    assert!(
        refused > 5000,
        "only {refused} of 20,300 were refused at once"
    );
    assert_eq!(disk.held_syncs(), 1, "the disk still hangs");
    disk.release_syncs();
    for _ in refused..20_301 {
        assert!(matches!(node.next(), Said::Done(_)), "the others are done");
    }
    node.stop();
}

/// A caller that occupies the raft thread until the test lets it go. No real caller may do that.
struct Occupier {
    begins: Sender<()>,
    released: Receiver<()>,
}

impl Reader<Outbox> for Occupier {
    fn ready(self: Box<Self>, _: &Arc<View>, _: &mut Outbox) {
        let _ = self.begins.send(());
        let _ = self.released.recv_timeout(PATIENCE);
    }

    fn failed(self: Box<Self>, failure: Failure, _: &mut Outbox) {
        panic!("it is served: {failure:?}");
    }
}

#[test]
fn the_requests_that_wait_for_the_raft_thread_are_bounded() {
    let node = Node::start(&FaultyDisk::new(1), settings());
    let (begins, begun) = unbounded();
    let (release, released) = unbounded();
    node.replica.read(Box::new(Occupier { begins, released }));
    begun.recv_timeout(PATIENCE).expect("it is served");
    for _ in 0..REQUESTS_MAX + 1000 {
        node.read();
    }
    let refused: Vec<Said> = node.answers.try_iter().collect();
    assert_eq!(refused.len(), 1000);
    assert!(
        refused
            .iter()
            .all(|said| *said == Said::Failed(Failure::Overloaded))
    );
    drop(release);
    for _ in 0..REQUESTS_MAX {
        assert!(matches!(node.next(), Said::Read(_)));
    }
    node.stop();
}

#[test]
fn a_snapshot_is_made_and_started_from() {
    let disk = FaultyDisk::new(1);
    let node = Node::start(
        &disk,
        Settings {
            snapshot_count: 10,
            ..settings()
        },
    );
    for number in 0..50 {
        node.put(&format!("/k{number}"), b"1");
        assert!(matches!(node.next(), Said::Done(_)));
    }
    let is_snapshot = |path: &std::path::PathBuf| path.extension().is_some_and(|e| e == "snap");
    eventually("a snapshot", || disk.files().iter().any(is_snapshot));
    node.stop();
    disk.crash();
    let again = Node::start(&disk, settings());
    assert!((0..50).all(|number| again.has(&format!("/k{number}"))));
    assert_eq!(again.hub.view().tree.index(), TreeIndex(50));
    again.stop();
}
