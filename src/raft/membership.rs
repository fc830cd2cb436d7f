//! The members of the cluster, and how they change: one member at a time, through the log.
//!
//! A change is an entry. It takes effect on a node when it is *appended* there, not when it is committed (dissertation
//! §4.1). Two majorities that differ by one member always overlap, so the old and the new configuration cannot decide
//! differently. If the entry is truncated, the previous configuration takes effect again. Therefore this module keeps a
//! history of configurations.
//!
//! Two rules make this safe. There is only one change at a time: the next one must wait until the previous one is
//! committed. And a leader changes nothing before an entry of its own term is committed. The second rule fixes a bug
//! published in 2015: two leaders of different terms could each append one change, with majorities that do not overlap.
//! A transcript shows it.
//!
//! A new member begins as a learner: it receives entries and has no vote. So a cluster of one or two members continues
//! to commit while the new member catches up, and also if it never starts. The leader promotes a learner automatically
//! when three conditions hold. The learner has everything that was committed an election timeout ago (under load it
//! never has everything that is committed at one moment). The learner has sent a message within an election timeout.
//! And the reachable voters together with the learner are a majority of the new configuration.
//!
//! A removal is refused if the reachable voters would not be a majority of the remaining ones (unless `strict_changes`
//! is off). Adding a member is always possible, because a learner does not change the majority. A leader that removes
//! itself leads until the removal is committed, without counting itself (dissertation §4.2.2). Then it asks the most
//! up-to-date voter to start an election at once.

use super::core::{Core, Refusal, State};
use super::message::{
    Body, Change, ChangeKind, Entry, LogIndex, Membership, NodeId, Payload, Position,
    SnapshotMetadata,
};
use super::replication::Leading;
use super::rules::Rules;
use std::sync::Arc;

impl Membership {
    /// Number of votes or acknowledgements needed to decide.
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Whether `id` is a voter or a learner.
    pub fn contains(&self, id: NodeId) -> bool {
        self.voters.contains(&id) || self.learners.contains(&id)
    }

    /// Makes the change. Has no effect if the membership already is as requested.
    pub fn change(&mut self, change: &Change) {
        match change.kind {
            ChangeKind::AddLearner if self.voters.contains(&change.node) => {}
            ChangeKind::AddLearner => {
                self.learners.insert(change.node);
            }
            ChangeKind::Promote => {
                self.learners.remove(&change.node);
                self.voters.insert(change.node);
            }
            ChangeKind::Remove => {
                self.learners.remove(&change.node);
                self.voters.remove(&change.node);
            }
        }
    }
}

/// The membership at the newest snapshot, and after every later change.
#[derive(Debug)]
pub(super) struct Members {
    at_snapshot: (LogIndex, Membership),
    changes: Vec<(LogIndex, Membership)>,
}

impl Members {
    pub(super) fn new(snapshot: SnapshotMetadata, found: &[Entry]) -> Members {
        let index = snapshot.position.index;
        let mut members = Members {
            at_snapshot: (index, snapshot.membership),
            changes: Vec::new(),
        };
        let later = found.iter().filter(|entry| entry.position.index > index);
        later.for_each(|entry| members.appended(entry));
        members
    }

    /// The membership in effect.
    pub(super) fn current(&self) -> &Membership {
        self.changes
            .last()
            .map_or(&self.at_snapshot.1, |change| &change.1)
    }

    /// Index of the newest change; the snapshot's index if there is no later change.
    pub(super) fn changed_at(&self) -> LogIndex {
        self.changes
            .last()
            .map_or(self.at_snapshot.0, |change| change.0)
    }

    /// The membership as of `index`; `None` if it is before the newest snapshot.
    pub(super) fn at(&self, index: LogIndex) -> Option<&Membership> {
        let change = self.changes.iter().rev().find(|change| change.0 <= index);
        let at_snapshot = (self.at_snapshot.0 <= index).then_some(&self.at_snapshot.1);
        change.map(|change| &change.1).or(at_snapshot)
    }

    /// An entry was appended. If it is a change, it takes effect.
    pub(super) fn appended(&mut self, entry: &Entry) {
        if let Payload::Change(change) = &entry.payload {
            let mut membership = self.current().clone();
            membership.change(change);
            self.changes.push((entry.position.index, membership));
        }
    }

    /// The entries from `from` on were removed, and their changes with them.
    pub(super) fn truncated(&mut self, from: LogIndex) {
        self.changes.retain(|change| change.0 < from);
    }

    /// The log up to the snapshot was deleted.
    pub(super) fn compacted(&mut self, metadata: SnapshotMetadata) {
        let index = metadata.position.index;
        self.changes.retain(|change| change.0 > index);
        self.at_snapshot = (index, metadata.membership);
    }

    /// The whole log was deleted and replaced by the snapshot.
    pub(super) fn reset(&mut self, metadata: SnapshotMetadata) {
        self.changes.clear();
        self.at_snapshot = (metadata.position.index, metadata.membership);
    }
}

impl<R: Rules> Core<R> {
    pub(super) fn is_voter(&self) -> bool {
        self.members.current().voters.contains(&self.settings.id)
    }

    /// Whether this node may start an election. A voter may, and also a node whose removal is in its log and not known
    /// to be committed: it may have the longest log, and then no other node can win. It does not count its own vote,
    /// and stops when the removal is committed (dissertation §4.2.2). After a restart the core cannot know at once
    /// whether the removal was committed. The driver knows if it was applied.
    pub(super) fn may_stand(&self) -> bool {
        let committed = self.members.at(self.commit);
        self.is_voter() || committed.is_some_and(|members| members.voters.contains(&self.id()))
    }

    /// Whether this node does not know any members: it waits for a snapshot, and neither votes nor accepts entries.
    pub(super) fn is_blank(&self) -> bool {
        self.members.current().voters.is_empty() && self.log.last() == LogIndex(0)
    }

    pub(super) fn propose_change(&mut self, change: Change) {
        match self.may_change(&change) {
            Ok(()) => self.todo.accepted = Some(self.append_own(Payload::Change(change))),
            Err(refusal) => self.todo.refused = Some(refusal),
        }
    }

    fn may_change(&self, change: &Change) -> Result<(), Refusal> {
        let State::Leader(leading) = &self.state else {
            return Err(Refusal::NotLeader {
                leader: self.leader,
            });
        };
        if leading.transfer.is_some() {
            return Err(Refusal::Transferring);
        }
        let members = self.members.current();
        let pending = self.members.changed_at() > self.commit && R::ONE_CHANGE_AT_A_TIME;
        let early = self.commit < leading.term_start && R::CHANGE_AFTER_OWN_TERM;
        if pending || early {
            return Err(Refusal::ChangePending);
        }
        match change.kind {
            ChangeKind::AddLearner if members.contains(change.node) => Err(Refusal::AlreadyMember),
            ChangeKind::AddLearner => Ok(()),
            ChangeKind::Promote if !members.learners.contains(&change.node) => {
                Err(Refusal::NoSuchMember)
            }
            ChangeKind::Promote => self.may_promote(leading, change.node),
            ChangeKind::Remove if !members.contains(change.node) => Err(Refusal::NoSuchMember),
            ChangeKind::Remove => self.may_remove(leading, change.node),
        }
    }

    fn may_promote(&self, leading: &Leading, learner: NodeId) -> Result<(), Refusal> {
        let needed = match R::LEARNER_MAY_LAG {
            true => leading.commit_before(),
            false => self.commit,
        };
        let caught_up = leading.progress.get(&learner).is_some_and(|progress| {
            progress.matched >= needed && leading.heard_lately(learner, self)
        });
        if !caught_up {
            return Err(Refusal::NotCaughtUp);
        }
        let mut grown = self.members.current().clone();
        grown.voters.insert(learner);
        self.living_majority(leading, &grown)
    }

    fn may_remove(&self, leading: &Leading, node: NodeId) -> Result<(), Refusal> {
        let mut rest = self.members.current().clone();
        rest.voters.remove(&node);
        if rest.voters.is_empty() {
            return Err(Refusal::QuorumLost);
        }
        match self.settings.strict_changes {
            true => self.living_majority(leading, &rest),
            false => Ok(()),
        }
    }

    /// Whether the reachable nodes among `members` are a majority.
    fn living_majority(&self, leading: &Leading, members: &Membership) -> Result<(), Refusal> {
        let living = members
            .voters
            .iter()
            .filter(|id| leading.heard_lately(**id, self));
        match living.count() >= members.majority() {
            true => Ok(()),
            false => Err(Refusal::QuorumLost),
        }
    }

    /// The leader promotes a learner that has caught up.
    pub(super) fn promote_learner(&mut self) {
        let State::Leader(leading) = &self.state else {
            return;
        };
        let mut learners = self.members.current().learners.iter().copied();
        let ready = learners.find(|node| self.may_promote(leading, *node).is_ok());
        let Some(node) = ready else { return };
        let change = Change {
            kind: ChangeKind::Promote,
            node,
            context: Arc::from([]),
        };
        if self.may_change(&change).is_ok() {
            self.append_own(Payload::Change(change));
        }
    }

    /// Keeps the leader's list of followers in line with the membership. A removed member stays in the list until the
    /// removal is committed. A last heartbeat informs it of that commit.
    pub(super) fn follow_membership(&mut self) {
        let State::Leader(leading) = &mut self.state else {
            return;
        };
        let members = self.members.current();
        for id in members.voters.iter().chain(&members.learners) {
            if *id != self.settings.id {
                leading.add(*id, self.log.last());
            }
        }
        if self.commit < self.members.changed_at() {
            return;
        }
        let gone: Vec<NodeId> = leading
            .progress
            .keys()
            .filter(|id| !members.contains(**id))
            .copied()
            .collect();
        let round = leading.round;
        gone.iter().for_each(|id| drop(leading.progress.remove(id)));
        let commit = self.commit_position();
        for id in gone {
            self.send(id, Body::Heartbeat { round, commit });
        }
        if !self.is_voter() {
            self.resign();
        }
    }

    /// The leader steps down and announces it: it asks the most up-to-date voter to start an election.
    pub(super) fn resign(&mut self) {
        let best = self.best_voter();
        self.heartbeat();
        if let Some(best) = best {
            self.send(best, Body::CampaignNow);
        }
        self.step_down();
    }

    pub(super) fn commit_position(&self) -> Position {
        let position = self.log.position_at(self.commit);
        position.unwrap_or_else(|| panic!("{:?} is below {}", self.commit, self.log.base()))
    }
}
