//! The trace of a run: one value per event, printed as one line.

use super::checks::write_number;
use super::client::{Answer, Ask};
use super::fault_profile::FaultProfile;
use crate::engine::peer_message::PeerMessage;
use crate::raft::{Body, Message, NodeId, Position, Term};
use std::fmt;

/// One line of a trace.
#[derive(Debug, Clone)]
pub struct Line {
    /// Virtual microseconds since the start.
    pub at: u64,
    /// The event.
    pub what: Happening,
}

/// An event of a run.
#[derive(Debug, Clone)]
#[allow(missing_docs)] // The names and `Display` describe the events.
pub enum Happening {
    FaultProfile(Box<FaultProfile>),
    Sent {
        from: NodeId,
        to: NodeId,
        peer_message: Box<PeerMessage>,
        lost: bool,
    },
    Came {
        from: NodeId,
        to: NodeId,
        peer_message: Box<PeerMessage>,
    },
    Leads {
        node: NodeId,
        term: Term,
    },
    Stored {
        node: NodeId,
        last: Option<Position>,
    },
    Applied {
        node: NodeId,
        first: Position,
        last: Position,
    },
    Full {
        node: NodeId,
    },
    SnapshotMade {
        node: NodeId,
        at: Position,
    },
    SnapshotSent {
        from: NodeId,
        to: NodeId,
        at: Position,
        lost: bool,
    },
    SnapshotInstalled {
        node: NodeId,
        at: Position,
    },
    Started {
        node: NodeId,
        found: Position,
        warnings: usize,
    },
    Down {
        node: NodeId,
        how: &'static str,
    },
    Removed {
        node: NodeId,
    },
    Nemesis(String),
    Asked {
        client: u64,
        number: u64,
        node: NodeId,
        ask: Ask,
    },
    Answered {
        client: u64,
        number: u64,
        answer: Answer,
    },
    GaveUp {
        client: u64,
        number: u64,
    },
    Repaired,
}

struct Node(NodeId);

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0.0)
    }
}

struct Messages<'a>(&'a PeerMessage);

impl fmt::Display for Messages<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PeerMessage::Raft { message, .. } => write!(f, "{}", Said(message)),
            PeerMessage::Forward {
                number,
                term,
                commands,
            } => {
                let carried = commands.iter().filter_map(|command| write_number(command));
                let carried: Vec<u64> = carried.collect();
                write!(f, "t{} Forward {number:x} of {carried:?}", term.0)
            }
            PeerMessage::Change { number, term, .. } => write!(f, "t{} Change {number:x}", term.0),
            PeerMessage::AskIndex { number } => write!(f, "AskIndex {number:x}"),
            PeerMessage::Reply { number, reply } => write!(f, "Reply {number:x} {reply:?}"),
        }
    }
}

/// A peer message as a text.
pub(super) fn message_text(message: &PeerMessage) -> String {
    Messages(message).to_string()
}

struct Said<'a>(&'a Message);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{} ", self.0.term.0)?;
        match &self.0.body {
            Body::PreVote { last } => write!(f, "PreVote last={last}"),
            Body::PreVoteReply { asked, granted } => {
                write!(f, "PreVoteReply of t{} {}", asked.0, yes(*granted))
            }
            Body::Vote { last, handover } => {
                let how = if *handover { " handover" } else { "" };
                write!(f, "Vote last={last}{how}")
            }
            Body::VoteReply { granted } => write!(f, "VoteReply {}", yes(*granted)),
            Body::Append {
                previous,
                entries,
                commit,
            } => {
                let last = entries.last().map_or(*previous, |entry| entry.position);
                write!(f, "Append ({previous}, {last}] commit={}", commit.0)
            }
            Body::Accepted { matched } => write!(f, "Accepted {}", matched.0),
            Body::Refused { previous, hint } => write!(f, "Refused {} hint={hint}", previous.0),
            Body::Heartbeat { round, commit } => write!(f, "Heartbeat #{round} commit={commit}"),
            Body::HeartbeatReply { round } => write!(f, "HeartbeatReply #{round}"),
            Body::Commit { commit } => write!(f, "Commit {commit}"),
            Body::CampaignNow => write!(f, "CampaignNow"),
            Body::Blank => write!(f, "Blank"),
            Body::Outdated => write!(f, "Outdated"),
        }
    }
}

fn yes(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3} ms  {}", self.at as f64 / 1000.0, self.what)
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::FaultProfile(profile) => write!(f, "{profile:?}"),
            Happening::Sent {
                from,
                to,
                peer_message,
                lost,
            } => {
                let lost = if *lost { "  (lost)" } else { "" };
                write!(
                    f,
                    "{} → {} {}{lost}",
                    Node(*from),
                    Node(*to),
                    Messages(peer_message)
                )
            }
            Happening::Came {
                from,
                to,
                peer_message,
            } => {
                write!(
                    f,
                    "{} ⇒ {} {}",
                    Node(*from),
                    Node(*to),
                    Messages(peer_message)
                )
            }
            Happening::Leads { node, term } => write!(f, "{} leads in t{}", Node(*node), term.0),
            Happening::Stored { node, last } => match last {
                Some(last) => write!(f, "{} has stored up to {last}", Node(*node)),
                None => write!(f, "{} has stored its hard state", Node(*node)),
            },
            Happening::Applied { node, first, last } => {
                write!(f, "{} applies {first} to {last}", Node(*node))
            }
            Happening::Full { node } => write!(f, "{} has a full disk", Node(*node)),
            Happening::SnapshotMade { node, at } => {
                write!(f, "{} has a snapshot at {at}", Node(*node))
            }
            Happening::SnapshotSent { from, to, at, lost } => {
                let lost = if *lost { "  (lost)" } else { "" };
                write!(f, "{} → {} snapshot at {at}{lost}", Node(*from), Node(*to))
            }
            Happening::SnapshotInstalled { node, at } => {
                write!(f, "{} installs the snapshot at {at}", Node(*node))
            }
            Happening::Started {
                node,
                found,
                warnings,
            } => write!(
                f,
                "{} starts, its log ends at {found}; {warnings} warnings",
                Node(*node)
            ),
            Happening::Down { node, how } => write!(f, "{} is down: {how}", Node(*node)),
            Happening::Removed { node } => write!(f, "{} learns that it was removed", Node(*node)),
            Happening::Nemesis(what) => write!(f, "-- {what}"),
            Happening::Asked {
                client,
                number,
                node,
                ask,
            } => write!(f, "c{client} asks {}: #{number} {ask:?}", Node(*node)),
            Happening::Answered {
                client,
                number,
                answer,
            } => write!(f, "c{client} gets #{number}: {answer:?}"),
            Happening::GaveUp { client, number } => write!(f, "c{client} gives up on #{number}"),
            Happening::Repaired => write!(f, "-- all faults have ended"),
        }
    }
}
