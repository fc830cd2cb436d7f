//! The outline of the log: where it starts and ends, and which terms it contains.

use crate::raft::{LogIndex, Position, Term};

/// Everything about the log except the content of its entries.
///
/// Invariants: `runs` ascends by index. Each run starts at or after `first` and at or before `last.index`. If the log
/// has an entry, the first run starts at `first`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    /// The lowest index in the log. If the log is empty, the index of the next entry.
    first: LogIndex,
    /// Term of the entry just before `first`, if known.
    before: Option<Term>,
    last: Position,
    runs: Vec<(LogIndex, Term)>,
}

impl Shape {
    /// An empty log that continues after `last`.
    pub fn after(last: Position) -> Shape {
        Shape {
            first: LogIndex(last.index.0 + 1),
            before: Some(last.term),
            last,
            runs: Vec::new(),
        }
    }

    pub fn first(&self) -> LogIndex {
        self.first
    }

    pub fn last(&self) -> Position {
        self.last
    }

    /// Whether an entry at `index` leaves no gap.
    pub fn admits(&self, index: LogIndex) -> bool {
        index.0 >= 1 && index.0 <= self.last.index.0 + 1
    }

    /// Adds an entry at `position`. It replaces all entries from its index on.
    pub fn put(&mut self, position: Position) {
        let Position { term, index } = position;
        assert!(self.admits(index), "entry {index:?} after {:?}", self.last);
        if index.0 <= self.last.index.0 {
            self.runs
                .truncate(self.runs.partition_point(|run| run.0 < index));
            if index < self.first {
                // Happens only while a log is read whose older files were deleted.
                self.first = index;
                self.before = None;
            }
        }
        if self.runs.last().is_none_or(|run| run.1 != term) {
            self.runs.push((index, term));
        }
        self.last = position;
    }

    /// Term of the entry at `index`, which may also be the one just before the first entry.
    pub fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index.0 + 1 == self.first.0 {
            return self.before;
        }
        if index < self.first || index > self.last.index {
            return None;
        }
        let run = self.runs.partition_point(|run| run.0 <= index);
        self.runs[..run].last().map(|run| run.1)
    }

    /// Whether the log contains the entry at this position, or begins right after it.
    pub fn holds(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The runs of terms after `index`.
    pub fn runs_after(&self, index: LogIndex) -> Vec<(LogIndex, Term)> {
        let from = LogIndex(index.0 + 1).max(self.first);
        let begun = self.runs.partition_point(|run| run.0 <= from);
        let before = self.runs[..begun].last().map(|run| (from, run.1));
        let inside = before.filter(|_| from <= self.last.index);
        inside
            .into_iter()
            .chain(self.runs[begun..].iter().copied())
            .collect()
    }

    /// Forgets the entries up to and including `index`, whose files were deleted.
    pub fn forget(&mut self, index: LogIndex) {
        if index < self.first {
            return;
        }
        assert!(
            index <= self.last.index,
            "forgets {index:?} of {:?}",
            self.last
        );
        let before = self.term_at(index);
        self.runs = self.runs_after(index);
        self.first = LogIndex(index.0 + 1);
        self.before = before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, term: u64) -> Position {
        Position {
            term: Term(term),
            index: LogIndex(index),
        }
    }

    fn runs(shape: &Shape, after: u64) -> Vec<(u64, u64)> {
        let runs = shape.runs_after(LogIndex(after));
        runs.into_iter()
            .map(|(index, term)| (index.0, term.0))
            .collect()
    }

    #[test]
    fn entries_extend_and_replace() {
        let mut shape = Shape::after(Position::default());
        for position in [at(1, 1), at(2, 1), at(3, 2), at(4, 2)] {
            shape.put(position);
        }
        assert_eq!(runs(&shape, 0), [(1, 1), (3, 2)]);
        assert_eq!(runs(&shape, 1), [(2, 1), (3, 2)]);
        assert_eq!(runs(&shape, 3), [(4, 2)]);
        assert_eq!(runs(&shape, 4), []);
        shape.put(at(2, 3));
        assert_eq!(
            (runs(&shape, 0), shape.last()),
            (vec![(1, 1), (2, 3)], at(2, 3))
        );
        assert!(
            shape.admits(LogIndex(3)) && !shape.admits(LogIndex(4)) && !shape.admits(LogIndex(0))
        );
        assert!(shape.holds(at(1, 1)) && !shape.holds(at(1, 2)) && !shape.holds(at(3, 3)));
    }

    #[test]
    fn what_is_forgotten_leaves_its_term() {
        let mut shape = Shape::after(at(10, 4));
        assert!(shape.holds(at(10, 4)) && shape.first() == LogIndex(11));
        for index in 11..=20 {
            shape.put(at(index, 5));
        }
        shape.forget(LogIndex(15));
        assert_eq!(
            (shape.first(), runs(&shape, 0)),
            (LogIndex(16), vec![(16, 5)])
        );
        assert!(shape.holds(at(15, 5)) && shape.term_at(LogIndex(14)).is_none());
        shape.forget(LogIndex(20));
        assert_eq!((runs(&shape, 0), shape.last()), (vec![], at(20, 5)));
        shape.put(at(21, 6));
        assert_eq!(runs(&shape, 0), [(21, 6)]);
    }
}
