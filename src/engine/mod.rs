//! One member of a cluster as a pure value: events in, effects out.
//!
//! The engine connects the raft core with the state machine. It makes all decisions of a member: which proposals wait
//! for which entries, which commands are forwarded to the leader and may be sent again, which reads are confirmed,
//! which members may join or leave, when a snapshot is due, when keys expire, and how the member stops. It has no
//! thread, channel, clock, file or socket. The raft thread ([`crate::replica`]) carries out its effects with real disks
//! and connections, and the simulator ([`crate::sim`]) with simulated ones. So both run the same code.
//!
//! # The path of a write
//!
//! ```text
//!  client ── Request::Propose ──▶ core appends; the caller's value waits for that entry
//!                                   │ DiskJob::Save            ▲ DiskReport::Stored
//!                                   ▼                          │
//!                                 WAL: write, one sync ────────┘
//!  client ◀── Reply ────────────── commit → apply → publish → reply
//! ```
//!
//! A member that does not lead sends the command with a tag to the leader ([`peer_message`]), and replies when it applies the
//! entry with that tag. So a client can read its own write at the member that it wrote to. The module `forwards`
//! documents when a command may be sent again, and when it fails.
//!
//! ```text
//!  follower:  Request ──▶ forwards ══ Forward ══▶ leader: append in that term ══ Append ══▶ all
//!             Reply ◀── apply ◀── commit ◀═════════════════════════════════════════════════╛
//! ```
//!
//! # Invariants
//!
//! * An entry counts for this member only after this member's own sync ([`DiskReport::Stored`]).
//! * A view is published before any reply that belongs to it. So a client that has a reply can read its effect.
//! * Each request gets exactly one reply: because of its entry, because of a failure, or because its deadline passed.
//! * No command is appended twice: it is sent again only if the leader certainly did not append it (hazard D16).
//! * At most one batch is with the WAL at a time. Later records go into the next batch. The one exception: before a
//!   snapshot is installed, all earlier records are handed to the WAL.
//!
//! Each file in `tests/transcripts/engine` is a lesson: several members, step by step, with everything that they sent,
//! stored and answered. Begin with `forward-refused-and-sent-again` and `leader-lost-after-append`.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the engine, its events and effects, ticks, the end of a step |
//! | `requests.rs` | client requests: appended here, or forwarded to the leader |
//! | `peer_messages.rs` | peer messages from other members |
//! | `reports.rs` | the disk's reports; snapshots made, sent and installed |
//! | `todo.rs` | carries out what the core requests; applies entries |
//! | `notes.rs` | the log lines for operators |
//! | `rules.rs` | the rules that the simulator can switch off |
//! | `invariants.rs` | what holds after each step, checked in release builds too |
//! | `leaderless.rs` | requests that wait for a leader |
//! | `formats.rs` | which kinds of commands every member understands |
//! | `expiry.rs` | how many keys expire at once |
//! | `trust.rs` | which messages are accepted from which sender |
//! | `stopping.rs` | leadership transfer at the end, and the last replies |
//! | `trace.rs`, `tracing.rs` | the records of what the member's consensus does; how a step becomes records |

pub mod entry;
mod expiry;
pub mod followers;
mod formats;
mod forwards;
mod invariants;
pub mod lag;
mod leaderless;
pub mod members;
mod notes;
mod pauses;
pub mod peer_message;
mod peer_messages;
mod pending;
pub mod plausible;
mod reads;
mod reports;
pub mod request;
mod requests;
pub mod rules;
pub mod schedule;
pub mod state;
mod stopping;
#[cfg(test)]
mod tests;
pub mod time;
mod todo;
pub mod trace;
mod tracing;
mod trust;

use crate::raft::{
    AllRules, Core, Entry, HardState, Input, LogIndex, NodeId, Position, SnapshotMetadata, Term,
};
use crate::tree::{Applied, ClusterTime, Tree};
use core::time::Duration;
use expiry::Expiry;
use followers::Followers;
use forwards::Forwards;
use invariants::ClientView;
use lag::Lag;
use leaderless::Leaderless;
use notes::Noted;
pub use notes::{MemberChange, Note};
use pauses::Pauses;
use peer_message::PeerMessage;
use pending::PendingRequests;
use reads::{MemberQuestions, Reads};
use request::{Effect, Failure, Outcome, Proposal, Reply, Request, Task};
use rules::{Rule, Rules};
use schedule::Schedule;
use state::State;
use std::collections::{BTreeMap, BTreeSet};
use stopping::Stopping;
use time::{Estimate, Monotonic, Now};
use trace::ForwardStep;
use tracing::Tracer;

/// Maximum number of requests that a caller should pass in one event.
pub const REQUESTS_MAX: usize = 4096;

/// Maximum number of proposals that wait for their entries. More are refused.
const PENDING_MAX: usize = 2 * REQUESTS_MAX;

/// Minimum time between two expiry runs, as in the reference.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// Maximum time between two records of the cluster time in the log, while keys with a TTL exist.
const TIME_INTERVAL: Duration = Duration::from_secs(60);

/// Tick of a member without other members: it sends and receives no heartbeats.
const ALONE_TICK: Duration = Duration::from_millis(100);

/// Parameters of a member.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Time between two [`Event::Tick`].
    pub tick: Duration,
    /// Deadline of a request (spec §11: 5 s + 2 × election timeout).
    pub request_timeout: Duration,
    /// How long a request waits while there is no leader (2 × election timeout).
    pub leader_timeout: Duration,
    /// Entries between two snapshots.
    pub snapshot_count: u64,
    /// Bytes of the newest snapshot; 0 if there is none.
    pub snapshot_bytes: u64,
    /// Log size at which a snapshot is made with any number of entries.
    pub log_bytes_max: u64,
    /// Maximum bytes of entries in one batch; a single entry may be larger. A batch goes into one segment, and a small
    /// disk has only small segments.
    pub batch_bytes_max: usize,
    /// Bytes of events that this member keeps for watches. One event is always kept.
    pub history_bytes: usize,
    /// How long a batch with the disk delays requests. After that, requests are accepted again.
    pub stall: Duration,
    /// How long the log before a new snapshot is kept for a reachable follower that still needs it.
    pub keep_tail: Duration,
    /// Ticks after which a member that sends no messages counts as unreachable.
    pub election_ticks: u32,
    /// Whether membership changes that could cost the majority are refused (`--strict-reconfig-check`).
    pub strict_changes: bool,
    /// The first tag of forwarded commands, random at each start. This member recognises its own commands by their
    /// tags.
    pub first_tag: u64,
}

/// Events that a member receives.
pub enum Event<T> {
    /// The process has started. Always the first event.
    Start,
    /// [`Engine::deadline`] has passed.
    Tick,
    /// No other event has happened, and [`Engine::goes_on`] is true: do the next piece of the work that is done in
    /// pieces.
    GoOn,
    /// Requests of clients. All proposals of one event become one run of entries, and all reads share one confirmation.
    Requests(Vec<Request<T>>),
    /// Reports of the transport, in order.
    Peers(Vec<PeerEvent>),
    /// A report of the disk.
    Disk(DiskReport),
    /// Transfer leadership to this member, or to the most up-to-date one. Has no effect on a member that does not lead
    /// or cannot transfer.
    Transfer(Option<NodeId>),
    /// Finish the requests received so far, and stop. Sent once.
    Stop,
}

/// Reports of the transport. `S` is a received snapshot. The caller also keeps the file in it ([`crate::replica`]).
pub enum PeerEvent<S = Incoming> {
    /// Peer messages from one member, in order.
    Messages {
        /// The sender. The transport has checked that it is a member of this cluster, with the incarnation that is
        /// published.
        from: NodeId,
        /// All messages that arrived together.
        messages: Vec<PeerMessage>,
    },
    /// None of the bytes of these requests to a leader (commands, membership changes, read indexes) reached a
    /// connection. The values are their numbers.
    Unsent(Vec<u64>),
    /// Raft messages to this member were dropped, or its connection broke.
    Unreachable(NodeId),
    /// The member's process no longer exists: its connection ended, and its machine refused a new one.
    Gone(NodeId),
    /// A complete snapshot has arrived and is synced under a temporary name. If the effects of this step contain no
    /// [`DiskJob::Install`], the caller deletes it.
    Snapshot(Box<S>),
    /// The snapshot for `to` was installed there, or not.
    SnapshotSent {
        /// The follower.
        to: NodeId,
        /// The snapshot's position; `None` if it was not sent or not used.
        installed: Option<Position>,
    },
    /// This member's newest snapshot cannot be read and was set aside. None can be sent until another one is made.
    SnapshotUnreadable,
    /// A member has connected, and the transport has admitted it: the newest format of commands that it understands.
    /// Reported before the messages of that connection.
    Understands {
        /// The member. The table may not contain it yet (see `trust.rs`).
        member: NodeId,
        /// See [`entry`].
        format: u16,
    },
    /// A member reports that this one was removed from the cluster. The member may be wrong, or belong to a cluster of
    /// its own by now.
    Removed {
        /// The reporting member.
        by: NodeId,
    },
}

/// A snapshot that another member has sent.
#[derive(Clone)]
pub struct Incoming {
    /// The sender: the leader of `term`.
    pub from: NodeId,
    /// The term that the sender stated.
    pub term: Term,
    /// The snapshot's metadata.
    pub metadata: SnapshotMetadata,
    /// The snapshot's content.
    pub state: State,
    /// Bytes of that content in the file.
    pub bytes: u64,
}

/// Reports of the disk.
pub enum DiskReport {
    /// Everything handed over so far is on disk: these batches since the last report, in order.
    Stored(Vec<Stored>),
    /// The disk is full. The caller continues to try.
    Full,
    /// The requested entries, or the first of them, in order. Empty if they were compacted away.
    Read(Vec<Entry>),
    /// A snapshot of this member's own state is durable.
    Snapshot {
        /// Its metadata: the log before its position may be deleted.
        metadata: SnapshotMetadata,
        /// Bytes of the state, without the overhead of the file.
        bytes: u64,
        /// Duration of making the snapshot.
        took: Duration,
    },
    /// The log now begins after the installed snapshot at this position.
    Installed(Position),
    /// The snapshot could not be made (a full disk). It may be tried again later.
    NoSnapshot,
}

/// One batch that is on disk.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// Its hard state, which is stored before its entries; `None` if it had none.
    pub hard_state: Option<HardState>,
    /// Position of its last entry; `None` if it had none.
    pub last: Option<Position>,
}

/// Records to store together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The hard state (term and vote), if it changed. Stored before the entries.
    pub hard_state: Option<HardState>,
    /// Consecutive entries. They replace all stored entries from the first one's index on.
    pub entries: Vec<Entry>,
    /// Given with entries, or for a disk probe: the cluster time and the machine's time of the same moment. A restart
    /// uses them to compute how long the member was down.
    pub noted: Option<(ClusterTime, Monotonic)>,
}

impl Batch {
    /// Adds entries. They replace all entries from the first one's index on, also those in this batch: entries of a new
    /// leader may arrive before the batch with the old leader's entries is written.
    fn add(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.position) else {
            return;
        };
        let kept = (self.entries).partition_point(|entry| entry.position.index < first.index);
        self.entries.truncate(kept);
        match self.entries.last().map(|entry| entry.position) {
            Some(last) => {
                assert!(
                    last.index.next() == first.index && last.term <= first.term,
                    "{first} after {last} in a batch"
                );
                self.entries.extend(entries);
            }
            None => self.entries = entries,
        }
    }

    /// Splits the batch if its entries are larger than `bytes_max`: the first entries with everything else, and the
    /// rest.
    fn split(mut self, bytes_max: usize) -> (Batch, Option<Batch>) {
        let mut bytes = 0;
        let fits = self.entries.iter().take_while(|entry| {
            bytes += entry.bytes_in_memory();
            bytes <= bytes_max
        });
        let fits = fits.count().max(1);
        if fits >= self.entries.len() {
            return (self, None);
        }
        let entries = self.entries.split_off(fits);
        assert!(
            !entries.is_empty() && self.entries.len() == fits,
            "{fits} entries fit, {} do not",
            entries.len()
        );
        let rest = Batch {
            entries,
            ..Batch::default()
        };
        (self, Some(rest))
    }
}

/// The state that the tree is too large for a snapshot on this disk.
struct NoRoom {
    /// When the next snapshot is tried.
    again: Monotonic,
    /// The wait before the one after that.
    pause: Duration,
    /// Bytes of the state that did not fit.
    bytes: u64,
    /// The last applied entry when it was measured.
    measured: LogIndex,
}

/// What the disk must do. Jobs are done in order.
///
/// The module [`crate::storage`] replaces the engine's batches `B` and installations `I` by its own.
pub enum DiskJob<B = Batch, I = SnapshotMetadata> {
    /// Store the batch, then send the messages. Several waiting jobs may share one sync.
    Save {
        /// May be empty: then the messages wait for the batches before it.
        batch: B,
        /// Messages that are true only when the batch is on disk.
        then: Vec<(NodeId, PeerMessage)>,
        /// Bytes of the disk that the next snapshot may need. The log must not use them.
        reserve: u64,
    },
    /// From now on keep this many bytes free for the next snapshot, and try again the batches that did not fit.
    Reserve(u64),
    /// Read the entries `[from, to]`, or the first of them.
    Read {
        /// The first index, at least 1.
        from: LogIndex,
        /// The last index. The core requests again what is not read at once.
        to: LogIndex,
    },
    /// Write a snapshot of this state in parallel to all other jobs.
    Snapshot(Box<Task>),
    /// The snapshot is durable, and the core no longer uses the log before it: delete files.
    Compact(SnapshotMetadata),
    /// Make the received snapshot the newest one, and sync. Only after that, delete the log.
    Install(I),
}

/// A new version of what readers see.
pub struct Publication {
    /// The tree.
    pub tree: Tree,
    /// The last entry applied to it.
    pub applied: LogIndex,
    /// This member's term, as stored on disk.
    pub term: Term,
    /// The changes since the previous version, in order.
    pub events: Vec<Applied>,
    /// The tree is from a snapshot of another member, so the individual changes are not known.
    pub is_jump: bool,
}

/// The output of a step. **The order of the fields is the order in which they take effect.**
pub struct Effects<T> {
    /// Log lines for operators.
    pub notes: Vec<Note>,
    /// Messages that may be sent at once.
    pub send: Vec<(NodeId, PeerMessage)>,
    /// Followers to which the newest snapshot must be streamed, with the leader's term. The caller answers each with
    /// [`PeerEvent::SnapshotSent`].
    pub send_snapshot: Vec<(NodeId, Term)>,
    /// Members whose connections to this one must be closed, because their messages contradict the protocol.
    pub cut: Vec<NodeId>,
    /// Jobs for the disk, in order. The disk works while the applied entries are published and answered.
    pub disk: Vec<DiskJob>,
    /// The member table has changed: the caller informs the transport.
    pub members_changed: bool,
    /// Users or roles may have changed.
    pub auth_changed: bool,
    /// New versions for readers, in order.
    pub publish: Vec<Publication>,
    /// Replies to callers. They are sent after the versions that contain their effects are published.
    pub replies: Vec<Reply<T>>,
    /// Round-trip times of heartbeats that were answered in this step.
    pub round_trips: Vec<(NodeId, Duration)>,
    /// The statistics of the followers have changed ([`Engine::followers`]).
    pub followers_changed: bool,
    /// Bytes of keys and values in the client changes that were applied.
    pub accepted_bytes: u64,
    /// This member was removed from its cluster, and the others have had time to learn of it: the process should end.
    pub removed: bool,
    /// The engine has stopped, and every request has its reply. The caller must not pass it further events.
    pub stopped: bool,
}

impl<T> Default for Effects<T> {
    fn default() -> Effects<T> {
        Effects {
            notes: Vec::new(),
            send: Vec::new(),
            send_snapshot: Vec::new(),
            cut: Vec::new(),
            disk: Vec::new(),
            members_changed: false,
            auth_changed: false,
            publish: Vec::new(),
            replies: Vec::new(),
            round_trips: Vec::new(),
            followers_changed: false,
            accepted_bytes: 0,
            removed: false,
            stopped: false,
        }
    }
}

/// One member of a cluster. `T` is a value that the caller attaches to a request; the reply returns it.
pub struct Engine<T, R: Rules = AllRules> {
    rules: R,
    core: Core<R::Core>,
    state: State,
    settings: Settings,
    /// The time of this step.
    now: Now,
    /// The effects of this step so far.
    effects: Effects<T>,
    estimate: Estimate,
    pending: PendingRequests<T>,
    forwards: Forwards<T>,
    reads: Reads<T>,
    /// Requests of other members to this one.
    asked: MemberQuestions,
    leaderless: Leaderless<T>,
    /// Number of callers that have no reply yet.
    callers: usize,
    /// What clients could see at the end of the last step.
    seen: ClientView,
    followers: Followers,
    schedule: Schedule,
    /// A snapshot on disk. The log before it may be deleted when no follower needs that part any longer.
    compacting: Option<(SnapshotMetadata, Monotonic)>,
    /// The last membership change that was appended here.
    changing: Option<Position>,
    /// Whether a snapshot that can be sent is on disk.
    has_snapshot: bool,
    /// Followers that wait for such a snapshot.
    want_snapshot: Vec<NodeId>,
    /// Followers that did not accept a snapshot, with the wait before it is sent again.
    pauses: Pauses,
    /// The received snapshot that is being installed.
    installing: Option<Box<Incoming>>,
    /// The content of the next batch.
    batch: Batch,
    then: Vec<(NodeId, PeerMessage)>,
    /// The last entry and the term that were handed to the disk.
    handed: (LogIndex, Term),
    /// When the present batch was handed to the disk.
    saving: Option<Monotonic>,
    probes: Probes<T>,
    /// When the disk first had no space for the oldest batch.
    full_since: Option<Monotonic>,
    /// Writes are refused: the disk is full, and no snapshot could shorten the log.
    disk_full: bool,
    /// Writes that enlarge the tree are refused: a snapshot of it would not fit on the disk.
    no_room: Option<NoRoom>,
    /// The outcomes of this step's entries, in order.
    results: Vec<Applying<T>>,
    lost: Vec<T>,
    /// An entry was applied since the last publication.
    unpublished: bool,
    /// A view that is published too late, when [`Rule::PublishedBeforeReply`] is switched off.
    late_view: Option<Publication>,
    /// The term of the last applied entry.
    applied_term: Term,
    /// The leader at the end of the last step.
    leader: Option<NodeId>,
    /// The latest cluster time received from a leader, with that leader's term: messages can overtake each other.
    time_heard: (Term, ClusterTime),
    next_tick: Monotonic,
    expiry: Expiry,
    time_logged: Monotonic,
    stopping: Option<Stopping>,
    noted: Noted,
    tracer: Tracer,
    /// When this member first noticed that it was removed.
    removed: Option<Monotonic>,
    /// Members that report this member's removal, while there is no leader.
    removed_by: BTreeSet<NodeId>,
    #[cfg(edgetcd_next_format)]
    has_proposed_next_format: bool,
    /// The newest format of commands that each other member understands, once it has said so.
    formats: BTreeMap<NodeId, u16>,
    /// Per member: when a violation of the protocol was last logged.
    violations: BTreeMap<NodeId, Monotonic>,
    /// Per follower: when the loss of its log's tail was last logged.
    lost_tails: BTreeMap<NodeId, Monotonic>,
    /// Comparison of this leader's disk with those of the others.
    lag: Lag,
}

/// Callers that want to know whether the disk syncs, each with its deadline.
struct Probes<T> {
    /// They wait for a batch that begins after their request.
    waiting: Vec<(Monotonic, T)>,
    /// Their batch is with the disk.
    saving: Vec<(Monotonic, T)>,
}

impl<T> Default for Probes<T> {
    fn default() -> Probes<T> {
        Probes {
            waiting: Vec::new(),
            saving: Vec::new(),
        }
    }
}

impl<T> Probes<T> {
    /// Removes and returns the callers whose deadline has passed.
    fn expired(&mut self, now: Monotonic) -> Vec<T> {
        let late = |(deadline, _): &mut (Monotonic, T)| *deadline <= now;
        let waiting = self.waiting.extract_if(.., late);
        let saving = self.saving.extract_if(.., late);
        waiting.chain(saving).map(|(_, caller)| caller).collect()
    }

    fn drain(&mut self) -> Vec<T> {
        let both = self.waiting.drain(..).chain(self.saving.drain(..));
        both.map(|(_, caller)| caller).collect()
    }
}

/// The outcome of one entry, until the view that contains it is published.
struct Applying<T> {
    caller: Option<T>,
    effect: Effect,
    applied: LogIndex,
    term: Term,
}

impl<T> Engine<T> {
    /// A member that is about to start. `state` is that of the newest snapshot, and `estimate` continues the cluster
    /// time of the log.
    pub fn new(
        core: Core,
        state: State,
        settings: Settings,
        estimate: Estimate,
        now: Now,
    ) -> Engine<T> {
        Engine::with_rules(AllRules, core, state, settings, estimate, now)
    }
}

impl<T, R: Rules> Engine<T, R> {
    /// Like [`Engine::new`], with other rules.
    pub fn with_rules(
        rules: R,
        core: Core<R::Core>,
        mut state: State,
        settings: Settings,
        estimate: Estimate,
        now: Now,
    ) -> Engine<T, R> {
        let start = now.monotonic;
        assert!(
            !settings.tick.is_zero() && settings.election_ticks > 0,
            "{settings:?} has no ticks"
        );
        assert_eq!(
            state.applied,
            core.applied(),
            "the state and the log begin at one snapshot"
        );
        let estimate = estimate.at_least(state.time, start);
        state.tree.limit_history(settings.history_bytes);
        Engine {
            effects: Effects::default(),
            schedule: Schedule::new(
                settings.snapshot_count,
                settings.log_bytes_max,
                settings.snapshot_bytes,
            ),
            has_snapshot: settings.snapshot_bytes > 0,
            next_tick: start + settings.tick,
            pending: PendingRequests::default(),
            forwards: Forwards::new(settings.first_tag),
            reads: Reads::new(settings.first_tag),
            asked: MemberQuestions::default(),
            leaderless: Leaderless::default(),
            callers: 0,
            seen: ClientView::default(),
            followers: Followers::default(),
            compacting: None,
            changing: None,
            want_snapshot: Vec::new(),
            pauses: Pauses::default(),
            installing: None,
            batch: Batch::default(),
            then: Vec::new(),
            handed: (core.last_position().index, core.hard_state().term),
            saving: None,
            probes: Probes::default(),
            full_since: None,
            disk_full: false,
            no_room: None,
            results: Vec::new(),
            lost: Vec::new(),
            unpublished: false,
            late_view: None,
            applied_term: Term(0),
            leader: None,
            time_heard: (Term(0), ClusterTime(0)),
            expiry: Expiry::new(start),
            time_logged: start,
            stopping: None,
            noted: Noted::new(&core),
            tracer: Tracer::new(&core),
            removed: None,
            removed_by: BTreeSet::new(),
            #[cfg(edgetcd_next_format)]
            has_proposed_next_format: false,
            formats: BTreeMap::new(),
            violations: BTreeMap::new(),
            lost_tails: BTreeMap::new(),
            lag: Lag::default(),
            rules,
            core,
            state,
            settings,
            now,
            estimate,
        }
    }

    /// Processes one event and returns what must be done, in the order that [`Effects`] documents.
    pub fn step(&mut self, now: Now, event: Event<T>) -> Effects<T> {
        debug_assert!(now.monotonic >= self.now.monotonic, "time went back");
        self.now = now;
        self.expiry.measure(now.monotonic);
        self.begin_trace();
        match event {
            Event::Start => {
                self.record_start();
                self.input(Input::Start);
            }
            Event::Tick => self.tick(),
            Event::GoOn => self.expire_more(),
            Event::Requests(requests) => {
                let callers = requests.iter().filter(|request| request.has_caller());
                self.callers += callers.count();
                self.take_requests(requests);
                // This expiry entry goes into the same batch, after the requests. So keys expire even under a constant
                // load.
                self.expire_more();
            }
            Event::Peers(events) => events.into_iter().for_each(|event| self.take_event(event)),
            Event::Disk(report) => self.take_report(report),
            Event::Transfer(to) => {
                self.input(Input::Transfer { to });
            }
            Event::Stop => self.begin_stop(),
        }
        self.end_step();
        self.check_step();
        std::mem::take(&mut self.effects)
    }

    /// When the next [`Event::Tick`] is due.
    pub fn deadline(&self) -> Monotonic {
        self.next_tick
    }

    /// Whether the caller should pass requests at `now`. While a batch is with the disk, they could not be stored
    /// earlier anyway, and one later step processes many of them. But a batch that takes long does not delay requests:
    /// their deadlines pass, and quorum reads need no disk.
    pub fn takes_requests(&self, now: Monotonic) -> bool {
        self.saving.is_none() || self.disk_full || self.stopping.is_some() || self.is_stalled(now)
    }

    /// Whether the applied state contains everything that any member has acknowledged, and will until a later step says
    /// otherwise: a cluster of one voter. Then a linearizable read needs no question to the core.
    pub fn decides_alone(&self) -> bool {
        self.stopping.is_none() && self.core.decides_alone(self.state.applied)
    }

    /// Whether there is work left that is done in pieces. The caller passes all other events first. If there is none,
    /// it passes [`Event::GoOn`].
    pub fn goes_on(&self) -> bool {
        self.expiry.goes_on() && self.saving.is_none() && self.keeps_time()
    }

    fn expire_more(&mut self) {
        if self.goes_on() {
            self.keep_time(self.now.monotonic);
        }
    }

    /// Whether the present batch has been with the disk for so long that requests no longer wait for it.
    fn is_stalled(&self, now: Monotonic) -> bool {
        let stall = self.settings.stall;
        self.saving.is_some_and(|since| now - since >= stall)
    }

    // Read access for the caller

    /// The raft core.
    pub fn core(&self) -> &Core<R::Core> {
        &self.core
    }

    /// The state machine.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// This member's estimate of cluster time.
    pub fn estimate(&self) -> Estimate {
        self.estimate
    }

    /// Statistics of the followers; empty if this member does not lead.
    pub fn followers(&self) -> &Followers {
        &self.followers
    }

    /// Whether writes are refused until there is space. Reads continue.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full || self.no_room.is_some()
    }

    /// When the oldest batch that is not synced was handed to the disk. `None` if everything is synced.
    pub fn disk_waits_since(&self) -> Option<Monotonic> {
        self.saving
    }

    /// Whether a received snapshot is being installed. Another one cannot be used meanwhile.
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Number of requests that wait for their entry or for a leader.
    pub fn pending(&self) -> usize {
        self.pending.len() + self.forwards.len() + self.leaderless.len()
    }

    /// Bytes of the commands that wait for a leader.
    pub fn leaderless_bytes(&self) -> usize {
        self.leaderless.bytes()
    }

    // Ticks

    fn tick(&mut self) {
        let now = self.now.monotonic;
        self.next_tick = now + self.tick_span();
        self.input(Input::Tick);
        let late = self.pending.expired(now);
        self.fail(late, Failure::TimedOut);
        let late = self.forwards.expired(now);
        self.record_forward(ForwardStep::Failed, None, late.len());
        self.fail(late, Failure::TimedOut);
        if self.rules.keeps(Rule::ReadsTimeOut) {
            let late = self.reads.expired(now);
            self.fail(late, Failure::TimedOut);
        }
        let late = self.probes.expired(now);
        self.fail(late, Failure::TimedOut);
        self.retry_leaderless(now);
        self.note_no_leader(now);
        self.end_pauses(now);
        self.ask_again_unanswered(now);
        self.compact_when_possible(now);
        self.end_if_removed(now);
        self.refuse_if_full_for_long(now);
        self.seek_room(now);
        self.hand_over_if_full();
        self.make_way_if_slow(now);
        if self.core.is_leader() {
            self.show_followers();
        }
        if self.keeps_time() {
            self.keep_time(now);
        }
    }

    fn keeps_time(&self) -> bool {
        let leads = self.core.is_leader() || !self.rules.keeps(Rule::LeaderExpires);
        leads && !self.disk_full && self.stopping.is_none()
    }

    fn show_followers(&mut self) {
        let members = &self.state.members;
        self.followers.retain(|id| members.get(id).is_some());
        self.effects.followers_changed = true;
    }

    fn tick_span(&self) -> Duration {
        let members = self.core.membership();
        let alone = members.voters.len() == 1 && members.learners.is_empty();
        match alone && self.core.is_leader() {
            true => ALONE_TICK.max(self.settings.tick),
            false => self.settings.tick,
        }
    }

    /// Proposes the expiry of due keys, and records the time in the log while keys with a TTL exist. The minimum
    /// intervals count from the proposal, so a slow disk that delays the previous entry does not cause more of them.
    fn keep_time(&mut self, now: Monotonic) {
        #[cfg(edgetcd_next_format)]
        self.propose_next_format();
        let cluster = self.estimate.at(now);
        let due = self
            .state
            .tree
            .next_expiry()
            .is_some_and(|at| at <= cluster);
        if due && (self.expiry.goes_on() || now - self.expiry.ran >= EXPIRY_INTERVAL) {
            let most = self.expiry.propose(now);
            self.propose(vec![Proposal::own(entry::expire_some(most))]);
            return;
        }
        if !due {
            self.expiry.rest();
        }
        if self.state.tree.has_ttl() && now - self.time_logged >= TIME_INTERVAL {
            self.time_logged = now;
            self.propose(vec![Proposal::own(entry::time())]);
        }
    }

    // The end of a step

    fn end_step(&mut self) {
        self.look_for_leader();
        self.save();
        if self.saving.is_some() {
            self.expiry.skip_measure();
        }
        if self.unpublished {
            self.publish();
        }
        self.answer_reads();
        self.begin_snapshot_if_due();
        if self.has_stopped() {
            self.fail_all(Failure::Stopped);
            self.effects.stopped = true;
        }
        self.record_sent();
    }

    /// After a change of leader: processes the requests that waited for a leader, and asks for read indexes again.
    fn look_for_leader(&mut self) {
        let leader = self.core.leader();
        if leader == self.leader {
            return;
        }
        self.leader = leader;
        self.expiry.rest();
        self.removed_by.clear();
        self.lost_tails.clear();
        self.lag = Lag::default();
        self.want_snapshot.clear();
        self.pauses.clear();
        self.followers.clear();
        self.effects.followers_changed = true;
        if self.core.is_leader() && !self.rules.keeps(Rule::TimeIsTheClusters) {
            self.estimate = Estimate::default();
        }
        self.ask_again();
        if leader.is_some() {
            self.retry_leaderless(self.now.monotonic);
        }
    }

    /// Publishes the new state, then replies to the callers of its entries.
    fn publish(&mut self) {
        self.unpublished = false;
        let events = self
            .results
            .iter()
            .filter_map(|applying| applying.effect.event());
        let mut events: Vec<Applied> = events.cloned().collect();
        if !self.rules.keeps(Rule::EventsAreComplete) {
            events.drain(..events.len().saturating_sub(1));
        }
        let publication = self.publication(events);
        match self.rules.keeps(Rule::PublishedBeforeReply) {
            true => self.effects.publish.push(publication),
            false => self
                .effects
                .publish
                .extend(self.late_view.replace(publication)),
        }
        for applying in std::mem::take(&mut self.results) {
            let Applying {
                caller,
                effect,
                applied,
                term,
            } = applying;
            if let Some(caller) = caller {
                let outcome = Outcome::Done {
                    effect,
                    applied,
                    term,
                };
                self.reply(caller, outcome);
            }
        }
        let lost = std::mem::take(&mut self.lost);
        self.fail(lost, Failure::LeaderLost);
    }

    /// The present state as a version for readers who have not seen the changes that led to it.
    pub fn present(&self) -> Publication {
        Publication {
            is_jump: true,
            ..self.publication(Vec::new())
        }
    }

    fn publication(&self, events: Vec<Applied>) -> Publication {
        let (last, index) = (events.last(), self.state.tree.index());
        assert!(
            last.is_none_or(|last| last.event.index <= index),
            "{last:?} is not part of the tree at {index:?}"
        );
        Publication {
            tree: self.state.tree.clone(),
            applied: self.state.applied,
            term: self.shown_term(),
            events,
            is_jump: false,
        }
    }

    fn answer_reads(&mut self) {
        for caller in self.reads.ready(self.state.applied) {
            self.reply(caller, Outcome::Confirmed);
        }
    }

    /// Hands the collected records to the disk, unless the previous batch is still there.
    fn save(&mut self) {
        if self.saving.is_none() {
            self.save_now();
        }
    }

    fn save_now(&mut self) {
        let nothing = self.batch.hard_state.is_none()
            && self.batch.entries.is_empty()
            && self.then.is_empty()
            && self.probes.waiting.is_empty();
        if nothing {
            return;
        }
        let (mut batch, rest) =
            std::mem::take(&mut self.batch).split(self.settings.batch_bytes_max);
        if !batch.entries.is_empty() {
            self.time_logged = self.now.monotonic;
        }
        // An empty batch needs no sync, so it would prove nothing to a disk probe. This record makes it non-empty.
        if !batch.entries.is_empty() || !self.probes.waiting.is_empty() {
            batch.noted = Some((self.estimate.at(self.now.monotonic), self.now.monotonic));
        }
        self.probes.saving.append(&mut self.probes.waiting);
        self.check_handed(&batch);
        // The messages may depend on entries in the rest.
        let then = match &rest {
            Some(_) => Vec::new(),
            None => std::mem::take(&mut self.then),
        };
        self.hold_sent(&then);
        self.batch = rest.unwrap_or_default();
        self.saving = Some(self.now.monotonic);
        let reserve = self.reserve();
        self.effects.disk.push(DiskJob::Save {
            batch,
            then,
            reserve,
        });
    }

    /// The disk gets one batch at a time, and each continues the log that it has.
    fn check_handed(&mut self, batch: &Batch) {
        assert!(
            self.saving.is_none() || self.installing.is_some(),
            "a second batch is handed over"
        );
        if let Some(first) = batch.entries.first() {
            let handed = self.handed.0;
            assert!(
                first.position.index <= handed.next(),
                "{} after {handed:?} is handed over",
                first.position
            );
        }
        if let Some(last) = batch.entries.last() {
            self.handed.0 = last.position.index;
        }
        if let Some(hard_state) = batch.hard_state {
            let handed = self.handed.1;
            assert!(
                hard_state.term >= handed,
                "{hard_state:?} after {handed:?} is handed over"
            );
            self.handed.1 = hard_state.term;
        }
    }

    // Replies

    fn reply(&mut self, caller: T, outcome: Outcome) {
        assert!(self.callers > 0, "a reply to a caller that has one");
        self.callers -= 1;
        self.effects.replies.push(Reply { caller, outcome });
    }

    fn fail_all(&mut self, failure: Failure) {
        let mut callers = self.pending.drain();
        callers.extend(self.drain_forwards());
        self.fail(callers, failure);
        for (_, request) in self.leaderless.take() {
            self.refuse(request, failure);
        }
        let readers = self.reads.drain();
        self.fail(readers, failure);
        let probes = self.probes.drain();
        self.fail(probes, failure);
        assert_eq!(self.pending(), 0, "requests wait after all have failed");
    }

    /// Ends all forwarded commands. Returns their callers.
    fn drain_forwards(&mut self) -> Vec<T> {
        let callers = self.forwards.drain();
        self.record_forward(ForwardStep::Failed, None, callers.len());
        callers
    }

    fn fail(&mut self, callers: Vec<T>, failure: Failure) {
        for caller in callers {
            self.reply(caller, Outcome::Failed(failure));
        }
    }

    fn refuse(&mut self, request: Request<T>, failure: Failure) {
        self.fail(request.into_caller().into_iter().collect(), failure);
    }
}
