//! One member of a cluster as a pure value: an event comes in, effects come out.
//!
//! The engine joins the raft core to the state machine. It owns what a member decides: which proposals wait for
//! which entries, what is forwarded to the leader and may be sent again, which reads are confirmed, who may join or
//! leave, when a snapshot is due, when keys expire, and how a member stops. It has no thread, channel, clock, file or
//! socket. The raft thread ([`crate::replica`]) performs its effects with real disks and links, and the simulator
//! ([`crate::sim`]) with simulated ones, so that both run the same code.
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
//! A member that does not lead sends the command to the leader with a tag ([`letter`]), and replies when it applies
//! the entry with that tag. So a client reads its own write. The module `forwards` says when a command may be sent
//! again, and when it fails.
//!
//! ```text
//!  follower:  Request ──▶ forwards ══ Forward ══▶ leader: append in that term ══ Append ══▶ all
//!             Reply ◀── apply ◀── commit ◀═════════════════════════════════════════════════╛
//! ```
//!
//! # Invariants
//!
//! * An entry counts for this member only after its own sync ([`DiskReport::Stored`]).
//! * A view is published before anybody is answered: who has a reply reads what it says.
//! * Each request gets one reply: from its entry, from a failure, or because its time ran out.
//! * No command is appended twice: it is sent again only if it certainly was not taken (hazard D16).
//! * At most one batch is with the WAL at a time. What comes meanwhile goes into the next one, except that an
//!   installed snapshot is preceded by what was handed out before it.
//!
//! | file | content |
//! |---|---|
//! | `mod.rs` | the engine, its events and effects; ticks; the end of a step |
//! | `requests.rs` | what clients ask: appended here, or forwarded to the leader |
//! | `letters.rs` | what other members send |
//! | `reports.rs` | what the disk reports; snapshots made, sent and installed |
//! | `todo.rs` | what the core asks for; entries applied |
//! | `notes.rs` | what an operator is told of all that |
//! | `rules.rs` | the rules that the simulator can switch off |
//! | `expiry.rs` | how many keys expire at once |
//! | `trust.rs` | whose messages are taken |
//! | `stopping.rs` | leadership handed over, and the last replies |

pub mod entry;
mod expiry;
pub mod followers;
mod forwards;
pub mod lag;
pub mod letter;
mod letters;
pub mod members;
mod notes;
mod pauses;
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
mod tickets;
pub mod time;
mod todo;
mod trust;

use crate::raft::{
    AllRules, Ballot, Core, Entry, Input, LogIndex, NodeId, Position, SnapshotMark, Term,
};
use crate::tree::{Applied, ClusterTime, Tree};
use core::time::Duration;
use expiry::Expiry;
use followers::Followers;
use forwards::Forwards;
use lag::Lag;
use letter::Letter;
use notes::Noted;
pub use notes::{MemberChange, Note};
use pauses::Pauses;
use reads::{Asked, Reads};
use request::{Effect, Failure, Outcome, Proposal, Reply, Request, Task};
use rules::{Rule, Rules};
use schedule::Schedule;
use state::State;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use stopping::Stopping;
use tickets::Tickets;
use time::{Estimate, Monotonic, Now};

/// Requests that a caller should hand over at most at once.
pub const REQUESTS_MAX: usize = 4096;

/// Proposals that may wait for their entries; more are refused.
const TICKETS_MAX: usize = 2 * REQUESTS_MAX;

/// Bytes of the commands that wait for a leader; one alone may be larger.
const LEADERLESS_BYTES_MAX: usize = 32 << 20;

/// Expiry runs at most this often, as in the reference.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(500);

/// While keys with a TTL exist, the log records the time at least this often.
const TIME_INTERVAL: Duration = Duration::from_secs(60);

/// A node without others to hear or to tell needs no finer time than this.
const ALONE_TICK: Duration = Duration::from_millis(100);

/// How a member behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Between two [`Event::Tick`].
    pub tick: Duration,
    /// A request fails after this long (spec §11: 5 s + 2 × election timeout).
    pub request_timeout: Duration,
    /// Without a leader a request waits this long (2 × election timeout).
    pub leader_timeout: Duration,
    /// Entries between two snapshots.
    pub snapshot_count: u64,
    /// Bytes of the newest snapshot, 0 without one.
    pub snapshot_bytes: u64,
    /// A log this long is cut whatever the count of its entries.
    pub log_bytes_max: u64,
    /// Bytes of entries that are stored together; a single entry may have more. A batch goes into one segment, which
    /// must not be larger than what a small disk has.
    pub batch_bytes_max: usize,
    /// Bytes of events that this member keeps for watches; one event is always kept.
    pub history_bytes: usize,
    /// A batch that is with the disk for longer no longer holds up requests.
    pub stall: Duration,
    /// Ticks after which a member that was not heard counts as gone.
    pub election_ticks: u32,
    /// Whether changes of the members that could cost the majority are refused
    /// (`--strict-reconfig-check`).
    pub strict_changes: bool,
    /// Drawn at random at each start: by tags from here on this member recognises its forwarded commands.
    pub first_tag: u64,
}

/// What happens to a member.
pub enum Event<T> {
    /// The process is up. The first event.
    Start,
    /// [`Engine::deadline`] has passed.
    Tick,
    /// Nothing else has happened, and [`Engine::goes_on`]: the next of what is done in pieces.
    GoOn,
    /// Clients ask. All proposals of one event become one run of entries, all reads share one question.
    Requests(Vec<Request<T>>),
    /// The transport reports, in order.
    Peers(Vec<PeerEvent>),
    /// The disk reports.
    Disk(DiskReport),
    /// A leader is to transfer its leadership to this member, or to the one that it thinks best. Of no effect on a member
    /// that does not lead, or that cannot.
    Transfer(Option<NodeId>),
    /// Finish what was handed over, and stop. Once.
    Stop,
}

/// What the transport reports.
pub enum PeerEvent {
    /// What one member sent, in order.
    Letters {
        /// Checked to be a member of this cluster, with the incarnation that it is known by.
        from: NodeId,
        /// As many as came at once.
        letters: Vec<Letter>,
    },
    /// What was asked of a leader under these numbers (commands, changes, indexes of reads) was never handed to a
    /// connection.
    Unsent(Vec<u64>),
    /// Raft's messages to this member were dropped, or its connection broke.
    Unreachable(NodeId),
    /// Its process is gone: the connection ended, and a new one was refused by its machine.
    Gone(NodeId),
    /// A snapshot has come whole and is synced under a temporary name. If the effects of this step hold no
    /// [`DiskJob::Install`], it is of no use.
    Snapshot(Box<Incoming>),
    /// The snapshot sent to `to` was installed there, or not.
    SnapshotSent {
        /// The follower.
        to: NodeId,
        /// The snapshot's position; None: it was not sent, or not used.
        installed: Option<Position>,
    },
    /// This member's newest snapshot cannot be read back: there is none to send until another one is made.
    SnapshotUnreadable,
    /// A member says that this one was removed from the cluster. It may be mistaken, or speak of a cluster of its own.
    Removed {
        /// The member.
        by: NodeId,
    },
}

/// A snapshot that another member has sent.
#[derive(Clone)]
pub struct Incoming {
    /// Who sent it: the leader of `term`.
    pub from: NodeId,
    /// As the sender said.
    pub term: Term,
    /// What it stands for.
    pub mark: SnapshotMark,
    /// What it holds.
    pub state: State,
    /// Bytes of that state in the file.
    pub bytes: u64,
}

/// What the disk reports.
pub enum DiskReport {
    /// Everything handed over so far is on disk: these batches since the last report, in order.
    Stored(Vec<Stored>),
    /// The disk is full. The caller goes on trying.
    Full,
    /// The first of the entries asked for, in order; none if they were compacted away.
    Read(Vec<Entry>),
    /// A snapshot of this member's own state is durable.
    Snapshot {
        /// The point that the snapshot stands for: the log before it may go.
        mark: SnapshotMark,
        /// Of the state as saved, without what the file adds.
        bytes: u64,
        /// How long that took.
        took: Duration,
    },
    /// The snapshot at this position is the log now.
    Installed(Position),
    /// No snapshot came of it (a full disk); it may be tried again later.
    NoSnapshot,
}

/// One batch that is on disk.
#[derive(Debug, Clone, Copy)]
pub struct Stored {
    /// Its hard state, stored before its entries; None: it had none.
    pub ballot: Option<Ballot>,
    /// Its last entry; None: it had none.
    pub last: Option<Position>,
}

/// What is to be stored together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Term and vote, if they changed. Stored before the entries.
    pub ballot: Option<Ballot>,
    /// Consecutive entries. They take the place of all from the first one's index on.
    pub entries: Vec<Entry>,
    /// With entries, or for a probe: cluster time at the machine's time, so that a restart knows how long it was down.
    pub noted: Option<(ClusterTime, Monotonic)>,
}

impl Batch {
    /// Adds entries. They replace those from the first one's index on, in the batch too: a new leader's may
    /// come before the batch with the old one's is written.
    fn add(&mut self, entries: Vec<Entry>) {
        if let Some(first) = entries.first().map(|entry| entry.position.index) {
            let kept = (self.entries).partition_point(|entry| entry.position.index < first);
            self.entries.truncate(kept);
        }
        self.entries.extend(entries);
    }

    /// The first entries, with all else, and the rest if they have more bytes than that together.
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
        let rest = Batch {
            entries,
            ..Batch::default()
        };
        (self, Some(rest))
    }
}

/// The tree has grown beyond what the disk can take a snapshot of.
struct NoRoom {
    /// When a snapshot is tried again…
    again: Monotonic,
    /// …and how long after that.
    pause: Duration,
    /// Bytes of the state that did not fit.
    bytes: u64,
    /// What was applied when it was measured.
    measured: LogIndex,
}

/// What the disk is to do. Jobs are done in order.
pub enum DiskJob {
    /// Store the batch, then let the messages go. Several that wait may share one sync.
    Save {
        /// May be empty: then the messages wait for what was handed over before.
        batch: Batch,
        /// True only once the batch is on disk.
        then: Vec<(NodeId, Letter)>,
        /// Bytes of the disk that the next snapshot may need: the log must not take them.
        reserve: u64,
    },
    /// Keep so many bytes for the next snapshot from now on, and try again what had no room.
    Reserve(u64),
    /// Read entries `[from, to]` back, or the first of them.
    Read {
        /// The first index, at least 1.
        from: LogIndex,
        /// The last index wanted.
        to: LogIndex,
    },
    /// Write a snapshot of this state beside everything else.
    Snapshot(Box<Task>),
    /// The snapshot is durable and the core has let go of the log before it: remove files.
    Compact(SnapshotMark),
    /// Make the received snapshot the newest one, durably. Only then cut the log.
    Install(SnapshotMark),
}

/// A new version of what readers see.
pub struct Publication {
    /// The tree.
    pub tree: Tree,
    /// The last entry applied to it.
    pub applied: LogIndex,
    /// This member's term, as it is on disk.
    pub term: Term,
    /// The changes that led to it, in order.
    pub events: Vec<Applied>,
    /// The tree came with a snapshot of another member: the changes that led to it are not known one by one.
    pub is_jump: bool,
}

/// What a step asks for. **The order of the fields is the order in which they take effect.**
pub struct Effects<T> {
    /// What an operator is told.
    pub notes: Vec<Note>,
    /// Messages that may leave at once.
    pub send: Vec<(NodeId, Letter)>,
    /// Followers to stream the newest snapshot to, in the name of the leader of the term. Each is answered with
    /// [`PeerEvent::SnapshotSent`].
    pub send_snapshot: Vec<(NodeId, Term)>,
    /// Members whose connections to this one are to be closed: what came by them contradicts the protocol.
    pub cut: Vec<NodeId>,
    /// For the disk, in order. The disk works while what was applied is published and answered.
    pub disk: Vec<DiskJob>,
    /// The member table has changed: the transport is told.
    pub members_changed: bool,
    /// What readers see from now on, in order.
    pub publish: Vec<Publication>,
    /// To callers, after the view that shows what they did.
    pub replies: Vec<Reply<T>>,
    /// Round trips of heartbeats that ended in this step.
    pub round_trips: Vec<(NodeId, Duration)>,
    /// The statistics of the followers changed ([`Engine::followers`]).
    pub followers_changed: bool,
    /// Bytes of keys and values of the clients' changes that were applied.
    pub accepted_bytes: u64,
    /// This member was removed from its cluster, and the others have had time to learn of it: the process ends.
    pub removed: bool,
    /// The engine has stopped, and everybody was answered. Nothing may be handed to it any more.
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

/// One member of a cluster. `T` is what the caller attaches to a request; it comes back with the reply.
pub struct Engine<T, R: Rules = AllRules> {
    rules: R,
    core: Core<R::Core>,
    state: State,
    settings: Settings,
    /// As of this step.
    now: Now,
    /// What this step has asked for so far.
    effects: Effects<T>,
    estimate: Estimate,
    tickets: Tickets<T>,
    forwards: Forwards<T>,
    reads: Reads<T>,
    /// What other members asked of this one.
    asked: Asked,
    /// Requests that wait for a leader, with the time at which they fail.
    leaderless: VecDeque<(Monotonic, Request<T>)>,
    /// Bytes of their commands.
    leaderless_bytes: usize,
    followers: Followers,
    schedule: Schedule,
    /// A snapshot on disk up to which the log may go, once no follower needs that part any more.
    compacting: Option<(SnapshotMark, Monotonic)>,
    /// The last change of the members that was appended here.
    changing: Option<Position>,
    /// A snapshot that can be sent is on disk.
    has_snapshot: bool,
    /// Followers that wait until there is one.
    want_snapshot: Vec<NodeId>,
    /// Followers that did not take one, before it is sent again.
    pauses: Pauses,
    /// A snapshot that has come and is being installed.
    installing: Option<Box<Incoming>>,
    /// What the next batch will hold.
    batch: Batch,
    then: Vec<(NodeId, Letter)>,
    /// Since when a batch is with the disk.
    saving: Option<Monotonic>,
    probes: Probes<T>,
    /// Since when the disk has had no room for the oldest batch.
    full_since: Option<Monotonic>,
    /// Writes are refused: the disk is full, and no snapshot could shorten the log.
    disk_full: bool,
    /// Writes that grow the tree are refused: a snapshot of it would not fit on the disk.
    no_room: Option<NoRoom>,
    /// What this step's entries led to, in order.
    results: Vec<Applying<T>>,
    lost: Vec<T>,
    /// Something was applied since the last view.
    unpublished: bool,
    /// Published too late, without [`Rule::PublishedBeforeReply`].
    late_view: Option<Publication>,
    /// The term of the last entry applied.
    applied_term: Term,
    /// As of the last step's end.
    leader: Option<NodeId>,
    /// The latest cluster time heard from a leader, and that leader's term: messages overtake each other.
    time_heard: (Term, ClusterTime),
    next_tick: Monotonic,
    expiry: Expiry,
    time_logged: Monotonic,
    stopping: Option<Stopping>,
    noted: Noted,
    /// When it was first seen that this member was removed.
    removed: Option<Monotonic>,
    /// Members that say so, while no leader is heard.
    removed_by: BTreeSet<NodeId>,
    /// When it was last noted that a member's message contradicts the protocol.
    violations: BTreeMap<NodeId, Monotonic>,
    /// When it was last noted of a follower that it has lost its tail.
    lost_tails: BTreeMap<NodeId, Monotonic>,
    /// How this leader's disk compares with the others'.
    lag: Lag,
}

/// Callers who want to know whether the disk syncs, each with the time at which that question fails.
struct Probes<T> {
    /// They need a batch that begins after their question.
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
    /// Takes those out whose time is over.
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

/// What one entry led to, until the view that shows it is published.
struct Applying<T> {
    caller: Option<T>,
    effect: Effect,
    applied: LogIndex,
    term: Term,
}

impl<T> Engine<T> {
    /// A member that is about to start, recovered from its disk: `state` is as of the newest snapshot, and `estimate`
    /// continues the cluster time of its log.
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
    /// As [`Engine::new`], under other rules.
    pub fn with_rules(
        rules: R,
        core: Core<R::Core>,
        mut state: State,
        settings: Settings,
        estimate: Estimate,
        now: Now,
    ) -> Engine<T, R> {
        let start = now.monotonic;
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
            tickets: Tickets::default(),
            forwards: Forwards::new(settings.first_tag),
            reads: Reads::new(settings.first_tag),
            asked: Asked::default(),
            leaderless: VecDeque::new(),
            leaderless_bytes: 0,
            followers: Followers::default(),
            compacting: None,
            changing: None,
            want_snapshot: Vec::new(),
            pauses: Pauses::default(),
            installing: None,
            batch: Batch::default(),
            then: Vec::new(),
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
            removed: None,
            removed_by: BTreeSet::new(),
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

    /// Takes one event and returns what must be done, in the order that [`Effects`] documents.
    pub fn step(&mut self, now: Now, event: Event<T>) -> Effects<T> {
        debug_assert!(now.monotonic >= self.now.monotonic, "time went back");
        self.now = now;
        self.expiry.measure(now.monotonic);
        match event {
            Event::Start => {
                self.input(Input::Start);
            }
            Event::Tick => self.tick(),
            Event::GoOn => self.expire_more(),
            Event::Requests(requests) => {
                self.serve(requests);
                // In the batch of these requests: they come first, and however many there are, keys expire.
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
        std::mem::take(&mut self.effects)
    }

    /// When [`Event::Tick`] is due next.
    pub fn deadline(&self) -> Monotonic {
        self.next_tick
    }

    /// Whether requests should be handed over at `now`. While a batch is with the disk they could not be stored
    /// earlier anyway, and one step takes many of them. A batch that takes long holds nobody up: time-outs run, and
    /// quorum reads need no disk.
    pub fn takes_requests(&self, now: Monotonic) -> bool {
        self.saving.is_none() || self.disk_full || self.stopping.is_some() || self.is_stalled(now)
    }

    /// Whether there is work left that is done in pieces. The caller gives each other event its turn, and when there is
    /// none steps [`Event::GoOn`].
    pub fn goes_on(&self) -> bool {
        self.expiry.goes_on() && self.saving.is_none() && self.keeps_time()
    }

    fn expire_more(&mut self) {
        if self.goes_on() {
            self.keep_time(self.now.monotonic);
        }
    }

    /// The batch is with the disk for so long that nobody waits for its end.
    fn is_stalled(&self, now: Monotonic) -> bool {
        let stall = self.settings.stall;
        self.saving.is_some_and(|since| now - since >= stall)
    }

    // What a caller may look at

    /// The raft core.
    pub fn core(&self) -> &Core<R::Core> {
        &self.core
    }

    /// What the log adds up to.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What this member takes for cluster time.
    pub fn estimate(&self) -> Estimate {
        self.estimate
    }

    /// How the followers answer; empty if this member does not lead.
    pub fn followers(&self) -> &Followers {
        &self.followers
    }

    /// Writes are refused until there is space; reads go on.
    pub fn is_disk_full(&self) -> bool {
        self.disk_full || self.no_room.is_some()
    }

    /// Since when the oldest batch that is not synced is with the disk; None: all that was handed over is synced.
    pub fn disk_waits_since(&self) -> Option<Monotonic> {
        self.saving
    }

    /// A snapshot that came is being installed. Another one is of no use meanwhile.
    pub fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Requests that wait for their entry or for a leader.
    pub fn pending(&self) -> usize {
        self.tickets.len() + self.forwards.len() + self.leaderless.len()
    }

    /// Bytes of the commands that wait for a leader.
    pub fn leaderless_bytes(&self) -> usize {
        self.leaderless_bytes
    }

    // Ticks

    fn tick(&mut self) {
        let now = self.now.monotonic;
        self.next_tick = now + self.tick_span();
        self.input(Input::Tick);
        let late = self.tickets.expired(now);
        self.fail(late, Failure::TimedOut);
        let late = self.forwards.expired(now);
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

    /// Expires what is due, and lets the log know the time while that matters. Not more often while a batch
    /// takes its time: the entry asked for before is on its way.
    fn keep_time(&mut self, now: Monotonic) {
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
    }

    /// With another leader, what waits for one has its turn at once, and reads are asked again.
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

    /// Publishes the new state, then answers those who brought it about.
    fn publish(&mut self) {
        self.unpublished = false;
        let events = self
            .results
            .iter()
            .filter_map(|applying| applying.effect.event());
        let events = events.cloned().collect();
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

    fn publication(&self, events: Vec<Applied>) -> Publication {
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

    /// Hands the disk what has gathered, unless it is still busy with the batch before.
    fn save(&mut self) {
        if self.saving.is_none() {
            self.save_now();
        }
    }

    fn save_now(&mut self) {
        let nothing = self.batch.ballot.is_none()
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
        // Without a record of its own an empty batch would need no sync, and would tell a probe nothing.
        if !batch.entries.is_empty() || !self.probes.waiting.is_empty() {
            batch.noted = Some((self.estimate.at(self.now.monotonic), self.now.monotonic));
        }
        self.probes.saving.append(&mut self.probes.waiting);
        // Messages may promise what is in the rest.
        let then = match &rest {
            Some(_) => Vec::new(),
            None => std::mem::take(&mut self.then),
        };
        self.batch = rest.unwrap_or_default();
        self.saving = Some(self.now.monotonic);
        let reserve = self.reserve();
        self.effects.disk.push(DiskJob::Save {
            batch,
            then,
            reserve,
        });
    }

    // Replies

    fn reply(&mut self, caller: T, outcome: Outcome) {
        self.effects.replies.push(Reply { caller, outcome });
    }

    fn fail_all(&mut self, failure: Failure) {
        let mut callers = self.tickets.drain();
        callers.extend(self.forwards.drain());
        self.fail(callers, failure);
        self.leaderless_bytes = 0;
        for (_, request) in std::mem::take(&mut self.leaderless) {
            self.refuse(request, failure);
        }
        let readers = self.reads.drain();
        self.fail(readers, failure);
        let probes = self.probes.drain();
        self.fail(probes, failure);
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
