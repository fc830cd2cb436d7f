//! What no sound member sends, and what happens to it.
//!
//! A message comes from another process, and perhaps from somebody who only claims to be a member. So a message
//! that contradicts the protocol never ends this process: it changes nothing, and the driver hears of it
//! ([`super::Todo::violations`]) and closes the connection. The assertions of this module tree are about this
//! node's own state, which no message may bring about.
//!
//! | violation | why it is none of a sound member |
//! |---|---|
//! | a term far ahead | a term grows by one with each election |
//! | a second leader in one term | a voter has one vote in a term (paper §5.2) |
//! | entries or a commit that contradict what is committed here | every leader has what is committed (§5.4) |
//!
//! A follower stays with the leader that it heard first in a term. If the other one is real, a rule was broken
//! elsewhere, and an operator has to look at both: the driver says so.

use super::core::Core;
use super::message::{Body, Message, NodeId, Position, Term};
use super::rules::Rules;
use std::fmt;

/// How far one message may be ahead of this node's term. A term is an election that a majority took part in: even a
/// new member of a cluster that has elected a leader each second for a century is not so far behind. Whoever counts up
/// by this much at a time needs a billion messages to use up all terms.
const TERM_JUMP_MAX: u64 = 1 << 32;

/// How a message contradicts the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// It is of a term that nobody can have reached since this node was last in touch.
    TermTooFar {
        /// The message's term.
        claimed: Term,
        /// This node's.
        own: Term,
    },
    /// Its sender claims to lead in a term in which this node follows another one, or leads.
    SecondLeader {
        /// The term.
        term: Term,
        /// Whom this node knows as its leader.
        leader: NodeId,
    },
    /// Its entries, or the commit that it reports, contradict this node's committed entries.
    NotOurLog {
        /// The last committed entry here.
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
    /// Whether a member may send this; false: it is reported, and must not be looked at any further.
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

    /// The same for what carries a term and is no message: a leader's snapshot.
    pub(super) fn is_sound_term(&mut self, from: NodeId, term: Term, leads: bool) -> bool {
        let own = self.ballot.term;
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
    /// Whether only the leader of its term sends this.
    fn is_leaders(&self) -> bool {
        matches!(
            self,
            Body::Append { .. } | Body::Heartbeat { .. } | Body::Commit { .. } | Body::CampaignNow
        )
    }
}
