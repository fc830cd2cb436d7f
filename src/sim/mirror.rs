//! The durable content of a node's disk: everything that a sync has confirmed.

use crate::raft::{Ballot, LogIndex, NodeId, Position, Start, StoredLog, Term};
use crate::wal::Batch;
use std::collections::BTreeMap;

/// The record of one disk's durable content, kept outside of the node.
#[derive(Debug, Default)]
pub(super) struct Mirror {
    pub ballot: Ballot,
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
        self.ballot == Ballot { term, vote } || self.ballot.term > term
    }

    /// Records batches that are on disk. They must not contain another vote in the same term (hazard D1).
    pub fn synced(&mut self, batches: &[Batch]) -> Result<(), String> {
        for batch in batches {
            let before = self.ballot;
            let now = batch.ballot.unwrap_or(before);
            self.ballot = now;
            if now.term == before.term && before.vote.is_some() && now.vote != before.vote {
                return Err(format!(
                    "it votes twice: {before:?} was on disk, now {now:?} is"
                ));
            }
            let positions = batch.entries.iter().map(|entry| entry.position);
            let positions: Vec<Position> = positions.collect();
            if let Some(first) = positions.first() {
                self.entries.split_off(&first.index);
            }
            let entries = positions
                .iter()
                .map(|position| (position.index, position.term));
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
    pub fn reflect(&mut self, start: &Start, ballot: Ballot) {
        self.ballot = ballot;
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
        ballot: Ballot,
        found: &StoredLog,
        snapshot: Position,
    ) -> Option<String> {
        let votes = ballot.term == self.ballot.term && self.ballot.vote.is_some();
        if ballot.term < self.ballot.term || (votes && ballot.vote != self.ballot.vote) {
            return Some(format!("finds {ballot:?}, had stored {:?}", self.ballot));
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
