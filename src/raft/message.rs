//! The words of raft: numbers, entries, messages.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

/// A member's id (etcd derives it from peer URLs and token). Never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// An election period. Starts at 1; 0 is "before any election".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Term(pub u64);

/// Position in the raft log. `X-Raft-Index` in responses. Starts at 1; 0 is "before the log".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LogIndex(pub u64);

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

    /// The index before this one; that of 0 is 0.
    pub fn previous(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }

    /// The index `count` after this one.
    pub fn after(self, count: usize) -> LogIndex {
        LogIndex(self.0 + count as u64)
    }
}

/// Where an entry stands. Ordered as paper §5.4.1 compares logs: last term first, then index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Of the leader that appended it, which later leaders do not change (paper §5.3).
    pub term: Term,
    /// From 1, without gaps; 0 is before the log.
    pub index: LogIndex,
}

/// `12@3`: index 12, appended in term 3.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index.0, self.term.0)
    }
}

/// What a node must never forget about elections (paper §5.1, §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ballot {
    /// The newest seen; 0 on a new node. Never falls.
    pub term: Term,
    /// Whom it voted for in that term: one node at most, itself perhaps.
    pub vote: Option<NodeId>,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Two logs with the same one are the same up to there (log matching, paper §5.3).
    pub position: Position,
    /// What is to be done once the entry is committed.
    pub payload: Payload,
}

impl Entry {
    /// What this entry counts for where bytes are limited: its payload, and the entry itself.
    pub fn bytes_in_memory(&self) -> usize {
        self.payload.len() + size_of::<Entry>()
    }
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The first entry of a leader's term (paper §8).
    Noop,
    /// Bytes for the state machine; raft does not look at them.
    Command(Arc<[u8]>),
    /// A single-server membership change (dissertation §4.1). In force once appended.
    Change(Change),
}

/// A membership change with what the application wants to remember of it (URLs, a name).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which of the three single steps.
    pub kind: ChangeKind,
    /// The one node concerned: only so do majorities before and after always meet (diss. §4.1).
    pub node: NodeId,
    /// Not looked into by raft; may be empty.
    pub context: Arc<[u8]>,
}

/// The three single-server changes. A new member always begins as a learner (dissertation §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Replicated to, but without a vote until promoted.
    AddLearner,
    /// A learner that has caught up becomes a voter.
    Promote,
    /// A voter or learner leaves.
    Remove,
}

/// Who takes part. Learners receive entries and do not vote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    /// Majorities are counted among these alone. Empty on a blank node.
    pub voters: BTreeSet<NodeId>,
    /// Get entries and count for no majority; none of them is a voter.
    pub learners: BTreeSet<NodeId>,
}

/// The point a snapshot stands for, and who were members there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotMark {
    /// The last entry that the snapshot stands for; the log goes on after it.
    pub position: Position,
    /// Kept here since the changes before that point are gone from the log (paper §7).
    pub membership: Membership,
}

/// A message with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Never the sender itself.
    pub to: NodeId,
    /// May be lost, doubled or late on its way; none of that does harm.
    pub message: Message,
}

/// What members say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The sender's current term, whatever the body.
    pub term: Term,
    /// What is said. Looked at once `term` was (paper §5.1), but for pre-votes.
    pub body: Body,
}

impl Message {
    /// Whether this belongs behind bulk data. Appends and what must not overtake them do; all else
    /// is small and may go past them, so that a full pipe never looks like a dead leader.
    pub fn is_bulk(&self) -> bool {
        matches!(self.body, Body::Append { .. } | Body::Commit { .. })
    }
}

/// The kinds of messages. A snapshot is not one of them: it is a file, which the driver streams
/// (see [`super::Todo::send_snapshot`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// "Would you vote for me in the term after mine?" (dissertation §9.6). Changes no state.
    PreVote {
        /// Where the asker's log ends; a voter whose own ends later says no (paper §5.4.1).
        last: Position,
    },
    /// `asked` is the term that was asked about. Only a refusal matters for the sender's own term:
    /// it tells a candidate that has fallen behind where the others are.
    PreVoteReply {
        /// A grant counts only while this is the term after the asker's own.
        asked: Term,
        /// Binds to nothing: a node may say yes to several.
        granted: bool,
    },
    /// "Vote for me" (paper §5.2); `last` is where the candidate's log ends. `handover`: the
    /// leader itself asked for this election, so belief in it is no reason to refuse.
    Vote {
        /// A voter whose own log ends later says no (paper §5.4.1).
        last: Position,
        /// Set in the election that a `CampaignNow` began (dissertation §3.10).
        handover: bool,
    },
    /// The answer to `Vote`; a yes leaves only once the vote is on disk (paper §5.2).
    VoteReply {
        /// One candidate a term at most gets a yes from the same node.
        granted: bool,
    },
    /// Entries that follow `previous` (paper §5.3), and how far the leader has committed.
    Append {
        /// Position of the entry before the first; without it a follower refuses all.
        previous: Position,
        /// Consecutive; none if the append only asks where the logs meet.
        entries: Vec<Entry>,
        /// The leader's own; it may lie beyond the last of these entries.
        commit: LogIndex,
    },
    /// "My log is as yours up to `matched`, on disk."
    Accepted {
        /// An index; what the follower has beyond it was not compared.
        matched: LogIndex,
    },
    /// "I have no such entry at `previous`." `hint` is the last of mine that could be as yours.
    Refused {
        /// The index of the append's `previous`: tells which one is answered.
        previous: LogIndex,
        /// Index and term, so that a probe can step back a whole term (paper §5.3, end).
        hint: Position,
    },
    /// "I lead." `round` comes back in the reply; reads count the rounds (see `read_index`).
    /// Whoever has the entry at `commit` has all before it too, and may commit it.
    Heartbeat {
        /// Counts up in a term and is never used twice there.
        round: u64,
        /// With its term: an entry at that index alone could be of another leader.
        commit: Position,
    },
    /// "I follow you in this term." Says nothing of the log, so it waits for no entry's sync.
    HeartbeatReply {
        /// As it came; confirms the reads of this round and those before (diss. §6.4).
        round: u64,
    },
    /// News of a commit when there is no entry to carry it. Not answered.
    Commit {
        /// As in [`Body::Heartbeat`].
        commit: Position,
    },
    /// The leader hands over: stand for election at once (dissertation §3.10).
    CampaignNow,
    /// "I know no members yet: send me a snapshot before any entry."
    Blank,
    /// To a leader of an earlier term: the term of this message is the newer one.
    Outdated,
}
