//! The core: one step in, what to do out.

use super::message::{
    Ballot, Change, Entry, Envelope, LogIndex, Membership, Message, NodeId, Position, SnapshotMark,
    Term,
};
use std::sync::Arc;

/// What a core is told about itself before it may step.
#[derive(Debug, Clone)]
pub struct Settings {
    pub id: NodeId,
    /// Ticks without a leader before an election; each wait is random in [this, 2 × this).
    pub election_ticks: u32,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: u32,
    /// Seeds the timeouts: the same seed and inputs give the same outputs.
    pub seed: u64,
    /// Bytes of entries kept in memory (4 MiB); older ones are read back with [`Todo::read`].
    pub memory_bytes: usize,
    /// Bytes of uncommitted entries a leader takes before it refuses proposals (hazard D21).
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
            uncommitted_bytes: 64 << 20,
            batch_bytes: 256 << 10,
            window_bytes: 2 << 20,
            strict_changes: true,
        }
    }
}

/// What was on disk when the node started.
#[derive(Debug, Clone, Default)]
pub struct Start {
    pub ballot: Ballot,
    /// The newest snapshot; for a new cluster position 0 with the bootstrap members. With no
    /// members at all the node is *blank*: it joins, and waits for a snapshot that names them.
    pub snapshot: SnapshotMark,
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
    Message { from: NodeId, message: Message },
    /// Append these commands, in this order, as one run. With `term`, only if this node leads in that
    /// term (a forwarded proposal). Answered in this step's `accepted` or `refused`.
    Propose {
        term: Option<Term>,
        commands: Vec<Arc<[u8]>>,
    },
    /// Everything handed out in `ballot` and `append` up to here is on disk.
    Stored { position: Position },
    /// The ballot handed out is on disk.
    BallotStored { ballot: Ballot },
    /// The answer to `Todo::read`: the wanted entries, or the first of them (at least one; about
    /// `batch_bytes` is a good measure: the rest is asked for again). Empty: they are gone.
    Read { entries: Vec<Entry> },
    /// Confirm leadership and tell at which index a read is linearizable; answered in `reads`
    /// (or `refused_reads`) with the same id. An id is never reused.
    ReadIndex { id: u64 },
    /// Change the membership; answered in `accepted` or `refused`.
    ProposeChange { change: Change },
    /// The state machine's snapshot at this point is on disk: the log before it may go. From here
    /// on entries up to `mark` are not asked for from disk.
    Compacted { mark: SnapshotMark },
    /// A snapshot has come whole from `from`, which leads in `term`, and its file is synced under
    /// a temporary name. [`Todo::install`] says whether it is to be used; if not, drop it.
    Snapshot {
        from: NodeId,
        term: Term,
        mark: SnapshotMark,
    },
    /// The snapshot sent to `to` was installed there (its position), or sending failed.
    SnapshotSent {
        to: NodeId,
        installed: Option<Position>,
    },
    /// Hand leadership over (to the most up-to-date voter when none is named). Refused at once, or
    /// under way: over when another node leads, or when proposals are taken again.
    Transfer { to: Option<NodeId> },
    /// The connection to `leader` was refused, or it says that it no longer leads. Clears this
    /// node's own belief in it, nothing else.
    LeaderGone { leader: NodeId },
    /// Messages to `node` were dropped, or its connection broke: what was on its way may be lost.
    Unreachable { node: NodeId },
}

/// Why a proposal was not appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotLeader {
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
    pub refused: Option<Refusal>,
    /// Reads that are linearizable once the state machine has applied the index.
    pub reads: Vec<(u64, LogIndex)>,
    pub refused_reads: Vec<u64>,
}

/// What a node is in its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Follower,
    PreCandidate,
    Candidate,
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
    pub fn new(settings: Settings, _start: Start) -> Core {
        Core {
            _settings: settings,
        }
    }
    pub fn step(&mut self, _input: Input) -> Todo {
        Todo::default()
    }
    pub fn term(&self) -> Term {
        Term(0)
    }
    pub fn leader(&self) -> Option<NodeId> {
        None
    }
    pub fn commit(&self) -> LogIndex {
        LogIndex(0)
    }
    pub fn membership(&self) -> &Membership {
        todo!()
    }
}
