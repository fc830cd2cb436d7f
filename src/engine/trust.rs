//! Decides which messages this member accepts from which sender.
//!
//! The transport admits members: processes that the member table contains, with the incarnation that is published in
//! the log. It also admits *newcomers*, which this table does not contain. A newcomer has proved that it knows data
//! which only members have, or another member names it (module `peer`). Newcomers are necessary because a member may
//! have been away while others were added, and one of these may be the leader by now. The transport reports each
//! connection that it admits ([`PeerEvent::Understands`](super::PeerEvent::Understands)), so a newcomer is a process that
//! was reported and never removed. All other processes are *strangers*.
//!
//! | sender | accepted messages |
//! |---|---|
//! | in the applied table, in the membership at the end of the log, or followed as leader | all |
//! | a newcomer | the messages of a leader (appends, heartbeats, commits, a snapshot): a member that is behind learns of the newcomer only from the log, and only a leader sends entries. The messages of a candidate (votes, pre-votes): without this member's vote the others may have no majority |
//! | a stranger, also one that was a member and was removed | none: a vote request would change the term, and an append could be committed |
//!
//! All other messages of a newcomer are useless: they answer requests that this member did not send, or ask a leader
//! for things that only members get.
//!
//! A message that contradicts the protocol has no effect, even if a member sends it. The connection on which it arrived
//! is closed, and a log line names the reason.

use super::peer_message::PeerMessage;
use super::rules::{Rule, Rules};
use super::time::Monotonic;
use super::{Engine, Note};
use crate::raft::{Body, NodeId, Violation};
use core::time::Duration;
use std::collections::btree_map::Entry;

/// Minimum time between two log lines about the same member's violations.
const VIOLATION_INTERVAL: Duration = Duration::from_secs(10);

impl<T, R: Rules> Engine<T, R> {
    /// Whether `node` is a member, according to the applied table or the end of the log.
    pub(super) fn knows(&self, node: NodeId) -> bool {
        self.core.membership().contains(node)
            || self.state.members.get(node).is_some()
            || self.core.leader() == Some(node)
    }

    /// Whether this message is accepted from this sender.
    pub(super) fn may_send(&self, from: NodeId, peer_message: &PeerMessage) -> bool {
        let is_of_newcomers = match peer_message {
            PeerMessage::Raft { message, .. } => is_of_newcomers(&message.body),
            _ => false,
        };
        self.knows(from) || (is_of_newcomers && self.is_newcomer(from)) || self.trusts_all()
    }

    /// Whether a snapshot is accepted from this sender. Only a leader sends one.
    pub(super) fn may_send_snapshot(&self, from: NodeId) -> bool {
        self.knows(from) || self.is_newcomer(from) || self.trusts_all()
    }

    fn is_newcomer(&self, node: NodeId) -> bool {
        self.formats.contains_key(&node) && !self.state.members.was_removed(node)
    }

    fn trusts_all(&self) -> bool {
        !self.rules.keeps(Rule::StrangersAreIgnored)
    }

    /// Closes the connection, and logs the reason at intervals.
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

/// Whether this is a message that a member which is behind needs from a newcomer (see the table above).
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
