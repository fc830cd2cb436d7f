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
}

/// What was on disk when the node started.
#[derive(Debug, Clone, Default)]
pub struct Start {
    pub ballot: Ballot,
    /// The newest snapshot; for a new cluster position 0 with the bootstrap members.
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
    /// The answer to `Todo::read`.
    Read { entries: Vec<Entry> },
    /// Confirm leadership and tell at which index a read is linearizable; answered in `reads`
    /// (or `refused_reads`) with the same id. An id is never reused.
    ReadIndex { id: u64 },
    /// Change the membership; answered in `accepted` or `refused`.
    ProposeChange { change: Change },
    /// The state machine's snapshot at this point is on disk: the log before it may go.
    Compacted { mark: SnapshotMark },
    /// Hand leadership over (to the most up-to-date voter when none is named).
    Transfer { to: Option<NodeId> },
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
}

/// What one step of the core asks for, in the order of the fields.
#[derive(Debug, Default)]
#[must_use]
pub struct Todo {
    /// Messages that promise nothing about this node's disk: a leader's appends, heartbeats.
    pub send_now: Vec<Envelope>,
    /// Term and vote, to be stored with (before) `append`.
    pub ballot: Option<Ballot>,
    /// Entries that replace whatever is there from the first one's index on.
    pub append: Vec<Entry>,
    /// Messages that are true only once the two above are on disk.
    pub send_stored: Vec<Envelope>,
    /// Newly committed entries, in order, for the state machine.
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

/// The consensus core.
#[derive(Debug)]
pub struct Core {
    _settings: Settings,
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
