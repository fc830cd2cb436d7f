//! Tests that step one engine by hand. The test plays the disk, the clock and the other members.

mod alone;
mod forwarding;
mod full_disk;
mod hostile;
mod leadership;
mod received_snapshots;
mod requests;
mod snapshots;
mod strangers;

use super::members::{Member, Members, Published};
use super::peer_message::PeerMessage;
use super::request::{Failure, Outcome, Proposal, Request};
use super::state::State;
use super::time::{Estimate, Monotonic, Now};
use super::{
    Batch, DiskJob, DiskReport, Effects, Engine, Event, Note, PeerEvent, Settings, Stored, entry,
};
use crate::raft::{
    self, Body, ChangeKind, Core, Entry, HardState, LogIndex, Membership, Message, NodeId, Payload,
    Position, SnapshotMetadata, Start, StoredLog, Term,
};
use crate::tree::{Action, ClusterTime, Command, EXPIRED_AT_ONCE, Key, Stamp, WallTime};
use core::time::Duration;
use std::collections::VecDeque;

const ME: NodeId = NodeId(1);
const TWO: NodeId = NodeId(2);
const THREE: NodeId = NodeId(3);
const LEARNER: NodeId = NodeId(4);
const TICK: Duration = Duration::from_millis(20);
const ELECTION_TICKS: u32 = 50;

fn member(id: u64) -> Member {
    Member {
        id,
        name: format!("n{id}"),
        peer_urls: vec![format!("http://n{id}:2380")],
        client_urls: Vec::new(),
    }
}

fn settings() -> Settings {
    Settings {
        tick: TICK,
        request_timeout: Duration::from_secs(7),
        leader_timeout: Duration::from_secs(2),
        snapshot_count: u64::MAX,
        snapshot_bytes: 0,
        log_bytes_max: u64::MAX,
        batch_bytes_max: 1_000_000,
        history_bytes: usize::MAX,
        stall: Duration::from_millis(100),
        keep_tail: Duration::from_secs(30),
        election_ticks: ELECTION_TICKS,
        strict_changes: true,
        first_tag: 7,
    }
}

/// A member of a cluster of three, with a learner if the test needs one.
struct Bench {
    engine: Engine<u64>,
    now: Monotonic,
    /// Batches with the disk. [`Bench::store`] reports each as stored.
    at_disk: VecDeque<Batch>,
    /// Messages sent to other members, including those that waited for the disk.
    sent: Vec<(NodeId, Body)>,
    waiting: VecDeque<Vec<(NodeId, PeerMessage)>>,
    /// Commands in sent forwards.
    forwarded: usize,
    /// Sent requests to a leader, and replies to such requests.
    asked: Vec<(NodeId, PeerMessage)>,
    /// Positions before which the log was cut.
    cut_at: Vec<LogIndex>,
    /// The newest cluster time in a sent message.
    told: ClusterTime,
    notes: Vec<Note>,
    removed: bool,
    /// Number of snapshots begun.
    snapshots: usize,
    /// The reserves requested for the next snapshot, except those in batches.
    reserves: Vec<u64>,
}

impl Bench {
    fn new(learners: &[NodeId]) -> Bench {
        Bench::with(learners, settings())
    }

    fn with(learners: &[NodeId], settings: Settings) -> Bench {
        Bench::restarted(
            learners,
            settings,
            HardState::default(),
            StoredLog::default(),
        )
    }

    /// The member starts with this hard state and log.
    fn restarted(
        learners: &[NodeId],
        settings: Settings,
        hard_state: HardState,
        log: StoredLog,
    ) -> Bench {
        let membership = Membership {
            voters: [ME, TWO, THREE].into(),
            learners: learners.iter().copied().collect(),
        };
        let start = Start {
            snapshot: SnapshotMetadata {
                membership,
                ..SnapshotMetadata::default()
            },
            hard_state,
            log,
        };
        let core = Core::new(
            raft::Settings {
                election_ticks: ELECTION_TICKS,
                heartbeat_ticks: 5,
                uncommitted_bytes: 64 << 10,
                ..raft::Settings::new(ME, 1)
            },
            start,
        );
        let members = (1..=3).chain(learners.iter().map(|id| id.0)).map(member);
        let state = State::new(Members::new(1, members), 100);
        let now = Monotonic(1 << 40);
        let mut bench = Bench {
            engine: Engine::new(core, state, settings, Estimate::default(), at(now)),
            now,
            at_disk: VecDeque::new(),
            sent: Vec::new(),
            waiting: VecDeque::new(),
            forwarded: 0,
            asked: Vec::new(),
            cut_at: Vec::new(),
            told: ClusterTime(0),
            notes: Vec::new(),
            removed: false,
            snapshots: 0,
            reserves: Vec::new(),
        };
        bench.step(Event::Start);
        bench
    }

    fn step(&mut self, event: Event<u64>) -> Effects<u64> {
        let mut effects = self.engine.step(at(self.now), event);
        self.deliver(std::mem::take(&mut effects.send));
        for job in std::mem::take(&mut effects.disk) {
            match job {
                DiskJob::Save { batch, then, .. } => {
                    self.at_disk.push_back(batch);
                    self.waiting.push_back(then);
                }
                DiskJob::Snapshot(_) => self.snapshots += 1,
                DiskJob::Reserve(bytes) => self.reserves.push(bytes),
                DiskJob::Compact(metadata) => self.cut_at.push(metadata.position.index),
                _ => {}
            }
        }
        self.notes.append(&mut effects.notes);
        self.removed |= effects.removed;
        effects
    }

    fn deliver(&mut self, messages: Vec<(NodeId, PeerMessage)>) {
        for (to, peer_message) in messages {
            match peer_message {
                PeerMessage::Raft { message, time } => {
                    self.told = self.told.max(time);
                    self.sent.push((to, message.body));
                }
                other => {
                    if let PeerMessage::Forward { commands, .. } = &other {
                        self.forwarded += commands.len();
                    }
                    self.asked.push((to, other));
                }
            }
        }
    }

    /// Syncs the oldest batch that is with the disk.
    fn store(&mut self) -> Effects<u64> {
        let batch = self.at_disk.pop_front().expect("a batch is with the disk");
        let then = self.waiting.pop_front().expect("with its messages");
        self.deliver(then);
        let stored = Stored {
            hard_state: batch.hard_state,
            last: batch.entries.last().map(|entry| entry.position),
        };
        self.step(Event::Disk(DiskReport::Stored(vec![stored])))
    }

    fn store_all(&mut self) {
        while !self.at_disk.is_empty() {
            self.store();
        }
    }

    fn hear(&mut self, from: NodeId, term: u64, body: Body) -> Effects<u64> {
        let message = Message {
            term: Term(term),
            body,
        };
        let messages = vec![PeerMessage::Raft {
            message,
            time: ClusterTime(0),
        }];
        self.step(Event::Peers(vec![PeerEvent::Messages { from, messages }]))
    }

    fn estimate(&self) -> ClusterTime {
        self.engine.estimate().at(self.now)
    }

    fn tick(&mut self) {
        self.now = self.now + TICK;
        self.step(Event::Tick);
    }

    /// Ticks, while the followers answer heartbeats.
    fn tick_led(&mut self, ticks: u32) {
        self.tick_answered_by(&[TWO, THREE, LEARNER], ticks);
    }

    /// Ticks, while only these members answer heartbeats.
    fn tick_answered_by(&mut self, living: &[NodeId], ticks: u32) {
        for _ in 0..ticks {
            self.tick();
            self.answer_heartbeats(living);
        }
    }

    /// These members answer the heartbeats that were sent.
    fn answer_heartbeats(&mut self, living: &[NodeId]) {
        let term = self.term();
        for (to, body) in std::mem::take(&mut self.sent) {
            match body {
                Body::Heartbeat { round, .. } if living.contains(&to) => {
                    self.hear(to, term, Body::HeartbeatReply { round });
                }
                Body::Heartbeat { .. } => {}
                body => self.sent.push((to, body)),
            }
        }
    }

    fn term(&self) -> u64 {
        self.engine.core().term().0
    }

    /// Follows TWO in this term.
    fn follow(&mut self, term: u64) -> Effects<u64> {
        let commit = Position::default();
        let effects = self.hear(TWO, term, Body::Heartbeat { round: 1, commit });
        self.store_all();
        effects
    }

    /// Ticks for this long, while TWO leads in this term. Returns the replies.
    fn tick_following(&mut self, term: u64, span: Duration) -> Vec<(u64, Outcome)> {
        let (end, mut replies) = (self.now + span, Vec::new());
        while self.now < end {
            self.now = self.now + TICK;
            let effects = self.step(Event::Tick);
            let heard = self.follow(term);
            replies.extend(effects.replies.into_iter().chain(heard.replies));
        }
        let outcome = |reply: super::request::Reply<u64>| (reply.caller, reply.outcome);
        replies.into_iter().map(outcome).collect()
    }

    /// One message from another member that is not raft's.
    fn hear_other(&mut self, from: NodeId, message: PeerMessage) -> Effects<u64> {
        let messages = vec![message];
        self.step(Event::Peers(vec![PeerEvent::Messages { from, messages }]))
    }

    fn request(&mut self, request: Request<u64>) -> Effects<u64> {
        self.step(Event::Requests(vec![request]))
    }

    /// The numbers of the read indexes that it asked TWO for.
    fn questions(&self) -> Vec<u64> {
        let number = |(to, message): &(NodeId, PeerMessage)| match message {
            PeerMessage::AskIndex { number } if *to == TWO => Some(*number),
            _ => None,
        };
        self.asked.iter().filter_map(number).collect()
    }

    /// The numbers and terms of the commands that it forwarded to TWO.
    fn forwards(&self) -> Vec<(u64, Term)> {
        let number = |(to, message): &(NodeId, PeerMessage)| match message {
            PeerMessage::Forward { number, term, .. }
            | PeerMessage::Change { number, term, .. }
                if *to == TWO =>
            {
                Some((*number, *term))
            }
            _ => None,
        };
        self.asked.iter().filter_map(number).collect()
    }

    /// Makes this member leader, with a committed first entry of its term.
    fn lead(&mut self) {
        self.win_election();
        self.acknowledge(&[TWO, THREE]);
        self.store_all();
        assert_eq!(self.engine.core().commit(), self.last());
    }

    /// Makes this member leader. It has stored the first entry of its term.
    fn win_election(&mut self) {
        while !self
            .sent
            .iter()
            .any(|(_, body)| matches!(body, Body::PreVote { .. }))
        {
            self.tick();
        }
        let asked = Term(self.term() + 1);
        self.hear(
            TWO,
            self.term(),
            Body::PreVoteReply {
                asked,
                granted: true,
            },
        );
        self.store_all();
        self.hear(TWO, self.term(), Body::VoteReply { granted: true });
        assert!(self.engine.core().is_leader());
        self.store_all();
    }

    fn last(&self) -> LogIndex {
        self.engine.core().last_position().index
    }

    /// These followers acknowledge all entries of the leader.
    fn acknowledge(&mut self, followers: &[NodeId]) {
        let matched = self.last();
        for follower in followers {
            self.hear(*follower, self.term(), Body::Accepted { matched });
        }
    }

    /// Every member stores everything.
    fn commit(&mut self) {
        self.store_all();
        self.acknowledge(&[TWO, THREE]);
        self.store_all();
    }

    /// Number of expiry entries with the disk.
    fn expiries(&self) -> usize {
        let entries = self.at_disk.iter().flat_map(|batch| &batch.entries);
        let commands = entries.filter_map(|entry| match &entry.payload {
            Payload::Command(bytes) => entry::decode(bytes).ok(),
            _ => None,
        });
        commands
            .filter(|(_, command)| matches!(command, entry::Command::Expire(_)))
            .count()
    }

    fn propose(&mut self, number: u64, bytes: usize) -> Effects<u64> {
        self.ask(Action::Set, number, bytes)
    }

    fn ask(&mut self, action: Action, number: u64, bytes: usize) -> Effects<u64> {
        let mut command = Command::new(action, Key::new(b"/a"));
        command.value = "v".repeat(bytes).as_str().into();
        let proposal = Proposal::of(entry::tree(&command), number);
        self.step(Event::Requests(vec![Request::Propose(proposal)]))
    }

    /// The disk has no space for the batch.
    fn is_full(&mut self) -> Effects<u64> {
        self.step(Event::Disk(DiskReport::Full))
    }

    fn snapshot_made(&mut self, at: LogIndex, bytes: u64) -> Effects<u64> {
        let metadata = self.engine.core().metadata_at(at).expect("it is applied");
        let took = Duration::ZERO;
        self.step(Event::Disk(DiskReport::Snapshot {
            metadata,
            bytes,
            took,
        }))
    }

    fn appends_to(&self, node: NodeId) -> usize {
        let is_append =
            |(to, body): &&(NodeId, Body)| *to == node && matches!(body, Body::Append { .. });
        self.sent.iter().filter(is_append).count()
    }
}

/// The failures among the replies, each with its caller.
fn failures(effects: &Effects<u64>) -> Vec<(u64, Failure)> {
    let failure = |reply: &super::request::Reply<u64>| match reply.outcome {
        Outcome::Failed(failure) => Some((reply.caller, failure)),
        _ => None,
    };
    effects.replies.iter().filter_map(failure).collect()
}

/// A write of a value of this many bytes.
fn set(bytes: usize) -> Vec<u8> {
    let mut command = Command::new(Action::Set, Key::new(b"/a"));
    command.value = "v".repeat(bytes).as_str().into();
    entry::tree(&command)
}

fn at(monotonic: Monotonic) -> Now {
    Now {
        monotonic,
        ..Now::default()
    }
}

fn noop(term: u64, index: u64) -> Entry {
    Entry {
        position: Position {
            term: Term(term),
            index: LogIndex(index),
        },
        payload: Payload::Noop,
    }
}

fn append(entries: Vec<Entry>, commit: u64) -> Body {
    Body::Append {
        previous: Position::default(),
        entries,
        commit: LogIndex(commit),
    }
}

/// Two leaders replace each other's first entry while the disk is busy. So the newest hard state is stored together
/// with an entry of an earlier term.
#[test]
fn a_batch_that_overwrote_an_entry_does_not_count_for_it() {
    let mut bench = Bench::new(&[]);
    bench.hear(TWO, 5, append(vec![noop(5, 1)], 0));
    bench.hear(THREE, 6, append(vec![noop(6, 1)], 0));
    let heartbeat = Body::Heartbeat {
        round: 1,
        commit: Position::default(),
    };
    bench.hear(TWO, 7, heartbeat);
    bench.store();
    let second = bench.at_disk.front().expect("the second batch");
    assert_eq!(
        second.hard_state.map(|HardState { term, .. }| term),
        Some(Term(7))
    );
    assert_eq!(second.entries, [noop(6, 1)]);
    bench.hear(TWO, 7, append(vec![noop(5, 1)], 1));
    bench.store();
    let core = bench.engine.core();
    assert_eq!(
        (core.stored(), core.applied()),
        (LogIndex(0), LogIndex(0)),
        "a report about a replaced entry counts for the entry that is not on disk"
    );
    bench.store();
    let core = bench.engine.core();
    assert_eq!((core.stored(), core.applied()), (LogIndex(1), LogIndex(1)));
}

/// Heartbeats need no disk, so a leader whose disk hangs keeps its majority. The others' disks work, so entries are
/// committed.
#[test]
fn a_leader_whose_disk_hangs_makes_way_and_takes_no_more_than_it_may() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10_000);
    // From here on, nothing that this member writes is reported as stored.
    bench.acknowledge(&[TWO, THREE]);
    assert!(bench.engine.core().commit() > bench.engine.core().stored());
    let mut refused = 0;
    for number in 2..20 {
        refused += bench.propose(number, 10_000).replies.len();
        bench.acknowledge(&[TWO, THREE]);
    }
    assert!(
        refused >= 10,
        "{refused} of 18 are refused: 64 KiB may wait for the disk"
    );
    bench.tick_led(ELECTION_TICKS / 2);
    let told = |bench: &Bench| {
        bench
            .sent
            .iter()
            .any(|(_, body)| *body == Body::CampaignNow)
    };
    assert!(!told(&bench), "a slow sync is no reason");
    bench.tick_led(ELECTION_TICKS);
    assert!(told(&bench), "the leader asks another member to lead");
    assert!(bench.notes.contains(&Note::HandsOverSlowDisk));
}

/// The transfer target may never receive the entries that only the hanging disk has.
#[test]
fn a_leader_whose_disk_hangs_steps_down_if_nobody_takes_over() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.acknowledge(&[TWO, THREE]);
    bench.tick_led(2 * ELECTION_TICKS);
    assert!(bench.engine.core().is_leader(), "a transfer has its time");
    bench.sent.clear();
    bench.tick_led(2 * ELECTION_TICKS);
    let noted = bench.notes.contains(&Note::StepsDownSlowDisk);
    let leads = bench.engine.core().is_leader();
    assert!(
        noted && !leads,
        "a leader that could not transfer its leadership steps down: noted {noted}, leads {leads}"
    );
    assert!(
        bench
            .sent
            .iter()
            .any(|(_, body)| *body == Body::CampaignNow),
        "another one need not wait for its timeout"
    );
}

/// If the others are not a majority, none of them can lead.
#[test]
fn a_leader_whose_disk_hangs_stays_while_the_others_are_no_majority() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.acknowledge(&[TWO, THREE]);
    for _ in 0..4 * ELECTION_TICKS {
        bench.tick();
        let term = bench.term();
        for (to, body) in std::mem::take(&mut bench.sent) {
            if let (TWO, Body::Heartbeat { round, .. }) = (to, body) {
                bench.hear(TWO, term, Body::HeartbeatReply { round });
            }
        }
    }
    assert!(bench.engine.core().is_leader());
    assert!(!bench.notes.contains(&Note::HandsOverSlowDisk));
}

/// If all disks are slow, no member is better: no entry is committed that this member's disk does not have.
#[test]
fn equally_slow_members_do_not_pass_the_leadership_around() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.tick_led(10 * ELECTION_TICKS);
    assert!(!bench.notes.contains(&Note::HandsOverSlowDisk));
    assert!(bench.engine.core().is_leader());
}

/// The follower's disk confirmed a sync that it had not done, or its data directory is an older copy.
#[test]
fn a_follower_without_its_acknowledged_tail_is_noted_and_not_flooded() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.store_all();
    bench.acknowledge(&[TWO, THREE]);
    let had = bench.last();
    bench.step(Event::Peers(vec![PeerEvent::Unreachable(TWO)]));
    let refusal = Body::Refused {
        previous: had,
        hint: Position::default(),
    };
    bench.sent.clear();
    let mut probes = 0;
    for _ in 0..4 * ELECTION_TICKS {
        bench.tick_led(1);
        let asked = bench.appends_to(TWO);
        probes += asked;
        bench.sent.clear();
        (0..asked).for_each(|_| drop(bench.hear(TWO, bench.term(), refusal.clone())));
        assert_eq!(bench.appends_to(TWO), 0, "nothing is sent again at once");
    }
    assert!((3..=45).contains(&probes), "{probes} probes in 200 ticks");
    let is_noted = |note: &&Note| matches!(note, Note::LostTail { node: TWO, .. });
    assert_eq!(
        bench.notes.iter().filter(is_noted).count(),
        1,
        "once in ten seconds"
    );
    // The contradiction was caused by one late message: replication continues.
    bench.acknowledge(&[TWO]);
    bench.propose(2, 10);
    assert_eq!(bench.appends_to(TWO), 1);
}

/// The follower's data directory is a copy from before its first entry.
#[test]
fn a_follower_without_anything_that_it_acknowledged_gets_no_snapshot() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.step(Event::Peers(vec![PeerEvent::Unreachable(TWO)]));
    bench.sent.clear();
    let mut probes = 0;
    for _ in 0..ELECTION_TICKS {
        bench.tick_led(1);
        for _ in 0..std::mem::take(&mut bench.sent).len() {
            probes += 1;
            let effects = bench.hear(TWO, bench.term(), Body::Blank);
            assert!(effects.send_snapshot.is_empty() && bench.snapshots == 0);
        }
    }
    assert!((3..=15).contains(&probes), "{probes} probes in 50 ticks");
    let is_noted = |note: &Note| matches!(note, Note::LostTail { node: TWO, .. });
    assert!(bench.notes.iter().any(is_noted));
}

/// Under load a learner never has everything that is committed at one moment.
#[test]
fn a_learner_that_keeps_up_is_promoted_under_load() {
    let mut bench = Bench::new(&[LEARNER]);
    bench.lead();
    for number in 0..4 * u64::from(ELECTION_TICKS) {
        let before = bench.last();
        bench.propose(number, 10);
        bench.store_all();
        bench.acknowledge(&[TWO, THREE]);
        bench.hear(LEARNER, bench.term(), Body::Accepted { matched: before });
        assert!(before < bench.engine.core().commit());
        bench.tick_led(1);
    }
    assert!(bench.engine.core().membership().voters.contains(&LEARNER));
}

#[test]
fn a_learner_that_falls_behind_is_not() {
    let mut bench = Bench::new(&[LEARNER]);
    bench.lead();
    let matched = LogIndex(0);
    for number in 0..4 * u64::from(ELECTION_TICKS) {
        bench.propose(number, 10);
        bench.store_all();
        bench.acknowledge(&[TWO, THREE]);
        bench.hear(LEARNER, bench.term(), Body::Accepted { matched });
        bench.tick_led(1);
    }
    assert!(!bench.engine.core().membership().voters.contains(&LEARNER));
}

/// The others always commit faster than this leader's disk stores.
#[test]
fn a_leader_with_the_slowest_disk_changes_members() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10);
    bench.acknowledge(&[TWO, THREE]);
    assert!(bench.engine.core().commit() > bench.engine.state().applied);
    let before = bench.last();
    let add = |id: u64| Request::Change(Proposal::of(entry::add(&member(id)), id));
    bench.step(Event::Requests(vec![add(8)]));
    assert_eq!(bench.last(), LogIndex(before.0 + 1), "it is appended");
    // The addition is not applied yet, so the table does not contain it. Another member with the same URLs is refused
    // nevertheless.
    bench.acknowledge(&[TWO, THREE]);
    let twin = Member { id: 9, ..member(8) };
    let twin = Request::Change(Proposal::of(entry::add(&twin), 9));
    bench.step(Event::Requests(vec![twin]));
    assert_eq!(bench.last(), LogIndex(before.0 + 1));
    let changes = bench.at_disk.iter().flat_map(|batch| &batch.entries);
    let adds = changes.filter(|entry| {
        matches!(&entry.payload, Payload::Change(change) if change.kind == ChangeKind::AddLearner)
    });
    assert!(adds.count() <= 1);
}

#[test]
fn one_members_word_removes_nobody() {
    let removed_by = |id| Event::Peers(vec![PeerEvent::Removed { by: id }]);
    let mut bench = Bench::new(&[]);
    let heartbeat = |round| Body::Heartbeat {
        round,
        commit: Position::default(),
    };
    bench.hear(TWO, 5, heartbeat(1));
    bench.step(removed_by(THREE));
    bench.step(removed_by(TWO));
    for round in 2..4 * u64::from(ELECTION_TICKS) {
        bench.tick();
        bench.hear(TWO, 5, heartbeat(round));
    }
    assert!(!bench.removed, "it hears a leader");

    let mut bench = Bench::new(&[]);
    bench.step(removed_by(THREE));
    bench.step(removed_by(THREE));
    bench.step(removed_by(NodeId(77)));
    (0..4 * ELECTION_TICKS).for_each(|_| bench.tick());
    assert!(!bench.removed, "only one member has reported it");
    bench.step(removed_by(TWO));
    (0..4 * ELECTION_TICKS).for_each(|_| bench.tick());
    assert!(bench.removed, "both other members have reported it");
}

/// A follower needs a snapshot, and the newest one cannot be read.
#[test]
fn another_snapshot_is_made_when_the_newest_cannot_be_read() {
    let mut bench = Bench::new(&[LEARNER]);
    bench.lead();
    let wants = |bench: &mut Bench| bench.hear(LEARNER, bench.term(), Body::Blank);
    let effects = wants(&mut bench);
    assert!(effects.send_snapshot.is_empty(), "there is none yet");
    let position = bench
        .engine
        .core()
        .position_at(bench.last())
        .expect("a log");
    let made = |bench: &mut Bench| {
        let metadata = bench
            .engine
            .core()
            .metadata_at(position.index)
            .expect("it is applied");
        let (bytes, took) = (100, Duration::ZERO);
        bench.step(Event::Disk(DiskReport::Snapshot {
            metadata,
            bytes,
            took,
        }))
    };
    assert_eq!(
        made(&mut bench).send_snapshot,
        [(LEARNER, Term(bench.term()))]
    );
    bench.snapshots = 0;
    bench.step(Event::Peers(vec![PeerEvent::SnapshotUnreadable]));
    let (to, installed) = (LEARNER, None);
    bench.step(Event::Peers(vec![PeerEvent::SnapshotSent {
        to,
        installed,
    }]));
    for _ in 0..ELECTION_TICKS {
        bench.tick_led(1);
        if bench.snapshots > 0 {
            break;
        }
        wants(&mut bench);
    }
    assert_eq!(
        bench.snapshots, 1,
        "it is not sent again, another one is made"
    );
    assert_eq!(
        made(&mut bench).send_snapshot,
        [(LEARNER, Term(bench.term()))]
    );
}

fn stamped(mut command: Vec<u8>, cluster: ClusterTime) -> Payload {
    let stamp = Stamp {
        cluster,
        wall: WallTime(0),
    };
    entry::stamp(&mut command, stamp);
    Payload::Command(command.into())
}

/// A rebooted member is behind the time of its log when it is elected. If its time stood still until its clock has
/// caught up, the others' time would continue, and the next leader would be ahead by the difference.
#[test]
fn the_time_of_a_leader_goes_on_from_the_latest_in_its_log() {
    const AHEAD: u64 = 28_000_000_000;
    let mut bench = Bench::new(&[]);
    let ahead = ClusterTime(bench.estimate().0 + AHEAD);
    let time = Entry {
        payload: stamped(entry::time(), ahead),
        ..noop(1, 1)
    };
    bench.hear(TWO, 1, append(vec![time], 0));
    bench.store_all();
    bench.lead();
    let applied = bench.now;
    assert!(bench.estimate() >= ahead, "it is applied");
    bench.tick_led(10 * ELECTION_TICKS);
    let heartbeat = 5 * TICK;
    let passed = (bench.now - applied - heartbeat).as_nanos() as u64;
    assert!(
        bench.told >= ClusterTime(ahead.0 + passed),
        "the followers received {:?}, {passed} ns after {ahead:?}",
        bench.told
    );
}

/// The time of a new leader counts, even if it is behind its predecessor's and both arrive in one step.
#[test]
fn a_follower_has_the_time_of_the_newest_leader() {
    let mut bench = Bench::new(&[]);
    let now = bench.estimate();
    let heartbeat = |from, term, ahead: u64| PeerEvent::Messages {
        from,
        messages: vec![PeerMessage::Raft {
            message: Message {
                term: Term(term),
                body: Body::Heartbeat {
                    round: 1,
                    commit: Position::default(),
                },
            },
            time: ClusterTime(now.0 + ahead),
        }],
    };
    bench.step(Event::Peers(vec![
        heartbeat(TWO, 5, 9000),
        heartbeat(THREE, 6, 3000),
        heartbeat(THREE, 6, 2000),
    ]));
    assert_eq!(
        bench.estimate(),
        ClusterTime(now.0 + 3000),
        "an older one is not"
    );
    bench.step(Event::Peers(vec![heartbeat(TWO, 7, 1000)]));
    assert_eq!(bench.estimate(), ClusterTime(now.0 + 1000));
}

#[test]
fn a_log_that_fills_the_disk_is_shortened_and_nobody_is_refused() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let applied = bench.last();
    bench.propose(1, 10_000);
    assert!(bench.is_full().replies.is_empty());
    assert_eq!(bench.snapshots, 1, "one is begun");
    for _ in 0..20 {
        assert!(bench.is_full().replies.is_empty(), "and awaited");
        assert!(bench.propose(2, 10).replies.is_empty());
    }
    assert!(!bench.engine.is_disk_full());
    let effects = bench.snapshot_made(applied, 300);
    let jobs = effects.disk.len();
    assert_eq!((bench.snapshots, jobs), (1, 0), "{:?}", bench.notes);
    assert!(
        matches!(bench.reserves[..], [bytes] if (300..1 << 20).contains(&bytes)),
        "the reserve for the next snapshot is set: {:?}",
        bench.reserves
    );
    // The previous attempt can be reported only after the disk has done that.
    assert!(bench.is_full().replies.is_empty());
    bench.store_all();
    bench.acknowledge(&[TWO, THREE]);
    assert!(!bench.engine.is_disk_full());
    assert!(!bench.notes.contains(&Note::DiskFull), "{:?}", bench.notes);
}

#[test]
fn without_room_for_a_snapshot_only_removals_are_taken() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    bench.propose(1, 10_000);
    bench.acknowledge(&[TWO, THREE]);
    bench.is_full();
    bench.step(Event::Disk(DiskReport::NoSnapshot));
    assert!(bench.notes.contains(&Note::NoRoom), "{:?}", bench.notes);
    assert_eq!(bench.reserves, [0], "waiting batches may use the reserve");
    bench.store_all();
    // Until then it tries to transfer leadership.
    bench.tick_led(2 * ELECTION_TICKS);
    bench.store_all();
    assert_eq!(bench.snapshots, 2, "a snapshot is tried again");
    bench.step(Event::Disk(DiskReport::NoSnapshot));
    assert!(bench.engine.core().is_leader());
    assert_eq!(bench.propose(2, 10).replies.len(), 1, "a write is refused");
    let last = bench.last();
    assert!(bench.ask(Action::Delete, 3, 0).replies.is_empty());
    assert_eq!(bench.last(), last.next(), "a removal is taken");
    bench.store_all();
    bench.acknowledge(&[TWO, THREE]);
    assert!(bench.engine.is_disk_full());
    bench.tick_led(2 * ELECTION_TICKS);
    assert_eq!(bench.snapshots, 3, "and again, after a longer pause");
    let applied = bench.engine.core().applied();
    bench.snapshot_made(applied, 100);
    assert!(bench.notes.contains(&Note::SpaceAgain), "{:?}", bench.notes);
    let last = bench.last();
    assert!(bench.propose(4, 10).replies.is_empty());
    assert_eq!(bench.last(), last.next(), "writes are taken again");
}

/// A batch goes into one segment, and a small disk has only small segments.
#[test]
fn a_large_batch_is_stored_in_parts_and_promised_as_a_whole() {
    let mut bench = Bench::new(&[]);
    let command = |index| Entry {
        position: Position {
            term: Term(5),
            index: LogIndex(index),
        },
        payload: Payload::Command(vec![0; 400_000].into()),
    };
    bench.hear(TWO, 5, append((1..=10).map(command).collect(), 0));
    let accepted = |bench: &Bench| {
        let accepted = bench.sent.iter().rev().find_map(|(_, body)| match body {
            Body::Accepted { matched } => Some(*matched),
            _ => None,
        });
        accepted.unwrap_or_default()
    };
    let mut parts = Vec::new();
    while let Some(batch) = bench.at_disk.front() {
        parts.push(batch.entries.len());
        assert!(accepted(&bench) < LogIndex(10), "not before all is stored");
        bench.store();
    }
    assert_eq!(parts, [2, 2, 2, 2, 2]);
    assert_eq!(accepted(&bench), LogIndex(10));
}

#[test]
fn a_message_that_contradicts_the_protocol_cuts_the_link_and_nothing_else() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let (term, last) = (bench.term(), bench.last());
    bench.notes.clear();
    let commit = Position::default();
    let heartbeat = Body::Heartbeat { round: 1, commit };
    let far = (1 << 62) - 1;
    let table = [
        (term, heartbeat.clone()),
        (term, append(vec![noop(term, 1)], 1)),
        (term, Body::Commit { commit }),
        (far, heartbeat),
        (
            far,
            Body::Vote {
                last: commit,
                handover: true,
            },
        ),
        (far, Body::Outdated),
    ];
    for (claimed, body) in table {
        let effects = bench.hear(TWO, claimed, body);
        assert_eq!(effects.cut, [TWO]);
        assert_eq!((bench.term(), bench.last()), (term, last));
        assert!(bench.engine.core().is_leader());
    }
    let noted = |bench: &Bench| {
        let notes = bench.notes.iter();
        let of_two = |note: &&Note| matches!(note, Note::Violation { from: TWO, .. });
        notes.filter(of_two).count()
    };
    assert_eq!(noted(&bench), 1, "it is said once, not each time");
    bench.now = bench.now + Duration::from_secs(11);
    bench.hear(TWO, far, Body::Outdated);
    assert_eq!(noted(&bench), 2, "it is said again after a while");
}

/// Otherwise one member could make the others accept a false incarnation for another member.
#[test]
fn a_member_publishes_for_itself_alone_and_one_incarnation() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let mut publishes = |from: NodeId, member: u64, incarnation: u64| {
        let published = Published {
            member: self::member(member),
            incarnation,
        };
        let messages = vec![PeerMessage::Forward {
            number: 1,
            term: Term(bench.term()),
            commands: vec![entry::publish(&published).into()],
        }];
        let before = bench.last();
        bench.step(Event::Peers(vec![PeerEvent::Messages { from, messages }]));
        bench.store_all();
        bench.acknowledge(&[TWO, THREE]);
        bench.last() > before
    };
    assert!(!publishes(THREE, 2, 7), "in another one's name");
    assert!(publishes(TWO, 2, 5));
    assert!(publishes(TWO, 2, 5), "the same again");
    assert!(!publishes(TWO, 2, 6), "of a process without its data");
}

/// Many people read a backup, and a process that knows an incarnation can pass for that member.
#[test]
fn a_copy_of_the_state_has_no_incarnations() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let published = Published {
        member: self::member(2),
        incarnation: 5,
    };
    let messages = vec![PeerMessage::Forward {
        number: 1,
        term: Term(bench.term()),
        commands: vec![entry::publish(&published).into()],
    }];
    bench.step(Event::Peers(vec![PeerEvent::Messages {
        from: TWO,
        messages,
    }]));
    bench.commit();
    assert_eq!(bench.engine.state().members.incarnation(TWO), Some(5));
    let effects = bench.step(Event::Requests(vec![Request::Copy(9)]));
    let copies = effects
        .replies
        .iter()
        .filter_map(|reply| match &reply.outcome {
            Outcome::Copy(task, _) => Some(task.state.members.incarnation(TWO)),
            _ => None,
        });
    assert_eq!(copies.collect::<Vec<_>>(), [None]);
}

/// A member of the first format, and this program itself, would stop at it.
#[cfg(not(edgetcd_next_format))]
#[test]
fn a_command_that_not_all_members_understand_is_refused() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let last = bench.last();
    for member in [TWO, THREE] {
        let format = entry::FORMAT + 1;
        bench.step(Event::Peers(vec![PeerEvent::Understands {
            member,
            format,
        }]));
    }
    assert_eq!(bench.engine.common_format(), entry::FORMAT);
    let request = Request::Propose(Proposal::of(entry::next_format(), 5));
    let effects = bench.step(Event::Requests(vec![request]));
    let [reply] = &effects.replies[..] else {
        panic!("one reply")
    };
    assert_eq!(reply.caller, 5);
    assert!(matches!(
        reply.outcome,
        Outcome::Failed(Failure::NotUnderstood)
    ));
    assert_eq!(bench.last(), last);
}

/// What a restarted leader knows of a member that has not connected since: nothing.
#[test]
fn a_format_that_was_used_before_needs_no_member_that_is_away() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let role = crate::auth::Change::DeleteRole("none".to_owned());
    let ask = |bench: &mut Bench| {
        let last = bench.last();
        let proposal = Proposal::of(entry::auth(&role), 5);
        bench.step(Event::Requests(vec![Request::Propose(proposal)]));
        bench.last() > last
    };
    assert!(!ask(&mut bench), "no member has said what it understands");
    for member in [TWO, THREE] {
        bench.step(Event::Peers(vec![PeerEvent::Understands {
            member,
            format: entry::AUTH_FORMAT,
        }]));
    }
    assert!(ask(&mut bench));
    bench.commit();
    bench.engine.formats.clear();
    assert!(ask(&mut bench), "its state has users and roles");
}

/// A leader that transfers its leadership appends no entries. The next leader expires the keys that are due.
#[test]
fn an_expiry_that_a_leader_could_not_append_is_not_forwarded() {
    let mut bench = Bench::new(&[]);
    bench.lead();
    let mut command = Command::new(Action::Set, Key::new(b"/a"));
    command.ttl = Some(1);
    let proposal = Proposal::of(entry::tree(&command), 1);
    bench.step(Event::Requests(vec![Request::Propose(proposal)]));
    bench.commit();
    bench.now = bench.now + Duration::from_secs(2);
    bench.step(Event::Transfer(Some(TWO)));
    bench.tick();
    assert_eq!(bench.expiries(), 0, "a leader that transfers appends it");
    let heartbeat = Body::Heartbeat {
        round: 1,
        commit: Position::default(),
    };
    bench.hear(TWO, bench.term() + 1, heartbeat);
    bench.tick();
    assert_eq!(bench.forwarded, 0);
}

/// A request waits for a leader and then for its entry, and not longer than the request timeout for both.
#[test]
fn what_waited_for_a_leader_has_less_time_for_its_entry() {
    let mut bench = Bench::new(&[]);
    let is_pre_vote = |(_, body): &(NodeId, Body)| matches!(body, Body::PreVote { .. });
    while !bench.sent.iter().any(is_pre_vote) {
        bench.tick();
    }
    let asked = bench.now;
    bench.propose(1, 10);
    bench.now = bench.now + Duration::from_millis(500);
    let term = Term(bench.term() + 1);
    let granted = true;
    let reply = Body::PreVoteReply {
        asked: term,
        granted,
    };
    bench.hear(TWO, bench.term(), reply);
    bench.store_all();
    bench.hear(TWO, bench.term(), Body::VoteReply { granted });
    assert!(bench.engine.core().is_leader());
    let failed = loop {
        bench.now = bench.now + TICK;
        let replies = bench.step(Event::Tick).replies;
        let last = bench.last();
        for (to, body) in std::mem::take(&mut bench.sent) {
            if let Body::Heartbeat { round, .. } = body {
                bench.hear(to, term.0, Body::HeartbeatReply { round });
            }
        }
        assert_eq!(last, bench.last(), "it still leads");
        if let [reply] = &replies[..] {
            assert!(matches!(reply.outcome, Outcome::Failed(Failure::TimedOut)));
            break bench.now;
        }
    };
    let timeout = settings().request_timeout;
    assert!((timeout..timeout + 2 * TICK).contains(&(failed - asked)));
}

/// Otherwise a million keys that are due together would delay every write until the last one has expired.
#[test]
fn requests_are_taken_between_two_expiries() {
    const KEYS: usize = 3 * EXPIRED_AT_ONCE;
    let mut bench = Bench::new(&[]);
    bench.lead();
    for from in (0..KEYS).step_by(500) {
        let write = |key| {
            let mut command = Command::new(Action::Set, Key::new(format!("/k/{key}").as_bytes()));
            command.ttl = Some(1);
            Request::Propose(Proposal::of(entry::tree(&command), key as u64))
        };
        bench.step(Event::Requests((from..from + 500).map(write).collect()));
        bench.commit();
    }
    bench.now = bench.now + Duration::from_secs(2);
    bench.tick();
    assert_eq!(bench.expiries(), 1, "the first one is on its way");
    let mut expiries = 0;
    while bench.engine.state().tree.has_ttl() {
        bench.commit();
        expiries += 1;
        if !bench.engine.goes_on() {
            continue;
        }
        assert!(
            bench.at_disk.is_empty(),
            "nothing bars the way of a request"
        );
        match expiries % 2 {
            0 => drop(bench.step(Event::GoOn)),
            _ => drop(bench.propose(1 << 20, 10)),
        }
        let batch = bench.at_disk.front().expect("a batch");
        let wanted = 1 + expiries % 2;
        assert_eq!(
            batch.entries.len(),
            wanted,
            "the write goes first, and both share a batch"
        );
        assert_eq!(bench.expiries(), 1);
    }
    assert!(expiries > KEYS / EXPIRED_AT_ONCE, "in {expiries} entries");
}

/// A follower waits between the entries of its leader, so it cannot measure how long they take.
#[test]
fn a_leader_expires_as_many_keys_as_before_it_followed() {
    const KEYS: u64 = 300;
    let mut bench = Bench::new(&[]);
    let now = bench.estimate();
    let later = ClusterTime(now.0 + 2_000_000_000);
    let write = |key| {
        let mut command = Command::new(Action::Set, Key::new(format!("/k/{key}").as_bytes()));
        command.ttl = Some(1);
        stamped(entry::tree(&command), now)
    };
    let expire = stamped(entry::expire_some(KEYS as usize / 2), later);
    let payloads = (0..KEYS).map(write).chain([expire]);
    let entries = payloads.zip(1..).map(|(payload, index)| Entry {
        payload,
        ..noop(1, index)
    });
    bench.hear(TWO, 1, append(entries.collect(), KEYS + 1));
    bench.store_all();
    assert_eq!(bench.engine.core().commit(), LogIndex(KEYS + 1));
    bench.tick_following(1, 3 * TICK);
    bench.lead();
    while bench.expiries() == 0 {
        bench.tick_led(1);
    }
    let entries = bench.at_disk.iter().flat_map(|batch| &batch.entries);
    let most = entries.filter_map(|entry| match &entry.payload {
        Payload::Command(bytes) => match entry::decode(bytes) {
            Ok((_, entry::Command::Expire(most))) => Some(most),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(most.collect::<Vec<_>>(), [EXPIRED_AT_ONCE / 4]);
}

#[test]
fn entries_of_a_batch_replace_those_from_the_first_on() {
    let mut batch = Batch::default();
    batch.add(vec![noop(1, 5), noop(1, 6), noop(1, 7)]);
    batch.add(Vec::new());
    batch.add(vec![noop(2, 6)]);
    batch.add(vec![noop(2, 7), noop(2, 8)]);
    let shown: Vec<String> = (batch.entries.iter())
        .map(|entry| entry.position.to_string())
        .collect();
    assert_eq!(shown, ["5@1", "6@2", "7@2", "8@2"]);
    batch.add(vec![noop(3, 4)]);
    assert_eq!(batch.entries, [noop(3, 4)]);
}
