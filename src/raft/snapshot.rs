//! Snapshots: the log is cut behind one, and a follower that needs what was cut is sent one.
//!
//! Making, streaming and storing them is the driver's; the core decides who needs one and whether
//! one that was received may be used (paper §7):
//! - only when it is ahead of what is committed here: an old one would take the state back;
//! - when the log has the very entry the snapshot ends with, nothing is installed: what the
//!   snapshot holds is in the log, so it is committed up to there and what follows is kept;
//! - otherwise the log conflicts with it or ends before it, and all of it goes.
//!
//! The order on disk is the driver's part: the snapshot is durable before the log is cut. A crash
//! between the two leaves the old log after the new snapshot; recovery must then keep the entries
//! after the mark only if the log has the mark's very entry.

use super::core::Core;
use super::message::{Body, NodeId, SnapshotMark, Term};
use super::rules::Rules;

impl<R: Rules> Core<R> {
    /// The state machine's own snapshot is on disk.
    pub(super) fn on_compacted(&mut self, mark: SnapshotMark) {
        if mark.position.index <= self.log.snapshot().index {
            return;
        }
        let at = mark.position.index;
        assert!(
            at <= self.applied,
            "a snapshot at {at:?}, applied {:?}",
            self.applied
        );
        assert!(
            self.log.has(mark.position),
            "no entry of ours: {}",
            mark.position
        );
        self.log.compact(mark.position);
        self.members.compacted(mark);
        if self.reading.is_some_and(|(first, _)| first <= at) {
            self.reading = None;
        }
    }

    /// A leader's snapshot has come.
    pub(super) fn on_snapshot(&mut self, from: NodeId, term: Term, mark: SnapshotMark) {
        if term < self.ballot.term {
            return self.send(from, Body::Outdated);
        }
        if !self.is_sound_term(from, term, true) {
            return;
        }
        if term > self.ballot.term {
            self.become_follower(term);
        }
        self.follow(from);
        let position = mark.position;
        let ahead = position.index > self.commit || !R::SNAPSHOT_ONLY_AHEAD;
        if ahead && self.log.has(position) {
            self.commit_to(position.index);
        } else if ahead {
            self.install(mark);
        }
        let matched = position.index.min(self.commit);
        self.send_when_stored(from, Body::Accepted { matched }, R::ACK_AFTER_STORE);
    }

    fn install(&mut self, mark: SnapshotMark) {
        let index = mark.position.index;
        self.log.reset(mark.position);
        self.members.reset(mark.clone());
        (self.commit, self.applied) = (index, index);
        self.reading = None;
        self.installing = Some(mark.position);
        self.todo.install = Some(mark);
    }
}
