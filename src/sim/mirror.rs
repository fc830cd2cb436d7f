//! The durable content of a node's disk: everything that a sync has confirmed.

use crate::raft::{HardState, LogIndex, NodeId, Position, Start, StoredLog, Term};
use crate::wal::Batch;
use std::collections::BTreeMap;

/// The record of one disk's durable content, kept outside of the node.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub hard_state: HardState,
    pub snapshot: Position,
    pub entries: BTreeMap<LogIndex, Term>,
    /// From this index on, a write in progress may have replaced the entries.
    pub unsure_from: Option<LogIndex>,
}

impl Mirror {
    /// Whether a restart would find this entry, or a snapshot that contains it.
    pub fn holds(&self, position: Position) -> bool {
        position.index <= self.snapshot.index
            || self.entries.get(&position.index) == Some(&position.term)
    }

    /// Whether a restart would find this vote, or a later term.
    pub fn has_voted(&self, term: Term, vote: NodeId) -> bool {
        let vote = Some(vote);
        self.hard_state == HardState { term, vote } || self.hard_state.term > term
    }

    /// Records batches that are on disk. They must not contain another vote in the same term (hazard D1).
    pub fn synced(&mut self, batches: &[Batch]) -> Result<(), String> {
        for batch in batches {
            let before = self.hard_state;
            let now = batch.hard_state.unwrap_or(before);
            self.hard_state = now;
            if now.term == before.term && before.vote.is_some() && now.vote != before.vote {
                return Err(format!(
                    "it votes twice: {before:?} was on disk, now {now:?} is"
                ));
            }
            let positions = batch.entries.iter().map(|entry| entry.position);
            let first = positions.clone().next();
            let last = self.entries.last_key_value().map(|(last, _)| *last);
            if let Some(first) = first.filter(|first| last >= Some(first.index)) {
                self.entries.split_off(&first.index);
            }
            let entries = positions.map(|position| (position.index, position.term));
            self.entries.extend(entries);
        }
        Ok(())
    }

    /// Records that a snapshot has replaced the log.
    pub fn installed(&mut self, position: Position) {
        self.entries.clear();
        self.snapshot = position;
    }

    /// Records that a snapshot has its final name, so the log before it may be deleted.
    pub fn snapshot_made(&mut self, position: Position) {
        if self.snapshot.index < position.index {
            self.snapshot = position;
            self.entries = self.entries.split_off(&position.index.next());
        }
    }

    /// Takes over the content that a start has found.
    pub fn reflect(&mut self, start: &Start, hard_state: HardState) {
        self.hard_state = hard_state;
        self.snapshot = start.snapshot.position;
        self.entries.clear();
        self.unsure_from = None;
        let ends = start.log.terms.iter().skip(1).map(|run| run.0);
        let ends = ends.chain([start.log.last.next()]);
        for (&(first, term), end) in start.log.terms.iter().zip(ends) {
            let indexes = (first.0..end.0).map(LogIndex);
            self.entries.extend(indexes.map(|index| (index, term)));
        }
    }

    /// Compares with the content that a start has found, and returns a description of the first missing part.
    pub fn missing_in(
        &self,
        hard_state: HardState,
        found: &StoredLog,
        snapshot: Position,
    ) -> Option<String> {
        let votes = hard_state.term == self.hard_state.term && self.hard_state.vote.is_some();
        if hard_state.term < self.hard_state.term
            || (votes && hard_state.vote != self.hard_state.vote)
        {
            return Some(format!(
                "finds {hard_state:?}, had stored {:?}",
                self.hard_state
            ));
        }
        let sure = |index: LogIndex| self.unsure_from.is_none_or(|unsure| index < unsure);
        let lost = self.entries.iter().find(|&(index, term)| {
            *index > snapshot.index && sure(*index) && term_in(found, *index) != Some(*term)
        });
        lost.map(|(index, term)| {
            let position = Position {
                term: *term,
                index: *index,
            };
            format!("restarts without {position}, which it had stored")
        })
    }
}

fn term_in(log: &StoredLog, index: LogIndex) -> Option<Term> {
    let run = log.terms.iter().rev().find(|run| run.0 <= index);
    run.filter(|_| index <= log.last).map(|run| run.1)
}
