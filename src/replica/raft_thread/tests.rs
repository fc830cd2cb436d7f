//! The thread carries out hand-made effects, and passes snapshots on. The other threads are channels.

use super::*;
use crate::engine::entry;
use crate::engine::members::{Member, Members};
use crate::engine::peer_message::PeerMessage;
use crate::engine::request::Effect;
use crate::engine::state::State;
use crate::engine::time::{Estimate, Monotonic};
use crate::engine::{Incoming, Settings};
use crate::http1;
use crate::raft::{self, Core, LogIndex, Membership, NodeId, SnapshotMetadata, Start, Term};
use crate::replica::clock::SystemClock;
use crate::replica::{Done, Waiter};
use crate::storage::jobs::Job;
use crate::tree::{Applied, ClusterTime};
use crossbeam_channel::{TryRecvError, bounded, unbounded};
use std::sync::Mutex;

const ME: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);

/// Records the calls in their order.
#[derive(Clone)]
struct Recorder {
    calls: Arc<Mutex<Vec<String>>>,
    jobs: Receiver<LogInput>,
    view: Arc<View>,
}

impl Recorder {
    fn record(&self, call: impl Into<String>) {
        self.calls.lock().expect("no panic").push(call.into());
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().expect("no panic"))
    }
}

impl Views for Recorder {
    fn view(&self) -> Arc<View> {
        self.view.clone()
    }

    fn publish(&self, view: View, _: Vec<Applied>) {
        let jobs = self.jobs.len();
        self.record(format!("publish {} after {jobs} jobs", view.applied.0));
    }

    fn jump(&self, view: View) {
        self.record(format!("jump to {}", view.applied.0));
    }
}

impl Peers for Recorder {
    fn send(&self, _: Vec<(NodeId, PeerMessage)>) {
        self.record("send");
    }

    fn send_snapshot(&self, to: NodeId, term: Term) {
        self.record(format!("snapshot to {} in {}", to.0, term.0));
    }

    fn cut(&self, from: NodeId) {
        self.record(format!("cut {}", from.0));
    }

    fn set_members(&self, members: &Members) {
        self.record(format!("{} members", members.iter().count()));
    }
}

impl Waiter<http1::Outbox> for Recorder {
    fn done(self: Box<Self>, _: &Done, _: &mut http1::Outbox) {
        self.record("reply");
    }

    fn failed(self: Box<Self>, failure: Failure, _: &mut http1::Outbox) {
        self.record(format!("{failure:?}"));
    }
}

fn settings() -> Settings {
    Settings {
        tick: Duration::from_millis(10),
        request_timeout: Duration::from_secs(5),
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

fn membership() -> Membership {
    Membership {
        voters: [ME, TWO].into(),
        ..Membership::default()
    }
}

fn state() -> State {
    let member = |id| Member {
        id,
        name: String::new(),
        peer_urls: Vec::new(),
        client_urls: Vec::new(),
    };
    State::new(Members::new(1, [1, 2].map(member)), 100)
}

/// A member of two that has no leader, and the other end of what it sends.
struct Bench {
    thread: RaftThread<http1::Outbox>,
    recorder: Recorder,
    removed: Receiver<()>,
}

fn bench() -> Bench {
    let snapshot = SnapshotMetadata {
        membership: membership(),
        ..SnapshotMetadata::default()
    };
    let start = Start {
        snapshot,
        ..Start::default()
    };
    let core = Core::new(raft::Settings::new(ME, 1), start);
    let status = Status::new(&core, &state(), Duration::from_secs(5));
    let now = SystemClock.now();
    let estimate = Estimate::new(ClusterTime(1_000_000), now.monotonic);
    let engine = Engine::new(core, state(), settings(), estimate, now);
    let view = Arc::new(View {
        tree: state().tree,
        applied: LogIndex(0),
        term: Term(0),
    });
    let ((jobs, to_do), (removal, removed)) = (unbounded(), bounded(1));
    let recorder = Recorder {
        calls: Arc::default(),
        jobs: to_do,
        view,
    };
    let thread = RaftThread::new(Wiring {
        engine,
        views: Arc::new(recorder.clone()),
        clock: Arc::new(SystemClock),
        estimate: Arc::new(SharedEstimate::default()),
        status: Arc::new(status),
        requests: closed_for_now(),
        rung: closed_for_now(),
        from_peers: closed_for_now(),
        ended: Arc::new(AtomicBool::new(false)),
        backlog: Arc::new(Backlog::default()),
        stop: closed_for_now(),
        reports: closed_for_now(),
        jobs,
        peers: Arc::new(recorder.clone()),
        removed: removal,
        trace: Arc::new(TraceLog::new(NodeId(1))),
    });
    Bench {
        thread,
        recorder,
        removed,
    }
}

fn publication(applied: u64, is_jump: bool) -> Publication {
    Publication {
        tree: state().tree,
        applied: LogIndex(applied),
        term: Term(1),
        events: Vec::new(),
        is_jump,
    }
}

fn write(recorder: &Recorder) -> Reply<Caller<http1::Outbox>> {
    Reply {
        caller: Caller::Write(Box::new(recorder.clone())),
        outcome: Outcome::Done {
            effect: Effect::Members(Ok(())),
            applied: LogIndex(3),
            term: Term(1),
        },
    }
}

/// A client that has a reply can read its effect, and the disk works while the views are published.
#[test]
fn effects_take_place_in_the_documented_order() {
    let mut bench = bench();
    bench.thread.shown = true;
    let effects = Effects {
        send: vec![(TWO, PeerMessage::AskIndex { number: 1 })],
        send_snapshot: vec![(TWO, Term(4))],
        cut: vec![NodeId(9)],
        disk: vec![DiskJob::Reserve(5)],
        members_changed: true,
        publish: vec![publication(2, false), publication(3, true)],
        replies: vec![write(&bench.recorder)],
        ..Effects::default()
    };
    bench.thread.perform(effects, Instant::now());
    let wanted = [
        "send",
        "snapshot to 2 in 4",
        "cut 9",
        "2 members",
        "publish 2 after 1 jobs",
        "jump to 3",
        "reply",
    ];
    assert_eq!(bench.recorder.calls(), wanted);
    assert_eq!(bench.removed.try_recv(), Err(TryRecvError::Empty));
}

fn logged(index: u64) -> raft::Entry {
    raft::Entry {
        position: Position {
            term: Term(1),
            index: LogIndex(index),
        },
        payload: raft::Payload::Command(entry::time().into()),
    }
}

/// A member alone whose log has this many entries. The second half of them is in memory.
fn alone(entries: u64) -> Bench {
    let voters = Membership {
        voters: [ME].into(),
        ..Membership::default()
    };
    let start = Start {
        hard_state: raft::HardState {
            term: Term(1),
            vote: None,
        },
        snapshot: SnapshotMetadata {
            membership: voters,
            ..SnapshotMetadata::default()
        },
        log: raft::StoredLog {
            terms: vec![(LogIndex(1), Term(1))],
            last: LogIndex(entries),
            tail: (entries / 2 + 1..=entries).map(logged).collect(),
            ..raft::StoredLog::default()
        },
    };
    let now = SystemClock.now();
    let estimate = Estimate::new(ClusterTime(1_000_000), now.monotonic);
    let core = Core::new(raft::Settings::new(ME, 1), start);
    let mut bench = bench();
    bench.thread.wiring.engine = Engine::new(core, state(), settings(), estimate, now);
    bench
}

/// A view shares the tree, and then the thread copies what it changes.
#[test]
fn a_start_shows_nothing_before_its_log_is_applied() {
    let mut bench = alone(10);
    let mut reads = Vec::new();
    bench.thread.step(Event::Start);
    while let Ok(LogInput::Job(job)) = bench.recorder.jobs.try_recv() {
        assert_eq!(published(&bench), [""; 0], "reads so far: {reads:?}");
        let report = match job {
            Job::Save { batch, .. } => DiskReport::Stored(vec![jobs::stored(&batch)]),
            // The disk returns one entry at a time.
            Job::Read { from, .. } => {
                reads.push(from.0);
                DiskReport::Read(vec![logged(from.0)])
            }
            _ => unreachable!("nothing else is stored or read"),
        };
        bench.thread.take_report(report);
    }
    assert_eq!(reads, [1, 2, 3, 4, 5]);
    // Its own first entry is the last one.
    assert_eq!(published(&bench), ["jump to 11"]);
}

fn published(bench: &Bench) -> Vec<String> {
    let is_view = |call: &String| call.starts_with("publish") || call.starts_with("jump");
    bench.recorder.calls().into_iter().filter(is_view).collect()
}

/// A client that has a reply can read its effect and all earlier ones.
#[test]
fn the_first_reply_comes_after_the_first_view() {
    let mut bench = bench();
    bench.thread.perform(Effects::default(), Instant::now());
    assert_eq!(published(&bench), [""; 0], "nothing new, and no reader");
    let effects = || Effects {
        replies: vec![write(&bench.recorder)],
        ..Effects::default()
    };
    let (first, second) = (effects(), effects());
    bench.thread.perform(first, Instant::now());
    assert_eq!(bench.recorder.calls(), ["jump to 0", "reply"]);
    bench.thread.perform(second, Instant::now());
    assert_eq!(bench.recorder.calls(), ["reply"], "the view is shown");
}

#[test]
fn the_process_is_told_of_the_removal() {
    let mut bench = bench();
    for _ in 0..3 {
        let effects = Effects {
            removed: true,
            ..Effects::default()
        };
        bench.thread.perform(effects, Instant::now());
    }
    assert_eq!(bench.removed.try_recv(), Ok(()));
}

/// `/livez` relies on it: a supervisor restarts a member whose raft thread hangs, and no other one.
#[test]
fn a_thread_that_misses_its_tick_for_ten_seconds_is_stuck() {
    let mut bench = bench();
    let status = bench.thread.wiring.status.clone();
    let late = |due: Monotonic, by: Duration| status.is_raft_stuck(due + by);
    assert!(
        !late(Monotonic(0), Duration::from_secs(1 << 20)),
        "no step yet"
    );
    bench.thread.perform(Effects::default(), Instant::now());
    let due = bench.thread.wiring.engine.deadline();
    assert!(!late(due, Duration::ZERO));
    assert!(!late(due, Duration::from_millis(9_999)));
    assert!(late(due, Duration::from_secs(10)));
}

/// Remembers whether reads relied on this member alone when a message was sent.
struct SeenWhenSent(Arc<Status>, Arc<AtomicBool>);

impl Peers for SeenWhenSent {
    fn send(&self, _: Vec<(NodeId, PeerMessage)>) {
        self.1
            .store(self.0.is_view_linearizable(), Ordering::Release);
    }

    fn send_snapshot(&self, _: NodeId, _: Term) {}

    fn cut(&self, _: NodeId) {}

    fn set_members(&self, _: &Members) {}
}

/// The message may make another member the leader, whose writes are in no view of this one.
#[test]
fn reads_rely_on_no_view_when_a_message_leaves() {
    let mut bench = bench();
    let (status, seen) = (
        bench.thread.wiring.status.clone(),
        Arc::new(AtomicBool::new(true)),
    );
    bench.thread.wiring.peers = Arc::new(SeenWhenSent(status.clone(), seen.clone()));
    status.decide_alone();
    let effects = Effects {
        send: vec![(TWO, PeerMessage::AskIndex { number: 1 })],
        ..Effects::default()
    };
    bench.thread.perform(effects, Instant::now());
    assert!(
        !seen.load(Ordering::Acquire),
        "this member has no majority alone"
    );
}

/// Other threads show times to live by this estimate.
#[test]
fn the_other_threads_get_the_cluster_time() {
    let mut bench = bench();
    bench.thread.perform(Effects::default(), Instant::now());
    let shared = bench.thread.wiring.estimate.get();
    assert_eq!(shared, bench.thread.wiring.engine.estimate());
    assert!(shared.at(Monotonic(0)) != ClusterTime(0));
}

/// A reader of the trace would otherwise miss the last record until something else happens.
#[test]
fn each_step_adds_its_records_to_the_trace() {
    let mut bench = bench();
    let mut recorded = 0;
    for _ in 0..200 {
        bench.thread.step(Event::Tick);
        recorded += bench.thread.wiring.engine.trace().len();
        assert!(bench.thread.records.is_empty(), "after {recorded} records");
    }
    assert!(recorded > 0, "a member without a leader asks for votes");
    let connects = PeerEvent::Understands {
        member: TWO,
        format: 1,
    };
    bench.thread.step(Event::Peers(vec![connects]));
    assert_eq!(bench.thread.wiring.engine.trace().len(), 1);
    assert!(bench.thread.records.is_empty(), "a single record");
}

// Snapshots of another member

/// A snapshot of TWO, whether its file got its final name, and the channel on which TWO waits.
fn received(index: u64) -> (FromPeers, Arc<AtomicBool>, Receiver<Position>) {
    let done = Arc::new(AtomicBool::new(false));
    let (installed, waits) = bounded(1);
    let position = Position {
        term: Term(1),
        index: LogIndex(index),
    };
    let mut state = state();
    state.applied = position.index;
    let flag = done.clone();
    let received = Received {
        incoming: Incoming {
            from: TWO,
            term: Term(1),
            metadata: SnapshotMetadata {
                position,
                membership: membership(),
            },
            state,
            bytes: 100,
        },
        finish: Box::new(move || {
            flag.store(true, Ordering::SeqCst);
            Ok(())
        }),
        installed,
    };
    (FromPeers::Snapshot(Box::new(received)), done, waits)
}

fn install_job(bench: &Bench) -> Finish {
    let mut jobs = bench.recorder.jobs.try_iter();
    let install = jobs.find_map(|job| match job {
        LogInput::Job(Job::Install(installation)) => Some(installation.finish),
        _ => None,
    });
    install.expect("the snapshot is installed")
}

#[test]
fn the_sender_of_a_snapshot_is_told_when_it_is_installed() {
    let mut bench = bench();
    let (snapshot, is_finished, sender) = received(9);
    bench.thread.take_from_peers(snapshot);
    assert!(
        !is_finished.load(Ordering::SeqCst),
        "the WAL thread does it"
    );
    install_job(&bench)().expect("it has no disk");
    assert!(is_finished.load(Ordering::SeqCst), "its own file");
    bench.thread.take_report(DiskReport::Stored(Vec::new()));
    assert_eq!(sender.try_recv(), Err(TryRecvError::Empty));
    let position = Position {
        term: Term(1),
        index: LogIndex(9),
    };
    bench.thread.take_report(DiskReport::Installed(position));
    assert_eq!(sender.try_recv(), Ok(position));
    assert!(bench.recorder.calls().contains(&"jump to 9".into()));
}

#[test]
fn a_second_snapshot_leaves_the_file_of_the_first_alone() {
    let mut bench = bench();
    let (first, is_finished, first_sender) = received(9);
    let (second, _, second_sender) = received(12);
    bench.thread.take_from_peers(first);
    bench.thread.take_from_peers(second);
    let dropped = second_sender.try_recv();
    assert_eq!(dropped, Err(TryRecvError::Disconnected), "it is told");
    assert_eq!(first_sender.try_recv(), Err(TryRecvError::Empty));
    install_job(&bench)().expect("it has no disk");
    assert!(is_finished.load(Ordering::SeqCst));
}

#[test]
fn a_snapshot_that_is_not_used_is_dropped_and_bars_no_other() {
    let mut bench = bench();
    let (unused, _, sender) = received(0);
    bench.thread.take_from_peers(unused);
    assert_eq!(sender.try_recv(), Err(TryRecvError::Disconnected));
    let (next, _, sender) = received(9);
    bench.thread.take_from_peers(next);
    assert_eq!(sender.try_recv(), Err(TryRecvError::Empty));
    drop(install_job(&bench));
}
