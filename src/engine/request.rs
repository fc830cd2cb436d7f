//! Requests to a member, and its replies.
//!
//! `T` is the caller's own value: the server attaches a handle to a waiting connection, the simulator a number. Each
//! request gets one reply, which returns the value.

use super::members::MemberError;
use super::state::State;
use super::time::Monotonic;
use crate::auth;
use crate::raft::{LogIndex, SnapshotMetadata, Term};
use crate::tree::{ApiError, Applied};
use core::time::Duration;

/// A command for the log, with its caller.
#[derive(Debug)]
pub struct Proposal<T> {
    /// The command in the encoding of [`super::entry`], without its stamp.
    pub bytes: Vec<u8>,
    /// `None` if no reply is needed.
    pub caller: Option<T>,
    /// When it fails, however often it was tried before. `None` until the engine accepts it.
    pub(super) deadline: Option<Monotonic>,
}

impl<T> Proposal<T> {
    /// A proposal without a caller.
    pub fn own(bytes: Vec<u8>) -> Proposal<T> {
        Proposal {
            bytes,
            caller: None,
            deadline: None,
        }
    }

    /// A proposal whose reply goes to `caller`.
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
    /// The caller.
    pub caller: T,
    /// Its maximum wait, if shorter than the request timeout.
    pub patience: Option<Duration>,
    /// Like the deadline of a [`Proposal`].
    pub(super) deadline: Option<Monotonic>,
}

impl<T> Query<T> {
    /// A read that fails after `patience`, or after the request timeout.
    pub fn new(caller: T, patience: Option<Duration>) -> Query<T> {
        Query {
            caller,
            patience,
            deadline: None,
        }
    }
}

/// A request to a member.
#[derive(Debug)]
pub enum Request<T> {
    /// Replicate the command and apply it.
    Propose(Proposal<T>),
    /// Change the membership, or a member's peer URLs.
    Change(Proposal<T>),
    /// A quorum read.
    Read(Query<T>),
    /// Return a copy of the state that this member has applied, whether or not it leads.
    Copy(T),
    /// Check whether this member's disk syncs: the next batch contains a record for this check, even if nothing else
    /// must be stored. Answered with [`Outcome::Confirmed`] after that sync.
    Probe(T),
}

impl<T> Request<T> {
    /// Bytes of the command; 0 for requests without one.
    pub fn bytes(&self) -> usize {
        match self {
            Request::Propose(proposal) | Request::Change(proposal) => proposal.bytes.len(),
            Request::Read(_) | Request::Copy(_) | Request::Probe(_) => 0,
        }
    }

    /// Whether it needs a reply.
    pub(super) fn has_caller(&self) -> bool {
        match self {
            Request::Propose(proposal) | Request::Change(proposal) => proposal.caller.is_some(),
            Request::Read(_) | Request::Copy(_) | Request::Probe(_) => true,
        }
    }

    /// The caller, if there is one.
    pub fn into_caller(self) -> Option<T> {
        match self {
            Request::Propose(proposal) | Request::Change(proposal) => proposal.caller,
            Request::Read(query) => Some(query.caller),
            Request::Copy(caller) | Request::Probe(caller) => Some(caller),
        }
    }

    /// When it fails: at `latest`, unless it already has a deadline.
    pub(super) fn deadline(&mut self, latest: Monotonic) -> Monotonic {
        match self {
            Request::Propose(proposal) | Request::Change(proposal) => &mut proposal.deadline,
            Request::Read(query) => &mut query.deadline,
            // These do not wait for a leader.
            Request::Copy(_) | Request::Probe(_) => return latest,
        }
        .get_or_insert(latest)
        .to_owned()
    }
}

/// The effect of a request's entry.
#[derive(Debug)]
pub enum Effect {
    /// The tree changed.
    Event(Applied),
    /// The tree refused the command. All members refuse it.
    Refused(ApiError),
    /// The member table changed as requested, or the change was refused.
    Members(Result<(), MemberError>),
    /// Users and roles changed as requested, or the change was refused.
    Auth(Result<auth::Changed, auth::Refusal>),
}

impl Effect {
    pub(super) fn event(&self) -> Option<&Applied> {
        match self {
            Effect::Event(applied) => Some(applied),
            Effect::Refused(_) | Effect::Members(_) | Effect::Auth(_) => None,
        }
    }
}

/// Why a request has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It may have been applied, or may be applied later.
    TimedOut,
    /// A new leader's entry replaced its entry, or its outcome is unknown.
    LeaderLost,
    /// This member stops. The request may have been applied, or may be applied later.
    Stopped,
    /// It was refused before any processing.
    Overloaded,
    /// If the request was in progress: like [`Failure::TimedOut`]. A later request was refused.
    DiskFull,
    /// Refused before anything was done with it: a member of an earlier version could not apply it.
    NotUnderstood,
}

impl Failure {
    /// The `cause` of the error 300 that the client gets. The text is etcd's if etcd has one (spec §10).
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
            Failure::NotUnderstood => {
                "etcdserver: a member has an earlier version or has not connected yet, upgrade and start all members first"
            }
        }
    }
}

/// The state at one index, with its position in the log. A clone of the state copies a few pointers.
#[derive(Clone)]
pub struct Task {
    /// The position of the last entry in `state`, and the membership there.
    pub metadata: SnapshotMetadata,
    /// The state. The engine continues independently.
    pub state: State,
}

/// The outcome of one request.
pub enum Outcome {
    /// For a proposal or a change: its entry is applied, and the view that contains it is published before this reply.
    Done {
        /// A refusal by the tree is an effect too, because its entry was committed.
        effect: Effect,
        /// The entry's index: `X-Raft-Index`.
        applied: LogIndex,
        /// This member's term: `X-Raft-Term`. It may be newer than the term in which the entry was appended. It is on
        /// disk, so a client never sees an older term after a restart.
        term: Term,
    },
    /// For a quorum read: the last published view contains everything that was acknowledged before the request
    /// (dissertation §6.4). For a probe: the disk has synced a batch that began after the request.
    Confirmed,
    /// The requested state, with this member's term.
    Copy(Box<Task>, Term),
    /// There is no result. The [`Failure`] says whether the entry can still be applied.
    Failed(Failure),
}

/// A reply to a caller.
pub struct Reply<T> {
    /// The value that came with the request.
    pub caller: T,
    /// The outcome of the request.
    pub outcome: Outcome,
}
