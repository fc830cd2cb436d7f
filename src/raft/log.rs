//! The core's view of the log: the position of every entry, and the newest entries in memory.
//!
//! The core knows the positions of the whole log as runs of entries with the same term. A log of 100,000 entries
//! written under three leaders takes three runs. Only the newest entries are in memory, up to `memory_bytes`. Older
//! entries are on disk, and the core requests them when it needs them.
//!
//! ```text
//!    snapshot          tail_first            stored    last
//!       |   on disk only   |      in memory     |        |
//!  -----+------------------+--------------------+--------+
//! ```
//!
//! Invariants:
//! - The tail contains the newest entries without a gap: `tail_first + tail.len() == last + 1`.
//! - An entry leaves memory only when it is stored, so `tail_first <= stored + 1`.
//! - `base` is the position before the first entry that is still available. It is the newest snapshot's position, or an
//!   earlier one while memory still contains entries below the snapshot. Keeping them avoids sending a whole snapshot
//!   to a follower that is only a little behind when the log on disk is compacted.
//! - Terms never decrease along the log (paper §5.3: leaders append in the order of their terms).

use super::core::StoredLog;
use super::message::{Entry, LogIndex, Position, Term};
use std::collections::VecDeque;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Log {
    base: Position,
    /// Position of the newest snapshot. Entries up to it can no longer be read from disk.
    snapshot: Position,
    /// First index of each run of entries with the same term, after `base`.
    runs: VecDeque<(LogIndex, Term)>,
    last: LogIndex,
    stored: LogIndex,
    tail: VecDeque<Entry>,
    tail_bytes: usize,
    memory_bytes: usize,
}

impl Log {
    /// The log that recovery found on disk, after the snapshot at `snapshot`.
    pub(super) fn new(snapshot: Position, found: StoredLog, memory_bytes: usize) -> Log {
        let last = found.last.max(snapshot.index);
        let mut log = Log {
            base: snapshot,
            snapshot,
            runs: found.terms.into(),
            last,
            stored: last,
            tail: found.tail.into(),
            tail_bytes: 0,
            memory_bytes,
        };
        log.forget_below(snapshot.index);
        log.tail_bytes = log.tail.iter().map(Entry::bytes_in_memory).sum();
        log.check_found();
        log.trim();
        log
    }

    /// Panics unless recovery handed over a valid log: an invalid one is a bug of this program.
    fn check_found(&self) {
        let first = self.base.index.next();
        let known = self
            .runs
            .front()
            .map_or(self.last == self.base.index, |run| run.0 == first);
        assert!(
            known,
            "terms of {:?} miss entries from {first:?} to {:?}",
            self.runs, self.last
        );
        let mut before = self.base.term;
        for &(index, term) in &self.runs {
            assert!(
                index <= self.last && term >= before,
                "run {index:?} {term:?} after {before:?}"
            );
            before = term;
        }
        for (entry, index) in self.tail.iter().zip(self.tail_first().0..) {
            let expected = self.position_at(LogIndex(index));
            assert_eq!(
                Some(entry.position),
                expected,
                "the tail is not the end of the log"
            );
        }
    }

    pub(super) fn base(&self) -> Position {
        self.base
    }

    pub(super) fn snapshot(&self) -> Position {
        self.snapshot
    }

    pub(super) fn last(&self) -> LogIndex {
        self.last
    }

    /// The entries up to here are on disk, with the content that this log has.
    pub(super) fn stored(&self) -> LogIndex {
        self.stored
    }

    /// Size in bytes and number of the entries in memory.
    pub(super) fn in_memory_size(&self) -> (usize, usize) {
        (self.tail_bytes, self.tail.len())
    }

    /// Position of the last entry.
    pub(super) fn last_position(&self) -> Position {
        let term = self.runs.back().map_or(self.base.term, |run| run.1);
        Position {
            term,
            index: self.last,
        }
    }

    /// First index in memory; `last + 1` if memory has none.
    pub(super) fn tail_first(&self) -> LogIndex {
        LogIndex(self.last.0 + 1 - self.tail.len() as u64)
    }

    /// The term of the entry at `index`. Known from `base` to the last entry.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index < self.base.index || index > self.last {
            return None;
        }
        match self.runs.back() {
            Some(&(first, term)) if index >= first => Some(term),
            _ => {
                let after = self.runs.partition_point(|run| run.0 <= index);
                after.checked_sub(1).map(|run| self.runs[run].1)
            }
        }
    }

    /// The first entry of each run of entries with the same term, after `base`.
    pub(super) fn terms(&self) -> Vec<Position> {
        let position = |&(index, term): &(LogIndex, Term)| Position { term, index };
        self.runs.iter().map(position).collect()
    }

    /// The position of the entry at `index`, if it is known.
    pub(super) fn position_at(&self, index: LogIndex) -> Option<Position> {
        self.term_at(index).map(|term| Position { term, index })
    }

    /// Whether this log has an entry at this position. By log matching, it then has all entries before it too.
    pub(super) fn has(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The last entry at or before `index` with a term of at most `term`: the last position at which two logs could
    /// agree. `None` if it is before `base`.
    pub(super) fn last_at_most(&self, index: LogIndex, term: Term) -> Option<Position> {
        let mut end = index.min(self.last);
        for &(first, run) in self.runs.iter().rev() {
            if first <= end && run <= term {
                return Some(Position {
                    term: run,
                    index: end,
                });
            }
            end = end.min(first.previous());
        }
        (end >= self.base.index && self.base.term <= term).then_some(self.base)
    }

    /// Appends an entry.
    pub(super) fn push(&mut self, entry: Entry) {
        let Position { term, index } = entry.position;
        let end = self.last_position();
        assert!(
            index == end.index.next() && term >= end.term,
            "{} after {end}",
            entry.position
        );
        if term > end.term || self.runs.is_empty() {
            self.runs.push_back((index, term));
        }
        self.last = index;
        self.tail_bytes += entry.bytes_in_memory();
        self.tail.push_back(entry);
    }

    /// Removes every entry from `from` on.
    pub(super) fn truncate(&mut self, from: LogIndex) {
        assert!(
            from > self.base.index,
            "truncating at {from:?}, base {}",
            self.base
        );
        while self
            .tail
            .back()
            .is_some_and(|entry| entry.position.index >= from)
        {
            let gone = self.tail.pop_back().expect("looked at above");
            self.tail_bytes -= gone.bytes_in_memory();
        }
        while self.runs.back().is_some_and(|run| run.0 >= from) {
            self.runs.pop_back();
        }
        self.last = self.last.min(from.previous());
        self.stored = self.stored.min(self.last);
    }

    /// Records that everything up to `position` is on disk, unless the entry at that index has changed since.
    /// `check_term == false` skips that comparison (used by tests that switch the rule off).
    pub(super) fn stored_to(&mut self, position: Position, check_term: bool) {
        if self.has(position) || !check_term {
            self.stored = self.stored.max(position.index.min(self.last));
        }
    }

    /// Drops all entries. The log continues after `snapshot`, which is on disk.
    pub(super) fn reset(&mut self, snapshot: Position) {
        self.tail.clear();
        self.runs.clear();
        self.tail_bytes = 0;
        (self.base, self.snapshot) = (snapshot, snapshot);
        (self.last, self.stored) = (snapshot.index, snapshot.index);
    }

    /// A snapshot at `snapshot` is on disk, so the log before it may be deleted from disk.
    pub(super) fn compact(&mut self, snapshot: Position) {
        self.snapshot = snapshot;
        self.raise_base();
    }

    /// Drops the oldest entries from memory until `memory_bytes` is respected, but no entry that is not on disk. Called
    /// at the end of a step, after the step has used its entries.
    pub(super) fn trim(&mut self) {
        let mut trimmed = false;
        while self.tail_bytes > self.memory_bytes && self.tail_first() <= self.stored {
            let gone = self.tail.pop_front().expect("it has bytes");
            self.tail_bytes -= gone.bytes_in_memory();
            trimmed = true;
        }
        if trimmed {
            self.raise_base();
        }
    }

    /// Moves `base` to the snapshot, or as far towards it as entries are missing from memory.
    fn raise_base(&mut self) {
        let index = self.snapshot.index.min(self.tail_first().previous());
        if index <= self.base.index {
            return;
        }
        let base = self.position_at(index);
        self.base = base.unwrap_or_else(|| panic!("base {index:?} beyond {:?}", self.last));
        self.forget_below(index);
    }

    /// Drops runs and entries at or below `index`.
    fn forget_below(&mut self, index: LogIndex) {
        while self.runs.len() > 1 && self.runs[1].0 <= index.next() {
            self.runs.pop_front();
        }
        match self.runs.front_mut() {
            Some(_) if self.last <= index => self.runs.clear(),
            Some(run) => run.0 = run.0.max(index.next()),
            None => {}
        }
        while self
            .tail
            .front()
            .is_some_and(|entry| entry.position.index <= index)
        {
            self.tail.pop_front();
        }
    }

    /// The entries in memory from `from` (which must be in memory) up to `to`.
    pub(super) fn in_memory(&self, from: LogIndex, to: LogIndex) -> impl Iterator<Item = &Entry> {
        let first = self.tail_first();
        assert!(
            from >= first && to <= self.last,
            "{from:?}..={to:?} of {first:?}.."
        );
        let [start, end] = [from.0 - first.0, (to.0 + 1).saturating_sub(first.0)];
        self.tail
            .range(start as usize..(end as usize).max(start as usize))
    }

    /// Copies entries from memory, starting with `from`: about `bytes` bytes, and at least one entry.
    pub(super) fn batch(&self, from: LogIndex, bytes: usize) -> Vec<Entry> {
        let mut left = bytes;
        let fits = |entry: &&Entry| {
            let fits = left > 0;
            left = left.saturating_sub(entry.bytes_in_memory());
            fits
        };
        self.in_memory(from, self.last)
            .take_while(fits)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::Payload;
    use super::*;
    use crate::random::Random;

    fn at(index: u64, term: u64) -> Position {
        Position {
            term: Term(term),
            index: LogIndex(index),
        }
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            position: at(index, term),
            payload: Payload::Command(Arc::from([0; 40])),
        }
    }

    use std::sync::Arc;

    /// A log as a plain list: the position before it, and the term of each entry.
    struct Model {
        base: Position,
        terms: Vec<u64>,
    }

    impl Model {
        fn last(&self) -> u64 {
            self.base.index.0 + self.terms.len() as u64
        }

        fn term(&self, index: u64) -> Option<Term> {
            if index == self.base.index.0 {
                return Some(self.base.term);
            }
            let at = index.checked_sub(self.base.index.0 + 1)?;
            self.terms.get(at as usize).map(|term| Term(*term))
        }

        fn last_at_most(&self, index: u64, term: u64) -> Option<Position> {
            (self.base.index.0..=index.min(self.last()))
                .rev()
                .filter_map(|index| Some(at(index, self.term(index)?.0)))
                .find(|position| position.term <= Term(term))
        }
    }

    /// Appends, truncates, stores, trims and compacts at random. The runs must agree with a plain list of all terms,
    /// and the tail must be the end of the log.
    #[test]
    fn it_is_as_a_list_of_terms() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut draw = |limit: u64| u64::from(random.between(0, limit as u32));
            let mut log = Log::new(at(0, 0), StoredLog::default(), 500);
            let mut model = Model {
                base: at(0, 0),
                terms: Vec::new(),
            };
            let mut committed = 0;
            for _ in 0..300 {
                let last = model.last();
                match draw(10) {
                    0..6 => {
                        let term = log.last_position().term.0 + draw(8) / 6;
                        log.push(entry(last + 1, term));
                        model.terms.push(term);
                    }
                    6 if last > committed => {
                        let from = committed + 1 + draw(last - committed);
                        log.truncate(LogIndex(from));
                        model
                            .terms
                            .truncate((from - 1 - model.base.index.0) as usize);
                    }
                    7 | 8 if last > 0 => {
                        log.stored_to(log.last_position(), true);
                        log.trim();
                        committed += draw(last - committed + 1);
                    }
                    _ if committed > log.snapshot().index.0 && committed <= log.stored().0 => {
                        log.compact(log.position_at(LogIndex(committed)).unwrap());
                    }
                    _ => {}
                }
                let gone = log.base().index.0 - model.base.index.0;
                if gone > 0 {
                    model.base = at(
                        log.base().index.0,
                        model.term(log.base().index.0).unwrap().0,
                    );
                    model.terms.drain(..gone as usize);
                }
                agree(&log, &model);
            }
        }
    }

    fn agree(log: &Log, model: &Model) {
        assert_eq!((log.base(), log.last().0), (model.base, model.last()));
        for index in model.base.index.0.saturating_sub(2)..model.last() + 3 {
            assert_eq!(
                log.term_at(LogIndex(index)),
                model.term(index),
                "{index} of {log:?}"
            );
        }
        for term in 0..log.last_position().term.0 + 2 {
            let [ours, theirs] = [
                log.last_at_most(LogIndex(model.last()), Term(term)),
                model.last_at_most(model.last(), term),
            ];
            assert_eq!(ours, theirs, "at most {term} in {log:?}");
        }
        let first = log.tail_first();
        let tail: Vec<Entry> = log.in_memory(first, log.last()).cloned().collect();
        assert!(tail.iter().all(|entry| log.has(entry.position)), "{log:?}");
        assert_eq!(
            tail.iter().map(Entry::bytes_in_memory).sum::<usize>(),
            log.in_memory_size().0
        );
        assert!(
            first <= log.stored().next() && first > log.base().index,
            "{log:?}"
        );
    }

    #[test]
    fn memory_below_the_snapshot_is_a_kept_tail() {
        let mut log = Log::new(at(0, 0), StoredLog::default(), 500);
        (1..=20).for_each(|index| log.push(entry(index, 1)));
        log.stored_to(at(20, 1), true);
        log.trim();
        let first = log.tail_first();
        assert!(first > LogIndex(10) && first < LogIndex(18), "{first:?}");
        log.compact(at(18, 1));
        assert_eq!(
            log.base().index,
            first.previous(),
            "memory reaches below the snapshot"
        );
        (21..=40).for_each(|index| log.push(entry(index, 1)));
        log.stored_to(at(40, 1), true);
        log.trim();
        assert_eq!(log.base(), at(18, 1), "it does no longer");
    }

    #[test]
    fn a_batch_has_at_least_one_entry_and_about_the_bytes_asked_for() {
        let mut log = Log::new(at(0, 0), StoredLog::default(), 10_000);
        (1..=20).for_each(|index| log.push(entry(index, 1)));
        assert_eq!(log.batch(LogIndex(3), 1).len(), 1);
        let bytes = entry(1, 1).bytes_in_memory();
        assert_eq!(log.batch(LogIndex(3), 4 * bytes).len(), 4);
        assert_eq!(log.batch(LogIndex(19), usize::MAX).len(), 2);
    }

    #[test]
    #[should_panic(expected = "miss entries")]
    fn a_log_with_a_gap_is_no_log() {
        let found = StoredLog {
            terms: vec![(LogIndex(3), Term(1))],
            last: LogIndex(5),
            ..StoredLog::default()
        };
        drop(Log::new(at(0, 0), found, 500));
    }
}
