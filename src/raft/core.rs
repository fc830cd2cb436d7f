//! The core: a step takes one input and returns what the driver must do.

use super::conduct::Violation;
use super::election::{Hint, Timer, VoteAnswer, VoteCount, VoteReason};
use super::invariants;
use super::log::Log;
use super::membership::Members;
use super::message::{
    Body, Change, Entry, Envelope, HardState, LogIndex, Membership, Message, NodeId, Position,
    SnapshotMetadata, Term,
};
use super::replication::{Leading, PeerProgress};
use super::rules::{AllRules, Rules};
use crate::random::Random;
use std::marker::PhantomData;
use std::sync::Arc;

/// Parameters of a core.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The id of this node. The core ignores messages that claim to be from this id.
    pub id: NodeId,
    /// Ticks without a leader before an election. Each wait is random in [this, 2 × this).
    pub election_ticks: u32,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// Seed of the random timeouts. The same seed and inputs give the same outputs.
    pub seed: u64,
    /// Bytes of entries kept in memory (1 MiB). Older entries are read back with [`Todo::read`].
    pub memory_bytes: usize,
    /// Bytes of uncommitted entries at which a leader refuses proposals (hazard D21; 40 MiB).
    pub uncommitted_bytes: usize,
    /// Approximate bytes of entries in one append, and in one answer to [`Todo::read`].
    pub batch_bytes: usize,
    /// Bytes of appends that the leader sends to one follower before it waits for an acknowledgement.
    pub window_bytes: usize,
    /// Whether the core refuses a removal that leaves no majority of reachable voters (`--strict-reconfig-check`).
    pub strict_changes: bool,
}

impl Settings {
    /// The usual limits: an election after 100 ticks of 10 ms, a heartbeat every 10 ticks, 1 MiB in memory.
    pub fn new(id: NodeId, seed: u64) -> Settings {
        Settings {
            id,
            election_ticks: 100,
            heartbeat_ticks: 10,
            seed,
            memory_bytes: 1 << 20,
            uncommitted_bytes: 40 << 20,
            batch_bytes: 256 << 10,
            window_bytes: 2 << 20,
            strict_changes: true,
        }
    }
}

/// The state on disk when the node started.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// The hard state as last stored. A node that forgot its vote could vote twice in a term (§5.2).
    pub hard_state: HardState,
    /// Metadata of the newest snapshot. For a new cluster: position 0 with the bootstrap members. A node without any
    /// members is *blank*: it joins a cluster, and waits for a snapshot that names the members.
    pub snapshot: SnapshotMetadata,
    /// The log after the snapshot; empty on a new node.
    pub log: StoredLog,
}

/// The log after the snapshot, as found in the WAL.
#[derive(Debug, Clone, Default)]
pub struct StoredLog {
    /// First index of each run of entries with the same term, ascending. Empty if there is no entry after the snapshot.
    pub terms: Vec<(LogIndex, Term)>,
    /// Index of the last entry; the snapshot's index if there is none.
    pub last: LogIndex,
    /// Every membership change among the entries.
    pub changes: Vec<Entry>,
    /// The last entries, at most `memory_bytes` of them.
    pub tail: Vec<Entry>,
}

/// Every event that a core can receive.
#[derive(Debug, Clone)]
pub enum Input {
    /// The node has started. The input itself does nothing. But a core that is the only voter starts an election in its
    /// first step with any input, and this input can be the first.
    Start,
    /// One tick of the driver's monotonic clock (about 10 per heartbeat interval).
    Tick,
    /// A message from another member. The driver has already checked that it belongs to this cluster.
    Message {
        /// The sender. Replies are sent to it.
        from: NodeId,
        /// May be of any term: the core adopts a newer term and rejects an older one (§5.1).
        message: Message,
    },
    /// Append these commands, in this order, as one run. If `term` is given, append them only if this node leads in
    /// that term (used for forwarded proposals). Answered by `accepted` or `refused` in the output of the same step.
    Propose {
        /// The term in which the proposer expects this node to lead. `None` accepts any term.
        term: Option<Term>,
        /// One entry per command. Raft does not interpret them.
        commands: Vec<Arc<[u8]>>,
    },
    /// Everything that `install` and `append` requested up to here is on disk. The driver sends these reports and
    /// `HardStateStored` in the order of the requests. One report may cover several requests. If a hard state and entries
    /// were stored together, the entries are reported first.
    Stored {
        /// With its term, so that a late report about entries that were replaced since is not counted for the new ones.
        position: Position,
    },
    /// The hard state that was requested is on disk.
    HardStateStored {
        /// As it was in [`Todo::hard_state`].
        hard_state: HardState,
    },
    /// The answer to `Todo::read`: the requested entries, or only the first of them (at least one; about `batch_bytes`
    /// is a good amount). The core requests the rest again. Empty if the entries no longer exist.
    Read {
        /// Consecutive entries that begin with the first requested index.
        entries: Vec<Entry>,
    },
    /// Confirm the leadership, and return the index at which a read is linearizable. Answered in `reads` (or
    /// `refused_reads`) with the same id.
    ReadIndex {
        /// A number chosen by the caller, and never used again.
        id: u64,
    },
    /// Change the membership. Answered in `accepted` or `refused`.
    ProposeChange {
        /// Changes one node by one step (diss. §4.1).
        change: Change,
    },
    /// The state machine's own snapshot at this position is on disk, so the log before it may be deleted. From now on
    /// the core requests no entries up to `metadata` from disk.
    Compacted {
        /// As returned by [`Core::metadata_at`].
        metadata: SnapshotMetadata,
    },
    /// A complete snapshot has arrived from `from`, which leads in `term`. Its file is synced under a temporary name.
    /// [`Todo::install`] says whether to use it; if not, the driver deletes the file.
    Snapshot {
        /// The leader. It receives a reply with this node's progress.
        from: NodeId,
        /// If it is older than this node's term, the core informs the sender and does not use the snapshot (§5.1).
        term: Term,
        /// The snapshot is used only if it is ahead of this node's commit index (§7).
        metadata: SnapshotMetadata,
    },
    /// The snapshot for `to` was installed there (at `installed`), or could not be sent.
    SnapshotSent {
        /// A follower that [`Todo::send_snapshot`] named.
        to: NodeId,
        /// `None` if sending failed.
        installed: Option<Position>,
    },
    /// Transfer leadership to a voter. The core refuses at once or starts the transfer. The transfer ends when another
    /// node leads, or when this leader accepts proposals again.
    Transfer {
        /// `None` selects the voter whose log is most up to date.
        to: Option<NodeId>,
    },
    /// Step down, even if no voter has caught up. The most up-to-date of the other reachable voters is asked to start
    /// an election. For a leader that could not transfer its leadership with [`Input::Transfer`]. Refused if no other
    /// voter could lead.
    StepDown,
    /// The connection to `leader` was refused, or `leader` reports that it no longer leads. Clears this node's own
    /// record of its leader, and nothing else.
    LeaderGone {
        /// Ignored if this node follows another leader.
        leader: NodeId,
    },
    /// Messages to `node` were dropped, or its connection broke. Messages that were on their way may be lost.
    Unreachable {
        /// The leader stops streaming appends to it and probes again.
        node: NodeId,
    },
}

/// Why the core did not accept a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Only a leader appends (§5.1).
    NotLeader {
        /// The node that leads as far as this node knows. `None` between two leaders.
        leader: Option<NodeId>,
    },
    /// The proposal named another term.
    OtherTerm,
    /// A leadership transfer is in progress.
    Transferring,
    /// Too many bytes are uncommitted already.
    Full,
    /// A membership change is uncommitted, or no entry of this term is committed yet.
    ChangePending,
    /// The node to promote is not a learner, or the node to remove is not a member, or the transfer target is not
    /// another voter.
    NoSuchMember,
    /// The node to add is a member already.
    AlreadyMember,
    /// The learner has not caught up, or the leader has not received a message from it lately.
    NotCaughtUp,
    /// Too few reachable voters would be left for a majority.
    QuorumLost,
}

/// What the driver must do after a step, in the order of the fields.
///
/// The driver sends everything that concerns the disk (`install`, `hard_state`, `append`, `send_stored`) through one queue.
/// Then `send_stored` also waits for what earlier steps have requested, even if its own step stores nothing.
#[derive(Debug, Default)]
#[must_use]
pub struct Todo {
    /// Messages that promise nothing about this node's disk (a leader's appends, heartbeats), or only what is on disk
    /// already.
    pub send_now: Vec<Envelope>,
    /// Followers that need a snapshot: this node's newest one, or a newer one made now (one at the last applied entry
    /// is always recent enough). The driver answers with [`Input::SnapshotSent`], also when it fails.
    pub send_snapshot: Vec<NodeId>,
    /// Use the snapshot that was just received. First make it the newest snapshot (rename it and sync), and only then
    /// delete the whole log. Replace the state machine with it before applying anything. Reported as [`Input::Stored`]
    /// with the snapshot's position.
    pub install: Option<SnapshotMetadata>,
    /// The hard state (term and vote), to be stored with or before `append`.
    pub hard_state: Option<HardState>,
    /// Entries to store. They replace all stored entries from the first one's index on.
    pub append: Vec<Entry>,
    /// Messages that are true only when the three fields above are on disk.
    pub send_stored: Vec<Envelope>,
    /// Newly committed entries, in order, for the state machine. All of them are on this node's disk.
    pub apply: Vec<Entry>,
    /// Entries `[from, to]` to read from disk. The driver answers with [`Input::Read`].
    pub read: Option<(LogIndex, LogIndex)>,
    /// Position of the first of the proposed commands (or of the change). The others follow it.
    pub accepted: Option<Position>,
    /// Why this step's proposal, change or transfer was refused. A refused one has no effect.
    pub refused: Option<Refusal>,
    /// Reads that are linearizable as soon as the state machine has applied the index.
    pub reads: Vec<(u64, LogIndex)>,
    /// Followers that lack entries which they had acknowledged, each with the index where its log ends now: their disks
    /// have lost those entries. Reported after each further probe, about a heartbeat apart.
    pub lost_tail: Vec<(NodeId, LogIndex)>,
    /// Members whose message contradicts the protocol, and how. The message had no effect. The driver closes their
    /// connections.
    pub violations: Vec<(NodeId, Violation)>,
    /// Reads that this node cannot confirm because it does not lead, or no longer leads. The caller may ask another
    /// member.
    pub refused_reads: Vec<u64>,
    /// What this node decided about requests for its vote, with the reasons. The replies are messages; this is for
    /// readers of a trace.
    pub votes: Vec<VoteAnswer>,
    /// The election timeout has passed, or a hint has shortened it: the ticks since the last message from a leader.
    pub timed_out: Option<u32>,
}

/// The role of a node in its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Copies the log of a leader, or waits for one (§5.2).
    Follower,
    /// Asks whether it would be elected; it is still in its old term (diss. §9.6).
    PreCandidate,
    /// Has begun a term, votes for itself and requests votes (§5.2).
    Candidate,
    /// Was elected in its term. Only a leader appends. It steps down if it receives no messages from a majority (diss.
    /// §6.2).
    Leader,
}

/// A role with the data it needs.
#[derive(Debug)]
pub(super) enum State {
    Follower,
    PreCandidate(VoteCount),
    Candidate(VoteCount),
    Leader(Box<Leading>),
}

/// The consensus core of one node. All its information arrives through [`Core::step`], and all its requests are
/// returned by it.
#[derive(Debug)]
pub struct Core<R: Rules = AllRules> {
    pub(super) settings: Settings,
    pub(super) random: Random,
    /// Ticks since the start.
    pub(super) now: u64,
    pub(super) started: bool,
    pub(super) hard_state: HardState,
    pub(super) hard_state_handed: HardState,
    pub(super) hard_state_stored: HardState,
    /// The snapshot in the last `install` that is not known to be on disk yet.
    pub(super) installing: Option<Position>,
    /// A report that arrived before the hard state was stored (see `on_stored`).
    pub(super) held: Option<Position>,
    pub(super) state: State,
    /// The leader of this term as far as this node knows; itself while it leads.
    pub(super) leader: Option<NodeId>,
    pub(super) timer: Timer,
    pub(super) hint: Option<Hint>,
    pub(super) members: Members,
    pub(super) log: Log,
    pub(super) commit: LogIndex,
    /// The newest commit position that a leader of this term has announced. This node may not have that entry yet.
    pub(super) commit_heard: Position,
    /// Everything up to here was returned in `apply`, or was part of the snapshot.
    pub(super) applied: LogIndex,
    /// The range requested in `read` and not answered yet.
    pub(super) reading: Option<(LogIndex, LogIndex)>,
    pub(super) todo: Todo,
    rules: PhantomData<R>,
}

impl Core {
    /// A core that keeps all rules.
    ///
    /// # Panics
    /// If the stored log is not valid (a gap, or decreasing terms).
    pub fn new(settings: Settings, start: Start) -> Core {
        Core::with_rules(settings, start)
    }
}

/// A log that was made elsewhere (a restored backup) may have a later term than an empty hard state. Raising the term
/// prevents a second leader in a term of that log.
fn not_before(hard_state: HardState, term: Term) -> HardState {
    match hard_state.term < term {
        true => HardState { term, vote: None },
        false => hard_state,
    }
}

impl<R: Rules> Core<R> {
    /// A core that keeps the rules of `R`, for simulators (see [`Rules`]).
    pub fn with_rules(settings: Settings, start: Start) -> Core<R> {
        let mut random = Random::new(settings.seed ^ settings.id.0.rotate_left(32));
        let Start {
            hard_state,
            snapshot,
            log,
        } = start;
        let position = snapshot.position;
        let members = Members::new(snapshot, &log.changes);
        let log = Log::new(position, log, settings.memory_bytes);
        let hard_state = not_before(hard_state, log.last_position().term);
        Core {
            timer: Timer::new(settings.election_ticks, &mut random),
            log,
            settings,
            random,
            now: 0,
            started: false,
            hard_state,
            hard_state_handed: hard_state,
            hard_state_stored: hard_state,
            installing: None,
            held: None,
            state: State::Follower,
            leader: None,
            hint: None,
            members,
            commit: position.index,
            commit_heard: Position::default(),
            applied: position.index,
            reading: None,
            todo: Todo::default(),
            rules: PhantomData,
        }
    }

    /// Processes one input and returns what to do. The driver must carry out every `Todo`, in order.
    pub fn step(&mut self, input: Input) -> Todo {
        let before = self.look();
        if !self.started {
            self.started = true;
            self.lead_alone();
        }
        self.take(input);
        self.finish();
        let todo = std::mem::take(&mut self.todo);
        let after = self.look();
        invariants::check_step(&before, &after);
        invariants::check_output(&before, &after, &todo);
        if cfg!(debug_assertions) {
            invariants::check_all::<R>(self, &todo);
        }
        todo
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Start => {}
            Input::Tick => self.tick(),
            Input::Message { from, message } => self.receive(from, message),
            Input::Propose { term, commands } => self.propose(term, commands),
            Input::Stored { position } => self.on_stored(position),
            Input::HardStateStored { hard_state } => self.on_hard_state_stored(hard_state),
            Input::Read { entries } => self.on_read(entries),
            Input::ReadIndex { id } => self.ask_read(id),
            Input::ProposeChange { change } => self.propose_change(change),
            Input::Compacted { metadata } => self.on_compacted(metadata),
            Input::Snapshot {
                from,
                term,
                metadata,
            } => self.on_snapshot(from, term, metadata),
            Input::SnapshotSent { to, installed } => self.on_snapshot_sent(to, installed),
            Input::Transfer { to } => self.transfer(to),
            Input::StepDown => self.give_up_leading(),
            Input::LeaderGone { leader } => self.on_leader_gone(leader),
            Input::Unreachable { node } => self.on_unreachable(node),
        }
    }

    /// What every step does after its input.
    fn finish(&mut self) {
        self.advance_commit();
        self.promote_learner();
        self.serve_reads();
        self.replicate();
        self.hand_over();
        self.hand_out();
        self.log.trim();
        self.ask_disk();
        if self.hard_state != self.hard_state_handed {
            self.hard_state_handed = self.hard_state;
            self.todo.hard_state = Some(self.hard_state);
        }
        if self.disk_is_idle() {
            self.todo.send_now.append(&mut self.todo.send_stored);
        }
    }

    fn tick(&mut self) {
        self.now += 1;
        match self.state {
            State::Leader(_) => self.tick_leading(),
            _ => self.tick_waiting(),
        }
    }

    /// Compares the term of a message first (paper §5.1): the node adopts a newer term and rejects an older one.
    fn receive(&mut self, from: NodeId, Message { term, body }: Message) {
        if from == self.settings.id {
            return;
        }
        if !R::TIMER_RESET_BY_LEADER_ONLY {
            self.timer.restart();
        }
        let message = Message { term, body };
        if !self.is_sound(from, &message) {
            return;
        }
        let Message { term, body } = message;
        // Pre-votes change no state, so they are handled before the terms are compared.
        match body {
            Body::PreVote { last } => return self.on_pre_vote(from, term, last),
            Body::PreVoteReply {
                asked,
                granted: true,
            } => return self.on_pre_vote_granted(from, asked),
            Body::Vote {
                handover: false, ..
            } if self.believes() => return self.decided(from, false, VoteReason::HasLeader),
            _ => {}
        }
        if term > self.hard_state.term {
            self.become_follower(term);
        } else if term < self.hard_state.term {
            return self.on_outdated(from, &body);
        }
        self.heard(from);
        self.receive_in_term(from, body);
    }

    fn receive_in_term(&mut self, from: NodeId, body: Body) {
        match body {
            Body::PreVote { .. } | Body::PreVoteReply { .. } | Body::Outdated => {}
            Body::Vote { last, handover: _ } => self.on_vote(from, last),
            Body::VoteReply { granted } => self.on_vote_reply(from, granted),
            Body::Append {
                previous,
                entries,
                commit,
            } => {
                self.follow(from);
                self.on_append(from, previous, entries, commit);
            }
            Body::Heartbeat { round, commit } => {
                self.follow(from);
                self.on_commit(commit);
                self.send(from, Body::HeartbeatReply { round });
            }
            Body::Commit { commit } => {
                self.follow(from);
                self.on_commit(commit);
            }
            Body::Accepted { matched } => self.on_accepted(from, matched),
            Body::Refused { previous, hint } => self.on_refused(from, previous, hint),
            Body::HeartbeatReply { round } => self.on_heartbeat_reply(from, round),
            Body::Blank => self.on_blank(from),
            Body::CampaignNow => self.on_campaign_now(from),
        }
    }

    /// Handles a message of an earlier term. A leader or candidate of that term is informed, so that it catches up.
    /// Replies of an earlier term are dropped.
    fn on_outdated(&mut self, from: NodeId, body: &Body) {
        match body {
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Commit { .. } => {
                self.send(from, Body::Outdated);
            }
            Body::Vote { .. } => {
                self.decided(from, false, VoteReason::NewerTerm);
                self.send(from, Body::VoteReply { granted: false });
            }
            _ => {}
        }
    }

    /// Entries are on disk. While the hard state of this term is not known to be stored, the report is held back: it
    /// could refer to an earlier write of an equal entry that was replaced and then written again. (Between these two
    /// writes the term has changed, and reports arrive in order.)
    fn on_stored(&mut self, position: Position) {
        if self.hard_state_stored == self.hard_state || !R::STORED_CHECKS_TERM {
            self.count_stored(position);
        } else {
            self.held = Some(position);
        }
    }

    fn count_stored(&mut self, position: Position) {
        self.log.stored_to(position, R::STORED_CHECKS_TERM);
        let installed = |end: Position| position.index >= end.index && self.log.has(position);
        self.installing = self.installing.filter(|end| !installed(*end));
    }

    fn on_hard_state_stored(&mut self, hard_state: HardState) {
        self.hard_state_stored = hard_state;
        if hard_state != self.hard_state {
            return;
        }
        if let Some(position) = self.held.take() {
            self.count_stored(position);
        }
        self.count_own_vote();
    }

    /// Whether everything that the core wanted stored is known to be on disk.
    pub(super) fn disk_is_idle(&self) -> bool {
        self.installing.is_none()
            && self.hard_state_stored == self.hard_state
            && self.log.stored() == self.log.last()
    }

    /// Commits up to `index`.
    pub(super) fn commit_to(&mut self, index: LogIndex) {
        assert!(
            index <= self.log.last(),
            "committing {index:?} of {}",
            self.log.last_position()
        );
        self.commit = index;
    }

    /// Returns committed entries for the state machine, but only those on this node's own disk. So a client never reads
    /// an older state after a restart than before it.
    fn hand_out(&mut self) {
        let to = self.commit.min(self.log.stored());
        let from = self.applied.next();
        if from <= to && from >= self.log.tail_first() {
            self.todo
                .apply
                .extend(self.log.in_memory(from, to).cloned());
            self.applied = to;
        }
    }

    /// Requests entries that are no longer in memory: to apply them, or for a follower.
    fn ask_disk(&mut self) {
        const ENTRIES_AT_ONCE: usize = 8192;
        if self.reading.is_some() {
            return;
        }
        let behind = self.applied < self.commit.min(self.log.stored());
        let wanted = if behind {
            Some(self.applied.next())
        } else {
            self.follower_wants()
        };
        let Some(from) = wanted else { return };
        let to = self
            .log
            .tail_first()
            .previous()
            .min(from.after(ENTRIES_AT_ONCE - 1));
        self.reading = Some((from, to));
        self.todo.read = self.reading;
    }

    /// Handles entries read from disk. They are applied if they are next, and sent to the followers that need them. The
    /// log may have changed since the request; entries that do not match it are ignored.
    fn on_read(&mut self, mut entries: Vec<Entry>) {
        let Some((first, _)) = self.reading.take() else {
            return;
        };
        let fits = entries.iter().zip(first.0..).take_while(|(entry, index)| {
            entry.position.index.0 == *index && self.log.has(entry.position)
        });
        let fitting = fits.count();
        entries.truncate(fitting);
        self.send_read(&entries);
        let to = self.commit.min(self.log.stored());
        entries.retain(|entry| entry.position.index > self.applied && entry.position.index <= to);
        if entries
            .first()
            .is_some_and(|entry| entry.position.index == self.applied.next())
        {
            self.applied = entries.last().expect("it has a first").position.index;
            self.todo.apply.append(&mut entries);
        }
    }

    /// Sends a message that promises nothing about the log. It is sent at once, unless the term itself is not stored
    /// yet.
    pub(super) fn send(&mut self, to: NodeId, body: Body) {
        let message = Message {
            term: self.hard_state.term,
            body,
        };
        let queue = match self.hard_state_stored == self.hard_state {
            true => &mut self.todo.send_now,
            false => &mut self.todo.send_stored,
        };
        queue.push(Envelope { to, message });
    }

    /// Sends a message that is true only when the disk has stored what this node has requested. `wait == false` sends
    /// it at once (used by tests that switch the rule off).
    pub(super) fn send_when_stored(&mut self, to: NodeId, body: Body, wait: bool) {
        let message = Message {
            term: self.hard_state.term,
            body,
        };
        let queue = if wait {
            &mut self.todo.send_stored
        } else {
            &mut self.todo.send_now
        };
        queue.push(Envelope { to, message });
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.settings.id
    }

    /// The newest term that this node has seen; it may not be on disk yet. Never decreases.
    pub fn term(&self) -> Term {
        self.hard_state.term
    }

    /// The newest term that is on disk, and so known after a restart. Never decreases.
    pub fn stored_term(&self) -> Term {
        self.hard_state_stored.term
    }

    /// The hard state, stored or not.
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The leader of this term as far as this node knows.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Whether this node was elected in its term. A newer term may already have another leader.
    pub fn is_leader(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    /// The role in this term. Learners and blank nodes are followers.
    pub fn role(&self) -> Role {
        match self.state {
            State::Follower => Role::Follower,
            State::PreCandidate(_) => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// The election timeout that this node has drawn last, in ticks: it stands for election after this time without a
    /// message from a leader.
    pub fn election_timeout(&self) -> u32 {
        self.timer.limit()
    }

    /// Everything up to here is committed.
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// Everything up to here was returned in [`Todo::apply`].
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Everything up to here is known to be on this node's disk.
    pub fn stored(&self) -> LogIndex {
        self.log.stored()
    }

    /// Position of the last entry of this node's log.
    pub fn last_position(&self) -> Position {
        self.log.last_position()
    }

    /// The position of the entry at `index`, unless it was compacted away or does not exist.
    pub fn position_at(&self, index: LogIndex) -> Option<Position> {
        self.log.position_at(index)
    }

    /// The position before the first entry of this node's log: that of the snapshot before it, or 0.
    pub fn base_position(&self) -> Position {
        self.log.base()
    }

    /// Size in bytes and number of the entries in memory.
    pub fn in_memory(&self) -> (usize, usize) {
        self.log.in_memory_size()
    }

    /// Bytes that the leader has accepted and not committed yet; 0 on other nodes.
    pub fn uncommitted_bytes(&self) -> usize {
        match &self.state {
            State::Leader(leading) => leading.uncommitted_bytes(),
            _ => 0,
        }
    }

    /// The membership in effect: the newest one in the log, committed or not.
    pub fn membership(&self) -> &Membership {
        self.members.current()
    }

    /// Index of the entry that made this membership; the newest snapshot's index if the log has no later change.
    pub fn membership_since(&self) -> LogIndex {
        self.members.changed_at()
    }

    /// The metadata for a snapshot at `index`, which must be between the newest snapshot and the commit index.
    pub fn metadata_at(&self, index: LogIndex) -> Option<SnapshotMetadata> {
        if index > self.commit {
            return None;
        }
        let membership = self.members.at(index)?.clone();
        Some(SnapshotMetadata {
            position: self.log.position_at(index)?,
            membership,
        })
    }

    /// Whether this node leads, and has received messages from a majority of voters other than itself within an
    /// election timeout. Then another node could lead.
    pub fn others_decide(&self) -> bool {
        let State::Leader(leading) = &self.state else {
            return false;
        };
        let members = self.members.current();
        let others = members.voters.iter().filter(|id| **id != self.settings.id);
        let living = others.filter(|id| leading.heard_lately(**id, self));
        living.count() >= members.majority()
    }

    /// Whether everything that any node has committed is committed here: this node leads, and it is the only voter by a
    /// membership that is committed. No other node can commit anything, or be elected, before this node has appended
    /// another membership. `applied`: how far the driver has applied the entries. It must reach the first entry of this
    /// term, because only then does it include what was committed in earlier terms (compare `read_index.rs`).
    pub fn decides_alone(&self, applied: LogIndex) -> bool {
        let State::Leader(leading) = &self.state else {
            return false;
        };
        let members = self.members.current();
        let since = leading.term_start.max(self.members.changed_at());
        members.voters.len() == 1 && self.is_voter() && applied >= since
    }

    /// The first entry of each term that the log contains, oldest first. The log may begin within a term.
    pub fn terms(&self) -> Vec<Position> {
        self.log.terms()
    }

    /// The position before the first entry that the log contains.
    pub fn base(&self) -> Position {
        self.log.base()
    }

    /// The leader's information about the other members; empty on other nodes.
    pub fn progress(&self) -> Vec<PeerProgress> {
        match &self.state {
            State::Leader(leading) => leading.overview(self.now),
            _ => Vec::new(),
        }
    }

    pub(super) fn look(&self) -> invariants::Look {
        invariants::Look {
            hard_state: self.hard_state,
            stored_term: self.hard_state_stored.term,
            leading: self.is_leader(),
            commit: self.commit,
            applied: self.applied,
            stored: self.log.stored(),
            last: self.log.last_position(),
            base: self.log.base(),
        }
    }
}
