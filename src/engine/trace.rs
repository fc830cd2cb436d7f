//! Trace records: what a member's consensus does, one small value for each event.
//!
//! The engine makes the records of each step ([`Engine::trace`](super::Engine::trace)), from the inputs and outputs of
//! the core. They decide nothing. The server keeps the last ones in memory, and the simulator keeps those of a run; both
//! print them with [`Record::write_json`]. The guide documents the lines ([`crate::guide::trace`]).
//!
//! A record names members, indexes and terms. It never contains a key, a value or a secret.

mod json;
mod message;

pub use message::{MessageKind, MessageSummary};

use crate::raft::{LogIndex, NodeId, Role, Term, VoteReason};

/// The version of the lines' format. A reader ignores kinds and fields that it does not know; other changes get another
/// version.
pub const FORMAT: u32 = 1;

/// One event of one member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Counts up by one from 1, from the start of the process.
    pub seq: u64,
    /// The member's term after the event.
    pub term: Term,
    /// The event.
    pub event: Trace,
}

const _: () = assert!(size_of::<Record>() <= 56);

/// The kinds of events, with their data. No index is 0 unless its description says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trace {
    /// The process begins with this log.
    Start {
        /// The first entry that the log still has.
        first: LogIndex,
        /// The last entry; less than `first` if the log has none.
        last: LogIndex,
        /// The state machine begins with the snapshot at this index; 0 if there is none.
        applied: LogIndex,
    },
    /// The role or the known leader is another one.
    Role {
        /// The role.
        role: TraceRole,
        /// The leader of this term as far as this member knows.
        leader: Option<NodeId>,
    },
    /// The term went up.
    Term {
        /// The previous term.
        was: Term,
    },
    /// The member has drawn another random election timeout.
    Timer {
        /// Milliseconds without a message from a leader after which it stands for election.
        after_ms: u64,
    },
    /// The member heard from no leader for so long that it stands for election.
    Timeout {
        /// Milliseconds since the last message from a leader, or since the last election. Shorter than the election
        /// timeout if the leader's process is known to be dead.
        after_ms: u64,
    },
    /// The member asks the other voters for their votes.
    VoteAsked {
        /// Whether it only asks if it could win.
        pre: bool,
        /// Index of the last entry of its log; may be 0.
        last: LogIndex,
        /// Term of that entry; may be 0.
        last_term: Term,
    },
    /// The member decides about its vote.
    VoteAnswer {
        /// The candidate.
        candidate: NodeId,
        /// Whether it is a pre-vote.
        pre: bool,
        /// The decision and its reason.
        reason: VoteReason,
    },
    /// A candidate gets an answer. Its own vote counts when it is on its disk.
    VoteGot {
        /// The voter.
        by: NodeId,
        /// Whether it is a pre-vote.
        pre: bool,
        /// Whether the voter grants it.
        granted: bool,
    },
    /// The member's term and vote are on its disk.
    VoteStored {
        /// The term of the vote.
        term: Term,
        /// The candidate; `None` if the member has not voted in that term.
        candidate: Option<NodeId>,
    },
    /// Entries were appended to the member's log, in memory.
    Appended {
        /// The first.
        first: LogIndex,
        /// The last.
        last: LogIndex,
        /// The term of all of them.
        entry_term: Term,
    },
    /// The log was cut: its entries from this one on contradict the leader's.
    Truncated {
        /// The first removed entry.
        from: LogIndex,
    },
    /// The log is on the member's own disk up to here.
    Stored {
        /// The last entry.
        last: LogIndex,
    },
    /// A message was handed to the transport. It may be lost.
    Sent {
        /// The receiver.
        to: NodeId,
        /// The content.
        message: MessageSummary,
    },
    /// A message arrived.
    Received {
        /// The sender.
        from: NodeId,
        /// The content.
        message: MessageSummary,
    },
    /// A follower reports to its leader what it has on disk.
    Acknowledged {
        /// The follower.
        by: NodeId,
        /// Its log agrees with the leader's up to here; may be 0.
        last: LogIndex,
    },
    /// A follower reports to its leader that its log does not have the entry before the sent ones.
    Refused {
        /// The follower.
        by: NodeId,
        /// The last index at which the logs can still agree; may be 0.
        last: LogIndex,
    },
    /// Everything up to here is committed.
    Committed {
        /// The last entry.
        index: LogIndex,
    },
    /// The state machine has applied everything up to here.
    Applied {
        /// The last entry.
        index: LogIndex,
    },
    /// Something happened to a snapshot.
    Snapshot {
        /// What happened.
        what: SnapshotStep,
        /// Its index; 0 if this member does not know it.
        index: LogIndex,
        /// The member that gets or sent it; `None` for a member's own.
        peer: Option<NodeId>,
    },
    /// The members that majorities are counted among are other ones.
    Members {
        /// Number of voters.
        voters: u32,
        /// Number of learners.
        learners: u32,
        /// The entry that took effect; 0 for the first members of a cluster.
        index: LogIndex,
    },
    /// Another member has connected, or cannot be reached.
    Link {
        /// The other member.
        peer: NodeId,
        /// Whether it has connected. If not, a message to it could not be delivered, or the connection from the leader
        /// has ended.
        up: bool,
    },
    /// Something happened to commands that clients gave this member while another one leads.
    Forward {
        /// What happened.
        what: ForwardStep,
        /// The leader that gets them; `None` if they are not sent now.
        to: Option<NodeId>,
        /// Number of commands.
        count: u32,
    },
    /// A question or an answer about the index from which reads are linearizable.
    Read {
        /// The answer's index; `None` for a question.
        index: Option<LogIndex>,
    },
}

/// The roles that a trace distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceRole {
    /// A voter that copies the log of a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Requests votes in a term that it began.
    Candidate,
    /// Leads in its term.
    Leader,
    /// Copies the log and has no vote.
    Learner,
}

impl TraceRole {
    /// The role of a member of this raft role.
    pub fn of(role: Role, is_learner: bool) -> TraceRole {
        match role {
            Role::Follower if is_learner => TraceRole::Learner,
            Role::Follower => TraceRole::Follower,
            Role::PreCandidate => TraceRole::PreCandidate,
            Role::Candidate => TraceRole::Candidate,
            Role::Leader => TraceRole::Leader,
        }
    }

    /// As in the lines.
    pub fn name(self) -> &'static str {
        match self {
            TraceRole::Follower => "follower",
            TraceRole::PreCandidate => "pre-candidate",
            TraceRole::Candidate => "candidate",
            TraceRole::Leader => "leader",
            TraceRole::Learner => "learner",
        }
    }
}

/// What happened to a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotStep {
    /// This member's own one is on its disk.
    Made,
    /// The leader begins to send its newest one.
    Sending,
    /// The follower has installed it.
    Sent,
    /// The follower did not get or not use it.
    Failed,
    /// A received one begins to replace the log.
    Installing,
    /// It has replaced the log.
    Installed,
}

impl SnapshotStep {
    /// As in the lines.
    pub fn name(self) -> &'static str {
        match self {
            SnapshotStep::Made => "made",
            SnapshotStep::Sending => "sending",
            SnapshotStep::Sent => "sent",
            SnapshotStep::Failed => "failed",
            SnapshotStep::Installing => "installing",
            SnapshotStep::Installed => "installed",
        }
    }
}

/// What happened to forwarded commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardStep {
    /// They were sent to the leader.
    Sent,
    /// The leader certainly did not append them: they wait for a leader again.
    Again,
    /// Their entries were applied here.
    Answered,
    /// They fail, because their outcome is not known in time.
    Failed,
}

impl ForwardStep {
    /// As in the lines.
    pub fn name(self) -> &'static str {
        match self {
            ForwardStep::Sent => "sent",
            ForwardStep::Again => "again",
            ForwardStep::Answered => "answered",
            ForwardStep::Failed => "failed",
        }
    }
}

impl Trace {
    /// The kind, as in the lines.
    pub fn kind(&self) -> &'static str {
        match self {
            Trace::Start { .. } => "start",
            Trace::Role { .. } => "role",
            Trace::Term { .. } => "term",
            Trace::Timer { .. } => "timer",
            Trace::Timeout { .. } => "timeout",
            Trace::VoteAsked { .. } => "vote_asked",
            Trace::VoteAnswer { .. } => "vote_answer",
            Trace::VoteGot { .. } => "vote_got",
            Trace::VoteStored { .. } => "vote_stored",
            Trace::Appended { .. } => "appended",
            Trace::Truncated { .. } => "truncated",
            Trace::Stored { .. } => "stored",
            Trace::Sent { .. } => "sent",
            Trace::Received { .. } => "received",
            Trace::Acknowledged { .. } => "acknowledged",
            Trace::Refused { .. } => "refused",
            Trace::Committed { .. } => "committed",
            Trace::Applied { .. } => "applied",
            Trace::Snapshot { .. } => "snapshot",
            Trace::Members { .. } => "members",
            Trace::Link { .. } => "link",
            Trace::Forward { .. } => "forward",
            Trace::Read { .. } => "read",
        }
    }
}

/// The reason of a decision about a vote, as in the lines.
pub fn reason_name(reason: VoteReason) -> &'static str {
    match reason {
        VoteReason::Granted => "granted",
        VoteReason::NewerTerm => "newer term",
        VoteReason::HasLeader => "has leader",
        VoteReason::VotedForAnother => "voted for another",
        VoteReason::LogBehind => "log behind",
        VoteReason::Blank => "knows no members",
    }
}
