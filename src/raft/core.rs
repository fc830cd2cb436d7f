//! The core: one step in, what to do out.

use super::conduct::Violation;
use super::election::{Hint, Tally, Timer};
use super::invariants;
use super::log::Log;
use super::membership::Members;
use super::message::{
    Ballot, Body, Change, Entry, Envelope, LogIndex, Membership, Message, NodeId, Position,
    SnapshotMark, Term,
};
use super::replication::{Leading, PeerProgress};
use super::rules::{AllRules, Rules};
use crate::random::Random;
use std::marker::PhantomData;
use std::sync::Arc;

/// What a core is told about itself before it may step.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who this node is; a message that claims to be from it is ignored.
    pub id: NodeId,
    /// Ticks without a leader before an election; each wait is random in [this, 2 × this).
    pub election_ticks: u32,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// Seeds the timeouts: the same seed and inputs give the same outputs.
    pub seed: u64,
    /// Bytes of entries kept in memory (4 MiB); older ones are read back with [`Todo::read`].
    pub memory_bytes: usize,
    /// Bytes of uncommitted entries a leader takes before it refuses proposals (hazard D21; 40 MiB).
    pub uncommitted_bytes: usize,
    /// About how many bytes of entries one append carries, and one answer to [`Todo::read`].
    pub batch_bytes: usize,
    /// Bytes of appends on their way to one follower before the leader waits for an ack.
    pub window_bytes: usize,
    /// Whether a removal that leaves no living majority is refused (`--strict-reconfig-check`).
    pub strict_changes: bool,
}

impl Settings {
    /// The usual limits: 100 ticks of 10 ms to an election, heartbeats every 10, 4 MiB in memory.
    pub fn new(id: NodeId, seed: u64) -> Settings {
        Settings {
            id,
            election_ticks: 100,
            heartbeat_ticks: 10,
            seed,
            memory_bytes: 4 << 20,
            uncommitted_bytes: 40 << 20,
            batch_bytes: 256 << 10,
            window_bytes: 2 << 20,
            strict_changes: true,
        }
    }
}

/// What was on disk when the node started.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// As last stored: a node that forgot its vote could vote twice in a term (§5.2).
    pub ballot: Ballot,
    /// The newest snapshot; for a new cluster position 0 with the bootstrap members. With no
    /// members at all the node is *blank*: it joins, and waits for a snapshot that names them.
    pub snapshot: SnapshotMark,
    /// What follows the snapshot; empty on a new node.
    pub log: StoredLog,
}

/// The log after the snapshot, as the WAL found it.
#[derive(Debug, Clone, Default)]
pub struct StoredLog {
    /// First index of each run of entries with one term, ascending. Empty: no entry after the snapshot.
    pub terms: Vec<(LogIndex, Term)>,
    /// Last index; the snapshot's when there is no entry.
    pub last: LogIndex,
    /// Every membership change among the entries.
    pub changes: Vec<Entry>,
    /// The last entries, at most `memory_bytes` of them.
    pub tail: Vec<Entry>,
}

/// Everything that can happen to a core.
#[derive(Debug, Clone)]
pub enum Input {
    /// The node is up. Does nothing by itself; but a core that is the only voter stands for
    /// election in its first step, whatever that is, and this may be that step.
    Start,
    /// One tick of the driver's monotonic clock (10 a heartbeat interval or so).
    Tick,
    /// A message from another member, already checked to be of this cluster.
    Message {
        /// The sender, to whom the reply goes.
        from: NodeId,
        /// Of any term: a newer one is joined, an older one refused (§5.1).
        message: Message,
    },
    /// Append these commands, in this order, as one run. With `term`, only if this node leads in that
    /// term (a forwarded proposal). Answered in this step's `accepted` or `refused`.
    Propose {
        /// The term that the proposer believed in; None: whichever this node leads in.
        term: Option<Term>,
        /// One entry each; raft does not look into them.
        commands: Vec<Arc<[u8]>>,
    },
    /// Everything handed out in `install` and `append` up to here is on disk. Reports (these and `BallotStored`)
    /// come in the order of what they report; one may stand for several. Of a ballot and entries that were stored
    /// together the entries are reported first.
    Stored {
        /// With its term, so that a late report on entries since replaced is not taken for the new ones.
        position: Position,
    },
    /// The ballot handed out is on disk.
    BallotStored {
        /// As it stood in [`Todo::ballot`].
        ballot: Ballot,
    },
    /// The answer to `Todo::read`: the wanted entries, or the first of them (at least one; about
    /// `batch_bytes` is a good measure: the rest is asked for again). Empty: they are gone.
    Read {
        /// Consecutive, from the first index asked for.
        entries: Vec<Entry>,
    },
    /// Confirm leadership and tell at which index a read is linearizable; answered in `reads`
    /// (or `refused_reads`) with the same id. An id is never reused.
    ReadIndex {
        /// The caller's own number for the question.
        id: u64,
    },
    /// Change the membership; answered in `accepted` or `refused`.
    ProposeChange {
        /// One node, by one step (diss. §4.1).
        change: Change,
    },
    /// The state machine's snapshot at this point is on disk: the log before it may go. From here
    /// on entries up to `mark` are not asked for from disk.
    Compacted {
        /// As [`Core::mark_at`] gave it.
        mark: SnapshotMark,
    },
    /// A snapshot has come whole from `from`, which leads in `term`, and its file is synced under
    /// a temporary name. [`Todo::install`] says whether it is to be used; if not, drop it.
    Snapshot {
        /// The leader, which is told how far this node has come.
        from: NodeId,
        /// Older than this node's: the sender is told so, and the snapshot is not used (§5.1).
        term: Term,
        /// Used only if it is ahead of what is committed here (§7).
        mark: SnapshotMark,
    },
    /// The snapshot sent to `to` was installed there (its position), or sending failed.
    SnapshotSent {
        /// A follower that [`Todo::send_snapshot`] named.
        to: NodeId,
        /// None: sending failed.
        installed: Option<Position>,
    },
    /// Hand leadership over (to the most up-to-date voter when none is named). Refused at once, or
    /// under way: over when another node leads, or when proposals are taken again.
    Transfer {
        /// None: the core chooses.
        to: Option<NodeId>,
    },
    /// Lead no more, whether or not anybody has caught up: the best of the other voters that live is asked to stand.
    /// For a leader that could not hand over with [`Input::Transfer`]. Refused where nobody else could lead.
    StepDown,
    /// The connection to `leader` was refused, or it says that it no longer leads. Clears this
    /// node's own belief in it, nothing else.
    LeaderGone {
        /// Ignored if this node believes in another.
        leader: NodeId,
    },
    /// Messages to `node` were dropped, or its connection broke: what was on its way may be lost.
    Unreachable {
        /// Its stream of appends falls back to a probe.
        node: NodeId,
    },
}

/// Why a proposal was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Only a leader appends (§5.1).
    NotLeader {
        /// Where to ask instead, as far as this node knows; None between two leaders.
        leader: Option<NodeId>,
    },
    /// The proposal named another term.
    OtherTerm,
    /// Leadership is being handed over.
    Transferring,
    /// Too much is uncommitted already.
    Full,
    /// A membership change is pending, or no entry of this term is committed yet.
    ChangePending,
    /// The node to be promoted or removed is no (learner) member; or leadership cannot go to it.
    NoSuchMember,
    /// The node to be added is a member already.
    AlreadyMember,
    /// The learner has not caught up, or was not heard of lately.
    NotCaughtUp,
    /// Too few living voters would be left to make a majority.
    QuorumLost,
}

/// What one step of the core asks for, in the order of the fields.
///
/// What concerns the disk (`install`, `ballot`, `append`, `send_stored`) goes through one queue, so
/// that `send_stored` waits for what earlier steps wanted stored too, even if it comes alone.
#[derive(Debug, Default)]
#[must_use]
pub struct Todo {
    /// Messages that promise nothing about this node's disk (a leader's appends, heartbeats), or
    /// nothing that is not there already.
    pub send_now: Vec<Envelope>,
    /// Followers that need this node's newest snapshot (or a newer one made now; one after the
    /// last entry applied always does). Answered with [`Input::SnapshotSent`], whatever comes of it.
    pub send_snapshot: Vec<NodeId>,
    /// Use the snapshot just received: first make it the newest (renamed, synced), only then drop
    /// the whole log; replace the state machine by it before anything is applied. Reported as
    /// [`Input::Stored`] with the mark's position.
    pub install: Option<SnapshotMark>,
    /// Term and vote, to be stored with (before) `append`.
    pub ballot: Option<Ballot>,
    /// Entries that replace whatever is there from the first one's index on.
    pub append: Vec<Entry>,
    /// Messages that are true only once the three above are on disk.
    pub send_stored: Vec<Envelope>,
    /// Newly committed entries, in order, for the state machine. All are on this node's disk.
    pub apply: Vec<Entry>,
    /// Entries `[from, to]` wanted back from disk, as [`Input::Read`].
    pub read: Option<(LogIndex, LogIndex)>,
    /// Where the first of the proposed commands (or the change) stands; the others follow it.
    pub accepted: Option<Position>,
    /// Why this step's proposal, change or transfer was not taken; nothing is left of it.
    pub refused: Option<Refusal>,
    /// Reads that are linearizable once the state machine has applied the index.
    pub reads: Vec<(u64, LogIndex)>,
    /// Followers that lack entries which they had acknowledged, with where their log ends now: their disks have lost
    /// them. Told with each further probe, about a heartbeat apart.
    pub lost_tail: Vec<(NodeId, LogIndex)>,
    /// Members whose message contradicts the protocol, and how. It had no effect. Their connections are to be closed.
    pub violations: Vec<(NodeId, Violation)>,
    /// Reads asked of a node that does not lead, or does no more; may be asked elsewhere.
    pub refused_reads: Vec<u64>,
}

/// What a node is in its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Copies the log of a leader, or waits for one (§5.2).
    Follower,
    /// Asks whether it would be elected, still in its old term (diss. §9.6).
    PreCandidate,
    /// Has begun a term, votes for itself and asks for votes (§5.2).
    Candidate,
    /// Elected in its term: alone appends. Steps down if it hears no majority (diss. §6.2).
    Leader,
}

/// A role with what it needs to know.
#[derive(Debug)]
pub(super) enum State {
    Follower,
    PreCandidate(Tally),
    Candidate(Tally),
    Leader(Box<Leading>),
}

/// The consensus core of one node. Everything it knows comes in by [`Core::step`]; everything it
/// wants done comes out of it.
#[derive(Debug)]
pub struct Core<R: Rules = AllRules> {
    pub(super) settings: Settings,
    pub(super) random: Random,
    /// Ticks since the start.
    pub(super) now: u64,
    pub(super) started: bool,
    pub(super) ballot: Ballot,
    pub(super) ballot_handed: Ballot,
    pub(super) ballot_stored: Ballot,
    /// The snapshot that was handed out in `install` and is not known to be on disk.
    pub(super) installing: Option<Position>,
    /// A report that came while the ballot was not stored (see `on_stored`).
    pub(super) held: Option<Position>,
    pub(super) state: State,
    /// Whom this node believes to lead in its term; itself when it does.
    pub(super) leader: Option<NodeId>,
    pub(super) timer: Timer,
    pub(super) hint: Option<Hint>,
    pub(super) members: Members,
    pub(super) log: Log,
    pub(super) commit: LogIndex,
    /// The newest commit heard of in this term; its entry may not have come yet.
    pub(super) commit_heard: Position,
    /// Everything up to here was handed out in `apply`, or was in the snapshot.
    pub(super) applied: LogIndex,
    /// What was asked for in `read` and has not come yet.
    pub(super) reading: Option<(LogIndex, LogIndex)>,
    pub(super) todo: Todo,
    rules: PhantomData<R>,
}

impl Core {
    /// A core that keeps all rules.
    ///
    /// # Panics
    /// If what is said to be stored is no log (a gap, terms that fall).
    pub fn new(settings: Settings, start: Start) -> Core {
        Core::with_rules(settings, start)
    }
}

/// A log made elsewhere (a restored backup) may be ahead of an empty ballot; no term is led twice.
fn not_before(ballot: Ballot, term: Term) -> Ballot {
    match ballot.term < term {
        true => Ballot { term, vote: None },
        false => ballot,
    }
}

impl<R: Rules> Core<R> {
    /// A core that keeps the rules of `R`: for simulators (see [`Rules`]).
    pub fn with_rules(settings: Settings, start: Start) -> Core<R> {
        let mut random = Random::new(settings.seed ^ settings.id.0.rotate_left(32));
        let Start {
            ballot,
            snapshot,
            log,
        } = start;
        let position = snapshot.position;
        let members = Members::new(snapshot, &log.changes);
        let log = Log::new(position, log, settings.memory_bytes);
        let ballot = not_before(ballot, log.last_position().term);
        Core {
            timer: Timer::new(settings.election_ticks, &mut random),
            log,
            settings,
            random,
            now: 0,
            started: false,
            ballot,
            ballot_handed: ballot,
            ballot_stored: ballot,
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

    /// Takes one input and tells what to do. Every `Todo` must be carried out, in order.
    pub fn step(&mut self, input: Input) -> Todo {
        let before = cfg!(debug_assertions).then(|| self.look());
        if !self.started {
            self.started = true;
            self.lead_alone();
        }
        self.take(input);
        self.finish();
        let todo = std::mem::take(&mut self.todo);
        if let Some(before) = before {
            invariants::check_step(&before, &self.look());
            invariants::check_todo::<R>(self, &todo);
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
            Input::BallotStored { ballot } => self.on_ballot_stored(ballot),
            Input::Read { entries } => self.on_read(entries),
            Input::ReadIndex { id } => self.ask_read(id),
            Input::ProposeChange { change } => self.propose_change(change),
            Input::Compacted { mark } => self.on_compacted(mark),
            Input::Snapshot { from, term, mark } => self.on_snapshot(from, term, mark),
            Input::SnapshotSent { to, installed } => self.on_snapshot_sent(to, installed),
            Input::Transfer { to } => self.transfer(to),
            Input::StepDown => self.give_up_leading(),
            Input::LeaderGone { leader } => self.on_leader_gone(leader),
            Input::Unreachable { node } => self.on_unreachable(node),
        }
    }

    /// What follows from the input, whichever it was.
    fn finish(&mut self) {
        self.advance_commit();
        self.promote_learner();
        self.serve_reads();
        self.replicate();
        self.hand_over();
        self.hand_out();
        self.log.trim();
        self.ask_disk();
        if self.ballot != self.ballot_handed {
            self.ballot_handed = self.ballot;
            self.todo.ballot = Some(self.ballot);
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

    /// Sorts messages by term first (paper §5.1): a newer term is joined, an older one is refused.
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
        // Pre-votes change no state, so they come before any look at the term.
        match body {
            Body::PreVote { last } => return self.on_pre_vote(from, term, last),
            Body::PreVoteReply {
                asked,
                granted: true,
            } => return self.on_pre_vote_granted(from, asked),
            Body::Vote {
                handover: false, ..
            } if self.believes() => return,
            _ => {}
        }
        if term > self.ballot.term {
            self.become_follower(term);
        } else if term < self.ballot.term {
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

    /// A message of an earlier term. Leaders and candidates are told, so that they catch up; what
    /// answers a question of an earlier term is of no use any more.
    fn on_outdated(&mut self, from: NodeId, body: &Body) {
        match body {
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Commit { .. } => {
                self.send(from, Body::Outdated);
            }
            Body::Vote { .. } => self.send(from, Body::VoteReply { granted: false }),
            _ => {}
        }
    }

    /// Entries are on disk. While this term's ballot is not known to be, the report may speak of
    /// an earlier write of an equal entry that was replaced since and then written again: it waits.
    /// (Between the two writes the term has changed, and reports come in order.)
    fn on_stored(&mut self, position: Position) {
        if self.ballot_stored == self.ballot || !R::STORED_CHECKS_TERM {
            self.count_stored(position);
        } else {
            self.held = Some(position);
        }
    }

    fn count_stored(&mut self, position: Position) {
        self.log.stored_to(position, R::STORED_CHECKS_TERM);
        let installed = |mark: Position| position.index >= mark.index && self.log.has(position);
        self.installing = self.installing.filter(|mark| !installed(*mark));
    }

    fn on_ballot_stored(&mut self, ballot: Ballot) {
        self.ballot_stored = ballot;
        if ballot != self.ballot {
            return;
        }
        if let Some(position) = self.held.take() {
            self.count_stored(position);
        }
        self.count_own_vote();
    }

    /// Whether everything handed out is known to be on disk.
    pub(super) fn disk_is_idle(&self) -> bool {
        self.installing.is_none()
            && self.ballot_stored == self.ballot
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

    /// Hands committed entries to the state machine, those that this node has on its own disk:
    /// what a restart shows is then never older than what was shown before it.
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

    /// Asks for entries that are no longer in memory: to apply them, or for a follower.
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

    /// Entries are back from disk: applied if they are next, and sent to whom they are missing.
    /// The log may have changed since they were asked for; what does not fit it is left out.
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

    /// Sends what promises nothing about the log: at once, unless the term itself is not stored.
    pub(super) fn send(&mut self, to: NodeId, body: Body) {
        let message = Message {
            term: self.ballot.term,
            body,
        };
        let queue = match self.ballot_stored == self.ballot {
            true => &mut self.todo.send_now,
            false => &mut self.todo.send_stored,
        };
        queue.push(Envelope { to, message });
    }

    /// Sends what is true only once the disk has what was handed out. With `wait` off it goes at
    /// once (a rule switched off).
    pub(super) fn send_when_stored(&mut self, to: NodeId, body: Body, wait: bool) {
        let message = Message {
            term: self.ballot.term,
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

    /// The newest term this node has seen; it may not be on disk yet. Never falls.
    pub fn term(&self) -> Term {
        self.ballot.term
    }

    /// The newest term that is on disk: a restart knows it. Never falls.
    pub fn stored_term(&self) -> Term {
        self.ballot_stored.term
    }

    /// Term and vote, stored or not.
    pub fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// Whom this node believes to lead in its term.
    pub fn leader(&self) -> Option<NodeId> {
        self.leader
    }

    /// Whether it was elected in its term; a newer term may have another leader already.
    pub fn is_leader(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    /// What it is in its term; learners and blank nodes are followers.
    pub fn role(&self) -> Role {
        match self.state {
            State::Follower => Role::Follower,
            State::PreCandidate(_) => Role::PreCandidate,
            State::Candidate(_) => Role::Candidate,
            State::Leader(_) => Role::Leader,
        }
    }

    /// Everything up to here is committed.
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// Everything up to here was handed out in [`Todo::apply`].
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Everything up to here is known to be on this node's disk.
    pub fn stored(&self) -> LogIndex {
        self.log.stored()
    }

    /// Where this node's log ends.
    pub fn last_position(&self) -> Position {
        self.log.last_position()
    }

    /// The position of the entry at `index`, unless it was compacted away or is not there.
    pub fn position_at(&self, index: LogIndex) -> Option<Position> {
        self.log.position_at(index)
    }

    /// Bytes of entries in memory, and how many there are.
    pub fn in_memory(&self) -> (usize, usize) {
        self.log.in_memory_size()
    }

    /// Bytes that a leader has taken and not committed yet; 0 elsewhere.
    pub fn uncommitted_bytes(&self) -> usize {
        match &self.state {
            State::Leader(leading) => leading.uncommitted_bytes(),
            _ => 0,
        }
    }

    /// The membership in force: the newest in the log, committed or not.
    pub fn membership(&self) -> &Membership {
        self.members.current()
    }

    /// The mark of a snapshot taken at `index`, between the newest snapshot and the commit.
    pub fn mark_at(&self, index: LogIndex) -> Option<SnapshotMark> {
        if index > self.commit {
            return None;
        }
        let membership = self.members.at(index)?.clone();
        Some(SnapshotMark {
            position: self.log.position_at(index)?,
            membership,
        })
    }

    /// Whether this node leads, and the other voters that were heard within an election timeout are a majority: another
    /// one could lead.
    pub fn others_decide(&self) -> bool {
        let State::Leader(leading) = &self.state else {
            return false;
        };
        let members = self.members.current();
        let others = members.voters.iter().filter(|id| **id != self.settings.id);
        let living = others.filter(|id| leading.heard_lately(**id, self));
        living.count() >= members.majority()
    }

    /// What the leader knows of the other members; empty elsewhere.
    pub fn progress(&self) -> Vec<PeerProgress> {
        match &self.state {
            State::Leader(leading) => leading.overview(self.now),
            _ => Vec::new(),
        }
    }

    pub(super) fn look(&self) -> invariants::Look {
        invariants::Look {
            ballot: self.ballot,
            leading: self.is_leader(),
            commit: self.commit,
            applied: self.applied,
            stored: self.log.stored(),
            last: self.log.last_position(),
            base: self.log.base(),
        }
    }
}
