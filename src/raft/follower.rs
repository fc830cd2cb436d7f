//! The follower's side of replication: it checks entries, appends them, acknowledges them, and commits.
//!
//! Log matching (paper §5.3): a follower accepts entries only if it has the entry just before them. Then its log is
//! identical to the leader's up to the last of them. It deletes entries only from the first *conflicting* one on. An
//! append that arrives late, and whose entries the log already has, changes nothing. The acknowledgement names the last
//! entry that this append has checked, which is not always the last of the log. It is sent when the disk has stored
//! everything up to that entry.

use super::conduct::Violation;
use super::core::Core;
use super::message::{Body, Entry, LogIndex, NodeId, Position};
use super::rules::Rules;

impl<R: Rules> Core<R> {
    /// The leader `from` sends entries.
    pub(super) fn on_append(
        &mut self,
        from: NodeId,
        previous: Position,
        entries: Vec<Entry>,
        commit: LogIndex,
    ) {
        if self.is_blank() {
            return self.send(from, Body::Blank);
        }
        let (previous, entries) = self.skip_committed(previous, entries);
        if !self.log.has(previous) && R::PREVIOUS_MUST_MATCH {
            let hint = self.agree_at_most(previous);
            return self.send(
                from,
                Body::Refused {
                    previous: previous.index,
                    hint,
                },
            );
        }
        if entries
            .first()
            .is_some_and(|first| first.position.term < previous.term)
        {
            let commit = self.commit_position();
            self.violates(from, Violation::NotOurLog { commit });
            return;
        }
        let matched = previous.index.after(entries.len());
        self.take_entries(previous.index, entries);
        if commit.min(matched) > self.commit {
            self.commit_to(commit.min(matched));
        }
        self.try_commit_heard();
        self.send_when_stored(from, Body::Accepted { matched }, R::ACK_AFTER_STORE);
    }

    /// Skips entries that this node has committed. Every leader has those, so they need no check, and their terms may
    /// be compacted away.
    fn skip_committed(
        &self,
        previous: Position,
        mut entries: Vec<Entry>,
    ) -> (Position, Vec<Entry>) {
        let known = previous.index >= self.log.base().index;
        if previous.index >= self.commit || (known && !R::TRUNCATE_ONLY_ON_CONFLICT) {
            return (previous, entries);
        }
        let skip = (self.commit.0 - previous.index.0).min(entries.len() as u64);
        entries.drain(..skip as usize);
        (self.commit_position(), entries)
    }

    /// The last position at which this log could agree with the log of a leader that has `previous`.
    fn agree_at_most(&self, previous: Position) -> Position {
        self.log
            .last_at_most(previous.index, previous.term)
            .unwrap_or(self.log.base())
    }

    /// Appends those of `entries` that are new. The first one follows `previous`.
    fn take_entries(&mut self, previous: LogIndex, entries: Vec<Entry>) {
        if !R::TRUNCATE_ONLY_ON_CONFLICT {
            self.truncate(previous.next());
        }
        let mut entries = entries
            .into_iter()
            .skip_while(|entry| self.log.has(entry.position))
            .peekable();
        let Some(first) = entries.peek().map(|entry| entry.position.index) else {
            return;
        };
        let rest: Vec<Entry> = entries.collect();
        self.truncate(first);
        rest.into_iter().for_each(|entry| self.append(entry));
    }

    fn truncate(&mut self, from: LogIndex) {
        if from <= self.log.last() {
            assert!(
                from > self.commit,
                "truncating at {from:?}, committed {:?}",
                self.commit
            );
            self.log.truncate(from);
            self.members.truncated(from);
        }
    }

    /// The leader has committed up to `commit`.
    pub(super) fn on_commit(&mut self, commit: Position) {
        self.commit_heard = self.commit_heard.max(commit);
        self.try_commit_heard();
    }

    /// Commits up to the newest known commit position if this log has an entry there. The entry may arrive after the
    /// announcement, because small messages may overtake appends.
    fn try_commit_heard(&mut self) {
        let heard = self.commit_heard;
        if heard.index > self.commit && self.log.has(heard) {
            self.commit_to(heard.index);
        }
    }
}
