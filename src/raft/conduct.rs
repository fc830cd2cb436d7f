//! Messages that a correct member never sends, and what happens to them.
//!
//! A message comes from another process, possibly from one that only claims to be a member. So a message that
//! contradicts the protocol never ends this process. It changes nothing, and the core reports it to the driver
//! ([`super::Todo::violations`]), which closes the connection. The assertions in the other files of this module are
//! about this node's own state, so that no message makes them fail.
//!
//! | violation | why a correct member does not send it |
//! |---|---|
//! | a term far ahead of this node's | each election increases the term by one |
//! | a second leader in one term | a voter has one vote per term (paper §5.2) |
//! | entries or a commit position that contradict this node's committed entries | every leader has all committed entries (§5.4) |
//!
//! A follower keeps the first leader that it knows in a term. If the other one is a real member, a rule was broken
//! elsewhere, and the operator must inspect both. The driver logs that.

use super::core::Core;
use super::message::{Body, Message, NodeId, Position, Term};
use super::rules::Rules;
use std::fmt;

/// How far a message's term may be ahead of this node's term. Each term is an election that a majority took part in. A
/// cluster that has elected a leader each second for a century is not this far ahead of a new member. A sender that
/// increases the term by this much with each message needs a billion messages to use up all terms.
const TERM_JUMP_MAX: u64 = 1 << 32;

/// How a message contradicts the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// The message's term cannot have been reached since this node was last in contact with the cluster.
    TermTooFar {
        /// The message's term.
        claimed: Term,
        /// This node's term.
        own: Term,
    },
    /// The sender claims to lead in a term in which this node leads or follows another leader.
    SecondLeader {
        /// The term.
        term: Term,
        /// The leader that this node knows.
        leader: NodeId,
    },
    /// The message's entries, or its commit position, contradict this node's committed entries.
    NotOurLog {
        /// Position of the last entry that is committed on this node.
        commit: Position,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Violation::TermTooFar { claimed, own } => {
                write!(
                    f,
                    "it claims term {}, far from term {} here",
                    claimed.0, own.0
                )
            }
            Violation::SecondLeader { term, leader } => write!(
                f,
                "it claims to lead in term {}, in which {:x} leads",
                term.0, leader.0
            ),
            Violation::NotOurLog { commit } => {
                write!(
                    f,
                    "it contradicts the log here, which is committed up to {commit}"
                )
            }
        }
    }
}

impl<R: Rules> Core<R> {
    /// Whether a correct member can send this message. If not, the message is reported, and must not be processed
    /// further.
    pub(super) fn is_sound(&mut self, from: NodeId, message: &Message) -> bool {
        let leads = message.body.is_leaders();
        let commit = match &message.body {
            Body::Heartbeat { commit, .. } | Body::Commit { commit } => *commit,
            _ => Position::default(),
        };
        if commit.term > message.term {
            let commit = self.commit_position();
            return self.violates(from, Violation::NotOurLog { commit });
        }
        self.is_sound_term(from, message.term, leads)
    }

    /// The same check for a leader's snapshot, which has a term but is not a message.
    pub(super) fn is_sound_term(&mut self, from: NodeId, term: Term, leads: bool) -> bool {
        let own = self.hard_state.term;
        if term.0 > own.0.saturating_add(TERM_JUMP_MAX) {
            let claimed = term;
            return self.violates(from, Violation::TermTooFar { claimed, own });
        }
        match self.leader {
            Some(leader) if leads && term == own && leader != from => {
                self.violates(from, Violation::SecondLeader { term, leader })
            }
            _ => true,
        }
    }

    pub(super) fn violates(&mut self, from: NodeId, violation: Violation) -> bool {
        self.todo.violations.push((from, violation));
        false
    }
}

impl Body {
    /// Whether only a leader sends this kind of message.
    fn is_leaders(&self) -> bool {
        matches!(
            self,
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Commit { .. } | Body::CampaignNow
        )
    }
}
