//! Reads that see every write answered before them, without a log entry (dissertation §6.4).
//!
//! The leader notes its commit index and asks the others, by a heartbeat, whether it still leads.
//! Once a majority has answered, the state machine's value at that index is linearizable: no newer
//! leader can have committed anything before the read was asked, or one of that majority would be
//! in a newer term. Reads that come while a round is under way wait for the next one, together.
//!
//! Three rules, each of which some implementation has missed:
//! - no read before the no-op of the term is committed: until then the leader does not know how
//!   far its predecessors had committed. Reads asked earlier wait for it;
//! - only a round begun *after* a read was asked confirms it. Rounds are numbered, never reused in
//!   a term, and the number comes back in the reply; an answer to an older round proves nothing
//!   (a leader that was stopped for a while finds such answers waiting in its sockets);
//! - when the leader steps down, all reads that wait are refused, and may be asked elsewhere.
//!
//! Left out: leases, which save the round and trust clocks instead.

use super::core::{Core, State};
use super::message::{LogIndex, NodeId};
use super::rules::Rules;
use std::collections::VecDeque;

/// The reads of a leader that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Asked, and in no round yet.
    waiting: Vec<u64>,
    /// In a round, oldest first.
    asked: VecDeque<Asked>,
}

#[derive(Debug)]
struct Asked {
    round: u64,
    index: LogIndex,
    ids: Vec<u64>,
}

impl Reads {
    /// Every read that is not answered.
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

    /// Puts the waiting reads into the round that has just begun.
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

    /// Begins a round if reads wait and none is under way; answers those that are confirmed.
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
