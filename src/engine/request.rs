//! What is asked of a member, and what it answers.
//!
//! `T` is the caller's own value: the server attaches a handle to a waiting connection, the simulator a number. It
//! comes back with the one reply that each request gets.

use super::members::MemberError;
use super::state::State;
use super::time::Monotonic;
use crate::raft::{LogIndex, SnapshotMark, Term};
use crate::tree::{ApiError, Applied};
use core::time::Duration;

/// A command for the log, with whoever waits for it.
#[derive(Debug)]
pub struct Proposal<T> {
    /// The command without its stamp, as [`super::entry`] writes it.
    pub bytes: Vec<u8>,
    /// None: nobody is answered.
    pub caller: Option<T>,
    /// When it fails, however often it was handed back before; None until the engine takes it.
    pub(super) deadline: Option<Monotonic>,
}

impl<T> Proposal<T> {
    /// One that nobody waits for.
    pub fn own(bytes: Vec<u8>) -> Proposal<T> {
        Proposal {
            bytes,
            caller: None,
            deadline: None,
        }
    }

    /// One that is answered to `caller`.
    pub fn of(bytes: Vec<u8>, caller: T) -> Proposal<T> {
        Proposal {
            caller: Some(caller),
            ..Proposal::own(bytes)
        }
    }
}

/// A quorum read.
#[derive(Debug)]
pub struct Query<T> {
    /// Who asks.
    pub caller: T,
    /// How long it waits at most, if less than the request timeout.
    pub patience: Option<Duration>,
    /// As in [`Proposal`].
    pub(super) deadline: Option<Monotonic>,
}

impl<T> Query<T> {
    /// A query that fails after `patience`, or after the request timeout.
    pub fn new(caller: T, patience: Option<Duration>) -> Query<T> {
        Query {
            caller,
            patience,
            deadline: None,
        }
    }
}

/// What is asked of a member.
#[derive(Debug)]
pub enum Request<T> {
    /// Replicate and apply.
    Propose(Proposal<T>),
    /// Change who takes part, and where members are reached.
    Change(Proposal<T>),
    /// A quorum read.
    Read(Query<T>),
    /// The state that is applied here, whoever leads.
    Copy(T),
    /// Whether this member's disk syncs: the next batch carries a record for this, even if nothing else is to be
    /// stored. Answered with [`Outcome::Confirmed`] after that sync.
    Probe(T),
}

impl<T> Request<T> {
    /// Bytes of the command; what is no command has none.
    pub fn bytes(&self) -> usize {
        match self {
            Request::Propose(proposal) | Request::Change(proposal) => proposal.bytes.len(),
            Request::Read(_) | Request::Copy(_) | Request::Probe(_) => 0,
        }
    }

    /// Who is to be answered.
    pub fn into_caller(self) -> Option<T> {
        match self {
            Request::Propose(proposal) | Request::Change(proposal) => proposal.caller,
            Request::Read(query) => Some(query.caller),
            Request::Copy(caller) | Request::Probe(caller) => Some(caller),
        }
    }

    /// When it fails: at `latest`, unless it was taken before.
    pub(super) fn deadline(&mut self, latest: Monotonic) -> Monotonic {
        match self {
            Request::Propose(proposal) | Request::Change(proposal) => &mut proposal.deadline,
            Request::Read(query) => &mut query.deadline,
            // These wait for no leader.
            Request::Copy(_) | Request::Probe(_) => return latest,
        }
        .get_or_insert(latest)
        .to_owned()
    }
}

/// What a request's entry did.
#[derive(Debug)]
pub enum Effect {
    /// A change of the tree.
    Event(Applied),
    /// The tree refused it. All members refuse it alike.
    Refused(ApiError),
    /// The member table is as asked, or the change was refused.
    Members(Result<(), MemberError>),
}

impl Effect {
    pub(super) fn event(&self) -> Option<&Applied> {
        match self {
            Effect::Event(applied) => Some(applied),
            Effect::Refused(_) | Effect::Members(_) => None,
        }
    }
}

/// Why a request got no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It may have been applied, or may be applied later.
    TimedOut,
    /// A new leader replaced its entry, or it is not known what became of it.
    LeaderLost,
    /// This member stops: the request may have been applied, or may be applied later.
    Stopped,
    /// Refused before anything was done with it.
    Overloaded,
    /// Like [`Failure::TimedOut`] for a request that was under way; a later one was refused.
    DiskFull,
}

impl Failure {
    /// The `cause` of the error 300 that the client gets. The texts are etcd's where it has one (spec §10).
    pub fn cause(self) -> &'static str {
        match self {
            Failure::TimedOut => "etcdserver: request timed out",
            Failure::LeaderLost => {
                "etcdserver: request timed out, possibly due to previous leader failure"
            }
            Failure::Stopped => "etcdserver: server stopped",
            Failure::Overloaded => "etcdserver: too many requests",
            Failure::DiskFull => {
                "etcdserver: no space left on the disk, writes are refused until there is"
            }
        }
    }
}

/// The state at one index, and where that is in the log. A clone of the state costs a few pointers.
#[derive(Clone)]
pub struct Task {
    /// The position of the last entry in `state`, and the membership there.
    pub mark: SnapshotMark,
    /// The engine goes on beside it.
    pub state: State,
}

/// The answer to one request.
pub enum Outcome {
    /// A proposal or a change: its entry is applied, and the view that shows it is published before this reply.
    Done {
        /// A refusal by the tree is an effect too: its entry was committed.
        effect: Effect,
        /// The entry's index: `X-Raft-Index`.
        applied: LogIndex,
        /// This member's term: `X-Raft-Term`. May be newer than the term in which the entry was appended. It is
        /// on disk, so what a client was shown does not go back with a restart.
        term: Term,
    },
    /// A quorum read: the view last published holds everything that was acknowledged before the question
    /// (dissertation §6.4). A probe: the disk has synced a batch that began after the question.
    Confirmed,
    /// The state asked for, with this member's term.
    Copy(Box<Task>, Term),
    /// There is no result. Whether the entry is applied depends on the [`Failure`].
    Failed(Failure),
}

/// A reply to whoever asked.
pub struct Reply<T> {
    /// What came with the request.
    pub caller: T,
    /// What became of it.
    pub outcome: Outcome,
}
