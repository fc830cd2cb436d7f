//! Pending requests: which caller waits for which entry.
//!
//! A write is recorded here when the core has appended it. The entry that is later applied at that index answers it if
//! it still has the recorded term. If it has another term, a new leader has replaced the recorded entry. A write whose
//! deadline passes gets a timeout, but its entry may still be applied: a timeout is not a failure, and the write is not
//! sent again.

use super::time::Monotonic;
use crate::raft::{LogIndex, Position};
use std::collections::VecDeque;

/// A write that waits for its entry.
struct PendingRequest<T> {
    position: Position,
    deadline: Monotonic,
    waiter: T,
}

/// The writes in the order of their entries.
pub struct PendingRequests<T> {
    waiting: VecDeque<PendingRequest<T>>,
}

impl<T> Default for PendingRequests<T> {
    fn default() -> PendingRequests<T> {
        let waiting = VecDeque::new();
        PendingRequests { waiting }
    }
}

impl<T> PendingRequests<T> {
    /// Adds a write. Positions increase. Deadlines do not: a request that has waited for a leader has less time left.
    pub fn push(&mut self, position: Position, deadline: Monotonic, waiter: T) {
        let last = self.waiting.back().map(|last| last.position);
        assert!(
            last.is_none_or(|last| last < position),
            "{position} waits after {last:?}"
        );
        self.waiting.push_back(PendingRequest {
            position,
            deadline,
            waiter,
        });
    }

    /// Returns the caller whose entry is applied at `position`. Callers that waited for another entry at that index are
    /// added to `lost`.
    pub fn take(&mut self, position: Position, lost: &mut Vec<T>) -> Option<T> {
        // Terms never decrease along the log, so an entry of an earlier term can no longer be applied.
        let is_over = |at: Position| at <= position || at.index <= position.index;
        while is_over(self.waiting.front()?.position) {
            let request = self.waiting.pop_front()?;
            if request.position == position {
                return Some(request.waiter);
            }
            lost.push(request.waiter);
        }
        None
    }

    /// Returns the caller that waits at `index`, for any entry ([`super::rules::Rule::TicketNamesItsTerm`]).
    pub fn take_at(&mut self, index: LogIndex) -> Option<T> {
        let at = |request: &PendingRequest<T>| request.position.index == index;
        let place = self.waiting.iter().position(at)?;
        self.waiting.remove(place).map(|request| request.waiter)
    }

    /// Removes and returns the callers whose deadline has passed.
    pub fn expired(&mut self, now: Monotonic) -> Vec<T> {
        let is_late = |request: &PendingRequest<T>| request.deadline <= now;
        if !self.waiting.iter().any(is_late) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.waiting);
        let (late, kept): (VecDeque<_>, _) = all.into_iter().partition(is_late);
        self.waiting = kept;
        late.into_iter().map(|request| request.waiter).collect()
    }

    /// All callers, for a failure that concerns all of them.
    pub fn drain(&mut self) -> Vec<T> {
        self.waiting
            .drain(..)
            .map(|request| request.waiter)
            .collect()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Term;
    use core::time::Duration;

    fn at(term: u64, index: u64) -> Position {
        Position {
            term: Term(term),
            index: LogIndex(index),
        }
    }

    #[test]
    fn an_entry_answers_its_own_ticket_only() {
        let (mut pending, start) = (PendingRequests::default(), Monotonic(1 << 40));
        for (position, name) in [(at(1, 4), "a"), (at(1, 5), "b"), (at(2, 7), "c")] {
            pending.push(position, start, name);
        }
        let mut lost = Vec::new();
        assert!(pending.take(at(1, 3), &mut lost).is_none());
        assert!(pending.take(at(1, 4), &mut lost).is_some());
        assert!(
            pending.take(at(2, 5), &mut lost).is_none(),
            "another leader's entry took b's place"
        );
        assert_eq!(lost, ["b"]);
        assert!(pending.take(at(2, 7), &mut Vec::new()).is_some());
        assert!(pending.is_empty());
    }

    #[test]
    fn tickets_of_an_earlier_term_do_not_stand_before_later_ones() {
        let (mut pending, start) = (PendingRequests::default(), Monotonic(1 << 40));
        for (position, name) in [(at(5, 106), "a"), (at(5, 108), "b"), (at(7, 107), "c")] {
            pending.push(position, start, name);
        }
        let mut lost = Vec::new();
        assert!(pending.take(at(7, 107), &mut lost).is_some());
        assert_eq!(lost, ["a", "b"]);
        assert!(pending.is_empty());
    }

    /// A later leader had an older entry at that index, and committed it with its own.
    #[test]
    fn an_entry_of_an_earlier_term_takes_the_place_of_a_write() {
        let (mut pending, start) = (PendingRequests::default(), Monotonic(1 << 40));
        pending.push(at(7, 107), start, "a");
        let mut lost = Vec::new();
        assert!(pending.take(at(6, 107), &mut lost).is_none());
        assert_eq!(lost, ["a"]);
    }

    #[test]
    fn those_whose_time_is_up_are_taken_in_order() {
        let (mut pending, start) = (PendingRequests::default(), Monotonic(1 << 40));
        // The third one waited for a leader before.
        for (index, seconds, name) in [(1, 1, "a"), (2, 3, "b"), (3, 2, "c")] {
            let deadline = start + Duration::from_secs(seconds);
            pending.push(at(1, index), deadline, name);
        }
        assert!(pending.expired(start).is_empty());
        let late = pending.expired(start + Duration::from_secs(2));
        assert_eq!(late, ["a", "c"]);
        assert!(!pending.is_empty());
    }
}
