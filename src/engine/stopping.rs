//! The end: leadership is handed over, what is under way is finished, and the last answers are given.

use super::rules::{Rule, Rules};
use super::time::Monotonic;
use super::{Engine, Note};
use crate::raft::{Input, NodeId};
use core::time::Duration;

/// A stopping replica waits this long for what was handed to it.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A leader that has handed over stays this long, to hand back what followers still forward to it.
const LINGER: Duration = Duration::from_millis(100);

/// A member that is removed stays this long, so that the others learn of it too.
const REMOVED_LINGER: Duration = Duration::from_millis(500);

/// How far stopping has come.
pub(super) struct Stopping {
    since: Monotonic,
    /// It led others when it was told to stop.
    led: bool,
    /// Since when another leads.
    handed_over: Option<Monotonic>,
}

impl<T, R: Rules> Engine<T, R> {
    /// What was handed over until now is finished; what comes after is refused.
    pub(super) fn begin_stop(&mut self) {
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

    /// Nothing that was handed to this thread is still under way, or it took too long.
    pub(super) fn has_stopped(&mut self) -> bool {
        let saved = self.saving.is_none() || self.disk_full;
        let asked = self.tickets.is_empty() && self.forwards.is_empty() && self.reads.is_empty();
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

    /// This member is no longer one: it will be told to stop.
    pub(super) fn was_removed(&mut self) {
        if self.removed.is_none() {
            self.removed = Some(self.now.monotonic);
            self.note(Note::Removed);
        }
    }

    /// A member says that this one was removed. One that leads or hears a leader is none: whoever says so has left the
    /// cluster, such as one that was told to go on alone. One that hears no leader may have been away when it was
    /// removed: it believes two members, or the only other one there is.
    pub(super) fn is_told_removed(&mut self, by: NodeId) {
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
