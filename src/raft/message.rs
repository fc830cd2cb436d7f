//! The words of raft: numbers, entries, messages.

use std::collections::BTreeSet;
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

/// Where an entry stands. Ordered as paper §5.4.1 compares logs: last term first, then index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    pub term: Term,
    pub index: LogIndex,
}

/// What a node must never forget about elections (paper §5.1, §5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ballot {
    pub term: Term,
    pub vote: Option<NodeId>,
}

/// One entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub position: Position,
    pub payload: Payload,
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
    pub kind: ChangeKind,
    pub node: NodeId,
    pub context: Arc<[u8]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// Replicated to, but without a vote until promoted.
    AddLearner,
    /// A learner that has caught up becomes a voter.
    Promote,
    Remove,
}

/// Who takes part. Learners receive entries and do not vote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Membership {
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
}

/// The point a snapshot stands for, and who were members there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnapshotMark {
    pub position: Position,
    pub membership: Membership,
}

/// A message with its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub to: NodeId,
    pub message: Message,
}

/// What members say to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {}
