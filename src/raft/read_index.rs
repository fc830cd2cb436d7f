//! Reads that see every write that was answered before them, without a log entry (dissertation §6.4).
//!
//! The leader records its commit index and sends a heartbeat, to find out whether it still leads. When a majority has
//! replied, a read of the state machine at that index is linearizable: if a newer leader had committed anything before
//! the read arrived, a node of that majority would be in a newer term. Reads that arrive during a round wait for the
//! next one, and share it.
//!
//! There are three rules, and each of them is missing in some implementation:
//! - The leader answers no read before the no-op of its term is committed. Until then it does not know how far its
//!   predecessors had committed. Earlier reads wait.
//! - Only a round that began *after* the read arrived confirms it. Rounds are numbered, no number is used twice in a
//!   term, and the reply contains the number. A reply to an older round proves nothing: a leader that was stopped for a
//!   while finds such replies in its sockets.
//! - When the leader steps down, it refuses all waiting reads. The caller may ask another member.
//!
//! Leases are not implemented. They would save the round, but depend on clocks.

use super::core::{Core, State};
use super::message::{LogIndex, NodeId};
use super::rules::Rules;
use std::collections::VecDeque;

/// A leader's unanswered reads.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Reads that are not part of a round yet.
    waiting: Vec<u64>,
    /// Reads that are part of a round, oldest round first.
    asked: VecDeque<Asked>,
}

#[derive(Debug)]
struct Asked {
    round: u64,
    index: LogIndex,
    ids: Vec<u64>,
}

impl Reads {
    /// The ids of all unanswered reads.
    pub(super) fn all(self) -> impl Iterator<Item = u64> {
        self.asked
            .into_iter()
            .flat_map(|asked| asked.ids)
            .chain(self.waiting)
    }
}

impl<R: Rules> Core<R> {
    pub(super) fn ask_read(&mut self, id: u64) {
        match &mut self.state {
            State::Leader(leading) => leading.reads.waiting.push(id),
            _ => self.todo.refused_reads.push(id),
        }
    }

    /// Adds the waiting reads to the round that has just begun.
    pub(super) fn join_round(&mut self) {
        let State::Leader(leading) = &mut self.state else {
            return;
        };
        let known = self.commit >= leading.term_start || !R::READ_AFTER_NOOP;
        if known && !leading.reads.waiting.is_empty() {
            let ids = std::mem::take(&mut leading.reads.waiting);
            let asked = Asked {
                round: leading.round,
                index: self.commit,
                ids,
            };
            leading.reads.asked.push_back(asked);
        }
    }

    /// Answers the confirmed reads, and begins a round if reads wait and no round is in progress.
    pub(super) fn serve_reads(&mut self) {
        let State::Leader(leading) = &self.state else {
            return;
        };
        if leading.reads.asked.is_empty() && !leading.reads.waiting.is_empty() {
            self.begin_read_round();
        }
        let State::Leader(leading) = &mut self.state else {
            return;
        };
        if leading.reads.asked.is_empty() {
            return;
        }
        let (own, progress, round) = (self.settings.id, &leading.progress, leading.round);
        let confirmed = self
            .members
            .current()
            .reached(|id: NodeId| match id == own {
                true => round,
                false => progress.get(&id).map_or(0, |progress| progress.round),
            });
        while leading
            .reads
            .asked
            .front()
            .is_some_and(|asked| asked.round <= confirmed)
        {
            let asked = leading.reads.asked.pop_front().expect("looked at above");
            self.todo
                .reads
                .extend(asked.ids.into_iter().map(|id| (id, asked.index)));
        }
        if leading.reads.asked.is_empty() && !leading.reads.waiting.is_empty() {
            self.begin_read_round();
        }
    }

    fn begin_read_round(&mut self) {
        let State::Leader(leading) = &self.state else {
            return;
        };
        if self.commit < leading.term_start && R::READ_AFTER_NOOP {
            return;
        }
        match R::READ_ROUND_IS_NEW {
            true => self.heartbeat(),
            false => self.join_round(),
        }
    }
}
