//! Whose messages this member takes.
//!
//! The transport admits members: processes that the member table names, with the incarnation that the log has
//! published. It also admits a *newcomer*, which the table here does not name: it has shown that it knows this cluster
//! from inside, or a member names it (module `peer`). Newcomers are needed because a member may have been away while
//! others were added, and one of them may lead by now.
//!
//! | sender | what is taken |
//! |---|---|
//! | named by the applied table, by the membership at the end of the log, or followed as leader | everything |
//! | a newcomer | what a leader sends (appends, heartbeats, commits, a snapshot): a member that is behind learns of the newcomer only from the log, and only a leader sends that. What a candidate sends (votes, pre-votes): without this member's vote the others may have no majority |
//!
//! Everything else from a newcomer is of no use: it answers a question that nobody asked it, or asks a leader for what
//! only members get.
//!
//! A message that contradicts the protocol has no effect, whoever sends it. The connection it came by is closed, and
//! the log says why.

use super::letter::Letter;
use super::rules::Rules;
use super::time::Monotonic;
use super::{Engine, Note};
use crate::raft::{Body, NodeId, Violation};
use core::time::Duration;
use std::collections::btree_map::Entry;

/// How often the same member's violations are noted.
const VIOLATION_INTERVAL: Duration = Duration::from_secs(10);

impl<T, R: Rules> Engine<T, R> {
    /// Whether this member knows `node` for a member, from what is applied or from what is only in its log.
    pub(super) fn knows(&self, node: NodeId) -> bool {
        self.core.membership().contains(node)
            || self.state.members.get(node).is_some()
            || self.core.leader() == Some(node)
    }

    /// Whether this is taken from this sender.
    pub(super) fn may_send(&self, from: NodeId, letter: &Letter) -> bool {
        let is_for_anybody = match letter {
            Letter::Raft { message, .. } => is_of_newcomers(&message.body),
            _ => false,
        };
        is_for_anybody || self.knows(from)
    }

    /// Closes the connection, and says why now and then.
    pub(super) fn violated(&mut self, from: NodeId, violation: Violation) {
        self.effects.cut.push(from);
        let now = self.now.monotonic;
        let is_due = |at: &Monotonic| now - *at >= VIOLATION_INTERVAL;
        self.violations.retain(|_, at| !is_due(at));
        if let Entry::Vacant(unsaid) = self.violations.entry(from) {
            unsaid.insert(now);
            self.note(Note::Violation { from, violation });
        }
    }
}

/// What a member that is behind needs of somebody it does not know (see the table above).
fn is_of_newcomers(body: &Body) -> bool {
    matches!(
        body,
        Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::Commit { .. }
            | Body::Vote { .. }
            | Body::PreVote { .. }
    )
}
