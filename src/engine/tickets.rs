//! Tickets: who waits for which entry.
//!
//! A write gets a ticket when the core has appended it. The entry that is later applied at that index
//! answers it, if it still has the ticket's term; another term there means that a new leader replaced
//! it. A ticket that has waited too long is answered so, and its entry may still be applied: a time-out
//! is not a failure, and nobody sends the write again.

use super::{Failure, Waiter};
use crate::raft::Position;
use std::collections::VecDeque;
use std::time::Instant;

/// A write that waits for its entry.
struct Ticket {
    position: Position,
    deadline: Instant,
    waiter: Box<dyn Waiter>,
}

/// Tickets in the order of their entries.
#[derive(Default)]
pub struct Tickets {
    waiting: VecDeque<Ticket>,
}

impl Tickets {
    /// Hands out a ticket. Positions grow, and so do deadlines.
    pub fn push(&mut self, position: Position, deadline: Instant, waiter: Box<dyn Waiter>) {
        debug_assert!(
            self.waiting
                .back()
                .is_none_or(|last| last.position < position)
        );
        self.waiting.push_back(Ticket {
            position,
            deadline,
            waiter,
        });
    }

    /// The waiter of the entry applied at `position`; whoever waited for another entry there has failed.
    pub fn take(
        &mut self,
        position: Position,
        lost: &mut Vec<Box<dyn Waiter>>,
    ) -> Option<Box<dyn Waiter>> {
        // Terms never fall along the log: whoever waits for an entry of an earlier one waits in vain.
        let is_over = |at: Position| at <= position || at.index <= position.index;
        while is_over(self.waiting.front()?.position) {
            let ticket = self.waiting.pop_front()?;
            if ticket.position == position {
                return Some(ticket.waiter);
            }
            lost.push(ticket.waiter);
        }
        None
    }

    /// Those whose time is up.
    pub fn expired(&mut self, now: Instant) -> Vec<Box<dyn Waiter>> {
        let count = self
            .waiting
            .partition_point(|ticket| ticket.deadline <= now);
        self.waiting
            .drain(..count)
            .map(|ticket| ticket.waiter)
            .collect()
    }

    /// Everybody, to be told of a failure that concerns all.
    pub fn drain(&mut self) -> Vec<Box<dyn Waiter>> {
        self.waiting.drain(..).map(|ticket| ticket.waiter).collect()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Why a request got no result. The texts are etcd's where it has one (spec §10).
impl Failure {
    /// The `cause` of the error 300 that the client gets.
    pub fn cause(self) -> &'static str {
        match self {
            Failure::TimedOut => "etcdserver: request timed out",
            Failure::LeaderLost => {
                "etcdserver: request timed out, possibly due to previous leader failure"
            }
            Failure::Stopped => "etcdserver: server stopped",
            Failure::Overloaded => "etcdserver: too many requests",
            Failure::DiskFull => {
                "etcdserver: no space left on the disk, writes are refused until there is"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::Outbox;
    use crate::raft::{LogIndex, Term};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    struct Named(&'static str, Arc<Mutex<Vec<String>>>);

    impl Waiter for Named {
        fn done(self: Box<Self>, _: &super::super::Done, _: &mut Outbox) {
            self.1.lock().unwrap().push(format!("{} done", self.0));
        }
        fn failed(self: Box<Self>, failure: Failure, _: &mut Outbox) {
            self.1
                .lock()
                .unwrap()
                .push(format!("{} {failure:?}", self.0));
        }
    }

    fn at(term: u64, index: u64) -> Position {
        Position {
            term: Term(term),
            index: LogIndex(index),
        }
    }

    fn fail(waiters: Vec<Box<dyn Waiter>>, log: &Arc<Mutex<Vec<String>>>) -> Vec<String> {
        waiters
            .into_iter()
            .for_each(|w| w.failed(Failure::LeaderLost, &mut Outbox::default()));
        std::mem::take(&mut log.lock().unwrap())
    }

    #[test]
    fn an_entry_answers_its_own_ticket_only() {
        let log = Arc::default();
        let (mut tickets, start) = (Tickets::default(), Instant::now());
        for (position, name) in [(at(1, 4), "a"), (at(1, 5), "b"), (at(2, 7), "c")] {
            tickets.push(position, start, Box::new(Named(name, Arc::clone(&log))));
        }
        let mut lost = Vec::new();
        assert!(tickets.take(at(1, 3), &mut lost).is_none());
        assert!(tickets.take(at(1, 4), &mut lost).is_some());
        assert!(
            tickets.take(at(2, 5), &mut lost).is_none(),
            "another leader's entry took b's place"
        );
        assert_eq!(fail(lost, &log), ["b LeaderLost"]);
        assert!(tickets.take(at(2, 7), &mut Vec::new()).is_some());
        assert!(tickets.is_empty());
    }

    #[test]
    fn tickets_of_an_earlier_term_do_not_stand_before_later_ones() {
        let log = Arc::default();
        let (mut tickets, start) = (Tickets::default(), Instant::now());
        for (position, name) in [(at(5, 106), "a"), (at(5, 108), "b"), (at(7, 107), "c")] {
            tickets.push(position, start, Box::new(Named(name, Arc::clone(&log))));
        }
        let mut lost = Vec::new();
        assert!(tickets.take(at(7, 107), &mut lost).is_some());
        assert_eq!(fail(lost, &log), ["a LeaderLost", "b LeaderLost"]);
        assert!(tickets.is_empty());
    }

    #[test]
    fn those_whose_time_is_up_are_taken_in_order() {
        let log = Arc::default();
        let (mut tickets, start) = (Tickets::default(), Instant::now());
        for (index, name) in [(1, "a"), (2, "b"), (3, "c")] {
            let deadline = start + Duration::from_secs(index);
            tickets.push(
                at(1, index),
                deadline,
                Box::new(Named(name, Arc::clone(&log))),
            );
        }
        assert!(tickets.expired(start).is_empty());
        let late = tickets.expired(start + Duration::from_secs(2));
        assert_eq!(fail(late, &log), ["a LeaderLost", "b LeaderLost"]);
        assert!(!tickets.is_empty());
    }
}
