//! Snapshots: the log before a snapshot is deleted, and a follower that needs deleted entries receives the snapshot.
//!
//! The driver makes, streams and stores snapshots. The core decides which follower needs one, and whether a received
//! one may be used (paper §7):
//! - It is used only if it is ahead of this node's commit index. An older one would take the state back.
//! - If the log has an entry at the snapshot's position, nothing is installed. The log contains everything that the
//!   snapshot contains, so the node commits up to that position and keeps the entries after it.
//! - Otherwise the log conflicts with the snapshot or ends before it, and the whole log is dropped.
//!
//! The driver must keep the order on disk: the snapshot is durable before the log is deleted. After a crash between
//! these two steps, the old log is next to the new snapshot. Recovery may then keep the entries after the snapshot's
//! position only if the log has an entry at exactly that position.

use super::core::Core;
use super::message::{Body, NodeId, SnapshotMetadata, Term};
use super::rules::Rules;

impl<R: Rules> Core<R> {
    /// The state machine's own snapshot is on disk.
    pub(super) fn on_compacted(&mut self, metadata: SnapshotMetadata) {
        if metadata.position.index <= self.log.snapshot().index {
            return;
        }
        let at = metadata.position.index;
        assert!(
            at <= self.applied,
            "a snapshot at {at:?}, applied {:?}",
            self.applied
        );
        assert!(
            self.log.has(metadata.position),
            "no entry of ours: {}",
            metadata.position
        );
        self.log.compact(metadata.position);
        self.members.compacted(metadata);
        if self.reading.is_some_and(|(first, _)| first <= at) {
            self.reading = None;
        }
    }

    /// A complete snapshot from a leader has arrived.
    pub(super) fn on_snapshot(&mut self, from: NodeId, term: Term, metadata: SnapshotMetadata) {
        if term < self.hard_state.term {
            return self.send(from, Body::Outdated);
        }
        if !self.is_sound_term(from, term, true) {
            return;
        }
        if term > self.hard_state.term {
            self.become_follower(term);
        }
        self.follow(from);
        let position = metadata.position;
        let ahead = position.index > self.commit || !R::SNAPSHOT_ONLY_AHEAD;
        if ahead && self.log.has(position) {
            self.commit_to(position.index);
        } else if ahead {
            self.install(metadata);
        }
        let matched = position.index.min(self.commit);
        self.send_when_stored(from, Body::Accepted { matched }, R::ACK_AFTER_STORE);
    }

    fn install(&mut self, metadata: SnapshotMetadata) {
        let index = metadata.position.index;
        self.log.reset(metadata.position);
        self.members.reset(metadata.clone());
        (self.commit, self.applied) = (index, index);
        self.reading = None;
        self.installing = Some(metadata.position);
        self.todo.install = Some(metadata);
    }
}
