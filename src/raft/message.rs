//! Raft's data types: numbers, entries, messages.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A member's id. etcd derives it from peer URLs and token. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// An election period. Starts at 1; 0 means "before any election".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

/// An index in the raft log (`X-Raft-Index` in responses). Starts at 1; 0 means "before the log".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogIndex(pub u64);

// These numbers are part of the messages of assertions and violations, which people read.

/// `n3`
impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

/// `term 4`
impl fmt::Debug for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {}", self.0)
    }
}

/// `index 12`
impl fmt::Debug for LogIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "index {}", self.0)
    }
}

impl Term {
    /// The term after this one.
    pub fn next(self) -> Term {
        Term(self.0 + 1)
    }
}

impl LogIndex {
    /// The index after this one.
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }

    /// The index before this one; for 0 it is 0.
    pub fn previous(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }

    /// The index `count` after this one.
    pub fn after(self, count: usize) -> LogIndex {
        LogIndex(self.0 + count as u64)
    }
}

/// The position of an entry. Ordered as paper §5.4.1 compares logs: first by term, then by index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Term of the leader that appended the entry. Later leaders do not change it (paper §5.3).
    pub term: Term,
    /// Starts at 1, without gaps; 0 means "before the log".
    pub index: LogIndex,
}

/// `12@3`: index 12, appended in term 3.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index.0, self.term.0)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A node's hard state. The node must never forget it, because elections depend on it (paper §5.1, §5.2).
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct HardState {
    /// The newest term that this node has seen; 0 on a new node. Never decreases.
    pub term: Term,
    /// The node it voted for in that term, possibly itself. At most one per term.
    pub vote: Option<NodeId>,
}

/// `term 4, vote for n1`
impl fmt::Debug for HardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vote {
            Some(vote) => write!(f, "{:?}, vote for {vote:?}", self.term),
            None => write!(f, "{:?}, no vote", self.term),
        }
    }
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// If two logs have an entry at this position, they are identical up to it (log matching, paper §5.3).
    pub position: Position,
    /// What every member does when the entry is committed.
    pub payload: Payload,
}

/// Bytes of an [`Entry`] in memory without its payload. A constant, so that limits on memory have the same effect where
/// pointers are shorter.
pub(super) const ENTRY_BYTES: usize = 48;

const _: () = assert!(size_of::<Entry>() <= ENTRY_BYTES);

impl Entry {
    /// The entry's size for memory limits: its payload plus the struct itself.
    pub fn bytes_in_memory(&self) -> usize {
        self.payload.len() + ENTRY_BYTES
    }
}

/// The content of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The first entry of a leader's term (paper §8).
    Noop,
    /// Bytes for the state machine. Raft does not interpret them.
    Command(Arc<[u8]>),
    /// A single-server membership change (dissertation §4.1). It takes effect when it is appended.
    Change(Change),
}

/// A membership change, with data of the application (URLs, a name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which of the three changes.
    pub kind: ChangeKind,
    /// The node to change. Because it is only one, majorities before and after the change always overlap (diss. §4.1).
    pub node: NodeId,
    /// Data of the application; may be empty. Raft does not interpret it.
    pub context: Arc<[u8]>,
}

/// The three single-server changes. A new member always begins as a learner (dissertation §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Adds a member that receives entries, but has no vote until it is promoted.
    AddLearner,
    /// Makes a voter of a learner that has caught up.
    Promote,
    /// Removes a voter or a learner.
    Remove,
}

/// The members of the cluster. Learners receive entries and do not vote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// The members that majorities are counted among. Empty on a blank node.
    pub voters: BTreeSet<NodeId>,
    /// Members that receive entries and do not count for a majority. None of them is a voter.
    pub learners: BTreeSet<NodeId>,
}

/// The metadata of a snapshot: its position, and the members at that position.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotMetadata {
    /// The last entry that the snapshot contains. The log continues after it.
    pub position: Position,
    /// Stored with the snapshot, because the log no longer contains the changes before that position (paper §7).
    pub membership: Membership,
}

/// A message and its receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Never the sender itself.
    pub to: NodeId,
    /// The network may lose, duplicate or delay it. None of that breaks the protocol.
    pub message: Message,
}

/// What raft nodes send each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The sender's current term, for every body.
    pub term: Term,
    /// The content. The receiver compares `term` first (paper §5.1), except for pre-votes.
    pub body: Body,
}

impl Message {
    /// Whether this message must stay in order with the entries. That is true of appends, and of messages that must not
    /// overtake them. All other messages are small and may overtake entries, so that a connection full of entries never
    /// looks like a dead leader.
    pub fn is_bulk(&self) -> bool {
        matches!(self.body, Body::Append { .. } | Body::Commit { .. })
    }
}

/// The kinds of messages. A snapshot is not one of them: it is a file that the driver streams (see
/// [`super::Todo::send_snapshot`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Asks whether the receiver would vote for the sender in the term after the sender's (dissertation §9.6). Changes
    /// no state.
    PreVote {
        /// Last position of the sender's log. A voter whose own log ends later refuses (paper §5.4.1).
        last: Position,
    },
    /// Reply to `PreVote`. The sender's own term (in the message) matters only in a refusal: it informs a candidate
    /// that has fallen behind of the newer term.
    PreVoteReply {
        /// The term that the request was about. A grant counts only while this is the term after the candidate's own.
        asked: Term,
        /// Whether the voter agrees. This is not a promise: a node may agree to several candidates.
        granted: bool,
    },
    /// Requests a vote (paper §5.2).
    Vote {
        /// Last position of the candidate's log. A voter whose own log ends later refuses (paper §5.4.1).
        last: Position,
        /// Whether the leader itself asked for this election with `CampaignNow` (dissertation §3.10). Then a voter does
        /// not refuse because it has a leader.
        handover: bool,
    },
    /// Reply to `Vote`. A granted vote is sent only when it is on disk (paper §5.2).
    VoteReply {
        /// A node grants at most one candidate per term.
        granted: bool,
    },
    /// Entries that follow `previous` (paper §5.3), and the leader's commit index.
    Append {
        /// Position of the entry before the first one. A follower without that entry refuses the append.
        previous: Position,
        /// Consecutive entries. Empty if the append only asks whether the follower has `previous`.
        entries: Vec<Entry>,
        /// The leader's commit index. It may be greater than the index of the last of these entries.
        commit: LogIndex,
    },
    /// The follower's log is on disk and identical to the leader's up to `matched`.
    Accepted {
        /// An index. The follower may have later entries; they were not compared.
        matched: LogIndex,
    },
    /// The follower has no entry at `previous`.
    Refused {
        /// The index of the append's `previous`. It identifies the append that this answers.
        previous: LogIndex,
        /// The last position at which the follower's log could still agree with the leader's. Its term lets a probe
        /// skip a whole term (paper §5.3, end).
        hint: Position,
    },
    /// The sender is the leader. The reply returns `round`, and reads count the rounds (see `read_index`). A follower
    /// that has the entry at `commit` also has all entries before it, and may commit them.
    Heartbeat {
        /// Increases during a term; no number is used twice in a term.
        round: u64,
        /// The commit index with its term: an entry with only the same index could come from another leader.
        commit: Position,
    },
    /// The sender follows this leader in this term. The reply promises nothing about the log, so it does not wait for a
    /// sync of entries.
    HeartbeatReply {
        /// The round of the heartbeat. Confirms the reads of this round and of earlier ones (diss. §6.4).
        round: u64,
    },
    /// Announces a commit when no append can carry it. Not answered.
    Commit {
        /// As in [`Body::Heartbeat`].
        commit: Position,
    },
    /// The leader transfers leadership: the receiver starts an election at once (dissertation §3.10).
    CampaignNow,
    /// The sender does not know any members yet: it needs a snapshot before any entry.
    Blank,
    /// Sent to a leader or candidate of an earlier term. The message's term is the newer one.
    Outdated,
}
