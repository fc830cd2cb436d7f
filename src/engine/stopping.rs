//! The end: leadership is handed over, what is under way is finished, and the last answers are given.

use super::RaftThread;
use crate::raft::{Input, NodeId};
use std::time::{Duration, Instant};

/// A stopping replica waits this long for what was handed to it.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A leader that has handed over stays this long, to hand back what followers still forward to it.
const LINGER: Duration = Duration::from_millis(100);

/// A member that is removed stays this long, so that the others learn of it too.
const REMOVED_LINGER: Duration = Duration::from_millis(500);

/// How far stopping has come.
pub(super) struct Stopping {
    since: Instant,
    /// It led others when it was told to stop.
    led: bool,
    /// Since when another leads.
    handed_over: Option<Instant>,
}

impl RaftThread {
    /// What was handed over until now is finished; what comes after is refused.
    pub(super) fn begin_stop(&mut self) {
        self.take_requests(None);
        let led = self.wiring.core.is_leader() && self.wiring.core.membership().voters.len() > 1;
        if led {
            self.step(Input::Transfer { to: None });
        }
        self.stopping = Some(Stopping {
            since: Instant::now(),
            led,
            handed_over: None,
        });
    }

    /// Nothing that was handed to this thread is still under way, or it took too long.
    pub(super) fn has_stopped(&mut self) -> bool {
        let saved = self.saving.is_none() || self.disk_full;
        let asked = self.tickets.is_empty() && self.forwards.is_empty() && self.reads.is_empty();
        let other = self.another_leads();
        let Some(stopping) = &mut self.stopping else {
            return false;
        };
        if other && stopping.handed_over.is_none() {
            stopping.handed_over = Some(Instant::now());
        }
        let lingered = stopping
            .handed_over
            .is_some_and(|since| since.elapsed() >= LINGER);
        let idle = saved && asked && (lingered || !stopping.led);
        idle || stopping.since.elapsed() >= STOP_TIMEOUT
    }

    fn another_leads(&self) -> bool {
        let core = &self.wiring.core;
        core.leader().is_some_and(|NodeId(id)| id != core.id().0)
    }

    /// This member is no longer one: it will be told to stop.
    pub(super) fn was_removed(&mut self) {
        if self.removed.is_none() {
            self.removed = Some(Instant::now());
            log::warn!("this member was removed from the cluster: it stops");
        }
    }

    pub(super) fn tell_removed(&mut self, now: Instant) {
        if self
            .removed
            .is_some_and(|since| now - since >= REMOVED_LINGER)
        {
            // Once is enough; whoever listens may have heard it, or be stopping anyway.
            let _ = self.wiring.removed.try_send(());
        }
    }
}
