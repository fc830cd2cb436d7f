//! How a member stops: it transfers leadership, finishes the requests in progress, and sends the last replies.

use super::rules::{Rule, Rules};
use super::time::Monotonic;
use super::{Engine, Note};
use crate::raft::{Input, NodeId};
use core::time::Duration;

/// How long a stopping member waits for the requests in progress.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a leader stays after it has transferred leadership, to return the commands that followers still forward to
/// it.
const LINGER: Duration = Duration::from_millis(100);

/// How long a removed member stays, so that the others learn of the removal too.
const REMOVED_LINGER: Duration = Duration::from_millis(500);

/// The progress of stopping.
pub(super) struct Stopping {
    since: Monotonic,
    /// Whether it led other members when stopping began.
    led: bool,
    /// When another member became leader.
    handed_over: Option<Monotonic>,
}

impl<T, R: Rules> Engine<T, R> {
    /// Requests received before this call are finished. Later ones are refused.
    pub(super) fn begin_stop(&mut self) {
        assert!(self.stopping.is_none(), "a member stops once");
        let led = self.core.is_leader() && self.core.membership().voters.len() > 1;
        if led && self.rules.keeps(Rule::StopHandsOver) {
            self.input(Input::Transfer { to: None });
        }
        self.stopping = Some(Stopping {
            since: self.now.monotonic,
            led,
            handed_over: None,
        });
    }

    /// Whether no request is in progress any longer, or the wait took too long.
    pub(super) fn has_stopped(&mut self) -> bool {
        let saved = self.saving.is_none() || self.disk_full;
        let asked = self.pending.is_empty() && self.forwards.is_empty() && self.reads.is_empty();
        let (other, now) = (self.another_leads(), self.now.monotonic);
        let Some(stopping) = &mut self.stopping else {
            return false;
        };
        if other && stopping.handed_over.is_none() {
            stopping.handed_over = Some(now);
        }
        let finishes = self.rules.keeps(Rule::StopFinishes);
        let lingered = stopping
            .handed_over
            .is_some_and(|since| now - since >= LINGER);
        let idle = saved && asked && (lingered || !stopping.led);
        idle || !finishes || now - stopping.since >= STOP_TIMEOUT
    }

    fn another_leads(&self) -> bool {
        let core = &self.core;
        core.leader().is_some_and(|NodeId(id)| id != core.id().0)
    }

    /// This member was removed from the cluster. Its process will be asked to stop.
    pub(super) fn was_removed(&mut self) {
        if self.removed.is_none() {
            self.removed = Some(self.now.monotonic);
            self.note(Note::Removed);
        }
    }

    /// Another member reports that this one was removed. If this member leads or has a leader, the report is wrong: the
    /// reporting member has left the cluster, for example because it was started with `--force-new-cluster`. If there
    /// is no leader, this member may have been away when it was removed. Then it believes two members, or the only
    /// other one.
    pub(super) fn is_told_removed(&mut self, by: NodeId) {
        if !self.rules.keeps(Rule::OneWordStopsNobody) {
            return self.was_removed();
        }
        if self.core.leader().is_some() || by == self.core.id() || !self.knows(by) {
            return;
        }
        self.removed_by.insert(by);
        let others = self
            .state
            .members
            .iter()
            .filter(|member| member.id != self.core.id().0);
        if self.removed_by.len() >= others.count().min(2) {
            self.was_removed();
        }
    }

    pub(super) fn end_if_removed(&mut self, now: Monotonic) {
        if self
            .removed
            .is_some_and(|since| now - since >= REMOVED_LINGER)
        {
            self.effects.removed = true;
        }
    }
}
