//! What a trace record shows of a peer message: its kind, and the entries in it.

use crate::engine::peer_message::{LeaderReply, PeerMessage};
use crate::raft::{Body, Entry, LogIndex, Message};

/// The kinds of messages that a trace distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// [`Body::PreVote`].
    PreVote,
    /// [`Body::PreVoteReply`].
    PreVoteAnswer,
    /// [`Body::Vote`].
    Vote,
    /// [`Body::VoteReply`].
    VoteAnswer,
    /// [`Body::Append`].
    Append,
    /// [`Body::Accepted`].
    AppendAnswer,
    /// [`Body::Refused`].
    AppendRefusal,
    /// [`Body::Heartbeat`].
    Heartbeat,
    /// [`Body::HeartbeatReply`].
    HeartbeatAnswer,
    /// [`Body::Commit`].
    Commit,
    /// [`Body::CampaignNow`].
    Transfer,
    /// [`Body::Blank`].
    Blank,
    /// [`Body::Outdated`].
    NewerTerm,
    /// [`PeerMessage::Forward`].
    Forward,
    /// [`PeerMessage::Change`].
    ForwardChange,
    /// [`PeerMessage::AskIndex`].
    ReadIndex,
    /// [`LeaderReply::Index`].
    ReadIndexAnswer,
    /// [`LeaderReply::NotTaken`] and [`LeaderReply::Refused`].
    ForwardRefusal,
}

impl MessageKind {
    /// As in the lines.
    pub fn name(self) -> &'static str {
        match self {
            MessageKind::PreVote => "pre-vote",
            MessageKind::PreVoteAnswer => "pre-vote-answer",
            MessageKind::Vote => "vote",
            MessageKind::VoteAnswer => "vote-answer",
            MessageKind::Append => "append",
            MessageKind::AppendAnswer => "append-answer",
            MessageKind::AppendRefusal => "append-refusal",
            MessageKind::Heartbeat => "heartbeat",
            MessageKind::HeartbeatAnswer => "heartbeat-answer",
            MessageKind::Commit => "commit",
            MessageKind::Transfer => "transfer",
            MessageKind::Blank => "blank",
            MessageKind::NewerTerm => "newer-term",
            MessageKind::Forward => "forward",
            MessageKind::ForwardChange => "forward-change",
            MessageKind::ReadIndex => "read-index",
            MessageKind::ReadIndexAnswer => "read-index-answer",
            MessageKind::ForwardRefusal => "forward-refusal",
        }
    }
}

/// The content of a peer message, as far as a trace shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageSummary {
    /// The kind.
    pub what: MessageKind,
    /// The first entry in it; 0 if it has none.
    pub first: LogIndex,
    /// The last entry in it, or the index that it is about; 0 if it has none.
    pub last: LogIndex,
}

impl MessageSummary {
    /// Summarises a message.
    pub fn of(message: &PeerMessage) -> MessageSummary {
        use MessageKind as Kind;
        let plain = |what| summary(what, LogIndex(0));
        match message {
            PeerMessage::Raft { message, .. } => MessageSummary::of_raft(message),
            PeerMessage::Forward { .. } => plain(Kind::Forward),
            PeerMessage::Change { .. } => plain(Kind::ForwardChange),
            PeerMessage::AskIndex { .. } => plain(Kind::ReadIndex),
            PeerMessage::Reply { reply, .. } => match reply {
                LeaderReply::Index(index) => summary(Kind::ReadIndexAnswer, *index),
                LeaderReply::NotTaken | LeaderReply::Refused(_) => plain(Kind::ForwardRefusal),
            },
        }
    }

    fn of_raft(message: &Message) -> MessageSummary {
        use MessageKind as Kind;
        let plain = |what| summary(what, LogIndex(0));
        match &message.body {
            Body::PreVote { last } => summary(Kind::PreVote, last.index),
            Body::PreVoteReply { .. } => plain(Kind::PreVoteAnswer),
            Body::Vote { last, .. } => summary(Kind::Vote, last.index),
            Body::VoteReply { .. } => plain(Kind::VoteAnswer),
            Body::Append { entries, .. } => append(entries),
            Body::Accepted { matched } => summary(Kind::AppendAnswer, *matched),
            Body::Refused { hint, .. } => summary(Kind::AppendRefusal, hint.index),
            Body::Heartbeat { commit, .. } => summary(Kind::Heartbeat, commit.index),
            Body::HeartbeatReply { .. } => plain(Kind::HeartbeatAnswer),
            Body::Commit { commit } => summary(Kind::Commit, commit.index),
            Body::CampaignNow => plain(Kind::Transfer),
            Body::Blank => plain(Kind::Blank),
            Body::Outdated => plain(Kind::NewerTerm),
        }
    }
}

fn summary(what: MessageKind, last: LogIndex) -> MessageSummary {
    let first = LogIndex(0);
    MessageSummary { what, first, last }
}

fn append(entries: &[Entry]) -> MessageSummary {
    let index = |entry: Option<&Entry>| entry.map_or(LogIndex(0), |entry| entry.position.index);
    MessageSummary {
        what: MessageKind::Append,
        first: index(entries.first()),
        last: index(entries.last()),
    }
}
