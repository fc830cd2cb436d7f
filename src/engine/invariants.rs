//! The invariants that hold after every step of an engine. Release builds check them too: a step costs only a few more
//! comparisons, of numbers that the engine keeps anyway.
//!
//! The checks are about this member's own state. A message, a request or a file that contradicts them is refused before
//! it becomes part of that state, so nothing from outside makes a check fail. A failed check ends the process, because
//! its next reply could be wrong.

use super::Engine;
use super::rules::Rules;
use crate::raft::{LogIndex, Term};
use crate::tree::{ClusterTime, TreeIndex};

/// What a client can see of a member. None of it ever goes back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClientView {
    applied: LogIndex,
    index: TreeIndex,
    time: ClusterTime,
    term: Term,
}

impl<T, R: Rules> Engine<T, R> {
    pub(super) fn look(&self) -> ClientView {
        ClientView {
            applied: self.state.applied,
            index: self.state.tree.index(),
            time: self.state.time,
            term: self.shown_term(),
        }
    }

    /// Called at the end of a step.
    pub(super) fn check_step(&mut self) {
        let (before, now) = (self.seen, self.look());
        self.seen = now;
        assert!(
            now.applied >= before.applied,
            "the applied index went back: {before:?} to {now:?}"
        );
        assert!(
            now.index >= before.index,
            "the tree's index went back: {before:?} to {now:?}"
        );
        assert!(
            now.time >= before.time,
            "cluster time went back: {before:?} to {now:?}"
        );
        assert!(
            now.term >= before.term,
            "the shown term went back: {before:?} to {now:?}"
        );
        self.check_progress();
        self.check_callers();
    }

    /// The state machine has everything that the core has returned, and readers have everything that it has.
    fn check_progress(&self) {
        let (core, state) = (self.core.applied(), self.state.applied);
        assert!(
            state == core || self.installing.is_some(),
            "the core has returned {core:?}, applied is {state:?}"
        );
        assert!(!self.unpublished, "{state:?} is applied and not published");
        assert!(
            self.results.is_empty() && self.lost.is_empty(),
            "{} outcomes and {} replaced entries have no reply",
            self.results.len(),
            self.lost.len()
        );
        let waits = !self.batch.entries.is_empty() || self.batch.hard_state.is_some();
        assert!(
            self.saving.is_some() || !waits,
            "the disk is idle, and a batch up to {:?} waits",
            self.batch.entries.last().map(|entry| entry.position)
        );
    }

    /// One reply per request: a caller has its reply, or waits in exactly one of these places.
    fn check_callers(&self) {
        let waiting = [
            self.pending.len(),
            self.forwards.caller_count(),
            self.reads.caller_count(),
            self.leaderless.caller_count(),
            self.probes.waiting.len() + self.probes.saving.len(),
        ];
        assert_eq!(
            self.callers,
            waiting.iter().sum::<usize>(),
            "requests without a reply; entries, forwards, reads, leaderless, probes: {waiting:?}"
        );
        assert!(
            !self.effects.stopped || self.callers == 0,
            "stopped, and {} requests have no reply",
            self.callers
        );
        assert!(
            self.leaderless.len() > 0 || self.leaderless.bytes() == 0,
            "{} bytes of no request wait for a leader",
            self.leaderless.bytes()
        );
    }
}
